//! Computes what each of several consecutive diffs makes of a disk, in one pass over it.
//!
//! A diff states the content digest of its target, but whoever writes one can state anything. What it really makes is
//! known only when its data is laid over what it was made from. For a long chain that is done window by window: the
//! window is read once, then each diff that touches it changes it in memory.

use std::sync::Arc;

use super::file::DiffFile;
use super::window_plan::WindowPlan;
use crate::error::{Error, Result};
use crate::image::{
    ContentDigest, ContentHasher, DIGEST_WINDOW, DataOf, Extent, ExtentState, Extents, Hash, Image,
    Listed, ListedWindow, Source, WINDOW_SIZE, WindowHashes, WindowList, Windows, check_within,
    whole, zero_hash,
};
use crate::page::{PageRange, to_usize};
use crate::parallel::{Bytes, Work, Workers};
use crate::progress::Progress;
use crate::storage::ReadAt;

/// Applies the consecutive `diffs` to `base` in memory. Returns the content digest of the base, then that of the result
/// of each diff. With the window hashes of the base in `known`, only windows that some diff touches are read. The hashes
/// of the last result are passed to `last`, with the first byte of their window, in order; omitted windows are zero.
///
/// # Errors
///
/// Fails if the base or the data of a diff can't be read, or if a diff has another base size than the target size of
/// the one before it.
pub fn results_of<S: ReadAt>(
    (base, known): (&dyn Image, Option<&WindowList<S>>),
    diffs: &[Arc<DiffFile>],
    workers: &Workers,
    progress: &dyn Progress,
    mut last: impl FnMut(u64, &WindowHashes) -> Result<()>,
) -> Result<Vec<ContentDigest>> {
    let sizes = sizes(base, diffs)?;
    let all = PageRange::covering(0, sizes.iter().copied().max().unwrap_or(0));
    let known = match known {
        Some(list) => Base::Known(Listed::new(list.windows())),
        None => Base::Read(DataOf::of([base], whole(base))),
    };
    let mut hashers: Vec<_> = sizes.iter().map(|size| ContentHasher::new(*size)).collect();
    let hints = base.io();
    // Two states of a window, and the payload that leads from one to the other.
    let each = 3 * WINDOW_SIZE + u64::from(hints.window_memory);
    Work::new(workers, progress).pass(
        all.end(),
        (hints.ahead(workers), |_: &_| each),
        Windows::within(all, (known, Data::of(diffs))),
        |_, (known, ())| Ok(known),
        |range, known| states(range, known, base, diffs),
        |range, states| {
            let mut states = states.into_iter().peekable();
            let mut now = WindowHashes::default();
            for (n, hasher) in hashers.iter_mut().enumerate() {
                if let Some((_, hashes)) = states.next_if(|(first, _)| *first == n) {
                    now = hashes;
                }
                hasher.push(range.start(), &now);
            }
            last(range.start(), &now)
        },
    )?;
    Ok(hashers.into_iter().map(ContentHasher::finish).collect())
}

/// The size of the base, then that of the result of each diff.
fn sizes(base: &dyn Image, diffs: &[Arc<DiffFile>]) -> Result<Vec<u64>> {
    let mut sizes = vec![base.virtual_size()];
    for diff in diffs {
        let (before, header) = (sizes.last().copied().unwrap_or(0), diff.header());
        if header.base_size != before {
            return Err(
                Error::mismatch("this diff doesn't continue the one before it")
                    .with_path(diff.name())
                    .with_field("base size")
                    .with_found(format_args!("{} bytes", header.base_size))
                    .with_expected(format_args!("{before} bytes")),
            );
        }
        sizes.push(header.target_size);
    }
    Ok(sizes)
}

/// The hashes of a window of the base, then each time that a diff changes them, with the number of the first state that
/// has them: 0 is the base.
fn states(
    range: PageRange,
    known: Option<ListedWindow>,
    base: &dyn Image,
    diffs: &[Arc<DiffFile>],
) -> Result<Vec<(usize, WindowHashes)>> {
    let mut size = base.virtual_size();
    let mut bytes: Option<Bytes> = None;
    let read = |size: u64| {
        let mut bytes = Bytes::zeroed(to_usize(cut(range, size).len()));
        if !bytes.is_empty() {
            base.read_exact_at(&mut bytes, range.start())?;
        }
        Ok::<_, Error>(bytes)
    };
    let mut hashes = match known {
        Some(known) => listed(cut(range, size), &known),
        None => hashed(bytes.insert(read(size)?), &[], &[]),
    };
    let mut states = vec![(0, joined(&hashes))];
    for (n, diff) in diffs.iter().enumerate() {
        let target = diff.header().target_size;
        let window = cut(range, target);
        let is_cut = window != cut(range, size);
        if is_cut || !diff.entries_in(range)?.is_empty() {
            let before = match bytes.take() {
                Some(bytes) => bytes,
                None => read(size)?,
            };
            let mut after = Bytes::zeroed(to_usize(window.len()));
            if !window.is_empty() {
                let only = std::slice::from_ref(diff);
                let below = OneWindow {
                    start: range.start(),
                    bytes: &before,
                };
                WindowPlan::of(window, only)?.read(&mut after, range.start(), &below, only)?;
            }
            hashes = hashed(&after, &before, &hashes);
            states.push((n + 1, joined(&hashes)));
            bytes = Some(after);
        }
        size = target;
    }
    Ok(states)
}

