//! The first message: versions, limits, who it is (SPEC section 4).

use uuid::Uuid;

use super::{Head, feature, kind};
use crate::codec::{Malformed, Reader, Writer};

/// What one side accepts; it binds the other (HEL-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// The longest message body, bytes, at least 64.
    pub max_message: u32,
    /// Slots for references to the other's objects, at most 2²⁴. The directory's number is one of them.
    pub imports: u32,
    /// Calls served at a time.
    pub answers: u16,
    /// Bytes of all calls being served or waiting, together.
    pub call_bytes: u32,
    /// References in one message.
    pub handles: u16,
    /// Levels of nested calls served, at least 1 (ADM-4).
    pub levels: u16,
}

impl Limits {
    /// The least `max_message`.
    pub const MIN_MESSAGE: u32 = 64;
    /// The most `imports`.
    pub const MAX_IMPORTS: u32 = 1 << 24;

    pub(crate) fn are_valid(&self) -> bool {
        self.max_message >= Self::MIN_MESSAGE && self.imports <= Self::MAX_IMPORTS && self.levels >= 1
    }
}

/// The first message of each direction (HEL-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hello {
    /// The lowest version of the wire that the sender speaks.
    pub version_min: u16,
    /// The highest.
    pub version_max: u16,
    /// Optional parts, a bit each.
    pub features: u64,
    /// What the sender accepts.
    pub limits: Limits,
    /// Names the peer.
    pub peer: Uuid,
    /// Differs from one start of the peer to the next.
    pub incarnation: u64,
    /// What the sender offers so that the session survives its connections; with bit 0 of the features (LNK-1).
    pub link: Option<LinkOffer>,
    /// For how long the sender bears silence, milliseconds, 0 for ever; on the wire with its feature's bit (TIM-4).
    pub patience: u32,
}

/// What one side needs to know of the other's end of a resumable session (LNK-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkOffer {
    /// Names the session to this side, and proves that whoever names it is its peer: drawn at random, known to nobody else.
    pub token: [u8; 16],
    /// Bytes of messages that the sender keeps until they are acknowledged.
    pub replay: u32,
    /// For how long the sender keeps a session without a connection, milliseconds.
    pub park: u32,
}

impl Hello {
    /// The longest body of a Hello (HEL-2).
    pub const MAX_LENGTH: usize = 256;

    /// What no peer has said: it names no version.
    pub(crate) const NOBODY: Self = Self {
        version_min: 0,
        version_max: 0,
        features: 0,
        limits: Limits { max_message: 0, imports: 0, answers: 0, call_bytes: 0, handles: 0, levels: 0 },
        peer: Uuid::nil(),
        incarnation: 0,
        link: None,
        patience: 0,
    };

    /// Reads a body that is a Hello.
    pub fn of(body: &[u8]) -> Result<Self, Malformed> {
        let Head { kind, mut reader, .. } = Head::read(body);
        let mut hello = Self::NOBODY;
        hello.read(&mut reader);
        reader.expect(kind == kind::HELLO);
        reader.finish().map(|()| hello)
    }

    /// Fields of features stand after the incarnation, in the order of their bits (HEL-6); those of later versions behind
    /// them are skipped (HEL-2). Read into its place, since it is long.
    pub(crate) fn read(&mut self, reader: &mut Reader<'_>) {
        self.version_min = reader.varint_u16();
        self.version_max = reader.varint_u16();
        self.features = reader.varint();
        self.limits.max_message = reader.varint_u32();
        self.limits.imports = reader.varint_u32();
        self.limits.answers = reader.varint_u16();
        self.limits.call_bytes = reader.varint_u32();
        self.limits.handles = reader.varint_u16();
        self.limits.levels = reader.varint_u16();
        self.peer = Uuid::from_bytes(reader.array());
        self.incarnation = reader.varint();
        // Versions count from 1 (HEL-3).
        reader.expect(self.version_min != 0 && self.version_max != 0);
        if self.features & feature::LINK != 0 {
            self.link =
                Some(LinkOffer { token: reader.array(), replay: reader.varint_u32(), park: reader.varint_u32() });
        }
        if self.features & feature::KEEPALIVE != 0 {
            self.patience = reader.varint_u32();
        }
        reader.take(reader.rest().len());
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.byte(kind::HELLO);
        writer.varint(self.version_min.into());
        writer.varint(self.version_max.into());
        writer.varint(self.features);
        writer.varint(self.limits.max_message.into());
        writer.varint(self.limits.imports.into());
        writer.varint(self.limits.answers.into());
        writer.varint(self.limits.call_bytes.into());
        writer.varint(self.limits.handles.into());
        writer.varint(self.limits.levels.into());
        writer.put(self.peer.as_bytes());
        writer.varint(self.incarnation);
        if let Some(link) = &self.link {
            writer.put(&link.token);
            writer.varint(link.replay.into());
            writer.varint(link.park.into());
        }
        if self.features & feature::KEEPALIVE != 0 {
            writer.varint(self.patience.into());
        }
    }
}
