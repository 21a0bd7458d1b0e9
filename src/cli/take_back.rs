//! Access to managed disks is taken back however a command ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::message::Warning;
use super::{cloud, exit};
use crate::blob::release_leases;
use crate::error::{Error, ErrorKind};

/// How long a signal waits until access is taken back. What isn't by then, the next command takes back.
const WAIT: Duration = Duration::from_secs(20);

/// Whether a signal is ending the program.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Takes back all access at the end of a command, and reports what should be known of it.
pub(super) fn end(program: &str) {
    while INTERRUPTED.load(Ordering::SeqCst) {
        // The command failed because its access was taken back, or its lease; the signal ends the program.
        thread::park();
    }
    let Some(cloud) = cloud::used() else {
        return;
    };
    let failed = cloud.take_back_all();
    for error in cloud.take_notices().iter().chain(&failed) {
        tell(program, error);
    }
}

fn tell(program: &str, error: &Error) {
    if error.kind() == ErrorKind::Usage {
        exit::note(program, error);
    } else {
        exit::warn(program, &Warning::of(error));
    }
}

/// Takes back all access, and releases all leases, when a signal ends the program.
pub(super) fn interrupted(program: &'static str) {
    INTERRUPTED.store(true, Ordering::SeqCst);
    let (done, wait) = mpsc::channel();
    let release = move || {
        release_leases();
        let _ = done.send(());
    };
    if thread::Builder::new().spawn(release).is_err() {
        release_leases();
    }
    // What isn't released by then ends by itself within a minute.
    let _ = wait.recv_timeout(WAIT);
    let Some(cloud) = cloud::used() else {
        return;
    };
    // Also if nothing is granted: from then on nothing will be.
    if cloud.is_anything_granted() {
        exit::note(program, &"revoking the access to managed disks");
    }
    let (done, wait) = mpsc::channel();
    let take_back = move || {
        // Nobody may be waiting any more.
        let _ = done.send(cloud.take_back_all());
    };
    let taken_back = match thread::Builder::new().spawn(take_back) {
        Ok(_) => wait.recv_timeout(WAIT),
        Err(_) => Ok(cloud.take_back_all()),
    };
    let failed = taken_back.unwrap_or_else(|_| {
        vec![
            Error::new(
                ErrorKind::Io,
                "the access to managed disks wasn't revoked in time",
            )
            .with_hint("the next command of this program revokes it; it expires after an hour"),
        ]
    });
    for error in &failed {
        tell(program, error);
    }
}
