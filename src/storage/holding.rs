//! The note in a lock file about who holds it. Only people read it, so it is written without any guarantee: not at once, not
//! durably, and not at all where that can't be done.

use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::{Pid, test_kill_process};
use rustix::system::uname;

use super::on_disk;

/// The name of this host, as `uname -n` prints it.
pub fn host_name() -> String {
    uname().nodename().to_string_lossy().into_owned()
}

/// Whether a process of this number runs here, as far as this process can see.
pub fn is_running_here(process: u32) -> bool {
    let number = i32::try_from(process).ok().and_then(Pid::from_raw);
    number.is_some_and(|pid| !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH)))
}

/// Longest note in bytes; anything longer wasn't written by a holder.
const LONGEST: u64 = 1024;

/// The note in the lock file at `path`, if it is text of a sensible length.
pub fn read_holder(path: &Path) -> Option<String> {
    let file = open(path, OpenOptions::new().read(true))?;
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text).ok()?;
    (text.len() as u64 <= LONGEST).then_some(text)
}

/// Opens a plain file, never through a link and never waiting for a pipe.
fn open(path: &Path, options: &mut OpenOptions) -> Option<fs::File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let flags = i32::try_from(flags).ok()?;
    let file = options.custom_flags(flags).open(on_disk(path)).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

/// Replaces what the lock file at `path` says by `text`. The caller holds the lock.
pub fn write_holder(path: &Path, text: &str) {
    let Some(file) = open(path, OpenOptions::new().write(true)) else {
        return;
    };
    if file.set_len(0).is_ok() {
        let _ = file.write_all_at(text.as_bytes(), 0);
    }
}

/// Empties the lock file at `path` if it says `text`, and nobody else has written to it since.
pub fn clear_holder(path: &Path, text: &str) {
    if read_holder(path).is_some_and(|said| said == text) {
        write_holder(path, "");
    }
}
