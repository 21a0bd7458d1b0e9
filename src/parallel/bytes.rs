//! Byte vectors of windows, whose memory is used again.
//!
//! Payloads of up to a window are created on one thread and dropped on another. The allocator would keep what each
//! thread freed for that thread: with 16 threads that doubles the memory of a process.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Smaller vectors are left to the allocator.
const LARGE: usize = 256 << 10;

/// The capacity of all others: enough for the payload of a window, also for packing one that doesn't shrink. With one
/// size, each spare one serves for whatever comes next.
const CAPACITY: usize = (4 << 20) + (32 << 10);

/// The most spare vectors.
const SPARES: usize = 4;

static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Bytes that grow. Large memory goes to a pool when they are dropped.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Bytes(Vec<u8>);

impl Bytes {
    /// Creates an empty one.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Creates an empty one with room for `len` bytes.
    pub fn with_capacity(len: usize) -> Self {
        Self(room_for(len))
    }

    /// Creates `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let mut bytes = Self::with_capacity(len);
        bytes.0.resize(len, 0);
        bytes
    }

    /// Appends `more`.
    pub fn extend_from_slice(&mut self, more: &[u8]) {
        let len = self.0.len().saturating_add(more.len());
        if len > self.0.capacity() && len >= LARGE {
            let mut larger = room_for(len);
            larger.extend_from_slice(&self.0);
            give(std::mem::replace(&mut self.0, larger));
        }
        self.0.extend_from_slice(more);
    }

    /// The vector, for what fills it.
    pub(crate) fn vec(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.0));
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

/// An empty vector with room for at least `len` bytes.
fn room_for(len: usize) -> Vec<u8> {
    if !(LARGE..=CAPACITY).contains(&len) {
        return Vec::with_capacity(len);
    }
    let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    spare.unwrap_or_else(|| Vec::with_capacity(CAPACITY))
}

fn give(mut bytes: Vec<u8>) {
    if bytes.capacity() != CAPACITY {
        return;
    }
    bytes.clear();
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    if spare.len() < SPARES {
        spare.push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_what_was_put_into_them_whatever_their_memory_was_used_for() {
        for round in 0..5_u8 {
            let mut all = Vec::new();
            let mut bytes = Bytes::new();
            for n in 0..60_usize {
                let more = vec![round ^ u8::try_from(n).unwrap(); n * 1013];
                bytes.extend_from_slice(&more);
                all.extend_from_slice(&more);
            }
            assert!(*bytes == *all);
            let zeros = Bytes::zeroed(all.len());
            assert!(zeros.len() == all.len() && zeros.iter().all(|b| *b == 0));
            assert!(Bytes::with_capacity(LARGE).is_empty());
        }
        let many: Vec<Bytes> = (0..20).map(|_| Bytes::zeroed(4 << 20)).collect();
        drop(many);
        assert!(SPARE.lock().unwrap().len() <= SPARES);
    }
}
