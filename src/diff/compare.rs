//! Finds the changes from one image to another, exact to the page.

use std::cell::Cell;

use super::pair_hasher::PairHasher;
use crate::error::{Error, Result};
use crate::image::{
    CHUNK_SIZE, ContentDigest, ContentHasher, DIGEST_WINDOW, Hash, Image, ImageMut, NoneShared,
    Pass, SharedCursor, SharedExtents, WINDOW_SIZE, WORTH_SKIPPING, Window, parts_in, unknown,
};
use crate::page::{Change, ChangeKind, PAGE_SIZE, PageList, PageRange, coalesce, is_zero};
use crate::parallel::{Bytes, Work, Workers};

const PAGE: usize = 512;

/// Options for [`compare`].
#[derive(Clone, Copy)]
pub struct CompareOptions<'a> {
    /// The threads, and the receiver of progress.
    pub work: Work<'a>,
    /// Whether to compute the content digests of both images as well.
    pub digests: bool,
    /// Whether to collect the changed data, and the hash of the data it replaces.
    pub payload: bool,
    /// Where the two images are known to be equal. Such ranges aren't read at all, or only from the target for its
    /// digest.
    pub equal: &'a dyn SharedExtents,
}

impl std::fmt::Debug for CompareOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("CompareOptions");
        out.field("digests", &self.digests)
            .field("payload", &self.payload)
            .finish_non_exhaustive()
    }
}

/// The changes in one window of the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowChange {
    /// The window.
    pub window: PageRange,
    /// The changed page ranges.
    pub changes: PageList,
    /// The data of all updates, concatenated in order; empty unless requested.
    pub payload: Bytes,
    /// BLAKE3 of the base's data under the changes; zeros unless requested.
    pub base_hash: Hash,
}

impl WindowChange {
    /// Writes the changes, whose payload must have been collected, to `image`.
    pub fn write_to(&self, image: &mut dyn ImageMut) -> Result<()> {
        let mut payload = &*self.payload;
        for change in &self.changes {
            match change.kind {
                ChangeKind::Clear => image.clear(change.range)?,
                ChangeKind::Update => {
                    let len = change.range.buffer_len();
                    let (data, rest) = payload
                        .split_at_checked(len)
                        .ok_or_else(|| Error::usage("the payload of a window is too short"))?;
                    image.update(change.range, data)?;
                    payload = rest;
                }
            }
        }
        Ok(())
    }
}

/// Totals of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Comparison {
    /// Number of ranges, updates and clears.
    pub ranges: u64,
    /// Bytes that hold other data now.
    pub update_bytes: u64,
    /// Bytes that became zero.
    pub clear_bytes: u64,
    /// Bytes of the disk that were known to be equal without comparing.
    pub known_bytes: u64,
    /// Whether the virtual sizes differ.
    pub resized: bool,
    /// Content digest of the base, if requested.
    pub base_digest: Option<ContentDigest>,
    /// Content digest of the target, if requested.
    pub target_digest: Option<ContentDigest>,
}

impl Comparison {
    /// Whether both images hold the same virtual disk.
    pub fn is_same(&self) -> bool {
        self.ranges == 0 && !self.resized
    }
}

/// Finds every page of `target` that differs from `base`, in parallel.
///
/// A page that became zero is a clear; any other changed page is an update. Pages beyond the end of the base count as
/// zero, and pages beyond the end of the target aren't listed. Ranges that are zero in both images, or
/// [known](CompareOptions::equal) to be equal, aren't compared. `pack` is called with the changes of each window, on
/// any thread, and `sink` with its results, on the calling thread, in ascending order.
pub fn compare<T: Send>(
    base: &dyn Image,
    target: &dyn Image,
    options: CompareOptions<'_>,
    pack: impl Fn(WindowChange) -> Result<T> + Sync,
    sink: impl FnMut(T) -> Result<()>,
) -> Result<Comparison> {
    let pack = |forward: WindowChange, _: Option<WindowChange>| pack(forward);
    compare_windows(base, target, options, false, pack, sink)
}

