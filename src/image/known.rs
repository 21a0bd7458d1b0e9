//! What is known of two images before they are read.

use std::iter::Peekable;

use crate::page::PageRange;

/// Ranges of a virtual disk: in order, without overlap.
pub type Ranges<'a> = Box<dyn Iterator<Item = PageRange> + 'a>;

/// Says where two images are known to hold the same bytes.
pub trait KnownEqual: Sync {
    /// Ranges that lie within both images and are the same in both for certain. None is always a right answer.
    fn equal_ranges(&self) -> Ranges<'_>;
}

/// Nothing is known: everything must be read.
#[derive(Debug, Clone, Copy, Default)]
pub struct NothingKnown;

impl KnownEqual for NothingKnown {
    fn equal_ranges(&self) -> Ranges<'_> {
        Box::new(std::iter::empty())
    }
}

/// What needn't be read is read all the same where it is shorter than this: a second read would cost more.
pub(super) const WORTH_SKIPPING: u64 = 16 << 10;

/// Deals the known ranges out to windows, which are asked for in order.
pub(crate) struct EqualParts<'a> {
    ranges: Peekable<Joined<'a>>,
}

impl<'a> EqualParts<'a> {
    pub(crate) fn new(known: &'a dyn KnownEqual) -> Self {
        let joined = Joined {
            ranges: known.equal_ranges().peekable(),
        };
        Self {
            ranges: joined.peekable(),
        }
    }

    /// The parts of `window`, none before the last one, that are known to be equal and worth skipping.
    pub(crate) fn of(&mut self, window: PageRange) -> Vec<PageRange> {
        let mut parts = Vec::new();
        while let Some(range) = self
            .ranges
            .peek()
            .filter(|range| range.start() < window.end())
        {
            let end = range.end();
            parts.extend(
                range
                    .intersect(window)
                    .filter(|part| part.len() >= WORTH_SKIPPING || *part == window),
            );
            if end > window.end() {
                break;
            }
            self.ranges.next();
        }
        parts
    }
}

/// Neighbouring ranges as one.
struct Joined<'a> {
    ranges: Peekable<Ranges<'a>>,
}

impl Iterator for Joined<'_> {
    type Item = PageRange;

    fn next(&mut self) -> Option<PageRange> {
        let mut joined = self.ranges.next()?;
        while let Some(next) = self.ranges.next_if(|next| next.start() == joined.end()) {
            joined = joined.hull(next);
        }
        Some(joined)
    }
}

/// What of `within` isn't in `parts`, which are in order.
pub(crate) fn unknown(within: PageRange, parts: &[PageRange]) -> impl Iterator<Item = PageRange> {
    let first = parts.partition_point(|part| part.end() <= within.start());
    let mut at = within.start();
    let mut parts = parts.get(first..).unwrap_or_default().iter();
    std::iter::from_fn(move || {
        while at < within.end() {
            let part = parts.next();
            let start = part.map_or(within.end(), |part| part.start().min(within.end()));
            let gap = PageRange::new(at, start);
            at = part.map_or(within.end(), |part| part.end());
            if let Some(gap) = gap.filter(|gap| !gap.is_empty()) {
                return Some(gap);
            }
        }
        None
    })
}
