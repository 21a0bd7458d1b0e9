//! What stands beside an image while it is changed in place: files that bar it, and that tell how to go on.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::diff::DiffReader;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{File, remove_if_there};

/// Ends the name of the undo journal of an image.
const JOURNAL_SUFFIX: &str = ".undo-journal";

/// Ends the name of the diff that is being merged into an image.
const MERGE_SUFFIX: &str = ".merge-diff";

/// The path of the undo journal of the image at `path`: beside the file itself, wherever a symbolic link to it
/// lies.
pub fn journal_path(path: &Path) -> PathBuf {
    beside(path, JOURNAL_SUFFIX)
}

/// The path of the diff that a merge writes beside the image at `path`, its parent, before it changes that.
pub(super) fn merge_diff_path(path: &Path) -> PathBuf {
    beside(path, MERGE_SUFFIX)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(suffix);
    path.with_file_name(name)
}

/// An error of kind [`Pending`](ErrorKind::Pending) while the undo journal of an interrupted apply or merge stands
/// beside the image at `path`: its content is neither the base nor the target.
pub fn refuse_pending(path: &Path) -> Result<()> {
    let journal = journal_path(path);
    if !exists(&journal)? {
        return Ok(());
    }
    let what = if exists(&merge_diff_path(path))? {
        "a merge into this image was interrupted"
    } else {
        "an apply to this image was interrupted"
    };
    Err(Error::new(ErrorKind::Pending, what)
        .path(path)
        .found(format_args!("the undo journal {}", journal.display()))
        .hint(how_to_go_on(path)))
}

/// The two ways out when the image at `path` was left between two points in time.
pub(super) fn how_to_go_on(path: &Path) -> String {
    let merge = merge_diff_path(path);
    let again = match exists(&merge) {
        Ok(true) => format!("vhd merge {}", child_of(&merge)),
        _ => "vhd-apply".to_owned(),
    };
    format!(
        "run the same {again} again to finish it, or take it back with: vhd-apply --rollback {}",
        path.display()
    )
}

/// The name of the child that a diff was made from.
fn child_of(merge: &Path) -> String {
    let name = File::open(merge).and_then(|file| {
        let reader = DiffReader::new(file.reader(), merge)?;
        Ok(reader.header().target.name.clone())
    });
    match name {
        // The name comes from a file: it must not control a terminal.
        Ok(Some(name)) => name.escape_debug().to_string(),
        _ => "CHILD".to_owned(),
    }
}

/// Removes the diff of a merge that has ended, if there is one.
pub(super) fn remove_merge_diff(path: &Path) -> Result<()> {
    remove_if_there(&merge_diff_path(path)).map(drop)
}

/// Whether there is such a file.
pub(super) fn exists(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("cannot look for what an interrupted command left", e).path(path)),
    }
}