/// The part of a window that is within a disk of `size` bytes.
fn cut(range: PageRange, size: u64) -> PageRange {
    PageRange::covering(range.start(), range.end().min(size.max(range.start())))
}

fn listed(range: PageRange, known: &ListedWindow) -> Vec<Hash> {
    let parts = range.windows(DIGEST_WINDOW).zip(known.hashes);
    parts
        .map(|(part, hash)| hash.unwrap_or_else(|| zero_hash(part.len())))
        .collect()
}

/// The hashes of the parts of a window. Where a part is as `before`, its hash is that `known` one.
fn hashed(bytes: &[u8], before: &[u8], known: &[Hash]) -> Vec<Hash> {
    let part = to_usize(DIGEST_WINDOW);
    let parts = bytes.chunks(part).enumerate();
    parts
        .map(|(n, bytes)| {
            let same = before.chunks(part).nth(n) == Some(bytes);
            let known = known.get(n).filter(|_| same);
            known.map_or_else(|| *blake3::hash(bytes).as_bytes(), |known| *known)
        })
        .collect()
}

fn joined(hashes: &[Hash]) -> WindowHashes {
    let mut joined = WindowHashes::default();
    for hash in hashes {
        joined.append((*hash).into());
    }
    joined
}

/// Where the base may hold data: by its list, or by its extents, where it has to be read.
enum Base<'a, I: Iterator> {
    Known(Listed<I>),
    Read(DataOf<'a, 1>),
}

impl<I: Iterator<Item = Result<ListedWindow>>> Source for Base<'_, I> {
    type Item = Option<ListedWindow>;

    fn next(&mut self, at: u64) -> Option<u64> {
        match self {
            Self::Known(list) => list.next(at),
            Self::Read(data) => data.next(at),
        }
    }

    fn take(&mut self, window: PageRange) -> Result<Self::Item> {
        Ok(match self {
            // A window that isn't in the list is zero.
            Self::Known(list) => Some(list.take(window)?.unwrap_or(ListedWindow {
                start: window.start(),
                hashes: Default::default(),
            })),
            Self::Read(data) => data.take(window).map(|_| None)?,
        })
    }
}

/// Where some diff has new data. Clears matter only where there was data before, and one can be as long as a disk.
struct Data<'a> {
    /// Each with the place of its next data.
    diffs: Vec<(&'a DiffFile, u64)>,
    failed: Option<Error>,
}

impl<'a> Data<'a> {
    fn of(diffs: &'a [Arc<DiffFile>]) -> Self {
        Self {
            diffs: diffs.iter().map(|diff| (&**diff, 0)).collect(),
            failed: None,
        }
    }
}

impl Source for Data<'_> {
    type Item = ();

    fn next(&mut self, at: u64) -> Option<u64> {
        let mut first = u64::MAX;
        for (diff, next) in &mut self.diffs {
            if *next <= at {
                *next = match next_data(diff, at) {
                    Ok(next) => next.unwrap_or(u64::MAX),
                    Err(error) => {
                        self.failed = Some(error);
                        return Some(at);
                    }
                };
            }
            first = first.min(*next);
        }
        (first < u64::MAX).then_some(first)
    }

    fn take(&mut self, _: PageRange) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

/// The first byte at or after `at` in a frame that isn't a single long clear.
fn next_data(diff: &DiffFile, mut at: u64) -> Result<Option<u64>> {
    while let Some(entry) = diff.entry_from(at)? {
        // Only a clear is longer than a window.
        if entry.len() <= WINDOW_SIZE {
            return Ok(Some(entry.start().max(at)));
        }
        at = entry.end();
    }
    Ok(None)
}

/// A window of a disk in memory; zeros after its end.
struct OneWindow<'a> {
    start: u64,
    bytes: &'a [u8],
}

impl Image for OneWindow<'_> {
    fn virtual_size(&self) -> u64 {
        self.start.saturating_add(self.bytes.len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_within(self.virtual_size(), offset, buf.len())?;
        let from = to_usize(offset.saturating_sub(self.start));
        let found = self.bytes.get(from..from.saturating_add(buf.len()));
        if let Some(found) = found {
            buf.copy_from_slice(found);
        }
        Ok(())
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        Box::new(std::iter::once(Ok(Extent {
            range: within.cut_to(whole(self)),
            state: ExtentState::Data,
        })))
    }
}
