//! The base of a point in time in either of its forms: an image of the whole disk, or a diff from nothing.
//!
//! ```text
//! 000001-mon.vhddiff       packed: what an empty disk becomes by it. It is never changed, and goes like any other diff
//! 000001-mon.vhd, .raw     an image, as stores of the first version have it
//! ```

use std::path::Path;
use std::sync::Arc;

use super::Manifest;
use super::layout::{PACKED, base_options};
use crate::diff::{DiffFile, Overlay};
use crate::error::Result;
use crate::files::{EmptyDisk, OpenImage, open_image};
use crate::image::{ContentDigest, Extents, Image, IoHints, Resized};
use crate::page::PageRange;
use crate::storage::File;

/// What a base is stored as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BaseForm {
    /// A diff from nothing.
    #[default]
    Packed,
    /// A dynamic VHD, or a raw image where that is too small: what older programs read.
    Image,
}

/// What the diffs of a point in time are laid over.
#[derive(Debug)]
pub(super) enum Ground {
    /// The image of a base, with the size that the disk had then.
    Image(Box<Resized<OpenImage>>),
    /// Nothing: the first of the diffs is the base.
    Nothing(EmptyDisk),
}

impl Image for Ground {
    fn virtual_size(&self) -> u64 {
        match self {
            Self::Image(image) => image.virtual_size(),
            Self::Nothing(empty) => empty.virtual_size(),
        }
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match self {
            Self::Image(image) => image.read_exact_at(buf, offset),
            Self::Nothing(empty) => empty.read_exact_at(buf, offset),
        }
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        match self {
            Self::Image(image) => image.extents(within),
            Self::Nothing(empty) => empty.extents(within),
        }
    }

    fn io(&self) -> IoHints {
        match self {
            Self::Image(image) => image.io(),
            Self::Nothing(empty) => empty.io(),
        }
    }
}

/// The digest of the empty disk that `diff` would start from if it were a base.
pub(super) fn nothing(diff: &DiffFile) -> ContentDigest {
    ContentDigest::of_empty(diff.header().base_size)
}

/// Whether a diff starts from nothing, so that it can be a base.
pub(super) fn starts_from_nothing(diff: &DiffFile) -> bool {
    diff.trailer().base_digest == Some(nothing(diff))
}

/// The digest of what the diff of `point`, which has no parent, starts from: an empty disk, or the snapshot of another
/// disk as which it begins.
pub(super) fn start_of(point: &Manifest, diff: &DiffFile) -> ContentDigest {
    let like = point.like.as_ref();
    like.map_or_else(|| nothing(diff), |like| like.content_digest)
}

/// What a diff that starts from nothing holds.
pub(super) fn unpacked(diff: DiffFile) -> Result<Overlay<EmptyDisk>> {
    let empty = EmptyDisk::new(diff.header().base_size);
    let digest = nothing(&diff);
    Overlay::new(empty, Some(digest), vec![Arc::new(diff)])
}

/// The base in the file at `path`, by itself, whatever its form.
pub(super) fn open_base(path: &Path) -> Result<Box<dyn Image>> {
    if path.to_string_lossy().ends_with(PACKED) {
        let diff = DiffFile::open_indexed(File::open(path)?)?;
        return Ok(Box::new(unpacked(diff)?));
    }
    Ok(Box::new(open_image(path, &base_options(path))?))
}