/// As [`compare`], and with `back` also collects the changes from the target back to the base: `pack` is called with
/// the changes in both directions, one of which may be empty. On the way back, pages beyond the end of the base aren't
/// listed; pages beyond the end of the target are, unless they are zero in the base.
pub(super) fn compare_windows<T: Send>(
    base: &dyn Image,
    target: &dyn Image,
    options: CompareOptions<'_>,
    back: bool,
    pack: impl Fn(WindowChange, Option<WindowChange>) -> Result<T> + Sync,
    mut sink: impl FnMut(T) -> Result<()>,
) -> Result<Comparison> {
    let (mut base_digest, mut target_digest) = (
        ContentHasher::new(base.virtual_size()),
        ContentHasher::new(target.virtual_size()),
    );
    let mut tally = Tally::new(base, target);
    let known = Cell::new(0);
    let pass = Pass::over(
        [base, target],
        Work::new(options.work.workers, options.work.progress),
    )
    .holding(window_memory(options.payload, back));
    let windows = pass.windows(SharedCursor::new(options.equal));
    let windows = windows.filter_map(|item| match item {
        Ok((window, (data, equal))) => {
            known.set(known.get() + equal.iter().map(|part| part.len()).sum::<u64>());
            let nothing_to_do = !options.digests && equal == [window];
            let equal = Equal::new(equal, options.digests);
            (!nothing_to_do).then_some(Ok((window, (data, equal))))
        }
        Err(error) => Some(Err(error)),
    });
    pass.run(
        windows,
        |equal, image| match (options.digests, image) {
            // The hash of the target needs all of it.
            (true, 1) => &[],
            _ => &equal.spare,
        },
        |windows, equal| {
            let mut pair = Pair {
                sizes: [base, target].map(Image::virtual_size),
                windows,
                options,
                hashes: PairHasher::new(),
            };
            let (change, back) = pair.compare(&equal.parts, back)?;
            let counts = Counts::of(&change.changes);
            let no_way_back = back.as_ref().is_none_or(|back| back.changes.is_empty());
            let packed = if change.changes.is_empty() && no_way_back {
                None
            } else {
                Some(pack(change, back)?)
            };
            Ok((counts, packed, pair.hashes.finish()))
        },
        |window, (counts, packed, (base_hashes, target_hashes))| {
            tally.add(&counts);
            if options.digests {
                base_digest.push(window.start(), &base_hashes);
                target_digest.push(window.start(), &target_hashes);
            }
            packed.map_or(Ok(()), &mut sink)
        },
    )?;
    let mut total = tally.total;
    total.known_bytes = known.get();
    if options.digests {
        total.base_digest = Some(base_digest.finish());
        total.target_digest = Some(target_digest.finish());
    }
    Ok(total)
}

/// The most memory of a window in which everything changed: what it holds now, and packed; the same of the way back.
pub(super) const fn window_memory(payload: bool, back: bool) -> u64 {
    match (payload, back) {
        (false, _) => 0,
        (true, false) => 2 * WINDOW_SIZE,
        (true, true) => 4 * WINDOW_SIZE,
    }
}

/// The parts of a window that are known to be equal.
struct Equal {
    parts: Vec<PageRange>,
    /// The parts of them that are never read, except for the target's digest.
    spare: Vec<PageRange>,
}

impl Equal {
    fn new(parts: Vec<PageRange>, digests: bool) -> Self {
        let chunk = CHUNK_SIZE as u64;
        let whole_chunks = |part: &PageRange| {
            let start = part.start().next_multiple_of(chunk);
            PageRange::covering(start, part.end() - part.end() % chunk)
        };
        let spare = if digests {
            parts.iter().map(whole_chunks).collect()
        } else {
            parts.clone()
        };
        Self { parts, spare }
    }
}

/// Adds up the counts of consecutive windows.
pub(super) struct Tally {
    pub(super) total: Comparison,
    previous: Option<Change>,
}

