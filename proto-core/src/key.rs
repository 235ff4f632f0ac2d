//! A check that both sides know a shared key, before a session begins (SPEC section 14, feature `key`).
//!
//! Neither side sends the key. Each sends 32 random bytes and proves with HMAC-SHA256 over both that it knows the key: the
//! three-pass mutual authentication of ISO/IEC 9798-4, each proof bound to this protocol, its version and its place in the
//! exchange, as Basin, Cremers and Meier propose in "Provably repairing the ISO/IEC 9798 standard for entity
//! authentication" (2012). The side that connects proves first, so that a stranger gets nothing that depends on the key.
//!
//! What it gives: at the moment of the check somebody who knows the key is at the other end. What it does **not** give: secrecy,
//! or protection of what follows. Whoever can change bytes on the way can let the two prove themselves and take the
//! connection over afterwards. On a network like that use TLS or ssh.
//!
//! **A password is no key.** Whoever listens to one check can try keys against it as fast as they can compute, so a key must be
//! random: 16 bytes at least, 32 are better.
//!
//! There is no IO and no clock here: whoever drives the check limits its time, and closes the stream when it has failed.
//!
//! ```
//! use farref_core::key::{Key, KeyCheck, Progress, Role};
//!
//! let key = Key::from_text("00112233445566778899aabbccddeeff\n")?;
//! // Nonces come from the system's source of randomness.
//! let mut client = KeyCheck::new(Role::Connecting, &key, [1; 32], 0);
//! let mut server = KeyCheck::new(Role::Accepting, &key, [2; 32], 0);
//! for _ in 0..2 {
//!     server.handle(client.transmit());
//!     client.transmitted(client.transmit().len());
//!     client.handle(server.transmit());
//!     server.transmitted(server.transmit().len());
//! }
//! assert_eq!((client.progress(), server.progress()), (Progress::Passed, Progress::Passed));
//! # Ok::<(), farref_core::key::BadKey>(())
//! ```

use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::frame::{KEY_MARK, Mark, PreambleScanner};

/// The version of the check that this is.
const VERSION: u8 = 1;

/// What stands before a message's body: the mark, the version, the kind (KEY-2).
const HEAD: usize = KEY_MARK.len() + 2;

/// The longest message.
const MESSAGE: usize = HEAD + 32;

/// A shared key: 16 to 64 random bytes (KEY-1). What is kept is the state of HMAC, not the key itself; `Debug` shows neither.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    /// The fewest bytes of a key.
    pub const MIN_LENGTH: usize = 16;
    /// The most bytes of a key: a block of SHA-256. More would not make it stronger.
    pub const MAX_LENGTH: usize = 64;

    /// A key of these bytes, which should be random.
    ///
    /// # Errors
    /// [`BadKey::TooShort`] or [`BadKey::TooLong`].
    pub fn new(bytes: &[u8]) -> Result<Self, BadKey> {
        if bytes.len() < Self::MIN_LENGTH {
            return Err(BadKey::TooShort);
        }
        if bytes.len() > Self::MAX_LENGTH {
            return Err(BadKey::TooLong);
        }
        Hmac::new_from_slice(bytes).map(Self).map_err(|_| BadKey::TooLong)
    }

    /// A key as it stands in a file: 32 to 128 hexadecimal digits, white space around them (KEY-1).
    ///
    /// # Errors
    /// [`BadKey`] says what is wrong.
    pub fn from_text(text: &str) -> Result<Self, BadKey> {
        let digits = text.trim_ascii().as_bytes();
        if let Some(digit) = digits.iter().position(|digit| !digit.is_ascii_hexdigit()) {
            return Err(BadKey::NotHex(digit));
        }
        let (pairs, []) = digits.as_chunks::<2>() else { return Err(BadKey::OddDigits) };
        let mut bytes = [0; Self::MAX_LENGTH];
        let bytes = bytes.get_mut(..pairs.len()).ok_or(BadKey::TooLong)?;
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or_default() as u8;
            *byte = value(*high) << 4 | value(*low);
        }
        Self::new(bytes)
    }

    /// What the body of a message of this kind proves (KEY-4).
    fn proof(&self, kind: Kind, nonces: &Nonces) -> Hmac<Sha256> {
        let Nonces { connecting, accepting } = nonces;
        self.0.clone().chain_update(head(kind)).chain_update(connecting).chain_update(accepting)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Key(…)")
    }
}

