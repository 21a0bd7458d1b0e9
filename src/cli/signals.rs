//! Ctrl-C and termination: nothing half-written stays behind.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result};
use crate::storage::remove_temporary_files;

/// Waits on a thread of its own for a signal; then removes the temporary files and exits with 128 plus the
/// signal's number: 130 for Ctrl-C, 143 for termination. An apply in place is protected by its undo journal.
pub(super) fn watch() -> Result<()> {
    let failed = |e| Error::io("cannot watch for signals", e);
    // Where a limit is set, a file that grows too large is an error to report, not a reason to die.
    let ignored = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGXFSZ, ignored).map_err(failed)?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                remove_temporary_files();
                std::process::exit(128 + signal);
            }
        })
        .map_err(failed)?;
    Ok(())
}
