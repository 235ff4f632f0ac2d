//! The serial form: frames that are found again after anything, and of which none is taken that was changed on the way
//! (FRM-3).
//!
//! A frame is `COBS(payload | CRC-32 of the payload) 00`. A line that loses bytes, flips bits or begins in the middle costs
//! the frames that it touched and at most the one behind them. What is lost stays lost here.
//!
//! ```
//! use farref_core::frame::serial::{CHECK, Decoder, encode, encoded_len};
//!
//! let mut line = [0; encoded_len(5)];
//! let length = encode(&[b"\0hey", b"!"], &mut line).expect("it is long enough for 5 bytes");
//!
//! let mut decoder = Decoder::new([0; 5 + CHECK]);
//! let mut noise: &[u8] = b"login: \0\0";
//! assert_eq!(decoder.next(&mut noise), None);
//! for run in line[..length].chunks(3) {
//!     let mut run = run;
//!     while let Some(payload) = decoder.next(&mut run) {
//!         assert_eq!(payload, b"\0hey!");
//!     }
//! }
//! assert_eq!(decoder.dropped(), 1);
//! ```

use core::{fmt, mem};

use cobs::{CobsEncoder, DecodeResult, DecoderState};
use crc::{CRC_32_ISO_HDLC, Crc};

/// Bytes of the check behind a payload: a [`Decoder`]'s buffer is so much longer than the longest payload.
pub const CHECK: usize = 4;

/// Where there is a heap there is memory for a table of one kilobyte.
#[cfg(feature = "alloc")]
type Way = crc::Table<1>;
#[cfg(not(feature = "alloc"))]
type Way = crc::NoTable;

static CRC: Crc<u32, Way> = Crc::<u32, Way>::new(&CRC_32_ISO_HDLC);

/// Ends each frame, and stands nowhere else in one.
const DELIMITER: u8 = 0;

/// How many bytes a frame takes on the line at most, its delimiter included: six, and one for each 254 of its payload that
/// have been begun, roughly.
pub const fn encoded_len(payload: usize) -> usize {
    cobs::max_encoding_length(payload + CHECK) + 1
}

/// Writes one frame, its delimiter included, and tells its length; none if `line` is too short. The payload is what `parts`
/// are when they stand behind each other; none of nothing, since its frame is what a disturbed line may well bring.
pub fn encode(parts: &[&[u8]], line: &mut [u8]) -> Option<usize> {
    if parts.iter().all(|part| part.is_empty()) {
        return None;
    }
    let mut encoder = CobsEncoder::new(line);
    // The encoder counts a byte too many for nothing behind a full group.
    for part in parts.iter().filter(|part| !part.is_empty()) {
        encoder.push(part).ok()?;
    }
    encoder.push(&check_of(parts).to_le_bytes()).ok()?;
    let length = encoder.finalize();
    *line.get_mut(length)? = DELIMITER;
    Some(length + 1)
}

#[cfg_attr(not(feature = "alloc"), inline(never))]
fn check_of(parts: &[&[u8]]) -> u32 {
    let mut digest = CRC.digest();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize()
}