/// Why something is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadKey {
    /// Fewer than 16 bytes.
    TooShort,
    /// More than 64 bytes.
    TooLong,
    /// The character so many bytes after the white space is no hexadecimal digit.
    NotHex(usize),
    /// Half a byte is missing.
    OddDigits,
}

impl fmt::Display for BadKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => out.write_str("the key is shorter than 16 bytes (32 hexadecimal digits)"),
            Self::TooLong => out.write_str("the key is longer than 64 bytes (128 hexadecimal digits)"),
            Self::NotHex(at) => write!(out, "the key is not hexadecimal: character {} is no digit", at + 1),
            Self::OddDigits => out.write_str("the key has an odd number of hexadecimal digits"),
        }
    }
}

impl core::error::Error for BadKey {}

/// Which side of the connection this is (KEY-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It opened the connection; on a line, it is told so. It proves first.
    Connecting,
    /// It was listening.
    Accepting,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It needs more bytes.
    Going,
    /// The peer knows the key. The bytes that were not consumed are the session's (KEY-5).
    Passed,
    /// Send what is left to send, then close the stream.
    Failed(Failure),
}

/// Why a check has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The peer's proof was not made with our key.
    WrongKey,
    /// The peer refused: the reason is its own.
    Refused(Refusal),
    /// The peer began a session without the check (KEY-7).
    NoKey,
    /// The peer speaks another version of the check.
    Version(u8),
    /// The peer connects as well, or echoes what it is sent (KEY-3).
    SameRole,
    /// The peer sent something else than what was its turn (KEY-6).
    OutOfOrder,
    /// Neither a check nor a session begins there.
    NoPeer,
    /// The stream, or the time for the check, ended in the middle of it.
    Cut,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongKey => out.write_str("wrong key: the peer does not know ours"),
            Self::Refused(refusal) => refusal.fmt(out),
            Self::NoKey => out.write_str("the peer uses no key: it began a session without the key check"),
            Self::Version(version) => {
                write!(out, "the peer speaks version {version} of the key check, this is {VERSION}")
            }
            Self::SameRole => out.write_str("the peer takes the same part in the key check, or echoes what it is sent"),
            Self::OutOfOrder => out.write_str("the peer did not keep to the key check (KEY-6)"),
            Self::NoPeer => out.write_str("no farref peer answers there"),
            Self::Cut => out.write_str("the connection ended during the key check"),
        }
    }
}

impl core::error::Error for Failure {}

/// Why the peer says that it refuses (KEY-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It wants a key, and was sent a session.
    KeyWanted,
    /// Our proof was not made with its key.
    WrongKey,
    /// It does not speak our version of the check.
    Version,
    /// We sent something else than what was our turn.
    OutOfOrder,
    /// A reason that this version does not know.
    Other(u8),
}

impl Refusal {
    const fn number(self) -> u8 {
        match self {
            Self::KeyWanted => 1,
            Self::WrongKey => 2,
            Self::Version => 3,
            Self::OutOfOrder => 4,
            Self::Other(number) => number,
        }
    }

    const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::KeyWanted,
            2 => Self::WrongKey,
            3 => Self::Version,
            4 => Self::OutOfOrder,
            number => Self::Other(number),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyWanted => out.write_str("the peer wants a key"),
            Self::WrongKey => out.write_str("wrong key: the peer refused it"),
            Self::Version => write!(out, "the peer does not speak version {VERSION} of the key check"),
            Self::OutOfOrder => out.write_str("the peer says that this side did not keep to the key check (KEY-6)"),
            Self::Other(number) => write!(out, "the peer refused the key check for reason {number}"),
        }
    }
}

/// One side of a check.
///
/// Write what [`Self::transmit`] gives, give what is read to [`Self::handle`], until [`Progress`] is no longer
/// [`Progress::Going`]. Not `Clone`: a nonce is used once.
///
/// ```text
///  Connecting:  First ──Challenge / Proof──▶ Second ──Accept──▶ Passed
///  Accepting:   First ──Begin / Challenge──▶ Second ──Proof / Accept──▶ Passed
///               any ──anything else──▶ Failed      (Connecting starts with Begin)
/// ```
#[derive(Debug)]
pub struct KeyCheck {
    role: Role,
    key: Key,
    nonce: [u8; 32],
    state: State,
    scanner: PreambleScanner,
    incoming: Incoming,
    output: Output,
}

