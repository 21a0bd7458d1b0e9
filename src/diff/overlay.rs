//! A base with diffs over it, as an image: each page comes from the newest diff that says something of it.
//!
//! Where the pages of a window come from is found out from the heads of the frames, newest diff first, until nothing
//! is left to ask for; then only the payloads that are seen are read, each once, and the base only where no diff lies
//! over it. So reading the result of two hundred diffs costs what reading that of one does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::file::DiffFile;
use super::format::{Entry, damaged};
use crate::error::{Error, Result};
use crate::image::{
    ContentDigest, Extent, ExtentState, Extents, Image, WINDOW_SIZE, check_within, join_extents,
    whole,
};
use crate::page::{ChangeKind, PAGE_SIZE, PageRange};

/// Windows whose plan is kept. A pipeline has no more than two per thread under way; the data of a window is dropped
/// when its end was read.
const KEPT: usize = 64;

/// What a base becomes under consecutive diffs.
pub struct Overlay<B> {
    base: B,
    diffs: Vec<Arc<DiffFile>>,
    plans: Mutex<VecDeque<Arc<Plan>>>,
}

impl<B> std::fmt::Debug for Overlay<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay")
            .field("diffs", &self.diffs)
            .finish_non_exhaustive()
    }
}

impl<B: Image> Overlay<B> {
    /// Lays `diffs` over `base`, in order. Each must be for what the one before it makes, by size and, where they are
    /// known, by content digest; `base_digest` is that of the base.
    pub fn new(
        base: B,
        base_digest: Option<ContentDigest>,
        diffs: Vec<Arc<DiffFile>>,
    ) -> Result<Self> {
        let mut state = (base.virtual_size(), base_digest);
        for diff in &diffs {
            let found = (diff.header().base_size, diff.trailer().base_digest);
            let same = !matches!((state.1, found.1), (Some(a), Some(b)) if a != b);
            if state.0 != found.0 || !same {
                return Err(
                    Error::mismatch("this diff doesn't follow what lies under it")
                        .path(diff.name())
                        .found(point(found))
                        .expected(point(state)),
                );
            }
            state = (diff.header().target_size, diff.trailer().target_digest);
        }
        Ok(Self {
            base,
            diffs,
            plans: Mutex::default(),
        })
    }

    /// The base.
    pub fn base(&self) -> &B {
        &self.base
    }

    /// The diffs in order.
    pub fn diffs(&self) -> &[Arc<DiffFile>] {
        &self.diffs
    }

    /// The plan of the window that begins at `start`.
    fn plan(&self, start: u64) -> Result<Arc<Plan>> {
        let find = |plans: &VecDeque<Arc<Plan>>| {
            plans
                .iter()
                .rev()
                .find(|plan| plan.window.start() == start)
                .cloned()
        };
        let lock = || self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = find(&lock()) {
            return Ok(plan);
        }
        let end = start.saturating_add(WINDOW_SIZE).min(self.virtual_size());
        let window = PageRange::new(start, end).unwrap_or_default();
        let new = Arc::new(Plan::of(window, &self.diffs)?);
        let mut plans = lock();
        // Another thread may have been faster; whoever has the data keeps it.
        if let Some(plan) = find(&plans) {
            return Ok(plan);
        }
        while plans.len() >= KEPT {
            plans.pop_front();
        }
        plans.push_back(Arc::clone(&new));
        Ok(new)
    }

    /// The first window at or after `at`, which begins one, in which some diff has a say; `None` if there is none.
    fn next_changed(&self, at: u64) -> Result<Option<u64>> {
        next_changed(&self.diffs, at)
    }

    /// The end of the run of whole windows from `at` on that are zero by one long clear, `at` if that isn't so. A diff
    /// of a hundred bytes can clear a pebibyte: that is one step.
    fn cleared_until(&self, at: u64) -> Result<u64> {
        let mut end = self.virtual_size();
        for diff in self.diffs.iter().rev() {
            let first = diff.first_change_from(at)?.unwrap_or(u64::MAX);
            if first > at {
                end = end.min(first - first % WINDOW_SIZE);
                // What lies behind a cut was zero when the diff grew the disk again.
                if diff.header().base_size <= at {
                    return Ok(end.max(at));
                }
                end = end.min(diff.header().base_size - diff.header().base_size % WINDOW_SIZE);
                if end <= at {
                    return Ok(at);
                }
                continue;
            }
            let page = PageRange::from_len(at, PAGE_SIZE)?;
            let entries = diff.entries_in(page)?;
            let long = entries
                .first()
                .map(|entry| entry.range)
                .filter(|range| range.len() > WINDOW_SIZE);
            // Only a long clear is longer than a window.
            let until = long.map_or(at, PageRange::end);
            let whole = if until >= self.virtual_size() {
                until
            } else {
                until - until % WINDOW_SIZE
            };
            return Ok(end.min(whole).max(at));
        }
        Ok(at)
    }
}

