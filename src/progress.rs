//! Progress reporting and cancellation: the library calls this interface and never prints.

use crate::error::{Error, Result};

/// Receives the progress of a job. Methods may be called from any thread.
pub trait Progress: Send + Sync {
    /// A step of `total` bytes begins; `what` describes it to a person ("comparing").
    fn begin(&self, what: &str, total: u64) {
        let _ = (what, total);
    }

    /// `bytes` more are done.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Returns whether the user wants to stop. Called between windows; the job then fails with
    /// [`ErrorKind::Interrupted`](crate::error::ErrorKind::Interrupted) and leaves nothing half-written.
    fn is_cancelled(&self) -> bool {
        false
    }

    /// Fails if the user wants to stop.
    fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            Err(Error::interrupted())
        } else {
            Ok(())
        }
    }
}

/// Discards all progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}
