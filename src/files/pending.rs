//! Files next to an image that is being changed in place: they block it, and show how to proceed.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::diff::DiffReader;
use crate::error::{Error, ErrorKind, Result, quoted};
use crate::remedy::{Choice, Remedy, SnapshotJob, Step, Tool};
use crate::storage::{File, beside, create_folder, own_user, remove_if_there};
use crate::text::shown;

/// Suffix of the undo journal of an image.
const JOURNAL_SUFFIX: &str = ".undo-journal";

/// Suffix of the diff that is being merged into an image.
const MERGE_SUFFIX: &str = ".merge-diff";

/// The folder for the journals of block devices, unless [another one](keep_journals_of_devices_in) is set.
pub const STATE_FOLDER: &str = "/var/lib/vhdkit";

static NAMED_FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Sets the folder for the undo journals of block devices, instead of [`STATE_FOLDER`]: next to a device there is no
/// persistent storage. Applies to the whole process, from the first call on.
pub fn keep_journals_of_devices_in(folder: PathBuf) {
    let _ = NAMED_FOLDER.set(folder);
}

/// The path of the undo journal of the image at `path`: next to the file itself, wherever a symbolic link to it is. The
/// journal of a block device is in a separate folder and named after the device.
pub fn journal_path(path: &Path) -> PathBuf {
    beside(&place_of(path), JOURNAL_SUFFIX)
}

/// The path of the diff that a merge writes next to the parent at `path` before it changes that.
pub(super) fn merge_diff_path(path: &Path) -> PathBuf {
    beside(&place_of(path), MERGE_SUFFIX)
}

/// The path of the undo journal of an open image, even if a symbolic link to it was changed since.
pub(super) fn journal_of(image: &File) -> Result<PathBuf> {
    Ok(beside(&place_of_open(image)?, JOURNAL_SUFFIX))
}

/// The path of the diff that a merge writes next to an open image, even if a symbolic link to it was changed since.
pub(super) fn merge_diff_of(image: &File) -> Result<PathBuf> {
    Ok(beside(&place_of_open(image)?, MERGE_SUFFIX))
}

/// The path next to which all files are kept that belong to an open image, even if a symbolic link to it was changed since.
pub(super) fn place_of_open(image: &File) -> Result<PathBuf> {
    image.place().map(place_of_real)
}

/// The path next to which all files are kept that belong to the image at `path`: the image itself, unless it is a block
/// device.
pub(super) fn place_of(path: &Path) -> PathBuf {
    place_of_real(fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()))
}

/// As [`place_of`], for a path without symbolic links.
fn place_of_real(path: PathBuf) -> PathBuf {
    if !is_block_device(&path) {
        return path;
    }
    let mut name = OsString::new();
    for part in path.components().skip(1) {
        if !name.is_empty() {
            name.push("!");
        }
        name.push(part);
    }
    let folder = NAMED_FOLDER
        .get()
        .map_or(Path::new(STATE_FOLDER), PathBuf::as_path);
    folder.join(name)
}

/// As [`place_of`], and creates the folder for the files of a device.
pub(super) fn make_place_of(path: &Path) -> Result<PathBuf> {
    make_place(place_of(path), is_block_device(path))
}

/// As [`make_place_of`], for an image that is open.
pub(super) fn make_place_of_open(image: &File) -> Result<PathBuf> {
    make_place(place_of_open(image)?, image.is_block_device())
}

fn make_place(place: PathBuf, of_device: bool) -> Result<PathBuf> {
    if let Some(folder) = place.parent().filter(|_| of_device) {
        // The contents of a disk must stay private.
        create_folder(folder, 0o700).map_err(|error| {
            error.override_remedy(
                Remedy::new("the undo journals of devices need a folder that lasts: name one")
                    .named(" with ")
                    .step(Step::Choose(Choice::JournalFolder), "")
                    .named(", to all commands alike"),
            )
        })?;
    }
    Ok(place)
}

fn is_block_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// Fails with [`Pending`](ErrorKind::Pending) if there is an undo journal of an interrupted apply or merge next to the
/// image at `path`: its contents are neither those of the base nor those of the target.
///
/// A journal created by somebody who may not write the image is ignored.
pub fn refuse_pending(path: &Path) -> Result<()> {
    let journal = journal_path(path);
    if !exists(&journal)? {
        return Ok(());
    }
    let image = looked(path, fs::metadata(path))?;
    if stranger(&journal, image.as_ref())?.is_some() {
        return Ok(());
    }
    let what = if exists(&merge_diff_path(path))? {
        "a merge into this image was interrupted"
    } else {
        "an apply to this image was interrupted"
    };
    Err(Error::new(ErrorKind::Pending, what)
        .with_path(path)
        .with_found(format_args!("the undo journal {}", shown(&journal)))
        .with_remedy(how_to_go_on(path)))
}

