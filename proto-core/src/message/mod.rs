//! The message set (SPEC sections 3 to 6): what stands in an envelope, read and written. No state, no policy.
//!
//! [`Message::read`] takes one record's body apart and borrows from it; values stay bytes until the session has looked
//! at the handles.

mod code;
mod deadline;
mod handle;
mod hello;

use crate::codec::{Malformed, Reader, Writer};
pub(crate) use deadline::Extension;

pub use code::{CloseCode, DownReason, ErrorCode, Op};
pub use deadline::{Consequence, Deadline};
pub use handle::{Descriptor, Handles};
pub use hello::{Hello, Limits, LinkOffer};

/// Kind numbers (MSG-2: below 16 sequenced).
pub(crate) mod kind {
    pub const CALL: u8 = 0;
    pub const RETURN: u8 = 1;
    pub const FINISH: u8 = 2;
    pub const RELEASE: u8 = 3;
    pub const UNIMPLEMENTED: u8 = 4;
    pub const DOWN: u8 = 5;
    pub const HELLO: u8 = 16;
    pub const CLOSE: u8 = 17;
    pub const ACK: u8 = 18;
    pub const PING: u8 = 19;
    pub const RESUME: u8 = 21;
    pub const RESUME_OK: u8 = 22;
    pub const SESSION_GONE: u8 = 23;
    pub const GOODBYE: u8 = 24;
    pub const MASK: u8 = 0x1F;
    pub const UNSEQUENCED: u8 = 0x10;
}

/// Feature bits of Hello (HEL-6).
pub(crate) mod feature {
    pub const LINK: u64 = 1;
    pub const KEEPALIVE: u64 = 2;
}

/// Flag bits of the head (MSG-1).
pub(crate) mod flag {
    pub const PIPELINED: u8 = 0x20;
    pub const ERROR: u8 = 0x20;
    pub const HANDLES: u8 = 0x40;
    pub const EXTENSION: u8 = 0x80;
}

/// The most milliseconds that a call can have (TIM-1): about 24 days.
pub const MAX_REMAINING: u32 = i32::MAX as u32;

/// Answers that one message may name (ANS-2).
pub const MAX_ANSWERS_NAMED: usize = 4;

/// One message, its envelope taken apart.
#[derive(Clone, Copy, Debug)]
pub enum Message<'f> {
    /// A request.
    Call(Call<'f>),
    /// Its one answer.
    Return(Return<'f>),
    /// Ends of interest in answers.
    Finish(Finishes<'f>),
    /// Ends of interest in exports.
    Release(Releases<'f>),
    /// Kinds that the peer does not know, a bit each.
    Unimplemented(u32),
    /// Ends of exports, by their owner.
    Down(Downs<'f>),
    /// The first message.
    Hello(Hello),
    /// The last message.
    Close(Close<'f>),
    /// How many of the receiver's messages the sender has got: its Hello and the sequenced ones (LNK-2).
    Ack(u64),
    /// Says nothing but that its sender is there (TIM-5), and wants an Ack if the session has a link (LNK-3).
    Ping,
    /// The first message of another connection for a session (LNK-4).
    Resume(Resume),
    /// The answer to it.
    ResumeOk {
        /// The one of the receiver's Hello.
        token: [u8; 16],
        /// As in an Ack.
        got: u64,
    },
    /// Another answer to it: there is no such session (LNK-6).
    SessionGone {
        /// Of the sender.
        incarnation: u64,
        /// What it had got when the session went, or 0 if it does not know.
        got: u64,
    },
    /// Nothing is under way, after so many sequenced messages that its sender has received (CLS-2).
    Goodbye(u64),
    /// A kind that this version does not know (MSG-3).
    Unknown(u8),
}

/// What a side that connects again says first (LNK-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resume {
    /// The one of the receiver's Hello.
    pub token: [u8; 16],
    /// Greater than at every earlier attempt of the same session.
    pub attempt: u32,
    /// As in an Ack.
    pub got: u64,
}

impl Resume {
    /// Reads a body that is a Resume.
    pub fn of(body: &[u8]) -> Result<Self, Malformed> {
        let Head { kind, mut reader, .. } = Head::read(body);
        let resume = Self::read(&mut reader);
        reader.expect(kind == kind::RESUME);
        reader.finish().map(|()| resume)
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        Self { token: reader.array(), attempt: reader.varint_u32(), got: reader.varint() }
    }
}

/// A request (SPEC section 6).
#[derive(Clone, Copy, Debug)]
pub struct Call<'f> {
    /// Chosen by the caller (CAL-1).
    pub id: u16,
    /// Whether its answer may be named later (ANS-1).
    pub pipelined: bool,
    /// What it is for.
    pub target: Target,
    /// What to do.
    pub op: Op,
    /// References among the arguments.
    pub handles: Handles<'f>,
    /// The call being served by the caller that caused this one (CAL-6).
    pub parent: Option<u16>,
    /// How long it has (TIM-1).
    pub deadline: Option<Deadline>,
    /// Encoded arguments, not validated.
    pub values: &'f [u8],
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// An object of the receiver.
    Export {
        /// Its slot.
        slot: u32,
        /// The slot's generation.
        generation: u16,
    },
    /// The answer to an earlier call of the sender.
    Answer(u16),
}

/// An answer (SPEC section 6).
#[derive(Clone, Copy, Debug)]
pub struct Return<'f> {
    /// The call's id.
    pub id: u16,
    /// Set if the call failed (SPEC section 9).
    pub error: Option<ErrorCode>,
    /// References among the values.
    pub handles: Handles<'f>,
    /// Encoded result or error values, not validated.
    pub values: &'f [u8],
}

/// How a call's interest ends (FIN-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishMode {
    /// After the Return.
    Done,
    /// The result is not wanted any more.
    Abandon,
    /// The callee is asked to stop.
    Interrupt,
}

/// The entries of a Finish.
#[derive(Clone, Copy, Debug)]
pub struct Finishes<'f>(Reader<'f>);

