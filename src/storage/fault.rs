//! For tests only: an observer is asked before every call that reaches the operating system's files, and may note
//! it, fail it, tear it, or pretend that it was made.
//!
//! Only with the feature `fault-injection`, which no program is built with. An observer sees the files of one folder,
//! so that tests side by side don't see each other's.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// A call that is about to be made, or was.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Call<'a> {
    /// Bytes are read.
    Read {
        /// Where in the file, in bytes.
        offset: u64,
        /// How many.
        len: usize,
    },
    /// Bytes are written.
    Write {
        /// The file.
        file: &'a fs::File,
        /// Where in it, in bytes.
        offset: u64,
        /// What.
        bytes: &'a [u8],
    },
    /// A hole is made, or the like that keeps its space; the length stays.
    Punch {
        /// The file.
        file: &'a fs::File,
        /// What becomes zero, in bytes.
        range: Range<u64>,
    },
    /// Space is reserved for the file; what it reads as stays.
    Allocate {
        /// The file.
        file: &'a fs::File,
    },
    /// The file is cut, or extended with zeros.
    SetLen {
        /// The file.
        file: &'a fs::File,
        /// To how many bytes.
        len: u64,
    },
    /// Everything written to the file is brought to stable storage.
    Sync {
        /// The file.
        file: &'a fs::File,
    },
    /// Owner, permissions or an extended attribute are set, or one is removed.
    Attributes {
        /// The file.
        file: &'a fs::File,
    },
    /// The file, which is empty, becomes a clone of another.
    Clone {
        /// The file.
        file: &'a fs::File,
        /// What it is cloned from.
        from: &'a fs::File,
    },
    /// A new, empty file is made.
    Create,
    /// A new, empty file without a name is made in this folder.
    CreateNameless,
    /// The file gets another name.
    Rename {
        /// Which.
        to: &'a Path,
        /// Whether that name may be taken.
        replaces: bool,
    },
    /// The name goes.
    Remove,
    /// What happened to the names in this folder is brought to stable storage.
    SyncFolder,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is made.
    Proceed,
    /// It isn't made, and fails with this error number of the system.
    Fail(i32),
    /// A write of which only so many bytes arrive before it fails with this error number. Any other call just fails.
    Tear(usize, i32),
    /// It isn't made, but is said to have succeeded. A call that would give a file is made.
    Pretend,
}

/// Stands between this library and the operating system.
pub trait Observer: Send + Sync {
    /// Asked before each call on the file or folder `path`, on whatever thread makes it.
    fn before(&self, path: &Path, call: &Call<'_>) -> Answer;

    /// Told of what was done: calls that were made and succeeded, pretended ones, and what arrived of torn ones.
    fn after(&self, path: &Path, call: &Call<'_>);
}

type Watched = (PathBuf, Arc<dyn Observer>);

static WATCHED: RwLock<Vec<Watched>> = RwLock::new(Vec::new());

/// Ends the observation of a folder when dropped.
#[derive(Debug)]
pub struct Watch(PathBuf);

/// Lets `observer` see every call on `folder` and what lies below. `folder` is what the calls' paths begin with.
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

/// Makes a call as the observer of `path` wants it. What is only pretended gives `pretended()`, if that is possible.
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
