//! Early write-back: data goes to the device while more is being written, so that little is left for the final sync.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::system;

/// Bytes that accumulate before a write-back step: few at first, so that the end of a small file needn't wait for all
/// of it, and more for a large one, since each step costs the file system a commit.
const FIRST_STEP: u64 = 4 << 20;
const LARGEST_STEP: u64 = 64 << 20;

/// Writes a file's data back on a thread of its own, one step after the writer.
#[derive(Debug)]
pub(super) struct WriteBehind {
    /// Bytes written so far, and the count at which the thread is woken next.
    written: AtomicU64,
    next: AtomicU64,
    thread: Mutex<Option<Thread>>,
}

/// The channel that wakes the thread, and its handle.
type Thread = (SyncSender<()>, JoinHandle<io::Result<()>>);

impl WriteBehind {
    /// Starts write-back for `file`. Returns `None` if no thread could be started; the final sync then takes longer.
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

    /// Records that `len` more bytes were written.
    pub(super) fn wrote(&self, len: u64) {
        let written = self.written.fetch_add(len, Ordering::Relaxed) + len;
        if written >= self.next.load(Ordering::Relaxed) {
            let step = (written / 2).clamp(FIRST_STEP, LARGEST_STEP);
            self.next.store(written + step, Ordering::Relaxed);
            if let Some((wake, _)) = &*self.thread.lock().unwrap_or_else(PoisonError::into_inner) {
                // The thread is busy, or has ended with an error, which `finish` reports.
                let _ = wake.try_send(());
            }
        }
    }

    /// Stops the thread and returns its error. Must be checked: the kernel reports a write error only once, so a later
    /// sync would succeed.
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