impl<'f> Finishes<'f> {
    pub(crate) fn read(reader: &mut Reader<'f>) -> Self {
        Self(entries(reader, |reader| _ = finish_entry(reader)))
    }
}

impl Iterator for Finishes<'_> {
    type Item = (u16, FinishMode);

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| finish_entry(&mut self.0))
    }
}

/// The entries of a Release.
#[derive(Clone, Copy, Debug)]
pub struct Releases<'f> {
    /// The low 32 bits of the ordinal up to which the sender had received (REL-1).
    pub upto: u32,
    entries: Reader<'f>,
}

impl<'f> Releases<'f> {
    pub(crate) fn read(reader: &mut Reader<'f>) -> Self {
        Self { upto: reader.varint_u32(), entries: entries(reader, |reader| _ = release_entry(reader)) }
    }
}

impl Iterator for Releases<'_> {
    type Item = (u32, u16);

    fn next(&mut self) -> Option<Self::Item> {
        (!self.entries.is_empty()).then(|| release_entry(&mut self.entries))
    }
}

/// The entries of a Down: slot, generation and reason (REF-8).
#[derive(Clone, Copy, Debug)]
pub struct Downs<'f>(Reader<'f>);

impl<'f> Downs<'f> {
    pub(crate) fn read(reader: &mut Reader<'f>) -> Self {
        Self(entries(reader, |reader| _ = down_entry(reader)))
    }
}

impl Iterator for Downs<'_> {
    type Item = (u32, u16, DownReason);

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| down_entry(&mut self.0))
    }
}

/// Why the sender ended the session (CLS-1).
#[derive(Clone, Copy, Debug)]
pub struct Close<'f> {
    /// The reason.
    pub code: CloseCode,
    /// The rule that was broken, or empty.
    pub rule: &'f str,
    /// For people.
    pub text: &'f str,
}

impl<'f> Close<'f> {
    pub(crate) fn read(reader: &mut Reader<'f>) -> Self {
        let (code, rule, text) = (reader.varint_u32(), reader.text(), reader.text());
        reader.expect(rule.len() <= MAX_CLOSE_RULE && text.len() <= MAX_CLOSE_TEXT);
        Self { code: CloseCode::from_number(code), rule, text }
    }
}

/// Longest Close texts (CLS-1).
pub const MAX_CLOSE_RULE: usize = 16;
/// Longest Close texts (CLS-1).
pub const MAX_CLOSE_TEXT: usize = 256;

