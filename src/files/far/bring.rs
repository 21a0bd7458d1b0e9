//! Makes a blob equal to an image, by writing only the differences.

use crate::blob::BlobFile;
use crate::diff::{CompareOptions, Comparison, WindowChange, compare};
use crate::error::Result;
use crate::image::{Image, ImageMut as _, RawImage, SharedExtents};
use crate::parallel::{Work, Workers};
use crate::progress::Progress;

/// Options for comparing a blob with an image.
#[derive(Clone, Copy)]
pub(super) struct Bring<'a> {
    pub(super) workers: &'a Workers,
    pub(super) progress: &'a dyn Progress,
    /// The ranges where the two are known to be equal.
    pub(super) equal: &'a dyn SharedExtents,
    /// Whether to compute the digest of the image.
    pub(super) digest: bool,
}

impl Bring<'_> {
    fn options(&self, payload: bool) -> CompareOptions<'_> {
        CompareOptions {
            work: Work::new(self.workers, self.progress),
            digests: self.digest,
            payload,
            equal: self.equal,
        }
    }

    /// Makes the first bytes of `blob` equal to `image`, which is not longer than the blob.
    pub(super) fn run(self, blob: &BlobFile, image: &dyn Image) -> Result<Comparison> {
        let size = image.virtual_size();
        let (held, mut written) = (view(blob, size), view(blob, size));
        let write = |change: WindowChange| change.write_to(&mut written);
        let done = compare(&held, image, self.options(true), Ok, write)?;
        written.flush()?;
        Ok(done)
    }

    /// Returns whether the first bytes of `blob` equal `image`.
    pub(super) fn is_done(self, blob: &BlobFile, image: &dyn Image) -> Result<bool> {
        let held = view(blob, image.virtual_size());
        let found = compare(&held, image, self.options(false), Ok, |_| Ok(()))?;
        Ok(found.is_same())
    }
}

/// The first bytes of a blob as a disk.
pub(super) fn view(blob: &BlobFile, size: u64) -> RawImage<&BlobFile> {
    RawImage::with_size(blob, size)
}
