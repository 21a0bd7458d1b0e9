//! How far the work is, and whether to go on: the library tells and asks, it never prints.

use crate::error::{Error, Result};

/// Receives how far a piece of work is. All methods may be called from any thread.
pub trait Progress: Send + Sync {
    /// Work of `total` bytes begins; `what` names it for a person ("comparing").
    fn begin(&self, what: &str, total: u64) {
        let _ = (what, total);
    }

    /// `bytes` more are done.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Whether the user wants to stop. Asked between windows; the work ends with
    /// [`ErrorKind::Interrupted`](crate::error::ErrorKind::Interrupted) and leaves nothing half-written.
    fn is_cancelled(&self) -> bool {
        false
    }

    /// `Err` when the user wants to stop.
    fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            Err(Error::interrupted())
        } else {
            Ok(())
        }
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}
