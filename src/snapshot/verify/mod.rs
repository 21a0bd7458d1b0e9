//! Finds damage: in which file and where, and which points in time it affects.
//!
//! | file | looks at |
//! | --- | --- |
//! | `structure.rs` | each snapshot's own file: that it is there, and continues the one before it |
//! | `history.rs` | all snapshots together: ids, names, times, and what says that there were more |
//! | `data.rs` | the bytes |
//!
//! Only what was read and found wrong is a finding. Anything that couldn't be read is reported as such.

mod data;
mod history;
mod structure;

use std::collections::HashSet;

pub(super) use data::file_data;
pub(super) use history::check_footer;
pub(super) use structure::{check_base, structure};

use super::disk::{is_absent, is_passing};
use super::{Disk, Manifest, PointFileName, Work, windows};
use crate::error::{Error, ErrorKind, Result};
use crate::image::WindowList;
use crate::storage::File;

/// How much of the data is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadData {
    /// Nothing: only manifests, lengths, the ends of the diffs, and their consistency.
    Nothing,
    /// About this percentage of it, a different part each time.
    Percent(u8),
    /// Every byte.
    All,
}

/// A problem.
#[derive(Debug)]
pub struct Finding {
    /// The problem, with file and location.
    pub error: Error,
    /// The names of the affected snapshots, oldest first.
    pub affected: Vec<String>,
}

/// The result of verifying a disk.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Verified {
    /// What was read and is wrong.
    pub findings: Vec<Finding>,
    /// What couldn't be read, so that nothing is known about it.
    pub unread: Vec<Error>,
}

impl Verified {
    /// The findings, if everything could be checked.
    ///
    /// # Errors
    ///
    /// Fails with the first read error.
    pub fn into_findings(self) -> Result<Vec<Finding>> {
        match self.unread.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(self.findings),
        }
    }
}

/// After this many findings, further ones list only affected snapshots that weren't listed before.
const TOLD_IN_FULL: usize = 100;

/// Checks everything that belongs to the disk, and reads as much of its data as `read` specifies. Read errors don't
/// prevent checking the rest.
///
/// # Errors
///
/// Fails if the user stops it.
pub fn verify(disk: &mut Disk, read: ReadData, work: Work<'_>) -> Result<Verified> {
    let damaged = disk.take_damaged();
    let mut look = Look {
        disk,
        found: Verified::default(),
        bad: HashSet::new(),
        lacks_manifest: !damaged.is_empty(),
    };
    for error in damaged {
        let affected = after_damage(look.disk, &error);
        look.tell(error, affected);
    }
    structure::all(&mut look, work)?;
    history::all(&mut look);
    structure::strays(&mut look);
    let list = list(&mut look)?;
    if read != ReadData::Nothing {
        data::data(&mut look, read, list.as_ref(), work)?;
    }
    Ok(look.found)
}

/// A check of a disk, and its findings so far.
struct Look<'a> {
    disk: &'a Disk,
    found: Verified,
    /// The numbers of affected snapshots.
    bad: HashSet<u32>,
    /// Whether there are files whose manifest is damaged or lost.
    lacks_manifest: bool,
}

impl Look<'_> {
    /// Adds a problem with a snapshot's own file, or that it couldn't be read.
    fn add(&mut self, point: &Manifest, error: Error) -> Result<()> {
        match finding(self.disk, point, error) {
            Ok(finding) => self.tell(finding.error, finding.affected),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) => self.found.unread.push(error),
        }
        Ok(())
    }

    /// As [`add`](Self::add), unless the snapshot is known to be affected already.
    fn add_unless_known(&mut self, point: &Manifest, error: Error) -> Result<()> {
        if self.bad.contains(&point.sequence) && !is_passing(&error) {
            return Ok(());
        }
        self.add(point, error)
    }

    fn tell(&mut self, error: Error, mut affected: Vec<String>) {
        let known = |name: &String| self.disk.points.named(name).map(|point| point.sequence);
        if self.found.findings.len() >= TOLD_IN_FULL {
            let mut first = true;
            affected.retain(|name| {
                let own = std::mem::take(&mut first);
                own || known(name).is_none_or(|number| !self.bad.contains(&number))
            });
        }
        self.bad.extend(affected.iter().filter_map(known));
        self.found.findings.push(Finding { error, affected });
    }
}

/// The snapshots affected by an unreadable manifest: its own and all up to the next base.
fn after_damage(disk: &Disk, error: &Error) -> Vec<String> {
    let name = error.path().and_then(|path| path.file_name()?.to_str());
    let Some((stem, _)) = name.and_then(PointFileName::parse) else {
        return Vec::new();
    };
    let later = disk.points().iter().filter(|p| p.sequence > stem.sequence);
    let later = later.take_while(|point| !point.is_base());
    let later = later.map(|point| point.name.clone());
    [stem.name.clone()].into_iter().chain(later).collect()
}

/// Converts a problem with a snapshot to a finding, with the snapshots that it affects.
///
/// # Errors
///
/// Fails with the same error if it says nothing about the data: no descriptor, no permission, a device error, a lock. A
/// missing file is damage only if it is also missing in the listing of the folder, which could be read.
pub(super) fn finding(disk: &Disk, point: &Manifest, error: Error) -> Result<Finding> {
    let missing = is_missing(disk, &error);
    // This was found by looking: there is an undo journal next to the file.
    let pending = error.kind() == ErrorKind::Pending;
    if is_passing(&error) && !missing && !pending {
        return Err(error);
    }
    let mut affected: Vec<String> = disk
        .made_of(point)
        .iter()
        .map(|point| point.name.clone())
        .collect();
    if affected.is_empty() {
        affected.push(point.name.clone());
    }
    let error = if missing {
        error.override_remedy(disk.repair_remedy())
    } else {
        error
    };
    Ok(Finding { error, affected })
}

/// Returns whether an error means that a file of the disk is missing, both by its name and in the listing of the
/// folder.
pub(super) fn is_missing(disk: &Disk, error: &Error) -> bool {
    let Some(path) = error.path() else {
        return false;
    };
    let name = path.file_name().and_then(|name| name.to_str());
    error.io_kind() == Some(std::io::ErrorKind::NotFound)
        && path.parent() == Some(disk.folder())
        && name.is_some_and(|name| !disk.names.contains(name))
        && is_absent(path)
}

/// The window hashes of the newest snapshot, if they exist and are right. Problems with them only cost the time to
/// compute them again.
fn list(look: &mut Look<'_>) -> Result<Option<WindowList<File>>> {
    match windows::open(look.disk) {
        Ok(Some(list)) => {
            history::check_list(look, list.digest());
            let newest = look.disk.newest().map(|newest| newest.content_digest);
            Ok(Some(list).filter(|list| newest == Some(list.digest())))
        }
        Ok(None) => Ok(None),
        Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
        Err(error) if is_passing(&error) => {
            look.found.unread.push(error);
            Ok(None)
        }
        Err(error) => {
            let hint = "it is rebuilt with the next snapshot; or remove it";
            look.tell(error.override_hint(hint), Vec::new());
            Ok(None)
        }
    }
}
