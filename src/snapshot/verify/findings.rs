//! The findings of a check, and what is a finding at all.

use std::collections::HashSet;

use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::disk::is_passing;
use crate::snapshot::plain::is_absent;
use crate::snapshot::{Disk, Manifest};

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

/// A check of a disk, and its findings so far.
pub(super) struct Look<'a> {
    pub(super) disk: &'a Disk,
    pub(super) found: Verified,
    /// The numbers of affected snapshots.
    pub(super) bad: HashSet<u32>,
    /// Whether there are files whose manifest is damaged or lost.
    pub(super) lacks_manifest: bool,
}

impl Look<'_> {
    /// Adds a problem with a snapshot's own file, or that it couldn't be read.
    pub(super) fn add(&mut self, point: &Manifest, error: Error) -> Result<()> {
        match finding(self.disk, point, error) {
            Ok(finding) => self.tell(finding.error, finding.affected),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) => self.found.unread.push(error),
        }
        Ok(())
    }

    /// As [`add`](Self::add), unless the snapshot is known to be affected already.
    pub(super) fn add_unless_known(&mut self, point: &Manifest, error: Error) -> Result<()> {
        if self.bad.contains(&point.sequence) && !is_passing(&error) {
            return Ok(());
        }
        self.add(point, error)
    }

    pub(super) fn tell(&mut self, error: Error, mut affected: Vec<String>) {
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

/// Converts a problem with a snapshot to a finding, with the snapshots that it affects.
///
/// # Errors
///
/// Fails with the same error if it says nothing about the data: no descriptor, no permission, a device error, a lock. A
/// missing file is damage only if it is also missing in the listing of the folder, which could be read.
pub(in crate::snapshot) fn finding(disk: &Disk, point: &Manifest, error: Error) -> Result<Finding> {
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
pub(in crate::snapshot) fn is_missing(disk: &Disk, error: &Error) -> bool {
    let Some(path) = error.path() else {
        return false;
    };
    let name = path.file_name().and_then(|name| name.to_str());
    error.io_kind() == Some(std::io::ErrorKind::NotFound)
        && path.parent() == Some(disk.folder())
        && name.is_some_and(|name| !disk.names.contains(name))
        && is_absent(path)
}
