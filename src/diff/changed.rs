//! The pages in which the two ends of a chain of diffs may differ, according to the frame heads.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::coverage::Coverage;
use super::file::DiffFile;
use crate::error::Result;
use crate::image::{PageSet, WINDOW_SIZE, Windows};
use crate::page::PageRange;

/// The number of windows whose changed pages are cached. A pipeline processes at most two windows per thread.
const KEPT: usize = 64;

/// The pages in which the ends of a chain of diffs may differ: those that some diff changes, and everything beyond the
/// smallest size on the way. Determined from the frame heads. When both ends are [masked](crate::image::Masked) by
/// these pages, they still differ in the same pages.
#[derive(Debug)]
pub struct ChangedPages {
    diffs: Vec<Arc<DiffFile>>,
    /// The most recent windows: their first byte and changed pages.
    known: Mutex<VecDeque<(u64, Arc<[PageRange]>)>>,
}

impl ChangedPages {
    /// The pages that the consecutive `diffs` may change.
    pub fn new(diffs: Vec<Arc<DiffFile>>) -> Self {
        Self {
            diffs,
            known: Mutex::default(),
        }
    }

    /// The changed pages of the window that begins at `start`, in order, joined.
    fn in_window(&self, start: u64) -> Result<Arc<[PageRange]>> {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().iter().find(|(at, _)| *at == start).cloned();
        if let Some((_, pages)) = known {
            return Ok(pages);
        }
        let window = PageRange::covering(start, start.saturating_add(WINDOW_SIZE));
        let pages: Arc<[PageRange]> = Coverage::of(&self.diffs).pages(window)?.into();
        let mut known = lock();
        if known.len() >= KEPT {
            known.pop_front();
        }
        known.push_back((start, Arc::clone(&pages)));
        Ok(pages)
    }
}

impl PageSet for ChangedPages {
    fn pages(&self, within: PageRange) -> Box<dyn Iterator<Item = Result<PageRange>> + '_> {
        let start = within.start() - within.start() % WINDOW_SIZE;
        let all = PageRange::covering(start, within.end());
        let windows = Windows::within(all, Coverage::of(&self.diffs));
        Box::new(windows.flat_map(move |window| {
            let (pages, error) = match window.and_then(|(w, ())| self.in_window(w.start())) {
                Ok(pages) => (pages.to_vec(), None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            let pages = pages
                .into_iter()
                .filter_map(move |page| page.intersect(within));
            pages.map(Ok).chain(error)
        }))
    }
}
