//! An input, taken as decisions from its front.

/// What is left of an input. When nothing is left, numbers are 0 and runs are empty.
pub struct Input<'i>(&'i [u8]);

impl<'i> Input<'i> {
    pub fn new(bytes: &'i [u8]) -> Self {
        Self(bytes)
    }

    /// The next byte, if there is one.
    pub fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    pub fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    /// A number below `limit`, which is 1 to 256.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    /// One of these, if there are any.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let at = self.byte();
        (!from.is_empty()).then(|| from[usize::from(at) % from.len()])
    }

    pub fn take(&mut self, count: usize) -> &'i [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A run as long as the byte before it says.
    pub fn run(&mut self) -> &'i [u8] {
        let length = self.byte();
        self.take(length.into())
    }

    pub fn rest(self) -> &'i [u8] {
        self.0
    }
}
