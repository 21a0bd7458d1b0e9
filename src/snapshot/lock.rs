//! The lock of a disk: on its folder, which no clean-up tool removes, and on the file `lock`, for older programs.

use std::io::ErrorKind as IoKind;
use std::path::Path;

use super::layout::LOCK;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{File, FolderLock, StoreFolder};

/// Held while a disk is read or changed. It is released when it is dropped.
#[derive(Debug)]
pub(super) struct DiskLock {
    _folder: Option<FolderLock>,
    _file: Option<File>,
    /// Whoever may change the disk may change its files.
    _hold: Option<StoreFolder>,
}

impl DiskLock {
    /// Locks the disk in `folder` without waiting: exclusively for changing it, shared for reading it.
    ///
    /// A reader doesn't need a lock file that doesn't exist and can't be created: on a read-only medium nobody writes.
    pub(super) fn take(folder: &Path, to_change: bool) -> Result<Self> {
        let of_folder = FolderLock::take(folder, !to_change)?;
        let path = folder.join(LOCK);
        let file = match open_lock(&path, to_change) {
            Ok(file) => Some(file),
            Err(error) if !to_change && is_not_to_be_had(&error) => None,
            Err(error) => return Err(error),
        };
        if let Some(file) = &file {
            if to_change {
                file.lock_exclusive()?;
            } else {
                file.lock_shared()?;
            }
        }
        let still_there = of_folder.as_ref().map(|lock| lock.is_at(folder));
        if still_there.transpose()? == Some(false) {
            return Err(Error::new(
                ErrorKind::Locked,
                "the folder of this disk was just replaced",
            )
            .with_path(folder)
            .with_hint("run the command again"));
        }
        let hold = to_change.then(|| StoreFolder::hold(folder)).transpose()?;
        Ok(Self {
            _folder: of_folder,
            _file: file,
            _hold: hold,
        })
    }
}

/// Opens a lock file, and creates it if it doesn't exist.
pub(super) fn open_lock(path: &Path, to_change: bool) -> Result<File> {
    super::disk::check_plain(path)?;
    if to_change {
        return match File::open_or_create(path) {
            // A lock can be taken even with read-only access to the file.
            Err(error) if error.io_kind() == Some(IoKind::PermissionDenied) => {
                File::open(path).map_err(|_| error)
            }
            opened => opened,
        };
    }
    match File::open(path) {
        Err(error) if error.io_kind() == Some(IoKind::NotFound) => File::open_or_create(path),
        opened => opened,
    }
}

fn is_not_to_be_had(error: &Error) -> bool {
    matches!(
        error.io_kind(),
        Some(
            IoKind::PermissionDenied
                | IoKind::ReadOnlyFilesystem
                | IoKind::StorageFull
                | IoKind::QuotaExceeded
        )
    )
}
