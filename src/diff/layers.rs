//! A base with a chain of diffs over it, window by window: every page is read once and unpacked once, however
//! many diffs there are.

use std::sync::atomic::{AtomicBool, Ordering};

use super::base_check::{BaseCheck, FrameCheck, Judge, Touched, zero_checks};
use super::chain::Chain;
use super::compare::{ChangeCollector, WindowChange};
use super::sections::Frame;
use crate::error::Result;
use crate::image::{
    ContentDigest, ContentHasher, ExtentState, Image, ImageMut, WINDOW_SIZE, Window, data_windows,
    whole,
};
use crate::page::{Change, ChangeKind, PageRange};
use crate::parallel::{Buffers, Workers};
use crate::progress::Progress;

/// Pieces of the base closer together than this are read in one go.
const READ_GAP: u64 = 64 << 10;

/// A base image and the diffs that lie over it.
#[derive(Clone, Copy)]
pub struct Layers<'a> {
    base: &'a dyn Image,
    chain: &'a Chain,
    workers: &'a Workers,
    progress: &'a dyn Progress,
    check: bool,
}

impl std::fmt::Debug for Layers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layers")
            .field("chain", self.chain)
            .finish_non_exhaustive()
    }
}

/// What [`Layers::rebuild`] saw on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Content digest of the base, if it was wanted.
    pub base_digest: Option<ContentDigest>,
    /// Content digest of what was written.
    pub target_digest: ContentDigest,
}

impl<'a> Layers<'a> {
    /// Lays `chain` over `base`, whose virtual size is that of the chain's base or, when an interrupted apply is
    /// finished, any other.
    pub fn new(
        base: &'a dyn Image,
        chain: &'a Chain,
        workers: &'a Workers,
        progress: &'a dyn Progress,
    ) -> Self {
        Self {
            base,
            chain,
            workers,
            progress,
            check: false,
        }
    }

    /// Whether [`Layers::changes`] and [`Layers::inverse`] also compare what the base holds under the changed pages
    /// with what the diffs were made for. The caller looks at the outcome, and takes back what it did if that is wrong.
    #[must_use]
    pub fn checking(self, check: bool) -> Self {
        Self { check, ..self }
    }

    /// Writes the result into `to`, which is new, reads as zeros and has the chain's target size. `check` says
    /// how the base is checked on the way; the caller compares the digests that are returned, and publishes
    /// nothing before that.
    pub fn rebuild(&self, to: &mut dyn ImageMut, check: BaseCheck) -> Result<(Rebuilt, Touched)> {
        let all = self.extent();
        let full = check == BaseCheck::Full;
        let size = self.chain.target_size();
        let same_size = self.base.virtual_size() == size;
        let buffers = Buffers::new();
        let mut base_digest = ContentHasher::new(self.base.virtual_size());
        let mut target_digest = ContentHasher::new(size);
        let mut judge = Judge::default();
        judge.already_applied = !full;
        let mut done = 0;
        let windows = merge(
            data_windows([self.base], all),
            self.changed_windows(all.end()),
        );
        self.workers.ordered(
            windows,
            |range: PageRange| {
                self.progress.check()?;
                let frames = self.frames(range)?;
                let ranges = self.touched(range, &frames);
                let mut window = Window::read(self.base, range, &buffers)?;
                let before = full.then(|| window.hashes(self.base.virtual_size()));
                let zero = self.stays_zero(range, &frames)?;
                for range in ranges.iter().filter(|_| !zero) {
                    window.fill(*range);
                }
                let (already, checks) = if zero {
                    let checks = if full {
                        Vec::new()
                    } else {
                        zero_checks(range, &frames)
                    };
                    (!full, checks)
                } else {
                    let untouched = (!full).then(|| window.bytes_mut().to_vec());
                    let checks = self.lay_over(range, frames, window.bytes_mut(), !full)?;
                    let already = untouched.is_some_and(|before| {
                        let (start, after) = (range.start(), window.bytes_mut());
                        let same =
                            |r: &PageRange| piece(&before, start, *r) == piece(after, start, *r);
                        ranges.iter().all(same)
                    });
                    (already, checks)
                };
                let after = match &before {
                    Some(before) if same_size => window.hashes_again(size, before, &ranges),
                    _ => window.hashes(size),
                };
                let runs = window.nonzero(size);
                Ok((window, runs, before, after, (already, checks)))
            },
            |(window, runs, before, after, (already, checks))| {
                let range = window.range();
                judge.already_applied &= already;
                judge.take(range, checks);
                if let Some(before) = before {
                    base_digest.push(range.start(), &before);
                }
                target_digest.push(range.start(), &after);
                window.write(&runs, to)?;
                buffers.give(window.into_bytes());
                self.progress.advance(range.end() - done);
                done = range.end();
                Ok(())
            },
        )?;
        self.progress.advance(all.end() - done);
        let base_digest = full.then(|| base_digest.finish());
        Ok((
            Rebuilt {
                base_digest,
                target_digest: target_digest.finish(),
            },
            judge.finish(),
        ))
    }

