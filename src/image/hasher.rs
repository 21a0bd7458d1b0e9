//! Window hashes, computed from data and zeros in order.
//!
//! BLAKE3 is a tree over its input: an aligned piece of 2ⁿ KiB is a subtree whose value depends only on its bytes and
//! its position (section 2.1 of the BLAKE3 paper). Each window is hashed from position 0, so a subtree of zeros has one
//! value per position in a window. These values are computed once: known zeros cost next to nothing, even in a window
//! that also holds data.

use std::slice::Iter;
use std::sync::OnceLock;

use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, left_subtree_len, merge_subtrees_non_root,
    merge_subtrees_root,
};

use super::window_hash::{DIGEST_WINDOW, Hash, WindowHashes, feed_zeros, zero_hash};
use crate::page::to_usize;

/// The smallest subtree that is hashed separately: large enough for the widest vectors.
const SMALLEST: u64 = 64 << 10;

/// The largest subtree of data that is hashed at once: the size of a comparison.
const LARGEST: u64 = 256 << 10;

/// A complete subtree, or the end of a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) len: u64,
    pub(super) value: ChainingValue,
}

/// Hashes a part of a virtual disk that begins at a multiple of [`DIGEST_WINDOW`], fed in order. A clone continues from
/// the same point: two disks that begin alike are hashed once up to their first difference.
#[derive(Debug, Clone)]
pub(crate) struct WindowHasher {
    /// The hasher of the last part, which may be incomplete.
    hasher: blake3::Hasher,
    /// The completed parts of the current window up to `at`. An incomplete part begins at a multiple of [`SMALLEST`].
    parts: Vec<Part>,
    at: u64,
    /// Zeros at the end that haven't been hashed yet.
    zeros: u64,
    done: WindowHashes,
}

impl WindowHasher {
    pub(crate) fn new() -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            parts: Vec::new(),
            at: 0,
            zeros: 0,
            done: WindowHashes::default(),
        }
    }

    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.settle_zeros();
            let now = self.next_part(bytes.len() as u64, LARGEST);
            let (now, later) = bytes.split_at(to_usize(now));
            self.open();
            self.hasher.update(now);
            self.fed(now.len() as u64);
            self.close_when_full();
            bytes = later;
        }
    }

    /// As calling [`update`](Self::update) on this hasher and on `other`, which is at the same position, but hashes the
    /// bytes once.
    pub(crate) fn update_both(&mut self, other: &mut Self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.settle_zeros();
            other.settle_zeros();
            let now = self.next_part(bytes.len() as u64, LARGEST);
            if self.at != other.at || now < SMALLEST {
                // An incomplete subtree, or hashers in different states.
                self.update(bytes);
                other.update(bytes);
                return;
            }
            let (now, later) = bytes.split_at(to_usize(now));
            self.open();
            self.hasher.update(now);
            self.fed(now.len() as u64);
            other.take_last_of(self);
            self.close_when_full();
            other.close_when_full();
            bytes = later;
        }
    }

    pub(crate) fn update_zeros(&mut self, mut len: u64) {
        while len > 0 {
            let now = (DIGEST_WINDOW - self.at - self.zeros).min(len);
            self.zeros += now;
            self.close_when_full();
            len -= now;
        }
    }

    /// Returns the hashes, including that of a shorter last window.
    pub(crate) fn finish(mut self) -> WindowHashes {
        if self.at + self.zeros > 0 {
            self.close();
        }
        self.done
    }

    /// Returns how many of `len` bytes go into one part: the rest of the incomplete one, or a whole subtree of at most
    /// `largest`.
    fn next_part(&self, len: u64, largest: u64) -> u64 {
        let behind = self.at % SMALLEST;
        if behind > 0 || len < SMALLEST {
            return len.min(SMALLEST - behind);
        }
        // Both are powers of two: the alignment of the position, and the available length.
        let aligned = 1_u64 << (self.at | DIGEST_WINDOW).trailing_zeros();
        let whole = 1_u64 << len.ilog2();
        aligned.min(whole).min(largest)
    }

    /// Starts a part if there is no incomplete one.
    fn open(&mut self) {
        if self.at.is_multiple_of(SMALLEST) {
            // Not `reset`, which would keep the position (blake3 1.8.7).
            self.hasher = blake3::Hasher::new();
            self.hasher.set_input_offset(self.at);
        }
    }

    /// Records that the incomplete part received `len` bytes.
    fn fed(&mut self, len: u64) {
        self.at += len;
        if self.at.is_multiple_of(SMALLEST) {
            self.push_open();
        }
    }

    /// Copies the part that `other`, which was at the same position, has just completed.
    fn take_last_of(&mut self, other: &Self) {
        self.parts.extend(other.parts.last());
        self.hasher.clone_from(&other.hasher);
        self.at = other.at;
    }

    fn push_open(&mut self) {
        self.parts.push(Part {
            len: self.hasher.count(),
            value: self.hasher.finalize_non_root(),
        });
    }

    fn settle_zeros(&mut self) {
        while self.zeros > 0 {
            let now = self.next_part(self.zeros, DIGEST_WINDOW / 2);
            if now >= SMALLEST {
                let value = zero_subtree(self.at, now);
                self.parts.push(Part { len: now, value });
                self.at += now;
            } else {
                self.open();
                feed_zeros(&mut self.hasher, now);
                self.fed(now);
            }
            self.zeros -= now;
        }
    }

    fn close_when_full(&mut self) {
        if self.at + self.zeros == DIGEST_WINDOW {
            self.close();
        }
    }

    fn close(&mut self) {
        let hash = if self.at == 0 {
            zero_hash(self.zeros)
        } else {
            self.settle_zeros();
            if !self.at.is_multiple_of(SMALLEST) {
                self.push_open();
            }
            self.root()
        };
        self.done.push(hash);
        self.parts.clear();
        (self.at, self.zeros) = (0, 0);
    }

    fn root(&self) -> Hash {
        if self.parts.len() == 1 {
            // The root value differs from the value of the same bytes as a subtree.
            return *self.hasher.finalize().as_bytes();
        }
        root(&self.parts, self.at)
    }
}

