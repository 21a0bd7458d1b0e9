//! Hashes of the contents of an image, computed in one pass.

use super::{ContentDigest, ContentHasher, Image, Pass, WindowHashes, all_needed};
use crate::error::Result;
use crate::parallel::{Work, Workers};
use crate::progress::Progress;

/// Computes the content digest of an image in parallel, reading only ranges that may hold data.
pub fn content_digest(
    image: &dyn Image,
    workers: &Workers,
    progress: &dyn Progress,
) -> Result<ContentDigest> {
    window_hashes(image, workers, progress, |_, _| Ok(()))
}

/// As [`content_digest`], and passes the window hashes of each [window](super::WINDOW_SIZE) that may hold data to
/// `each`, with the window's first byte, in order.
pub fn window_hashes(
    image: &dyn Image,
    workers: &Workers,
    progress: &dyn Progress,
    mut each: impl FnMut(u64, &WindowHashes) -> Result<()>,
) -> Result<ContentDigest> {
    let mut digest = ContentHasher::new(image.virtual_size());
    let pass = Pass::over([image], Work::new(workers, progress));
    pass.run(
        pass.windows(()),
        all_needed,
        |[mut window], ()| window.hash(),
        |range, hashes| {
            digest.push(range.start(), &hashes);
            each(range.start(), &hashes)
        },
    )?;
    Ok(digest.finish())
}
