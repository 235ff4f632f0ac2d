//! Which sessions of a server have no connection, and what is known of those that are gone.

use std::collections::{HashMap, VecDeque};

/// Sessions without a connection, the one that has waited longest first.
#[derive(Default)]
pub(crate) struct Parked {
    waiting: VecDeque<(u64, usize)>,
    memory: usize,
}

impl Parked {
    /// This one takes so many bytes.
    pub fn add(&mut self, id: u64, memory: usize) {
        self.waiting.push_back((id, memory));
        self.memory += memory;
    }

    pub fn remove(&mut self, id: u64) {
        if let Some(at) = self.waiting.iter().position(|(have, _)| *have == id)
            && let Some((_, memory)) = self.waiting.remove(at)
        {
            self.memory -= memory;
        }
    }

    /// The one that has waited longest.
    pub fn first(&self) -> Option<u64> {
        self.waiting.front().map(|(id, _)| *id)
    }

    pub fn has(&self, id: u64) -> bool {
        self.ids().any(|have| have == id)
    }

    pub fn ids(&self) -> impl Iterator<Item = u64> {
        self.waiting.iter().map(|(id, _)| *id)
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes that all of them take.
    pub fn memory(&self) -> usize {
        self.memory
    }
}

/// What sessions had got of their peers' messages when they went: by it a peer knows which calls were never started (LNK-6).
#[derive(Default)]
pub(crate) struct Gone {
    got: HashMap<[u8; 16], u64>,
    /// The oldest first.
    tokens: VecDeque<[u8; 16]>,
}

/// How many of them are remembered.
const REMEMBERED: usize = 1024;

impl Gone {
    pub fn add(&mut self, token: [u8; 16], got: u64) {
        if self.tokens.len() >= REMEMBERED
            && let Some(oldest) = self.tokens.pop_front()
        {
            self.got.remove(&oldest);
        }
        if self.got.insert(token, got).is_none() {
            self.tokens.push_back(token);
        }
    }

    /// 0 if it is not known.
    pub fn got(&self, token: &[u8; 16]) -> u64 {
        self.got.get(token).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut gone = Gone::default();
        let token = |number: u64| {
            let mut token = [7; 16];
            token[..8].copy_from_slice(&number.to_le_bytes());
            token
        };
        for number in 1..=2000 {
            gone.add(token(number), number);
        }
        assert_eq!((gone.tokens.len(), gone.got.len()), (REMEMBERED, REMEMBERED));
        assert_eq!([976, 977, 2000].map(|number| gone.got(&token(number))), [0, 977, 2000]);
    }

    #[test]
    fn memory_is_added_up() {
        let mut parked = Parked::default();
        parked.add(1, 10);
        parked.add(2, 20);
        parked.add(3, 30);
        parked.remove(2);
        parked.remove(2);
        assert_eq!((parked.len(), parked.memory(), parked.first()), (2, 40, Some(1)));
        assert!(parked.has(3) && !parked.has(2));
    }
}
