//! Reusable byte buffers, suitably aligned for every device.

use std::ops::{Deref, DerefMut, Range};
use std::sync::{Mutex, PoisonError};

/// Alignment of buffers in memory: sufficient for every device that is accessed past the page cache.
const ALIGNMENT: usize = 4096;

/// Bytes at an aligned address.
#[derive(Debug, Default)]
pub struct Buffer {
    room: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// Creates a buffer of `len` zeros.
    pub fn new(len: usize) -> Self {
        let mut buffer = Self::default();
        buffer.resize(len);
        buffer
    }

    fn resize(&mut self, len: usize) {
        if self.room.len() < len.saturating_add(ALIGNMENT) {
            self.room = vec![0; len.saturating_add(ALIGNMENT)];
            let shift = self.room.as_ptr().align_offset(ALIGNMENT);
            // If no aligned position was found, it is an ordinary buffer.
            self.start = if shift < ALIGNMENT { shift } else { 0 };
        }
        self.len = len;
    }

    const fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.room.get(self.range()).unwrap_or_default()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let range = self.range();
        self.room.get_mut(range).unwrap_or_default()
    }
}

/// A pool of byte buffers, which are reused so that their pages are faulted in once.
#[derive(Debug, Default)]
pub struct Buffers(Mutex<Vec<Buffer>>);

impl Buffers {
    /// Creates an empty pool.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Takes a buffer of `len` bytes, whose content is left over from earlier use.
    pub fn take(&self, len: usize) -> Buffer {
        let mut buffer = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default();
        buffer.resize(len);
        buffer
    }

    /// Returns a buffer to the pool.
    pub fn give(&self, buffer: Buffer) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(buffer);
    }
}
