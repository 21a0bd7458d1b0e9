//! A virtual disk made of pages: small however large it is, and its own model.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::input::Input;
use vhdkit::Result;
use vhdkit::image::{
    Extent, ExtentState, Extents, Image, ImageMut, check_within, join_extents, whole,
};
use vhdkit::page::{PAGE_SIZE, PageRange};

pub const WINDOW: u64 = 4 << 20;
const DIGEST_WINDOW: u64 = 1 << 20;

pub type Page = [u8; 512];

/// Pages by number; those that are missing are zero.
#[derive(Clone, Debug)]
pub struct Disk {
    pub size: u64,
    pub pages: BTreeMap<u64, Page>,
    /// Whether to say of every page that it is data, which is always right.
    pub coarse: bool,
}

impl Disk {
    pub fn new(size: u64) -> Self {
        Self {
            size,
            pages: BTreeMap::new(),
            coarse: false,
        }
    }

    /// A size that a program asks for: mostly small, sometimes at the borders of windows.
    pub fn any_size(input: &mut Input<'_>) -> u64 {
        let pages = match input.u8() {
            0..225 => input.below(256),
            225..230 => 2047 + input.below(3),
            230..235 => 8190 + input.below(4),
            235..240 => 8192 + input.below(600),
            240..245 => 2 * 8192 - 1 + input.below(3),
            245..250 => 3 * 8192 + input.below(16),
            _ => 4 * 8192 - input.below(8192),
        };
        pages * PAGE_SIZE
    }

    /// Writes runs of pages as the program says: data, stored zeros, or nothing.
    pub fn scribble(&mut self, input: &mut Input<'_>, runs: u64) {
        let pages = self.size / PAGE_SIZE;
        if pages == 0 {
            return;
        }
        for _ in 0..runs {
            let start = match input.u8() % 4 {
                0 => input.below(pages),
                1 => (input.below(pages) / 128 * 128).min(pages - 1),
                2 => pages - 1 - input.below(pages.min(64)),
                _ => input.below(pages.min(64)),
            };
            let len = match input.u8() {
                n @ 0..240 => u64::from(n % 24) + 1,
                240..250 => 512,
                _ => 8192,
            };
            let byte = input.u8();
            for page in start..(start + len).min(pages) {
                self.set(page, byte);
            }
        }
    }

    fn set(&mut self, page: u64, byte: u8) {
        match byte {
            0..16 => {
                self.pages.remove(&page);
            }
            16..32 => {
                self.pages.insert(page, [0; 512]);
            }
            _ => {
                let mut bytes = [byte; 512];
                bytes[usize::from(byte)] = page.to_be_bytes()[7];
                self.pages.insert(page, bytes);
            }
        }
    }

    pub fn resize(&mut self, size: u64) {
        self.size = size;
        self.pages.split_off(&(size / PAGE_SIZE));
    }

    pub fn page(&self, page: u64) -> Page {
        self.pages.get(&page).copied().unwrap_or([0; 512])
    }

    /// The pages that aren't zero.
    pub fn content(&self) -> impl Iterator<Item = (&u64, &Page)> {
        self.pages.iter().filter(|(_, page)| **page != [0; 512])
    }

    /// Whether both hold the same bytes as far as both reach, and zeros beyond.
    pub fn reads_as(&self, other: &Self) -> bool {
        self.content().eq(other.content())
    }

    /// The bytes of a range; zeros beyond the end.
    pub fn hash(&self, ranges: &[PageRange]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for range in ranges {
            let mut at = range.start() / PAGE_SIZE;
            let end = range.end() / PAGE_SIZE;
            for (page, bytes) in self.pages.range(at..end) {
                zeros(&mut hasher, page - at);
                hasher.update(bytes);
                at = page + 1;
            }
            zeros(&mut hasher, end - at);
        }
        *hasher.finalize().as_bytes()
    }

    /// The content digest, as its description says.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"vhdkit content 1");
        hasher.update(&self.size.to_be_bytes());
        let all = PageRange::new(0, self.size).unwrap_or_default();
        for window in all.windows(DIGEST_WINDOW) {
            let stored = self.pages.range(pages(window)).next().is_some();
            if stored || window.len() < DIGEST_WINDOW {
                hasher.update(&self.hash(&[window]));
            } else {
                hasher.update(&*ZERO_WINDOW);
            }
        }
        *hasher.finalize().as_bytes()
    }
}

static ZERO_WINDOW: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let mut hasher = blake3::Hasher::new();
    zeros(&mut hasher, DIGEST_WINDOW / PAGE_SIZE);
    *hasher.finalize().as_bytes()
});

/// Feeds so many pages of zeros.
fn zeros(hasher: &mut blake3::Hasher, mut pages: u64) {
    const ZEROS: &[u8; 64 << 10] = &[0; 64 << 10];
    while pages > 0 {
        let now = pages.min(128);
        hasher.update(&ZEROS[..now as usize * 512]);
        pages -= now;
    }
}

fn pages(range: PageRange) -> std::ops::Range<u64> {
    range.start() / PAGE_SIZE..range.end() / PAGE_SIZE
}

impl Image for Disk {
    fn virtual_size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_within(self.size, offset, buf.len())?;
        let end = offset + buf.len() as u64;
        buf.fill(0);
        let (first, last) = (offset / PAGE_SIZE, end.div_ceil(PAGE_SIZE));
        for (page, bytes) in self.pages.range(first..last) {
            let at = page * PAGE_SIZE;
            let (from, to) = (at.max(offset), (at + PAGE_SIZE).min(end));
            let into = &mut buf[(from - offset) as usize..(to - offset) as usize];
            into.copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
        }
        Ok(())
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        let within = within.intersect(whole(self)).unwrap_or_default();
        let extent = |start: u64, end: u64, state| {
            let range = PageRange::new(start * PAGE_SIZE, end * PAGE_SIZE).unwrap_or_default();
            Ok(Extent { range, state })
        };
        let all = pages(within);
        if self.coarse {
            return join_extents(std::iter::once(extent(
                all.start,
                all.end,
                ExtentState::Data,
            )));
        }
        let mut at = all.start;
        let stored = self.pages.range(all.clone()).flat_map(move |(page, _)| {
            let before = extent(at, *page, ExtentState::Zero);
            at = page + 1;
            [before, extent(*page, at, ExtentState::Data)]
        });
        let last = self.pages.range(all.clone()).next_back();
        let behind = last.map_or(all.start, |(page, _)| page + 1);
        join_extents(stored.chain([extent(behind, all.end, ExtentState::Zero)]))
    }
}

impl ImageMut for Disk {
    fn update(&mut self, range: PageRange, data: &[u8]) -> Result<()> {
        check_within(self.size, range.start(), data.len())?;
        assert_eq!(range.len(), data.len() as u64);
        for (page, bytes) in pages(range).zip(data.as_chunks::<512>().0) {
            self.pages.insert(page, *bytes);
        }
        Ok(())
    }

    fn clear(&mut self, range: PageRange) -> Result<()> {
        check_within(self.size, range.start(), range.len() as usize)?;
        for page in pages(range) {
            self.pages.remove(&page);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
