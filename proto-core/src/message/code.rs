//! Numbers with a meaning: operations, error codes, close codes.

use core::fmt;

/// A number of the wire, some of which have a name. Others are kept as they are (ERR-1, OPS-1).
macro_rules! numbered {
    ($(#[$about:meta])* $name:ident($number:ty) { $($(#[$doc:meta])* $known:ident = $value:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name($number);

        #[allow(non_upper_case_globals, reason = "they are named as in SPEC.md")]
        impl $name {
            $($(#[$doc])* pub const $known: Self = Self($value);)+

            /// Its name in SPEC.md, if it has one here.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$known => Some(stringify!($known)),)+
                    _ => None,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => out.write_str(name),
                    None => write!(out, concat!(stringify!($name), "({})"), self.0),
                }
            }
        }
    };
}

numbered! {
    /// What a call does to its target (SPEC section 10).
    Op(u32) {
        /// Call the object itself.
        Call = 0,
        /// Read an attribute.
        GetAttr = 1,
        /// Set an attribute.
        SetAttr = 2,
        /// Delete an attribute.
        DelAttr = 3,
        /// Read a member and call it, in one.
        CallMethod = 4,
        /// How many items there are.
        Length = 5,
        /// Read an item.
        GetItem = 6,
        /// Set an item.
        SetItem = 7,
        /// Delete an item.
        DelItem = 8,
        /// Whether something is among the items.
        Contains = 9,
        /// A reference to an iterator.
        Iterate = 10,
        /// The next items of an iterator.
        Next = 11,
        /// Text form.
        Text = 12,
        /// Equality.
        Equals = 13,
        /// Hash.
        Hash = 14,
        /// All contents by value, in one round trip.
        Force = 15,
        /// Members, with their documentation.
        Describe = 16,
        /// A reference that holds the object, of one that does not; or none (REF-10).
        Upgrade = 17,
    }
}

/// The first op number that addresses a member (OPS-3).
const FIRST_MEMBER: u32 = 64;

impl Op {
    /// Calls member number so many (OPS-2).
    pub const fn member(index: u16) -> Self {
        Self(FIRST_MEMBER + index as u32)
    }

    /// The member's number, if this op calls a member by number.
    pub fn as_member(self) -> Option<usize> {
        self.0.checked_sub(FIRST_MEMBER).map(|index| index as usize)
    }

    /// The op of a number.
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Op {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self.as_member()) {
            (Some(name), _) => out.write_str(name),
            (None, Some(member)) => write!(out, "CallMember({member})"),
            (None, None) => write!(out, "op {}", self.number()),
        }
    }
}

numbered! {
    /// Why a call failed (SPEC section 9, with whose fault it is).
    ErrorCode(u32) {
        /// The object raised an exception: the one value that comes with it.
        Raised = 0,
        /// The handle is stale, unknown or foreign. Caller's fault.
        NoSuchObject = 1,
        /// The object has no such member: its name or number. Caller's fault.
        NoSuchMember = 2,
        /// The object has no such operation. Caller's fault.
        Unsupported = 3,
        /// The arguments do not fit: a text. Caller's fault.
        BadArguments = 4,
        /// The callee's policy forbids it: a text.
        AccessDenied = 5,
        /// Values could not be decoded. The fault of whoever sent them.
        Malformed = 6,
        /// No room to start it now. Nobody's fault: try again later.
        Overloaded = 7,
        /// It ran; its result has more references than there is room for.
        TableFull = 8,
        /// It ran; its result, of so many bytes, is longer than the caller's frames. Read in parts.
        ResultTooLarge = 9,
        /// An answer that it named failed, with this code. It never started.
        Broken = 10,
        /// It waits for itself.
        PromiseCycle = 11,
        /// It was cancelled, after it had started or before.
        Cancelled = 12,
        /// The answer that it named settled to a value that the callee had no room to keep.
        NotKept = 13,
        /// Nested deeper than the receiver serves.
        TooDeep = 14,
        /// No answer has the id that it named.
        NoSuchAnswer = 15,
        /// The object was withdrawn, or is no more: a [`DownReason`]. Its owner's decision.
        Revoked = 16,
        /// Its deadline had passed before it could start.
        DeadlineExceeded = 17,
    }
}

impl ErrorCode {
    /// The code of a number.
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => out.write_str(name),
            None => write!(out, "error {}", self.number()),
        }
    }
}

numbered! {
    /// Why a reference is down (REF-8).
    DownReason(u8) {
        /// The object has come to its own end.
        Gone = 0,
        /// Its owner withdrew it.
        Revoked = 1,
        /// It lives elsewhere.
        Moved = 2,
        /// It was another peer's, and that one is lost.
        PeerLost = 3,
    }
}

impl DownReason {
    /// The highest number that a reason has: one byte holds it, or that there is none.
    pub const MAX: u8 = 254;

    /// The reason of a number, of [`Self::MAX`] at most.
    pub const fn from_number(number: u8) -> Self {
        Self(if number < Self::MAX { number } else { Self::MAX })
    }

    /// Its number, [`Self::MAX`] at most.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for DownReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Gone => out.write_str("the object is no more"),
            Self::Revoked => out.write_str("the object was withdrawn by its owner"),
            Self::Moved => out.write_str("the object has moved"),
            Self::PeerLost => out.write_str("the object's own peer is lost"),
            Self(number) => write!(out, "the object is down for reason {number}"),
        }
    }
}

numbered! {
    /// Why a session was closed by its peer (CLS-1).
    CloseCode(u32) {
        /// It is leaving.
        Leaving = 0,
        /// We broke a rule.
        ProtocolFault = 1,
        /// We speak no common version.
        NoCommonVersion = 2,
        /// It is out of resources.
        OutOfResources = 3,
        /// We are not allowed.
        NotAllowed = 4,
    }
}

impl CloseCode {
    /// The code of a number.
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Leaving => out.write_str("it is leaving"),
            Self::ProtocolFault => out.write_str("it says that we broke the protocol"),
            Self::NoCommonVersion => out.write_str("it speaks no version that we speak"),
            Self::OutOfResources => out.write_str("it is out of resources"),
            Self::NotAllowed => out.write_str("it does not allow us"),
            Self(number) => write!(out, "close code {number}"),
        }
    }
}