impl<'f> Message<'f> {
    /// Takes a record's body apart. Only a faulty peer sends what is [`Malformed`] here (MSG-1).
    pub fn read(body: &'f [u8]) -> Result<Self, Malformed> {
        let Head { kind, flags, mut reader } = Head::read(body);
        let reader = &mut reader;
        let message = match kind {
            kind::CALL => Self::Call(Call::read(flags, reader)),
            kind::RETURN => Self::Return(Return::read(flags, reader)),
            kind::FINISH => Self::Finish(Finishes::read(reader)),
            kind::RELEASE => Self::Release(Releases::read(reader)),
            kind::UNIMPLEMENTED => Self::Unimplemented(read_kinds(reader)),
            kind::DOWN => Self::Down(Downs::read(reader)),
            kind::HELLO => {
                let mut hello = Hello::NOBODY;
                hello.read(reader);
                Self::Hello(hello)
            }
            kind::CLOSE => Self::Close(Close::read(reader)),
            kind::ACK => Self::Ack(reader.varint()),
            kind::PING => Self::Ping,
            kind::RESUME => Self::Resume(Resume::read(reader)),
            kind::RESUME_OK => Self::ResumeOk { token: reader.array(), got: reader.varint() },
            kind::SESSION_GONE => Self::SessionGone { incarnation: reader.varint(), got: reader.varint() },
            kind::GOODBYE => Self::Goodbye(reader.varint()),
            kind => return Ok(Self::Unknown(kind)),
        };
        reader.finish().map(|()| message)
    }

    /// Whether a body counts in the order of its direction, its kind known or not (MSG-2).
    pub fn is_sequenced(body: &[u8]) -> bool {
        body.first().is_some_and(|head| head & kind::UNSEQUENCED == 0)
    }
}

/// What the first byte of a body says, and what is behind it.
pub(crate) struct Head<'f> {
    pub kind: u8,
    pub flags: u8,
    pub reader: Reader<'f>,
}

impl<'f> Head<'f> {
    /// The reader has failed if there is a flag that its kind does not have (MSG-1).
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn read(body: &'f [u8]) -> Self {
        let mut reader = Reader::new(body);
        let head = reader.byte();
        let (kind, flags) = (head & kind::MASK, head & !kind::MASK);
        reader.expect(flags == 0 || kind <= kind::RETURN);
        Self { kind, flags, reader }
    }
}

impl<'f> Call<'f> {
    #[cfg_attr(feature = "alloc", inline)]
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub(crate) fn read(flags: u8, reader: &mut Reader<'f>) -> Self {
        let id = reader.varint_u16();
        let target = Target::read(reader);
        let op = Op::from_number(reader.varint_u32());
        let handles = Handles::read(flags, reader, true);
        let Extension { parent, deadline } = Extension::read(flags, reader, true);
        let pipelined = flags & flag::PIPELINED != 0;
        Self { id, pipelined, target, op, handles, parent, deadline, values: reader.take(reader.rest().len()) }
    }

    /// Writes the envelope; the values follow. `handles` writes the list, unless `handle_count` is 0.
    pub(crate) fn write_head(
        writer: &mut Writer<'_>,
        (id, pipelined, extension): (u16, bool, Extension),
        (target, op): (Target, Op),
        handle_count: usize,
        handles: impl FnOnce(&mut Writer<'_>),
    ) {
        let mut head = kind::CALL;
        head |= if pipelined { flag::PIPELINED } else { 0 };
        head |= if handle_count > 0 { flag::HANDLES } else { 0 };
        head |= if extension.is_empty() { 0 } else { flag::EXTENSION };
        writer.byte(head);
        writer.varint(id.into());
        target.write(writer);
        writer.varint(op.number().into());
        if handle_count > 0 {
            writer.varint(handle_count as u64);
            handles(writer);
        }
        if !extension.is_empty() {
            extension.write(writer);
        }
    }
}

impl Target {
    fn read(reader: &mut Reader<'_>) -> Self {
        let (number, low) = read_number(reader, 2);
        match low {
            0 | 1 => Self::Export { slot: number, generation: read_generation(reader, low == 1) },
            _ => {
                reader.expect(low == 2);
                Self::Answer(read_id(reader, number))
            }
        }
    }

