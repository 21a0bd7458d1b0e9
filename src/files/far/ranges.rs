//! Sets of ranges of a disk.

use crate::error::Result;
use crate::image::{PageSet, Ranges, SharedExtents, parts_in, unknown};
use crate::page::{PageRange, coalesce};

/// The parts of `ranges`, which may be in any order, that are in `within`: sorted and joined.
pub(super) fn union(ranges: impl Iterator<Item = PageRange>, within: PageRange) -> Vec<PageRange> {
    let cut = ranges.filter_map(|range| range.intersect(within));
    let mut all: Vec<PageRange> = cut.filter(|range| !range.is_empty()).collect();
    all.sort_unstable();
    coalesce(all, 0).collect()
}

/// The parts of `all` that aren't in `gone`; both are sorted.
pub(super) fn minus(all: &[PageRange], gone: &[PageRange]) -> Vec<PageRange> {
    all.iter().flat_map(|range| unknown(*range, gone)).collect()
}

/// All of a disk of this size except the ranges, which are sorted.
pub(super) struct Outside<'a> {
    pub(super) ranges: &'a [PageRange],
    pub(super) size: u64,
}

impl SharedExtents for Outside<'_> {
    fn equal_ranges(&self) -> Ranges<'_> {
        Box::new(unknown(PageRange::covering(0, self.size), self.ranges))
    }
}

/// The pages in the ranges, which are sorted.
pub(super) struct Inside<'a>(pub(super) &'a [PageRange]);

impl PageSet for Inside<'_> {
    fn pages(&self, within: PageRange) -> Box<dyn Iterator<Item = Result<PageRange>> + '_> {
        Box::new(parts_in(self.0, within).map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(all: &[(u64, u64)]) -> Vec<PageRange> {
        all.iter()
            .map(|(a, b)| PageRange::covering(a * 512, b * 512))
            .collect()
    }

    #[test]
    fn sets_are_joined_and_taken_apart() {
        let within = PageRange::covering(0, 10 * 512);
        let joined = union(
            ranges(&[(6, 20), (1, 3), (3, 4), (2, 3), (30, 31)]).into_iter(),
            within,
        );
        assert_eq!(joined, ranges(&[(1, 4), (6, 10)]));
        assert_eq!(
            minus(&joined, &ranges(&[(0, 2), (3, 7)])),
            ranges(&[(2, 3), (7, 10)])
        );
        assert_eq!(minus(&joined, &[]), joined);
        assert_eq!(minus(&[], &joined), []);
        let outside = Outside {
            ranges: &joined,
            size: 12 * 512,
        };
        assert_eq!(
            outside.equal_ranges().collect::<Vec<_>>(),
            ranges(&[(0, 1), (4, 6), (10, 12)])
        );
    }
}
