//! Waiting for a disk that another command has locked.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use super::stores::DiskArgs;
use crate::cli::context::Context;
use crate::cli::span::parse_span;
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::{Access, Disk};

/// The first pause; each is longer than the one before, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

// How long to wait for other commands.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(super) struct LockArgs {
    /// Wait up to this long for what another command has locked, as 30s, 10m or 2h [default: not at all].
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    lock_timeout: Option<Duration>,
}

impl LockArgs {
    pub(super) fn patience<'a>(&self, context: &'a Context) -> Patience<'a> {
        Patience {
            context,
            until: self.lock_timeout.map(|span| (Instant::now() + span, span)),
            pause: Cell::new(FIRST_PAUSE),
            told: Cell::new(false),
        }
    }
}

/// How long a command still waits for others: for all that it needs together.
#[derive(Debug)]
pub(super) struct Patience<'a> {
    context: &'a Context,
    /// The end, and how long that was from the beginning.
    until: Option<(Instant, Duration)>,
    pause: Cell<Duration>,
    told: Cell<bool>,
}

impl Patience<'_> {
    /// Tries again and again as long as there is time and another command is in the way.
    pub(super) fn wait_for<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            match attempt() {
                Err(error) if self.waits(&error) => {}
                Err(error) => return Err(self.with_advice(error)),
                Ok(done) => return Ok(done),
            }
        }
    }

    /// Waits a moment if `error` is that another command is in the way and there is time left. Returns whether to try
    /// again.
    pub(super) fn waits(&self, error: &Error) -> bool {
        let Some((until, span)) = self.until.filter(|_| error.kind() == ErrorKind::Locked) else {
            return false;
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        if !self.told.replace(true) {
            self.context
                .note(format_args!("waiting up to {} s: {error}", span.as_secs()));
        }
        thread::sleep(self.pause.get().min(left));
        self.pause.set((self.pause.get() * 2).min(LONGEST_PAUSE));
        true
    }

    /// Says what to do about a lock.
    pub(super) fn with_advice(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Locked {
            return error;
        }
        error.override_hint(match self.until {
            None => "wait until that command has ended, or have this one wait for it with --lock-timeout 10m".to_owned(),
            Some((_, span)) => format!(
                "after waiting {} s it still was: run the command again later, or with a longer --lock-timeout",
                span.as_secs()
            ),
        })
    }
}

/// Opens the disk of which these snapshots are to change it, or to read it as long as it has the lock. Returns their names
/// in it.
pub(super) fn open_for<'a>(
    disk: &DiskArgs,
    access: Access,
    snapshots: impl IntoIterator<Item = &'a String>,
    patience: &Patience<'_>,
) -> Result<(Disk, Vec<&'a str>)> {
    let (name, names) = disk.meant(snapshots)?;
    let store = &disk.store.store;
    let disk = patience.wait_for(|| Disk::open(store, &name, access))?;
    Ok((disk, names))
}
