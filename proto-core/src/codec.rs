//! Reading and writing the primitives of the wire: bytes, varints, text and blobs.
//!
//! Where there is a heap there is flash: the short ones are inlined there, and nowhere else.

use core::str;

/// The bytes do not have the form they must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Malformed;

/// A cursor over received bytes. Every read is checked and canonical (PRM-1, PRM-2).
#[derive(Clone, Copy, Debug, Default)]
pub struct Reader<'f> {
    rest: &'f [u8],
}

impl<'f> Reader<'f> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'f [u8]) -> Self {
        Self { rest: bytes }
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let (&first, rest) = self.rest.split_first().ok_or(Malformed)?;
        self.rest = rest;
        Ok(first)
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'f [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    /// A varint of up to 64 bits, in its shortest form (PRM-1).
    #[cfg_attr(feature = "alloc", inline)]
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        // Most are short.
        if let Some((&first, rest)) = self.rest.split_first()
            && first < 0x80
        {
            self.rest = rest;
            return Ok(first.into());
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        let mut shift = 0u32;
        loop {
            let byte = self.byte()?;
            let group = u64::from(byte & 0x7F);
            if shift == 63 && group > 1 {
                return Err(Malformed);
            }
            value |= group << shift;
            if byte & 0x80 == 0 {
                return if group == 0 && shift > 0 { Err(Malformed) } else { Ok(value) };
            }
            shift += 7;
            if shift > 63 {
                return Err(Malformed);
            }
        }
    }

    /// A varint that must fit 32 bits.
    pub fn varint_u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| Malformed)
    }

    /// A varint that must fit 16 bits.
    pub fn varint_u16(&mut self) -> Result<u16, Malformed> {
        u16::try_from(self.varint()?).map_err(|_| Malformed)
    }

    /// Length and bytes (PRM-2).
    pub fn blob(&mut self) -> Result<&'f [u8], Malformed> {
        let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
        self.take(length)
    }

    /// Length and UTF-8 (PRM-2, VAL-3).
    pub fn text(&mut self) -> Result<&'f str, Malformed> {
        str::from_utf8(self.blob()?).map_err(|_| Malformed)
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'f [u8] {
        self.rest
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
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
#[inline]
pub const fn varint_len(value: u64) -> usize {
    if value < 0x80 {
        return 1;
    }
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
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
                assert_eq!(reader.varint(), Ok(value));
                assert!(reader.is_empty());
            }
        }
        let mut bytes = [0; 10];
        let mut writer = Writer::new(&mut bytes);
        writer.varint(u64::MAX);
        assert_eq!(Reader::new(&bytes).varint(), Ok(u64::MAX));
        for bad in [
            &[0x80, 0x00][..],
            &[0x81, 0x80, 0x00],
            &[0x80],
            &[],
            &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
        ] {
            assert_eq!(Reader::new(bad).varint(), Err(Malformed), "{bad:02x?}");
        }
    }

    /// PRM-2: a length that runs past the end is refused, also at the edge of the address space.
    #[test]
    fn lengths_stay_within_the_message() {
        assert_eq!(Reader::new(&[3, b'a', b'b']).blob(), Err(Malformed));
        assert_eq!(Reader::new(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]).blob(), Err(Malformed));
        assert_eq!(Reader::new(&[2, 0xC3, 0x28]).text(), Err(Malformed));
        assert_eq!(Reader::new(&[2, 0xC3, 0xA9]).text(), Ok("é"));
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
