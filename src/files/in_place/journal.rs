//! The undo journal of an apply in place: a diff from the new point in time back to the old one, beside the image.

use std::fs;
use std::io::{BufWriter, ErrorKind as IoKind};
use std::path::Path;

use crate::diff::{Chain, Compression, DiffHeader, DiffWriter, Layers, PROGRAM, pack};
use crate::error::{Error, ErrorKind, Result};
use crate::files::apply::ApplyOptions;
use crate::files::diffs::{format_of, open_diff, side_of};
use crate::files::{Format, OpenImage};
use crate::image::{ContentDigest, Image as _};
use crate::storage::{AtomicFile, Overwrite, sync_folder_of};

/// Writes the journal of applying `chain` to `base`; when it returns, it stands on stable storage.
pub(super) fn write_journal(
    journal: &Path,
    base: &OpenImage,
    chain: &Chain,
    digest: Option<ContentDigest>,
    options: ApplyOptions<'_>,
) -> Result<()> {
    let file = AtomicFile::new(journal)?;
    write_inverse(&file, base, chain, digest, options)?;
    file.publish(Overwrite::No)
}

/// Writes the diff from the chain's result back to the base.
fn write_inverse(
    file: &AtomicFile,
    base: &OpenImage,
    chain: &Chain,
    digest: Option<ContentDigest>,
    options: ApplyOptions<'_>,
) -> Result<()> {
    let header = DiffHeader {
        base_size: chain.target_size(),
        target_size: base.virtual_size(),
        program: Some(PROGRAM.to_owned()),
        base: chain
            .last()
            .map(|diff| diff.header().target.clone())
            .unwrap_or_default(),
        target: side_of(base),
        undoes: chain.identities(),
    };
    // It holds what the base held: nobody else may read it.
    file.file().take_permissions_of(base.file())?;
    let out = BufWriter::with_capacity(1 << 20, file.file().appender());
    let mut writer = DiffWriter::new(out, file.file().path(), &header)?;
    options.progress.begin(
        "writing the undo journal",
        base.virtual_size().max(chain.target_size()),
    );
    Layers::new(base, chain, options.workers, options.progress).inverse(
        |change| pack(change, Compression::default()),
        |frame| writer.push(&frame),
    )?;
    // Only from the right base does the chain lead to its target.
    let result = chain.target_digest().filter(|_| digest.is_some());
    writer.finish(result, digest)?;
    Ok(())
}

pub(super) fn open_journal(path: &Path, options: ApplyOptions<'_>) -> Result<(Chain, Format)> {
    let journal = open_diff(path, options.progress).map_err(|error| match error.kind() {
        ErrorKind::Damaged | ErrorKind::Usage => error.hint(
            "the undo journal can't be used, and the image may be between two points in time: make it again from a \
             good copy, then remove the journal",
        ),
        _ => error,
    })?;
    let format = format_of(&journal.header().target).ok_or_else(|| {
        Error::damaged("the undo journal doesn't say what format its image has").path(path)
    })?;
    Ok((Chain::new(vec![journal])?, format))
}

/// Keeps or removes the journal: from now on the new point in time is what the image holds.
pub(super) fn close_journal(journal: &Path, undo: Option<&Path>) -> Result<()> {
    if let Some(undo) = undo {
        match fs::rename(journal, undo) {
            Ok(()) => sync_folder_of(undo)?,
            Err(e) if e.kind() == IoKind::CrossesDevices => {
                let copy = AtomicFile::new(undo)?;
                let mut source = fs::File::open(journal)
                    .map_err(|e| Error::io("cannot open", e).path(journal))?;
                std::io::copy(&mut source, &mut copy.file().appender())
                    .map_err(|e| Error::io("cannot copy the undo diff", e).path(undo))?;
                copy.publish(Overwrite::No)?;
                remove(journal)?;
            }
            Err(e) => return Err(Error::io("cannot keep the undo diff", e).path(undo)),
        }
    } else {
        remove(journal)?;
    }
    sync_folder_of(journal)
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(|e| Error::io("cannot remove the undo journal", e).path(path))
}

/// Finds out before anything is written whether the undo diff can be kept at `undo`.
pub(super) fn check_undo(undo: &Path, journal: &Path) -> Result<()> {
    let hint = "choose another name or remove it first";
    if fs::symlink_metadata(undo).is_ok() {
        return Err(Error::usage("the file for the undo diff exists already")
            .path(undo)
            .hint(hint));
    }
    let folder = undo
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = fs::canonicalize(folder.unwrap_or(Path::new("."))).ok();
    let place = folder
        .zip(undo.file_name())
        .map(|(folder, name)| folder.join(name));
    if place.as_deref() == Some(journal) {
        return Err(
            Error::usage("the undo diff can't have the name of the undo journal")
                .path(undo)
                .hint("choose another name"),
        );
    }
    // The journal becomes the undo diff at the very end, which is too late to find out that it can't.
    AtomicFile::begin(undo, Overwrite::No).map(drop)
}
