//! Folds the frames of one item into one.

use super::super::compare::WindowChange;
use super::super::coverage::joined;
use super::super::pack::{Compression, PackedFrame, pack};
use super::super::range_buffer::{RangeBuffer, put};
use super::super::sections::Frame;
use super::plan::{Item, Lane};
use crate::error::Result;
use crate::image::{Hash, WINDOW_SIZE};
use crate::page::{Change, ChangeKind, PAGE_SIZE, PageList, PageRange, is_zero};
use crate::parallel::{Buffer, Buffers, Bytes};

/// The result for a window or a run in one direction.
pub(super) enum Folded {
    /// Pages of one window.
    Pages(PackedFrame),
    /// A clear of whole windows, with the hash for the whole clear.
    Clear(PageRange, Option<Hash>),
}

/// Folds the items of a plan.
pub(super) struct Folder<'a> {
    /// The way forward and, in a reversible chain, the way back.
    pub(super) lanes: &'a [Lane<'a>],
    pub(super) buffers: &'a Buffers,
    pub(super) compression: Compression,
    /// Whether the base is known to be all zeros.
    pub(super) from_empty: bool,
}

/// The combined content that the diffs of one lane write into a window.
struct Content {
    bytes: Buffer,
    /// The ranges they write, in order, joined.
    known: Vec<PageRange>,
    /// The only frame of the first diff that changes the window. It records a hash of the base under its pages.
    first: Option<FirstFrame>,
}

struct FirstFrame {
    changes: PageList,
    base_hash: Option<Hash>,
    long: bool,
}

impl Folder<'_> {
    /// Folds an item, for each direction.
    pub(super) fn fold(&self, item: &Item) -> Result<[Option<Folded>; 2]> {
        if item.run {
            return Ok([self.fold_run(item, 0)?, self.fold_run(item, 1)?]);
        }
        if let Some(passed) = self.pass(item)? {
            return Ok(passed);
        }
        let contents: Vec<Content> = self
            .lanes
            .iter()
            .zip(&item.touched)
            .map(|(lane, touched)| self.content(lane, touched, item.range))
            .collect::<Result<_>>()?;
        let mut folded = [None, None];
        let ends = self.lanes.iter().zip(&contents);
        for ((n, (lane, own)), folded) in ends.enumerate().zip(&mut folded) {
            let other = contents.get(1 - n);
            *folded = self.fold_window(item.range, lane, own, other)?;
        }
        for content in contents {
            self.buffers.give(content.bytes);
        }
        Ok(folded)
    }

    /// Folds a run into one clear, unless it is known to have been zero before.
    fn fold_run(&self, item: &Item, n: usize) -> Result<Option<Folded>> {
        let range = item.range;
        let clears = |n: usize| {
            let (lane, touched) = (self.lanes.get(n)?, item.touched.get(n)?);
            let cleared = !touched.is_empty() || lane.cut.intersect(range).is_some();
            (cleared && range.end() <= lane.target_size()).then_some((lane, touched))
        };
        let Some((lane, touched)) = clears(n) else {
            return Ok(None);
        };
        if self.from_empty || range.start() >= lane.base_size() || clears(1 - n).is_some() {
            return Ok(None);
        }
        // The hash in the first of its diffs describes the base, unless an earlier diff truncated it.
        let first = touched.first().copied().filter(|first| {
            let before = lane.sizes.iter().take(first + 1);
            before.min().is_some_and(|size| *size >= range.end())
        });
        let first = first.and_then(|first| lane.chain.diffs().get(first));
        let Some(window) = range.windows(WINDOW_SIZE).next() else {
            return Ok(None);
        };
        let frames = first.map_or(Ok(Vec::new()), |diff| diff.frames_in(window))?;
        let hash = frames
            .first()
            .filter(|frame| frame.range() == range)
            .and_then(|frame| frame.base_hash().copied());
        Ok(Some(Folded::Clear(range, hash)))
    }

    /// Passes on unchanged a window that only one diff changes, with one frame in each direction.
    fn pass(&self, item: &Item) -> Result<Option<[Option<Folded>; 2]>> {
        let mut passed = [None, None];
        for ((lane, touched), passed) in self.lanes.iter().zip(&item.touched).zip(&mut passed) {
            if !lane.is_quiet(item.range) || touched.len() > 1 {
                return Ok(None);
            }
            let Some(diff) = touched.first().and_then(|n| lane.chain.diffs().get(*n)) else {
                continue;
            };
            let Ok([frame]) = <[Frame; 1]>::try_from(diff.frames_in(item.range)?) else {
                return Ok(None);
            };
            // The payload is passed on unchanged: its recipient must be able to unpack it.
            frame
                .check_payload()
                .map_err(|e| e.with_path(diff.name()))?;
            // If the way back knows the base's data, a clear may become part of a longer one.
            if frame.is_long_clear() && self.lanes.len() > 1 {
                return Ok(None);
            }
            // Of a base of zeros nothing needs to be cleared.
            if self.from_empty && frame.clears() {
                return Ok(None);
            }
            *passed = keep(frame, item.range, lane.target_size());
            if passed.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(passed))
    }

    /// Applies the diffs of a lane in order, oldest first.
    fn content(&self, lane: &Lane<'_>, touched: &[usize], window: PageRange) -> Result<Content> {
        let all = RangeBuffer::whole(window);
        let mut content = Content {
            bytes: self.buffers.take(all.len()),
            known: Vec::new(),
            first: None,
        };
        let mut next = touched.iter().copied().peekable();
        for (n, diff) in lane.chain.diffs().iter().enumerate() {
            if next.next_if_eq(&n).is_some() {
                let frames = diff.frames_in(window)?;
                if touched.first() == Some(&n) && lane.is_quiet(window) {
                    content.first = FirstFrame::of(&frames);
                }
                for frame in frames {
                    let ranges = frame.changes().iter().map(|change| change.range);
                    content
                        .known
                        .extend(ranges.filter_map(|range| range.intersect(window)));
                    put(frame, window, &all, &mut content.bytes)
                        .map_err(|e| e.with_path(diff.name()))?;
                }
            }
            let end = diff.header().target_size;
            let cut = PageRange::new(end.max(window.start()), window.end());
            if let Some(cut) = cut.filter(|cut| !cut.is_empty()) {
                all.clear(&mut content.bytes, cut);
                content.known.push(cut);
            }
        }
        content.known = joined(content.known);
        Ok(content)
    }

    /// Builds the frame for `lane`: `own` is what its diffs write into the window, `other` what those of the opposite
    /// direction write, which is the content of the base.
    fn fold_window(
        &self,
        window: PageRange,
        lane: &Lane<'_>,
        own: &Content,
        other: Option<&Content>,
    ) -> Result<Option<Folded>> {
        let Some(within) = window.intersect(target(lane)) else {
            return Ok(None);
        };
        let all = RangeBuffer::whole(window);
        let mut changes = PageList::new();
        let mut payload = Bytes::new();
        let mut hasher = Some(blake3::Hasher::new());
        let known = own.known.iter();
        let known = known.filter_map(|range| range.intersect(within));
        for page in known.flat_map(|range| range.windows(PAGE_SIZE)) {
            let after = all.piece(&own.bytes, page);
            let before = if self.from_empty || page.start() >= lane.base_size() {
                Some(&ZEROS[..])
            } else {
                let known = other.filter(|other| other.is_known(page));
                known.map(|other| all.piece(&other.bytes, page))
            };
            if before == Some(after) {
                continue;
            }
            let kind = if is_zero(after) {
                ChangeKind::Clear
            } else {
                payload.extend_from_slice(after);
                ChangeKind::Update
            };
            changes.push(Change { range: page, kind })?;
            match (&mut hasher, before) {
                (Some(hasher), Some(before)) => drop(hasher.update(before)),
                _ => hasher = None,
            }
        }
        if changes.is_empty() {
            return Ok(None);
        }
        let first = own
            .first
            .as_ref()
            .filter(|first| same_pages(&first.changes, &changes));
        let base_hash = match (&hasher, first) {
            (Some(hasher), _) => Some(*hasher.finalize().as_bytes()),
            (None, Some(first)) if first.long => {
                let range = changes.span().unwrap_or_default();
                if changes.len() == 1 && payload.is_empty() && is_whole(range, lane.target_size()) {
                    return Ok(Some(Folded::Clear(range, first.base_hash)));
                }
                None
            }
            (None, first) => first.and_then(|first| first.base_hash),
        };
        let change = WindowChange {
            window,
            changes,
            payload,
            base_hash: base_hash.unwrap_or_default(),
        };
        pack(change, self.compression).map(|frame| Some(Folded::Pages(frame)))
    }
}

