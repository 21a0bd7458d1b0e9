//! The bytes of one window of a virtual disk. Ranges that are known to be zero are never touched.

use super::hasher::WindowHasher;
use super::shared::unknown;
use super::windows::{DataOf, Source as _, parts_in, piece_at};
use super::{CHUNK_SIZE, DIGEST_WINDOW, Image, ImageMut, WINDOW_SIZE, WindowHashes, read_or_zeros};
use crate::error::Result;
use crate::page::{PageRange, coalesce, is_zero, to_usize};
use crate::parallel::{Buffer, Buffers};

/// The unit that is either filled or known to be zero: a window has 64 of them, one per bit of a mask.
const GRAIN: u64 = WINDOW_SIZE / 64;

/// Zeros are omitted from new images in aligned blocks of this size, the block size of most file systems.
const BLOCK: u64 = 4096;

/// A window of an image, as seen by a pass. Nothing is read until it is requested, either as a whole or gradually in
/// pieces that stay in the processor's cache.
///
/// In the buffer, grains that aren't filled contain leftovers and represent zeros.
pub(crate) struct Window<'a> {
    image: &'a dyn Image,
    range: PageRange,
    /// Where the image may hold data, in order.
    data: Vec<PageRange>,
    buffers: &'a Buffers,
    /// The bytes of the whole window, once it has been [read](Self::read).
    bytes: Buffer,
    filled: u64,
    /// The bytes of the current piece, until then.
    piece: Buffer,
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        for buffer in [&mut self.bytes, &mut self.piece] {
            if !buffer.is_empty() {
                self.buffers.give(std::mem::take(buffer));
            }
        }
    }
}

impl<'a> Window<'a> {
    /// The window `range` of `image`, which may hold data in `data`. It reads as zeros beyond the end of the image.
    pub(crate) fn new(
        image: &'a dyn Image,
        range: PageRange,
        data: Vec<PageRange>,
        buffers: &'a Buffers,
    ) -> Self {
        Self {
            image,
            range,
            data,
            buffers,
            bytes: Buffer::default(),
            filled: 0,
            piece: Buffer::default(),
        }
    }

    /// Returns the hash of the digest window `part`, as far as it was read.
    pub(crate) fn hash_of(&self, part: PageRange) -> WindowHashes {
        let mut hasher = WindowHasher::new();
        self.feed(part, &mut hasher);
        hasher.finish()
    }

    /// The window `range` of `image`, which is queried for its extents.
    pub(crate) fn of(image: &'a dyn Image, range: PageRange, buffers: &'a Buffers) -> Result<Self> {
        let [data] = DataOf::of([image], range).take(range)?;
        Ok(Self::new(image, range, data, buffers))
    }

    /// The window's range on the disk.
    pub(crate) fn range(&self) -> PageRange {
        self.range
    }

    /// The ranges in which the image may hold data, in order.
    pub(crate) fn data(&self) -> &[PageRange] {
        &self.data
    }

    /// Returns whether the image may hold data in `piece`.
    pub(crate) fn may_hold_data(&self, piece: PageRange) -> bool {
        parts_in(&self.data, piece).next().is_some()
    }

    /// Reads everything that may hold data, unless it was read already.
    pub(crate) fn read(&mut self) -> Result<()> {
        self.fetch(WINDOW_SIZE, &[])
    }

    /// As [`read`](Self::read), except for the ranges `without`, and with reads of at most `request` bytes.
    pub(crate) fn fetch(&mut self, request: u64, without: &[PageRange]) -> Result<()> {
        let mut wanted = 0_u64;
        for part in self.data.iter().flat_map(|part| unknown(*part, without)) {
            let grain = |at| piece_at(self.range.start(), at, GRAIN);
            (grain(part.start())..=grain(part.end() - 1)).for_each(|n| wanted |= 1 << n);
        }
        wanted &= !self.filled;
        if wanted == 0 {
            return Ok(());
        }
        self.make_room();
        let grains = self.range.windows(GRAIN).enumerate();
        let grains = grains.filter_map(|(n, grain)| (wanted >> n & 1 == 1).then_some(grain));
        // Adjacent grains are read together.
        for run in coalesce(grains, 0).flat_map(|run| run.windows(request)) {
            let at = self.at(run);
            read_or_zeros(self.image, &mut self.bytes[at], run.start())?;
        }
        self.filled |= wanted;
        Ok(())
    }

