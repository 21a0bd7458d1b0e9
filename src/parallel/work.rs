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
    /// Bytes of memory that stay occupied for each window that is being read: data that was unpacked for later reads.
    pub window_memory: u32,
    /// Bytes of memory that stay occupied, however many windows are being read.
    pub memory: u32,
    /// The most windows to read at a time: with more, what was unpacked for one is lost before it is read to its end.
    pub windows: u16,
}

impl IoHints {
    /// A local file or device.
    pub const LOCAL: Self = Self {
        request: 256 << 10,
        depth: 0,
        window_memory: 0,
        memory: 0,
        windows: u16::MAX,
    };

    /// Returns whether reads take so long that several should be in flight at once.
    pub const fn is_far(self) -> bool {
        self.depth > 0
    }

    /// Combines the hints for two storages that are read together: requests as for the more remote one, the memory of
    /// both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        let farther = if other.depth > self.depth {
            other
        } else {
            self
        };
        let windows = if other.windows < self.windows {
            other.windows
        } else {
            self.windows
        };
        Self {
            windows,
            window_memory: self.window_memory.saturating_add(other.window_memory),
            memory: self.memory.saturating_add(other.memory),
            ..farther
        }
    }

    /// How far a pass that uses `workers` reads ahead, and how much memory its items may occupy.
    pub(crate) fn ahead(self, workers: &Workers) -> ReadAhead {
        let bytes = if self.is_far() {
            FETCHED
        } else {
            workers.room().saturating_sub(u64::from(self.memory))
        };
        ReadAhead {
            depth: usize::from(self.depth),
            bytes,
            items: usize::from(self.windows).max(1),
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
    /// check for cancellation before each item and a progress report after it. `cost` returns the bytes of memory that
    /// an item occupies at most.
    pub(crate) fn pass<T: Send, F: Send, R: Send>(
        self,
        end: u64,
        (ahead, cost): (ReadAhead, impl Fn(&T) -> u64),
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
            (ahead, |(_, item): &(PageRange, T)| cost(item)),
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