/// Finds the frames in what a line brings, fed runs of bytes of any size.
///
/// Its buffer is an array, a slice or a vector of the host's, [`CHECK`] bytes longer than the longest payload that is to be
/// taken.
pub struct Decoder<B> {
    buffer: B,
    /// How much of the frame that comes in stands in the buffer.
    length: usize,
    cobs: DecoderState,
    /// The frame that comes in is too long: the next one begins behind the delimiter.
    skipping: bool,
    dropped: u64,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Decoder<B> {
    /// At the beginning of a line.
    pub const fn new(buffer: B) -> Self {
        Self { buffer, length: 0, cobs: DecoderState::Idle, skipping: false, dropped: 0 }
    }

    /// The payload of the next frame in `run`, which then begins behind that frame. None when all of the run was used and
    /// the frame in it, if any, goes on in the next run.
    pub fn next(&mut self, run: &mut &[u8]) -> Option<&[u8]> {
        while let Some((&byte, rest)) = run.split_first() {
            *run = rest;
            match self.take(byte) {
                Taken::More => {}
                Taken::Frame(length) => return self.buffer.as_ref().get(..length),
                Taken::Dropped => self.dropped += 1,
            }
        }
        None
    }

    /// Frames, and runs of noise up to a delimiter, that were dropped because they were changed on the way, or too long.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn take(&mut self, byte: u8) -> Taken {
        if self.skipping {
            self.skipping = byte != DELIMITER;
            return Taken::More;
        }
        match self.cobs.feed(byte) {
            // A delimiter that follows another one is no frame.
            Ok(DecodeResult::NoData) => Taken::More,
            Ok(DecodeResult::DataStart) => {
                self.length = 0;
                Taken::More
            }
            Ok(DecodeResult::DataContinue(byte)) => match self.buffer.as_mut().get_mut(self.length) {
                Some(place) => {
                    *place = byte;
                    self.length += 1;
                    Taken::More
                }
                None => {
                    self.skipping = true;
                    self.cobs = DecoderState::Idle;
                    Taken::Dropped
                }
            },
            Ok(DecodeResult::DataComplete) => self.checked().map_or(Taken::Dropped, Taken::Frame),
            // A delimiter where a group goes on: the next frame begins here.
            Err(_) => Taken::Dropped,
        }
    }

    /// The length of the payload of the frame in the buffer, if its check is right.
    fn checked(&mut self) -> Option<usize> {
        let length = mem::take(&mut self.length);
        let (payload, check) = self.buffer.as_ref().get(..length)?.split_last_chunk::<CHECK>()?;
        let is_sound = !payload.is_empty() && check_of(&[payload]) == u32::from_le_bytes(*check);
        is_sound.then_some(payload.len())
    }
}

/// What a byte of the line has led to.
enum Taken {
    More,
    /// A whole frame, whose payload has so many bytes.
    Frame(usize),
    Dropped,
}

