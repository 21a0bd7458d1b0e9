//! Copying a virtual disk into a new image: sparse in, sparse out, in parallel.

use super::{
    ContentDigest, ContentHasher, ExtentState, Image, ImageMut, WINDOW_SIZE, WindowHashes,
    data_windows, whole, window::Window,
};
use crate::error::{Error, Result};
use crate::page::PageRange;
use crate::parallel::{Buffers, Workers};
use crate::progress::Progress;

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
    copy_hashed(from, to, options, |_, _| Ok(()))
}

/// As [`copy`], and hands the window hashes of each window that may hold data to `each`, with its first byte, in
/// order, if the digest is asked for.
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
    let buffers = Buffers::new();
    let mut digest = ContentHasher::new(size);
    let mut done = 0;
    options.workers.ordered(
        data_windows([from], whole(from)),
        |range: PageRange| {
            options.progress.check()?;
            let window = Window::read(from, range, &buffers)?;
            let hashes = options.digest.then(|| window.hashes(size));
            let runs = window.nonzero(size);
            Ok((window, hashes, runs))
        },
        |(window, hashes, runs)| {
            window.write(&runs, to)?;
            let range = window.range();
            buffers.give(window.into_bytes());
            if let Some(hashes) = hashes {
                digest.push(range.start(), &hashes);
                each(range.start(), &hashes)?;
            }
            options.progress.advance(range.end() - done);
            done = range.end();
            Ok(())
        },
    )?;
    options.progress.advance(size - done);
    Ok(options.digest.then(|| digest.finish()))
}

/// Hands all bytes of the virtual disk to `sink` in order, reading ahead in parallel.
pub fn stream(
    image: &dyn Image,
    workers: &Workers,
    progress: &dyn Progress,
    mut sink: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let buffers = Buffers::new();
    let zeros = vec![0; 64 << 10];
    workers.ordered(
        whole(image).windows(WINDOW_SIZE).map(Ok),
        |window: PageRange| {
            progress.check()?;
            let mut extents = image.extents(window);
            let is_data = extents.any(|e| e.map_or(true, |e| e.state == ExtentState::Data));
            if !is_data {
                return Ok((window, None));
            }
            let mut bytes = buffers.take(window.buffer_len());
            image.read_exact_at(&mut bytes, window.start())?;
            Ok((window, Some(bytes)))
        },
        |(window, bytes)| {
            if let Some(bytes) = bytes {
                sink(&bytes)?;
                buffers.give(bytes);
            } else {
                for piece in window.windows(zeros.len() as u64) {
                    let len = piece.buffer_len();
                    sink(zeros.get(..len).unwrap_or(&zeros))?;
                }
            }
            progress.advance(window.len());
            Ok(())
        },
    )
}
