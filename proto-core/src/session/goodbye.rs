//! The counted, quiescent end of a session (CLS-2): it is over when both sides know that nothing is under way.
//!
//! ```text
//!  open ── shutdown ──► leaving ── idle ──► said Goodbye ── the other's Goodbye ──► done
//!                          ▲                    │
//!                          └── any sequenced message, either way ◄┘
//! ```

use super::receive::fault;
use super::storage::Storage;
use super::{Ended, Rule, Session};
use crate::codec::Writer;
use crate::message::kind;

/// What was said and heard of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Goodbyes {
    /// The host wants the session to end.
    pub leaving: bool,
    /// Whether each was said or heard, and is not void.
    said: bool,
    heard: bool,
}

impl Goodbyes {
    pub const NONE: Self = Self { leaving: false, said: false, heard: false };

    /// Any sequenced message, either way, makes both void.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn void(&mut self) {
        (self.said, self.heard) = (false, false);
    }
}

impl<S: Storage> Session<S> {
    /// Ends the session when nothing is under way any more, without the loss of a call (CLS-2): [`Ended::Done`], on both
    /// sides. From now on calls can only be made within calls of the peer. What the peer calls meanwhile is served.
    pub fn shutdown(&mut self) {
        self.goodbyes.leaving = true;
    }

    /// Whether calls that no call of the peer has caused cannot be made any more.
    pub(super) fn is_leaving(&self) -> bool {
        self.goodbyes.leaving || self.is_said()
    }

    /// Whether a Goodbye was said that is not void.
    pub(super) fn is_said(&self) -> bool {
        self.goodbyes.said
    }

    /// Whether a Goodbye is to be said: asked for by the host or by the peer, when nothing is under way.
    pub(super) fn goodbye_due(&self) -> bool {
        (self.goodbyes.leaving || self.goodbyes.heard) && !self.is_said() && self.is_idle()
    }

    /// Whether no call is under way, either way, and nothing is to be sent but what is written.
    fn is_idle(&self) -> bool {
        self.open_questions == 0 && self.used_answers == 0 && !self.lists_are_due() && self.unknown_kinds == 0
    }

    pub(super) fn on_goodbye(&mut self, received: u64) -> Result<(), Ended> {
        if received > self.sent {
            return Err(fault(Rule::GoodbyeAhead));
        }
        // One that crossed something of ours is void from the start.
        self.goodbyes.heard = received == self.sent;
        match self.is_done() {
            true => Err(Ended::Done),
            false => Ok(()),
        }
    }

    /// Says Goodbye if it is due; false if there is no room.
    pub(super) fn pump_goodbye(&mut self) -> bool {
        if self.goodbye_due() {
            let mut bytes = [0; 11];
            let mut writer = Writer::new(&mut bytes);
            writer.byte(kind::GOODBYE);
            writer.varint(self.received);
            if !self.append_unsequenced(&writer) {
                return false;
            }
            self.goodbyes.said = true;
            if self.is_done() {
                self.end(Ended::Done);
            }
        }
        true
    }

    /// It is to be said again, if it is due still: the connection on which it was said is lost, and it is not kept (LNK-4).
    pub(super) fn unsay_goodbye(&mut self) {
        self.goodbyes.said = false;
    }

    /// Whoever has said Goodbye was idle then, and has sent and received nothing since. What was dropped meanwhile needs no
    /// Release any more.
    fn is_done(&self) -> bool {
        self.is_said() && self.goodbyes.heard
    }
}