fn point((size, digest): (u64, Option<ContentDigest>)) -> String {
    match digest {
        Some(digest) => format!("content {digest} of {size} bytes"),
        None => format!("a disk of {size} bytes"),
    }
}

fn next_changed(diffs: &[Arc<DiffFile>], at: u64) -> Result<Option<u64>> {
    let mut next = u64::MAX;
    for diff in diffs {
        next = next.min(diff.first_change_from(at)?.unwrap_or(u64::MAX));
        // Behind a cut everything is zero, whatever the base holds.
        let end = diff.header().base_size.min(diff.header().target_size);
        if diff.header().base_size != diff.header().target_size {
            next = next.min(end.max(at));
        }
        if next <= at {
            break;
        }
    }
    Ok((next != u64::MAX).then(|| next - next % WINDOW_SIZE))
}

impl<B: Image> Image for Overlay<B> {
    fn virtual_size(&self) -> u64 {
        self.diffs
            .last()
            .map_or_else(|| self.base.virtual_size(), |d| d.header().target_size)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_within(self.virtual_size(), offset, buf.len())?;
        if self.diffs.is_empty() {
            return self.base.read_exact_at(buf, offset);
        }
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let start = at - at % WINDOW_SIZE;
            let room = usize::try_from(start.saturating_add(WINDOW_SIZE) - at);
            let len = room.unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            self.plan(start)?.read(now, at, &self.base, &self.diffs)?;
            (at, rest) = (at + len as u64, later);
        }
        Ok(())
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        let within = within.intersect(whole(self)).unwrap_or_default();
        let mut at = within.start();
        join_extents(
            std::iter::from_fn(move || {
                if at >= within.end() {
                    return None;
                }
                let step = self.step(at, within.end());
                let (end, extents) = match step {
                    Ok((end, extents)) => (end.max(at + PAGE_SIZE), extents),
                    Err(error) => (
                        within.end(),
                        Box::new(std::iter::once(Err(error))) as Extents<'_>,
                    ),
                };
                at = end;
                Some(extents)
            })
            .flatten(),
        )
    }
}

impl<B: Image> Overlay<B> {
    /// The extents from `at` to somewhere, `end` at most, and where that is.
    fn step(&self, at: u64, end: u64) -> Result<(u64, Extents<'_>)> {
        let start = at - at % WINDOW_SIZE;
        let changed = self.next_changed(start)?.unwrap_or(u64::MAX);
        if changed > start {
            let end = changed.min(end);
            return Ok((end, base_extents(&self.base, range(at, end))));
        }
        let cleared = self.cleared_until(start)?.min(end);
        if cleared > at {
            return Ok((cleared, zeros(range(at, cleared))));
        }
        let end = start.saturating_add(WINDOW_SIZE).min(end);
        let (plan, within) = (self.plan(start)?, range(at, end));
        let pieces: Vec<Piece> = plan.pieces_in(within).collect();
        let extents = pieces.into_iter().flat_map(move |piece| match piece.from {
            Origin::Base => base_extents(&self.base, piece.range),
            Origin::Zero => zeros(piece.range),
            Origin::Diff { .. } => Box::new(std::iter::once(Ok(Extent {
                range: piece.range,
                state: ExtentState::Data,
            }))),
        });
        Ok((end, Box::new(extents)))
    }
}

fn range(start: u64, end: u64) -> PageRange {
    PageRange::new(start, end).unwrap_or_default()
}

fn zeros<'a>(range: PageRange) -> Extents<'a> {
    let state = ExtentState::Zero;
    Box::new(std::iter::once(Ok(Extent { range, state })))
}

/// The extents of a base, which may end before the range does.
fn base_extents(base: &dyn Image, within: PageRange) -> Extents<'_> {
    let end = base.virtual_size().clamp(within.start(), within.end());
    let inside = base.extents(range(within.start(), end));
    Box::new(inside.chain(zeros(range(end, within.end()))))
}

