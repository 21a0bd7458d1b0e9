//! Opening the small files of a store, none of which is trusted to be a plain file of a reasonable length.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::{File, ReadAt as _, on_disk};

/// Fails if `path` leads to something other than a plain file in its own folder. A missing file is left to whoever
/// opens it.
pub(super) fn check_plain(path: &Path) -> Result<()> {
    let place = &*on_disk(path);
    let found = match fs::symlink_metadata(place) {
        Ok(found) => found.file_type(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("cannot look at", e).with_path(path)),
    };
    if found.is_file() {
        return Ok(());
    }
    if !found.is_symlink() {
        let what = if found.is_dir() {
            "a folder"
        } else {
            "a pipe, a socket or a device"
        };
        return Err(Error::damaged("this is not a plain file")
            .with_path(path)
            .with_found(what)
            .with_hint("a store must contain only plain files"));
    }
    let follow = |path: &Path| {
        fs::canonicalize(path)
            .map_err(|e| Error::io("cannot follow the symbolic link", e).with_path(path))
    };
    let real = follow(place)?;
    let folder = follow(place.parent().unwrap_or(Path::new("/")))?;
    if real.parent() == Some(&folder) {
        return check_plain(&real);
    }
    Err(
        Error::damaged("this is a symbolic link that leads out of the store")
            .with_path(path)
            .with_found(crate::text::shown(&real))
            .with_hint("put the file itself in its place"),
    )
}

/// Reads the file at `path`; `None` if it doesn't exist. It is damaged if it is longer than `most` or isn't a plain
/// file.
pub(super) fn read_limited(
    path: &Path,
    most: u64,
    damaged: impl Fn() -> Error,
) -> Result<Option<Vec<u8>>> {
    check_plain(path).map_err(|error| match error.kind() {
        ErrorKind::Damaged => damaged().with_source(error.to_string()),
        _ => error,
    })?;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.io_kind() == Some(io::ErrorKind::NotFound) => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = file.byte_len()?;
    if len > most {
        return Err(damaged()
            .with_found(format_args!("{len} bytes"))
            .with_expected(format_args!("at most {most} bytes")));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|e| damaged().with_source(e))?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

/// Returns whether the file is certain not to exist.
pub(super) fn is_absent(path: &Path) -> bool {
    fs::symlink_metadata(on_disk(path)).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
}
