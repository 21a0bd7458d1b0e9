//! An image presented with another size: truncated, or extended with zeros.

use super::{Extent, ExtentState, Extents, Image, check_within, whole};
use crate::error::Result;
use crate::page::{PageRange, to_usize};
use crate::parallel::IoHints;

/// The first `virtual_size` bytes of `image`, extended with zeros if necessary.
#[derive(Debug, Clone, Copy)]
pub struct Resized<I> {
    image: I,
    virtual_size: u64,
}

impl<I> Resized<I> {
    /// Presents `image` with a size of `virtual_size` bytes.
    pub const fn new(image: I, virtual_size: u64) -> Self {
        Self {
            image,
            virtual_size,
        }
    }

    /// The underlying image.
    pub const fn inner(&self) -> &I {
        &self.image
    }
}

impl<I: Image> Image for Resized<I> {
    fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_within(self.virtual_size, offset, buf.len())?;
        read_or_zeros(&self.image, buf, offset)
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        extents_or_zeros(&self.image, within.cut_to(whole(self)))
    }

    fn io(&self) -> IoHints {
        self.image.io()
    }
}

/// Fills `buf` from `offset` of `image`, or with zeros after its end.
pub(crate) fn read_or_zeros(
    image: &(impl Image + ?Sized),
    buf: &mut [u8],
    offset: u64,
) -> Result<()> {
    let inside = image.virtual_size().saturating_sub(offset);
    let inside = to_usize(inside).min(buf.len());
    let (read, beyond) = buf.split_at_mut(inside);
    beyond.fill(0);
    if read.is_empty() {
        return Ok(());
    }
    image.read_exact_at(read, offset)
}

/// Returns the extents of `within`, with zeros after the end of `image`. Two adjacent ones may both be zero.
pub(crate) fn extents_or_zeros(image: &(impl Image + ?Sized), within: PageRange) -> Extents<'_> {
    let end = image.virtual_size().clamp(within.start(), within.end());
    let inside = PageRange::covering(within.start(), end);
    let beyond = PageRange::covering(end, within.end());
    Box::new(image.extents(inside).chain(zeros(beyond)))
}

/// Returns a range of zeros as an extent, or nothing if it is empty.
pub(crate) fn zeros<'a>(range: PageRange) -> Extents<'a> {
    let state = ExtentState::Zero;
    let extent = (!range.is_empty()).then_some(Ok(Extent { range, state }));
    Box::new(extent.into_iter())
}
