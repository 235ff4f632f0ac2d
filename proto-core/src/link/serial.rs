//! The link for a serial line: frames may be lost, changed and repeated, but do not overtake each other (SPEC section 16).
//!
//! Whoever drives it gives it the payload of each frame that a [`Decoder`](crate::frame::serial::Decoder) finds, hands the
//! record that it gives back to the session, and asks it for frames as long as it has some:
//!
//! - [`SerialLink::receive`] takes a payload;
//! - [`SerialLink::transmit`] writes the next frame. It is best asked when the frame before has left, so that what is sent
//!   last is what is true last;
//! - [`SerialLink::advance`] does what the passing of time makes due, and [`SerialLink::poll_timeout`] tells when that is.
//!
//! A line that is unplugged and plugged in again within [`Config::patience`] goes on. A session that has ended may have a last
//! word to say, which is lost as easily as any other: its link is driven on for a while, until [`SerialLink::is_settled`].

use core::fmt;

use super::Records;
use crate::codec::{Malformed, Reader, Writer};
use crate::frame::serial::{encode, encoded_len};
use crate::session::{Ended, Rule};
use crate::when::When;

/// How a link is set up. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Records that may be under way, sent and not acknowledged: 1 to [`Config::MAX_WINDOW`].
    pub window: u16,
    /// An acknowledgement that nothing else carries goes alone after so long: longer than most answers take.
    pub ack_delay: u32,
    /// What is not acknowledged so long after the last frame was sent is sent again: longer than the longest frame takes there,
    /// another one back, and the peer's `ack_delay`.
    pub retry: u32,
    /// That time doubles up to this, as long as nothing is acknowledged.
    pub retry_max: u32,
    /// When nothing is acknowledged for so long, the line is lost. That does not begin before the peer was there.
    pub patience: u64,
}

impl Config {
    /// The most that can be under way: numbers have 16 bits on the line (LNK-27).
    pub const MAX_WINDOW: u16 = 1 << 14;
}

impl Default for Config {
    /// For messages of up to a few hundred bytes at 115,200 baud.
    fn default() -> Self {
        Self { window: 16, ack_delay: 20, retry: 250, retry_max: 2_000, patience: 60_000 }
    }
}

/// One end of the link, for one session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SerialLink {
    config: Config,
    /// Our id, drawn for this session.
    id: u32,
    /// The peer's: as it said in a Hello, 0 before. It does not change once its Hello has come for us.
    peer: u32,
    /// The peer's Hello came for us, and the number of its record that comes next; 0 until then.
    confirmed: bool,
    expected: u16,
    /// The peer has our Hello, and the number of our first record that it has not acknowledged; 0 is our Hello.
    heard: bool,
    acked: u16,
    /// How many records from there on were ever sent, and how many since we last went back.
    under_way: u16,
    again: u16,
    /// Records taken since an acknowledgement went out.
    unacknowledged: u16,
    /// When an acknowledgement is due.
    ack_at: When,
    /// What is to be said of a record that is missing.
    gap: Gap,
    /// We went back because the peer missed its first record.
    went_back: bool,
    /// When what is not acknowledged is sent again.
    retry_at: When,
    /// How long that takes the next time.
    retry: u32,
    /// When the line counts as lost, if nothing is acknowledged until then.
    lost_at: When,
    over: Option<Over>,
}

/// Whether a record is missing between those that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Gap {
    None,
    /// The peer is to be told with the next frame.
    ToSay,
    Said,
}

/// Why the link is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Over {
    Restarted,
    Lost,
    /// It acknowledged what was never sent.
    Fault,
}

impl From<Over> for Ended {
    fn from(over: Over) -> Self {
        match over {
            Over::Restarted => Self::PeerRestarted,
            Over::Lost => Self::LinkLost,
            Over::Fault => Self::PeerFault(Rule::LineAck),
        }
    }
}

/// The bytes lent for a frame are fewer than [`SerialLink::frame_len`] of the longest body: a mistake of the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TooShort;

impl fmt::Display for TooShort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the buffer is too short for a frame of the link")
    }
}

impl core::error::Error for TooShort {}