impl KeyCheck {
    /// A check that is about to begin. `nonce` must be 32 bytes of a secure source of randomness, never used before.
    /// `banner` is how many bytes may stand before the peer's first message:
    /// [`BANNER_LIMIT`](crate::frame::BANNER_LIMIT) as FRM-1 has it, or 0 where the peer is known to write no banner.
    pub fn new(role: Role, key: &Key, nonce: [u8; 32], banner: usize) -> Self {
        let mut check = Self {
            role,
            key: key.clone(),
            nonce,
            state: State::First,
            scanner: PreambleScanner::new(banner),
            incoming: Incoming::default(),
            output: Output::default(),
        };
        if role == Role::Connecting {
            check.output.message(Kind::Begin, &nonce);
        }
        check
    }

    /// Takes bytes that were received, and tells how many of them belong to the check. When it has passed, the others are the
    /// session's.
    pub fn handle(&mut self, received: &[u8]) -> (usize, Progress) {
        let mut used = 0;
        while let Some(rest) = received.get(used..)
            && let Some(byte) = rest.first()
            && self.progress() == Progress::Going
        {
            used += match self.state {
                State::First if self.incoming.is_empty() => self.seek(rest),
                _ => self.take(*byte),
            };
        }
        (used, self.progress())
    }

    /// How far the check is.
    pub fn progress(&self) -> Progress {
        match self.state {
            State::First | State::Second(_) => Progress::Going,
            State::Passed => Progress::Passed,
            State::Failed(failure) => Progress::Failed(failure),
        }
    }

    /// What it means that no more bytes come.
    pub fn cut(&self) -> Failure {
        match self.state {
            State::Failed(failure) => failure,
            State::First if self.incoming.is_empty() => Failure::NoPeer,
            _ => Failure::Cut,
        }
    }

    /// The output that waits, also of a check that has passed or failed. Take from its front and say how much with
    /// [`Self::transmitted`].
    pub fn transmit(&self) -> &[u8] {
        self.output.pending()
    }

    /// So many bytes of what [`Self::transmit`] gave were taken.
    pub fn transmitted(&mut self, count: usize) {
        self.output.taken(count);
    }

    /// Looks for the beginning of the first message and tells how many bytes that took.
    fn seek(&mut self, received: &[u8]) -> usize {
        let (mark, used) = self.scanner.find(received);
        match mark {
            Some(Mark::Key) => KEY_MARK.iter().for_each(|byte| self.incoming.push(*byte)),
            // KEY-7: there is no going on without the check.
            Some(Mark::Preamble) => self.refuse(Refusal::KeyWanted, Failure::NoKey),
            None if self.scanner.gave_up() => self.state = State::Failed(Failure::NoPeer),
            None => {}
        }
        used
    }

    /// Takes one byte of a message; refuses it as soon as the message cannot become the one whose turn it is.
    fn take(&mut self, byte: u8) -> usize {
        self.incoming.push(byte);
        match *self.incoming.bytes() {
            [.., version, kind] if self.incoming.length == HEAD => self.take_head(version, kind),
            [.., reason] if self.incoming.length > HEAD && self.incoming.is(Kind::Refuse) => {
                self.state = State::Failed(Failure::Refused(Refusal::from_number(reason)));
            }
            [.., _] if self.incoming.length == MESSAGE => self.take_message(),
            [.., _] if KEY_MARK.get(self.incoming.length - 1).is_some_and(|expected| *expected != byte) => {
                self.refuse(Refusal::OutOfOrder, Failure::OutOfOrder);
            }
            _ => {}
        }
        1
    }

