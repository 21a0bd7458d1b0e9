//! Writing ranges of an image to a blob: with a comparison, or without reading what is there.

use super::bring::{Bring, view};
use super::ranges::{Inside, Outside};
use crate::blob::{BlobFile, with_gaps};
use crate::diff::{CompareOptions, WindowChange, compare};
use crate::error::{Error, Result};
use crate::files::EmptyDisk;
use crate::image::{Image, ImageMut, Masked, NoneShared, parts_in};
use crate::page::{ChangeKind, PageRange};
use crate::parallel::Work;

/// Compares these ranges, and writes what differs.
pub(super) fn compare_within(
    blob: &BlobFile,
    (image, work): (&dyn Image, Work<'_>),
    ranges: &[PageRange],
) -> Result<(u64, u64)> {
    if ranges.is_empty() {
        return Ok((0, 0));
    }
    let size = image.virtual_size();
    let equal = Outside { ranges, size };
    let bring = Bring {
        workers: work.workers,
        progress: work.progress,
        equal: &equal,
        digest: false,
    };
    let done = bring.run(blob, image)?;
    Ok((done.update_bytes, done.clear_bytes))
}

/// Writes these ranges without reading the existing data. Returns the bytes updated and cleared. Small gaps between them may
/// be written, too, so the blob and the image must be equal outside of the ranges.
pub(super) fn fill(
    blob: &BlobFile,
    ranges: &[PageRange],
    (image, work): (&dyn Image, Work<'_>),
) -> Result<(u64, u64)> {
    if ranges.is_empty() {
        return Ok((0, 0));
    }
    let size = image.virtual_size();
    let joined = with_gaps(ranges);
    let (empty, inside) = (EmptyDisk::new(size), Inside(&joined));
    let wanted = Masked::new(image, &inside);
    let mut image = view(blob, size);
    // The parts of the ranges without data are cleared. A gap without data isn't touched, so that no hole is filled.
    let mut gaps = Gaps { ranges, at: 0 };
    let (mut updated, mut cleared) = (0_u64, 0_u64);
    let mut clear = |image: &mut dyn ImageMut, gap: PageRange| {
        cleared = cleared.saturating_add(gap.len());
        image.clear(gap)
    };
    let options = CompareOptions {
        work,
        digests: false,
        payload: true,
        equal: &NoneShared,
    };
    compare(&empty, &wanted, options, Ok, |change: WindowChange| {
        let mut payload = &*change.payload;
        for data in &change.changes {
            if data.kind != ChangeKind::Update {
                continue;
            }
            let (bytes, rest) = payload
                .split_at_checked(data.range.buffer_len())
                .ok_or_else(|| Error::internal("the payload of a window is too short"))?;
            payload = rest;
            // Data within a gap, between holes, would cost a request without need.
            if parts_in(ranges, data.range).next().is_none() {
                continue;
            }
            for gap in gaps.until(data.range) {
                clear(&mut image, gap)?;
            }
            updated = updated.saturating_add(data.range.len());
            image.update(data.range, bytes)?;
        }
        Ok(())
    })?;
    for gap in gaps.until(PageRange::covering(size, size)) {
        clear(&mut image, gap)?;
    }
    image.flush()?;
    Ok((updated, cleared))
}

/// Finds the parts of ranges between pieces of data, which are passed in order.
struct Gaps<'a> {
    ranges: &'a [PageRange],
    at: u64,
}

impl Gaps<'_> {
    /// The parts before `data` and after the previous piece.
    fn until(&mut self, data: PageRange) -> Vec<PageRange> {
        let passed = self.ranges.partition_point(|range| range.end() <= self.at);
        self.ranges = self.ranges.get(passed..).unwrap_or_default();
        let gap = PageRange::covering(self.at, data.start().max(self.at));
        self.at = data.end();
        let ranges = self.ranges.iter().take_while(|r| r.start() < gap.end());
        ranges.filter_map(|range| range.intersect(gap)).collect()
    }
}