impl SerialLink {
    /// The link of a session that begins. `id` is drawn at random for it: no two sessions of one side, and no two sides, may
    /// have the same by more than chance. 0 counts as 1.
    pub fn new(config: Config, id: u32) -> Self {
        let config = Config {
            window: config.window.clamp(1, Config::MAX_WINDOW),
            retry: config.retry.max(1),
            retry_max: config.retry_max.max(config.retry).max(1),
            ..config
        };
        Self {
            config,
            id: id.max(1),
            peer: 0,
            confirmed: false,
            expected: 0,
            heard: false,
            acked: 0,
            under_way: 0,
            again: 0,
            unacknowledged: 0,
            ack_at: When::NEVER,
            gap: Gap::None,
            went_back: false,
            retry_at: When::NEVER,
            retry: config.retry,
            lost_at: When::NEVER,
            over: None,
        }
    }

    /// How long a frame with a record of so many bytes is at most.
    pub const fn frame_len(body: usize) -> usize {
        encoded_len(Header::MAX_LENGTH + body)
    }

    /// How long the payload of a frame with a record of so many bytes is at most: what a decoder's buffer has to take, and
    /// [`CHECK`](crate::frame::serial::CHECK) more.
    pub const fn payload_len(body: usize) -> usize {
        Header::MAX_LENGTH + body
    }

    /// Whether the peer is there and has heard this side: its Hello has come, whatever the session thinks of it.
    pub fn has_peer(&self) -> bool {
        self.confirmed
    }

    /// Whether each side has the other's Hello, as far as this side knows.
    pub fn is_up(&self) -> bool {
        self.confirmed && self.heard
    }

    /// Whether the peer has all that was sent, and knows that we have what came.
    pub fn is_settled(&self) -> bool {
        self.under_way == 0 && self.unacknowledged == 0 && self.ack_at == When::NEVER
    }

    /// Why the link is over, if it is.
    pub fn ended(&self) -> Option<Ended> {
        self.over.map(Ended::from)
    }

