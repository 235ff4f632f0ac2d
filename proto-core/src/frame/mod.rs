//! Byte stream to records: the preamble and the length prefix (FRM-1, FRM-2). On a line that loses or changes bytes frames
//! take their place: `serial`, with the feature of that name.
//!
//! Nothing here owns a buffer. A backend keeps what it has read in a buffer of its own and asks for one record at a time. The
//! buffer holds the longest message that this side announced, or a Hello
//! ([`Hello::MAX_LENGTH`](crate::message::Hello::MAX_LENGTH)) if that is longer, and 5 bytes for the length before it.
//!
//! ```
//! use farref_core::frame::{Split, split};
//!
//! let received = [2, 0x11, 0x22, 1, 0x33, 9];
//! let Split::Record { body, rest } = split(&received, 64) else { panic!() };
//! assert_eq!(body, [0x11, 0x22]);
//! let Split::Record { body, rest } = split(rest, 64) else { panic!() };
//! assert_eq!(body, [0x33]);
//! assert_eq!(split(rest, 64), Split::Incomplete);
//! ```

#[cfg(feature = "serial")]
pub mod serial;

use crate::codec::varint_len;

/// The first bytes of each direction (FRM-1). 0xFF never stands in UTF-8, so no banner in it can look like this.
pub const PREAMBLE: [u8; 8] = *b"\xFFfarref\n";

/// The first bytes of each message of the check of a shared key, which may come before the preamble (KEY-2).
pub(crate) const KEY_MARK: [u8; 8] = *b"\xFFfarkey\n";

/// How many bytes of banner may stand before the preamble (FRM-1).
pub const BANNER_LIMIT: usize = 65_536;

/// What stands at the start of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split<'f> {
    /// A whole record.
    Record {
        /// Its body: one message.
        body: &'f [u8],
        /// What follows it.
        rest: &'f [u8],
    },
    /// Not all of a record yet.
    Incomplete,
    /// No record begins like this: the length is 0, above the limit, or no varint (FRM-2).
    Bad,
}

/// Splits the first record off received bytes; `max_message` is the limit that this side announced, or for the first record
/// at least [`Hello::MAX_LENGTH`](crate::message::Hello::MAX_LENGTH) (HEL-2).
///
/// After [`Split::Bad`] give the session an empty body: it ends with the rule that was broken.
pub fn split(received: &[u8], max_message: u32) -> Split<'_> {
    let (length, used) = match prefix(received) {
        Prefix::Whole(length, used) => (length, used),
        Prefix::Incomplete => return Split::Incomplete,
        Prefix::TooLong => return Split::Bad,
    };
    if length == 0 || length > u64::from(max_message) || varint_len(length) != used {
        return Split::Bad;
    }
    let body_and_rest = received.get(used..).unwrap_or_default();
    match usize::try_from(length).ok().and_then(|length| body_and_rest.split_at_checked(length)) {
        Some((body, rest)) => Split::Record { body, rest },
        None => Split::Incomplete,
    }
}

/// How many bytes have to be there for the first record to be whole, its length included: what [`Split::Incomplete`] waits for.
/// One more than there are, as long as not even the length is there.
pub fn wanted(received: &[u8]) -> usize {
    match prefix(received) {
        Prefix::Whole(length, used) => usize::try_from(length).unwrap_or(usize::MAX).saturating_add(used),
        Prefix::Incomplete | Prefix::TooLong => received.len() + 1,
    }
}

enum Prefix {
    /// The length, and how many bytes it takes.
    Whole(u64, usize),
    Incomplete,
    TooLong,
}

fn prefix(received: &[u8]) -> Prefix {
    let mut length = 0u64;
    for (at, &byte) in received.iter().take(5).enumerate() {
        length |= u64::from(byte & 0x7F) << (7 * at as u32);
        if byte & 0x80 == 0 {
            return Prefix::Whole(length, at + 1);
        }
    }
    if received.len() < 5 { Prefix::Incomplete } else { Prefix::TooLong }
}

/// Finds the preamble behind a banner, fed byte runs of any size.
#[derive(Clone, Debug)]
pub struct PreambleScanner {
    /// How many bytes of a mark were there last.
    matched: usize,
    /// Which mark that is, once its bytes differ from the other's.
    mark: Mark,
    dropped: usize,
    limit: usize,
}

/// What a [`PreambleScanner`] knows so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The preamble ended after so many bytes of the run; records follow.
    Found(usize),
    /// Not yet; all bytes of the run were dropped or remembered.
    Searching,
    /// Too many bytes without a preamble: no farref peer is there. Or one that asks for a key first:
    /// [`PreambleScanner::wants_key`] tells.
    NoPeer,
}

/// With what a direction may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The preamble of a session.
    Preamble,
    /// The first bytes of each message of the key check.
    Key,
}

impl Mark {
    const fn bytes(self) -> &'static [u8; 8] {
        match self {
            Self::Preamble => &PREAMBLE,
            Self::Key => &KEY_MARK,
        }
    }
}

impl Default for PreambleScanner {
    /// For a stream that may begin with a banner.
    fn default() -> Self {
        Self::new(BANNER_LIMIT)
    }
}

impl PreambleScanner {
    /// Drops at most `limit` bytes before the preamble: [`BANNER_LIMIT`] as FRM-1 has it, 0 where the peer is known to
    /// write no banner.
    pub const fn new(limit: usize) -> Self {
        Self { matched: 0, mark: Mark::Preamble, dropped: 0, limit }
    }

