//! Reading a disk beside the command that changes it, without its lock.
//!
//! Every file of a store appears under its name at once, and is only replaced or removed; a deletion writes down what it
//! will do before it begins. So whoever finds the same files, manifests and written-down deletion before and after
//! reading has read one state of the disk. Where that can't be had, because one change follows the other, the lock is
//! asked for after all.

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::layout::LOCK;
use super::lock::DiskLock;
use super::seen::Seen;
use super::verify::verify;
use super::{Access, Disk, Holder, ReadData, Verified, Work, Writer};
use crate::error::{Error, ErrorKind, Result};

/// How often it is tried to read a disk between two changes.
const TRIES: u32 = 10;

/// The pause after the first try; each is longer than the one before.
const PAUSE: Duration = Duration::from_millis(5);

/// All data is read so often: that takes long.
const VERIFY_TRIES: u32 = 3;

impl Disk {
    /// Reads the manifests of the disk `name` as they are at one moment, without waiting and without keeping anybody from
    /// changing the disk afterwards: see [`writer`](Self::writer). Its files may be replaced or removed at any time.
    ///
    /// # Errors
    ///
    /// [`Locked`](ErrorKind::Locked) if one change followed the other for too long.
    pub fn look(store: &Path, name: &str) -> Result<Self> {
        let folder = Self::folder_of(store, name)?;
        for n in 1..=TRIES {
            let lock = match DiskLock::glance(&folder) {
                Ok(lock) => Ok(lock),
                Err(error) if error.kind() == ErrorKind::Locked => Err(Writer {
                    holder: Holder::of(&folder.join(LOCK)),
                }),
                Err(error) => return Err(error),
            };
            let before = Seen::at(&folder)?;
            let read = Self::unlocked(store, name, lock.as_ref().err().cloned());
            let read = read.and_then(|mut disk| disk.read_past().map(|()| disk));
            if lock.is_ok() || Seen::at(&folder)? == before {
                return read.map(|mut disk| {
                    disk.seen = Some(before);
                    disk
                });
            }
            thread::sleep(PAUSE * n);
        }
        Err(changes_too_fast(&folder, "read"))
    }

    /// Whether the disk still is what it was when it was [looked at](Self::look).
    pub fn is_as_seen(&self) -> Result<bool> {
        match &self.seen {
            Some(seen) => Ok(Seen::at(self.folder())? == *seen),
            // Its lock is held.
            None => Ok(true),
        }
    }
}

fn changes_too_fast(folder: &Path, what: &str) -> Error {
    let message = format!("it was changed again and again while it was being {what}");
    Error::new(ErrorKind::Locked, message)
        .with_path(folder)
        .with_hint("wait until the other commands have ended, then run this one again")
}

/// Opens what is to be read of the disk `name`, also while another command changes the disk: `open` opens it, and
/// returns whether it holds all its files, as [`hold_files`](super::PointImage::hold_files) does. Then no lock is kept.
/// Where it doesn't, the disk that is returned has its lock, and must be kept as long as something is read.
///
/// # Errors
///
/// [`Locked`](ErrorKind::Locked) if files can't be held and another command is in the way.
pub fn open_beside<T>(
    store: &Path,
    name: &str,
    mut open: impl FnMut(&mut Disk) -> Result<(T, bool)>,
) -> Result<(Disk, T)> {
    for n in 1..=TRIES {
        let mut disk = Disk::look(store, name)?;
        let opened = open(&mut disk);
        // What was opened may be of two states, if there was a change.
        let unchanged = disk.is_as_seen()?;
        match opened {
            Ok((_, false)) => break,
            Ok((opened, true)) if unchanged => return Ok((disk, opened)),
            Err(error) if unchanged => return Err(error),
            _ => thread::sleep(PAUSE * n),
        }
    }
    let mut disk = Disk::open(store, name, Access::Read)?;
    let (opened, _) = open(&mut disk)?;
    Ok((disk, opened))
}

/// Verifies the disk `name` as [`verify`] does, also while another command changes it: what is found is what is wrong,
/// not what was just being changed.
///
/// # Errors
///
/// As [`Disk::look`] and [`verify`].
pub fn verify_beside(
    store: &Path,
    name: &str,
    read: ReadData,
    work: Work<'_>,
) -> Result<(Disk, Verified)> {
    for _ in 0..VERIFY_TRIES {
        let mut disk = Disk::look(store, name)?;
        let found = verify(&mut disk, read, work)?;
        let sound = found.findings.is_empty() && found.unread.is_empty();
        if sound || disk.is_as_seen()? {
            return Ok((disk, found));
        }
    }
    let mut disk = Disk::open(store, name, Access::Read)?;
    let found = verify(&mut disk, read, work)?;
    Ok((disk, found))
}