    /// Takes a frame's payload. If it has a record that is due, its body is for the session.
    ///
    /// An error ends the session; every later call gives the same error.
    pub fn receive<'f>(
        &mut self,
        now: u64,
        payload: &'f [u8],
        records: &mut impl Records,
    ) -> Result<Option<&'f [u8]>, Ended> {
        if let Some(over) = self.over {
            return Err(over.into());
        }
        // What is no frame of ours, and what is for somebody else, is as if lost (FRM-4, LNK-20).
        let Ok((header, body)) = Header::read(payload) else { return Ok(None) };
        let taken = match header.kind {
            Kind::Hello { from } => self.on_hello(now, from, &header, records),
            _ if header.to != self.id || !self.confirmed => Ok(false),
            Kind::Record { number } => self.on_record(now, number, &header, records),
            Kind::Ack => self.on_ack(now, &header, records).map(|()| false),
        };
        match taken {
            Ok(taken) => Ok(taken.then_some(body)),
            Err(over) => Err(self.end(over, records)),
        }
    }

    /// Writes the next frame into `line` and tells its length; 0 if there is nothing to send now. `line` has
    /// [`Self::frame_len`] bytes for the longest body.
    pub fn transmit(&mut self, now: u64, records: &mut impl Records, line: &mut [u8]) -> Result<usize, TooShort> {
        if matches!(self.over, Some(Over::Restarted | Over::Lost)) {
            return Ok(0);
        }
        let next = self.kind_of_next().and_then(|kind| Some((kind, records.next_record()?)));
        let (kind, body) = match next {
            Some(next) => next,
            None if self.ack_is_due(now) => (Kind::Ack, &[][..]),
            None => return Ok(0),
        };
        let header = Header { kind, missing: self.gap == Gap::ToSay, to: self.peer, ack: self.expected };
        let mut bytes = [0; Header::MAX_LENGTH];
        let mut writer = Writer::new(&mut bytes);
        header.write(&mut writer);
        let length = encode(&[writer.written().unwrap_or_default(), body], line).ok_or(TooShort)?;
        self.note_acknowledged();
        if kind != Kind::Ack {
            records.record_sent();
            self.note_sent(now);
        }
        Ok(length)
    }

    /// Does what is due at `now`: what was not acknowledged in time is to be sent again, or the line is lost.
    ///
    /// An error ends the session; every later call gives the same error.
    pub fn advance(&mut self, now: u64, records: &mut impl Records) -> Result<(), Ended> {
        if let Some(over) = self.over {
            return Err(over.into());
        }
        // LNK-26.
        if self.lost_at.is_due(now) {
            return Err(self.end(Over::Lost, records));
        }
        if self.retry_at.is_due(now) {
            self.rewind(records);
            self.retry = self.retry.saturating_mul(2).min(self.config.retry_max);
            self.retry_at = When::after(now, self.retry);
        }
        Ok(())
    }

    /// When [`Self::advance`], or [`Self::transmit`] for an acknowledgement, has something to do that it has not now.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.ack_at.or(self.retry_at).or(self.lost_at).some().filter(|_| self.over.is_none())
    }

    /// A Hello tells who is there. It counts as received when it is for us: then the peer has heard us too (LNK-21).
    fn on_hello(&mut self, now: u64, from: u32, header: &Header, records: &mut impl Records) -> Result<bool, Over> {
        let is_for_us = header.to == self.id;
        // Our own comes back from a line that is looped (LNK-20).
        if from == self.id || from == 0 {
            return Ok(false);
        }
        let was_confirmed = self.confirmed;
        if was_confirmed && from != self.peer {
            // It knows nothing of what went on before (LNK-22).
            return Err(Over::Restarted);
        }
        if !was_confirmed {
            // It may be an old one that was still on the line: the last one counts (LNK-21).
            self.peer = from;
            self.retry = self.config.retry;
        }
        if is_for_us && !was_confirmed {
            (self.confirmed, self.expected) = (true, 1);
            self.lost_at = self.patience_over(now);
        }
        if is_for_us {
            self.on_ack(now, header, records)?;
        }
        // The peer is told at once that it came: with our own until the peer has that, since only a Hello says who sends it.
        if self.heard && is_for_us {
            self.ack_at = When::at(now);
        } else if is_for_us || !was_confirmed {
            self.rewind(records);
        }
        Ok(is_for_us && !was_confirmed)
    }

    /// A record is taken in its turn only (LNK-23).
    fn on_record(&mut self, now: u64, number: u16, header: &Header, records: &mut impl Records) -> Result<bool, Over> {
        self.on_ack(now, header, records)?;
        let ahead = number.wrapping_sub(self.expected);
        if ahead == 0 {
            self.expected = self.expected.wrapping_add(1);
            self.gap = Gap::None;
            self.unacknowledged = self.unacknowledged.saturating_add(1);
            let is_much = u32::from(self.unacknowledged) * 4 >= self.config.window.into();
            let delay = if is_much { 0 } else { self.config.ack_delay };
            self.ack_at = self.ack_at.or(When::after(now, delay));
        } else if is_behind(ahead) {
            // It came before, and what we said of it was lost (LNK-24).
            self.ack_at = When::at(now);
        } else if self.gap == Gap::None {
            // One before it was lost (LNK-25).
            self.gap = Gap::ToSay;
        }
        Ok(ahead == 0)
    }

    /// The peer has all records below a number (LNK-24), and misses that one if it says so (LNK-25).
    fn on_ack(&mut self, now: u64, header: &Header, records: &mut impl Records) -> Result<(), Over> {
        let ahead = header.ack.wrapping_sub(self.acked);
        if is_behind(ahead) {
            return Ok(());
        }
        if ahead > self.under_way {
            return Err(Over::Fault);
        }
        if ahead > 0 {
            (self.heard, self.went_back) = (true, false);
            self.acked = self.acked.wrapping_add(ahead);
            self.under_way -= ahead;
            self.again = self.again.saturating_sub(ahead);
            records.acknowledge(ahead.into());
            self.retry = self.config.retry;
            (self.retry_at, self.lost_at) = (When::NEVER, When::NEVER);
            if self.under_way > 0 {
                self.wait(now);
            }
        }
        if header.missing && self.under_way > 0 && !self.went_back {
            self.went_back = true;
            self.rewind(records);
        }
        Ok(())
    }

    /// How the next record travels, if it may now: until the peer has our Hello nothing else does (LNK-21), and no more records
    /// than the window are under way.
    fn kind_of_next(&self) -> Option<Kind> {
        match self.heard {
            false => (self.again == 0).then_some(Kind::Hello { from: self.id }),
            true if self.again >= self.config.window => None,
            true => Some(Kind::Record { number: self.acked.wrapping_add(self.again) }),
        }
    }

    /// What was not acknowledged is to be sent again.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    fn rewind(&mut self, records: &mut impl Records) {
        self.again = 0;
        records.rewind();
    }

    fn ack_is_due(&self, now: u64) -> bool {
        self.heard && (self.gap == Gap::ToSay || self.ack_at.is_due(now))
    }

    /// Each frame acknowledges, and says what is missing if that is still to be said.
    fn note_acknowledged(&mut self) {
        self.unacknowledged = 0;
        self.ack_at = When::NEVER;
        if self.gap == Gap::ToSay {
            self.gap = Gap::Said;
        }
    }

    /// The wait for an acknowledgement begins with the last record sent.
    fn note_sent(&mut self, now: u64) {
        self.again += 1;
        self.under_way = self.under_way.max(self.again);
        self.wait(now);
    }

    /// Something is to be acknowledged: the last frame that says so leaves now. A peer that was not there yet is waited for.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    fn wait(&mut self, now: u64) {
        self.retry_at = When::after(now, self.retry);
        if self.confirmed && self.lost_at == When::NEVER {
            self.lost_at = self.patience_over(now);
        }
    }

    fn patience_over(&self, now: u64) -> When {
        When::at(now.saturating_add(self.config.patience))
    }

    fn end(&mut self, over: Over, records: &mut impl Records) -> Ended {
        let ended = over.into();
        self.over = Some(over);
        records.end(ended);
        ended
    }
}

