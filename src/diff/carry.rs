//! The window hashes of a diff's target, from those of its base: only what the diff touches is hashed again.

use super::file::DiffFile;
use crate::error::Result;
use crate::image::{
    DIGEST_WINDOW, Image, ListedWindow, WINDOW_SIZE, Window, WindowHashes, WindowList, zero_hash,
};
use crate::page::PageRange;
use crate::parallel::{Buffers, Workers};
use crate::progress::Progress;
use crate::storage::ReadAt;

/// Hands the window hashes of `target`, which is what `diff` makes of the disk that `list` is of, to `each`, with the
/// first byte of their window, in order; windows that are left out are zero. Only the windows that the diff touches are
/// read.
pub fn carry_list<S: ReadAt>(
    list: &WindowList<S>,
    diff: &DiffFile,
    target: &dyn Image,
    workers: &Workers,
    progress: &dyn Progress,
    mut each: impl FnMut(u64, &WindowHashes) -> Result<()>,
) -> Result<()> {
    let size = target.virtual_size();
    let (buffers, mut done) = (Buffers::new(), 0);
    workers.ordered(
        windows(list, diff, size),
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
    diff: &'a DiffFile,
    size: u64,
) -> impl Iterator<Item = Result<(PageRange, Option<ListedWindow>)>> + 'a {
    let header = diff.header();
    // With another size the last windows have another length.
    let mut ends: Vec<u64> = [header.base_size, header.target_size]
        .into_iter()
        .filter(|_| header.base_size != header.target_size)
        .map(|end| end - end % WINDOW_SIZE)
        .collect();
    ends.sort_unstable();
    let mut known = list.windows().peekable();
    let mut at = 0;
    std::iter::from_fn(move || {
        let changed = match diff.first_change_from(at) {
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
        let window = window.and_then(Result::ok).filter(|_| changed != start);
        PageRange::new(start, at.min(size)).map(|range| Ok((range, window)))
    })
}

fn unchanged(range: PageRange, known: &ListedWindow) -> WindowHashes {
    let mut hashes = WindowHashes::default();
    for (part, hash) in range.windows(DIGEST_WINDOW).zip(known.hashes) {
        hashes.append(hash.unwrap_or_else(|| zero_hash(part.len())).into());
    }
    hashes
}