impl Tally {
    pub(super) fn new(base: &dyn Image, target: &dyn Image) -> Self {
        let total = Comparison {
            resized: base.virtual_size() != target.virtual_size(),
            ..Comparison::default()
        };
        Self {
            total,
            previous: None,
        }
    }

    pub(super) fn add(&mut self, counts: &Counts) {
        self.total.update_bytes += counts.update_bytes;
        self.total.clear_bytes += counts.clear_bytes;
        if let Some((first, last)) = counts.ends {
            // A range that continues the last one of the previous window counts as the same range.
            let joined = self
                .previous
                .is_some_and(|p| p.kind == first.kind && p.range.end() == first.range.start());
            self.total.ranges += counts.ranges - u64::from(joined);
            self.previous = Some(last);
        }
    }
}

/// Totals of one window.
pub(super) struct Counts {
    ranges: u64,
    update_bytes: u64,
    clear_bytes: u64,
    ends: Option<(Change, Change)>,
}

impl Counts {
    pub(super) fn of(changes: &PageList) -> Self {
        let (first, last) = (changes.iter().next(), changes.iter().next_back());
        Self {
            ranges: changes.len() as u64,
            update_bytes: changes.bytes(ChangeKind::Update),
            clear_bytes: changes.bytes(ChangeKind::Clear),
            ends: first.copied().zip(last.copied()),
        }
    }
}

/// Returns all changed page ranges, for images that are known to differ in a bounded number of places.
pub fn page_list(base: &dyn Image, target: &dyn Image, workers: &Workers) -> Result<PageList> {
    let options = CompareOptions {
        work: Work::new(workers, &crate::progress::Silent),
        digests: false,
        payload: false,
        equal: &NoneShared,
    };
    let mut list = PageList::new();
    compare(base, target, options, Ok, |change| {
        list.extend(&change.changes)
    })?;
    Ok(list)
}

/// The changes of a window, in one direction or both.
struct Found {
    forward: ChangeCollector,
    back: Option<ChangeCollector>,
}

/// One window of two images.
struct Pair<'a> {
    windows: [Window<'a>; 2],
    sizes: [u64; 2],
    options: CompareOptions<'a>,
    hashes: PairHasher,
}

impl Pair<'_> {
    /// Compares a window, whose parts `equal` are known to be equal. Also collects the way back if requested.
    fn compare(
        &mut self,
        equal: &[PageRange],
        back: bool,
    ) -> Result<(WindowChange, Option<WindowChange>)> {
        let window = self.windows[0].range();
        let what = Collected::all_if(self.options.payload);
        let mut found = Found {
            forward: ChangeCollector::new(window, what),
            back: back.then(|| ChangeCollector::new(window, what)),
        };
        let mut stored: Vec<_> = self
            .windows
            .iter()
            .flat_map(Window::data)
            .copied()
            .collect();
        stored.sort_unstable();
        // Outside of these ranges neither image holds data. Ranges with small gaps are joined: one read is cheaper than
        // two.
        let stored: Vec<_> = coalesce(stored, WORTH_SKIPPING).collect();
        for chunk in window.windows(CHUNK_SIZE as u64) {
            if !self.windows.iter().any(|w| w.may_hold_data(chunk)) {
                if self.options.digests {
                    let [base, target] = self.sizes.map(|size| inside(chunk, size) as u64);
                    self.hashes.update_zeros(base, target);
                }
            } else if !self.options.digests {
                // Where neither image holds data, both are zero.
                for piece in parts_in(&stored, chunk).flat_map(|run| unknown(run, equal)) {
                    self.piece(piece, &mut found)?;
                }
            } else if unknown(chunk, equal).next().is_none() {
                // It lies within both.
                let bytes = self.windows[1].look_at(chunk)?;
                self.hashes.update(bytes, bytes, true);
            } else {
                self.piece(chunk, &mut found)?;
            }
        }
        let back = found.back.map(ChangeCollector::finish);
        Ok((found.forward.finish(), back))
    }

    /// Compares a chunk or part of one. Digests require whole chunks.
    fn piece(&mut self, piece: PageRange, found: &mut Found) -> Result<()> {
        let [base, target] = &mut self.windows;
        let (base, target) = (base.look_at(piece)?, target.look_at(piece)?);
        // The part within each image.
        let [base_len, target_len] = self.sizes.map(|size| inside(piece, size));
        let same = base == target;
        if self.options.digests {
            let (base, target) = (&base[..base_len], &target[..target_len]);
            self.hashes.update(base, target, same);
        }
        if !same {
            let (from, to) = (&base[..target_len], &target[..target_len]);
            found.forward.add(piece.start(), from, to)?;
            if let Some(back) = &mut found.back {
                let (from, to) = (&target[..base_len], &base[..base_len]);
                back.add(piece.start(), from, to)?;
            }
        }
        Ok(())
    }
}

