//! The content digest: identifies the contents of a virtual disk, whatever format stores it.
//!
//! ```text
//! digest = BLAKE3( "vhdkit content 1"  16 bytes
//!                ‖ virtual size         8 bytes, big-endian
//!                ‖ BLAKE3(window 0) ‖ BLAKE3(window 1) ‖ …   32 bytes each )
//! ```
//!
//! A window is an aligned mebibyte of the virtual disk; the last one may be shorter. Windows are hashed in
//! parallel, a window of zeros costs nothing, and when a few windows change only those are hashed again.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use blake3::hazmat::{ChainingValue, HasherExt as _};

use super::hasher::{Part, root};
use super::window_hash::{DIGEST_WINDOW, Hash, WindowHashes, zero_hash};
use crate::error::{Error, Result};
use crate::page::to_usize;

const LABEL: &[u8; 16] = b"vhdkit content 1";

/// The content digest of a virtual disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentDigest(pub Hash);

impl ContentDigest {
    /// The digest of a disk of `virtual_size` bytes that are all zero.
    pub fn of_empty(virtual_size: u64) -> Self {
        ContentHasher::new(virtual_size).finish()
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentDigest({self})")
    }
}

impl FromStr for ContentDigest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        blake3::Hash::from_hex(text)
            .map(|hash| Self(*hash.as_bytes()))
            .map_err(|_| Error::usage("a content digest is 64 hexadecimal digits").with_found(text))
    }
}

/// Bytes fed to BLAKE3 at a time, at multiples of this size: it is at full speed only on whole subtrees.
const WHOLE_PARTS: usize = 128 << 10;

/// Concatenated hashes of whole windows of zeros: this many bytes, plus one more hash.
fn zero_hashes() -> &'static [u8] {
    static HASHES: OnceLock<Vec<u8>> = OnceLock::new();
    HASHES.get_or_init(|| zero_hash(DIGEST_WINDOW).repeat(WHOLE_PARTS / size_of::<Hash>() + 1))
}

/// Bytes of the digest's input that form a subtree of their own if more follow: the hashes of 8 TiB.
///
/// The input for an empty pebibyte is 32 GiB, which repeats after the first bytes. The value of a subtree depends on
/// its bytes and its position, so only a few different subtrees consist of hashes of zeros; they are precomputed.
const SEGMENT: u64 = 256 << 20;

/// The values of the segments from the second on that consist of hashes of zeros, up to the largest disk.
static ZERO_SEGMENTS: &[u8] = include_bytes!("zero_segments.bin");

/// Builds a [`ContentDigest`] from window hashes in order. Omitted windows are zero.
#[derive(Debug)]
pub struct ContentHasher {
    /// The hasher of the last segment.
    hasher: blake3::Hasher,
    /// The segments before the last one.
    segments: Vec<Part>,
    /// Bytes fed to the last segment.
    fed: u64,
    virtual_size: u64,
    at: u64,
}

impl ContentHasher {
    /// Starts the digest of a virtual disk of `virtual_size` bytes.
    pub fn new(virtual_size: u64) -> Self {
        let mut hasher = Self {
            hasher: blake3::Hasher::new(),
            segments: Vec::new(),
            fed: 0,
            virtual_size,
            at: 0,
        };
        hasher.feed(LABEL);
        hasher.feed(&virtual_size.to_be_bytes());
        hasher
    }

