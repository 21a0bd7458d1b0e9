//! The inverse diff, from the new point in time back to the old one. Next to the image it is the undo journal,
//! elsewhere it is what `--undo` keeps.

use std::fs;
use std::path::Path;

use super::job::Job;
use crate::diff::{
    Applier, Chain, ChangeMap, Compression, DiffHeader, DiffReader, DiffWriter, PROGRAM, pack,
};
use crate::error::{Error, ErrorKind, Result};
use crate::files::Format;
use crate::files::apply::options::{ApplyOptions, BaseChecked};
use crate::files::diffs::{format_of, open_diff_file, side_of};
use crate::files::pending::{exists, refuse_foreign_journal};
use crate::image::Image as _;
use crate::storage::{
    Access, AtomicFile, Audience, File, Overwrite, WriteAt as _, refuse_part_of_store,
    sync_folder_of,
};

/// Memory, in bytes, for remembering which pages change between writing the inverse diff and writing the base. If it
/// doesn't suffice, the base is read and compared a second time.
const REMEMBERED: usize = 64 << 20;

/// The results of writing the inverse diff.
pub(super) struct Seen {
    /// How the base was checked.
    pub(super) checked: BaseChecked,
    /// The changes that lead to the result, if they could be remembered.
    pub(super) changes: Option<ChangeMap>,
}

/// Writes the diff from the job's result back to its base into `file`, which has no name yet. Returns `None` if the
/// base already holds the result.
pub(super) fn write(
    file: &AtomicFile,
    job: &Job<'_>,
    compression: Compression,
) -> Result<Option<Seen>> {
    let (base, chain, options) = (&job.base, &job.chain, job.options);
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
    let out = file.file().appender();
    let mut writer = DiffWriter::new(out, file.file().path(), &header)?;
    options.work.progress.begin(
        "writing the undo journal",
        base.virtual_size().max(chain.target_size()),
    );
    let layers = Applier::new(base, chain, options.work.workers, options.work.progress);
    let (touched, changes) = layers.checking(job.check()).inverse_remembering(
        REMEMBERED,
        |change| pack(change, compression),
        |frame| writer.push(&frame),
    )?;
    let Some(checked) = job.settle(&touched)? else {
        return Ok(None);
    };
    // Only computed digests are recorded, not those that the diffs contain for their target.
    writer.finish(job.found.target, job.found.digest)?;
    Ok(Some(Seen { checked, changes }))
}

/// Opens and verifies the undo journal at `path`, which belongs to the open `image`. Also returns the format of the image.
pub(super) fn open_journal(
    path: &Path,
    image: &File,
    options: ApplyOptions<'_>,
) -> Result<(Chain, Format)> {
    let file = File::open_locked(path, Access::Read)?;
    refuse_foreign_journal(&file, image)?;
    let journal = open_diff_file(file, options.work.progress).map_err(|error| match error.kind() {
        ErrorKind::Damaged | ErrorKind::Usage => error.override_hint(
            "the undo journal can't be used, and the image may be between two points in time: restore it from a \
             good copy, then remove the journal",
        ),
        _ => error,
    })?;
    let format = format_of(&journal.header().target).ok_or_else(|| {
        Error::damaged("the undo journal doesn't name the format of its image").with_path(path)
    })?;
    Ok((Chain::new(vec![journal])?, format))
}

/// Checks, before anything is written, whether the undo diff of `chain` can be kept at `undo`. It may exist already if
/// an apply of the same diffs was killed before it changed the base: [`is_kept`] compares its bytes.
pub(super) fn check_place(undo: &Path, journal: &Path, chain: &Chain) -> Result<()> {
    refuse_part_of_store(undo)?;
    if fs::symlink_metadata(undo).is_ok() {
        let left = File::open(undo).and_then(|file| {
            let undoes = DiffReader::new(file.reader(), undo)?
                .header()
                .undoes
                .clone();
            Ok(!undoes.is_empty() && chain.identities().ends_with(&undoes))
        });
        return if left.unwrap_or(false) {
            Ok(())
        } else {
            Err(taken(undo))
        };
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
                .with_path(undo)
                .with_hint("choose another name"),
        );
    }
    // It gets its name at the very end, which would be too late to find out that it can't.
    AtomicFile::begin(undo, Overwrite::No, Audience::default()).map(drop)
}

fn taken(undo: &Path) -> Error {
    Error::usage("the file for the undo diff already exists")
        .with_path(undo)
        .with_hint("choose another name or remove it first")
}

/// Returns whether the undo diff `file` is already at `place`, on stable storage, where an interrupted apply left it.
/// Fails if something else is there.
pub(super) fn is_kept(file: &File, place: &Path) -> Result<bool> {
    if !exists(place)? {
        return Ok(false);
    }
    let there = File::open(place)?;
    if !there.holds_the_same_as(file)? {
        return Err(taken(place));
    }
    there.sync()?;
    sync_folder_of(place)?;
    Ok(true)
}