/// Returns how many bytes of `piece` lie within a disk of `size` bytes.
fn inside(piece: PageRange, size: u64) -> usize {
    piece.cut_to(PageRange::covering(0, size)).buffer_len()
}

/// Collects the changed pages of one window from its pieces, in order.
pub(super) struct ChangeCollector {
    change: WindowChange,
    hasher: blake3::Hasher,
    what: Collected,
}

/// The state of a [`ChangeCollector`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Collected {
    /// Only the ranges.
    Places,
    /// The ranges and the data of updates.
    Payload,
    /// The ranges, the data of updates, and the hash of the replaced data.
    All,
}

impl Collected {
    /// Everything, or only the ranges.
    pub(super) fn all_if(payload: bool) -> Self {
        if payload { Self::All } else { Self::Places }
    }
}

impl ChangeCollector {
    pub(super) fn new(window: PageRange, what: Collected) -> Self {
        let change = WindowChange {
            window,
            ..WindowChange::default()
        };
        Self {
            change,
            hasher: blake3::Hasher::new(),
            what,
        }
    }

    /// Compares equally long pieces of both disks, which consist of whole pages from `start` on.
    pub(super) fn add(&mut self, start: u64, base: &[u8], target: &[u8]) -> Result<()> {
        let mut run: Option<(usize, ChangeKind)> = None;
        let pages = base
            .as_chunks::<PAGE>()
            .0
            .iter()
            .zip(target.as_chunks::<PAGE>().0);
        for (n, (before, after)) in pages.enumerate() {
            let kind = match before == after {
                true => None,
                false if is_zero(after) => Some(ChangeKind::Clear),
                false => Some(ChangeKind::Update),
            };
            if kind != run.map(|(_, kind)| kind) {
                if let Some((first, kind)) = run {
                    self.run(start, first..n, kind, base, target)?;
                }
                run = kind.map(|kind| (n, kind));
            }
        }
        match run {
            Some((first, kind)) => self.run(start, first..base.len() / PAGE, kind, base, target),
            None => Ok(()),
        }
    }

    fn run(
        &mut self,
        start: u64,
        pages: std::ops::Range<usize>,
        kind: ChangeKind,
        base: &[u8],
        target: &[u8],
    ) -> Result<()> {
        let page = PAGE;
        let bytes = pages.start * page..pages.end * page;
        let range = PageRange::from_len(start + bytes.start as u64, bytes.len() as u64)?;
        self.change.changes.push(Change { range, kind })?;
        if self.what == Collected::All {
            self.hasher.update(&base[bytes.clone()]);
        }
        if self.what != Collected::Places && kind == ChangeKind::Update {
            self.change.payload.extend_from_slice(&target[bytes]);
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> WindowChange {
        if self.what == Collected::All {
            self.change.base_hash = *self.hasher.finalize().as_bytes();
        }
        self.change
    }
}

const _: () = assert!(PAGE as u64 == PAGE_SIZE);
// A chunk never straddles two digest windows, nor a digest window two windows.
const _: () = assert!(
    DIGEST_WINDOW.is_multiple_of(CHUNK_SIZE as u64) && WINDOW_SIZE.is_multiple_of(DIGEST_WINDOW)
);
