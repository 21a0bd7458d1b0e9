//! The names of files: what removes, moves and keeps them.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind as IoKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::atomic::{AtomicFile, Overwrite};
use super::audience::without_umask;
use super::stored::refuse_part_of_store;
use super::{Audience, File, Stamp, system};
use crate::error::{Error, ErrorKind, Result};

/// The folder in which a path names something.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Whether a call failed because symbolic links lead round in a circle.
pub fn is_endless_link(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// Bytes in a name at most, where the file system doesn't allow less.
const LONGEST_NAME: usize = 255;

/// Bytes of a name that are kept where it has to be shortened: enough to know it by.
const KEPT: usize = 100;

/// The path of a file beside that at `path`, whose name is that of the file and `suffix`. Where that would be too long, a
/// hash stands for the end of the file's name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let mut new = OsString::new();
    if name.len() + suffix.len() <= LONGEST_NAME {
        new.push(name);
    } else {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        let text = name.to_string_lossy();
        let kept = (0..=KEPT).rev().find_map(|end| text.get(..end));
        new.push(kept.unwrap_or_default());
        new.push("-");
        new.push(hash.as_str());
    }
    new.push(suffix);
    path.with_file_name(new)
}

/// An error if `path` leads to anything but a file, whose place a new one can take.
pub(super) fn refuse_special(path: &Path) -> Result<()> {
    let kind = match fs::metadata(path) {
        Ok(found) => found.file_type(),
        Err(e) if e.kind() == IoKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("cannot look at", e).with_path(path)),
    };
    let (what, hint) = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        ("a folder", "name a file in it")
    } else if kind.is_fifo() || kind.is_socket() {
        ("a pipe or a socket", "name a file")
    } else {
        ("a device", "name a file")
    };
    Err(Error::usage("a new file can't take the place of this")
        .with_path(path)
        .with_found(what)
        .with_expected("a file")
        .with_hint(hint))
}

/// Makes what happened to the name `path` durable: creation, renaming, removal.
pub fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = folder_of(path);
    system::sync_folder(folder)
        .map_err(|e| Error::io("cannot bring the folder to stable storage", e).with_path(folder))
}

/// Makes a folder with what the umask leaves of the permissions `mode`, unless there is one, and makes it durable: who
/// made it may have been killed before that.
pub fn create_folder(path: &Path, mode: u32) -> Result<()> {
    if !path.is_dir() {
        system::create_folder(path, mode)
            .map_err(|e| Error::io("cannot create the folder", e).with_path(path))?;
    }
    // Of the folders above, too, any may be new, up to the top of the file system.
    let device = |folder: &Path| fs::metadata(folder).map(|found| found.dev()).ok();
    let own = device(path);
    path.ancestors()
        .filter(|folder| folder.file_name().is_some())
        .take_while(|folder| device(folder_of(folder)) == own)
        .try_for_each(|folder| match sync_folder_of(folder) {
            // Where nobody may look, nobody made a folder just now.
            Err(error) if error.io_kind() == Some(IoKind::PermissionDenied) => Ok(()),
            synced => synced,
        })
}

/// Makes a folder, and those above it, for this audience, unless there is one; what is there already stays as it is. As
/// [`create_folder`], it makes the names durable.
pub fn create_folder_for(path: &Path, audience: &Audience) -> Result<()> {
    let failed = |e| Error::io("cannot create the folder", e).with_path(path);
    let missing = path.ancestors().take_while(|folder| {
        !folder.as_os_str().is_empty()
            && fs::metadata(folder).is_err_and(|e| e.kind() == IoKind::NotFound)
    });
    let missing: Vec<&Path> = missing.collect();
    for folder in missing.into_iter().rev() {
        // Nobody else gets in before the permissions are right.
        system::create_folder(folder, 0o700).map_err(failed)?;
        let opened = fs::File::open(folder).map_err(failed)?;
        let found = opened.metadata().map_err(failed)?;
        let mode = without_umask(audience.limit_folder(found.gid())) | 0o700;
        // A folder whose files belong to its group keeps that.
        let mode = mode | found.mode() & 0o7000;
        if found.mode() & 0o7777 != mode {
            let permissions = fs::Permissions::from_mode(mode);
            system::set_permissions(&opened, folder, permissions).map_err(failed)?;
        }
    }
    create_folder(path, 0o777)
}

/// Removes the file at `path`, durably.
pub fn remove(path: &Path) -> Result<()> {
    refuse_part_of_store(path)?;
    system::remove(path).map_err(|e| Error::io("cannot remove", e).with_path(path))?;
    sync_folder_of(path)
}

/// The same, if there is such a file. Returns whether there was one.
pub fn remove_if_there(path: &Path) -> Result<bool> {
    refuse_part_of_store(path)?;
    match system::remove(path) {
        Ok(()) => sync_folder_of(path).map(|()| true),
        Err(e) if e.kind() == IoKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("cannot remove", e).with_path(path)),
    }
}

/// Gives the file at `from` the name `to`, durably; on another file system a copy gets it. The new name lasts before
/// the old one goes.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    refuse_part_of_store(from)?;
    refuse_part_of_store(to)?;
    match system::rename(from, to) {
        Ok(()) => sync_folder_of(to)?,
        Err(e) if e.kind() == IoKind::CrossesDevices => {
            let source = File::open(from)?;
            let mut copy = AtomicFile::for_audience(to, Audience::default())?;
            copy.take_place_of(&source)?;
            let mut out = copy.file().appender();
            out.take_all(&mut source.reader())
                .map_err(|e| Error::io("cannot copy", e).with_path(to))?;
            copy.publish(Overwrite::No)?;
            return remove(from);
        }
        Err(e) => return Err(Error::io("cannot rename", e).with_path(from)),
    }
    if folder_of(from) == folder_of(to) {
        return Ok(());
    }
    sync_folder_of(from)
}

/// Removes the folder at `path`, which must be empty, durably.
pub fn remove_folder(path: &Path) -> Result<()> {
    system::remove_folder(path)
        .map_err(|e| Error::io("cannot remove the folder", e).with_path(path))?;
    sync_folder_of(path)
}

/// An error of kind [`Changed`](ErrorKind::Changed) if the file at `path` isn't in the state of `stamp` any more.
pub fn check_unchanged_at(path: &Path, stamp: &Stamp) -> Result<()> {
    let found = fs::metadata(path).map_err(|e| Error::io("cannot look at", e).with_path(path))?;
    if Stamp::from(&found) == *stamp {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Changed,
        "the file was changed by another program while it was read",
    )
    .with_path(path)
    .with_hint("find out what changes it, then run the command again"))
}

impl File {
    /// Whether the path by which it was opened still leads to this very file.
    pub fn is_at_its_path(&self) -> Result<bool> {
        match fs::metadata(self.path()) {
            Ok(there) => Ok(self.stamp()?.same_file(&Stamp::from(&there))),
            Err(e) if e.kind() == IoKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("cannot look at", e).with_path(self.path())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_changes_its_name_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&a, b"it").unwrap();
        rename(&a, &b).unwrap();
        assert!(!a.exists());
        assert_eq!(fs::read(&b).unwrap(), b"it");
        assert!(
            rename(&a, &b)
                .unwrap_err()
                .to_string()
                .contains("cannot rename")
        );
        assert!(remove_if_there(&b).unwrap());
        assert!(!remove_if_there(&b).unwrap());
        assert!(
            remove(&b)
                .unwrap_err()
                .to_string()
                .contains("cannot remove")
        );
    }
}
