//! Reading and writing the primitives of the wire: bytes, varints, text and blobs.
//!
//! Where there is a heap there is flash: the short ones are inlined there, and nowhere else.

use core::str;

/// Whether to look first for what is frequent and simple: that takes flash and saves nothing but time.
pub(crate) const SHORTCUTS: bool = cfg!(feature = "alloc");

/// The bytes do not have the form they must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Malformed;

/// A cursor over received bytes. Every read is checked and canonical (PRM-1, PRM-2).
///
/// One that fails, and each after it, gives zero or nothing and leaves nothing to be read. So a message is read as if it were
/// well formed, and [`Self::check`] tells behind it whether it was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reader<'f> {
    rest: &'f [u8],
    failed: bool,
}

impl<'f> Reader<'f> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'f [u8]) -> Self {
        Self { rest: bytes, failed: false }
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((&first, rest)) => {
                self.rest = rest;
                first
            }
            None => self.fail(),
        }
    }

    /// The next `count` bytes.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn take(&mut self, count: usize) -> &'f [u8] {
        match self.rest.split_at_checked(count) {
            Some((head, rest)) => {
                self.rest = rest;
                head
            }
            None => self.fail(),
        }
    }

    /// The next bytes, as many as the array has.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        if let Some(bytes) = self.take(N).first_chunk() { *bytes } else { [0; N] }
    }

    /// A varint of up to 64 bits, in its shortest form (PRM-1).
    #[cfg_attr(feature = "alloc", inline)]
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn varint(&mut self) -> u64 {
        // Most are short.
        if SHORTCUTS
            && let Some((&first, rest)) = self.rest.split_first()
            && first < 0x80
        {
            self.rest = rest;
            return first.into();
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> u64 {
        let more = self.rest.iter().take_while(|&&byte| byte >= 0x80).count();
        let groups = self.take(more.saturating_add(1));
        let last = groups.last().map_or(0, |&byte| byte);
        // The tenth group has one bit; the last is not zero.
        if more > 9 || more == 9 && last > 1 || more > 0 && last == 0 {
            return self.fail();
        }
        groups.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7F))
    }

    /// A varint that must fit 32 bits.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn varint_u32(&mut self) -> u32 {
        let value = self.varint();
        u32::try_from(value).unwrap_or_else(|_| self.fail())
    }

    /// A varint that must fit 16 bits.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn varint_u16(&mut self) -> u16 {
        let value = self.varint();
        u16::try_from(value).unwrap_or_else(|_| self.fail())
    }

    /// Length and bytes (PRM-2).
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn blob(&mut self) -> &'f [u8] {
        // What does not fit the address space does not fit the message.
        let length = usize::try_from(self.varint()).unwrap_or(usize::MAX);
        self.take(length)
    }

    /// Length and UTF-8 (PRM-2, VAL-3).
    pub fn text(&mut self) -> &'f str {
        let bytes = self.blob();
        str::from_utf8(bytes).unwrap_or_else(|_| self.fail())
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'f [u8] {
        self.rest
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Fails as if the bytes did not have the form they must have.
    #[cold]
    pub fn fail<T: Default>(&mut self) -> T {
        self.spoil();
        T::default()
    }

    #[cfg_attr(not(feature = "alloc"), inline(never))]
    fn spoil(&mut self) {
        (self.rest, self.failed) = (&[], true);
    }

    /// Fails unless `holds`.
    pub fn expect(&mut self, holds: bool) {
        if !holds {
            self.fail::<()>();
        }
    }

    /// Whether every read found what it must, and nothing is left.
    pub fn finish(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { self.check() } else { Err(Malformed) }
    }

    /// Whether every read found what it must.
    pub fn check(&self) -> Result<(), Malformed> {
        if self.failed { Err(Malformed) } else { Ok(()) }
    }
}

/// A cursor that writes into lent bytes and goes on counting when they are full, so that a message that does not fit
/// can tell the size it would have had.
#[derive(Debug)]
pub struct Writer<'b> {
    bytes: &'b mut [u8],
    length: usize,
}

impl<'b> Writer<'b> {
    /// Writes from the start of `bytes`.
    pub fn new(bytes: &'b mut [u8]) -> Self {
        Self { bytes, length: 0 }
    }

