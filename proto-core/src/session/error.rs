//! Whose fault it is: the peer's ([`Rule`], in [`Ended`]), or the caller's of this API ([`CallError`] and others).

use core::fmt;

use super::ReplyRefused;
use crate::message::{CloseCode, DownReason};
use crate::value::ValueError;

macro_rules! rules {
    ($($variant:ident $id:literal $text:literal,)+) => {
        /// A rule that the peer broke. Each ends the session, since only a faulty peer can break it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Rule {
            $(
                #[doc = concat!($id, ": ", $text, ".")]
                $variant,
            )+
        }

        impl Rule {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The rule's id in SPEC.md.
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$variant => $id,)+
                }
            }

            /// What the peer did.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

rules! {
    FrameLength "FRM-2" "sent a record of length 0 or above the limit",
    Envelope "MSG-1" "sent a malformed envelope",
    HelloFirst "HEL-1" "sent something else before Hello, or Hello twice",
    HelloLength "HEL-2" "sent a Hello of more than 256 bytes",
    HelloLimits "HEL-3" "announced a limit outside its range",
    ImportSlot "REF-6" "sent a handle of a slot beyond the limit, or of another generation than the one held",
    ReleaseNeverSent "REL-4" "released what was never sent",
    DownNeverSent "REF-8" "told the end of what was never sent, or sent a handle after it",
    CallIdInUse "CAL-1" "called with an id that is in use",
    ReturnWithoutCall "CAL-2" "returned a call that was not made",
    ParentNotOpen "CAL-6" "named a parent call that is not open",
    TooManyNamed "ANS-2" "named more than four answers in one message",
    GoodbyeAhead "CLS-2" "said to have received what was never sent",
    LimitExceeded "ADM-7" "exceeded a limit that we announced",
    NoLink "LNK-1" "acknowledged messages of a session that has no link",
    AckOutOfRange "LNK-2" "acknowledged what was never sent, or less than before",
    LinkOrder "LNK-4" "answered an attempt to resume with something else, or resumed out of order",
    LineAck "LNK-24" "acknowledged what was never sent",
}

impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the peer {} ({})", self.text(), self.id())
    }
}

/// Why a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ended {
    /// It has not begun: see [`Session::BLANK`](super::Session::BLANK).
    NotBegun,
    /// The peer broke a rule.
    PeerFault(Rule),
    /// The peer said Close.
    PeerClosed(CloseCode),
    /// The peer speaks no version that we speak (HEL-2).
    NoCommonVersion,
    /// We closed it.
    Closed(CloseCode),
    /// The stream ended.
    LinkLost,
    /// The peer has this session no more: it was without a connection for too long, or was given up for others (LNK-6).
    SessionGone,
    /// The peer has started again and knows nothing of this session (LNK-6, LNK-22).
    PeerRestarted,
    /// The peer was not heard for as long as this side bears (TIM-5).
    Silent,
    /// Both sides were done: nothing was lost (CLS-2).
    Done,
}

impl fmt::Display for Ended {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBegun => out.write_str("the session has not begun"),
            Self::PeerFault(rule) => rule.fmt(out),
            Self::PeerClosed(code) => write!(out, "the peer closed the session: {code}"),
            Self::NoCommonVersion => out.write_str("the peer speaks no version that we speak"),
            Self::Closed(_) => out.write_str("this side closed the session"),
            Self::LinkLost => out.write_str("the connection to the peer was lost"),
            Self::SessionGone => out.write_str("the peer has given up the session while it had no connection"),
            Self::PeerRestarted => out.write_str("the peer has started again"),
            Self::Silent => out.write_str("the peer has fallen silent"),
            Self::Done => out.write_str("both sides were done with the session"),
        }
    }
}

impl core::error::Error for Ended {}

