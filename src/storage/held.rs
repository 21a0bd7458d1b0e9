//! The ranges of a file that are zero and still allocated, because undoing a change may need their space again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most ranges that are remembered. Any others are zeroed as well, but stay allocated for good.
const MOST: usize = 1 << 20;

/// Ranges of a file that are zero and still allocated.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<BTreeMap<u64, u64>>);

impl Held {
    pub(super) fn push(&self, range: Range<u64>) {
        self.forget(&range);
        let mut ranges = self.ranges();
        if ranges.len() < MOST {
            ranges.insert(range.start, range.end);
        }
    }

    /// Forgets `range`, which has been written and isn't zero any more.
    pub(super) fn forget(&self, range: &Range<u64>) {
        let mut ranges = self.ranges();
        // Walks back from the last one as long as they overlap.
        while let Some((start, end)) = ranges
            .range(..range.end)
            .next_back()
            .map(|(start, end)| (*start, *end))
            .filter(|(_, end)| *end > range.start)
        {
            ranges.remove(&start);
            if end > range.end {
                ranges.insert(range.end, end);
            }
            if start < range.start {
                ranges.insert(start, range.start);
            }
        }
    }

    pub(super) fn ranges(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_again_is_not_given_back() {
        let held = Held::default();
        for range in [0..100, 200..300, 400..500] {
            held.push(range);
        }
        held.forget(&(50..60));
        held.forget(&(250..450));
        held.push(90..220);
        held.forget(&(600..700));
        let ranges: Vec<_> = held.ranges().clone().into_iter().collect();
        assert_eq!(
            ranges,
            [(0, 50), (60, 90), (90, 220), (220, 250), (450, 500)]
        );
        held.forget(&(0..1000));
        assert!(held.ranges().is_empty());
    }
}