/// The two ways to proceed if the image at `path` is between two points in time.
pub(super) fn how_to_go_on(path: &Path) -> Remedy {
    let merge = merge_diff_path(path);
    let same = Remedy::new("run the same ");
    let same = match exists(&merge) {
        Ok(true) => same.step(Step::FinishMerge(child_of(&merge)), "merge"),
        _ => same.step(Step::Use(Tool::Apply), "apply"),
    };
    let same = if !exists(&merge).is_ok_and(|is| is) && is_of_a_snapshot(path) {
        let restore = Step::Snapshot {
            job: SnapshotJob::Restore,
            of: None,
        };
        same.text(", or ").step(restore, "restore").text(",")
    } else {
        same
    };
    same.text(" again to finish it, or undo it")
        .named(" with: ")
        .step(rollback_of(path), "")
}

/// Returns whether the image at `path` was being changed to a point in time of a store.
fn is_of_a_snapshot(path: &Path) -> bool {
    let journal = journal_path(path);
    let known = File::open(&journal).and_then(|file| {
        let reader = DiffReader::new(file.reader(), &journal)?;
        Ok(reader.header().base.snapshot.is_some())
    });
    known.unwrap_or(false)
}

/// The step that undoes an interrupted apply to the image at `path`.
pub(super) fn rollback_of(path: &Path) -> Step {
    let folder = NAMED_FOLDER.get().filter(|_| is_block_device(path));
    Step::RollBack {
        image: path.to_path_buf(),
        journal_folder: folder.cloned(),
    }
}

/// The name of the child from which a diff was made, if it can be read.
fn child_of(merge: &Path) -> Option<String> {
    let name = File::open(merge).and_then(|file| {
        let reader = DiffReader::new(file.reader(), merge)?;
        Ok(reader.header().target.name.clone())
    });
    name.ok().flatten()
}

/// Removes the diff of a finished merge into an open image, if there is one.
pub(super) fn remove_merge_diff(image: &File) -> Result<()> {
    remove_if_there(&merge_diff_of(image)?).map(drop)
}

/// Fails if the file with the name of the undo journal of an open image was created by somebody who may not write the
/// image: it can't be used to undo anything.
pub(super) fn refuse_foreign(image: &File) -> Result<()> {
    let journal = journal_of(image)?;
    let who = stranger(&journal, Some(&image.metadata()?))?;
    who.map_or(Ok(()), |who| Err(foreign_journal(&journal, &who)))
}

/// As [`refuse_foreign`], for a journal that is open.
pub(super) fn refuse_foreign_journal(journal: &File, image: &File) -> Result<()> {
    let who = stranger_opened(journal, image)?;
    who.map_or(Ok(()), |who| Err(foreign_journal(journal.path(), &who)))
}

fn foreign_journal(journal: &Path, who: &str) -> Error {
    Error::usage("the file with the name of the image's undo journal isn't trusted")
        .with_path(journal)
        .with_found(who)
        .with_expected(
            "a file that belongs to the image's owner, to root or to the current user, and that nobody else may write",
        )
        .with_hint(format!(
            "it wasn't created by an apply of theirs: inspect it, then remove it with: rm {}",
            quoted(journal)
        ))
}

fn looked(path: &Path, found: io::Result<fs::Metadata>) -> Result<Option<fs::Metadata>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("cannot look at", e).with_path(path)),
    }
}

/// Returns why the file `left` next to an image may belong to somebody who may not write the image. Returns `None` if it
/// doesn't, or if there is no such file.
pub(super) fn stranger(left: &Path, image: Option<&fs::Metadata>) -> Result<Option<String>> {
    let found = looked(left, fs::symlink_metadata(left))?;
    Ok(found.and_then(|found| stranger_among(&found, image)))
}

/// As [`stranger`], for a file that is open: somebody may have put another in its place since it was looked at.
pub(super) fn stranger_opened(left: &File, image: &File) -> Result<Option<String>> {
    let path = left.path();
    let failed = |e| Error::io("cannot look at", e).with_path(path);
    let named = fs::symlink_metadata(path).map_err(failed)?;
    let (opened, image) = (left.metadata()?, image.metadata()?);
    if (named.dev(), named.ino()) == (opened.dev(), opened.ino()) {
        return Ok(stranger_among(&opened, Some(&image)));
    }
    let who = stranger_among(&named, Some(&image));
    Ok(who.or_else(|| Some("another file than a moment ago".to_owned())))
}

/// As [`stranger`], from the metadata `found` at the file's name and those of the image.
fn stranger_among(found: &fs::Metadata, image: Option<&fs::Metadata>) -> Option<String> {
    if !found.is_file() {
        return Some("not a plain file".to_owned());
    }
    let owner = found.uid();
    let ours = [0, own_user()].contains(&owner);
    if !ours && image.is_none_or(|image| image.uid() != owner) {
        return Some(format!("a file of the user with number {owner}"));
    }
    // Whoever may write the image may write its journal.
    let allowed = image.map_or(0, |image| {
        let group = if image.gid() == found.gid() { 0o020 } else { 0 };
        image.mode() & (0o002 | group)
    });
    let mode = found.mode() & 0o022;
    (mode & !allowed != 0).then(|| {
        format!(
            "a file that others may write: permissions {:o}",
            found.mode() & 0o7777
        )
    })
}

/// Returns whether there is such a file.
pub(super) fn exists(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        // A file can't have that name here.
        Err(e) if e.kind() == io::ErrorKind::InvalidFilename => Ok(false),
        Err(e) => {
            Err(Error::io("cannot look for what an interrupted command left", e).with_path(path))
        }
    }
}
