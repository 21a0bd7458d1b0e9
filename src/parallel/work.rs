//! The environment of a long job, and the shape of every pass over a disk.

use super::{ReadAhead, Workers};
use crate::error::Result;
use crate::page::PageRange;
use crate::progress::Progress;

/// The most bytes that one pass fetches ahead.
const FETCHED: u64 = 256 << 20;

/// Hints for reading a storage efficiently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoHints {
    /// A good size for one request, in bytes.
    pub request: u32,
    /// A good number of requests in flight. 0 for local storage, which is read when it is processed.
    pub depth: u16,
}

impl IoHints {
    /// A local file or device.
    pub const LOCAL: Self = Self {
        request: 256 << 10,
        depth: 0,
    };

    /// Returns whether reads take so long that several should be in flight at once.
    pub const fn is_far(self) -> bool {
        self.depth > 0
    }

    /// Combines the hints for two storages that are read together: those of the more remote one.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        if other.depth > self.depth {
            other
        } else {
            self
        }
    }

    /// How far a pass reads ahead.
    pub(crate) fn ahead(self) -> ReadAhead {
        ReadAhead {
            depth: usize::from(self.depth),
            bytes: FETCHED,
        }
    }
}

/// The environment of a long job: its threads, and the receiver of its progress, which may also stop it.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// The threads.
    pub workers: &'a Workers,
    /// Receives progress, and may stop the job.
    pub progress: &'a dyn Progress,
}

impl std::fmt::Debug for Work<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").finish_non_exhaustive()
    }
}

impl<'a> Work<'a> {
    /// Combines threads and progress.
    pub fn new(workers: &'a Workers, progress: &'a dyn Progress) -> Self {
        Self { workers, progress }
    }

    /// Fails with [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted) if the job should stop.
    pub fn check(self) -> Result<()> {
        self.progress.check()
    }

    /// Makes one pass over the `end` bytes of a disk, window by window or in longer steps: [`Workers::fetched`], with a
    /// check for cancellation before each item and a progress report after it. An item takes at most `each` bytes of
    /// memory.
    pub(crate) fn pass<T: Send, F: Send, R: Send>(
        self,
        end: u64,
        (ahead, each): (ReadAhead, u64),
        items: impl IntoIterator<Item = Result<(PageRange, T)>>,
        fetch: impl Fn(PageRange, T) -> Result<F> + Sync,
        work: impl Fn(PageRange, F) -> Result<R> + Sync,
        mut sink: impl FnMut(PageRange, R) -> Result<()>,
    ) -> Result<()> {
        let mut done = 0;
        let mut advance = |to: u64| {
            self.progress.advance(to.saturating_sub(done));
            done = done.max(to);
        };
        self.workers.fetched(
            items,
            (ahead, |_: &(PageRange, T)| each),
            |(range, item)| {
                self.check()?;
                Ok((range, fetch(range, item)?))
            },
            |(range, fetched)| Ok((range, work(range, fetched)?)),
            |(range, result)| {
                sink(range, result)?;
                advance(range.end());
                Ok(())
            },
        )?;
        advance(end);
        Ok(())
    }
}
