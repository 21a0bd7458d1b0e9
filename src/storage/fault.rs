//! Fault injection for tests: an observer is called before every system call on a file, and may record it, fail it,
//! tear it, or pretend that it succeeded.
//!
//! Available only with the feature `fault-injection`, which is never enabled in the program. An observer sees the files
//! of one folder, so that concurrent tests don't see each other's.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// A system call, before or after it is made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Call<'a> {
    /// Reads bytes.
    Read {
        /// Offset in the file, in bytes.
        offset: u64,
        /// Number of bytes.
        len: usize,
    },
    /// Writes bytes.
    Write {
        /// The file.
        file: &'a fs::File,
        /// Offset in the file, in bytes.
        offset: u64,
        /// The bytes written.
        bytes: &'a [u8],
    },
    /// Punches a hole, or zeroes a range that stays allocated. The length doesn't change.
    Punch {
        /// The file.
        file: &'a fs::File,
        /// The range that becomes zero, in bytes.
        range: Range<u64>,
    },
    /// Reserves space for the file; its contents don't change.
    Allocate {
        /// The file.
        file: &'a fs::File,
    },
    /// Truncates the file, or extends it with zeros.
    SetLen {
        /// The file.
        file: &'a fs::File,
        /// The new length in bytes.
        len: u64,
    },
    /// Syncs the file.
    Sync {
        /// The file.
        file: &'a fs::File,
    },
    /// Sets owner, permissions or an extended attribute, or removes an attribute.
    Attributes {
        /// The file.
        file: &'a fs::File,
    },
    /// Makes the file, which is empty, a clone of another.
    Clone {
        /// The file.
        file: &'a fs::File,
        /// The file that is cloned.
        from: &'a fs::File,
    },
    /// Creates a new, empty file.
    Create,
    /// Creates a new, empty file without a name in this folder.
    CreateNameless,
    /// Renames the file.
    Rename {
        /// The new name.
        to: &'a Path,
        /// Whether an existing file of that name may be replaced.
        replaces: bool,
    },
    /// Removes the name.
    Remove,
    /// Syncs the folder.
    SyncFolder,
}

/// The fate of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Make the call.
    Proceed,
    /// Fail with this error number, without making the call.
    Fail(i32),
    /// Write only the first bytes, up to this count, then fail with this error number. Any other call just fails.
    Tear(usize, i32),
    /// Don't make the call, but report success. A call that returns a file is made nevertheless.
    Pretend,
}

/// Intercepts the calls between this library and the operating system.
pub trait Observer: Send + Sync {
    /// Called before each call on the file or folder `path`, on the thread that makes it.
    fn before(&self, path: &Path, call: &Call<'_>) -> Answer;

    /// Called after calls that were made and succeeded, after pretended ones, and with the part of a torn write that
    /// was made.
    fn after(&self, path: &Path, call: &Call<'_>);
}

type Watched = (PathBuf, Arc<dyn Observer>);

static WATCHED: RwLock<Vec<Watched>> = RwLock::new(Vec::new());

/// Stops observing a folder when dropped.
#[derive(Debug)]
pub struct Watch(PathBuf);

/// Registers `observer` for all calls whose path begins with `folder`.
pub fn watch(folder: &Path, observer: Arc<dyn Observer>) -> Watch {
    let mut watched = WATCHED.write().unwrap_or_else(PoisonError::into_inner);
    watched.push((folder.to_path_buf(), observer));
    Watch(folder.to_path_buf())
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = WATCHED.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = watched.iter().rposition(|(folder, _)| *folder == self.0) {
            watched.remove(at);
        }
    }
}

fn observer_of(path: &Path) -> Option<Arc<dyn Observer>> {
    let watched = WATCHED.read().unwrap_or_else(PoisonError::into_inner);
    let mut found = watched.iter().rev();
    found
        .find(|(folder, _)| path.starts_with(folder))
        .map(|(_, observer)| Arc::clone(observer))
}

/// Makes a call as the observer of `path` decides. A pretended call returns `pretended()`, if that is possible.
pub(super) fn observed<T>(
    path: &Path,
    call: &Call<'_>,
    act: impl FnOnce() -> io::Result<T>,
    pretended: impl FnOnce() -> Option<T>,
) -> io::Result<T> {
    let Some(observer) = observer_of(path) else {
        return act();
    };
    let result = match observer.before(path, call) {
        Answer::Proceed => act()?,
        Answer::Pretend => match pretended() {
            Some(value) => value,
            None => act()?,
        },
        Answer::Fail(number) => return Err(io::Error::from_raw_os_error(number)),
        Answer::Tear(len, number) => {
            if let Call::Write {
                file,
                offset,
                bytes,
            } = *call
            {
                let bytes = bytes.get(..len).unwrap_or(bytes);
                file.write_all_at(bytes, offset)?;
                let torn = Call::Write {
                    file,
                    offset,
                    bytes,
                };
                observer.after(path, &torn);
            }
            return Err(io::Error::from_raw_os_error(number));
        }
    };
    observer.after(path, call);
    Ok(result)
}
