//! Window hashes: the BLAKE3 hash of each aligned mebibyte of a virtual disk.

use std::sync::OnceLock;

use super::{CHUNK_SIZE, WINDOW_SIZE};
use crate::page::to_usize;

/// Bytes of the virtual disk under one window hash of the [content digest](super::ContentDigest).
pub const DIGEST_WINDOW: u64 = 1 << 20;

/// A BLAKE3 hash.
pub type Hash = [u8; 32];

/// The window hashes of a contiguous part of a virtual disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowHashes(Vec<Hash>);

impl WindowHashes {
    /// The hashes in order.
    pub fn as_slice(&self) -> &[Hash] {
        &self.0
    }

    pub(super) fn push(&mut self, next: Hash) {
        self.0.push(next);
    }

    /// Appends the hashes of the part that follows.
    pub fn append(&mut self, mut next: Self) {
        self.0.append(&mut next.0);
    }
}

impl From<Hash> for WindowHashes {
    fn from(hash: Hash) -> Self {
        Self(vec![hash])
    }
}

/// The window hash of `len` zeros, where `len` is at most [`DIGEST_WINDOW`].
pub(crate) fn zero_hash(len: u64) -> Hash {
    static FULL: OnceLock<Hash> = OnceLock::new();
    let compute = |len: u64| {
        let mut hasher = blake3::Hasher::new();
        feed_zeros(&mut hasher, len);
        *hasher.finalize().as_bytes()
    };
    if len == DIGEST_WINDOW {
        *FULL.get_or_init(|| compute(DIGEST_WINDOW))
    } else {
        compute(len)
    }
}

pub(super) fn feed_zeros(hasher: &mut blake3::Hasher, mut len: u64) {
    static ZEROS: [u8; 16 << 10] = [0; 16 << 10];
    while len > 0 {
        let piece = to_usize(len).min(ZEROS.len());
        hasher.update(&ZEROS[..piece]);
        len -= piece as u64;
    }
}

const _: () = assert!(
    WINDOW_SIZE.is_multiple_of(DIGEST_WINDOW) && DIGEST_WINDOW.is_multiple_of(CHUNK_SIZE as u64)
);
