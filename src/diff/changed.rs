//! What two ends of a chain of diffs can differ in, known from the heads of the frames.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::file::DiffFile;
use super::overlay::{next_changed, zeros};
use super::plan::{range, slice_mut};
use crate::error::Result;
use crate::image::{Extents, Image, WINDOW_SIZE, check_within, join_extents, whole};
use crate::page::{PAGE_SIZE, PageRange};

/// Windows whose changed pages are remembered. A pipeline has no more than two per thread under way.
const KEPT: usize = 64;

/// The pages in which the ends of a chain of diffs may differ: those that some diff changes, and all beyond the
/// smallest size on the way. Known from the heads of the frames.
#[derive(Debug)]
pub struct ChangedPages {
    diffs: Vec<Arc<DiffFile>>,
    /// Of the windows looked at last: their first byte, and the pages.
    known: Mutex<VecDeque<(u64, Arc<[PageRange]>)>>,
}

impl ChangedPages {
    /// The pages that `diffs`, which are consecutive, may change.
    pub fn new(diffs: Vec<Arc<DiffFile>>) -> Self {
        Self {
            diffs,
            known: Mutex::default(),
        }
    }

    /// From where on everything may differ.
    fn cut(&self) -> u64 {
        let headers = self.diffs.iter().map(|diff| diff.header());
        let resized = headers.filter(|header| header.base_size != header.target_size);
        resized
            .map(|header| header.base_size.min(header.target_size))
            .min()
            .unwrap_or(u64::MAX - u64::MAX % PAGE_SIZE)
    }

    /// The changed pages of the window that begins at `start`, in order, joined.
    fn in_window(&self, start: u64) -> Result<Arc<[PageRange]>> {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().iter().find(|(at, _)| *at == start).cloned();
        if let Some((_, pages)) = known {
            return Ok(pages);
        }
        let window = range(start, start.saturating_add(WINDOW_SIZE));
        let pages: Arc<[PageRange]> = self.look_at(window)?.into();
        let mut known = lock();
        if known.len() >= KEPT {
            known.pop_front();
        }
        known.push_back((start, Arc::clone(&pages)));
        Ok(pages)
    }

    fn look_at(&self, window: PageRange) -> Result<Vec<PageRange>> {
        let mut ranges = Vec::new();
        for diff in &self.diffs {
            for entry in diff.entries_in(window)? {
                let changes = diff.changes_of(&entry)?;
                ranges.extend(changes.iter().filter_map(|c| c.range.intersect(window)));
            }
        }
        let cut = range(self.cut().clamp(window.start(), window.end()), window.end());
        ranges.extend((!cut.is_empty()).then_some(cut));
        ranges.sort_unstable();
        let mut joined: Vec<PageRange> = Vec::with_capacity(ranges.len());
        for next in ranges {
            match joined.last_mut() {
                Some(last) if last.end() >= next.start() => {
                    *last = range(last.start(), last.end().max(next.end()));
                }
                _ => joined.push(next),
            }
        }
        Ok(joined)
    }

    /// The first bytes of the windows with changed pages from `at` on, a multiple of the window size, up to `end`.
    fn windows(&self, at: u64, end: u64) -> impl Iterator<Item = Result<u64>> + '_ {
        let (mut at, cut) = (at, self.cut());
        std::iter::from_fn(move || {
            let next = match next_changed(&self.diffs, at) {
                Ok(next) => next.unwrap_or(u64::MAX).min(cut.max(at)),
                Err(error) => {
                    at = u64::MAX;
                    return Some(Err(error));
                }
            };
            let start = next - next % WINDOW_SIZE;
            if start >= end {
                return None;
            }
            at = start.saturating_add(WINDOW_SIZE);
            Some(Ok(start))
        })
    }
}

/// An image of which only [some pages](ChangedPages) are seen; the others read as zeros and are never read from it.
/// Two ends of a chain of diffs, both seen so, differ in the same pages as without.
#[derive(Clone, Copy)]
pub struct OnlyChanged<'a> {
    image: &'a dyn Image,
    pages: &'a ChangedPages,
}

impl std::fmt::Debug for OnlyChanged<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnlyChanged").finish_non_exhaustive()
    }
}

impl<'a> OnlyChanged<'a> {
    /// The view of `image` on `pages`.
    pub fn new(image: &'a dyn Image, pages: &'a ChangedPages) -> Self {
        Self { image, pages }
    }
}

impl Image for OnlyChanged<'_> {
    fn virtual_size(&self) -> u64 {
        self.image.virtual_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_within(self.virtual_size(), offset, buf.len())?;
        buf.fill(0);
        let end = offset + buf.len() as u64;
        for window in self.pages.windows(
            offset - offset % WINDOW_SIZE,
            end.next_multiple_of(PAGE_SIZE),
        ) {
            for range in self.pages.in_window(window?)?.iter() {
                let (start, stop) = (range.start().max(offset), range.end().min(end));
                if start < stop {
                    let into = slice_mut(buf, start - offset, stop - offset);
                    self.image.read_exact_at(into, start)?;
                }
            }
        }
        Ok(())
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        let within = within.cut_to(whole(self));
        let first = within.start() - within.start() % WINDOW_SIZE;
        let mut at = within.start();
        let ranges = self.pages.windows(first, within.end()).flat_map(|window| {
            let ranges = window.and_then(|window| self.pages.in_window(window));
            let (ranges, error) = match ranges {
                Ok(ranges) => (ranges.to_vec(), None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            ranges.into_iter().map(Ok).chain(error)
        });
        let seen = ranges
            .map(Some)
            .chain([None].map(|end: Option<Result<PageRange>>| end));
        join_extents(seen.flat_map(move |next| {
            let next = match next {
                Some(Err(error)) => return Box::new(std::iter::once(Err(error))) as Extents<'_>,
                Some(Ok(next)) => next.intersect(within),
                None => PageRange::new(within.end(), within.end()),
            };
            let Some(next) = next else {
                return Box::new(std::iter::empty());
            };
            let gap = range(at.min(next.start()), next.start());
            at = next.end();
            Box::new(zeros(gap).chain(self.image.extents(next)))
        }))
    }
}
