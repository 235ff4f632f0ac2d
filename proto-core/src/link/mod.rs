//! What makes a line that loses, changes and repeats frames deliver each record exactly once and in order.
//!
//! A link stands between frames and a session. It keeps no records: those stay in the session's output until the peer has
//! acknowledged them, and are written again from there ([`Records`]). It does no IO and knows no clock: time is an argument,
//! in milliseconds of any clock that does not go back.

pub mod serial;

use crate::session::{Ended, Session, Storage};

/// Where a link takes records from: the output of a session, Hello first.
pub trait Records {
    /// The first record that has not been sent, or not since the last [`Self::rewind`].
    fn next_record(&mut self) -> Option<&[u8]>;

    /// What [`Self::next_record`] gives was sent. It is kept.
    fn record_sent(&mut self);

    /// The first so many of those that are kept are not needed any more, sent again or not: the peer has them.
    fn acknowledge(&mut self, count: u64);

    /// All that is kept is to be sent again, in the same order.
    fn rewind(&mut self);

    /// The link ends the session.
    fn end(&mut self, ended: Ended);
}

/// A session in the mode [`LinkMode::Line`](crate::session::LinkMode::Line).
impl<S: Storage> Records for Session<S> {
    fn next_record(&mut self) -> Option<&[u8]> {
        self.next_record()
    }

    fn record_sent(&mut self) {
        self.record_transmitted();
    }

    fn acknowledge(&mut self, count: u64) {
        self.acknowledge(count);
    }

    fn rewind(&mut self) {
        self.rewind();
    }

    fn end(&mut self, ended: Ended) {
        self.end(ended);
    }
}