    /// Whether this message may come now (KEY-2, KEY-3).
    fn take_head(&mut self, version: u8, kind: u8) {
        let turn = match (self.role, &self.state) {
            (Role::Connecting, State::First) => Kind::Challenge,
            (Role::Connecting, _) => Kind::Accept,
            (Role::Accepting, State::First) => Kind::Begin,
            (Role::Accepting, _) => Kind::Proof,
        };
        if kind == Kind::Refuse as u8 {
            // It has the same form in every version.
        } else if version != VERSION {
            self.refuse(Refusal::Version, Failure::Version(version));
        } else if kind == Kind::Begin as u8 && self.role == Role::Connecting {
            self.refuse(Refusal::OutOfOrder, Failure::SameRole);
        } else if kind != turn as u8 {
            self.refuse(Refusal::OutOfOrder, Failure::OutOfOrder);
        }
    }

    /// A whole message has come, and it was its turn (KEY-3).
    fn take_message(&mut self) {
        let Some(&body) = self.incoming.bytes().last_chunk::<32>() else { return };
        self.incoming = Incoming::default();
        match (self.role, &self.state) {
            (Role::Connecting, State::First) => {
                let nonces = Nonces { connecting: self.nonce, accepting: body };
                self.prove(Kind::Proof, &nonces);
                self.state = State::Second(nonces);
            }
            (Role::Accepting, State::First) => {
                self.output.message(Kind::Challenge, &self.nonce);
                self.state = State::Second(Nonces { connecting: body, accepting: self.nonce });
            }
            (role, State::Second(nonces)) => {
                let nonces = *nonces;
                let kind = if role == Role::Connecting { Kind::Accept } else { Kind::Proof };
                // KEY-4: compared in constant time.
                if self.key.proof(kind, &nonces).verify_slice(&body).is_err() {
                    return self.refuse(Refusal::WrongKey, Failure::WrongKey);
                }
                if role == Role::Accepting {
                    self.prove(Kind::Accept, &nonces);
                }
                self.state = State::Passed;
            }
            (_, State::Passed | State::Failed(_)) => {}
        }
    }

    fn prove(&mut self, kind: Kind, nonces: &Nonces) {
        let proof = self.key.proof(kind, nonces).finalize().into_bytes();
        self.output.message(kind, &proof);
    }

    /// Ends the check. Only the side that accepts says why: the other closes (KEY-6).
    fn refuse(&mut self, refusal: Refusal, failure: Failure) {
        if self.role == Role::Accepting {
            self.output.message(Kind::Refuse, &[refusal.number()]);
        }
        self.state = State::Failed(failure);
    }
}

#[derive(Debug)]
enum State {
    /// The peer's first message has not come: Begin or Challenge.
    First,
    /// Both nonces are known. The peer's proof has not come: Proof or Accept.
    Second(Nonces),
    Passed,
    Failed(Failure),
}

#[derive(Clone, Copy, Debug)]
struct Nonces {
    connecting: [u8; 32],
    accepting: [u8; 32],
}

/// The messages (KEY-2).
#[derive(Clone, Copy, Debug)]
enum Kind {
    Begin = 1,
    Challenge = 2,
    Proof = 3,
    Accept = 4,
    Refuse = 5,
}

fn head(kind: Kind) -> [u8; HEAD] {
    let [a, b, c, d, e, f, g, h] = KEY_MARK;
    [a, b, c, d, e, f, g, h, VERSION, kind as u8]
}

/// The message that is coming in.
#[derive(Debug)]
struct Incoming {
    bytes: [u8; MESSAGE],
    length: usize,
}

impl Default for Incoming {
    fn default() -> Self {
        Self { bytes: [0; MESSAGE], length: 0 }
    }
}

impl Incoming {
    fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn is(&self, kind: Kind) -> bool {
        self.bytes().get(HEAD - 1) == Some(&(kind as u8))
    }
}

/// Output that waits: at most the two messages that one side sends in all.
#[derive(Debug)]
struct Output {
    bytes: [u8; 2 * MESSAGE],
    start: usize,
    end: usize,
}

impl Default for Output {
    fn default() -> Self {
        Self { bytes: [0; 2 * MESSAGE], start: 0, end: 0 }
    }
}

impl Output {
    fn message(&mut self, kind: Kind, body: &[u8]) {
        for byte in head(kind).iter().chain(body) {
            if let Some(place) = self.bytes.get_mut(self.end) {
                *place = *byte;
                self.end += 1;
            }
        }
    }

    fn pending(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    fn taken(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
    }
}
