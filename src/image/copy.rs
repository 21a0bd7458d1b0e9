//! Copying a virtual disk into a new image: sparse in, sparse out, in parallel.

use super::{ContentDigest, ContentHasher, Image, ImageMut, WindowHasher, data_windows, whole};
use crate::error::{Error, Result};
use crate::page::{PageRange, is_zero};
use crate::parallel::{Buffers, Workers};
use crate::progress::Progress;

/// Zeros are left out in aligned blocks of this size: the block of most file systems.
const BLOCK: u64 = 4096;

/// How to [`copy`].
#[derive(Clone, Copy)]
pub struct CopyOptions<'a> {
    /// The threads that read and hash.
    pub workers: &'a Workers,
    /// Told what is done.
    pub progress: &'a dyn Progress,
    /// Whether to compute the content digest on the way.
    pub digest: bool,
}

impl std::fmt::Debug for CopyOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyOptions")
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// Writes all of `from` into `to`, which is new, reads as zeros and is at least as large. Returns the content
/// digest of `from` if asked for.
pub fn copy(
    from: &dyn Image,
    to: &mut dyn ImageMut,
    options: CopyOptions<'_>,
) -> Result<Option<ContentDigest>> {
    if to.virtual_size() < from.virtual_size() {
        return Err(Error::usage("the copy is smaller than the original")
            .found(format_args!("{} bytes", to.virtual_size()))
            .expected(format_args!("at least {} bytes", from.virtual_size())));
    }
    let buffers = Buffers::new();
    let mut digest = ContentHasher::new(from.virtual_size());
    let mut done = 0;
    options.workers.ordered(
        data_windows([from], whole(from)),
        |window: PageRange| {
            options.progress.check()?;
            let mut bytes = buffers.take(usize::try_from(window.len()).unwrap_or(0));
            from.read_exact_at(&mut bytes, window.start())?;
            let hashes = options.digest.then(|| {
                let mut hasher = WindowHasher::new();
                hasher.update(&bytes);
                hasher.finish()
            });
            Ok((window, bytes, hashes))
        },
        |(window, bytes, hashes)| {
            write_nonzero(to, window, &bytes)?;
            buffers.give(bytes);
            if let Some(hashes) = hashes {
                digest.push(window.start(), &hashes);
            }
            options.progress.advance(window.end() - done);
            done = window.end();
            Ok(())
        },
    )?;
    options.progress.advance(from.virtual_size() - done);
    Ok(options.digest.then(|| digest.finish()))
}

/// Writes those 4 KiB blocks of `bytes` that aren't zero to `range` of an image that reads as zeros there.
pub fn write_nonzero(to: &mut dyn ImageMut, range: PageRange, bytes: &[u8]) -> Result<()> {
    let slice = |piece: PageRange| {
        let at = |offset: u64| usize::try_from(offset - range.start()).unwrap_or(usize::MAX);
        bytes
            .get(at(piece.start())..at(piece.end()))
            .unwrap_or_default()
    };
    let mut run: Option<PageRange> = None;
    for block in range.windows(BLOCK) {
        let start = run.map_or(block.start(), PageRange::start);
        if !is_zero(slice(block)) {
            run = PageRange::new(start, block.end());
        } else if let Some(run) = run.take() {
            to.update(run, slice(run))?;
        }
    }
    run.map_or(Ok(()), |run| to.update(run, slice(run)))
}
