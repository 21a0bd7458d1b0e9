//! A base with a chain of diffs over it, window by window: every page is read once and unpacked once, however
//! many diffs there are.

use super::base_check::{BaseCheck, FrameCheck, Judge, Touched, zero_checks};
use super::chain::Chain;
use super::compare::WindowChange;
use super::format::damaged;
use super::held::Held;
use super::known::KnownChanges;
use super::sections::Frame;
use super::spans::{Spans, joined, put};
use crate::error::Result;
use crate::image::{
    ContentDigest, ContentHasher, Extent, ExtentState, Image, ImageMut, WINDOW_SIZE, Window,
    WindowHashes, data_windows, whole,
};
use crate::page::PageRange;
use crate::parallel::{Buffers, Workers};
use crate::progress::Progress;

/// Pieces of the base closer together than this are read in one go.
const READ_GAP: u64 = 64 << 10;

/// Windows that are worked on in one go, at most: as long as what changes in them lies within no more than a window's
/// length.
pub(super) const GROUP: usize = 64;

/// Bytes of a run of windows that stay zero, at most: between two, it is asked whether to go on.
const LONGEST_RUN: u64 = 1 << 40;

/// A base image and the diffs that lie over it.
#[derive(Clone, Copy)]
pub struct Layers<'a> {
    pub(super) base: &'a dyn Image,
    pub(super) chain: &'a Chain,
    pub(super) workers: &'a Workers,
    pub(super) progress: &'a dyn Progress,
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
        let mut judge = Judge::new();
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
                if is_run(range) {
                    return Ok(Rebuild::Zero(range, zero_run_checks(range, &frames)?));
                }
                let ranges = self.touched(range, &frames);
                let all = Spans::whole(range);
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
                Ok(Rebuild::Window(Box::new((
                    window,
                    runs,
                    before,
                    after,
                    (already, checks),
                ))))
            },
            |rebuilt| {
                let (window, runs, before, after, (already, checks)) = match rebuilt {
                    Rebuild::Window(window) => *window,
                    Rebuild::Zero(range, checks) => {
                        if !full {
                            judge.take(range, checks);
                        }
                        self.progress.advance(range.end() - done);
                        done = range.end();
                        return Ok(());
                    }
                };
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
        let mut judge = Judge::new();
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

    /// Hands every page that the diffs really change to `sink`, as changes from the base to the result: pages
    /// that already hold the right bytes are left out. Only if it is [`checking`](Self::checking) what is returned says
    /// anything.
    pub fn changes<T: Send>(
        &self,
        pack: impl Fn(WindowChange) -> Result<T> + Sync,
        sink: impl FnMut(T) -> Result<()>,
    ) -> Result<Touched> {
        let size = self.chain.target_size();
        self.each_change(|window, held| held.forth(window, size), pack, sink)
    }

    /// The opposite of [`Layers::changes`]: what turns the result back into the base, the part that the result
    /// cuts off included.
    pub fn inverse<T: Send>(
        &self,
        pack: impl Fn(WindowChange) -> Result<T> + Sync,
        sink: impl FnMut(T) -> Result<()>,
    ) -> Result<Touched> {
        let size = self.base.virtual_size();
        self.each_change(|window, held| held.back(window, size), pack, sink)
    }

    /// Packs what `find` says that changes in a window, one way or the other.
    fn each_change<T: Send>(
        &self,
        find: impl Fn(PageRange, &Held<'_>) -> Result<Option<WindowChange>> + Sync,
        pack: impl Fn(WindowChange) -> Result<T> + Sync,
        mut sink: impl FnMut(T) -> Result<()>,
    ) -> Result<Touched> {
        let mut judge = Judge::new();
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

    /// As [`Layers::inverse`], and remembers which pages change, as long as that takes no more than `limit` bytes of
    /// memory: then [`Layers::known_changes`] needn't read the base and compare again.
    pub fn inverse_remembering<T: Send>(
        &self,
        limit: usize,
        pack: impl Fn(WindowChange) -> Result<T> + Sync,
        mut sink: impl FnMut(T) -> Result<()>,
    ) -> Result<(Touched, Option<KnownChanges>)> {
        let (old, new) = (self.base.virtual_size(), self.chain.target_size());
        let mut judge = Judge::new();
        let (mut known, mut bytes) = (KnownChanges::default(), 0_usize);
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
                    known = KnownChanges::default();
                }
                back.map_or(Ok(()), &mut sink)
            },
        )?;
        Ok((judge.finish(), (bytes <= limit).then_some(known)))
    }

    /// Evaluates every window in which the result may differ from the base: `work` gets the window and what base and
    /// result hold of it.
    fn each_changed<T: Send>(
        &self,
        check: bool,
        work: impl Fn(PageRange, &Held<'_>) -> Result<T> + Sync,
        mut sink: impl FnMut(PageRange, T, Vec<FrameCheck>) -> Result<()>,
    ) -> Result<()> {
        let all = self.extent();
        let resized = self.resized();
        let from = PageRange::covering(
            resized.start() - resized.start() % WINDOW_SIZE,
            resized.end(),
        );
        let cut = (!resized.is_empty()).then(|| data_windows([self.base], from));
        let windows = merge(cut.into_iter().flatten(), self.changed_windows(all.end()));
        let buffers = Buffers::new();
        let mut done = 0;
        let one = |window: PageRange| {
            let frames = self.frames(window)?;
            let run = is_run(window);
            let zero = run || self.stays_zero(window, &frames)?;
            let ranges = if zero {
                Vec::new()
            } else {
                self.touched(window, &frames)
            };
            let spans = Spans::joining(&ranges, READ_GAP);
            let mut before = buffers.take(spans.len());
            self.read_base(&spans, &mut before)?;
            let mut after = buffers.take(spans.len());
            after.copy_from_slice(&before);
            let checks = match (zero, check) {
                _ if run => zero_run_checks(window, &frames)?,
                (true, true) => zero_checks(window, &frames),
                (true, false) => Vec::new(),
                (false, _) => self.lay_over(window, frames, &spans, &mut after, check)?,
            };
            let held = Held {
                ranges: &ranges,
                spans: &spans,
                before: &before,
                after: &after,
            };
            let result = work(window, &held)?;
            buffers.give(before);
            buffers.give(after);
            Ok((window, result, checks))
        };
        self.workers.ordered(
            self.groups(windows),
            |group: Vec<PageRange>| {
                self.progress.check()?;
                group.into_iter().map(one).collect::<Result<Vec<_>>>()
            },
            |group| {
                for (window, result, checks) in group {
                    self.progress.advance(window.end() - done);
                    done = window.end();
                    sink(window, result, checks)?;
                }
                Ok(())
            },
        )?;
        self.progress.advance(all.end() - done);
        Ok(())
    }

    /// Windows in which little changes are worked on together: handing each on by itself takes longer than the work.
    fn groups(
        &self,
        windows: impl Iterator<Item = Result<PageRange>>,
    ) -> impl Iterator<Item = Result<Vec<PageRange>>> {
        let mut windows = windows.peekable();
        std::iter::from_fn(move || {
            let mut group = match windows.next()? {
                Ok(window) => vec![window],
                Err(error) => return Some(Err(error)),
            };
            let mut reach = self.reach(*group.first()?);
            while let Some(Ok(window)) = windows.peek() {
                reach = reach.saturating_add(self.reach(*window));
                if reach > WINDOW_SIZE || group.len() == GROUP {
                    break;
                }
                group.push(*window);
                windows.next();
            }
            Some(Ok(group))
        })
    }

    /// Bytes from the first change in the window to the last, those of all diffs together.
    fn reach(&self, window: PageRange) -> u64 {
        let of = |range: PageRange| range.intersect(window).map_or(0, PageRange::len);
        let diffs = self.chain.diffs().iter();
        let changes = diffs.map(|diff| match diff.entries_in(window) {
            Ok(entries) => entries.iter().map(|entry| of(entry.range)).sum(),
            // Whoever reads the frames will say what is wrong.
            Err(_) => WINDOW_SIZE,
        });
        changes.fold(of(self.resized()), u64::saturating_add)
    }

    /// Whether only long clears lie over a window that the base knows to be zero. A diff of a hundred bytes can clear
    /// a pebibyte, so such windows are not even filled with zeros.
    pub(super) fn stays_zero(&self, window: PageRange, frames: &[Vec<Frame>]) -> Result<bool> {
        if !frames.iter().flatten().all(Frame::is_long_clear) {
            return Ok(false);
        }
        let inside = window.cut_to(whole(self.base));
        for extent in self.base.extents(inside) {
            if extent?.state == ExtentState::Data {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// From zero to the largest of the virtual sizes that play a part.
    pub(super) fn extent(&self) -> PageRange {
        let sizes = self
            .chain
            .diffs()
            .iter()
            .flat_map(|d| [d.header().base_size, d.header().target_size]);
        PageRange::covering(0, sizes.fold(self.base.virtual_size(), u64::max))
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
        PageRange::covering(smallest, self.base.virtual_size())
    }

    /// The windows, cut at `end`, in which some diff changes something. Windows that are zero in the base, and over which
    /// only long clears lie, come in [runs](is_run).
    pub(super) fn changed_windows(&self, end: u64) -> impl Iterator<Item = Result<PageRange>> {
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
            at = match self.zero_run(start, end) {
                Ok(run) => run.unwrap_or_else(|| start.saturating_add(WINDOW_SIZE).min(end)),
                Err(error) => return Some(Err(error)),
            };
            PageRange::new(start, at).map(Ok)
        })
    }

    /// Where the windows from `start` on end over which nothing but long clears lies, and in which the base is known to be
    /// zero; `None` if that isn't more than one. A diff of a hundred bytes can clear a pebibyte, in which nothing happens.
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
        // Data here is found at once, and zeros end where data begins: neither needs a look at the whole run.
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

    /// Reads what the base holds; beyond its end it is zero.
    fn read_base(&self, spans: &Spans, bytes: &mut [u8]) -> Result<()> {
        for span in spans.iter() {
            let inside = span.cut_to(whole(self.base));
            let (read, beyond) = spans
                .piece_mut(bytes, span)
                .split_at_mut(inside.buffer_len());
            if !inside.is_empty() {
                self.base.read_exact_at(read, inside.start())?;
            }
            beyond.fill(0);
        }
        Ok(())
    }

    /// Puts the diffs' pages over what the base holds, in order; with `check`, looks first at what lies there.
    pub(super) fn lay_over(
        &self,
        window: PageRange,
        frames: Vec<Vec<Frame>>,
        spans: &Spans,
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
            // What this diff cuts off reads as zeros if a later one grows the disk again.
            let end = diff.header().target_size;
            if let Some(cut) = PageRange::new(end.max(window.start()), window.end()) {
                spans.clear(bytes, cut);
            }
        }
        Ok(checks)
    }
}

/// What became of a window, or of a run of windows that stay zero.
enum Rebuild {
    Window(Box<RebuiltWindow>),
    Zero(PageRange, Vec<FrameCheck>),
}

/// The window, where it isn't zero, its hashes before and after, and how it compares with what the diffs were made for.
type RebuiltWindow = (
    Window,
    Vec<PageRange>,
    Option<WindowHashes>,
    WindowHashes,
    (bool, Vec<FrameCheck>),
);

/// Whether this is not a window but a run of them, which is zero before and after.
pub(super) fn is_run(range: PageRange) -> bool {
    range.len() > WINDOW_SIZE
}

/// The checks of a run; its frames must be what the index said.
fn zero_run_checks(run: PageRange, frames: &[Vec<Frame>]) -> Result<Vec<FrameCheck>> {
    if frames.iter().flatten().all(Frame::is_long_clear) {
        return Ok(zero_checks(run, frames));
    }
    Err(damaged("the diff was changed while it was used"))
}

/// Two ascending lists of windows as one.
pub(super) fn merge(
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
