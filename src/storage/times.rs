//! What the times of a file prove: that nobody changed it since it was looked at.
//!
//! A change shows only if it moves a time, and to another value than the one that was seen. Three things are in the way,
//! and [`File::settle`] waits until none of them is:
//!
//! * A store into a mapping moves the time when the page becomes dirty, and not again while it is. So what is dirty is
//!   written first; then the next store has to ask the file system.
//! * A long write has the time of its beginning. So the lock that writers hold is waited for.
//! * Two changes within one step of the clock by which the file system keeps times leave the same time. So the time that
//!   is seen must be older than that.
//!
//! All of it holds where pages are written back and times are this machine's own: [`File::time_doubt`] says where not.

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

/// Steps in which file systems with times to the nanosecond, or nearly, count: none is coarser.
const FINE: i128 = 1000;

/// What is waited in one go.
const NAP: Duration = Duration::from_millis(1);

/// How often a file that changes while it is looked at is looked at again.
const TRIES: usize = 5;

impl File {
    /// Identity, size and times, such that any change of the file from now on changes one of them, as far as that can be
    /// brought about here. Writes what is dirty to the device, and waits for the clock of the file system: up to some
    /// milliseconds, or two seconds where times are kept in seconds.
    ///
    /// # Errors
    ///
    /// [`Changed`](crate::ErrorKind::Changed) if somebody is changing it all the time.
    pub fn settle(&self) -> Result<Stamp> {
        if self.is_block_device() {
            return self.stamp();
        }
        let mut seen = self.rest()?;
        for _ in 0..TRIES {
            system::settle(self.as_std(), self.path()).map_err(|e| {
                Error::io(
                    "cannot bring to stable storage what another program wrote to",
                    e,
                )
                .with_path(self.path())
                .with_hint(
                    "the device may be failing: check it and its log, then run the command again",
                )
            })?;
            // Of a page that became dirty since it was looked at, the time is that of before; then all is to be done again.
            if self.stamp()? == seen {
                return Ok(seen);
            }
            seen = self.rest()?;
        }
        Err(self.changed())
    }

    /// The times once a further change must leave others, of a file of which nothing is dirty.
    pub(super) fn rest(&self) -> Result<Stamp> {
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

    /// Why the times of this file, though they are [settled](Self::settle), don't prove that it wasn't changed; `None`
    /// if they do.
    pub fn time_doubt(&self) -> Option<&'static str> {
        if self.is_block_device() {
            return Some("a block device doesn't show when it was changed");
        }
        match fstatfs(self.as_std()).map(|found| found.f_type) {
            Ok(EXT | XFS | BTRFS) => None,
            // It shows what the file system below does. That is one with a device if it knows where bytes are kept.
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
    /// Whether a change of the file at any time from `since` on, in nanoseconds since 1970, must show as another time of
    /// modification or of change than these.
    pub fn is_older_than(&self, since: i128) -> bool {
        newest(self) < since - since.rem_euclid(step(self))
    }
}

/// The clock by which the system gives files their times, in nanoseconds since 1970.
fn now() -> i128 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    i128::from(now.tv_sec) * SECOND + i128::from(now.tv_nsec)
}

/// The steps in which the times seem to be kept. Programs can set the time of modification, but not that of change.
fn step(stamp: &Stamp) -> i128 {
    if stamp.changed().1 == 0 { SECOND } else { FINE }
}

fn newest(stamp: &Stamp) -> i128 {
    let whole =
        |(seconds, nanoseconds): (i64, i64)| i128::from(seconds) * SECOND + i128::from(nanoseconds);
    whole(stamp.modified()).max(whole(stamp.changed()))
}

/// Whether a change at `now` could leave the same time, and one a little later couldn't: a time in the future doesn't
/// become older by waiting.
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
                // The clock was set back, or the time set ahead.
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
