//! How a device takes part in sessions.

use farref_core::Uuid;
use farref_core::message::Limits;
use farref_core::session::{self, LinkMode};

/// How a device takes part in sessions. One for all its connections: it names the device, and this start of it.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Names the device.
    pub peer: Uuid,
    /// Differs from one start of the device to the next.
    pub incarnation: u64,
    /// For how long silence of the peer is borne, milliseconds, 0 for ever. None is without keepalive, for the peer too.
    pub patience: Option<u32>,
    /// For how long a session is kept without a connection, milliseconds. None ends it with its connection.
    pub park: Option<u32>,
    /// How long a peer may take to say Hello, milliseconds.
    pub opening: u32,
    /// References in one message that are taken.
    pub handles: u16,
    /// Bytes of calls that are taken while they wait for others. What the storage has beyond that is for values that are kept.
    pub call_bytes: u32,
    /// Nesting levels of calls that are served.
    pub levels: u16,
    /// Fills a buffer with random bytes. Whoever can guess them can take over a session that is parked.
    pub random: fn(&mut [u8]),
}

impl Config {
    /// Of nobody.
    pub(crate) const NONE: Self = Self {
        peer: Uuid::nil(),
        incarnation: 0,
        patience: Some(60_000),
        park: Some(600_000),
        opening: 10_000,
        handles: 8,
        call_bytes: u32::MAX,
        levels: 4,
        random: |_| {},
    };

    /// A minute of silence and ten minutes without a connection are borne. The incarnation is drawn now.
    pub fn new(peer: Uuid, random: fn(&mut [u8])) -> Self {
        let mut incarnation = [0; 8];
        random(&mut incarnation);
        Self { peer, incarnation: u64::from_le_bytes(incarnation), random, ..Self::NONE }
    }

    /// What a session is set up with: as much as its storage has room for.
    pub(crate) fn session(&self, link: LinkMode, max_message: u32, imports: usize) -> session::Config {
        session::Config {
            limits: Limits {
                max_message,
                imports: u32::try_from(imports).unwrap_or(Limits::MAX_IMPORTS),
                answers: u16::MAX,
                call_bytes: self.call_bytes,
                handles: self.handles,
                levels: self.levels,
            },
            exports: Limits::MAX_IMPORTS,
            calls: u16::MAX,
            out_bytes: usize::MAX,
            store_bytes: usize::MAX,
            peer: self.peer,
            incarnation: self.incarnation,
            link,
            patience: self.patience,
        }
    }
}