    /// Reads what the base holds under the changed pages and compares it with what the diffs were made for.
    pub fn check_touched(&self) -> Result<Touched> {
        let mut judge = Judge::default();
        judge.already_applied = true;
        self.each_changed(
            true,
            |_, before, after, ranges| {
                Ok(ranges
                    .iter()
                    .all(|r| piece(before.1, before.0, *r) == piece(after, before.0, *r)))
            },
            |window, same, checks| {
                judge.already_applied &= same;
                judge.take(window, checks);
                Ok(())
            },
        )?;
        Ok(judge.finish())
    }

    /// Hands every page that the diffs really change to `sink`, as changes from the base to the result: pages
    /// that already hold the right bytes are left out. Only if it is [`checking`](Self::checking) what is returned says
    /// anything.
    pub fn changes<T: Send>(
        &self,
        pack: impl Fn(WindowChange) -> Result<T> + Sync,
        mut sink: impl FnMut(T) -> Result<()>,
    ) -> Result<Touched> {
        let size = self.chain.target_size();
        let mut judge = Judge::default();
        self.each_changed(
            self.check,
            |window, before, after, ranges| collect(window, size, before.1, after, ranges, &pack),
            |window, packed, checks| {
                judge.take(window, checks);
                packed.map_or(Ok(()), &mut sink)
            },
        )?;
        Ok(judge.finish())
    }

    /// The opposite of [`Layers::changes`]: what turns the result back into the base, the part that the result
    /// cuts off included.
    pub fn inverse<T: Send>(
        &self,
        pack: impl Fn(WindowChange) -> Result<T> + Sync,
        mut sink: impl FnMut(T) -> Result<()>,
    ) -> Result<Touched> {
        let size = self.base.virtual_size();
        let mut judge = Judge::default();
        self.each_changed(
            self.check,
            |window, before, after, ranges| collect(window, size, after, before.1, ranges, &pack),
            |window, packed, checks| {
                judge.take(window, checks);
                packed.map_or(Ok(()), &mut sink)
            },
        )?;
        Ok(judge.finish())
    }

