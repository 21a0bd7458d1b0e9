//! Ranges of two images that are known to be equal before they are read.

use std::iter::Peekable;

use super::windows::{Source, parts_in};
use crate::error::Result;
use crate::page::{PageRange, coalesce};

/// Ranges of a virtual disk, in order and without overlap.
pub type Ranges<'a> = Box<dyn Iterator<Item = PageRange> + 'a>;

/// Reports where two images are known to hold the same bytes.
pub trait SharedExtents: Sync {
    /// Returns ranges that lie within both images and are certain to be identical. Returning none is always correct.
    fn equal_ranges(&self) -> Ranges<'_>;
}

/// Reports nothing: everything must be read.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoneShared;

impl SharedExtents for NoneShared {
    fn equal_ranges(&self) -> Ranges<'_> {
        Box::new(std::iter::empty())
    }
}

/// Shorter gaps are read anyway: one long read is cheaper than two.
pub(crate) const WORTH_SKIPPING: u64 = 16 << 10;

/// Distributes the known ranges over windows.
pub(crate) struct SharedCursor<'a>(Peekable<Ranges<'a>>);

impl<'a> SharedCursor<'a> {
    pub(crate) fn new(known: &'a dyn SharedExtents) -> Self {
        let joined: Ranges<'a> = Box::new(coalesce(known.equal_ranges(), 0));
        Self(joined.peekable())
    }
}

impl Source for SharedCursor<'_> {
    /// The parts of the window that are known to be equal and worth skipping.
    type Item = Vec<PageRange>;

    fn next(&mut self, _: u64) -> Option<u64> {
        None
    }

    fn take(&mut self, window: PageRange) -> Result<Self::Item> {
        let mut parts = Vec::new();
        while let Some(range) = self.0.peek().filter(|range| range.start() < window.end()) {
            let end = range.end();
            parts.extend(
                range
                    .intersect(window)
                    .filter(|part| part.len() >= WORTH_SKIPPING || *part == window),
            );
            if end > window.end() {
                break;
            }
            self.0.next();
        }
        Ok(parts)
    }
}

/// Returns the parts of `within` that aren't in `parts`, which are in order.
pub(crate) fn unknown(within: PageRange, parts: &[PageRange]) -> impl Iterator<Item = PageRange> {
    let mut at = within.start();
    let end = PageRange::covering(within.end(), within.end());
    parts_in(parts, within)
        .chain([end])
        .filter_map(move |part| {
            let gap = PageRange::covering(at, part.start());
            at = part.end();
            (!gap.is_empty()).then_some(gap)
        })
}
