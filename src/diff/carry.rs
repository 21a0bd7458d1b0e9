//! The window hashes of the target of diffs, from those of their base: only what the diffs touch is hashed again.

use std::sync::Arc;

use super::file::DiffFile;
use crate::error::Result;
use crate::image::{
    DIGEST_WINDOW, Image, ListedWindow, WINDOW_SIZE, Window, WindowHashes, WindowList, zero_hash,
};
use crate::page::PageRange;
use crate::parallel::{Buffers, Workers};
use crate::progress::Progress;
use crate::storage::ReadAt;

/// Hands the window hashes of `target`, which is what the consecutive `diffs` make of the disk that `list` is of, to
/// `each`, with the first byte of their window, in order; windows that are left out are zero. Only the windows that some
/// diff touches, and those behind the smallest size on the way, are read.
pub fn carry_list<S: ReadAt>(
    list: &WindowList<S>,
    diffs: &[Arc<DiffFile>],
    target: &dyn Image,
    workers: &Workers,
    progress: &dyn Progress,
    mut each: impl FnMut(u64, &WindowHashes) -> Result<()>,
) -> Result<()> {
    let size = target.virtual_size();
    let (buffers, mut done) = (Buffers::new(), 0);
    workers.ordered(
        windows(list, diffs, size),
        |(range, known)| {
            progress.check()?;
            if let Some(known) = known {
                return Ok((range, unchanged(range, &known)));
            }
            let window = Window::read(target, range, &buffers)?;
            let hashes = window.hashes(size);
            buffers.give(window.into_bytes());
            Ok((range, hashes))
        },
        |(range, hashes)| {
            progress.advance(range.end() - done);
            done = range.end();
            each(range.start(), &hashes)
        },
    )?;
    progress.advance(size - done);
    Ok(())
}

/// The windows that may not be zero, up to `size`, with their hashes where they are the same as before.
fn windows<'a, S: ReadAt>(
    list: &'a WindowList<S>,
    diffs: &'a [Arc<DiffFile>],
    size: u64,
) -> impl Iterator<Item = Result<(PageRange, Option<ListedWindow>)>> + 'a {
    // With another size the last windows have another length.
    let mut ends: Vec<u64> = diffs
        .iter()
        .map(|diff| diff.header())
        .filter(|header| header.base_size != header.target_size)
        .flat_map(|header| [header.base_size, header.target_size])
        .map(|end| end - end % WINDOW_SIZE)
        .collect();
    ends.sort_unstable();
    // What was cut off is zero if the disk grew again.
    let cut = ends.first().copied().unwrap_or(u64::MAX);
    let mut known = list.windows().peekable();
    let mut at = 0;
    std::iter::from_fn(move || {
        let changed = match first_change(diffs, at) {
            Ok(change) => change.map_or(u64::MAX, |change| change - change % WINDOW_SIZE),
            Err(error) => return Some(Err(error)),
        };
        let end = ends.iter().copied().find(|end| *end >= at);
        let changed = changed.min(end.unwrap_or(u64::MAX));
        let listed = match known.peek() {
            Some(Ok(window)) => window.start,
            Some(Err(_)) => return known.next().map(|error| error.map(|_| Default::default())),
            None => u64::MAX,
        };
        let start = changed.min(listed);
        if start >= size {
            return None;
        }
        at = start.saturating_add(WINDOW_SIZE);
        let window = known.next_if(|window| matches!(window, Ok(window) if window.start == start));
        let window = window
            .and_then(Result::ok)
            .filter(|_| changed != start && start < cut);
        PageRange::new(start, at.min(size)).map(|range| Ok((range, window)))
    })
}

/// The first byte from `at` on that some diff changes.
fn first_change(diffs: &[Arc<DiffFile>], at: u64) -> Result<Option<u64>> {
    let mut first = None;
    for diff in diffs {
        first = [first, diff.first_change_from(at)?]
            .into_iter()
            .flatten()
            .min();
    }
    Ok(first)
}

fn unchanged(range: PageRange, known: &ListedWindow) -> WindowHashes {
    let mut hashes = WindowHashes::default();
    for (part, hash) in range.windows(DIGEST_WINDOW).zip(known.hashes) {
        hashes.append(hash.unwrap_or_else(|| zero_hash(part.len())).into());
    }
    hashes
}
