//! Comparison with an image whose window hashes are known: it is read only where they differ.

use super::compare::{
    ChangeCollector, Collected, CompareOptions, Comparison, Counts, Tally, WindowChange,
};
use crate::error::Result;
use crate::image::{
    CHUNK_SIZE, ContentHasher, DIGEST_WINDOW, Image, Listed, ListedWindow, Pass, Window,
    WindowHashes, WindowList, all_needed, zero_hash,
};
use crate::page::PageRange;
use crate::parallel::{Buffers, Work};
use crate::storage::ReadAt;

/// As [`compare`](super::compare()), for a base whose window hashes are known: the target is read and hashed, and the
/// base only in the windows whose hashes differ. `each` receives the target's window hashes with the first byte of
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
    let pass = Pass::over([target], Work::new(options.workers, options.progress));
    pass.run(
        pass.windows(Listed::new(list.windows())),
        all_needed,
        |[mut window], known| {
            window.read()?;
            let hashes = window.hashes(size);
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
    if options.digests {
        total.base_digest = Some(list.digest());
        total.target_digest = Some(digest.finish());
    }
    Ok(total)
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
