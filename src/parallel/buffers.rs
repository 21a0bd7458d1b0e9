//! Byte buffers that are used again, at addresses that every device takes.

use std::ops::{Deref, DerefMut, Range};
use std::sync::{Mutex, PoisonError};

/// Where buffers begin in memory: enough for every device that is read or written past the page cache.
const ALIGNMENT: usize = 4096;

/// Bytes at an address that devices take.
#[derive(Debug, Default)]
pub struct Buffer {
    room: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// Of `len` zeros.
    pub fn of(len: usize) -> Self {
        let mut buffer = Self::default();
        buffer.resize(len);
        buffer
    }

    fn resize(&mut self, len: usize) {
        if self.room.len() < len.saturating_add(ALIGNMENT) {
            self.room = vec![0; len.saturating_add(ALIGNMENT)];
            let shift = self.room.as_ptr().align_offset(ALIGNMENT);
            // Without an aligned place it is an ordinary buffer.
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

/// Byte buffers that are used again, so that the pages behind them are touched once.
#[derive(Debug, Default)]
pub struct Buffers(Mutex<Vec<Buffer>>);

impl Buffers {
    /// An empty stock.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// A buffer of `len` bytes whose content is left over from earlier use.
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

    /// Gives a buffer back.
    pub fn give(&self, buffer: Buffer) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(buffer);
    }
}