    fn write(self, writer: &mut Writer<'_>) {
        match self {
            Self::Export { slot, generation: 0 } => writer.varint(u64::from(slot) << 2),
            Self::Export { slot, generation } => {
                writer.varint(u64::from(slot) << 2 | 1);
                writer.varint(generation.into());
            }
            Self::Answer(id) => writer.varint(u64::from(id) << 2 | 2),
        }
    }
}

/// A generation, which is 0 if it is not there and never if it is (REF-2).
#[cfg_attr(not(feature = "alloc"), inline(never))]
pub(crate) fn read_generation(reader: &mut Reader<'_>, is_there: bool) -> u16 {
    if !is_there {
        return 0;
    }
    let generation = reader.varint_u16();
    reader.expect(generation != 0);
    generation
}

/// A number of 32 bits with so many bits behind it.
#[cfg_attr(not(feature = "alloc"), inline(never))]
fn read_number(reader: &mut Reader<'_>, bits: u32) -> (u32, u32) {
    let head = reader.varint();
    reader.expect(head >> bits <= u32::MAX.into());
    ((head >> bits) as u32, head as u32 & ((1 << bits) - 1))
}

/// A number that is a call id.
fn read_id(reader: &mut Reader<'_>, number: u32) -> u16 {
    reader.expect(number <= u16::MAX.into());
    number as u16
}

impl<'f> Return<'f> {
    /// Reads a body that is a Return.
    pub fn of(body: &'f [u8]) -> Result<Self, Malformed> {
        let Head { kind, flags, mut reader } = Head::read(body);
        let returned = Self::read(flags, &mut reader);
        reader.expect(kind == kind::RETURN);
        reader.finish().map(|()| returned)
    }

    #[cfg_attr(feature = "alloc", inline)]
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub(crate) fn read(flags: u8, reader: &mut Reader<'f>) -> Self {
        let id = reader.varint_u16();
        let handles = Handles::read(flags, reader, false);
        Extension::read(flags, reader, false);
        let error = match flags & flag::ERROR {
            0 => None,
            _ => Some(ErrorCode::from_number(reader.varint_u32())),
        };
        Self { id, error, handles, values: reader.take(reader.rest().len()) }
    }

    /// Writes the envelope; the values follow.
    pub(crate) fn write_head(
        writer: &mut Writer<'_>,
        id: u16,
        error: Option<ErrorCode>,
        handle_count: usize,
        handles: impl FnOnce(&mut Writer<'_>),
    ) {
        let mut head = kind::RETURN;
        head |= if error.is_some() { flag::ERROR } else { 0 };
        head |= if handle_count > 0 { flag::HANDLES } else { 0 };
        writer.byte(head);
        writer.varint(id.into());
        if handle_count > 0 {
            writer.varint(handle_count as u64);
            handles(writer);
        }
        if let Some(code) = error {
            writer.varint(code.number().into());
        }
    }
}

fn finish_entry(reader: &mut Reader<'_>) -> (u16, FinishMode) {
    let (number, mode) = read_number(reader, 2);
    let mode = match mode {
        0 => FinishMode::Done,
        1 => FinishMode::Abandon,
        _ => {
            reader.expect(mode == 2);
            FinishMode::Interrupt
        }
    };
    (read_id(reader, number), mode)
}

pub(crate) fn write_finish_entry(writer: &mut Writer<'_>, id: u16, mode: FinishMode) {
    writer.varint(u64::from(id) << 2 | mode as u64);
}

#[cfg_attr(not(feature = "alloc"), inline(never))]
fn release_entry(reader: &mut Reader<'_>) -> (u32, u16) {
    let (slot, has_generation) = read_number(reader, 1);
    (slot, read_generation(reader, has_generation == 1))
}

pub(crate) fn write_release_entry(writer: &mut Writer<'_>, slot: u32, generation: u16) {
    writer.varint(u64::from(slot) << 1 | u64::from(generation != 0));
    if generation != 0 {
        writer.varint(generation.into());
    }
}

fn down_entry(reader: &mut Reader<'_>) -> (u32, u16, DownReason) {
    let (slot, generation) = release_entry(reader);
    let reason = reader.varint_u16();
    reader.expect(reason <= DownReason::MAX.into());
    (slot, generation, DownReason::from_number(reason as u8))
}

pub(crate) fn write_down_entry(writer: &mut Writer<'_>, (slot, generation, reason): (u32, u16, DownReason)) {
    write_release_entry(writer, slot, generation);
    writer.varint(reason.number().into());
}

/// All that is left, checked: at least one entry.
#[cfg_attr(not(feature = "alloc"), inline(never))]
fn entries<'f>(reader: &mut Reader<'f>, skip_one: fn(&mut Reader<'f>)) -> Reader<'f> {
    let entries = *reader;
    reader.expect(!reader.is_empty());
    while !reader.is_empty() {
        skip_one(reader);
    }
    entries
}

/// The kinds that an Unimplemented names.
pub(crate) fn read_kinds(reader: &mut Reader<'_>) -> u32 {
    let kinds = reader.varint_u32();
    reader.expect(kinds != 0);
    kinds
}

#[cfg(test)]
mod tests;