    /// As [`Layers::inverse`], and keeps what [`Layers::changes`] would hand on, as long as that takes no more than
    /// `limit` bytes of memory: then it needn't be made a second time.
    pub fn inverse_keeping<T: Send>(
        &self,
        limit: usize,
        pack: impl Fn(WindowChange) -> Result<T> + Sync,
        mut sink: impl FnMut(T) -> Result<()>,
    ) -> Result<(Touched, Option<Vec<WindowChange>>)> {
        let (old, new) = (self.base.virtual_size(), self.chain.target_size());
        let mut judge = Judge::default();
        let (mut kept, mut bytes) = (Vec::new(), 0_usize);
        let too_much = AtomicBool::new(false);
        self.each_changed(
            self.check,
            |window, before, after, ranges| {
                let back = collect(window, old, after, before.1, ranges, &pack)?;
                if too_much.load(Ordering::Relaxed) {
                    return Ok((back, None));
                }
                let forth = collect(window, new, before.1, after, ranges, Ok)?;
                Ok((back, forth))
            },
            |window, (back, forth), checks| {
                judge.take(window, checks);
                if let Some(change) = forth {
                    bytes = bytes.saturating_add(memory_of(&change));
                    kept.push(change);
                }
                if bytes > limit {
                    too_much.store(true, Ordering::Relaxed);
                    kept = Vec::new();
                }
                back.map_or(Ok(()), &mut sink)
            },
        )?;
        let kept = (!too_much.into_inner()).then_some(kept);
        Ok((judge.finish(), kept))
    }

    /// Evaluates every window in which the result may differ from the base: `work` gets the window, what the
    /// base holds (with the window's start), what the result holds, and the ranges of pages that are filled in
    /// both.
    fn each_changed<T: Send>(
        &self,
        check: bool,
        work: impl Fn(PageRange, (u64, &[u8]), &[u8], &[PageRange]) -> Result<T> + Sync,
        mut sink: impl FnMut(PageRange, T, Vec<FrameCheck>) -> Result<()>,
    ) -> Result<()> {
        let all = self.extent();
        let resized = self.resized();
        let from = PageRange::new(
            resized.start() - resized.start() % WINDOW_SIZE,
            resized.end(),
        )
        .unwrap_or_default();
        let cut = (!resized.is_empty()).then(|| data_windows([self.base], from));
        let windows = merge(cut.into_iter().flatten(), self.changed_windows(all.end()));
        let buffers = Buffers::new();
        let mut done = 0;
        self.workers.ordered(
            windows,
            |window: PageRange| {
                self.progress.check()?;
                let frames = self.frames(window)?;
                if self.stays_zero(window, &frames)? {
                    let checks = if check {
                        zero_checks(window, &frames)
                    } else {
                        Vec::new()
                    };
                    return Ok((
                        window,
                        work(window, (window.start(), &[]), &[], &[])?,
                        checks,
                    ));
                }
                let ranges = self.touched(window, &frames);
                let mut before = buffers.take(bytes_of(window));
                self.read_base(window, &ranges, &mut before)?;
                let mut after = buffers.take(before.len());
                for range in &ranges {
                    piece_mut(&mut after, window.start(), *range).copy_from_slice(piece(
                        &before,
                        window.start(),
                        *range,
                    ));
                }
                let checks = self.lay_over(window, frames, &mut after, check)?;
                let result = work(window, (window.start(), &before), &after, &ranges)?;
                buffers.give(before);
                buffers.give(after);
                Ok((window, result, checks))
            },
            |(window, result, checks)| {
                self.progress.advance(window.end() - done);
                done = window.end();
                sink(window, result, checks)
            },
        )?;
        self.progress.advance(all.end() - done);
        Ok(())
    }

