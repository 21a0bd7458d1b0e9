//! The content digest: one number for a virtual disk, whatever format stores it.
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

use super::{CHUNK_SIZE, Image, WINDOW_SIZE, WindowHasher, chunks, data_windows, whole};
use crate::error::{Error, Result};
use crate::page::{PageRange, to_usize};
use crate::parallel::{Buffers, Workers};
use crate::progress::Progress;

/// Bytes of the virtual disk under one window hash of the [content digest](ContentDigest).
pub const DIGEST_WINDOW: u64 = 1 << 20;

const LABEL: &[u8; 16] = b"vhdkit content 1";

/// A BLAKE3 hash.
pub type Hash = [u8; 32];

/// The content digest of a virtual disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentDigest(pub Hash);

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
            .map_err(|_| Error::usage("a content digest is 64 hexadecimal digits").found(text))
    }
}

/// The window hash of `len` zeros, `len` at most [`DIGEST_WINDOW`].
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

/// Bytes that are fed to BLAKE3 at once, from a multiple of it on: it is at full speed only on whole parts of its tree.
const WHOLE_PARTS: usize = 128 << 10;

/// So many bytes of hashes of whole windows of zeros, one after another, and one hash more.
fn zero_hashes() -> &'static [u8] {
    static HASHES: OnceLock<Vec<u8>> = OnceLock::new();
    HASHES.get_or_init(|| zero_hash(DIGEST_WINDOW).repeat(WHOLE_PARTS / size_of::<Hash>() + 1))
}

/// Feeds the hashes of `count` whole windows of zeros. A disk of terabytes has millions of them.
fn feed_zero_hashes(hasher: &mut blake3::Hasher, count: u64) {
    let mut left = count.saturating_mul(size_of::<Hash>() as u64);
    // Where in a hash the next piece begins.
    let mut phase = 0;
    while left > 0 {
        let room = WHOLE_PARTS as u64 - hasher.count() % WHOLE_PARTS as u64;
        let now = to_usize(room.min(left));
        hasher.update(&zero_hashes()[phase..phase + now]);
        phase = (phase + now) % size_of::<Hash>();
        left -= now as u64;
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

/// The window hashes of a consecutive piece of a virtual disk.
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

    /// Adds those of the piece that follows.
    pub fn append(&mut self, mut next: Self) {
        self.0.append(&mut next.0);
    }
}

impl From<Hash> for WindowHashes {
    fn from(hash: Hash) -> Self {
        Self(vec![hash])
    }
}

/// Builds a [`ContentDigest`] from window hashes in order; what is left out is zero.
#[derive(Debug)]
pub struct ContentHasher {
    hasher: blake3::Hasher,
    virtual_size: u64,
    at: u64,
}

impl ContentHasher {
    /// Begins the digest of a virtual disk of `virtual_size` bytes.
    pub fn new(virtual_size: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(LABEL);
        hasher.update(&virtual_size.to_be_bytes());
        Self {
            hasher,
            virtual_size,
            at: 0,
        }
    }

    /// The windows from `start` on, which is a multiple of [`DIGEST_WINDOW`] and not before the last ones.
    /// Windows beyond the virtual size are left out.
    pub fn push(&mut self, start: u64, hashes: &WindowHashes) {
        self.zeros_until(start);
        for hash in &hashes.0 {
            if self.at < self.virtual_size {
                self.hasher.update(hash);
                self.at = self.at.saturating_add(DIGEST_WINDOW);
            }
        }
    }

    fn zeros_until(&mut self, end: u64) {
        let end = end.min(self.virtual_size);
        let whole = end.saturating_sub(self.at) / DIGEST_WINDOW;
        feed_zero_hashes(&mut self.hasher, whole);
        self.at = self.at.saturating_add(whole * DIGEST_WINDOW);
        while self.at < end {
            self.hasher
                .update(&zero_hash(DIGEST_WINDOW.min(self.virtual_size - self.at)));
            self.at = self.at.saturating_add(DIGEST_WINDOW);
        }
    }

    /// The digest.
    pub fn finish(mut self) -> ContentDigest {
        self.zeros_until(self.virtual_size);
        ContentDigest(*self.hasher.finalize().as_bytes())
    }
}

/// Computes the content digest of an image in parallel, reading only what may hold data.
pub fn content_digest(
    image: &dyn Image,
    workers: &Workers,
    progress: &dyn Progress,
) -> Result<ContentDigest> {
    window_hashes(image, workers, progress, |_, _| Ok(()))
}

/// As [`content_digest`], and hands the window hashes of each [window](WINDOW_SIZE) that may hold data to `each`, with
/// its first byte, in order.
pub fn window_hashes(
    image: &dyn Image,
    workers: &Workers,
    progress: &dyn Progress,
    mut each: impl FnMut(u64, &WindowHashes) -> Result<()>,
) -> Result<ContentDigest> {
    let buffers = Buffers::new();
    let mut digest = ContentHasher::new(image.virtual_size());
    let mut done = 0;
    workers.ordered(
        data_windows([image], whole(image)),
        |window: PageRange| {
            progress.check()?;
            Ok((window, window_hash(image, window, &buffers)?))
        },
        |(window, hashes)| {
            digest.push(window.start(), &hashes);
            progress.advance(window.end() - done);
            done = window.end();
            each(window.start(), &hashes)
        },
    )?;
    progress.advance(image.virtual_size() - done);
    Ok(digest.finish())
}

/// The window hashes of a [window](WINDOW_SIZE) of an image.
pub(crate) fn window_hash(
    image: &dyn Image,
    window: PageRange,
    buffers: &Buffers,
) -> Result<WindowHashes> {
    let mut hasher = WindowHasher::new();
    let mut buffer = buffers.take(CHUNK_SIZE);
    for (chunk, [data]) in chunks([image], window)? {
        if data {
            let bytes = &mut buffer[..chunk.buffer_len()];
            image.read_exact_at(bytes, chunk.start())?;
            hasher.update(bytes);
        } else {
            hasher.update_zeros(chunk.len());
        }
    }
    buffers.give(buffer);
    Ok(hasher.finish())
}

const _: () = assert!(
    WINDOW_SIZE.is_multiple_of(DIGEST_WINDOW) && DIGEST_WINDOW.is_multiple_of(CHUNK_SIZE as u64)
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::RawImage;
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
        for before in [0, 24, 1000, 128 << 10] {
            for count in [0, 1, 31, 4096, 4097, 20_000] {
                let mut one_by_one = blake3::Hasher::new();
                one_by_one.update(&vec![3; before]);
                let mut at_once = one_by_one.clone();
                for _ in 0..count {
                    one_by_one.update(&zero_hash(DIGEST_WINDOW));
                }
                feed_zero_hashes(&mut at_once, count);
                assert_eq!(
                    at_once.finalize(),
                    one_by_one.finalize(),
                    "{before} {count}"
                );
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
}
