//! Another size for an image in a file, in place.

use std::path::Path;

use super::{Format, OpenOptions, open_image};
use crate::error::{Error, Result};
use crate::image::{CHUNK_SIZE, ExtentState, Image, MAX_VIRTUAL_SIZE};
use crate::page::{PAGE_SIZE, PageRange, is_zero, to_usize};
use crate::progress::Progress;
use crate::storage::{ReadAt as _, WriteAt as _};

/// How to [`resize`].
#[derive(Clone, Copy)]
pub struct ResizeOptions<'a> {
    /// Bytes of the virtual disk.
    pub virtual_size: u64,
    /// Whether what is cut off may hold data.
    pub allow_data_loss: bool,
    /// Look at everything, write nothing.
    pub dry_run: bool,
    /// Whether the file has no holes in the end.
    pub dense: bool,
    /// Told how far the work is.
    pub progress: &'a dyn Progress,
}

impl std::fmt::Debug for ResizeOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("ResizeOptions");
        out.field("virtual_size", &self.virtual_size)
            .field("allow_data_loss", &self.allow_data_loss)
            .field("dry_run", &self.dry_run)
            .field("dense", &self.dense)
            .finish_non_exhaustive()
    }
}

/// What became of a resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resized {
    /// How the image is stored.
    pub format: Format,
    /// Virtual size before, in bytes.
    pub old_size: u64,
    /// Virtual size now, in bytes.
    pub virtual_size: u64,
    /// Whether data was cut off, or would be.
    pub lost_data: bool,
}

/// Grows or cuts the image at `path` in place. What is new reads as zeros. After a crash the image has the old or the
/// new size, and holds what it held.
pub fn resize(path: &Path, open: &OpenOptions, options: ResizeOptions<'_>) -> Result<Resized> {
    let mut image = open_image(
        path,
        &OpenOptions {
            writable: !options.dry_run,
            ..open.clone()
        },
    )?;
    let (old_size, size) = (image.virtual_size(), options.virtual_size);
    check_size(path, size)?;
    if let Some(vhd) = image.vhd() {
        vhd.check_resize(size)?;
    }
    if image.file().is_block_device() {
        return Err(Error::usage("a device can't be given another size")
            .path(path)
            .hint("copy the image into a file with vhd convert, and resize that"));
    }
    let cut = PageRange::covering(size, old_size);
    let data = first_data(&image, cut, options.progress)?;
    if let Some(offset) = data.filter(|_| !options.allow_data_loss) {
        return Err(Error::usage("there is data behind the new end of the disk")
            .path(path)
            .field("virtual disk")
            .offset(offset)
            .found("a page that isn't zero")
            .expected(format_args!("zeros from {size} to {old_size}"))
            .hint("shrink partitions and file systems first, or give --allow-data-loss"));
    }
    let resized = Resized {
        format: image.format(),
        old_size,
        virtual_size: size,
        lost_data: data.is_some(),
    };
    if options.dry_run {
        return Ok(resized);
    }
    image.check_unchanged()?;
    if options.dense {
        let len = image.file().byte_len()?;
        let flat = matches!(image.format(), Format::Raw | Format::Fixed);
        image.file().check_room_for(if flat { size } else { len })?;
    }
    if let Some(vhd) = image.vhd_mut() {
        // The size it has finishes a resize that was interrupted.
        vhd.resize(size)?;
    } else if size != old_size {
        image.file().set_len(size)?;
        image.file().sync()?;
    }
    if options.dense {
        image.file().fill_holes(options.progress)?;
    }
    Ok(resized)
}

fn check_size(path: &Path, size: u64) -> Result<()> {
    if size > 0 && size.is_multiple_of(PAGE_SIZE) && size <= MAX_VIRTUAL_SIZE {
        return Ok(());
    }
    let error = Error::usage("a virtual disk can't have this size")
        .path(path)
        .found(format_args!("{size} bytes"))
        .expected("a multiple of 512 that isn't zero, at most 1 PiB");
    Err(match size.checked_next_multiple_of(PAGE_SIZE) {
        Some(next) if (1..=MAX_VIRTUAL_SIZE).contains(&next) => {
            error.hint(format!("say {next} instead"))
        }
        _ => error,
    })
}

/// Where the first page of `within` lies that isn't zero.
fn first_data(
    image: &dyn Image,
    within: PageRange,
    progress: &dyn Progress,
) -> Result<Option<u64>> {
    progress.begin("looking at what is cut off", within.len());
    let mut bytes = vec![0; CHUNK_SIZE];
    for extent in image.extents(within) {
        let extent = extent?;
        if extent.state == ExtentState::Zero {
            progress.advance(extent.range.len());
            continue;
        }
        for chunk in extent.range.windows(CHUNK_SIZE as u64) {
            progress.check()?;
            let len = chunk.buffer_len();
            let piece = bytes.get_mut(..len).unwrap_or_default();
            image.read_exact_at(piece, chunk.start())?;
            let pages = piece.chunks(to_usize(PAGE_SIZE));
            if let Some((page, _)) = (0..).zip(pages).find(|(_, page)| !is_zero(page)) {
                return Ok(Some(chunk.start() + page * PAGE_SIZE));
            }
            progress.advance(chunk.len());
        }
    }
    Ok(None)
}
