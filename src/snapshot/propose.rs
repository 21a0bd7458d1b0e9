//! Which snapshot of another disk a new disk is much like. It is only told: nothing is decided by it.

use super::disk::Disk;
use super::marker::disks;
use super::{OtherPoint, windows};
use crate::error::Result;
use crate::image::{ListedWindow, WindowList};
use crate::storage::File;

/// The most disks that are looked at.
const MOST: usize = 256;

/// Less than this isn't worth a word, in windows.
const LEAST: u64 = 16;

/// A snapshot of another disk that holds much of what a disk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proposal {
    /// The snapshot: the newest of its disk.
    pub like: OtherPoint,
    /// How many of the disk's mebibytes that hold data are the same in it.
    pub same: u64,
    /// How many hold data.
    pub of: u64,
}

/// The newest snapshot of another disk in the store that is most like the newest one of `disk`, by the window hashes of
/// both, of which nothing is computed for that; `None` if less than half is the same in any.
pub fn propose(disk: &Disk) -> Result<Option<Proposal>> {
    let Some(own) = current(disk)? else {
        return Ok(None);
    };
    let mut best: Option<Proposal> = None;
    let others = disks(disk.store())?;
    for name in others
        .into_iter()
        .filter(|name| name != disk.name())
        .take(MOST)
    {
        // One that can't be read isn't proposed.
        let Ok(other) = Disk::look(disk.store(), &name) else {
            continue;
        };
        let (Ok(Some(list)), Some(newest)) = (current(&other), other.newest()) else {
            continue;
        };
        let Ok([same, of]) = common(&own, &list) else {
            continue;
        };
        let is_better = best.as_ref().is_none_or(|best| best.same < same);
        if is_better && same >= LEAST && same >= of.div_ceil(2) {
            let snapshot = Some(newest.name.clone());
            best = Some(Proposal {
                like: OtherPoint {
                    disk: name,
                    snapshot,
                },
                same,
                of,
            });
        }
    }
    Ok(best)
}

/// The window hashes of the newest snapshot, if they are there.
fn current(disk: &Disk) -> Result<Option<WindowList<File>>> {
    let newest = disk.newest().map(|newest| newest.content_digest);
    Ok(windows::stored(disk)?.filter(|list| Some(list.digest()) == newest))
}

/// How many windows are the same in both and not zero, and how many of the first aren't zero.
fn common(own: &WindowList<File>, other: &WindowList<File>) -> Result<[u64; 2]> {
    let mut others = other.windows();
    let mut theirs: Option<ListedWindow> = others.next().transpose()?;
    let [mut same, mut of] = [0_u64; 2];
    for ours in own.windows() {
        let ours = ours?;
        while theirs
            .as_ref()
            .is_some_and(|theirs| theirs.start < ours.start)
        {
            theirs = others.next().transpose()?;
        }
        let at = theirs.as_ref().filter(|theirs| theirs.start == ours.start);
        for (n, hash) in ours.hashes.iter().enumerate() {
            if hash.is_some() {
                of += 1;
                same += u64::from(at.is_some_and(|at| at.hashes.get(n) == Some(hash)));
            }
        }
    }
    Ok([same, of])
}
