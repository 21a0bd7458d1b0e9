//! Applies a chain of diffs to a base, window by window: every page is read once and unpacked once, however many diffs
//! there are.

use super::base_check::{BaseCheck, BaseVerifier, FrameCheck, Touched, zero_checks};
use super::before_after::BeforeAfter;
use super::chain::Chain;
use super::change_map::{ChangeMap, GROUP};
use super::compare::WindowChange;
use super::coverage::{ChangedWindows, joined};
use super::format::damaged;
use super::range_buffer::{RangeBuffer, put};
use super::sections::Frame;
use crate::error::Result;
use crate::image::{
    ContentDigest, ContentHasher, DataOf, Extent, ExtentState, Image, ImageMut, Pass, Source,
    WINDOW_SIZE, Window, WindowHashes, Windows, all_needed, read_or_zeros, whole,
};
use crate::page::PageRange;
use crate::parallel::{Buffer, Buffers, Work, Workers};
use crate::progress::Progress;

/// Ranges of the base that are closer together than this are read in one go.
const READ_GAP: u64 = 64 << 10;

/// The longest run of windows that stay zero, in bytes: between two of them, cancellation is checked.
const LONGEST_RUN: u64 = 1 << 40;

/// A base image and the diffs to apply to it.
#[derive(Clone, Copy)]
pub struct Applier<'a> {
    pub(super) base: &'a dyn Image,
    pub(super) chain: &'a Chain,
    pub(super) workers: &'a Workers,
    pub(super) progress: &'a dyn Progress,
    check: bool,
}

impl std::fmt::Debug for Applier<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Applier")
            .field("chain", self.chain)
            .finish_non_exhaustive()
    }
}

/// The digests that [`Applier::rebuild`] computed on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Content digest of the base, if requested.
    pub base_digest: Option<ContentDigest>,
    /// Content digest of the data written.
    pub target_digest: ContentDigest,
}

impl<'a> Applier<'a> {
    /// Prepares applying `chain` to `base`, whose virtual size is that of the chain's base or, when an interrupted
    /// apply is being finished, any other.
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

    /// Sets whether [`Applier::changes`] and [`Applier::inverse`] also compare the base under the changed pages with
    /// what the diffs expect. The caller examines the outcome, and undoes its changes if there is a mismatch.
    #[must_use]
    pub fn checking(self, check: bool) -> Self {
        Self { check, ..self }
    }

    /// Writes the result into `to`, which is new, reads as zeros and has the chain's target size. `check` determines
    /// how the base is checked on the way. The caller compares the returned digests before it publishes anything.
    pub fn rebuild(&self, to: &mut dyn ImageMut, check: BaseCheck) -> Result<(Rebuilt, Touched)> {
        let all = self.extent();
        let full = check == BaseCheck::Full;
        let size = self.chain.target_size();
        let same_size = self.base.virtual_size() == size;
        let mut base_digest = ContentHasher::new(self.base.virtual_size());
        let mut target_digest = ContentHasher::new(size);
        let mut judge = BaseVerifier::new();
        judge.already_applied = !full;
        // The window, what it held before, and the payload of its frames.
        let pass = Pass::over([self.base], self.work())
            .within(all)
            .holding(3 * WINDOW_SIZE);
        pass.run(
            pass.windows(ChangedRuns::of(self)),
            all_needed,
            |[mut window], ()| {
                let range = window.range();
                let frames = self.frames(range)?;
                if is_run(range) {
                    return Ok(Rebuild::Zero(zero_run_checks(range, &frames)?));
                }
                let ranges = self.touched(range, &frames);
                window.read()?;
                let before = full.then(|| window.hashes(self.base.virtual_size()));
                let (already, checks) = if stays_zero(window.data(), &frames) {
                    let checks = (!full).then(|| zero_checks(range, &frames));
                    (!full, checks.unwrap_or_default())
                } else {
                    ranges.iter().try_for_each(|range| window.fill(*range))?;
                    let all = RangeBuffer::whole(range);
                    let untouched = (!full).then(|| window.bytes_mut().to_vec());
                    let checks = self.lay_over(range, frames, &all, window.bytes_mut(), !full)?;
                    let already = untouched.is_some_and(|before| {
                        let after = window.bytes_mut();
                        let same = |r: &PageRange| all.piece(&before, *r) == all.piece(after, *r);
                        ranges.iter().all(same)
                    });
                    (already, checks)
                };
                let after = match &before {
                    Some(before) if same_size => window.hashes_again(size, before, &ranges),
                    _ => window.hashes(size),
                };
                let runs = window.nonzero(size);
                Ok(Rebuild::Window(Box::new(RebuiltWindow {
                    window,
                    runs,
                    before,
                    after,
                    already,
                    checks,
                })))
            },
            |range, rebuilt| {
                let rebuilt = match rebuilt {
                    Rebuild::Window(window) => *window,
                    Rebuild::Zero(checks) => {
                        if !full {
                            judge.take(range, checks);
                        }
                        return Ok(());
                    }
                };
                judge.already_applied &= rebuilt.already;
                judge.take(range, rebuilt.checks);
                if let Some(before) = rebuilt.before {
                    base_digest.push(range.start(), &before);
                }
                target_digest.push(range.start(), &rebuilt.after);
                rebuilt.window.write(&rebuilt.runs, to)
            },
        )?;
        let base_digest = full.then(|| base_digest.finish());
        Ok((
            Rebuilt {
                base_digest,
                target_digest: target_digest.finish(),
            },
            judge.finish(),
        ))
    }

