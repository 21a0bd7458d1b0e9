//! A view of an image in which only some pages are visible.

use super::resized::zeros;
use super::{Extents, Image, check_within, join_extents, whole};
use crate::error::Result;
use crate::page::{PAGE_SIZE, PageRange, to_usize};
use crate::parallel::IoHints;

/// A set of pages of a virtual disk.
pub trait PageSet: Sync {
    /// Returns the pages of `within` that are in the set, in order and without overlap.
    fn pages(&self, within: PageRange) -> Box<dyn Iterator<Item = Result<PageRange>> + '_>;
}

/// An image in which only the pages of a set are visible; all others read as zeros and are never read from the
/// underlying image. If two images differ only in pages of the set, their masked views differ in the same pages.
#[derive(Clone, Copy)]
pub struct Masked<'a> {
    image: &'a dyn Image,
    pages: &'a dyn PageSet,
}

impl std::fmt::Debug for Masked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Masked").finish_non_exhaustive()
    }
}

impl<'a> Masked<'a> {
    /// A view of the `pages` of `image`.
    pub fn new(image: &'a dyn Image, pages: &'a dyn PageSet) -> Self {
        Self { image, pages }
    }
}

impl Image for Masked<'_> {
    fn virtual_size(&self) -> u64 {
        self.image.virtual_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_within(self.virtual_size(), offset, buf.len())?;
        buf.fill(0);
        let end = offset + buf.len() as u64;
        let first = offset - offset % PAGE_SIZE;
        for run in self.pages.pages(PageRange::covering(first, end)) {
            let run = run?;
            let (start, end) = (run.start().max(offset), run.end().min(end));
            if start < end {
                let bytes = &mut buf[to_usize(start - offset)..to_usize(end - offset)];
                self.image.read_exact_at(bytes, start)?;
            }
        }
        Ok(())
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        let within = within.cut_to(whole(self));
        let end = PageRange::covering(within.end(), within.end());
        let mut at = within.start();
        let seen = self.pages.pages(within).chain([Ok(end)]);
        join_extents(seen.flat_map(move |run| match run {
            Err(error) => Box::new(std::iter::once(Err(error))) as Extents<'_>,
            Ok(run) => {
                let gap = PageRange::covering(at, run.start());
                at = run.end();
                Box::new(zeros(gap).chain(self.image.extents(run)))
            }
        }))
    }

    fn io(&self) -> IoHints {
        self.image.io()
    }
}
