//! Diffs as files: the information about an image that they contain, and opening them from a path or a stream.

use std::io::{self, Read, Write};
use std::path::Path;

use super::pending::make_place_of;
use super::{Format, Opened, foreign, probe};
use crate::diff::{DiffFile, DiffHeader, MAGIC, Side};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::remedy::{Choice, Remedy, Step, Tool};
use crate::storage::{Access, File, ReadAt as _, spool_beside};
use crate::vhd::{FOOTER_SIZE, Footer};

/// The information about an image that is recorded in a diff.
pub fn side_of(image: &dyn Opened) -> Side {
    image.side()
}

/// The format of the image that a side of a diff describes, if it is recorded and known.
pub fn format_of(side: &Side) -> Option<Format> {
    side.format.as_deref().and_then(|name| name.parse().ok())
}

/// The footer of a diff's target, if it was a VHD.
pub fn target_footer(header: &DiffHeader) -> Result<Option<Footer>> {
    let Some(bytes) = &header.target.footer else {
        return Ok(None);
    };
    let footer = Footer::decode(bytes);
    footer.verify_intact(0).map_err(|error| {
        Error::damaged("the footer in the diff is damaged")
            .with_field("target footer")
            .with_source(error)
            .with_remedy(
                Remedy::new("create the diff again, or write a raw image")
                    .named(" with ")
                    .step(Step::Choose(Choice::OutputRaw), ""),
            )
    })?;
    Ok(Some(footer))
}

/// Opens and verifies the diff at `path`.
pub fn open_diff(path: &Path, progress: &dyn Progress) -> Result<DiffFile> {
    open_diff_file(File::open_locked(path, Access::Read)?, progress)
}

/// Verifies the diff in a file that is open.
pub(super) fn open_diff_file(file: File, progress: &dyn Progress) -> Result<DiffFile> {
    refuse_image(&file)?;
    progress.begin("verifying the diff", file.byte_len()?);
    DiffFile::open(file, progress)
}

/// Reads a diff from a stream, called `name` in messages, into an unnamed file in the folder of `beside`, then verifies
/// it. Nothing of it is used before all of it is verified.
pub fn spool_diff(
    (stream, name): (&mut dyn Read, &Path),
    beside: &Path,
    progress: &dyn Progress,
) -> Result<DiffFile> {
    let fill = |out: &mut dyn Write, name: &Path| {
        let copied = io::copy(stream, out).map(drop);
        copied.map_err(|e| Error::io("cannot store the input", e).with_path(name))
    };
    spool(fill, beside, name, progress)
}

/// As [`spool_diff`], for a diff that `make` writes. The path is its name in messages.
pub fn spool_made(
    make: impl FnOnce(&mut dyn Write, &Path) -> Result<()>,
    beside: &Path,
    progress: &dyn Progress,
) -> Result<DiffFile> {
    let name = make_place_of(beside)?.with_file_name("(temporary file)");
    spool(make, beside, &name, progress)
}

fn spool(
    make: impl FnOnce(&mut dyn Write, &Path) -> Result<()>,
    beside: &Path,
    name: &Path,
    progress: &dyn Progress,
) -> Result<DiffFile> {
    let spool = spool_beside(&make_place_of(beside)?, name)?;
    let mut out = spool.appender();
    make(&mut out, spool.path())?;
    out.flush()
        .map_err(|e| Error::io("cannot store the diff", e).with_path(spool.path()))?;
    drop(out);
    progress.begin("verifying the diff", spool.byte_len()?);
    DiffFile::open(spool, progress)
}

/// Fails with [`Unsupported`](crate::ErrorKind::Unsupported) if the file at `path` has a format that isn't supported,
/// for example if a diff was given as an image.
pub fn refuse_foreign(path: &Path, option: Option<&str>) -> Result<()> {
    probe::refuse_foreign(&File::open(path)?, option)
}

/// Fails if `file` is a VHD image instead of a diff ([`Usage`](crate::ErrorKind::Usage)), or if its format isn't
/// supported.
pub fn refuse_image(file: &File) -> Result<()> {
    let len = file.byte_len()?;
    let mut start = [0; 8];
    if len < MAGIC.len() as u64 {
        return Ok(());
    }
    file.read_exact_at(&mut start, 0)?;
    if start == MAGIC {
        return Ok(());
    }
    let mut end = [0; 8];
    file.read_exact_at(&mut end, len.saturating_sub(FOOTER_SIZE as u64))?;
    if start != *b"conectix" && end != *b"conectix" {
        // A compressed diff has to be decompressed first.
        return foreign::refuse(file);
    }
    Err(Error::usage("this is a VHD image, not a diff")
        .with_path(file.path())
        .with_remedy(
            Remedy::default()
                .named("look at it with ")
                .step(Step::Use(Tool::Info), "look at it as an image")
                .text("; ")
                .step(Step::Use(Tool::Apply), "applying")
                .text(" takes the base image first, then the diffs"),
        ))
}