    /// Looks through the next bytes of the stream.
    pub fn scan(&mut self, bytes: &[u8]) -> Scan {
        match self.find(bytes) {
            (Some(Mark::Preamble), used) => Scan::Found(used),
            (Some(Mark::Key), _) => Scan::NoPeer,
            (None, _) if self.dropped > self.limit => Scan::NoPeer,
            (None, _) => Scan::Searching,
        }
    }

    /// Whether a message of the key check came where the preamble was looked for: the peer wants a key (KEY-2).
    pub fn wants_key(&self) -> bool {
        self.mark == Mark::Key && self.matched == KEY_MARK.len()
    }

    /// Whether more was dropped than a banner may have.
    #[cfg(feature = "key")]
    pub(crate) fn gave_up(&self) -> bool {
        self.dropped > self.limit
    }

    /// Which mark comes first, and how many bytes were used up to its end.
    pub(crate) fn find(&mut self, bytes: &[u8]) -> (Option<Mark>, usize) {
        for (at, &byte) in bytes.iter().enumerate() {
            if let Some(mark) =
                [self.mark, Mark::Preamble, Mark::Key].into_iter().find(|mark| self.goes_on(*mark, byte))
            {
                self.mark = mark;
                self.matched += 1;
                if self.matched == mark.bytes().len() {
                    return (Some(mark), at + 1);
                }
                continue;
            }
            // The first byte of a mark does not occur again in it, so a failed match starts over here.
            let restart = PREAMBLE.first() == Some(&byte);
            self.dropped += self.matched + usize::from(!restart);
            self.matched = usize::from(restart);
            if self.dropped > self.limit {
                return (None, at + 1);
            }
        }
        (None, bytes.len())
    }

    /// Whether `byte` is the next one of `mark`, of which all before it has matched too.
    fn goes_on(&self, mark: Mark, byte: u8) -> bool {
        let so_far = |mark: Mark| mark.bytes().get(..self.matched);
        so_far(mark) == so_far(self.mark) && mark.bytes().get(self.matched) == Some(&byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FRM-2: length 0, over the limit, in a longer form, or with no end.
    #[test]
    fn bad_lengths_are_told_at_once() {
        assert_eq!(split(&[0], 64), Split::Bad);
        assert_eq!(split(&[65], 64), Split::Bad);
        assert_eq!(split(&[0x81, 0x00], 64), Split::Bad);
        assert_eq!(split(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF], 64), Split::Bad);
        assert_eq!(split(&[0xFF, 0xFF, 0xFF, 0xFF], 64), Split::Incomplete);
        assert_eq!(split(&[], 64), Split::Incomplete);
        let exact = [64; 65];
        assert_eq!(split(&exact, 64), Split::Record { body: &exact[1..], rest: &[] });
    }

    #[test]
    fn what_is_wanted_is_the_whole_record() {
        assert_eq!(wanted(&[]), 1);
        assert_eq!(wanted(&[0x80]), 2);
        assert_eq!(wanted(&[0x80, 1]), 130);
        assert_eq!(wanted(&[3, 0, 0]), 4);
    }

    /// FRM-1: in any chunking, behind a banner that holds the beginning of a preamble.
    #[test]
    fn a_preamble_is_found_behind_a_banner() {
        let stream = b"Welcome!\xFFfarr\xFF\xFFfarref\nrest";
        for chunk in 1..stream.len() {
            let mut scanner = PreambleScanner::default();
            let mut seen = 0;
            let found = stream.chunks(chunk).find_map(|run| match scanner.scan(run) {
                Scan::Found(at) => Some(seen + at),
                _ => {
                    seen += run.len();
                    None
                }
            });
            assert_eq!(found, Some(stream.len() - 4), "chunks of {chunk}");
        }
    }

    /// FRM-1: an endless banner is not read for ever.
    #[test]
    fn a_banner_has_a_limit() {
        let mut scanner = PreambleScanner::default();
        assert_eq!(scanner.scan(&[b'x'; BANNER_LIMIT]), Scan::Searching);
        assert_eq!(scanner.scan(&PREAMBLE), Scan::Found(8));
        let mut scanner = PreambleScanner::default();
        assert_eq!(scanner.scan(&[b'x'; BANNER_LIMIT + 1]), Scan::NoPeer);
        assert!(!scanner.wants_key());
    }

    /// FRM-1: where there is no banner, the first byte that differs is one too many.
    #[test]
    fn no_banner_at_all() {
        assert_eq!(PreambleScanner::new(0).scan(b"\xFFfarref\n"), Scan::Found(8));
        assert_eq!(PreambleScanner::new(0).scan(b"G"), Scan::NoPeer);
        assert_eq!(PreambleScanner::new(0).scan(b"\xFFfarr\xFF"), Scan::NoPeer);
        let mut scanner = PreambleScanner::new(0);
        assert_eq!(scanner.scan(b"\xFFfar"), Scan::Searching);
        assert_eq!(scanner.scan(b"x"), Scan::NoPeer);
    }

    /// KEY-2: the mark of a key check is told from a preamble, in any chunking, behind a banner.
    #[test]
    fn a_peer_that_wants_a_key_is_recognised() {
        let stream = b"hi\xFFfarre\xFFfark\xFFfarkey\n\x01\x01";
        for chunk in 1..stream.len() {
            let mut scanner = PreambleScanner::default();
            let last = stream.chunks(chunk).map(|run| scanner.scan(run)).find(|scan| *scan != Scan::Searching);
            assert_eq!((last, scanner.wants_key()), (Some(Scan::NoPeer), true), "chunks of {chunk}");
        }
        let mut scanner = PreambleScanner::default();
        assert_eq!(scanner.scan(b"\xFFfarkey\xFFfarref\n"), Scan::Found(15));
        assert!(!scanner.wants_key());
    }
}