    pub(super) fn work(&self) -> Work<'a> {
        Work::new(self.workers, self.progress)
    }

    /// Reads the base under the changed pages and compares it with what the diffs expect.
    pub fn check_touched(&self) -> Result<Touched> {
        let mut judge = BaseVerifier::new();
        self.each_changed(
            true,
            |_, held| Ok(held.is_unchanged()),
            |window, same, checks| {
                judge.already_applied &= same;
                judge.take(window, checks);
                Ok(())
            },
        )?;
        Ok(judge.finish())
    }

    /// Passes every page that the diffs actually change to `sink`, as changes from the base to the result. Pages that
    /// already hold the right bytes are omitted. The returned value is meaningful only when
    /// [`checking`](Self::checking).
    pub fn changes<T: Send>(
        &self,
        pack: impl Fn(WindowChange) -> Result<T> + Sync,
        sink: impl FnMut(T) -> Result<()>,
    ) -> Result<Touched> {
        let size = self.chain.target_size();
        self.each_change(|window, held| held.forth(window, size), pack, sink)
    }

    /// The inverse of [`Applier::changes`]: what turns the result back into the base, including the part that the
    /// result truncates.
    pub fn inverse<T: Send>(
        &self,
        pack: impl Fn(WindowChange) -> Result<T> + Sync,
        sink: impl FnMut(T) -> Result<()>,
    ) -> Result<Touched> {
        let size = self.base.virtual_size();
        self.each_change(|window, held| held.back(window, size), pack, sink)
    }

    /// Packs the changes that `find` returns for each window, in one direction or the other.
    fn each_change<T: Send>(
        &self,
        find: impl Fn(PageRange, &BeforeAfter<'_>) -> Result<Option<WindowChange>> + Sync,
        pack: impl Fn(WindowChange) -> Result<T> + Sync,
        mut sink: impl FnMut(T) -> Result<()>,
    ) -> Result<Touched> {
        let mut judge = BaseVerifier::new();
        self.each_changed(
            self.check,
            |window, held| find(window, held)?.map(&pack).transpose(),
            |window, packed, checks| {
                judge.take(window, checks);
                judge.already_applied &= packed.is_none();
                packed.map_or(Ok(()), &mut sink)
            },
        )?;
        Ok(judge.finish())
    }

    /// As [`Applier::inverse`], and remembers which pages change, as long as that takes at most `limit` bytes of
    /// memory. [`Applier::change_map`] then needn't read the base and compare again.
    pub fn inverse_remembering<T: Send>(
        &self,
        limit: usize,
        pack: impl Fn(WindowChange) -> Result<T> + Sync,
        mut sink: impl FnMut(T) -> Result<()>,
    ) -> Result<(Touched, Option<ChangeMap>)> {
        let (old, new) = (self.base.virtual_size(), self.chain.target_size());
        let mut judge = BaseVerifier::new();
        let (mut known, mut bytes) = (ChangeMap::default(), 0_usize);
        self.each_changed(
            self.check,
            |window, held| {
                let back = held.back(window, old)?.map(&pack).transpose()?;
                Ok((back, held.places(window, new)?))
            },
            |window, (back, forth), checks| {
                judge.take(window, checks);
                judge.already_applied &= back.is_none() && forth.is_none();
                if let Some(change) = forth.filter(|_| bytes <= limit) {
                    bytes = bytes.saturating_add(known.push(change));
                }
                if bytes > limit {
                    known = ChangeMap::default();
                }
                back.map_or(Ok(()), &mut sink)
            },
        )?;
        Ok((judge.finish(), (bytes <= limit).then_some(known)))
    }

    /// Evaluates every window in which the result may differ from the base: `work` gets the window and its contents in
    /// base and result.
    fn each_changed<T: Send>(
        &self,
        check: bool,
        work: impl Fn(PageRange, &BeforeAfter<'_>) -> Result<T> + Sync,
        mut sink: impl FnMut(PageRange, T, Vec<FrameCheck>) -> Result<()>,
    ) -> Result<()> {
        let all = self.extent();
        // The part of the base that is truncated.
        let resized = self.resized();
        let aligned = PageRange::covering(
            resized.start() - resized.start() % WINDOW_SIZE,
            resized.end(),
        );
        let cut = if resized.is_empty() { resized } else { aligned };
        let cut = DataOf::of([self.base], cut);
        let windows = Windows::within(all, (cut, ChangedRuns::of(self)));
        let windows = windows.map(|window| Ok(window?.0));
        let buffers = Buffers::new();
        let hints = self.base.io();
        let ahead = hints.ahead(self.workers);
        // What was there, what will be, the payload of the frames, and what the caller makes of it.
        let cost = |(_, reach): &(_, u64)| {
            let held = reach.saturating_mul(if hints.is_far() { 1 } else { 4 });
            held.saturating_add(u64::from(hints.window_memory))
        };
        let evaluate = |loaded: Loaded| {
            let window = loaded.window;
            let done = self.evaluate(loaded, check, &buffers, &work)?;
            Ok((window, done))
        };
        self.work().pass(
            all.end(),
            (ahead, cost),
            self.groups(windows),
            |_, (group, _)| {
                if ahead.depth == 0 {
                    return Ok((group, Vec::new()));
                }
                let load = |window: &PageRange| self.load(*window, &buffers);
                let loaded = group.iter().map(load).collect::<Result<Vec<_>>>()?;
                Ok((Vec::new(), loaded))
            },
            |_, (group, loaded)| {
                let near = group.into_iter().map(|w| self.load(w, &buffers));
                let all = loaded.into_iter().map(Ok).chain(near);
                all.map(|loaded| evaluate(loaded?))
                    .collect::<Result<Vec<_>>>()
            },
            |_, group| {
                let mut group = group.into_iter();
                group.try_for_each(|(window, (result, checks))| sink(window, result, checks))
            },
        )
    }

    /// Reads what is needed of a window.
    fn load(&self, window: PageRange, buffers: &Buffers) -> Result<Loaded> {
        let frames = self.frames(window)?;
        let zero = is_run(window) || self.is_kept_zero(window, &frames)?;
        let ranges = if zero {
            Vec::new()
        } else {
            self.touched(window, &frames)
        };
        let spans = RangeBuffer::joining(&ranges, READ_GAP);
        let mut before = buffers.take(spans.len());
        for span in spans.iter() {
            read_or_zeros(self.base, spans.piece_mut(&mut before, span), span.start())?;
        }
        Ok(Loaded {
            window,
            frames,
            zero,
            ranges,
            spans,
            before,
        })
    }

    /// Applies the diffs to the data that was read.
    fn evaluate<T>(
        &self,
        loaded: Loaded,
        check: bool,
        buffers: &Buffers,
        work: impl Fn(PageRange, &BeforeAfter<'_>) -> Result<T>,
    ) -> Result<(T, Vec<FrameCheck>)> {
        let Loaded {
            window,
            frames,
            zero,
            ranges,
            spans,
            before,
        } = loaded;
        let mut after = buffers.take(spans.len());
        after.copy_from_slice(&before);
        let checks = match (zero, check) {
            _ if is_run(window) => zero_run_checks(window, &frames)?,
            (true, true) => zero_checks(window, &frames),
            (true, false) => Vec::new(),
            (false, _) => self.lay_over(window, frames, &spans, &mut after, check)?,
        };
        let held = BeforeAfter {
            ranges: &ranges,
            spans: &spans,
            before: &before,
            after: &after,
        };
        let result = work(window, &held)?;
        buffers.give(before);
        buffers.give(after);
        Ok((result, checks))
    }

    /// Groups windows with few changes: passing each on separately would take longer than the work itself. Each group
    /// comes with the bytes that may change in it.
    fn groups(
        &self,
        windows: impl Iterator<Item = Result<PageRange>>,
    ) -> impl Iterator<Item = Result<(PageRange, (Vec<PageRange>, u64))>> {
        let mut windows = windows.peekable();
        std::iter::from_fn(move || {
            let first = match windows.next()? {
                Ok(window) => window,
                Err(error) => return Some(Err(error)),
            };
            let (mut all, mut group) = (first, vec![first]);
            let mut reach = self.reach(first);
            while let Some(Ok(window)) = windows.peek() {
                let with_it = reach.saturating_add(self.reach(*window));
                if with_it > WINDOW_SIZE || group.len() == GROUP {
                    break;
                }
                reach = with_it;
                all = all.hull(*window);
                group.push(*window);
                windows.next();
            }
            Some(Ok((all, (group, reach.min(WINDOW_SIZE)))))
        })
    }

    /// The distance from the first to the last changed byte in the window, over all diffs.
    fn reach(&self, window: PageRange) -> u64 {
        let of = |range: PageRange| range.intersect(window).map_or(0, PageRange::len);
        let diffs = self.chain.diffs().iter();
        let changes = diffs.map(|diff| match diff.entries_in(window) {
            Ok(entries) => entries.iter().map(|entry| of(entry.range)).sum(),
            // Whoever reads the frames will report the error.
            Err(_) => WINDOW_SIZE,
        });
        changes.fold(of(self.resized()), u64::saturating_add)
    }

    /// As [`stays_zero`], querying the base.
    pub(super) fn is_kept_zero(&self, window: PageRange, frames: &[Vec<Frame>]) -> Result<bool> {
        Ok(stays_zero(&[], frames) && DataOf::of([self.base], window).take(window)? == [[]])
    }

    /// The range from zero to the largest virtual size of any disk involved.
    pub(super) fn extent(&self) -> PageRange {
        let sizes = self
            .chain
            .diffs()
            .iter()
            .flat_map(|d| [d.header().base_size, d.header().target_size]);
        PageRange::covering(0, sizes.fold(self.base.virtual_size(), u64::max))
    }

    /// The range in which the result may differ from the base without a frame: everything from the smallest size on the
    /// way, because truncated data doesn't come back.
    fn resized(&self) -> PageRange {
        let smallest = self
            .chain
            .diffs()
            .iter()
            .map(|d| d.header().target_size)
            .min()
            .unwrap_or(0);
        PageRange::covering(smallest, self.base.virtual_size())
    }

    /// Returns the end of a run of windows from `start` on that only long clears change and in which the base is known
    /// to be zero, or `None` if there is at most one such window. A diff of a hundred bytes can clear a pebibyte in
    /// which nothing needs to be done.
    fn zero_run(&self, start: u64, end: u64) -> Result<Option<u64>> {
        let second = start.saturating_add(WINDOW_SIZE);
        let mut until = end.min(start.saturating_add(LONGEST_RUN));
        let mut cleared = false;
        for diff in self.chain.diffs() {
            match diff.entry_from(start)? {
                // Only a long clear is longer than a window.
                Some(range) if range.start() <= start && range.len() > WINDOW_SIZE => {
                    cleared = true;
                    until = until.min(range.end());
                }
                Some(range) if range.start() < second => return Ok(None),
                Some(range) => until = until.min(range.start()),
                None => {}
            }
        }
        until -= until % WINDOW_SIZE;
        if !cleared || until <= second {
            return Ok(None);
        }
        // Data at the start is found at once, and a run of zeros ends where data begins: neither requires a look at the
        // whole run.
        let base = |start, end| {
            let inside = PageRange::covering(start, end).cut_to(whole(self.base));
            self.base.extents(inside).next().transpose()
        };
        let is_data = |extent: &Extent| extent.state == ExtentState::Data;
        if base(start, second)?.as_ref().is_some_and(is_data) {
            return Ok(None);
        }
        if let Some(first) = base(start, until)? {
            if is_data(&first) {
                return Ok(None);
            }
            if first.range.end() < until.min(self.base.virtual_size()) {
                until = first.range.end() - first.range.end() % WINDOW_SIZE;
            }
        }
        Ok((until > second).then_some(until))
    }

    /// The frames of each diff that change something in the window.
    pub(super) fn frames(&self, window: PageRange) -> Result<Vec<Vec<Frame>>> {
        self.chain
            .diffs()
            .iter()
            .map(|diff| diff.frames_in(window))
            .collect()
    }

    /// The pages of the window that may change, joined.
    pub(super) fn touched(&self, window: PageRange, frames: &[Vec<Frame>]) -> Vec<PageRange> {
        let changes = frames
            .iter()
            .flatten()
            .flat_map(|frame| frame.changes().iter().map(|c| c.range));
        joined(
            changes
                .chain([self.resized()])
                .filter_map(|r| r.intersect(window))
                .collect(),
        )
    }

    /// Applies the diffs' pages to the data of the base, in order. With `check`, compares the data under them first.
    pub(super) fn lay_over(
        &self,
        window: PageRange,
        frames: Vec<Vec<Frame>>,
        spans: &RangeBuffer,
        bytes: &mut [u8],
        check: bool,
    ) -> Result<Vec<FrameCheck>> {
        let mut checks = Vec::new();
        for (n, (diff, frames)) in self.chain.diffs().iter().zip(frames).enumerate() {
            for frame in frames {
                if check {
                    checks.push(FrameCheck::new(n, &frame, window, (spans, bytes)));
                }
                put(frame, window, spans, bytes).map_err(|e| e.with_path(diff.name()))?;
            }
            // The part that this diff truncates reads as zeros if a later one grows the disk again.
            let end = diff.header().target_size;
            spans.clear(bytes, PageRange::covering(end, u64::MAX).cut_to(window));
        }
        Ok(checks)
    }
}

/// The windows that some diff changes. Those that only long clears change and that are zero in the base come in
/// [runs](is_run).
pub(super) struct ChangedRuns<'a> {
    layers: &'a Applier<'a>,
    windows: ChangedWindows<'a>,
    end: u64,
}

impl<'a> ChangedRuns<'a> {
    pub(super) fn of(layers: &'a Applier<'a>) -> Self {
        Self {
            layers,
            windows: ChangedWindows::of_frames(layers.chain.diffs()),
            end: layers.extent().end(),
        }
    }
}

impl Source for ChangedRuns<'_> {
    type Item = ();

    fn next(&mut self, at: u64) -> Option<u64> {
        self.windows.next(at)
    }

    fn take(&mut self, _: PageRange) -> Result<()> {
        // It doesn't matter which of the two it is: a window of the base is evaluated in the same way.
        self.windows.check()
    }

    fn stretched(&mut self, window: PageRange) -> Result<PageRange> {
        let run = self.layers.zero_run(window.start(), self.end)?;
        let end = run.unwrap_or(window.end());
        Ok(PageRange::covering(window.start(), end))
    }
}

