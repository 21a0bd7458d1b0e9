//! Changed bytes, and which of them don't have an owner yet.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::page::PageRange;

/// The most ranges that are kept, in 32 MiB. Further ones are only counted.
const MOST: usize = 2 << 20;

/// The changed bytes of a disk, in order.
#[derive(Debug, Clone, Default)]
pub struct ChangedBytes {
    ranges: Vec<Range<u64>>,
    beyond: u64,
    total: u64,
}

impl ChangedBytes {
    /// Adds a range after all others.
    pub fn push(&mut self, range: PageRange) {
        self.total += range.len();
        self.add(range.start()..range.end());
    }

    fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let full = self.ranges.len() >= MOST;
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start && self.beyond == 0 => last.end = range.end,
            _ if !full => self.ranges.push(range),
            _ => self.beyond += range.end - range.start,
        }
    }

    /// Total number of bytes.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes in ranges beyond the limit.
    pub(super) fn beyond(&self) -> u64 {
        self.beyond
    }

    pub(super) fn unclaimed(&self) -> Unclaimed {
        Unclaimed(
            self.ranges
                .iter()
                .map(|range| (range.start, range.end))
                .collect(),
        )
    }
}

/// Ranges prepared for queries.
#[derive(Debug, Clone, Default)]
pub(super) struct Touched(Vec<Range<u64>>);

impl Touched {
    pub(super) fn new(mut ranges: Vec<Range<u64>>) -> Self {
        ranges.sort_by_key(|range| range.start);
        let mut joined: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match joined.last_mut() {
                Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        Self(joined)
    }

    /// Returns whether any of them overlaps `range`.
    pub(super) fn any_in(&self, range: &Range<u64>) -> bool {
        let after = self.0.partition_point(|own| own.end <= range.start);
        self.0.get(after).is_some_and(|own| own.start < range.end)
    }
}

/// Changed bytes without an owner: each is assigned once, so that the sum over owners is the total.
#[derive(Debug, Clone, Default)]
pub(super) struct Unclaimed(BTreeMap<u64, u64>);

impl Unclaimed {
    /// Removes the unclaimed parts of `range`, and passes them to `each`.
    pub(super) fn take_each(
        &mut self,
        range: &Range<u64>,
        mut each: impl FnMut(Range<u64>),
    ) -> u64 {
        let mut taken = 0;
        if range.start >= range.end {
            return 0;
        }
        // The last one that begins before the end.
        while let Some((start, end)) = self.last_before(range.end) {
            if end <= range.start {
                break;
            }
            self.0.remove(&start);
            let (from, to) = (start.max(range.start), end.min(range.end));
            if to < end {
                self.0.insert(to, end);
            }
            taken += to - from;
            each(from..to);
            if start < from {
                self.0.insert(start, from);
                break;
            }
        }
        taken
    }

    fn last_before(&self, at: u64) -> Option<(u64, u64)> {
        let last = self.0.range(..at).next_back();
        last.map(|(start, end)| (*start, *end))
    }

    /// Removes the unclaimed parts of `range`. Returns their length in bytes.
    pub(super) fn take(&mut self, range: &Range<u64>) -> u64 {
        self.take_each(range, |_| {})
    }

    /// Removes the unclaimed parts of `range` and returns them, relative to its beginning.
    pub(super) fn split_off(&mut self, range: &Range<u64>) -> Self {
        let mut part = Self::default();
        self.take_each(range, |found| {
            part.0
                .insert(found.start - range.start, found.end - range.start);
        });
        part
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(start, end)| *start..*end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_given_once() {
        let mut changed = ChangedBytes::default();
        for (start, end) in [(0, 1024), (1024, 2048), (4096, 8192)] {
            changed.push(PageRange::new(start, end).unwrap());
        }
        assert_eq!(changed.total(), 6144);
        let mut left = changed.unclaimed();
        assert_eq!(left.len(), 2);
        assert_eq!(left.take(&(512..5000)), 1536 + 904);
        assert_eq!(left.take(&(0..10_000)), 6144 - 2440);
        assert_eq!(left.take(&(0..10_000)), 0);
        let mut left = changed.unclaimed();
        let part = left.split_off(&(1000..5000));
        assert_eq!(part.ranges().collect::<Vec<_>>(), [0..1048, 3096..4000]);
        assert_eq!(part.bytes() + left.bytes(), 6144);
        let touched = Touched::new(vec![10..20, 15..30, 40..50]);
        for (range, any) in [
            (0..10, false),
            (0..11, true),
            (29..31, true),
            (30..40, false),
            (49..60, true),
            (50..60, false),
        ] {
            assert_eq!(touched.any_in(&range), any, "{range:?}");
        }
    }
}
