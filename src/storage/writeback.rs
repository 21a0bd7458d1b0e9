//! Writing behind: what was written goes to the device while more is being written, so that the sync at the end has
//! little left to do.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::system;

/// Bytes that may gather before they are sent on their way: few at first, so that the end of a small file needn't wait
/// for all of it, and more of a large one, for which each step costs the file system a commit.
const FIRST_STEP: u64 = 4 << 20;
const LARGEST_STEP: u64 = 64 << 20;

/// Brings a file's bytes to stable storage on a thread of its own, a step behind the writer.
#[derive(Debug)]
pub(super) struct WriteBehind {
    /// Bytes written so far, and how many of them when the thread is woken next.
    written: AtomicU64,
    next: AtomicU64,
    thread: Mutex<Option<Thread>>,
}

/// What wakes the thread, and what waits for its end.
type Thread = (SyncSender<()>, JoinHandle<io::Result<()>>);

impl WriteBehind {
    /// For `file`; `None` if there is no thread to be had, which costs only time.
    pub(super) fn start(file: &fs::File, path: &Path) -> Option<Self> {
        let (file, path) = (file.try_clone().ok()?, path.to_path_buf());
        let (wake, woken) = sync_channel(1);
        let work = move || {
            woken
                .iter()
                .try_for_each(|()| system::sync_behind(&file, &path))
        };
        let thread = thread::Builder::new()
            .name("write-behind".into())
            .spawn(work)
            .ok()?;
        Some(Self {
            written: AtomicU64::new(0),
            next: AtomicU64::new(FIRST_STEP),
            thread: Mutex::new(Some((wake, thread))),
        })
    }

    /// `len` bytes more were written.
    pub(super) fn wrote(&self, len: u64) {
        let written = self.written.fetch_add(len, Ordering::Relaxed) + len;
        if written >= self.next.load(Ordering::Relaxed) {
            let step = (written / 2).clamp(FIRST_STEP, LARGEST_STEP);
            self.next.store(written + step, Ordering::Relaxed);
            if let Some((wake, _)) = &*self.thread.lock().unwrap_or_else(PoisonError::into_inner) {
                // Busy or ended by an error: the sync at the end does it, or tells.
                let _ = wake.try_send(());
            }
        }
    }

    /// Ends it, and tells what went wrong. The system tells that once: a later sync of the file would succeed.
    pub(super) fn finish(&self) -> io::Result<()> {
        let Some((wake, thread)) = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        else {
            return Ok(());
        };
        drop(wake);
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("write-back failed")))
    }
}