    /// Makes the bytes of `range` usable: zero where nothing is stored, read where they weren't yet.
    pub(crate) fn fill(&mut self, range: PageRange) -> Result<()> {
        self.make_room();
        for (n, grain) in self.range.windows(GRAIN).enumerate() {
            if self.filled >> n & 1 == 1 || grain.intersect(range).is_none() {
                continue;
            }
            let at = self.at(grain);
            if self.may_hold_data(grain) {
                read_or_zeros(self.image, &mut self.bytes[at], grain.start())?;
            } else {
                self.bytes[at].fill(0);
            }
            self.filled |= 1 << n;
        }
        Ok(())
    }

    fn make_room(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = self.buffers.take(self.range.buffer_len());
        }
    }

    /// All bytes of the buffer, of which only those that were read or [filled](Window::fill) are meaningful.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.make_room();
        &mut self.bytes
    }

    /// Returns the bytes of a piece of at most one [chunk](CHUNK_SIZE), reading them unless they were read or are known
    /// to be zero.
    pub(crate) fn look_at(&mut self, piece: PageRange) -> Result<&[u8]> {
        static ZEROS: [u8; CHUNK_SIZE] = [0; CHUNK_SIZE];
        if !self.bytes.is_empty() {
            self.fill(piece)?;
            return Ok(self.piece(piece));
        }
        let len = piece.buffer_len();
        if !self.may_hold_data(piece) {
            return Ok(&ZEROS[..len]);
        }
        if self.piece.is_empty() {
            self.piece = self.buffers.take(CHUNK_SIZE);
        }
        let bytes = &mut self.piece[..len];
        read_or_zeros(self.image, bytes, piece.start())?;
        Ok(bytes)
    }

    /// Returns the window hashes of a window that ends within the disk, reading what wasn't read yet.
    pub(crate) fn hash(&mut self) -> Result<WindowHashes> {
        let mut hasher = WindowHasher::new();
        for chunk in self.range.windows(CHUNK_SIZE as u64) {
            if self.may_hold_data(chunk) {
                hasher.update(self.look_at(chunk)?);
            } else {
                hasher.update_zeros(chunk.len());
            }
        }
        Ok(hasher.finish())
    }

    /// Returns the window hashes on a disk that ends at `size`.
    pub(crate) fn hashes(&self, size: u64) -> WindowHashes {
        let mut hasher = WindowHasher::new();
        self.feed(self.up_to(size), &mut hasher);
        hasher.finish()
    }

    /// As [`hashes`](Self::hashes), if only `changed` differs from a state with the hashes `before` of a disk of the
    /// same size.
    pub(crate) fn hashes_again(
        &self,
        size: u64,
        before: &WindowHashes,
        changed: &[PageRange],
    ) -> WindowHashes {
        let mut after = WindowHashes::default();
        for (part, old) in self
            .up_to(size)
            .windows(DIGEST_WINDOW)
            .zip(before.as_slice())
        {
            if changed.iter().any(|range| range.intersect(part).is_some()) {
                let mut hasher = WindowHasher::new();
                self.feed(part, &mut hasher);
                after.append(hasher.finish());
            } else {
                after.append((*old).into());
            }
        }
        after
    }

    /// Returns the runs of nonzero 4 KiB blocks on a disk that ends at `size`.
    pub(crate) fn nonzero(&self, size: u64) -> Vec<PageRange> {
        let grains = self.grains(self.up_to(size));
        let filled = grains.filter_map(|(grain, filled)| filled.then_some(grain));
        let blocks = filled.flat_map(|grain| grain.windows(BLOCK));
        coalesce(blocks.filter(|block| !is_zero(self.piece(*block))), 0).collect()
    }

    /// Writes these runs to an image.
    pub(crate) fn write(&self, runs: &[PageRange], to: &mut dyn ImageMut) -> Result<()> {
        runs.iter()
            .try_for_each(|run| to.update(*run, self.piece(*run)))
    }

    fn up_to(&self, size: u64) -> PageRange {
        PageRange::covering(self.range.start(), self.range.end().min(size))
    }

    fn feed(&self, range: PageRange, hasher: &mut WindowHasher) {
        for (grain, filled) in self.grains(range) {
            if filled {
                hasher.update(self.piece(grain));
            } else {
                hasher.update_zeros(grain.len());
            }
        }
    }

    /// The grains of `range`, cut at its ends, each with whether it is filled.
    fn grains(&self, range: PageRange) -> impl Iterator<Item = (PageRange, bool)> {
        range.windows(GRAIN).map(|grain| {
            let n = piece_at(self.range.start(), grain.start(), GRAIN);
            (grain, self.filled >> n & 1 == 1)
        })
    }

    fn at(&self, range: PageRange) -> std::ops::Range<usize> {
        let at = |offset: u64| to_usize(offset - self.range.start());
        at(range.start())..at(range.end())
    }

    /// Returns the bytes of `range`, which must have been read or [filled](Window::fill).
    pub(crate) fn piece(&self, range: PageRange) -> &[u8] {
        &self.bytes[self.at(range)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::RawImage;
    use crate::storage::{AtomicFile, Memory, WriteAt as _};

    fn read<'a>(image: &'a dyn Image, range: PageRange, buffers: &'a Buffers) -> Window<'a> {
        let mut window = Window::of(image, range, buffers).unwrap();
        window.read().unwrap();
        window
    }

    #[test]
    fn a_sparse_window_is_the_same_as_a_full_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = AtomicFile::new(folder.path().join("sparse")).unwrap();
        let size = (6 << 20) + 512;
        file.file().set_len(size).unwrap();
        let mut full = vec![0; usize::try_from(size).unwrap()];
        for at in [0, 70_000 * 8, (1 << 20) + 4096, (5 << 20) + 8192] {
            full[at..at + 5000].fill(7);
            file.file()
                .write_all_at(&full[at..at + 5000], at as u64)
                .unwrap();
        }
        let sparse = RawImage::with_size(file.file(), size);
        let dense = RawImage::with_size(Memory::new(full.clone()), size);
        let buffers = Buffers::new();
        let mut used = buffers.take(usize::try_from(WINDOW_SIZE).unwrap());
        used.fill(0xaa);
        buffers.give(used);
        for range in PageRange::new(0, 8 << 20).unwrap().windows(WINDOW_SIZE) {
            let a = read(&sparse, range, &buffers);
            let b = read(&dense, range, &buffers);
            assert_eq!(a.hashes(size), b.hashes(size));
            assert_eq!(a.nonzero(size), b.nonzero(size));
            assert!(a.filled.count_ones() < b.filled.count_ones());
            let mut out = RawImage::with_size(Memory::new(vec![0; full.len()]), size);
            a.write(&a.nonzero(size), &mut out).unwrap();
            let at = usize::try_from(range.start()).unwrap();
            let end = usize::try_from(range.end().min(size)).unwrap();
            assert!(out.storage().to_vec()[at..end] == full[at..end]);
        }
    }

    #[test]
    fn what_is_filled_is_zero_and_counts() {
        let image = RawImage::with_size(Memory::new(vec![1; 8192]), 8192);
        let buffers = Buffers::new();
        let mut used = buffers.take(usize::try_from(WINDOW_SIZE).unwrap());
        used.fill(0xaa);
        buffers.give(used);
        let range = PageRange::new(0, WINDOW_SIZE).unwrap();
        let mut window = read(&image, range, &buffers);
        let before = window.hashes(WINDOW_SIZE);
        let place = PageRange::new(3 << 20, (3 << 20) + 512).unwrap();
        window.fill(place).unwrap();
        assert_eq!(window.hashes(WINDOW_SIZE), before);
        window.bytes_mut()[3 << 20] = 9;
        assert_eq!(
            window.hashes_again(WINDOW_SIZE, &before, &[place]),
            window.hashes(WINDOW_SIZE)
        );
        assert_ne!(window.hashes(WINDOW_SIZE), before);
    }
}
