//! Derives the window hashes of the target of diffs from those of their base: only windows that the diffs touch are
//! hashed again.

use std::sync::Arc;

use super::coverage::ChangedWindows;
use super::file::DiffFile;
use crate::error::Result;
use crate::image::{
    DIGEST_WINDOW, Image, Listed, ListedWindow, WINDOW_SIZE, Window, WindowHashes, WindowList,
    Windows, whole, zero_hash,
};
use crate::page::PageRange;
use crate::parallel::{Buffers, Work, Workers};
use crate::progress::Progress;
use crate::storage::ReadAt;

/// Passes the window hashes of `target`, the result of applying the consecutive `diffs` to the disk of `list`, to
/// `each`, with the first byte of their window, in order; omitted windows are zero. Only the windows that some diff
/// touches, and those after the smallest size on the way, are read.
pub fn update_window_hashes<S: ReadAt>(
    list: &WindowList<S>,
    diffs: &[Arc<DiffFile>],
    target: &dyn Image,
    workers: &Workers,
    progress: &dyn Progress,
    mut each: impl FnMut(u64, &WindowHashes) -> Result<()>,
) -> Result<()> {
    let size = target.virtual_size();
    let buffers = Buffers::new();
    let changed = ChangedWindows::of(diffs);
    // Truncated data is zero if the disk grew again.
    let cut = changed.first_end().unwrap_or(u64::MAX);
    let windows = Windows::within(whole(target), (Listed::new(list.windows()), changed));
    let windows = windows.map(|window| {
        let (range, (known, changed)) = window?;
        Ok((range, known.filter(|_| !changed && range.start() < cut)))
    });
    let hints = target.io();
    let request = if hints.is_far() {
        hints.request.into()
    } else {
        WINDOW_SIZE
    };
    let cost = WINDOW_SIZE + u64::from(hints.window_memory);
    Work::new(workers, progress).pass(
        size,
        (hints.ahead(workers), |_: &_| cost),
        windows,
        |range, known| {
            if let Some(known) = known {
                return Ok(Err(known));
            }
            let mut window = Window::of(target, range, &buffers)?;
            window.fetch(request, &[])?;
            Ok(Ok(window))
        },
        |range, window| match window {
            Ok(window) => Ok(window.hashes(size)),
            Err(known) => Ok(unchanged(range, &known)),
        },
        |range, hashes| each(range.start(), &hashes),
    )
}

fn unchanged(range: PageRange, known: &ListedWindow) -> WindowHashes {
    let mut hashes = WindowHashes::default();
    for (part, hash) in range.windows(DIGEST_WINDOW).zip(known.hashes) {
        hashes.append(hash.unwrap_or_else(|| zero_hash(part.len())).into());
    }
    hashes
}
