//! Memory that several connections may use together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that the connections which share it may use together for what peers make them keep: buffers, tables, the arguments of
/// calls that are served, results that a peer does not take. Clones are the same budget.
///
/// When it is used up, calls are refused as overloaded, and connections that would need more for anything else are closed.
#[derive(Clone, Debug, Default)]
pub struct Budget(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    /// So many bytes for all that shares it.
    pub fn new(limit: usize) -> Self {
        Self(Some(Arc::new(Inner { limit, used: AtomicUsize::new(0) })))
    }

    /// No limit but those of each connection.
    pub fn unlimited() -> Self {
        Self(None)
    }

    /// Whether it has a limit.
    pub fn is_limited(&self) -> bool {
        self.0.is_some()
    }

    /// Bytes that are in use; not counted, and 0, without a limit.
    pub fn used(&self) -> usize {
        self.0.as_ref().map_or(0, |inner| inner.used.load(Ordering::Relaxed))
    }

    /// Nothing taken yet.
    pub fn charge(&self) -> Charge {
        Charge { budget: self.clone(), bytes: 0 }
    }
}

/// A part of a [`Budget`], given back when it is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: usize,
}

impl Charge {
    /// Makes it so many bytes; false if that is more than there is, nothing has changed then.
    #[must_use]
    pub fn set(&mut self, bytes: usize) -> bool {
        let Some(inner) = self.budget.0.as_ref().filter(|_| bytes != self.bytes) else { return true };
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            let used = inner.used.fetch_add(more, Ordering::Relaxed);
            if used.saturating_add(more) > inner.limit {
                inner.used.fetch_sub(more, Ordering::Relaxed);
                return false;
            }
        } else {
            inner.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let _ = self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_shared_and_given_back() {
        let budget = Budget::new(100);
        let (mut one, mut other) = (budget.charge(), budget.clone().charge());
        assert!(one.set(60));
        assert!(!other.set(41));
        assert!(other.set(40));
        assert!(!one.set(61));
        assert!(one.set(10));
        assert!(other.set(90));
        drop(other);
        assert_eq!(budget.used(), 10);
        assert!(Budget::unlimited().charge().set(usize::MAX));
    }
}