    /// Adds bytes to the digest's input.
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.fed == SEGMENT {
                // This segment isn't the last one.
                self.close(self.hasher.finalize_non_root());
            }
            let now = to_usize(SEGMENT - self.fed).min(bytes.len());
            let (now, later) = bytes.split_at(now);
            self.hasher.update(now);
            self.fed += now.len() as u64;
            bytes = later;
        }
    }

    /// Ends a segment with this value.
    fn close(&mut self, value: ChainingValue) {
        self.segments.push(Part {
            len: SEGMENT,
            value,
        });
        self.hasher = blake3::Hasher::new();
        self.hasher
            .set_input_offset(SEGMENT.saturating_mul(self.segments.len() as u64));
        self.fed = 0;
    }

    /// Feeds the hashes of `count` whole windows of zeros. A disk of terabytes has millions of them.
    fn feed_zero_hashes(&mut self, count: u64) {
        let mut left = count.saturating_mul(size_of::<Hash>() as u64);
        // The position within a hash at which the next piece begins.
        let mut phase = 0;
        while left > 0 {
            if self.fed == SEGMENT {
                self.close(self.hasher.finalize_non_root());
            }
            if self.fed == 0
                && left > SEGMENT
                && let Some(value) = self.zero_segment()
            {
                self.close(value);
                left -= SEGMENT;
                continue;
            }
            let room = WHOLE_PARTS as u64 - self.fed % WHOLE_PARTS as u64;
            let now = to_usize(room.min(left));
            self.feed(&zero_hashes()[phase..phase + now]);
            phase = (phase + now) % size_of::<Hash>();
            left -= now as u64;
        }
    }

    /// The precomputed value of the segment that is about to begin, for the case that it consists of hashes of zeros.
    fn zero_segment(&self) -> Option<ChainingValue> {
        let number = self.segments.len().checked_sub(1)?;
        let (known, _) = ZERO_SEGMENTS.as_chunks::<{ size_of::<ChainingValue>() }>();
        known.get(number).copied()
    }

    /// Adds the windows from `start` on, which is a multiple of [`DIGEST_WINDOW`] and not before the previous ones.
    /// Windows beyond the virtual size are ignored.
    pub fn push(&mut self, start: u64, hashes: &WindowHashes) {
        self.zeros_until(start);
        for hash in hashes.as_slice() {
            if self.at < self.virtual_size {
                self.feed(hash);
                self.at = self.at.saturating_add(DIGEST_WINDOW);
            }
        }
    }

    fn zeros_until(&mut self, end: u64) {
        let end = end.min(self.virtual_size);
        let whole = end.saturating_sub(self.at) / DIGEST_WINDOW;
        self.feed_zero_hashes(whole);
        self.at = self.at.saturating_add(whole * DIGEST_WINDOW);
        while self.at < end {
            self.feed(&zero_hash(DIGEST_WINDOW.min(self.virtual_size - self.at)));
            self.at = self.at.saturating_add(DIGEST_WINDOW);
        }
    }

    /// Returns the digest.
    pub fn finish(mut self) -> ContentDigest {
        self.zeros_until(self.virtual_size);
        if self.segments.is_empty() {
            return ContentDigest(*self.hasher.finalize().as_bytes());
        }
        let len = SEGMENT.saturating_mul(self.segments.len() as u64);
        self.segments.push(Part {
            len: self.fed,
            value: self.hasher.finalize_non_root(),
        });
        ContentDigest(root(&self.segments, len + self.fed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{RawImage, WindowHasher, content_digest};
    use crate::parallel::Workers;
    use crate::progress::Silent;
    use crate::storage::Memory;

    fn naive(bytes: &[u8]) -> ContentDigest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(LABEL);
        hasher.update(&(bytes.len() as u64).to_be_bytes());
        for window in bytes.chunks(usize::try_from(DIGEST_WINDOW).unwrap()) {
            hasher.update(blake3::hash(window).as_bytes());
        }
        ContentDigest(*hasher.finalize().as_bytes())
    }

    #[test]
    fn it_is_what_the_description_says() {
        let workers = Workers::new(None).unwrap();
        for len in [512, 1 << 20, (1 << 20) + 512, (9 << 20) + 1024] {
            let mut bytes = vec![0; len];
            for at in (0..len).step_by(300_007) {
                bytes[at] = 5;
            }
            for bytes in [bytes, vec![0; len]] {
                let image = RawImage::open(Memory::new(bytes.clone())).unwrap();
                assert_eq!(
                    content_digest(&image, &workers, &Silent).unwrap(),
                    naive(&bytes),
                    "{len}"
                );
            }
        }
    }

    #[test]
    fn hashes_of_zeros_are_fed_as_if_one_by_one() {
        for before in [0, 1, 31, 4095] {
            for count in [0, 1, 31, 4096, 4097, 20_000] {
                let size = (before + count + 1) * DIGEST_WINDOW;
                let mut one_by_one = ContentHasher::new(size);
                let mut at_once = ContentHasher::new(size);
                for window in 0..before {
                    for hasher in [&mut one_by_one, &mut at_once] {
                        hasher.push(window * DIGEST_WINDOW, &Hash::from([3; 32]).into());
                    }
                }
                for window in before..before + count {
                    one_by_one.push(window * DIGEST_WINDOW, &zero_hash(DIGEST_WINDOW).into());
                }
                let last = (before + count) * DIGEST_WINDOW;
                for hasher in [&mut one_by_one, &mut at_once] {
                    hasher.push(last, &Hash::from([5; 32]).into());
                }
                assert_eq!(at_once.finish(), one_by_one.finish(), "{before} {count}");
            }
        }
    }

    #[test]
    fn zeros_fed_or_counted_are_the_same() {
        let mut counted = WindowHasher::new();
        counted.update_zeros(700_000);
        counted.update(&[1, 2, 3]);
        counted.update_zeros(3 << 20);
        let mut fed = WindowHasher::new();
        fed.update(&vec![0; 700_000]);
        fed.update(&[1, 2, 3]);
        fed.update(&vec![0; 3 << 20]);
        assert_eq!(counted.finish(), fed.finish());
    }

    #[test]
    fn it_prints_and_reads_as_hex() {
        let digest = naive(&[0; 512]);
        assert_eq!(digest.to_string().parse::<ContentDigest>().unwrap(), digest);
        assert!("12".parse::<ContentDigest>().is_err());
    }

    /// The digest, computed by its definition, of an image that is zero except for one window.
    fn by_definition(size: u64, hashed: u64) -> ContentDigest {
        fn feed(hasher: &mut blake3::Hasher, mut count: u64) {
            let many = zero_hash(DIGEST_WINDOW).repeat(1 << 12);
            while count > 0 {
                let now = count.min(1 << 12);
                hasher.update(&many[..to_usize(now) * size_of::<Hash>()]);
                count -= now;
            }
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(LABEL).update(&size.to_be_bytes());
        let (whole, before) = (size / DIGEST_WINDOW, hashed / DIGEST_WINDOW);
        feed(&mut hasher, before);
        hasher.update(&[7; 32]);
        feed(&mut hasher, whole - before - 1);
        if !size.is_multiple_of(DIGEST_WINDOW) {
            hasher.update(&zero_hash(size % DIGEST_WINDOW));
        }
        ContentDigest(*hasher.finalize().as_bytes())
    }

    #[test]
    fn long_runs_of_zeros_are_skipped_and_the_digest_is_the_same() {
        const TIB: u64 = 1 << 40;
        for (size, hashed) in [
            (8 * TIB - DIGEST_WINDOW, 0),
            (8 * TIB, 8 * TIB - DIGEST_WINDOW),
            (8 * TIB + 512, 0),
            (25 * TIB, 3 * TIB),
            (25 * TIB + 4096, 17 * TIB),
        ] {
            let mut hasher = ContentHasher::new(size);
            hasher.push(hashed, &Hash::from([7; 32]).into());
            assert_eq!(
                hasher.finish(),
                by_definition(size, hashed),
                "{size} {hashed}"
            );
        }
    }

    #[test]
    #[ignore = "hashes 32 GiB"]
    fn all_segments_of_zeros_are_what_they_should_be() {
        let hashes = zero_hashes();
        let input = crate::image::MAX_VIRTUAL_SIZE / DIGEST_WINDOW * size_of::<Hash>() as u64;
        let found: Vec<u8> = (1..input / SEGMENT)
            .flat_map(|number| {
                let mut hasher = blake3::Hasher::new();
                hasher.set_input_offset(number * SEGMENT);
                for _ in 0..SEGMENT / WHOLE_PARTS as u64 {
                    // The label and the size come first and shift all hashes.
                    hasher.update(&hashes[8..8 + WHOLE_PARTS]);
                }
                hasher.finalize_non_root()
            })
            .collect();
        assert!(found == ZERO_SEGMENTS);
    }
}