/// Computes the hash of `len` bytes from these parts, of which there are several, each a node of the tree.
pub(super) fn root(parts: &[Part], len: u64) -> Hash {
    let mut parts = parts.iter();
    let left = left_subtree_len(len);
    let (left, right) = (subtree(&mut parts, left), subtree(&mut parts, len - left));
    *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
}

/// Computes the value of the next `len` bytes, which form one node of the tree.
fn subtree(parts: &mut Iter<'_, Part>, len: u64) -> ChainingValue {
    if let Some(part) = parts.as_slice().first().filter(|part| part.len == len) {
        parts.next();
        return part.value;
    }
    let left = left_subtree_len(len);
    let (left, right) = (subtree(parts, left), subtree(parts, len - left));
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

/// The value of `len` zeros at position `at` of a window. `len` is a power of two from [`SMALLEST`] to half a window,
/// and `at` a multiple of it.
fn zero_subtree(at: u64, len: u64) -> ChainingValue {
    static VALUES: OnceLock<Vec<Vec<ChainingValue>>> = OnceLock::new();
    let values = VALUES.get_or_init(|| {
        let smallest = (0..DIGEST_WINDOW).step_by(1 << SMALLEST.trailing_zeros());
        let mut level: Vec<_> = smallest
            .map(|at| {
                let mut hasher = blake3::Hasher::new();
                hasher.set_input_offset(at);
                feed_zeros(&mut hasher, SMALLEST);
                hasher.finalize_non_root()
            })
            .collect();
        let mut levels = Vec::new();
        while level.len() > 1 {
            let above = level
                .chunks_exact(2)
                .map(|pair| merge_subtrees_non_root(&pair[0], &pair[1], Mode::Hash))
                .collect();
            levels.push(std::mem::replace(&mut level, above));
        }
        levels
    });
    values[(len / SMALLEST).trailing_zeros() as usize][to_usize(at / len)]
}

const _: () = assert!(
    SMALLEST.is_power_of_two() && LARGEST < DIGEST_WINDOW && DIGEST_WINDOW.is_power_of_two()
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A disk in pieces, each with its length and whether it holds data.
    fn pieces() -> impl Strategy<Value = Vec<(u64, bool)>> {
        let length = prop_oneof![
            1..2000_u64,
            (1..40_u64).prop_map(|n| n * SMALLEST),
            (1..40_u64).prop_map(|n| n * SMALLEST / 2),
            (1..1000_u64).prop_map(|n| n * 512),
        ];
        prop::collection::vec((length, any::<bool>()), 0..12)
    }

    proptest! {
        #[test]
        fn pieces_of_data_and_zeros_are_hashed_as_their_bytes(pieces in pieces()) {
            let mut hasher = WindowHasher::new();
            let mut bytes = Vec::new();
            for (len, data) in pieces {
                let before = bytes.len();
                bytes.extend((0..len).map(|n| if data { (n / 7 + len).to_be_bytes()[7] } else { 0 }));
                if data {
                    hasher.update(&bytes[before..]);
                } else {
                    hasher.update_zeros(len);
                }
            }
            let windows = bytes.chunks(usize::try_from(DIGEST_WINDOW).unwrap());
            let expected: Vec<Hash> = windows.map(|window| *blake3::hash(window).as_bytes()).collect();
            let hashes = hasher.finish();
            prop_assert_eq!(hashes.as_slice(), expected.as_slice());
        }

        #[test]
        fn what_is_hashed_once_for_two_is_hashed_as_by_each(
            pieces in prop::collection::vec((1..12_u64, any::<bool>(), any::<bool>()), 0..40),
            last in 0..2 * SMALLEST,
        ) {
            let mut hashers = [WindowHasher::new(), WindowHasher::new()];
            let mut disks = [Vec::new(), Vec::new()];
            let pieces = pieces.into_iter().map(|(n, data, same)| (n * SMALLEST / 2, data, same));
            for (len, data, same) in pieces.chain([(last, true, true)]) {
                let bytes = |salt: u64| (0..len).map(|n| (n / 7 + len + salt).to_be_bytes()[7]).collect::<Vec<_>>();
                let [one, two] = &mut hashers;
                match (data, same) {
                    (true, true) => {
                        one.update_both(two, &bytes(0));
                        for disk in &mut disks { disk.extend(bytes(0)); }
                    }
                    (true, false) => {
                        one.update(&bytes(1));
                        two.update(&bytes(2));
                        disks[0].extend(bytes(1));
                        disks[1].extend(bytes(2));
                    }
                    (false, _) => {
                        for hasher in &mut hashers { hasher.update_zeros(len); }
                        for disk in &mut disks { disk.resize(disk.len() + usize::try_from(len).unwrap(), 0); }
                    }
                }
            }
            for (hasher, disk) in hashers.into_iter().zip(&disks) {
                let windows = disk.chunks(usize::try_from(DIGEST_WINDOW).unwrap());
                let expected: Vec<Hash> = windows.map(|window| *blake3::hash(window).as_bytes()).collect();
                let hashes = hasher.finish();
                prop_assert_eq!(hashes.as_slice(), expected.as_slice());
            }
        }
    }
}
