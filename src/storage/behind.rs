//! Writing behind: what was written goes to the device while more is being written, so that the sync at the end has
//! little left to do.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::system;

/// Bytes that may gather before they are sent on their way.
const STEP: u64 = 64 << 20;

/// Brings a file's bytes to stable storage on a thread of its own, a step behind the writer. What stays smaller than a
/// step needs no thread.
#[derive(Debug, Default)]
pub(super) struct WriteBehind {
    gathered: AtomicU64,
    thread: Mutex<Option<Thread>>,
}

/// What wakes the thread, and what waits for its end.
type Thread = (SyncSender<()>, JoinHandle<io::Result<()>>);

impl WriteBehind {
    /// `len` bytes more were written to `file`.
    pub(super) fn wrote(&self, file: &fs::File, path: &Path, len: u64) {
        if self.gathered.fetch_add(len, Ordering::Relaxed) + len >= STEP {
            self.gathered.store(0, Ordering::Relaxed);
            let mut thread = self.thread();
            if thread.is_none() {
                // If there is none to be had, that costs only time.
                *thread = start(file, path);
            }
            if let Some((wake, _)) = &*thread {
                // Busy or ended by an error: the sync at the end does it, or tells.
                let _ = wake.try_send(());
            }
        }
    }

    /// Ends it, and tells what went wrong. The system tells that once: a later sync of the file would succeed.
    pub(super) fn finish(&self) -> io::Result<()> {
        let Some((wake, thread)) = self.thread().take() else {
            return Ok(());
        };
        drop(wake);
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("writing behind failed")))
    }

    fn thread(&self) -> MutexGuard<'_, Option<Thread>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start(file: &fs::File, path: &Path) -> Option<Thread> {
    let (file, path) = (file.try_clone().ok()?, path.to_path_buf());
    let (wake, woken) = sync_channel(1);
    let work = move || {
        woken
            .iter()
            .try_for_each(|()| system::sync_behind(&file, &path))
    };
    let name = "write-behind".to_owned();
    let thread = thread::Builder::new().name(name).spawn(work).ok()?;
    Some((wake, thread))
}
