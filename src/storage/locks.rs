//! Locks on files: shared by readers, exclusive for a writer, and never waited for.
//!
//! A file may be replaced by another of the same name between opening and locking it; the lock is then on a file that
//! nobody will open any more. So the name is checked again once the lock is held.

use std::fs::{self, TryLockError};
use std::io::{self, ErrorKind as IoKind};
use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::lockable::Lockable;
use super::sealed::on_disk;
use super::stored::refuse_part_of_store;
use super::{File, Stamp};
use crate::error::{Error, ErrorKind, Result};

/// How often a file is reopened if it was replaced before it was locked.
const TRIES: usize = 5;

/// The purpose for which a file is opened and locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading, together with other readers.
    Read,
    /// Writing, exclusively.
    Write,
    /// Replacing the file by another, exclusively.
    Replace,
}

impl File {
    /// Opens the file at `path` and locks it without waiting. The lock is held until the last handle is dropped.
    ///
    /// # Errors
    ///
    /// [`Locked`](ErrorKind::Locked) if another command has locked the file, or keeps replacing it.
    pub fn open_locked(path: impl AsRef<Path>, access: Access) -> Result<Self> {
        let path = path.as_ref();
        if access != Access::Read {
            refuse_part_of_store(path)?;
        }
        for _ in 0..TRIES {
            let file = match access {
                Access::Write => Self::open_writable(path)?,
                Access::Read | Access::Replace => Self::open(path)?,
            };
            match access {
                Access::Read => file.lock_shared()?,
                Access::Write | Access::Replace => file.lock_exclusive()?,
            }
            if file.is_at_its_path()? {
                return Ok(file);
            }
        }
        Err(Error::new(
            ErrorKind::Locked,
            "the file kept being replaced while waiting for its lock",
        )
        .with_path(path)
        .with_hint("wait until the other commands have ended, then run this one again"))
    }

    /// Takes the exclusive lock of a writer without waiting. It is held until the last handle to the file is dropped.
    pub fn lock_exclusive(&self) -> Result<()> {
        self.locked(self.as_std().try_lock(), IN_USE)
    }

    /// Takes the shared lock of a reader without waiting. It is held until the last handle to the file is dropped. On
    /// file systems without locks, files are read without one.
    pub fn lock_shared(&self) -> Result<()> {
        self.locked(self.as_std().try_lock_shared(), BEING_WRITTEN)
    }

    fn locked(&self, result: Result<(), TryLockError>, busy: &str) -> Result<()> {
        match result {
            Ok(()) => {
                self.inner.locked.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(TryLockError::WouldBlock) => Err(in_use(self.path(), busy)),
            Err(TryLockError::Error(e)) if matches!(e.kind(), IoKind::Unsupported) => Ok(()),
            Err(TryLockError::Error(e)) => Err(Error::io("cannot lock", e).with_path(self.path())),
        }
    }
}

/// A lock on a folder itself. Unlike a lock file, it can't be removed by tools that clean up temporary or empty files.
#[derive(Debug)]
pub struct FolderLock(Lockable);

impl FolderLock {
    /// Locks the folder at `path` without waiting, shared or exclusively, until this is dropped. Returns `None` if the
    /// file system doesn't support locks on folders.
    ///
    /// # Errors
    ///
    /// [`Locked`](ErrorKind::Locked) if another command has locked the folder.
    pub fn take(path: &Path, shared: bool) -> Result<Option<Self>> {
        let folder = fs::File::open(on_disk(path))
            .map_err(|e| Error::io("cannot open", e).with_path(path))?;
        let mut folder = Lockable::new(folder);
        let (result, busy) = if shared {
            (folder.try_lock_shared(), BEING_WRITTEN)
        } else {
            (folder.try_lock(), IN_USE)
        };
        match result {
            Ok(()) => *folder.locked.get_mut() = true,
            Err(TryLockError::WouldBlock) => return Err(in_use(path, busy)),
            // Some network file systems lock only files that are open for writing.
            Err(TryLockError::Error(e)) if is_without_locks(&e) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(Error::io("cannot lock", e).with_path(path)),
        }
        Ok(Some(Self(folder)))
    }

    /// Returns whether `path` still leads to the locked folder.
    pub fn is_at(&self, path: &Path) -> Result<bool> {
        let failed = |e| Error::io("cannot look at", e).with_path(path);
        let here = self.0.metadata().map_err(failed)?;
        match fs::metadata(on_disk(path)) {
            Ok(there) => Ok(Stamp::from(&here).same_file(&Stamp::from(&there))),
            Err(e) if e.kind() == IoKind::NotFound => Ok(false),
            Err(e) => Err(failed(e)),
        }
    }
}

fn is_without_locks(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    let numbers = [Errno::BADF, Errno::NOLCK, Errno::INVAL, Errno::ISDIR];
    error.kind() == IoKind::Unsupported
        || numbers
            .iter()
            .any(|known| number == Some(known.raw_os_error()))
}

const IN_USE: &str = "it is being read or written by another command";
const BEING_WRITTEN: &str = "it is being written by another command";

fn in_use(path: &Path, busy: &str) -> Error {
    Error::new(ErrorKind::Locked, busy)
        .with_path(path)
        .with_hint("wait until the other command has ended, then run this one again")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_is_locked_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        fs::create_dir(&path).unwrap();
        let one = FolderLock::take(&path, true).unwrap().unwrap();
        let two = FolderLock::take(&path, true).unwrap();
        let busy = FolderLock::take(&path, false).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::Locked);
        drop(two);
        assert!(one.is_at(&path).unwrap());
        drop(one);
        let alone = FolderLock::take(&path, false).unwrap().unwrap();
        assert_eq!(
            FolderLock::take(&path, true).unwrap_err().kind(),
            ErrorKind::Locked
        );
        fs::remove_dir(&path).unwrap();
        assert!(!alone.is_at(&path).unwrap());
    }

    #[test]
    fn a_lock_goes_with_the_last_handle_whoever_inherited_the_descriptor() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let locked = File::open_locked(file.path(), Access::Write).unwrap();
        let handle = locked.another_handle();
        let inherited = locked.as_std().try_clone().unwrap();
        drop(locked);
        let busy = File::open_locked(file.path(), Access::Read).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::Locked);
        drop(handle);
        File::open_locked(file.path(), Access::Write).unwrap();
        drop(inherited);
    }

    #[test]
    fn a_lock_is_on_the_file_that_has_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("disk"), folder.path().join("other"));
        fs::write(&path, b"old").unwrap();
        fs::write(&other, b"new").unwrap();
        let old = File::open_locked(&path, Access::Write).unwrap();
        let locked = File::open_locked(&path, Access::Read).unwrap_err();
        assert_eq!(locked.kind(), ErrorKind::Locked);
        fs::rename(&other, &path).unwrap();
        assert!(!old.is_at_its_path().unwrap());
        // The file that is there now isn't locked.
        let new = File::open_locked(&path, Access::Replace).unwrap();
        assert!(new.is_at_its_path().unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!new.is_at_its_path().unwrap());
    }
}
