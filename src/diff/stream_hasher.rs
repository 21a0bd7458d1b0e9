//! The digest of everything so far, for sections that arrive in small pieces.

use crate::image::Hash;

/// Bytes are fed in multiples of this: BLAKE3 is at full speed only on long inputs that are whole subtrees.
const GATHERED: usize = 64 << 10;

/// BLAKE3 of a stream.
#[derive(Debug, Default)]
pub(super) struct StreamHasher {
    hasher: blake3::Hasher,
    gathered: Vec<u8>,
}

impl StreamHasher {
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        if !self.gathered.is_empty() {
            let room = GATHERED.saturating_sub(self.gathered.len());
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.gathered.extend_from_slice(now);
            bytes = later;
            if self.gathered.len() < GATHERED {
                return;
            }
            self.hasher.update(&self.gathered);
            self.gathered.clear();
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % GATHERED);
        self.hasher.update(whole);
        self.gathered.extend_from_slice(rest);
    }

    /// Returns the digest of all bytes so far.
    pub(super) fn digest(&mut self) -> Hash {
        self.hasher.update(&self.gathered);
        self.gathered.clear();
        *self.hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_length_give_the_digest_of_the_whole() {
        let bytes: Vec<u8> = (0..400_000_u32).map(|n| n.to_be_bytes()[3]).collect();
        for len in [1000, 65_535, 65_536, 65_537, 399_999] {
            let mut running = StreamHasher::default();
            for piece in bytes.chunks(len) {
                running.update(&piece[..piece.len() / 3]);
                running.update(&piece[piece.len() / 3..]);
            }
            assert_eq!(running.digest(), *blake3::hash(&bytes).as_bytes(), "{len}");
        }
    }
}
