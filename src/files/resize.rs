//! Resizes an image in a file, in place.

use std::path::Path;

use super::relatives::{Orphans, children_of};
use super::{Format, OpenOptions, open_image};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{BackupMove, CHUNK_SIZE, ExtentState, Gpt, Image, MAX_VIRTUAL_SIZE, RawImage};
use crate::page::{PAGE_SIZE, PageRange, is_zero, part_mut, to_usize};
use crate::progress::Progress;
use crate::remedy::{Choice, Remedy, Step, Tool};
use crate::storage::{ReadAt as _, WriteAt as _, refuse_part_of_store};
use crate::vhd::FOOTER_SIZE;

/// Options for [`resize`].
#[derive(Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct ResizeOptions<'a> {
    /// The new size of the virtual disk in bytes.
    pub virtual_size: u64,
    /// Whether the part that is removed may hold data.
    pub allow_data_loss: bool,
    /// Check everything, but write nothing.
    pub dry_run: bool,
    /// Whether to fill all holes of the file at the end.
    pub dense: bool,
    /// Whether to move the backup of a GPT to the end of the disk.
    pub fix_gpt: bool,
    /// How to treat images that have this one as their parent, at a size other than its new one.
    pub orphans: Orphans,
    /// Receives progress.
    pub progress: &'a dyn Progress,
}

impl std::fmt::Debug for ResizeOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("ResizeOptions");
        out.field("virtual_size", &self.virtual_size)
            .field("allow_data_loss", &self.allow_data_loss)
            .field("dry_run", &self.dry_run)
            .field("dense", &self.dense)
            .field("fix_gpt", &self.fix_gpt)
            .field("orphans", &self.orphans)
            .finish_non_exhaustive()
    }
}

/// The outcome of a resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resized {
    /// The format of the image.
    pub format: Format,
    /// Virtual size before, in bytes.
    pub old_size: u64,
    /// Virtual size now, in bytes.
    pub virtual_size: u64,
    /// Whether data was removed, or would be.
    pub lost_data: bool,
    /// The location of the backup of the disk's GPT; `None` if the disk has no intact GPT.
    pub gpt: Option<GptBackup>,
}

/// The location of the backup of a GPT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GptBackup {
    /// At the end of the disk, where it belongs.
    AtEnd,
    /// It was moved there, or would be.
    Moved,
    /// Somewhere else on the disk, or beyond its end.
    Elsewhere,
}

