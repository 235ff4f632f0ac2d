//! Byte stream to records: the preamble and the length prefix (FRM-1, FRM-2).
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

use crate::codec::varint_len;

/// The first bytes of each direction (FRM-1). 0xFF never stands in UTF-8, so no banner in it can look like this.
pub const PREAMBLE: [u8; 8] = *b"\xFFfarref\n";

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
#[derive(Clone, Debug, Default)]
pub struct PreambleScanner {
    matched: usize,
    dropped: usize,
}

/// What a [`PreambleScanner`] knows so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The preamble ended after so many bytes of the run; records follow.
    Found(usize),
    /// Not yet; all bytes of the run were dropped or remembered.
    Searching,
    /// More than [`BANNER_LIMIT`] bytes without a preamble: no farref peer is there.
    NoPeer,
}

impl PreambleScanner {
    /// Looks through the next bytes of the stream.
    pub fn scan(&mut self, bytes: &[u8]) -> Scan {
        for (at, &byte) in bytes.iter().enumerate() {
            if PREAMBLE.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == PREAMBLE.len() {
                    return Scan::Found(at + 1);
                }
                continue;
            }
            // The first byte of the preamble does not occur again in it, so a failed match starts over here.
            let restart = PREAMBLE.first() == Some(&byte);
            self.dropped += self.matched + usize::from(!restart);
            self.matched = usize::from(restart);
            if self.dropped > BANNER_LIMIT {
                return Scan::NoPeer;
            }
        }
        Scan::Searching
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
    }
}