/// Why a call could not be made. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallError {
    /// The peer's Hello has not come yet.
    NotReady,
    /// The session has ended.
    Ended(Ended),
    /// The target is no reference or call of ours, or no longer.
    BadTarget,
    /// The peer has said that the target is down.
    Revoked(DownReason),
    /// The answer has settled: use what it settled to. Or the call was not pipelined.
    NotAPromise,
    /// The call that is being served, given as parent, is none.
    BadParent,
    /// Reference so many is not, or no longer, ours to send: it was released, or an object of ours was revoked.
    BadReference(usize),
    /// No call id or no call bytes are free. Outside any handler: wait. Inside: give up (ADM-2).
    Overloaded,
    /// The peer serves no calls at all, or this side makes none: waiting does not help.
    NotServed,
    /// No room for output now. It comes as the peer reads, so that waiting for it ends.
    NoRoom,
    /// The tables of exports are full (ADM-3).
    TableFull,
    /// More references than the peer takes in one message (ADM-3).
    TooManyReferences,
    /// More answers than a message may name (ANS-2).
    TooManyPromises,
    /// Nested deeper than the peer serves (ADM-4).
    TooDeep,
    /// Its time, or that of the call that it is part of, is over already (TIM-2).
    DeadlineExceeded,
    /// The session is being shut down (CLS-2).
    Leaving,
    /// The message would have so many bytes, more than the peer takes.
    TooLarge(usize),
    /// The values were not well formed.
    Values(ValueError),
}

impl fmt::Display for CallError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady => out.write_str("the peer has not said Hello yet"),
            Self::Ended(ended) => ended.fmt(out),
            Self::BadTarget => out.write_str("the target is no reference of this session, or was released"),
            Self::Revoked(reason) => reason.fmt(out),
            Self::NotAPromise => out.write_str("the answer has settled, or its call was not pipelined"),
            Self::BadParent => out.write_str("the parent is no call that is being served"),
            Self::BadReference(index) => write!(out, "reference {index} is not of this session, or was released"),
            Self::Overloaded => out.write_str("overloaded: the peer takes no more calls now"),
            Self::NotServed => out.write_str("the peer serves no calls"),
            Self::NoRoom => out.write_str("no room for output now"),
            Self::TableFull => out.write_str("the reference tables are full"),
            Self::TooManyReferences => out.write_str("more references than the peer takes in one message"),
            Self::TooManyPromises => out.write_str("more promises than a message may name"),
            Self::TooDeep => out.write_str("calls are nested deeper than the peer serves"),
            Self::DeadlineExceeded => out.write_str("the deadline has passed"),
            Self::Leaving => out.write_str("the session is being shut down"),
            Self::TooLarge(size) => write!(out, "{size} bytes are more than the peer takes in one message"),
            Self::Values(error) => write!(out, "the arguments are not well formed: {error:?}"),
        }
    }
}

impl core::error::Error for CallError {}

/// Why a reply was not sent as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplyError {
    /// The session has ended.
    Ended(Ended),
    /// No such call waits for a reply. Nothing has changed.
    NoSuchCall,
    /// Reference so many is not, or no longer, ours to send. Nothing has changed.
    BadReference(usize),
    /// The values were not well formed. Nothing has changed.
    Values(ValueError),
    /// No room for output now. Nothing has changed; try again after some output was taken, or refuse.
    NoRoom,
    /// The call was answered, but with this error (ADM-3, ADM-5).
    Became(ReplyRefused),
}

impl fmt::Display for ReplyError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(ended) => ended.fmt(out),
            Self::NoSuchCall => out.write_str("no such call waits for a reply"),
            Self::BadReference(index) => write!(out, "reference {index} is not of this session, or was released"),
            Self::Values(error) => write!(out, "the result is not well formed: {error:?}"),
            Self::NoRoom => out.write_str("no room for output now"),
            Self::Became(ReplyRefused::TableFull) => out.write_str("the result has more references than fit"),
            Self::Became(ReplyRefused::TooLarge(size)) => write!(out, "a result of {size} bytes is too large"),
        }
    }
}

impl core::error::Error for ReplyError {}

/// A handle that names nothing, or nothing any more. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stale;

impl fmt::Display for Stale {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the handle names nothing in this session any more")
    }
}

impl core::error::Error for Stale {}
