//! Where consecutive diffs may change something, according to their indexes and frame heads.

use std::sync::Arc;

use super::file::DiffFile;
use crate::error::{Error, Result};
use crate::image::{Source, WINDOW_SIZE};
use crate::page::{PageRange, coalesce};

/// The pages in which the ends of consecutive diffs may differ: those that some diff changes and, if sizes differ,
/// everything from the smallest size on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coverage<'a> {
    diffs: &'a [Arc<DiffFile>],
    /// The offset from which everything may differ: truncated data is zero if the disk grew again.
    cut: Option<u64>,
}

impl<'a> Coverage<'a> {
    pub(super) fn of(diffs: &'a [Arc<DiffFile>]) -> Self {
        let cut = sizes_that_change(diffs).min();
        Self { diffs, cut }
    }

    /// Returns the first byte at or after `at`, the start of a window, that may differ.
    pub(super) fn next(&self, at: u64) -> Result<Option<u64>> {
        let cut = self.cut.map(|cut| cut.max(at));
        if cut == Some(at) {
            return Ok(cut);
        }
        let change = first_change(self.diffs, at)?;
        Ok([cut, change].into_iter().flatten().min())
    }

    /// The pages of `window` that may differ, in order, joined.
    pub(super) fn pages(&self, window: PageRange) -> Result<Vec<PageRange>> {
        let mut pages = Vec::new();
        for diff in self.diffs {
            for entry in diff.entries_in(window)? {
                let changes = diff.changes_of(&entry)?;
                pages.extend(changes.iter().filter_map(|c| c.range.intersect(window)));
            }
        }
        let cut = self.cut.map(|cut| PageRange::covering(cut, u64::MAX));
        pages.extend(cut.and_then(|cut| cut.intersect(window)));
        Ok(joined(pages))
    }
}

/// Returns the first byte at or after `at` that some diff changes.
pub(super) fn first_change(diffs: &[Arc<DiffFile>], at: u64) -> Result<Option<u64>> {
    let mut first = None;
    for diff in diffs {
        first = [first, diff.first_change_from(at)?]
            .into_iter()
            .flatten()
            .min();
        if first == Some(at) {
            break;
        }
    }
    Ok(first)
}

/// The sizes before and after every diff that changes the size.
fn sizes_that_change(diffs: &[Arc<DiffFile>]) -> impl Iterator<Item = u64> + '_ {
    let headers = diffs.iter().map(|diff| diff.header());
    let resized = headers.filter(|header| header.base_size != header.target_size);
    resized.flat_map(|header| [header.base_size, header.target_size])
}

/// Sorts ranges, and joins those that touch or overlap.
pub(super) fn joined(mut ranges: Vec<PageRange>) -> Vec<PageRange> {
    ranges.sort_unstable();
    coalesce(ranges, 0).collect()
}

/// The windows that some diff changes, or in which the disk ended at some point: with another size, its last window has
/// another length.
pub(super) struct ChangedWindows<'a> {
    diffs: &'a [Arc<DiffFile>],
    /// The starts of the windows in which the disk ended at some point, in order.
    ends: Vec<u64>,
    failed: Option<Error>,
}

impl Source for Coverage<'_> {
    /// If an index can't be read, the error occurs at the affected window.
    type Item = ();

    fn next(&mut self, at: u64) -> Option<u64> {
        Coverage::next(self, at).unwrap_or(Some(at))
    }

    fn take(&mut self, window: PageRange) -> Result<()> {
        Coverage::next(self, window.start()).map(drop)
    }
}

impl<'a> ChangedWindows<'a> {
    pub(super) fn of(diffs: &'a [Arc<DiffFile>]) -> Self {
        let mut ends: Vec<u64> = sizes_that_change(diffs)
            .map(|end| end - end % WINDOW_SIZE)
            .collect();
        ends.sort_unstable();
        Self {
            diffs,
            ends,
            failed: None,
        }
    }

    /// Only the windows that some diff changes.
    pub(super) fn of_frames(diffs: &'a [Arc<DiffFile>]) -> Self {
        Self {
            diffs,
            ends: Vec::new(),
            failed: None,
        }
    }

    /// Returns the error if the next window couldn't be determined.
    pub(super) fn check(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// The first window in which the disk ended at some point.
    pub(super) fn first_end(&self) -> Option<u64> {
        self.ends.first().copied()
    }
}

impl Source for ChangedWindows<'_> {
    /// Whether the disk ended in the window.
    type Item = bool;

    fn next(&mut self, at: u64) -> Option<u64> {
        match first_change(self.diffs, at) {
            Ok(change) => {
                let end = self.ends.iter().copied().find(|end| *end >= at);
                [change, end].into_iter().flatten().min()
            }
            Err(error) => {
                self.failed = Some(error);
                Some(at)
            }
        }
    }

    fn take(&mut self, window: PageRange) -> Result<bool> {
        let next = self.next(window.start());
        self.check()?;
        Ok(next.is_some_and(|next| next < window.end()))
    }
}
