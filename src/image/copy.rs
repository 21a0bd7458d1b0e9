//! Copying a virtual disk into a new image: sparse in, sparse out, in parallel.

use super::windows::Every;
use super::{
    CHUNK_SIZE, ContentDigest, ContentHasher, Image, ImageMut, Pass, WindowHashes, all_needed,
};
use crate::error::{Error, Result};
use crate::parallel::{Work, Workers};
use crate::progress::Progress;

/// Options for [`copy`].
#[derive(Debug, Clone, Copy)]
pub struct CopyOptions<'a> {
    /// The threads, and the receiver of progress.
    pub work: Work<'a>,
    /// Whether to compute the content digest as well.
    pub digest: bool,
}

/// Writes all of `from` into `to`, which is new, reads as zeros and is at least as large. Returns the content digest of
/// `from` if requested.
pub fn copy(
    from: &dyn Image,
    to: &mut dyn ImageMut,
    options: CopyOptions<'_>,
) -> Result<Option<ContentDigest>> {
    copy_hashed(from, to, options, |_, _| Ok(()))
}

/// As [`copy`], and if the digest is requested, passes the window hashes of each window that may hold data to `each`,
/// with the window's first byte, in order.
pub fn copy_hashed(
    from: &dyn Image,
    to: &mut dyn ImageMut,
    options: CopyOptions<'_>,
    mut each: impl FnMut(u64, &WindowHashes) -> Result<()>,
) -> Result<Option<ContentDigest>> {
    if to.virtual_size() < from.virtual_size() {
        return Err(Error::usage("the copy is smaller than the original")
            .with_found(format_args!("{} bytes", to.virtual_size()))
            .with_expected(format_args!("at least {} bytes", from.virtual_size())));
    }
    let size = from.virtual_size();
    let mut digest = ContentHasher::new(size);
    let pass = Pass::over(
        [from],
        Work::new(options.work.workers, options.work.progress),
    );
    pass.run(
        pass.windows(()),
        all_needed,
        |[mut window], ()| {
            window.read()?;
            let hashes = options.digest.then(|| window.hashes(size));
            let runs = window.nonzero(size);
            Ok((window, hashes, runs))
        },
        |range, (window, hashes, runs)| {
            window.write(&runs, to)?;
            if let Some(hashes) = hashes {
                digest.push(range.start(), &hashes);
                each(range.start(), &hashes)?;
            }
            Ok(())
        },
    )?;
    Ok(options.digest.then(|| digest.finish()))
}

/// Passes all bytes of the virtual disk to `sink` in order, reading ahead in parallel.
pub fn stream(
    image: &dyn Image,
    workers: &Workers,
    progress: &dyn Progress,
    mut sink: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let zeros = vec![0; CHUNK_SIZE];
    let pass = Pass::over([image], Work::new(workers, progress));
    pass.run(
        pass.windows(Every),
        all_needed,
        |[mut window], ()| {
            if !window.data().is_empty() {
                window.read()?;
                window.fill(window.range())?;
            }
            Ok(window)
        },
        |range, window| {
            if !window.data().is_empty() {
                return sink(window.piece(range));
            }
            let mut pieces = range.windows(CHUNK_SIZE as u64);
            pieces.try_for_each(|piece| sink(&zeros[..piece.buffer_len()]))
        },
    )
}
