//! The names of files: what removes and moves them, durably.

use std::fs;
use std::io::ErrorKind as IoKind;
use std::path::Path;

use super::atomic::{AtomicFile, Overwrite, folder_of, sync_folder_of};
use super::{File, Stamp};
use crate::error::{Error, Result};

/// Removes the file at `path`, durably.
pub fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(|e| Error::io("cannot remove", e).path(path))?;
    sync_folder_of(path)
}

/// The same, if there is such a file. Returns whether there was one.
pub fn remove_if_there(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder_of(path).map(|()| true),
        Err(e) if e.kind() == IoKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("cannot remove", e).path(path)),
    }
}

/// Gives the file at `from` the name `to`, durably; on another file system a copy gets it. The new name lasts before
/// the old one goes.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Ok(()) => sync_folder_of(to)?,
        Err(e) if e.kind() == IoKind::CrossesDevices => {
            let source = File::open(from)?;
            let copy = AtomicFile::new(to)?;
            copy.file().take_permissions_of(&source)?;
            std::io::copy(&mut source.reader(), &mut copy.file().appender())
                .map_err(|e| Error::io("cannot copy", e).path(to))?;
            copy.publish(Overwrite::No)?;
            return remove(from);
        }
        Err(e) => return Err(Error::io("cannot rename", e).path(from)),
    }
    if folder_of(from) == folder_of(to) {
        return Ok(());
    }
    sync_folder_of(from)
}

impl File {
    /// Whether the path by which it was opened still leads to this very file.
    pub fn is_at_its_path(&self) -> Result<bool> {
        match fs::metadata(self.path()) {
            Ok(there) => Ok(self.stamp()?.same_file(&Stamp::from(&there))),
            Err(e) if e.kind() == IoKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("cannot look at", e).path(self.path())),
        }
    }
}