/// The data needed to evaluate a window.
struct Loaded {
    window: PageRange,
    frames: Vec<Vec<Frame>>,
    /// Whether the window is zero before and after.
    zero: bool,
    /// The pages that may change.
    ranges: Vec<PageRange>,
    spans: RangeBuffer,
    before: Buffer,
}

/// The result for a window, or for a run of windows that stay zero.
enum Rebuild<'a> {
    Window(Box<RebuiltWindow<'a>>),
    Zero(Vec<FrameCheck>),
}

struct RebuiltWindow<'a> {
    window: Window<'a>,
    /// The nonzero ranges.
    runs: Vec<PageRange>,
    before: Option<WindowHashes>,
    after: WindowHashes,
    /// Whether the base already holds what the diffs write.
    already: bool,
    checks: Vec<FrameCheck>,
}

/// Returns whether a window stays zero: the base holds no data in it (`data` is empty), and only long clears change it.
/// A diff of a hundred bytes can clear a pebibyte, so such windows aren't even filled with zeros.
pub(super) fn stays_zero(data: &[PageRange], frames: &[Vec<Frame>]) -> bool {
    data.is_empty() && frames.iter().flatten().all(Frame::is_long_clear)
}

/// Returns whether a range is not one window but a run of windows that are zero before and after.
pub(super) fn is_run(range: PageRange) -> bool {
    range.len() > WINDOW_SIZE
}

/// The checks for a run. Its frames must match the index.
fn zero_run_checks(run: PageRange, frames: &[Vec<Frame>]) -> Result<Vec<FrameCheck>> {
    if frames.iter().flatten().all(Frame::is_long_clear) {
        return Ok(zero_checks(run, frames));
    }
    Err(damaged("the diff was changed while it was in use"))
}
