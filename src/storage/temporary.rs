//! The temporary files that exist now, so that a signal handler can remove them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::leftovers::SUFFIX;
use super::{Overwrite, system};

static FILES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn files() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a temporary file. Dropped, it removes the file.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    /// Creates an empty file of a name that nobody else has and that begins with `prefix`.
    pub(super) fn create_in(
        folder: &Path,
        prefix: &OsStr,
        mode: u32,
    ) -> io::Result<(fs::File, Self)> {
        let (file, path) = tempfile::Builder::new()
            .prefix(prefix)
            .suffix(SUFFIX)
            .make_in(folder, |path| system::create_new(path, mode))?
            .into_parts();
        let path = path.keep()?;
        files().insert(path.clone());
        let renamed = false;
        Ok((file, Self { path, renamed }))
    }

    /// Gives the file its name.
    pub(super) fn rename_to(mut self, target: &Path, overwrite: Overwrite) -> io::Result<()> {
        match overwrite {
            Overwrite::Yes | Overwrite::EvenAParent => system::rename(&self.path, target)?,
            Overwrite::No => system::rename_to_new(&self.path, target)?,
        }
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = system::remove(&self.path);
        }
        files().remove(&self.path);
    }
}

/// Removes every temporary file of this process: for a signal handler that is about to exit. The list stays
/// locked for good, so that no file is published under way.
pub fn remove_all() {
    let files = files();
    for file in files.iter() {
        let _ = system::remove(file);
    }
    std::mem::forget(files);
}
