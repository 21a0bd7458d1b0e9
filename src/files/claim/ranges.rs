//! Ranges as they come in.

use crate::error::{Error, Result};
use crate::page::{PageRange, coalesce};

/// Ranges that a list has at most.
const MOST: usize = 4 << 20;

/// The advice for a list that can't be read.
pub(super) const ADVICE: &str = "have the program that made the list make it again; docs/page-blobs.md has the forms that are read";

/// Gathers ranges in any order.
#[derive(Debug, Default)]
pub(super) struct Collector(Vec<PageRange>);

impl Collector {
    /// Adds the bytes `start..end`, widened to whole pages.
    pub(super) fn push(&mut self, start: u64, end: u64) -> Result<()> {
        if start >= end {
            return Ok(());
        }
        if self.0.len() >= MOST {
            return Err(Error::unsupported("the list has too many ranges")
                .with_expected(format_args!("at most {MOST}"))
                .with_hint("compare the images without the list"));
        }
        self.0.push(PageRange::covering(start, end));
        Ok(())
    }

    /// All ranges in order, without overlap.
    pub(super) fn ranges(mut self) -> Vec<PageRange> {
        self.0.sort_unstable();
        coalesce(self.0, 0).collect()
    }
}

/// An error about a list that can't be understood.
pub(super) fn wrong(what: &str) -> Error {
    Error::damaged(what.to_owned()).with_hint(ADVICE)
}