    /// Appends bytes.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.length..).and_then(|free| free.get_mut(..bytes.len())) {
            room.copy_from_slice(bytes);
        }
        self.length = self.length.saturating_add(bytes.len());
    }

    /// Appends one byte.
    #[cfg_attr(feature = "alloc", inline)]
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn byte(&mut self, byte: u8) {
        if let Some(room) = self.bytes.get_mut(self.length) {
            *room = byte;
        }
        self.length = self.length.saturating_add(1);
    }

    /// Appends a varint (PRM-1).
    #[cfg_attr(feature = "alloc", inline)]
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn varint(&mut self, mut value: u64) {
        while value > 0x7F {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    /// Appends length and bytes (PRM-2).
    pub fn blob(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.put(bytes);
    }

    /// How many bytes were appended, those that did not fit included.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether all of it fitted.
    pub fn fits(&self) -> bool {
        self.length <= self.bytes.len()
    }

    /// The bytes written, if they all fitted.
    pub fn written(&self) -> Option<&[u8]> {
        self.bytes.get(..self.length)
    }
}

/// Moves the bytes from `from` up to `end` down to `to`. Unlike `copy_within` it cannot panic, and the compiler sees that.
pub(crate) fn move_down(bytes: &mut [u8], from: usize, end: usize, to: usize) {
    if let (Some(bytes), Some(distance)) = (bytes.get_mut(to..end), from.checked_sub(to))
        && distance <= bytes.len()
    {
        bytes.copy_within(distance.., 0);
    }
}

/// The length of a varint, 1 to 10 bytes.
#[cfg_attr(feature = "alloc", inline)]
#[cfg_attr(not(feature = "alloc"), inline(never))]
pub const fn varint_len(value: u64) -> usize {
    if SHORTCUTS && value < 0x80 {
        return 1;
    }
    // Divided by seven and rounded up: right as far as there are bits.
    let bits = 64 - (value | 1).leading_zeros() as usize;
    (bits * 9 + 64) / 64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PRM-1: each power of two and its neighbours come back; only the shortest form is read.
    #[test]
    fn varints_have_one_form() {
        for shift in 0..64 {
            for value in [(1u64 << shift) - 1, 1 << shift, (1 << shift) + 1] {
                let mut bytes = [0; 10];
                let mut writer = Writer::new(&mut bytes);
                writer.varint(value);
                let length = writer.len();
                assert_eq!(length, varint_len(value));
                let mut reader = Reader::new(&bytes[..length]);
                assert_eq!((reader.varint(), reader.check()), (value, Ok(())));
                assert!(reader.is_empty());
            }
        }
        let mut bytes = [0; 10];
        let mut writer = Writer::new(&mut bytes);
        writer.varint(u64::MAX);
        assert_eq!(Reader::new(&bytes).varint(), u64::MAX);
        for bad in [
            &[0x80, 0x00][..],
            &[0x81, 0x80, 0x00],
            &[0x80],
            &[],
            &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
        ] {
            let mut reader = Reader::new(bad);
            assert_eq!((reader.varint(), reader.check()), (0, Err(Malformed)), "{bad:02x?}");
        }
    }

    /// PRM-2: a length that runs past the end is refused, also at the edge of the address space.
    #[test]
    fn lengths_stay_within_the_message() {
        for bad in [&[3, b'a', b'b'][..], &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]] {
            let mut reader = Reader::new(bad);
            assert_eq!((reader.blob(), reader.check()), (&[][..], Err(Malformed)), "{bad:02x?}");
        }
        let text = |bytes| {
            let mut reader = Reader::new(bytes);
            (reader.text(), reader.check())
        };
        assert_eq!(text(&[2, 0xC3, 0x28]), ("", Err(Malformed)));
        assert_eq!(text(&[2, 0xC3, 0xA9]), ("é", Ok(())));
    }

    /// Once a read has failed nothing more is read, whatever is left.
    #[test]
    fn a_failure_stays() {
        let mut reader = Reader::new(&[1, 0x80, 0, 2, 3]);
        assert_eq!((reader.varint_u16(), reader.varint_u32(), reader.byte()), (1, 0, 0));
        assert_eq!((reader.take(1), reader.array(), reader.is_empty()), (&[][..], [0; 2], true));
        assert_eq!(reader.check(), Err(Malformed));
    }

    #[test]
    fn a_writer_counts_past_its_end() {
        let mut bytes = [0; 4];
        let mut writer = Writer::new(&mut bytes);
        writer.put(&[1, 2, 3]);
        writer.varint(300);
        assert_eq!(writer.len(), 5);
        assert!(!writer.fits());
        assert_eq!(writer.written(), None);
    }
}
