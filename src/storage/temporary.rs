//! The temporary files that currently exist, so that a signal handler can remove them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;

use super::paths::{SUFFIX, folder_of};
use super::policy::Overwrite;
use super::system::name_of;
use super::{Stamp, system};

static FILES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn files() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a temporary file. Dropping it removes the file, unless it is to be kept.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    /// The folder in which it was created, wherever its path leads by now.
    folder: fs::File,
    renamed: bool,
    /// Whether it is kept if it isn't renamed.
    kept: bool,
}

impl Temporary {
    /// The file at `path`, which is kept when this is dropped.
    pub(super) fn kept_at(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_path_buf(),
            folder: fs::File::open(folder_of(path))?,
            renamed: false,
            kept: true,
        })
    }

    /// Creates an empty file with a unique name that begins with `prefix`.
    pub(super) fn create_in(
        folder: &Path,
        prefix: &OsStr,
        mode: u32,
    ) -> io::Result<(fs::File, Self)> {
        let opened = fs::File::open(folder)?;
        let (file, path) = tempfile::Builder::new()
            .prefix(prefix)
            .suffix(SUFFIX)
            .make_in(folder, |path| system::create_new(path, mode))?
            .into_parts();
        let path = path.keep()?;
        files().insert(path.clone());
        let made = Self {
            path,
            folder: opened,
            renamed: false,
            kept: false,
        };
        Ok((file, made))
    }

    /// Returns the stamp of what currently has the name of `target` in the folder of this file, without following
    /// links.
    pub(super) fn found_at(&self, target: &Path) -> io::Result<Option<Stamp>> {
        match statat(&self.folder, name_of(target)?, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(Stamp::identity(found.st_dev, found.st_ino))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Renames the file to `target`, which is in the same folder.
    pub(super) fn rename_to(mut self, target: &Path, overwrite: Overwrite) -> io::Result<()> {
        match overwrite {
            Overwrite::Yes | Overwrite::EvenAParent => {
                system::rename_in(&self.folder, &self.path, target)?;
            }
            Overwrite::No => system::rename_to_new(&self.path, target)?,
        }
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed && !self.kept {
            let _ = system::remove(&self.path);
        }
        files().remove(&self.path);
    }
}

/// Removes every temporary file of this process, from a signal handler that is about to exit. The list stays locked for
/// good, so that no file is published meanwhile.
pub fn remove_all() {
    let files = files();
    for file in files.iter() {
        let _ = system::remove(file);
    }
    std::mem::forget(files);
}
