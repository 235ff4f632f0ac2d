//! What `ssh` and the far side say on standard error.

use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What is remembered, bytes.
const MOST: usize = 8 * 1024;
/// Lines that an error quotes: ssh says last what it fails of.
const QUOTED: usize = 6;
/// How long what a process has said last may take when it has ended. Its end of the pipe may stay open: a process that it
/// has left behind, such as the master of shared connections, holds it.
const LATE: Duration = Duration::from_millis(200);

/// Reads the standard error of an `ssh`.
///
/// On a terminal it is passed on as it comes: it may be a banner that stands before a password is asked for, or tell what to
/// do in order to log in. Elsewhere it is held back until it is known whether it becomes part of an error; then it is passed
/// on, and all that follows.
pub(crate) struct Words(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

struct State {
    /// The end of what was said.
    tail: Vec<u8>,
    /// How much of that, at its end, was not passed on.
    held: usize,
    /// Whether what comes is passed on at once.
    live: bool,
    over: bool,
}

impl Words {
    /// Reads until the end, on a thread.
    pub fn of(stderr: impl Read + Send + 'static, quiet: bool) -> io::Result<Self> {
        let state = State { tail: Vec::new(), held: 0, live: !quiet && io::stderr().is_terminal(), over: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), ended: Condvar::new() });
        let reader = shared.clone();
        thread::Builder::new().name("farref-stderr".into()).spawn(move || reader.read(stderr))?;
        Ok(Self(shared))
    }

    /// All went well: what was said is for the user, now and from now on.
    pub fn pass_on(&self) {
        let mut state = self.0.lock();
        state.show_held(usize::MAX);
        state.live = true;
    }

    /// Something failed: the end of what was said, and its last lines as one, for an error to quote. The lines are empty if
    /// the user has seen them.
    pub fn said(&self) -> (String, String) {
        self.wait_for_the_last();
        let state = self.0.lock();
        let tail = String::from_utf8_lossy(&state.tail).into_owned();
        let unseen = state.tail.get(state.tail.len() - state.held..).unwrap_or_default();
        (tail, quoted(&String::from_utf8_lossy(unseen)))
    }

    /// Waits a moment, until all that was said is read.
    pub fn wait_for_the_last(&self) {
        let start = Instant::now();
        let mut state = self.0.lock();
        while !state.over {
            let left = LATE.saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            state = self.0.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn read(&self, mut stderr: impl Read) {
        let mut chunk = [0; 4096];
        loop {
            match stderr.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => self.lock().take(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.lock().over = true;
        self.ended.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, said: &[u8]) {
        self.tail.extend_from_slice(said);
        self.held += said.len();
        // What is too much to be held is no error any more, but nothing that may be lost either.
        let most = if self.live { 0 } else { MOST };
        self.show_held(self.held.saturating_sub(most));
        let forgotten = self.tail.len().saturating_sub(MOST);
        self.tail.drain(..forgotten);
    }

    /// Passes on so much of what is held.
    fn show_held(&mut self, most: usize) {
        let start = self.tail.len() - self.held;
        let count = self.held.min(most);
        // Nobody can be told that nobody can be told.
        let _ = io::stderr().write_all(&self.tail[start..start + count]);
        self.held -= count;
    }
}

/// The last lines as one, without frames of stars and the like.
pub(super) fn quoted(text: &str) -> String {
    let says_something = |line: &&str| line.chars().any(char::is_alphanumeric);
    let lines: Vec<_> = text.lines().map(str::trim).filter(says_something).collect();
    let line = lines[lines.len().saturating_sub(QUOTED)..].join("; ");
    // Text of others moves no cursor.
    line.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_quoted_as_one() {
        assert_eq!(quoted(""), "");
        assert_eq!(quoted("@@@@\n\n ssh: no\r\nwhy\x1b[2J\n****\n"), "ssh: no; why\\u{1b}[2J");
        let many: String = (0..100).map(|number| format!("line {number}\n")).collect();
        assert_eq!(quoted(&many), "line 94; line 95; line 96; line 97; line 98; line 99");
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut state = State { tail: Vec::new(), held: 0, live: false, over: false };
        for _ in 0..3 {
            state.take(&[b'\n'; MOST / 2]);
        }
        state.take(b"the end");
        assert_eq!((state.tail.len(), state.held), (MOST, MOST));
        assert!(state.tail.ends_with(b"the end"));
        state.show_held(usize::MAX);
        assert_eq!((state.tail.len(), state.held), (MOST, 0));
        state.live = true;
        state.take(b"\n");
        assert_eq!((state.tail.len(), state.held), (MOST, 0));
    }
}
