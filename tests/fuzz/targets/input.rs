//! Reads a program out of fuzz input: numbers front to back, zeros when it is used up.

/// What is left of the input.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to `len` bytes.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (now, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        now
    }

    /// `N` bytes, the last ones zero if there are less.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let bytes = self.take(N);
        let mut out = [0; N];
        out[..bytes.len()].copy_from_slice(bytes);
        out
    }

    pub fn u8(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    /// True for one of `n` bytes.
    pub fn one_in(&mut self, n: u8) -> bool {
        self.u8().is_multiple_of(n)
    }

    /// A number below `end`, which isn't zero.
    pub fn below(&mut self, end: u64) -> u64 {
        if end <= 1 << 8 {
            u64::from(self.u8()) % end
        } else if end <= 1 << 16 {
            u64::from(self.u16()) % end
        } else {
            self.u64() % end
        }
    }
}
