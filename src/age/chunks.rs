//! The payload: chunks that are encrypted one by one, so that any of them can be read alone.

use std::fmt;

use ring::aead::LessSafeKey;

use super::crypto::{self, TAG};
use crate::error::Result;

/// Encrypts and decrypts the chunks of one file. Each number may be sealed only once.
pub struct ChunkKey(LessSafeKey);

impl fmt::Debug for ChunkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkKey(..)")
    }
}

impl ChunkKey {
    /// Bytes that a chunk grows by.
    pub const TAG: usize = TAG;

    /// The key of a payload with this salt in a file with this file key.
    pub(super) fn new(file_key: &[u8], salt: &[u8; 16]) -> Result<Self> {
        let key = crypto::hkdf(salt, file_key, b"payload")?;
        crypto::aead(&key).map(Self)
    }

    /// Encrypts chunk number `n` in place, and returns its tag, which follows it.
    pub fn seal(&self, n: u64, last: bool, bytes: &mut [u8]) -> Result<[u8; TAG]> {
        crypto::seal(&self.0, nonce(n, last), bytes)
    }

    /// Decrypts chunk number `n`, which ends with its tag, in place; `None` if it isn't what was sealed as that.
    pub fn open<'a>(&self, n: u64, last: bool, bytes: &'a mut [u8]) -> Option<&'a mut [u8]> {
        crypto::open(&self.0, nonce(n, last), bytes)
    }
}

fn nonce(n: u64, last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    let (_, number) = nonce.split_at_mut(3);
    for (to, from) in number.iter_mut().zip(n.to_be_bytes()) {
        *to = from;
    }
    if let Some(end) = nonce.last_mut() {
        *end = u8::from(last);
    }
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_opens_only_in_its_place() {
        let key = ChunkKey::new(&[7; 16], &[1; 16]).unwrap();
        let mut sealed = b"what is in it".to_vec();
        let tag = key.seal(5, false, &mut sealed).unwrap();
        sealed.extend(tag);
        let open = |key: &ChunkKey, n, last, bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            key.open(n, last, &mut bytes).map(|plain| plain.to_vec())
        };
        assert_eq!(
            open(&key, 5, false, &sealed).as_deref(),
            Some(&b"what is in it"[..])
        );
        assert_eq!(open(&key, 5, true, &sealed), None);
        assert_eq!(open(&key, 6, false, &sealed), None);
        assert_eq!(open(&key, 5, false, &sealed[1..]), None);
        assert_eq!(open(&key, 5, false, &[]), None);
        let other = ChunkKey::new(&[7; 16], &[2; 16]).unwrap();
        assert_eq!(open(&other, 5, false, &sealed), None);
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert_eq!(open(&key, 5, false, &bad), None, "{at}");
        }
        assert_eq!(format!("{key:?}"), "ChunkKey(..)");
        assert_eq!(nonce(0x0102, true), [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 1]);
    }
}
