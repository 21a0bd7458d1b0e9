//! What a long job runs with, and the shape of every pass over a disk.

use super::{ReadAhead, Workers};
use crate::error::Result;
use crate::page::PageRange;
use crate::progress::Progress;

/// Bytes that are fetched ahead of the work at most, in one pass.
const FETCHED: u64 = 256 << 20;

/// How reads of something stored are best asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoHints {
    /// Bytes worth asking for in one request.
    pub request: u32,
    /// Requests in flight that pay; 0 for what is near: it is read where it is worked on.
    pub depth: u16,
}

impl IoHints {
    /// A local file or device.
    pub const LOCAL: Self = Self {
        request: 256 << 10,
        depth: 0,
    };

    /// Whether reads take so long that several should be under way at once.
    pub const fn is_far(self) -> bool {
        self.depth > 0
    }

    /// The hints for two things that are read together: those of the one that is further away.
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

/// What a long job runs with: its threads, and who is told how far it is and asked whether to go on.
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
    /// A job on these threads.
    pub fn new(workers: &'a Workers, progress: &'a dyn Progress) -> Self {
        Self { workers, progress }
    }

    /// Fails with [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted) if the job should stop.
    pub fn check(self) -> Result<()> {
        self.progress.check()
    }

    /// Goes once over the `end` bytes of a disk, window by window or in longer steps: [`Workers::fetched`], which asks
    /// before each item whether to go on and tells after each how far it is. An item holds `each` bytes at most.
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