    /// Whether only long clears lie over a window that the base knows to be zero. A diff of a hundred bytes can clear
    /// a pebibyte, so such windows are not even filled with zeros.
    fn stays_zero(&self, window: PageRange, frames: &[Vec<Frame>]) -> Result<bool> {
        if !frames.iter().flatten().all(Frame::is_long_clear) {
            return Ok(false);
        }
        let inside = window.intersect(whole(self.base)).unwrap_or_default();
        for extent in self.base.extents(inside) {
            if extent?.state == ExtentState::Data {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// From zero to the largest of the virtual sizes that play a part.
    fn extent(&self) -> PageRange {
        let sizes = self
            .chain
            .diffs()
            .iter()
            .flat_map(|d| [d.header().base_size, d.header().target_size]);
        PageRange::new(0, sizes.fold(self.base.virtual_size(), u64::max)).unwrap_or_default()
    }

    /// Where the result may differ from the base without a frame that says so: from the smallest size on the
    /// way, because what is cut off there doesn't come back.
    fn resized(&self) -> PageRange {
        let smallest = self
            .chain
            .diffs()
            .iter()
            .map(|d| d.header().target_size)
            .min()
            .unwrap_or(0);
        PageRange::new(smallest, self.base.virtual_size()).unwrap_or_default()
    }

    /// The windows, cut at `end`, in which some diff changes something.
    fn changed_windows(&self, end: u64) -> impl Iterator<Item = Result<PageRange>> {
        let diffs = self.chain.diffs();
        let mut at = 0;
        std::iter::from_fn(move || {
            let mut next = u64::MAX;
            for diff in diffs {
                match diff.first_change_from(at) {
                    Ok(change) => next = next.min(change.unwrap_or(u64::MAX)),
                    Err(error) => return Some(Err(error)),
                }
            }
            if next >= end {
                return None;
            }
            let start = next - next % WINDOW_SIZE;
            at = start.saturating_add(WINDOW_SIZE).min(end);
            PageRange::new(start, at).map(Ok)
        })
    }

    /// The frames of each diff that change something in the window.
    fn frames(&self, window: PageRange) -> Result<Vec<Vec<Frame>>> {
        self.chain
            .diffs()
            .iter()
            .map(|diff| diff.frames_in(window))
            .collect()
    }

    /// The pages of the window that may change, joined.
    fn touched(&self, window: PageRange, frames: &[Vec<Frame>]) -> Vec<PageRange> {
        let changes = frames
            .iter()
            .flatten()
            .flat_map(|frame| frame.changes().iter().map(|c| c.range));
        let mut ranges: Vec<_> = changes
            .chain([self.resized()])
            .filter_map(|r| r.intersect(window))
            .collect();
        ranges.sort_unstable();
        let mut joined: Vec<PageRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match joined.last_mut() {
                Some(last) if last.end() >= range.start() => {
                    *last =
                        PageRange::new(last.start(), last.end().max(range.end())).unwrap_or(*last);
                }
                _ => joined.push(range),
            }
        }
        joined
    }

    /// Reads `ranges` of the base into their places in the window's `bytes`; beyond its end it is zero.
    fn read_base(&self, window: PageRange, ranges: &[PageRange], bytes: &mut [u8]) -> Result<()> {
        let mut ranges = ranges.iter().copied().peekable();
        while let Some(mut range) = ranges.next() {
            while let Some(next) = ranges.next_if(|next| next.start() - range.end() <= READ_GAP) {
                range = PageRange::new(range.start(), next.end()).unwrap_or(range);
            }
            let inside = range.intersect(whole(self.base)).unwrap_or_default();
            let (read, beyond) =
                piece_mut(bytes, window.start(), range).split_at_mut(bytes_of(inside));
            if !inside.is_empty() {
                self.base.read_exact_at(read, inside.start())?;
            }
            beyond.fill(0);
        }
        Ok(())
    }

    /// Puts the diffs' pages over what the base holds, in order; with `check`, looks first at what lies there.
    fn lay_over(
        &self,
        window: PageRange,
        frames: Vec<Vec<Frame>>,
        bytes: &mut [u8],
        check: bool,
    ) -> Result<Vec<FrameCheck>> {
        let mut checks = Vec::new();
        for (n, (diff, frames)) in self.chain.diffs().iter().zip(frames).enumerate() {
            for frame in frames {
                if check {
                    checks.push(FrameCheck::new(n, &frame, window, bytes));
                }
                put(frame, window, bytes).map_err(|e| e.path(diff.name()))?;
            }
            // What this diff cuts off reads as zeros if a later one grows the disk again.
            let end = diff.header().target_size;
            if end < window.end() {
                let start = end.max(window.start());
                piece_mut(
                    bytes,
                    window.start(),
                    PageRange::new(start, window.end()).unwrap_or_default(),
                )
                .fill(0);
            }
        }
        Ok(checks)
    }
}

/// Applies one frame to the bytes of a window.
pub(super) fn put(frame: Frame, window: PageRange, bytes: &mut [u8]) -> Result<()> {
    let changes = frame.changes().clone();
    let payload = frame.unpack()?;
    let mut rest = payload.as_slice();
    for change in &changes {
        let Some(range) = change.range.intersect(window) else {
            continue;
        };
        let into = piece_mut(bytes, window.start(), range);
        match change.kind {
            ChangeKind::Clear => into.fill(0),
            ChangeKind::Update => {
                let Some((data, after)) = rest.split_at_checked(into.len()) else {
                    return Err(super::format::damaged("a frame's payload is too short"));
                };
                into.copy_from_slice(data);
                rest = after;
            }
        }
    }
    Ok(())
}

fn collect<T>(
    window: PageRange,
    size: u64,
    from: &[u8],
    to: &[u8],
    ranges: &[PageRange],
    pack: impl Fn(WindowChange) -> Result<T>,
) -> Result<Option<T>> {
    let window = PageRange::new(window.start(), window.end().min(size).max(window.start()))
        .unwrap_or(window);
    let mut found = ChangeCollector::new(window, true);
    for range in ranges.iter().filter_map(|range| range.intersect(window)) {
        found.add(
            range.start(),
            piece(from, window.start(), range),
            piece(to, window.start(), range),
        )?;
    }
    let change = found.finish();
    if change.changes.is_empty() {
        Ok(None)
    } else {
        pack(change).map(Some)
    }
}

/// Two ascending lists of windows as one.
fn merge(
    a: impl Iterator<Item = Result<PageRange>>,
    b: impl Iterator<Item = Result<PageRange>>,
) -> impl Iterator<Item = Result<PageRange>> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || {
        let start = |next: Option<&Result<PageRange>>| match next {
            // An error comes out at once, wherever it stands.
            Some(Err(_)) => 0,
            Some(Ok(window)) => window.start(),
            None => u64::MAX,
        };
        let (at_a, at_b) = (start(a.peek()), start(b.peek()));
        if at_a < at_b {
            return a.next();
        }
        if at_a == at_b && at_a != u64::MAX && a.peek().is_some_and(Result::is_ok) {
            let (longer_a, longer_b) = (a.next(), b.next());
            return match (longer_a, longer_b) {
                (Some(Ok(a)), Some(Ok(b))) => Some(Ok(if a.end() > b.end() { a } else { b })),
                (_, b) => b,
            };
        }
        if at_a == at_b && at_a != u64::MAX {
            a.next()
        } else {
            b.next()
        }
    })
}

/// Bytes of memory that a window's changes take, about.
fn memory_of(change: &WindowChange) -> usize {
    const EACH: usize = 512;
    EACH + change.payload.capacity() + change.changes.len().saturating_mul(size_of::<Change>())
}

fn bytes_of(range: PageRange) -> usize {
    usize::try_from(range.len()).unwrap_or(0)
}

/// `range` of bytes that begin at `start`.
pub(super) fn piece(bytes: &[u8], start: u64, range: PageRange) -> &[u8] {
    let at = usize::try_from(range.start().saturating_sub(start)).unwrap_or(usize::MAX);
    bytes
        .get(at..at.saturating_add(bytes_of(range)))
        .unwrap_or_default()
}

pub(super) fn piece_mut(bytes: &mut [u8], start: u64, range: PageRange) -> &mut [u8] {
    let at = usize::try_from(range.start().saturating_sub(start)).unwrap_or(usize::MAX);
    bytes
        .get_mut(at..at.saturating_add(bytes_of(range)))
        .unwrap_or_default()
}
