//! An open file that lets go of its lock.

use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

/// An open file and the lock on it.
///
/// The lock belongs to the open file, not to the descriptor: a child process that another thread is just starting
/// briefly inherits all descriptors, and with them every lock. So it is released explicitly, not only by closing.
#[derive(Debug)]
pub(super) struct Lockable {
    file: fs::File,
    pub(super) locked: AtomicBool,
    /// Where the file is, without symbolic links, once that was asked for.
    pub(super) place: OnceLock<PathBuf>,
}

impl Lockable {
    pub(super) fn new(file: fs::File) -> Self {
        Self {
            file,
            locked: AtomicBool::new(false),
            place: OnceLock::new(),
        }
    }
}

impl Deref for Lockable {
    type Target = fs::File;

    fn deref(&self) -> &fs::File {
        &self.file
    }
}

impl Drop for Lockable {
    fn drop(&mut self) {
        if *self.locked.get_mut() {
            // Closing it would do the same if nobody else had a descriptor.
            let _ = self.file.unlock();
        }
    }
}
