//! What changed from an image whose window hashes are known: it is read only where they differ.

use std::iter::Peekable;

use super::compare::{
    ChangeCollector, Collected, CompareOptions, Comparison, Counts, Tally, WindowChange, side,
};
use crate::error::Result;
use crate::image::{
    CHUNK_SIZE, ContentHasher, DIGEST_WINDOW, Image, ListedWindow, WINDOW_SIZE, Window,
    WindowHashes, WindowList, chunks, data_windows, whole, zero_hash,
};
use crate::page::PageRange;
use crate::parallel::Buffers;
use crate::storage::ReadAt;

/// As [`compare`](super::compare()), with the window hashes of the base at hand: the target is read and hashed, and the
/// base only in the windows whose hashes differ. The target's window hashes are handed to `each`, with the first byte of
/// their window, in order; windows that are left out are zero.
pub fn compare_listed<T: Send, S: ReadAt>(
    list: &WindowList<S>,
    (base, target): (&dyn Image, &dyn Image),
    options: CompareOptions<'_>,
    pack: impl Fn(WindowChange) -> Result<T> + Sync,
    mut sink: impl FnMut(T) -> Result<()>,
    mut each: impl FnMut(u64, &WindowHashes) -> Result<()>,
) -> Result<Comparison> {
    let size = target.virtual_size();
    let mut tally = Tally::new(base, target);
    let mut digest = ContentHasher::new(size);
    let (buffers, mut done) = (Buffers::new(), 0);
    options.workers.ordered(
        windows(list, target),
        |(range, known)| {
            options.progress.check()?;
            let window = Window::read(target, range, &buffers)?;
            let hashes = window.hashes(size);
            let different = different(range, &known, &hashes, [base.virtual_size(), size]);
            let change = changes(base, window, &different, options.payload, &buffers)?;
            let counts = Counts::of(&change.changes);
            let packed = if change.changes.is_empty() {
                None
            } else {
                Some(pack(change)?)
            };
            Ok((range, counts, packed, hashes))
        },
        |(range, counts, packed, hashes)| {
            tally.add(&counts);
            digest.push(range.start(), &hashes);
            each(range.start(), &hashes)?;
            options.progress.advance(range.end() - done);
            done = range.end();
            packed.map_or(Ok(()), &mut sink)
        },
    )?;
    options.progress.advance(size - done);
    let mut total = tally.total;
    if options.digests {
        total.base_digest = Some(list.digest());
        total.target_digest = Some(digest.finish());
    }
    Ok(total)
}

/// The windows of the target that may hold data, or where the base isn't zero.
fn windows<'a, S: ReadAt>(
    list: &'a WindowList<S>,
    target: &'a dyn Image,
) -> impl Iterator<Item = Result<(PageRange, ListedWindow)>> + 'a {
    let size = target.virtual_size();
    let mut data = data_windows([target], whole(target)).peekable();
    let mut known = list.windows().peekable();
    std::iter::from_fn(move || {
        let next = start_of(&mut data, |range| range.start())
            .min(start_of(&mut known, |window| window.start));
        if next >= size {
            return None;
        }
        let here = data.next_if(|range| !matches!(range, Ok(range) if range.start() != next));
        if let Some(Err(error)) = here {
            return Some(Err(error));
        }
        let window = known.next_if(|window| !matches!(window, Ok(window) if window.start != next));
        let window = match window {
            Some(Err(error)) => return Some(Err(error)),
            Some(Ok(window)) => window,
            None => ListedWindow {
                start: next,
                hashes: [None; 4],
            },
        };
        let end = next.saturating_add(WINDOW_SIZE).min(size);
        PageRange::new(next, end).map(|range| Ok((range, window)))
    })
}

/// Comes before everything.
const ERROR: u64 = 0;

fn start_of<T>(
    items: &mut Peekable<impl Iterator<Item = Result<T>>>,
    start: impl Fn(&T) -> u64,
) -> u64 {
    match items.peek() {
        Some(Ok(item)) => start(item),
        Some(Err(_)) => ERROR,
        None => u64::MAX,
    }
}

/// The digest windows of `range` that aren't the same on a disk of `base_size` with the hashes `known` and on one of
/// `size` with `hashes`.
fn different(
    range: PageRange,
    known: &ListedWindow,
    hashes: &WindowHashes,
    [base_size, size]: [u64; 2],
) -> Vec<PageRange> {
    let parts = range.windows(DIGEST_WINDOW).zip(hashes.as_slice());
    let parts = parts.zip(known.hashes.iter());
    parts
        .filter(|((part, hash), known)| {
            let len = |size: u64| size.saturating_sub(part.start()).min(DIGEST_WINDOW);
            let before = known.unwrap_or_else(|| zero_hash(len(base_size)));
            len(base_size) != len(size) || before != **hash
        })
        .map(|((part, _), _)| part)
        .collect()
}

/// Compares `parts` of a window page by page.
fn changes(
    base: &dyn Image,
    mut window: Window,
    parts: &[PageRange],
    payload: bool,
    buffers: &Buffers,
) -> Result<WindowChange> {
    let range = window.range();
    let mut found = ChangeCollector::new(range, Collected::all_if(payload));
    for part in parts {
        window.fill(*part);
        let mut buffer = buffers.take(CHUNK_SIZE);
        for (chunk, [in_base]) in chunks([base], *part)? {
            let before = side(base, in_base, chunk, &mut buffer)?;
            found.add(chunk.start(), before, window.piece(chunk))?;
        }
        buffers.give(buffer);
    }
    buffers.give(window.into_bytes());
    Ok(found.finish())
}
