//! The contents of a window in base and result, and their differences.

use super::compare::{ChangeCollector, Collected, WindowChange};
use super::range_buffer::RangeBuffer;
use crate::error::Result;
use crate::page::PageRange;

/// The contents of a window in base and result, where they may differ.
pub(super) struct BeforeAfter<'b> {
    pub(super) ranges: &'b [PageRange],
    pub(super) spans: &'b RangeBuffer,
    pub(super) before: &'b [u8],
    pub(super) after: &'b [u8],
}

impl BeforeAfter<'_> {
    pub(super) fn is_unchanged(&self) -> bool {
        let same =
            |r: &PageRange| self.spans.piece(self.before, *r) == self.spans.piece(self.after, *r);
        self.ranges.iter().all(same)
    }

    /// The changes from the base to the result, which has `size` bytes. They are for writing, not for storing as a
    /// frame.
    pub(super) fn forth(&self, window: PageRange, size: u64) -> Result<Option<WindowChange>> {
        self.collect(Collected::Payload, (window, size), self.before, self.after)
    }

    /// As [`forth`](Self::forth), without the data.
    pub(super) fn places(&self, window: PageRange, size: u64) -> Result<Option<WindowChange>> {
        self.collect(Collected::Places, (window, size), self.before, self.after)
    }

    /// The changes from the result to the base, which has `size` bytes.
    pub(super) fn back(&self, window: PageRange, size: u64) -> Result<Option<WindowChange>> {
        self.collect(Collected::All, (window, size), self.after, self.before)
    }

    fn collect(
        &self,
        what: Collected,
        (window, size): (PageRange, u64),
        from: &[u8],
        to: &[u8],
    ) -> Result<Option<WindowChange>> {
        let within = PageRange::new(window.start(), window.end().min(size).max(window.start()));
        let window = within.unwrap_or(window);
        let mut found = ChangeCollector::new(window, what);
        for range in self.ranges.iter().filter_map(|r| r.intersect(window)) {
            let (from, to) = (self.spans.piece(from, range), self.spans.piece(to, range));
            found.add(range.start(), from, to)?;
        }
        let change = found.finish();
        Ok((!change.changes.is_empty()).then_some(change))
    }
}
