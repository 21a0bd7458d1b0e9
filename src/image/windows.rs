//! The cursor over relevant windows, from which every pass over a disk takes its windows.

use std::iter::{Fuse, Peekable};

use super::{Extent, ExtentState, Extents, Image, ListedWindow, WINDOW_SIZE};
use crate::error::{Error, Result};
use crate::page::{PageRange, to_usize};

/// Knows which windows of a disk are relevant, and is queried in ascending order. A tuple of two sources is their
/// union.
pub(crate) trait Source {
    /// Information about one window.
    type Item;

    /// Returns the first relevant byte at or after `at`, or `None` if there is none. If that can't be determined,
    /// returns the place in question, and [`take`](Self::take) then fails, so that errors occur in the order of the
    /// disk.
    fn next(&mut self, at: u64) -> Option<u64>;

    /// Returns the information about `window`. Called for windows in ascending order.
    fn take(&mut self, window: PageRange) -> Result<Self::Item>;

    /// Returns how far the window may be extended, in whole windows, because nothing relevant follows up to there.
    fn stretched(&mut self, window: PageRange) -> Result<PageRange> {
        Ok(window)
    }
}

impl<A: Source, B: Source> Source for (A, B) {
    type Item = (A::Item, B::Item);

    fn next(&mut self, at: u64) -> Option<u64> {
        [self.0.next(at), self.1.next(at)]
            .into_iter()
            .flatten()
            .min()
    }

    fn take(&mut self, window: PageRange) -> Result<Self::Item> {
        Ok((self.0.take(window)?, self.1.take(window)?))
    }

    fn stretched(&mut self, window: PageRange) -> Result<PageRange> {
        Ok(self.0.stretched(window)?.hull(self.1.stretched(window)?))
    }
}

/// No window is relevant.
impl Source for () {
    type Item = ();

    fn next(&mut self, _: u64) -> Option<u64> {
        None
    }

    fn take(&mut self, _: PageRange) -> Result<()> {
        Ok(())
    }
}

/// The relevant aligned windows of a range, in order, each with its source's information. Each is whole, or ends at the
/// end of the range, which starts at a multiple of [`WINDOW_SIZE`].
pub(crate) struct Windows<S> {
    source: S,
    at: u64,
    end: u64,
}

impl<S: Source> Windows<S> {
    pub(crate) fn within(range: PageRange, source: S) -> Self {
        Self {
            source,
            at: range.start(),
            end: range.end(),
        }
    }

    fn step(&mut self, next: u64) -> Result<(PageRange, S::Item)> {
        let start = next - next % WINDOW_SIZE;
        let end = start.saturating_add(WINDOW_SIZE).min(self.end);
        let window = self.source.stretched(PageRange::covering(start, end))?;
        self.at = window.end();
        Ok((window, self.source.take(window)?))
    }
}

impl<S: Source> Iterator for Windows<S> {
    type Item = Result<(PageRange, S::Item)>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.source.next(self.at).filter(|next| *next < self.end)?;
        let step = self.step(next);
        if step.is_err() {
            self.at = self.end;
        }
        Some(step)
    }
}

/// The aligned windows of `within` in which any of `images` may hold data, in order. Each is whole, or ends at the end
/// of `within`, which starts at a multiple of [`WINDOW_SIZE`].
pub fn data_windows<const N: usize>(
    images: [&dyn Image; N],
    within: PageRange,
) -> impl Iterator<Item = Result<PageRange>> + '_ {
    Windows::within(within, DataOf::of(images, within)).map(|item| Ok(item?.0))
}

/// Where several images may hold data. Each is queried once for its extents.
pub(crate) struct DataOf<'a, const N: usize>([DataRuns<'a>; N]);

impl<'a, const N: usize> DataOf<'a, N> {
    pub(crate) fn of(images: [&'a dyn Image; N], within: PageRange) -> Self {
        Self(images.map(|image| DataRuns {
            extents: image.extents(within).fuse(),
            current: PageRange::default(),
            failed: None,
            known_to: within.start(),
        }))
    }
}

impl<const N: usize> Source for DataOf<'_, N> {
    /// For each image, the parts of the window that may hold data.
    type Item = [Vec<PageRange>; N];

    fn next(&mut self, at: u64) -> Option<u64> {
        self.0.iter_mut().filter_map(|runs| runs.next(at)).min()
    }

    fn take(&mut self, window: PageRange) -> Result<Self::Item> {
        let mut parts = [const { Vec::new() }; N];
        for (runs, parts) in self.0.iter_mut().zip(&mut parts) {
            *parts = runs.take(window)?;
        }
        Ok(parts)
    }
}

struct DataRuns<'a> {
    extents: Fuse<Extents<'a>>,
    /// The latest data extent.
    current: PageRange,
    failed: Option<Error>,
    /// The end of the latest extent.
    known_to: u64,
}

impl DataRuns<'_> {
    fn next(&mut self, at: u64) -> Option<u64> {
        loop {
            if self.current.end() > at {
                return Some(self.current.start().max(at));
            }
            if self.failed.is_some() {
                return Some(self.known_to.max(at));
            }
            match self.extents.next()? {
                Ok(Extent { range, state }) => {
                    self.known_to = range.end();
                    if state == ExtentState::Data && !range.is_empty() {
                        self.current = range;
                    }
                }
                Err(error) => self.failed = Some(error),
            }
        }
    }

    fn take(&mut self, window: PageRange) -> Result<Vec<PageRange>> {
        let mut parts = Vec::new();
        let mut at = window.start();
        while let Some(start) = self.next(at).filter(|start| *start < window.end()) {
            if self.current.end() <= start
                && let Some(error) = self.failed.take()
            {
                return Err(error);
            }
            let part = self.current.cut_to(window);
            at = part.end();
            parts.push(part);
        }
        Ok(parts)
    }
}

/// The windows of a list of window hashes.
pub(crate) struct Listed<I: Iterator>(Peekable<I>);

impl<I: Iterator<Item = Result<ListedWindow>>> Listed<I> {
    pub(crate) fn new(windows: I) -> Self {
        Self(windows.peekable())
    }
}

impl<I: Iterator<Item = Result<ListedWindow>>> Source for Listed<I> {
    /// `None` for a window that isn't in the list: all of it is zero.
    type Item = Option<ListedWindow>;

    fn next(&mut self, at: u64) -> Option<u64> {
        match self.0.peek()? {
            Ok(window) => Some(window.start.max(at)),
            Err(_) => Some(at),
        }
    }

    fn take(&mut self, window: PageRange) -> Result<Self::Item> {
        self.0
            .next_if(|next| !matches!(next, Ok(next) if next.start != window.start()))
            .transpose()
    }
}

/// Every window is relevant.
pub(crate) struct Every;

impl Source for Every {
    type Item = ();

    fn next(&mut self, at: u64) -> Option<u64> {
        Some(at)
    }

    fn take(&mut self, _: PageRange) -> Result<()> {
        Ok(())
    }
}

/// Returns the intersection of `within` and `parts`, which are in order.
pub(crate) fn parts_in(parts: &[PageRange], within: PageRange) -> impl Iterator<Item = PageRange> {
    let first = parts.partition_point(|part| part.end() <= within.start());
    let parts = parts.iter().skip(first);
    parts.map_while(move |part| part.intersect(within))
}

/// Returns the index of the piece that contains `at`, in a window that begins at `start` and is divided into pieces of
/// `size` bytes.
pub(super) fn piece_at(start: u64, at: u64, size: u64) -> usize {
    to_usize((at - start) / size)
}
