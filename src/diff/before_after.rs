//! What base and result hold of a window, and how they differ.

use super::compare::{ChangeCollector, Collected, WindowChange};
use super::range_buffer::RangeBuffer;
use crate::error::Result;
use crate::page::PageRange;

/// What base and result hold of a window, where they may differ.
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

    /// What turns the base into the result, which has `size` bytes; to be written, not to be kept as a frame.
    pub(super) fn forth(&self, window: PageRange, size: u64) -> Result<Option<WindowChange>> {
        self.collect(Collected::Payload, (window, size), self.before, self.after)
    }

    /// The same without the data.
    pub(super) fn places(&self, window: PageRange, size: u64) -> Result<Option<WindowChange>> {
        self.collect(Collected::Places, (window, size), self.before, self.after)
    }

    /// What turns the result into the base, which has `size` bytes.
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
