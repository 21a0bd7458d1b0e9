//! Comparison with an image whose window hashes are known: it is read only where they differ.

use std::cell::Cell;

use super::compare::{
    ChangeCollector, Collected, CompareOptions, Comparison, Counts, Tally, WindowChange,
    window_memory,
};
use crate::error::Result;
use crate::image::{
    CHUNK_SIZE, ContentHasher, DIGEST_WINDOW, Image, Listed, ListedWindow, Pass, SharedCursor,
    WINDOW_SIZE, Window, WindowHashes, WindowList, zero_hash,
};
use crate::page::PageRange;
use crate::parallel::{Buffers, Work};
use crate::storage::ReadAt;

/// As [`compare`](super::compare()), with the window hashes of the base at hand: the target is read and hashed, but for what
/// is known to be equal, and the base only in the windows whose hashes differ. The target's window hashes are handed to `each`, with the first byte of
/// their window, in order; omitted windows are zero.
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
    let pass = Pass::over(
        [target],
        Work::new(options.work.workers, options.work.progress),
    )
    .holding(WINDOW_SIZE + window_memory(options.payload, false));
    let sizes = [base.virtual_size(), size];
    let shared = Cell::new(0);
    let windows = pass.windows((
        Listed::new(list.windows()),
        SharedCursor::new(options.equal),
    ));
    let windows = windows.map(|item| {
        let (window, (data, (known, equal))) = item?;
        let known = Known::new(window, known, &equal, sizes);
        shared.set(shared.get() + known.spare.iter().map(|part| part.len()).sum::<u64>());
        Ok((window, (data, known)))
    });
    pass.run(
        windows,
        |known: &Known, _| known.spare.as_slice(),
        |[mut window], known| {
            window.fetch(WINDOW_SIZE, &known.spare)?;
            let hashes = known.hashes(&window, size);
            let known = known.listed;
            let different = different(window.range(), known, &hashes, [base.virtual_size(), size]);
            let change = changes(base, window, &different, options.payload, pass.buffers())?;
            let counts = Counts::of(&change.changes);
            let packed = if change.changes.is_empty() {
                None
            } else {
                Some(pack(change)?)
            };
            Ok((counts, packed, hashes))
        },
        |range, (counts, packed, hashes)| {
            tally.add(&counts);
            digest.push(range.start(), &hashes);
            each(range.start(), &hashes)?;
            packed.map_or(Ok(()), &mut sink)
        },
    )?;
    let mut total = tally.total;
    total.known_bytes = shared.get();
    if options.digests {
        total.base_digest = Some(list.digest());
        total.target_digest = Some(digest.finish());
    }
    Ok(total)
}

/// Knowledge about a window before it is read.
struct Known {
    listed: Option<ListedWindow>,
    /// The digest windows of the target that hold what the base holds, so that their hashes are known.
    spare: Vec<PageRange>,
}

impl Known {
    fn new(
        window: PageRange,
        listed: Option<ListedWindow>,
        equal: &[PageRange],
        sizes: [u64; 2],
    ) -> Self {
        let end = sizes.map(|size| size.min(window.end()));
        // A digest window at the end is as long as the disk lets it be.
        let parts = PageRange::covering(window.start(), end[1]).windows(DIGEST_WINDOW);
        let is_equal = |part: &PageRange| {
            let inside =
                |equal: &PageRange| equal.start() <= part.start() && part.end() <= equal.end();
            part.end().min(sizes[0]) == part.end().min(sizes[1]) && equal.iter().any(inside)
        };
        Self {
            listed,
            spare: parts.filter(is_equal).collect(),
        }
    }

    /// The hashes of the target: computed of what was read, else those of the base.
    fn hashes(&self, window: &Window<'_>, size: u64) -> WindowHashes {
        if self.spare.is_empty() {
            return window.hashes(size);
        }
        let range = PageRange::covering(window.range().start(), window.range().end().min(size));
        let known = self.listed.map(|listed| listed.hashes).unwrap_or_default();
        let mut hashes = WindowHashes::default();
        for (part, known) in range.windows(DIGEST_WINDOW).zip(known) {
            if self.spare.contains(&part) {
                hashes.append(known.unwrap_or_else(|| zero_hash(part.len())).into());
            } else {
                hashes.append(window.hash_of(part));
            }
        }
        hashes
    }
}

/// The digest windows of `range` whose hashes differ between a disk of `base_size` with the hashes `known` and one of
/// `size` with `hashes`.
fn different(
    range: PageRange,
    known: Option<ListedWindow>,
    hashes: &WindowHashes,
    [base_size, size]: [u64; 2],
) -> Vec<PageRange> {
    let parts = range.windows(DIGEST_WINDOW).zip(hashes.as_slice());
    let known = known.map(|known| known.hashes).unwrap_or_default();
    let parts = parts.zip(known);
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
    mut window: Window<'_>,
    parts: &[PageRange],
    payload: bool,
    buffers: &Buffers,
) -> Result<WindowChange> {
    let range = window.range();
    let mut found = ChangeCollector::new(range, Collected::all_if(payload));
    if parts.is_empty() {
        return Ok(found.finish());
    }
    let mut before = Window::of(base, range, buffers)?;
    for part in parts {
        window.fill(*part)?;
        for chunk in part.windows(CHUNK_SIZE as u64) {
            found.add(chunk.start(), before.look_at(chunk)?, window.piece(chunk))?;
        }
    }
    Ok(found.finish())
}
