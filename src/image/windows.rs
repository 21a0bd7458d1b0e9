//! What to look at: the windows of one or several images that may hold data.

use super::known::WORTH_SKIPPING;
use super::{CHUNK_SIZE, Extent, ExtentState, Extents, Image, WINDOW_SIZE};
use crate::error::Result;
use crate::page::PageRange;

/// The aligned windows of `within` in which any of `images` may hold data, in order. Each is whole, or ends at
/// the end of `within`, which starts at a multiple of [`WINDOW_SIZE`].
pub fn data_windows<const N: usize>(
    images: [&dyn Image; N],
    within: PageRange,
) -> impl Iterator<Item = Result<PageRange>> + '_ {
    let mut data = images.map(|image| DataRuns {
        extents: image.extents(within),
        current: None,
    });
    let mut at = within.start();
    std::iter::from_fn(move || {
        let mut next = u64::MAX;
        for runs in &mut data {
            match runs.first_after(at) {
                Ok(Some(start)) => next = next.min(start),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        if next >= within.end() {
            return None;
        }
        let start = next - next % WINDOW_SIZE;
        at = start.saturating_add(WINDOW_SIZE).min(within.end());
        PageRange::new(start, at).map(Ok)
    })
}

struct DataRuns<'a> {
    extents: Extents<'a>,
    current: Option<Extent>,
}

impl DataRuns<'_> {
    /// The first byte at or after `at` that may be data.
    fn first_after(&mut self, at: u64) -> Result<Option<u64>> {
        loop {
            match self.current {
                Some(extent) if extent.state == ExtentState::Data && extent.range.end() > at => {
                    return Ok(Some(extent.range.start().max(at)));
                }
                _ => match self.extents.next() {
                    Some(extent) => self.current = Some(extent?),
                    None => return Ok(None),
                },
            }
        }
    }
}

/// Where in a window any of several images may hold data.
pub(crate) struct WindowData<const N: usize> {
    window: PageRange,
    /// A bit for each chunk, for every image.
    masks: [u64; N],
    runs: Vec<PageRange>,
}

impl<const N: usize> WindowData<N> {
    pub(crate) fn of(images: [&dyn Image; N], window: PageRange) -> Result<Self> {
        let size = CHUNK_SIZE as u64;
        let mut masks = [0_u64; N];
        let mut runs = Vec::new();
        for (mask, image) in masks.iter_mut().zip(images) {
            for extent in image.extents(window) {
                let Extent { range, state } = extent?;
                if state == ExtentState::Data && !range.is_empty() {
                    let first = (range.start() - window.start()) / size;
                    let last = (range.end() - 1 - window.start()) / size;
                    (first..=last.min(63)).for_each(|chunk| *mask |= 1 << chunk);
                    runs.push(range);
                }
            }
        }
        Ok(Self {
            window,
            masks,
            runs: joined(runs),
        })
    }

    /// The chunks in order, each with the answer for every image whether it may hold data there.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (PageRange, [bool; N])> + use<N> {
        let masks = self.masks;
        let pieces = self.window.windows(CHUNK_SIZE as u64).enumerate();
        pieces.map(move |(n, chunk)| (chunk, masks.map(|mask| mask >> n & 1 == 1)))
    }

    /// The parts of a chunk that are worth reading: outside of them no image holds data.
    pub(crate) fn within(&self, chunk: PageRange) -> impl Iterator<Item = PageRange> + '_ {
        let first = self.runs.partition_point(|run| run.end() <= chunk.start());
        let runs = self.runs.iter().skip(first);
        runs.map_while(move |run| run.intersect(chunk))
    }
}

/// The ranges in order, as one where they overlap or lie so near that one read is cheaper than two.
fn joined(mut ranges: Vec<PageRange>) -> Vec<PageRange> {
    ranges.sort_unstable();
    let mut out: Vec<PageRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start() < last.end().saturating_add(WORTH_SKIPPING) => {
                *last = last.hull(range);
            }
            _ => out.push(range),
        }
    }
    out
}

/// The chunks of a window in order, each with the answer for every image whether it may hold data there.
pub(crate) fn chunks<const N: usize>(
    images: [&dyn Image; N],
    window: PageRange,
) -> Result<impl Iterator<Item = (PageRange, [bool; N])>> {
    Ok(WindowData::of(images, window)?.chunks())
}

// A window's chunks must fit into the 64 bits of a mask.
const _: () = assert!(WINDOW_SIZE / CHUNK_SIZE as u64 <= 64);
