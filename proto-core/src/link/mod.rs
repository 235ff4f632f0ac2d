//! What makes a line that loses, changes and repeats frames deliver each record exactly once and in order.
//!
//! A link stands between frames and a session. It keeps no records: those stay in the session's output until the peer has
//! acknowledged them, and are written again from there ([`Records`]). It does no IO and knows no clock: time is an argument,
//! in milliseconds of any clock that does not go back.

pub mod serial;

use crate::message::Message;
use crate::session::{Ended, Session, Storage};

/// Where a link takes records from: the output of a session.
///
/// Hello is number 0, each sequenced message has its ordinal (MSG-2). What is not sequenced has no number and is gone once it
/// was sent.
pub trait Records {
    /// The first record that has not been sent, or not since the last [`Self::rewind`]: its number, and its body.
    fn next_record(&mut self) -> Option<(Option<u64>, &[u8])>;

    /// What [`Self::next_record`] gives was sent.
    fn record_sent(&mut self);

    /// The peer has got all records below this number: they are not needed any more, sent again or not.
    fn acknowledge(&mut self, got: u64);

    /// All that was sent and not acknowledged is to be sent again, in the same order.
    fn rewind(&mut self);

    /// The link ends the session.
    fn end(&mut self, ended: Ended);
}

/// A session in the mode [`LinkMode::Line`](crate::session::LinkMode::Line).
impl<S: Storage> Records for Session<S> {
    fn next_record(&mut self) -> Option<(Option<u64>, &[u8])> {
        let (ordinal, body) = self.next_record()?;
        Some((if Message::is_hello(body) { Some(0) } else { ordinal }, body))
    }

    fn record_sent(&mut self) {
        self.record_transmitted();
    }

    fn acknowledge(&mut self, got: u64) {
        self.acknowledge(got);
    }

    fn rewind(&mut self) {
        self.rewind();
    }

    fn end(&mut self, ended: Ended) {
        self.end(ended);
    }
}
