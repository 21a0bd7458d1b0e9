//! Ctrl-C and termination: nothing half-written stays behind.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result};
use crate::storage::remove_temporary_files;

/// Waits on a thread of its own for a signal; then removes the temporary files and exits with 128 plus the
/// signal's number: 130 for Ctrl-C, 143 for termination, 129 when the terminal is gone. An apply in place is protected
/// by its undo journal.
pub(super) fn watch() -> Result<()> {
    let failed = |e| Error::io("cannot watch for signals", e);
    // Where a limit is set, a file that grows too large is an error to report, not a reason to die.
    let ignored = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGXFSZ, ignored).map_err(failed)?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    if !ignored_by_caller(SIGHUP) {
        signals.add_signal(SIGHUP).map_err(failed)?;
    }
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

/// Whether whoever started this program wants it to go on in spite of the signal, as `nohup` does. Where that can't be
/// found out, yes: the system's own way is kept then.
fn ignored_by_caller(signal: i32) -> bool {
    let mask = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("SigIgn:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        });
    let bit = u32::try_from(signal - 1)
        .ok()
        .and_then(|n| 1_u64.checked_shl(n));
    match (mask, bit) {
        (Some(mask), Some(bit)) => mask & bit != 0,
        _ => true,
    }
}
