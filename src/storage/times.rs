//! File times as a proof that a file hasn't been changed since they were read.
//!
//! A change shows only if it moves a time, and to a value other than the one that was read. Three things can prevent
//! that, and [`File::settle`] waits until none of them does:
//!
//! * A store into a mapping moves the time when the page becomes dirty, and not again while it is dirty. So dirty pages
//!   are written first; the next store then faults into the file system.
//! * A long write carries the time of its beginning. So `settle` waits for the lock that writers hold.
//! * Two changes within one step of the file system's clock leave the same time. So the time that was read must be
//!   older than that step.
//!
//! All of this applies where pages are written back and the times come from this machine. [`File::time_doubt`] reports
//! where they don't.

use std::thread::sleep;
use std::time::{Duration, Instant};

use fiemap::Fiemap;
use rustix::fs::{FsWord, fstatfs};
use rustix::time::{ClockId, clock_gettime};

use super::{File, Stamp, system};
use crate::error::{Error, Result};

const EXT: FsWord = 0xEF53;
const XFS: FsWord = 0x5846_5342;
const BTRFS: FsWord = 0x9123_683E;
const OVERLAY: FsWord = 0x794C_7630;
const FAT: FsWord = 0x4D44;
const TMPFS: FsWord = 0x0102_1994;
const RAMFS: FsWord = 0x8584_58F6;

const SECOND: i128 = 1_000_000_000;

/// File systems with (nearly) nanosecond times count in steps no coarser than this.
const FINE: i128 = 1000;

/// How long to sleep at a time.
const NAP: Duration = Duration::from_millis(1);

/// How often to try again if a file keeps changing.
const TRIES: usize = 5;

impl File {
    /// Returns a stamp such that any later change of the file changes it, as far as that can be ensured. Writes dirty
    /// pages to the device, and waits for the clock of the file system: some milliseconds, or up to two seconds where
    /// times are kept in seconds.
    ///
    /// # Errors
    ///
    /// [`Changed`](crate::ErrorKind::Changed) if the file keeps changing.
    pub fn settle(&self) -> Result<Stamp> {
        if self.is_block_device() {
            return self.stamp();
        }
        let mut seen = self.rest()?;
        for _ in 0..TRIES {
            system::settle(self.as_std(), self.path()).map_err(|e| {
                Error::io(
                    "cannot sync what another program wrote to",
                    e,
                )
                .with_path(self.path())
                .with_hint(
                    "the device may be failing: check it and its log, then run the command again",
                )
            })?;
            // A page that became dirty since then carries an older time; in that case everything has to be done again.
            if self.stamp()? == seen {
                return Ok(seen);
            }
            seen = self.rest()?;
        }
        Err(self.changed())
    }

    /// Returns the times of a file without dirty pages, once a further change is bound to leave other times. Syncs
    /// nothing.
    pub fn rest(&self) -> Result<Stamp> {
        let in_two_seconds = fstatfs(self.as_std()).is_ok_and(|found| found.f_type == FAT);
        let begin = Instant::now();
        loop {
            let stamp = self.stamp()?;
            let (step, longest) = match step(&stamp) {
                _ if in_two_seconds => (2 * SECOND, Duration::from_secs(3)),
                SECOND => (SECOND, Duration::from_secs(2)),
                fine => (fine, Duration::from_millis(50)),
            };
            if !is_fresh(&stamp, step, now()) || begin.elapsed() > longest {
                return Ok(stamp);
            }
            sleep(NAP);
        }
    }

    /// Returns why the [settled](Self::settle) times of this file don't prove that it is unchanged; `None` if they do.
    pub fn time_doubt(&self) -> Option<&'static str> {
        if self.is_block_device() {
            return Some("a block device doesn't show when it was changed");
        }
        match fstatfs(self.as_std()).map(|found| found.f_type) {
            Ok(EXT | XFS | BTRFS) => None,
            // It behaves like its underlying file system, which is on a device if it reports physical extents.
            Ok(OVERLAY)
                if Fiemap::new(self.as_std())
                    .next()
                    .is_none_or(|first| first.is_ok()) =>
            {
                None
            }
            Ok(OVERLAY | TMPFS | RAMFS) => {
                Some("this file system is in memory and doesn't show stores into a mapping")
            }
            Err(_) => Some("its file system can't be determined now"),
            Ok(_) => {
                Some("this file system isn't known to show every change in the times of its files")
            }
        }
    }
}

impl Stamp {
    /// Returns whether any change of the file at or after `since`, in nanoseconds since 1970, must have left times
    /// other than these.
    pub fn is_older_than(&self, since: i128) -> bool {
        newest(self) < since - since.rem_euclid(step(self))
    }
}

/// The clock from which the kernel takes file times, in nanoseconds since 1970.
fn now() -> i128 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    i128::from(now.tv_sec) * SECOND + i128::from(now.tv_nsec)
}

/// The apparent resolution of the times. Programs can set the modification time, but not the time of change.
fn step(stamp: &Stamp) -> i128 {
    if stamp.changed().1 == 0 { SECOND } else { FINE }
}

fn newest(stamp: &Stamp) -> i128 {
    let whole =
        |(seconds, nanoseconds): (i64, i64)| i128::from(seconds) * SECOND + i128::from(nanoseconds);
    whole(stamp.modified()).max(whole(stamp.changed()))
}

/// Returns whether a change at `now` could leave the same time while a slightly later one couldn't. A time in the
/// future doesn't age by waiting.
fn is_fresh(stamp: &Stamp, step: i128, now: i128) -> bool {
    let (newest, begin) = (newest(stamp), now - now.rem_euclid(step));
    newest >= begin && newest < begin + 2 * step.max(SECOND / 20)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_time_is_fresh_while_a_change_could_leave_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"it").unwrap();
        let stamp = File::open(&path).unwrap().stamp().unwrap();
        let at = newest(&stamp);
        for step in [FINE, SECOND, 2 * SECOND] {
            let begin = at - at.rem_euclid(step);
            for (now, fresh) in [
                (begin, true),
                (begin + step - 1, true),
                (begin + step, false),
                (begin + 100 * step, false),
                // The clock was set back, or the time was set ahead.
                (begin - 3 * step.max(SECOND), false),
            ] {
                assert_eq!(is_fresh(&stamp, step, now), fresh, "{step} {}", now - begin);
            }
        }
    }

    #[test]
    fn settling_waits_until_any_change_shows_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for n in 0..20_u8 {
            fs::write(&path, [n; 100]).unwrap();
            let file = File::open(&path).unwrap();
            let before = file.stamp().unwrap();
            let settled = file.settle().unwrap();
            assert!(before == settled && settled.is_older_than(now()));
            fs::write(&path, [n; 100]).unwrap();
            assert!(file.stamp().unwrap() != settled, "round {n}");
        }
    }
}
