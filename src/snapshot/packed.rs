//! Writing packed bases: all of an image as a diff from nothing.

use std::io::Write;
use std::path::PathBuf;

use super::point::side;
use super::restore::check_content;
use super::windows::Each;
use super::{PointImage, Work};
use crate::diff::{Compression, DiffOptions, Side, Written, write_diff_listed};
use crate::error::Result;
use crate::files::{EmptyDisk, Opened};
use crate::image::{ContentDigest, Image, NoneShared, WindowList, WindowListWriter};
use crate::storage::{File, Memory, ReadAt};

/// How bases are packed unless something else is wanted: they are written once and kept for long.
pub(super) const BASE_COMPRESSION: Compression = Compression::Zstd(3);

/// Writes all of `image` as a diff from nothing to `out`. Its window hashes are handed to `each`.
pub(super) fn write_packed<W: Write>(
    (image, side): (&dyn Opened, Side),
    (out, name): (W, PathBuf),
    compression: Option<Compression>,
    work: Work<'_>,
    each: &mut Each<'_>,
) -> Result<Written<W>> {
    let size = image.virtual_size();
    let empty = EmptyDisk::new(size);
    let options = DiffOptions {
        work,
        compression: compression.unwrap_or(BASE_COMPRESSION),
        digests: true,
        equal: &NoneShared,
        confirm: &|| image.check_unchanged(),
    };
    let before = (&empty as &dyn Image, empty.side());
    write_diff_listed(
        &empty_list(size)?,
        before,
        (image, side),
        (out, name),
        options,
        each,
    )
}

/// Packs a base that is an image into `out`, a new file that is called `name` in messages, and checks that it is what
/// its manifest says. Returns its length and its identity.
pub(super) fn pack_point(
    image: &PointImage,
    (out, name): (&File, PathBuf),
    work: Work<'_>,
) -> Result<(u64, ContentDigest)> {
    let side = side(image.manifest());
    let out = (out.appender(), name);
    let written = write_packed((image, side), out, None, work, &mut |_, _| Ok(()))?;
    if let Some(found) = written.trailer.target_digest {
        check_content(image, found)?;
    }
    Ok((written.len, ContentDigest(written.digest)))
}

/// The window hashes of an empty disk: none.
fn empty_list(size: u64) -> Result<WindowList<impl ReadAt>> {
    let mut bytes = Vec::new();
    WindowListWriter::new(&mut bytes, "the empty disk", size)?.finish()?;
    WindowList::open(Memory::new(bytes))
}
