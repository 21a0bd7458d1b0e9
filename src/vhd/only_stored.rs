//! A look at only those pages of an image that a differencing disk stores itself.

use super::VhdImage;
use crate::error::Result;
use crate::image::{Extent, ExtentState, Extents, Image, check_within, join_extents, whole};
use crate::page::{PAGE_SIZE, PageRange, to_usize};
use crate::storage::ReadAt;

/// An image of which only the pages that `child` stores are seen; the others read as zeros and are never read from
/// it. The child and its parent, both seen so, differ in the same pages as without: what the child doesn't store
/// is the same in both.
#[derive(Clone, Copy)]
pub struct OnlyStored<'a, S> {
    child: &'a VhdImage<S>,
    image: &'a dyn Image,
}

impl<S> std::fmt::Debug for OnlyStored<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnlyStored").finish_non_exhaustive()
    }
}

impl<'a, S: ReadAt> OnlyStored<'a, S> {
    /// `image` is the child, or its parent.
    pub fn new(child: &'a VhdImage<S>, image: &'a dyn Image) -> Self {
        Self { child, image }
    }
}

impl<S: ReadAt> Image for OnlyStored<'_, S> {
    fn virtual_size(&self) -> u64 {
        self.image.virtual_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_within(self.virtual_size(), offset, buf.len())?;
        buf.fill(0);
        let end = offset + buf.len() as u64;
        let first = offset - offset % PAGE_SIZE;
        let pages = PageRange::covering(first, end.next_multiple_of(PAGE_SIZE));
        for run in self.child.stored_runs(pages) {
            let run = run?;
            let (start, end) = (run.range.start().max(offset), run.range.end().min(end));
            if run.is_stored() && start < end {
                let at = |place: u64| to_usize(place - offset);
                let bytes = buf.get_mut(at(start)..at(end)).unwrap_or_default();
                self.image.read_exact_at(bytes, start)?;
            }
        }
        Ok(())
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        let within = within.cut_to(whole(self));
        let image = self.image;
        join_extents(self.child.stored_runs(within).flat_map(move |run| {
            let extents: Extents<'_> = match run {
                Ok(run) if run.is_stored() => image.extents(run.range),
                Ok(run) => Box::new(std::iter::once(Ok(Extent {
                    range: run.range,
                    state: ExtentState::Zero,
                }))),
                Err(error) => Box::new(std::iter::once(Err(error))),
            };
            extents
        }))
    }
}
