//! A point in time as an image file again.

use super::{PointImage, Work};
use crate::error::{Error, Result};
use crate::files::{Format, NewImage, NewImageOptions, Output, Source as _};
use crate::image::{ContentDigest, CopyOptions, Image as _, copy};

/// Writes a point in time into a new image, which appears only when its content digest is the one that the manifest
/// says. A fixed VHD comes out byte for byte.
pub fn restore(point: &PointImage, output: Output<'_>, work: Work<'_>) -> Result<()> {
    let mut new = NewImage::create(
        output.path,
        &NewImageOptions {
            format: output.format,
            virtual_size: point.virtual_size(),
            block_size: point
                .block_size()
                .filter(|_| output.format == Format::Dynamic),
            identity: point.footer().cloned(),
            parent: None,
            overwrite: output.overwrite,
        },
    )?;
    work.progress.begin("restoring", point.virtual_size());
    let options = CopyOptions {
        workers: work.workers,
        progress: work.progress,
        digest: true,
    };
    let found = copy(point, new.image_mut(), options)?;
    if let Some(found) = found {
        check_content(point, found)?;
    }
    point.check_unchanged()?;
    new.publish()
}

/// An error if what was read of a point in time isn't what its manifest says.
pub fn check_content(point: &PointImage, found: ContentDigest) -> Result<()> {
    let expected = point.manifest().content_digest;
    if found == expected {
        return Ok(());
    }
    Err(
        Error::damaged("this snapshot is not what its manifest says")
            .path(point.path())
            .field("content digest")
            .found(found)
            .expected(expected)
            .hint("vhd snapshot verify --read-data says which file is damaged"),
    )
}