/// What stands before the record in a frame (FRM-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// Whether the record that `ack` names is missing (LNK-25).
    pub missing: bool,
    /// Whom it is for; 0 if the sender does not know.
    pub to: u32,
    /// The number of the record that the sender expects next, its low bits (LNK-24).
    pub ack: u16,
}

/// What a frame is (FRM-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An acknowledgement alone, without a record.
    Ack,
    /// A record.
    Record {
        /// The low bits of its number.
        number: u16,
    },
    /// The sender's Hello, which is record 0.
    Hello {
        /// The sender's id.
        from: u32,
    },
}

impl Header {
    const MISSING: u8 = 4;
    const MAX_LENGTH: usize = 11;

    /// Reads a payload: the header, and the record behind it.
    pub fn read(payload: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut reader = Reader::new(payload);
        let head = reader.byte();
        let to = u32::from_le_bytes(reader.array());
        let ack = u16::from_le_bytes(reader.array());
        let kind = match head & !Self::MISSING {
            0 => Kind::Ack,
            1 => Kind::Record { number: u16::from_le_bytes(reader.array()) },
            2 => Kind::Hello { from: u32::from_le_bytes(reader.array()) },
            _ => return Err(Malformed),
        };
        reader.expect(reader.is_empty() == (kind == Kind::Ack));
        reader.check()?;
        Ok((Self { kind, missing: head & Self::MISSING != 0, to, ack }, reader.rest()))
    }

    /// Writes it; the record follows.
    pub fn write(&self, writer: &mut Writer<'_>) {
        let kind = match self.kind {
            Kind::Ack => 0,
            Kind::Record { .. } => 1,
            Kind::Hello { .. } => 2,
        };
        writer.byte(kind | if self.missing { Self::MISSING } else { 0 });
        writer.put(&self.to.to_le_bytes());
        writer.put(&self.ack.to_le_bytes());
        match self.kind {
            Kind::Record { number } => writer.put(&number.to_le_bytes()),
            Kind::Hello { from } => writer.put(&from.to_le_bytes()),
            Kind::Ack => {}
        }
    }
}

/// Numbers have 16 bits on the line: one that is ahead by more than half of them is behind (LNK-23).
fn is_behind(ahead: u16) -> bool {
    ahead >= 1 << 15
}