impl<B> fmt::Debug for Decoder<B> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Decoder")
            .field("length", &self.length)
            .field("skipping", &self.skipping)
            .field("dropped", &self.dropped)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    /// What a decoder with a buffer for payloads of `longest` bytes finds, fed pieces of one size.
    fn decode(line: &[u8], longest: usize, piece: usize) -> (Vec<Vec<u8>>, u64) {
        let mut decoder = Decoder::new(vec![0; longest + CHECK]);
        let mut payloads = Vec::new();
        for mut run in line.chunks(piece) {
            while let Some(payload) = decoder.next(&mut run) {
                payloads.push(payload.to_vec());
            }
        }
        (payloads, decoder.dropped())
    }

    fn encoded(payload: &[u8]) -> Vec<u8> {
        let mut line = vec![0xEE; encoded_len(payload.len())];
        let length = encode(&[payload], &mut line).expect("room for the worst case");
        line.truncate(length);
        line
    }

    /// FRM-3: around each length at which COBS begins a new group, of zeros and of none.
    #[test]
    fn any_length_comes_back() {
        for length in (1..8).chain(245..260).chain(500..516) {
            for fill in [0, 1, 0xFF] {
                let payload = vec![fill; length];
                let line = encoded(&payload);
                assert_eq!(line.iter().position(|&byte| byte == 0), Some(line.len() - 1), "one delimiter, at the end");
                assert_eq!(decode(&line, length, 7), (vec![payload], 0), "{length} bytes of {fill}");
            }
        }
    }

    /// FRM-3: in parts that end where a group of COBS does, too.
    #[test]
    fn parts_are_one_payload() {
        let payload: Vec<u8> = (0..600_u32).map(|at| at as u8 | 1).collect();
        let whole = encoded(&payload);
        for cut in 0..payload.len() {
            let (head, rest) = payload.split_at(cut);
            let mut line = vec![0; encoded_len(payload.len())];
            let length = encode(&[head, &[], rest], &mut line).expect("room for the worst case");
            assert_eq!(line[..length], whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_line_that_is_too_short_is_refused() {
        for fill in [0, 5] {
            let payload = [fill; 300];
            let whole = encoded(&payload);
            for length in 0..whole.len() {
                assert_eq!(encode(&[&payload], &mut vec![0; length]), None, "{length} of {}", whole.len());
            }
            assert_eq!(encode(&[&payload], &mut vec![0; whole.len()]), Some(whole.len()));
        }
    }

    /// FRM-3: a frame that just fits is taken, a longer one is skipped up to its delimiter, whatever it holds.
    #[test]
    fn a_frame_that_is_too_long_costs_itself_only() {
        for fill in [0, 7] {
            let line = [encoded(&[fill; 40]), encoded(&[fill; 41]), encoded(&[fill; 400]), encoded(b"next")].concat();
            for piece in 1..line.len() {
                assert_eq!(decode(&line, 40, piece), (vec![vec![fill; 40], b"next".to_vec()], 2));
            }
        }
    }

    /// FRM-3: delimiters alone are no frames.
    #[test]
    fn empty_frames_are_ignored() {
        let line = [vec![0; 5], encoded(b"a"), vec![0; 3], encoded(b"b"), vec![0]].concat();
        assert_eq!(decode(&line, 8, 2), (vec![b"a".to_vec(), b"b".to_vec()], 0));
    }

    /// FRM-3: nothing is no payload. Six bytes of noise would be its frame.
    #[test]
    fn there_is_no_frame_of_nothing() {
        assert_eq!(encode(&[&[], &[]], &mut [0; 16]), None);
        assert_eq!(decode(&[1, 1, 1, 1, 1, 0], 8, 6), (vec![], 1));
    }

    /// FRM-3: a peer may write a group of nothing behind a full one at the end.
    #[test]
    fn both_forms_of_a_full_last_group_are_taken() {
        // 254 bytes without a zero, the check included.
        let payload = (0x0101_0101..=u32::MAX).map(|n| [[9; 246].as_slice(), &n.to_le_bytes()].concat());
        let mut fitting = payload.filter(|payload| !CRC.checksum(payload).to_le_bytes().contains(&0));
        let payload = fitting.find(|payload| !payload.contains(&0)).expect("one of the first");
        let mut line = encoded(&payload);
        assert_eq!((line.len(), line[0]), (256, 0xFF));
        assert_eq!(decode(&line, 250, 1).0, std::slice::from_ref(&payload));
        line.insert(255, 1);
        assert_eq!(decode(&line, 250, 1).0, [payload]);
    }

    /// FRM-3: no change of a single bit, and no byte lost, is taken for a frame; the frame behind it is received.
    #[test]
    fn a_changed_frame_is_dropped_and_the_next_but_one_received() {
        let frame = encoded(&[0x10, 0, 0, 0x33, 0xFF, 1]);
        let behind = [encoded(b"one"), encoded(b"two")].concat();
        for bit in 0..frame.len() * 8 {
            let mut line = frame.clone();
            line[bit / 8] ^= 1 << (bit % 8);
            let (payloads, dropped) = decode(&[line, behind.clone()].concat(), 16, 3);
            let from = payloads.len() - if bit / 8 + 1 == frame.len() { 1 } else { 2 };
            assert_eq!(from, 0, "bit {bit}: {payloads:02x?}");
            assert_eq!(payloads.last().map(Vec::as_slice), Some(b"two".as_slice()));
            assert!(dropped > 0, "bit {bit}");
        }
        for byte in 0..frame.len() {
            let mut line = frame.clone();
            line.remove(byte);
            let (payloads, _) = decode(&[line, behind.clone()].concat(), 16, 3);
            assert_eq!(payloads.last().map(Vec::as_slice), Some(b"two".as_slice()), "byte {byte} lost");
            assert!(payloads.len() <= 2);
        }
    }
}