/// Where the bytes of a piece of a window come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Base,
    Zero,
    /// From one of the plan's frames.
    Diff {
        frame: usize,
    },
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    range: PageRange,
    from: Origin,
}

/// Where the bytes of one window come from.
#[derive(Debug)]
struct Plan {
    window: PageRange,
    /// In order, without gaps.
    pieces: Vec<Piece>,
    /// The frames that are seen: the diff's place in the list, and the frame's in the diff.
    frames: Vec<(usize, Entry)>,
    /// The bytes of all pieces from frames, in the order of the pieces, once they were read.
    data: Mutex<Option<Arc<Vec<u8>>>>,
}

impl Plan {
    fn of(window: PageRange, diffs: &[Arc<DiffFile>]) -> Result<Self> {
        let mut open = vec![window];
        let (mut pieces, mut frames) = (Vec::new(), Vec::new());
        for (n, diff) in diffs.iter().enumerate().rev() {
            if open.is_empty() {
                break;
            }
            for entry in diff.entries_in(window)? {
                if !open.iter().any(|r| r.intersect(entry.range).is_some()) {
                    continue;
                }
                let frame = frames.len();
                let mut seen = false;
                let changes = diff.changes_of(&entry)?;
                let changed = changes.iter().map(|change| (change.range, change.kind));
                open = take(&open, changed, |range, kind| {
                    let from = match kind {
                        ChangeKind::Clear => Origin::Zero,
                        ChangeKind::Update => {
                            seen = true;
                            Origin::Diff { frame }
                        }
                    };
                    pieces.push(Piece { range, from });
                });
                if seen {
                    frames.push((n, entry));
                }
            }
            // Where the base of this diff had ended, there were zeros, whatever lies further down.
            let cut = range(diff.header().base_size.min(window.end()), window.end());
            open = take(&open, [(cut, ())].into_iter(), |range, ()| {
                pieces.push(Piece {
                    range,
                    from: Origin::Zero,
                });
            });
        }
        pieces.extend(open.into_iter().map(|range| Piece {
            range,
            from: Origin::Base,
        }));
        pieces.sort_unstable_by_key(|piece| piece.range.start());
        Ok(Self {
            window,
            pieces,
            frames,
            data: Mutex::default(),
        })
    }

    /// The pieces that lie in `within`, cut at its ends.
    fn pieces_in(&self, within: PageRange) -> impl Iterator<Item = Piece> + '_ {
        let first = self
            .pieces
            .partition_point(|piece| piece.range.end() <= within.start());
        self.pieces.iter().skip(first).map_while(move |piece| {
            piece.range.intersect(within).map(|range| Piece {
                range,
                from: piece.from,
            })
        })
    }

    fn read(
        &self,
        buf: &mut [u8],
        offset: u64,
        base: &dyn Image,
        diffs: &[Arc<DiffFile>],
    ) -> Result<()> {
        let end = offset + buf.len() as u64;
        let mut data = None;
        let mut at_data = 0;
        for piece in &self.pieces {
            let (start, stop) = (piece.range.start().max(offset), piece.range.end().min(end));
            let from_frame = matches!(piece.from, Origin::Diff { .. });
            if start < stop {
                let into = slice_mut(buf, start - offset, stop - offset);
                match piece.from {
                    Origin::Zero => into.fill(0),
                    Origin::Base => read_base(base, into, start)?,
                    Origin::Diff { .. } => {
                        let data = match &data {
                            Some(data) => data,
                            None => data.insert(self.data(diffs)?),
                        };
                        let from = at_data + (start - piece.range.start());
                        into.copy_from_slice(slice(data, from, from + (stop - start)));
                    }
                }
            }
            if from_frame {
                at_data += piece.range.len();
            }
        }
        let last = self.pieces.iter().rev();
        let last = last.filter(|piece| matches!(piece.from, Origin::Diff { .. }));
        if last
            .map(|piece| piece.range.end())
            .next()
            .is_some_and(|last| end >= last)
        {
            // Whoever reads front to back is done with this window.
            *self.data.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Ok(())
    }

    /// The bytes of all pieces from frames; read and unpacked if they aren't at hand.
    fn data(&self, diffs: &[Arc<DiffFile>]) -> Result<Arc<Vec<u8>>> {
        // Held while reading: two threads in one window shall not both do it.
        let mut held = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(data) = &*held {
            return Ok(Arc::clone(data));
        }
        let places = self.pieces.iter().scan(0, |at, piece| {
            let place = *at;
            if matches!(piece.from, Origin::Diff { .. }) {
                *at += piece.range.len();
            }
            Some((place, piece))
        });
        let places: Vec<(u64, &Piece)> = places.collect();
        let len = places.last().map_or(0, |(at, piece)| match piece.from {
            Origin::Diff { .. } => at + piece.range.len(),
            _ => *at,
        });
        let mut data = vec![0; usize::try_from(len).unwrap_or(0)];
        for (n, (diff, entry)) in self.frames.iter().enumerate() {
            let Some(diff) = diffs.get(*diff) else {
                continue;
            };
            let mine = places
                .iter()
                .filter(|(_, piece)| piece.from == Origin::Diff { frame: n });
            unpack(diff, entry, mine.copied(), &mut data)
                .map_err(|e| e.path(diff.name()).offset(entry.offset))?;
        }
        Ok(Arc::clone(held.insert(Arc::new(data))))
    }
}

