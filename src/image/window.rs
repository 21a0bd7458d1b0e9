//! The bytes of one window of a virtual disk, of which those that are known to be zero are never touched.

use super::hasher::WindowHasher;
use super::{
    DIGEST_WINDOW, Extent, ExtentState, Image, ImageMut, WINDOW_SIZE, WindowHashes, whole,
};
use crate::error::Result;
use crate::page::{PageRange, is_zero, to_usize};
use crate::parallel::{Buffer, Buffers};

/// What is filled or known to be zero as a whole: a window has 64 of them, the bits of a mask.
const GRAIN: u64 = WINDOW_SIZE / 64;

/// Zeros are left out of new images in aligned blocks of this size: the block of most file systems.
const BLOCK: u64 = 4096;

/// A window's bytes. Grains that aren't filled hold leftovers and stand for zeros.
#[derive(Debug)]
pub(crate) struct Window {
    range: PageRange,
    bytes: Buffer,
    filled: u64,
}

impl Window {
    /// Reads what `image` may hold in `range`; beyond its end it is zero.
    pub(crate) fn read(image: &dyn Image, range: PageRange, buffers: &Buffers) -> Result<Self> {
        Self::read_parts(image, range, &[range], buffers)
    }

    /// The same of `parts` alone, of which each is whole grains or ends where the window does; what is outside of them
    /// means nothing.
    pub(crate) fn read_parts(
        image: &dyn Image,
        range: PageRange,
        parts: &[PageRange],
        buffers: &Buffers,
    ) -> Result<Self> {
        let mut window = Self {
            range,
            bytes: buffers.take(range.buffer_len()),
            filled: 0,
        };
        for part in parts {
            let inside = part.cut_to(whole(image));
            for extent in image.extents(inside) {
                let Extent { range: data, state } = extent?;
                if state == ExtentState::Data && !data.is_empty() {
                    window.read_grains(image, inside, data)?;
                }
            }
        }
        Ok(window)
    }

    /// The window hash of `part`, one digest window of it.
    pub(crate) fn hash(&self, part: PageRange) -> WindowHashes {
        let mut hasher = WindowHasher::new();
        self.feed(part, &mut hasher);
        hasher.finish()
    }

    /// Reads all grains that `data` lies in and that weren't read yet, in one go.
    fn read_grains(&mut self, image: &dyn Image, inside: PageRange, data: PageRange) -> Result<()> {
        let start = self.range.start();
        let mut first = (data.start() - start) / GRAIN;
        let last = (data.end() - 1 - start) / GRAIN;
        while first <= last && self.filled >> first & 1 == 1 {
            first += 1;
        }
        if first > last {
            return Ok(());
        }
        let grains = PageRange::covering(start + first * GRAIN, start + (last + 1) * GRAIN);
        let read = grains.cut_to(inside);
        image.read_exact_at(self.piece_mut(read), read.start())?;
        let beyond = PageRange::covering(read.end(), grains.end().min(self.range.end()));
        self.piece_mut(beyond).fill(0);
        (first..=last).for_each(|grain| self.filled |= 1 << grain);
        Ok(())
    }

    /// Where on the disk.
    pub(crate) fn range(&self) -> PageRange {
        self.range
    }

    /// Makes the bytes of `range` usable, as zeros where nothing was read.
    pub(crate) fn fill(&mut self, range: PageRange) {
        for (n, grain) in self.range.windows(GRAIN).enumerate() {
            if self.filled >> n & 1 == 0 && grain.intersect(range).is_some() {
                self.piece_mut(grain).fill(0);
                self.filled |= 1 << n;
            }
        }
    }

    /// All bytes; only what was read or [filled](Window::fill) means something.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The buffer, to be used again.
    pub(crate) fn into_bytes(self) -> Buffer {
        self.bytes
    }

    /// The window hashes of a disk that ends at `size`.
    pub(crate) fn hashes(&self, size: u64) -> WindowHashes {
        let mut hasher = WindowHasher::new();
        self.feed(self.up_to(size), &mut hasher);
        hasher.finish()
    }

    /// The same, when only `changed` differs from a state with the hashes `before` of a disk of the same size.
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

    /// The runs of 4 KiB blocks that aren't zero, on a disk that ends at `size`.
    pub(crate) fn nonzero(&self, size: u64) -> Vec<PageRange> {
        let mut runs: Vec<PageRange> = Vec::new();
        for grain in self
            .grains(self.up_to(size))
            .filter_map(|(grain, filled)| filled.then_some(grain))
        {
            for block in grain
                .windows(BLOCK)
                .filter(|block| !is_zero(self.piece(*block)))
            {
                match runs.last_mut() {
                    Some(last) if last.end() == block.start() => {
                        *last = last.hull(block);
                    }
                    _ => runs.push(block),
                }
            }
        }
        runs
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

    /// The grains of `range`, cut at its ends, and whether they are filled.
    fn grains(&self, range: PageRange) -> impl Iterator<Item = (PageRange, bool)> {
        let start = self.range.start();
        range.windows(GRAIN).map(move |grain| {
            (
                grain,
                self.filled >> ((grain.start() - start) / GRAIN) & 1 == 1,
            )
        })
    }

    fn at(&self, range: PageRange) -> std::ops::Range<usize> {
        let at = |offset: u64| to_usize(offset.saturating_sub(self.range.start()));
        at(range.start())..at(range.end())
    }

    /// The bytes of `range`, which must have been read or [filled](Window::fill).
    pub(crate) fn piece(&self, range: PageRange) -> &[u8] {
        self.bytes.get(self.at(range)).unwrap_or_default()
    }

    fn piece_mut(&mut self, range: PageRange) -> &mut [u8] {
        let at = self.at(range);
        self.bytes.get_mut(at).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::RawImage;
    use crate::storage::{AtomicFile, Memory, WriteAt as _};

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
            let a = Window::read(&sparse, range, &buffers).unwrap();
            let b = Window::read(&dense, range, &buffers).unwrap();
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
        let mut window = Window::read(&image, range, &buffers).unwrap();
        let before = window.hashes(WINDOW_SIZE);
        let place = PageRange::new(3 << 20, (3 << 20) + 512).unwrap();
        window.fill(place);
        assert_eq!(window.hashes(WINDOW_SIZE), before);
        window.bytes_mut()[3 << 20] = 9;
        assert_eq!(
            window.hashes_again(WINDOW_SIZE, &before, &[place]),
            window.hashes(WINDOW_SIZE)
        );
        assert_ne!(window.hashes(WINDOW_SIZE), before);
    }
}