static ZEROS: [u8; 512] = [0; 512];

impl Content {
    fn is_known(&self, page: PageRange) -> bool {
        let next = self
            .known
            .partition_point(|range| range.end() <= page.start());
        let range = self.known.get(next);
        range.is_some_and(|range| range.start() <= page.start())
    }
}

impl FirstFrame {
    /// Returns `None` unless there is exactly one frame.
    fn of(frames: &[Frame]) -> Option<Self> {
        match frames {
            [frame] => Some(Self {
                changes: frame.changes().clone(),
                base_hash: frame.base_hash().copied(),
                long: frame.is_long_clear(),
            }),
            _ => None,
        }
    }
}

/// Returns the frame unchanged, if it lies within the window and can be part of a diff with this target.
fn keep(frame: Frame, window: PageRange, target_size: u64) -> Option<Folded> {
    let range = frame.range();
    if range.intersect(window) != Some(range) {
        return None;
    }
    if !frame.is_long_clear() {
        return frame.into_packed().map(Folded::Pages);
    }
    let hash = frame.base_hash().copied();
    is_whole(range, target_size).then_some(Folded::Clear(range, hash))
}

/// Returns whether a clear can be stored as a long one.
fn is_whole(range: PageRange, target_size: u64) -> bool {
    range.start().is_multiple_of(WINDOW_SIZE)
        && (range.end().is_multiple_of(WINDOW_SIZE) || range.end() == target_size)
}

/// Returns whether two lists cover the same pages, regardless of the kind of change.
fn same_pages(a: &PageList, b: &PageList) -> bool {
    let pages = |list: &PageList| joined(list.iter().map(|change| change.range).collect());
    pages(a) == pages(b)
}

fn target(lane: &Lane<'_>) -> PageRange {
    PageRange::covering(0, lane.target_size())
}