/// Reads a frame and puts its bytes of `pieces`, which come in order, to their places.
fn unpack<'a>(
    diff: &DiffFile,
    entry: &Entry,
    pieces: impl Iterator<Item = (u64, &'a Piece)>,
    data: &mut [u8],
) -> Result<()> {
    let frame = diff.frame(entry)?;
    let changes = frame.changes().clone();
    let payload = frame.unpack()?;
    let mut updates = changes
        .iter()
        .filter(|change| change.kind == ChangeKind::Update)
        .scan(0, |at, change| {
            let place = *at;
            *at += change.range.len();
            Some((place, change.range))
        })
        .peekable();
    for (place, piece) in pieces {
        while updates
            .next_if(|(_, update)| update.end() <= piece.range.start())
            .is_some()
        {}
        let short = || damaged("the diff was changed while it was used");
        let (at, update) = updates.peek().ok_or_else(short)?;
        let from = at + piece.range.start().saturating_sub(update.start());
        let bytes = slice(&payload, from, from + piece.range.len());
        let into = slice_mut(data, place, place + piece.range.len());
        if bytes.len() != into.len() {
            return Err(short());
        }
        into.copy_from_slice(bytes);
    }
    Ok(())
}

/// Takes `ranges`, in order, out of the ordered ranges `open`: what is in both goes to `taken`, what stays open is
/// returned.
fn take<K: Copy>(
    open: &[PageRange],
    ranges: impl Iterator<Item = (PageRange, K)>,
    mut taken: impl FnMut(PageRange, K),
) -> Vec<PageRange> {
    let mut left = Vec::with_capacity(open.len() + 1);
    let mut open = open.iter().copied();
    let mut current = open.next();
    for (hit, kind) in ranges.filter(|(range, _)| !range.is_empty()) {
        while let Some(here) = current {
            if here.end() <= hit.start() {
                left.push(here);
                current = open.next();
                continue;
            }
            let Some(both) = here.intersect(hit) else {
                break;
            };
            if here.start() < both.start() {
                left.push(range(here.start(), both.start()));
            }
            taken(both, kind);
            if both.end() < here.end() {
                current = Some(range(both.end(), here.end()));
                break;
            }
            current = open.next();
        }
    }
    left.extend(current);
    left.extend(open);
    left
}

/// Reads a base that may end before the bytes do.
fn read_base(base: &dyn Image, into: &mut [u8], at: u64) -> Result<()> {
    let inside = base.virtual_size().saturating_sub(at);
    let inside = usize::try_from(inside)
        .unwrap_or(usize::MAX)
        .min(into.len());
    let (read, beyond) = into.split_at_mut(inside);
    beyond.fill(0);
    if read.is_empty() {
        return Ok(());
    }
    base.read_exact_at(read, at)
}

fn slice(bytes: &[u8], start: u64, end: u64) -> &[u8] {
    let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    bytes.get(at(start)..at(end)).unwrap_or_default()
}

fn slice_mut(bytes: &mut [u8], start: u64, end: u64) -> &mut [u8] {
    let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    bytes.get_mut(at(start)..at(end)).unwrap_or_default()
}

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
        let within = within.intersect(whole(self)).unwrap_or_default();
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