impl GptBackup {
    /// `at_end`, `moved` or `elsewhere`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AtEnd => "at_end",
            Self::Moved => "moved",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// Plans the writes that, if `fix` is set, move the backup of the GPT to the end of a disk that will have `size` bytes,
/// and returns its location afterwards. Without `fix`, a damaged table is ignored.
pub fn plan_gpt(
    image: &dyn Image,
    size: u64,
    fix: bool,
) -> Result<(Option<GptBackup>, Option<BackupMove>)> {
    let found = match Gpt::find(image) {
        Err(error) if !fix && error.kind() == ErrorKind::Damaged => return Ok((None, None)),
        found => found?,
    };
    let Some(gpt) = found else {
        return Ok((None, None));
    };
    if !fix {
        let at_end = gpt.is_at_end_of(size);
        let place = if at_end {
            GptBackup::AtEnd
        } else {
            GptBackup::Elsewhere
        };
        return Ok((Some(place), None));
    }
    let wanted = gpt.move_backup(image, size)?;
    let place = wanted
        .as_ref()
        .map_or(GptBackup::AtEnd, |_| GptBackup::Moved);
    Ok((Some(place), wanted))
}

/// Grows or shrinks the image at `path` in place. The new part reads as zeros. After a crash the image has the old or
/// the new size, and has kept its contents.
pub fn resize(path: &Path, open: &OpenOptions, options: ResizeOptions<'_>) -> Result<Resized> {
    refuse_part_of_store(path)?;
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
            .with_path(path)
            .with_remedy(
                Remedy::new("copy the image into a file")
                    .named(" with ")
                    .step(Step::Use(Tool::Convert), "")
                    .text(", and resize that"),
            ));
    }
    let (gpt, wanted) = plan_gpt(&image, size, options.fix_gpt).map_err(|e| e.with_path(path))?;
    let cut = PageRange::covering(size, old_size);
    // The backup isn't lost if it is written again.
    let backup = if options.fix_gpt {
        backup_of_gpt(&image)?
    } else {
        PageRange::default()
    };
    let data = first_data(&image, cut, backup, options.progress)?;
    if let Some(offset) = data.filter(|_| !options.allow_data_loss) {
        return Err(Error::usage("there is data after the new end of the disk")
            .with_path(path)
            .with_field("virtual disk")
            .with_offset(offset)
            .with_found("a nonzero page")
            .with_expected(format_args!("zeros from {size} to {old_size}"))
            .with_remedy(
                Remedy::new("shrink partitions and file systems first, or ")
                    .named("give ")
                    .step(Step::Choose(Choice::AllowDataLoss), "allow data to be lost"),
            ));
    }
    let changes = (size != old_size || wanted.is_some()) && options.orphans == Orphans::Refuse;
    if changes {
        let mut children = children_of(&image, &open.parents).sure(options.orphans)?;
        // A parent that was resized alone is given back the size of its children.
        let mends = data.is_none() && wanted.is_none();
        children
            .found
            .retain(|(_, of_child)| !mends || *of_child != size);
        children.refuse(path)?;
    }
    let resized = Resized {
        format: image.format(),
        old_size,
        virtual_size: size,
        lost_data: data.is_some(),
        gpt,
    };
    if options.dry_run {
        return Ok(resized);
    }
    image.check_unchanged()?;
    if size > old_size {
        // Others grow with what is stored.
        let end = match image.format() {
            Format::Raw => size,
            Format::Fixed => size.saturating_add(FOOTER_SIZE as u64),
            Format::Dynamic | Format::Differencing => image.file().byte_len()?,
        };
        image.file().check_limit(end)?;
    }
    if options.dense {
        let len = image.file().byte_len()?;
        let flat = matches!(image.format(), Format::Raw | Format::Fixed);
        image.file().check_room_for(if flat { size } else { len })?;
    }
    if let Some(wanted) = wanted.as_ref().filter(|_| size < old_size) {
        // Written before the old backup is removed.
        wanted.write(&mut image)?;
    }
    if let Some(vhd) = image.vhd_mut() {
        // Resizing to the current size finishes an interrupted resize.
        vhd.resize(size)?;
    } else if size != old_size {
        image.file().set_len(size)?;
        image.file().sync()?;
    }
    if let Some(wanted) = wanted.as_ref().filter(|_| size >= old_size) {
        if image.vhd().is_some() {
            wanted.write(&mut image)?;
        } else {
            // Reopened in its current state, since it was opened with another size.
            let file = image.file().another_handle();
            wanted.write(&mut RawImage::with_size(file, size))?;
        }
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
        .with_path(path)
        .with_found(format_args!("{size} bytes"))
        .with_expected("a nonzero multiple of 512, at most 1 PiB");
    Err(match size.checked_next_multiple_of(PAGE_SIZE) {
        Some(next) if (1..=MAX_VIRTUAL_SIZE).contains(&next) => {
            error.with_hint(format!("use {next}"))
        }
        _ => error,
    })
}

/// The range of the last intact copy of a GPT on the disk. After an interrupted shrink, that copy may no longer be the
/// registered backup.
fn backup_of_gpt(image: &dyn Image) -> Result<PageRange> {
    let Some(gpt) = Gpt::find(image)? else {
        return Ok(PageRange::default());
    };
    let at_end = gpt.copy_at_end(image)?;
    Ok(match at_end {
        Some(copy) => copy,
        None => gpt.backup(image)?.unwrap_or_default(),
    })
}

/// The first nonzero page of `within`, outside of `allowed`.
fn first_data(
    image: &dyn Image,
    within: PageRange,
    allowed: PageRange,
    progress: &dyn Progress,
) -> Result<Option<u64>> {
    progress.begin("checking the part to be removed", within.len());
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
            let piece = part_mut(&mut bytes, ..len)?;
            image.read_exact_at(piece, chunk.start())?;
            let pages = piece.chunks(to_usize(PAGE_SIZE));
            let mut data = (0..)
                .zip(pages)
                .filter(|(_, page)| !is_zero(page))
                .map(|(page, _)| chunk.start() + page * PAGE_SIZE);
            let found = data.find(|at| !(allowed.start()..allowed.end()).contains(at));
            if found.is_some() {
                return Ok(found);
            }
            progress.advance(chunk.len());
        }
    }
    Ok(None)
}
