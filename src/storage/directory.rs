//! Folders and the names in them: creating and removing them, and making such changes durable.

use std::fs;
use std::io::ErrorKind as IoKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::paths::folder_of;
use super::sealed::on_disk;
use super::stored::refuse_part_of_store;
use super::system::without_umask;
use super::{Audience, File, Stamp, system};
use crate::error::{Error, ErrorKind, Result};

/// Returns whether a call failed because of a loop of symbolic links.
pub fn is_endless_link(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// Fails if `path` is something other than a regular file, so that a new file can't replace it.
pub(super) fn refuse_special(path: &Path) -> Result<()> {
    let kind = match fs::metadata(on_disk(path)) {
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
    Err(Error::usage("this can't be replaced by a new file")
        .with_path(path)
        .with_found(what)
        .with_expected("a file")
        .with_hint(hint))
}

/// Makes a change to the name `path` durable: its creation, renaming or removal.
pub fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = folder_of(path);
    system::sync_folder(&on_disk(folder))
        .map_err(|e| Error::io("cannot bring the folder to stable storage", e).with_path(folder))
}

/// Creates a folder with the permissions `mode` minus the umask, unless it exists, and makes it durable in either case:
/// whoever created it may have been killed before doing so.
pub fn create_folder(path: &Path, mode: u32) -> Result<()> {
    let path = &*on_disk(path);
    if !path.is_dir() {
        system::create_folder(path, mode)
            .map_err(|e| Error::io("cannot create the folder", e).with_path(path))?;
    }
    // Any of the parent folders may be new, too, up to the root of the file system.
    let device = |folder: &Path| fs::metadata(folder).map(|found| found.dev()).ok();
    let own = device(path);
    path.ancestors()
        .filter(|folder| folder.file_name().is_some())
        .take_while(|folder| device(folder_of(folder)) == own)
        .try_for_each(|folder| match sync_folder_of(folder) {
            // If we may not stat it, we didn't create it.
            Err(error) if error.io_kind() == Some(IoKind::PermissionDenied) => Ok(()),
            synced => synced,
        })
}

/// Creates a folder and its parents with permissions for this audience. Existing folders aren't changed. As
/// [`create_folder`], it makes the names durable.
pub fn create_folder_for(path: &Path, audience: &Audience) -> Result<()> {
    let path = &*on_disk(path);
    let failed = |e| Error::io("cannot create the folder", e).with_path(path);
    let missing = path.ancestors().take_while(|folder| {
        !folder.as_os_str().is_empty()
            && fs::metadata(folder).is_err_and(|e| e.kind() == IoKind::NotFound)
    });
    let missing: Vec<&Path> = missing.collect();
    for folder in missing.into_iter().rev() {
        // Nobody else gets in before the permissions are set.
        system::create_folder(folder, 0o700).map_err(failed)?;
        let opened = fs::File::open(folder).map_err(failed)?;
        let found = opened.metadata().map_err(failed)?;
        let mode = without_umask(audience.limit_folder(found.gid())) | 0o700;
        // A set-group-ID folder stays one.
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
    system::remove(&on_disk(path)).map_err(|e| Error::io("cannot remove", e).with_path(path))?;
    sync_folder_of(path)
}

/// As [`remove`], but returns `Ok(false)` if the file doesn't exist.
pub fn remove_if_there(path: &Path) -> Result<bool> {
    refuse_part_of_store(path)?;
    match system::remove(&on_disk(path)) {
        Ok(()) => sync_folder_of(path).map(|()| true),
        Err(e) if e.kind() == IoKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("cannot remove", e).with_path(path)),
    }
}

/// Removes an empty folder, durably.
pub fn remove_folder(path: &Path) -> Result<()> {
    system::remove_folder(&on_disk(path))
        .map_err(|e| Error::io("cannot remove the folder", e).with_path(path))?;
    sync_folder_of(path)
}

/// Fails with [`Changed`](ErrorKind::Changed) if the file at `path` no longer has the state of `stamp`.
pub fn check_unchanged_at(path: &Path, stamp: &Stamp) -> Result<()> {
    let found =
        fs::metadata(on_disk(path)).map_err(|e| Error::io("cannot look at", e).with_path(path))?;
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
    /// Where the file is: the path by which it was opened, without the symbolic links on the way. It is found once, for all
    /// handles: a link that is turned later changes nothing.
    ///
    /// # Errors
    ///
    /// [`Changed`](ErrorKind::Changed) if the path leads to another file by the time it is first asked for.
    pub fn place(&self) -> Result<PathBuf> {
        if let Some(known) = self.inner.place.get() {
            return Ok(known.clone());
        }
        let failed = |e| Error::io("cannot find", e).with_path(self.path());
        let real = fs::canonicalize(on_disk(self.path())).map_err(failed)?;
        let there = fs::symlink_metadata(&real).map_err(failed)?;
        if !self.stamp()?.same_file(&Stamp::from(&there)) {
            return Err(
                Error::new(ErrorKind::Changed, "the file was replaced by another")
                    .with_path(self.path())
                    .with_hint("run the command again"),
            );
        }
        Ok(self.inner.place.get_or_init(|| real).clone())
    }

    /// Returns whether the path by which this file was opened still leads to it.
    pub fn is_at_its_path(&self) -> Result<bool> {
        match fs::metadata(on_disk(self.path())) {
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
    fn a_link_that_is_turned_leads_to_no_other_place() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().canonicalize().unwrap().join(name);
        let turn = |to: &str| {
            let _ = fs::remove_file(at("link"));
            std::os::unix::fs::symlink(to, at("link")).unwrap();
        };
        for name in ["a", "b"] {
            fs::write(at(name), name).unwrap();
        }
        turn("a");
        let file = File::open(at("link")).unwrap();
        assert_eq!(file.place().unwrap(), at("a"));
        let late = File::open(at("link")).unwrap();
        turn("b");
        assert_eq!(file.another_handle().place().unwrap(), at("a"));
        assert_eq!(late.place().unwrap_err().kind(), ErrorKind::Changed);
    }
}
