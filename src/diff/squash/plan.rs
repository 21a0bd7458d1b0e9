//! Plans the work of a squash from the indexes: in order, each part of the disk once.

use super::super::chain::Chain;
use crate::error::Result;
use crate::image::WINDOW_SIZE;
use crate::page::PageRange;

/// A chain of diffs in one direction.
pub(super) struct Lane<'a> {
    pub(super) chain: &'a Chain,
    /// The virtual sizes on the way: that of the base, and those after each diff.
    pub(super) sizes: Vec<u64>,
    /// The range that an intermediate diff truncates, within both base and target: it reads as zeros in the target
    /// although no frame clears it.
    pub(super) cut: PageRange,
}

impl<'a> Lane<'a> {
    pub(super) fn new(chain: &'a Chain) -> Self {
        let after = chain.diffs().iter().map(|diff| diff.header().target_size);
        let sizes: Vec<u64> = [chain.base_size()].into_iter().chain(after).collect();
        let between = sizes.get(1..sizes.len().saturating_sub(1));
        let smallest = between.and_then(|sizes| sizes.iter().min()).copied();
        let both = chain.base_size().min(chain.target_size());
        Self {
            chain,
            sizes,
            cut: smallest
                .and_then(|size| PageRange::new(size, both))
                .unwrap_or_default(),
        }
    }

    pub(super) fn base_size(&self) -> u64 {
        self.chain.base_size()
    }

    pub(super) fn target_size(&self) -> u64 {
        self.chain.target_size()
    }

    /// Returns whether the sizes are all equal, or none of them ends within `range` or before it: then only frames
    /// change its contents.
    pub(super) fn is_quiet(&self, range: PageRange) -> bool {
        let same = self.sizes.iter().all(|size| *size == self.base_size());
        same || self.sizes.iter().all(|size| *size >= range.end())
    }
}

/// A part of the disk to fold.
pub(super) struct Item {
    pub(super) range: PageRange,
    /// Whether each long clear and truncation that affects it covers all of it, and nothing else does. Such an item may
    /// have any length; any other is one window.
    pub(super) run: bool,
    /// For each lane, the positions of the diffs that change something there.
    pub(super) touched: Vec<Vec<usize>>,
}

/// Walks the indexes of all diffs in parallel.
pub(super) struct FoldPlan<'a> {
    lanes: &'a [Lane<'a>],
    /// For each diff of each lane, the range of its next frame.
    next: Vec<Vec<Option<PageRange>>>,
    at: u64,
    end: u64,
    begun: bool,
}

impl<'a> FoldPlan<'a> {
    pub(super) fn new(lanes: &'a [Lane<'a>]) -> Self {
        Self {
            lanes,
            next: lanes
                .iter()
                .map(|lane| vec![None; lane.chain.diffs().len()])
                .collect(),
            at: 0,
            end: lanes.iter().map(Lane::target_size).max().unwrap_or(0),
            begun: false,
        }
    }

    fn step(&mut self) -> Result<Option<Item>> {
        self.advance()?;
        let cuts = self
            .lanes
            .iter()
            .filter(|lane| lane.cut.end() > self.at)
            .map(|lane| lane.cut.start());
        let frames = self.next.iter().flatten().flatten();
        let starts = frames.map(|range| range.start()).chain(cuts);
        // A frame of an intermediate diff may extend beyond both ends.
        let first = starts.map(|start| start.max(self.at)).min();
        let Some(first) = first.filter(|first| *first < self.end) else {
            return Ok(None);
        };
        let start = first - first % WINDOW_SIZE;
        let window_end = start.saturating_add(WINDOW_SIZE).min(self.end);
        let run_end = self.run_end(start).filter(|end| *end >= window_end);
        let end = run_end.unwrap_or(window_end);
        self.at = end;
        let Some(range) = PageRange::new(start, end) else {
            return Ok(None);
        };
        Ok(Some(Item {
            range,
            run: run_end.is_some(),
            touched: self.next.iter().map(|lane| touched(lane, range)).collect(),
        }))
    }

    /// Finds each diff's next frame that extends beyond `at` and begins within the target.
    fn advance(&mut self) -> Result<()> {
        for (lane, next) in self.lanes.iter().zip(&mut self.next) {
            for (diff, next) in lane.chain.diffs().iter().zip(next) {
                let passed = next.is_some_and(|range| range.end() <= self.at);
                if passed || !self.begun {
                    *next = diff
                        .entry_from(self.at)?
                        .filter(|range| range.start().max(self.at) < lane.target_size());
                }
            }
        }
        self.begun = true;
        Ok(())
    }

    /// Returns the end of the run of windows from `start` on that are all covered by the same long clears and by
    /// nothing else, or `None` if not even the first one is.
    fn run_end(&self, start: u64) -> Option<u64> {
        let mut end = self.end;
        for range in self.next.iter().flatten().flatten() {
            // Longer than a window means a long clear, which starts at a window.
            if range.start() <= start && range.len() > WINDOW_SIZE {
                end = end.min(range.end());
            } else if range.start() >= start.saturating_add(WINDOW_SIZE) {
                end = end.min(range.start() - range.start() % WINDOW_SIZE);
            } else {
                return None;
            }
        }
        let sizes = self.lanes.iter().flat_map(|lane| &lane.sizes);
        let end = sizes
            .filter(|size| **size > start)
            .fold(end, |end, size| end.min(*size));
        // Only the end of the disk may lie within a window.
        let end = if end == self.end {
            end
        } else {
            end - end % WINDOW_SIZE
        };
        (end > start).then_some(end)
    }
}

impl Iterator for FoldPlan<'_> {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// The positions of the frames that overlap `range`.
fn touched(next: &[Option<PageRange>], range: PageRange) -> Vec<usize> {
    let inside =
        |next: &Option<PageRange>| next.is_some_and(|next| next.intersect(range).is_some());
    next.iter()
        .enumerate()
        .filter_map(|(n, next)| inside(next).then_some(n))
        .collect()
}
