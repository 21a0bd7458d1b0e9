//! Copying a virtual disk into a new image: sparse in, sparse out, in parallel.

use super::windows::Every;
use super::{
    CHUNK_SIZE, ContentDigest, ContentHasher, Image, ImageMut, Pass, WINDOW_SIZE, WindowHashes,
    all_needed,
};
use crate::error::{Error, Result};
use crate::page::PageRange;
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
    let mut digest = ContentHasher::new(from.virtual_size());
    let (hashed, all) = (options.digest, PageRange::covering(0, from.virtual_size()));
    copy_windows(
        (from, all),
        to,
        (options.work, hashed),
        |range, hashes, _| {
            if hashed {
                digest.push(range.start(), hashes);
                each(range.start(), hashes)?;
            }
            Ok(())
        },
    )?;
    Ok(hashed.then(|| digest.finish()))
}

/// Continues a copy whose first `at` bytes, a multiple of [`WINDOW_SIZE`], are in `to` already, and led to the state
/// `digest`. Beyond them `to` reads as zeros. After each window that may hold data has been written, it is passed to `each`
/// with its hashes. Returns the content digest of `from`, as far as what is in `to` already is equal to it.
pub(crate) fn copy_on(
    from: &dyn Image,
    to: &mut dyn ImageMut,
    work: Work<'_>,
    (at, mut digest): (u64, ContentHasher),
    mut each: impl FnMut(PageRange, &WindowHashes, &mut dyn ImageMut) -> Result<()>,
) -> Result<ContentDigest> {
    let rest = PageRange::covering(at, from.virtual_size());
    copy_windows((from, rest), to, (work, true), |range, hashes, to| {
        digest.push(range.start(), hashes);
        each(range, hashes, to)
    })?;
    Ok(digest.finish())
}

/// Writes the windows of `within` to `to`, and passes each to `done` with its hashes, which are empty unless `hashed`.
fn copy_windows(
    (from, within): (&dyn Image, PageRange),
    to: &mut dyn ImageMut,
    (work, hashed): (Work<'_>, bool),
    mut done: impl FnMut(PageRange, &WindowHashes, &mut dyn ImageMut) -> Result<()>,
) -> Result<()> {
    if to.virtual_size() < from.virtual_size() {
        return Err(Error::usage("the copy is smaller than the original")
            .with_found(format_args!("{} bytes", to.virtual_size()))
            .with_expected(format_args!("at least {} bytes", from.virtual_size())));
    }
    let size = from.virtual_size();
    let pass = Pass::over([from], work).within(within).holding(WINDOW_SIZE);
    pass.run(
        pass.windows(()),
        all_needed,
        |[mut window], ()| {
            window.read()?;
            let hashes = if hashed {
                window.hashes(size)
            } else {
                WindowHashes::default()
            };
            let runs = window.nonzero(size);
            Ok((window, hashes, runs))
        },
        |range, (window, hashes, runs)| {
            window.write(&runs, to)?;
            done(range, &hashes, to)
        },
    )
}

/// Passes all bytes of the virtual disk to `sink` in order, reading ahead in parallel.
pub fn stream(
    image: &dyn Image,
    workers: &Workers,
    progress: &dyn Progress,
    mut sink: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let zeros = vec![0; CHUNK_SIZE];
    let pass = Pass::over([image], Work::new(workers, progress)).holding(WINDOW_SIZE);
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
