//! The lock of a disk: on its folder, which no clean-up tool removes, and on the file `lock`, for older programs.

use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::Holder;
use super::layout::LOCK;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{File, FolderLock, StoreFolder, clear_holder, write_holder};

/// How often, and how far apart, a lock is tried. Who has it can't be told by what its file says: that may be from a
/// command that was killed.
const GLANCES: u32 = 10;
const GLANCE: Duration = Duration::from_millis(20);

/// Held while a disk is read or changed. It is released when it is dropped.
#[derive(Debug, Default)]
pub(super) struct DiskLock {
    /// Dropped first, while the lock is still held.
    said: Option<Said>,
    _folder: Option<FolderLock>,
    file: Option<File>,
    /// Whoever may change the disk may change its files.
    _hold: Option<StoreFolder>,
}

/// What this process wrote into a lock file. It is taken out when this is dropped.
#[derive(Debug)]
pub(super) struct Said {
    path: PathBuf,
    text: String,
}

impl Said {
    /// Writes who holds the lock into its file at `path`; the caller does.
    pub(super) fn write(path: PathBuf) -> Self {
        let text = Holder::this().text();
        write_holder(&path, &text);
        Self { path, text }
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        clear_holder(&self.path, &self.text);
    }
}

impl DiskLock {
    /// Locks the disk in `folder` without waiting: exclusively for changing it, shared for reading it.
    ///
    /// A reader doesn't need a lock file that doesn't exist and can't be created: on a read-only medium nobody writes.
    ///
    /// # Errors
    ///
    /// [`Locked`](ErrorKind::Locked) if another command is in the way, with what it says of itself.
    pub(super) fn take(folder: &Path, to_change: bool) -> Result<Self> {
        let path = folder.join(LOCK);
        let mut lock = Self::take_past_glances(folder, to_change)
            .map_err(|error| with_holder(error, &path, to_change))?;
        // A reader leaves what it reads as it is.
        if lock.file.is_some() && to_change {
            lock.said = Some(Said::write(path));
        }
        Ok(lock)
    }

    /// Who only [glances](Self::glance) at the disk is gone in a moment, and isn't a reason to fail.
    fn take_past_glances(folder: &Path, to_change: bool) -> Result<Self> {
        for _ in 0..GLANCES {
            match Self::try_take(folder, to_change) {
                Err(error) if to_change && error.kind() == ErrorKind::Locked => {
                    thread::sleep(GLANCE);
                }
                taken => return taken,
            }
        }
        Self::try_take(folder, to_change)
    }

    /// As [`take`](Self::take) to read, for a moment only, so that nobody has to be told.
    pub(super) fn glance(folder: &Path) -> Result<Self> {
        Self::try_take(folder, false)
    }

    fn try_take(folder: &Path, to_change: bool) -> Result<Self> {
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
            said: None,
            _folder: of_folder,
            file,
            _hold: hold,
        })
    }
}

/// Says who holds the lock of the file at `path`, as it says there itself, if an error is that it is locked.
pub(super) fn with_holder(error: Error, path: &Path, to_change: bool) -> Error {
    let Some(holder) = Holder::of(path).filter(|_| error.kind() == ErrorKind::Locked) else {
        return error;
    };
    // A reader is only ever kept out by a writer.
    let doing = if to_change {
        "in use by"
    } else {
        "being written by"
    };
    Error::new(ErrorKind::Locked, format!("it is {doing} {holder}"))
        .with_path(error.path().unwrap_or(path))
        .with_hint("wait until that command has ended, then run this one again")
}

/// Opens a lock file, and creates it if it doesn't exist.
pub(super) fn open_lock(path: &Path, to_change: bool) -> Result<File> {
    super::plain::check_plain(path)?;
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
