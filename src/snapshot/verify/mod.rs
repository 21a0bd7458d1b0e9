//! Finding what is damaged, in which file and where, and which points in time it affects.
//!
//! | file | looks at |
//! | --- | --- |
//! | `structure.rs` | each snapshot's own file: that it is there, and continues the one before it |
//! | `history.rs` | all snapshots together: ids, names, times, and what says that there were more |
//! | `data.rs` | the bytes |
//!
//! Only what was read and found wrong is a finding. What couldn't be read is told as that.

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
    /// Nothing: manifests, lengths, the ends of the diffs, and how all hang together.
    Nothing,
    /// About so many percent of it, others each time.
    Percent(u8),
    /// Every byte.
    All,
}

/// Something that is wrong.
#[derive(Debug)]
pub struct Finding {
    /// What, in which file, where.
    pub error: Error,
    /// The names of the snapshots that can't be relied on, the oldest first.
    pub affected: Vec<String>,
}

/// What a look at a disk showed.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Verified {
    /// What was read and is wrong.
    pub findings: Vec<Finding>,
    /// What couldn't be read, so that nothing is known of it.
    pub unread: Vec<Error>,
}

impl Verified {
    /// The findings, if everything could be looked at.
    ///
    /// # Errors
    ///
    /// The first one of those that kept something from being read.
    pub fn into_findings(self) -> Result<Vec<Finding>> {
        match self.unread.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(self.findings),
        }
    }
}

/// After so many findings, the next ones name only affected snapshots that weren't named before.
const TOLD_IN_FULL: usize = 100;

/// Looks at everything that belongs to the disk, and reads as much of its data as `read` says. What can't be read
/// doesn't keep the rest from being looked at.
///
/// # Errors
///
/// When the user stops it.
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

/// A look at a disk, and what it showed so far.
struct Look<'a> {
    disk: &'a Disk,
    found: Verified,
    /// The numbers of the snapshots that can't be relied on.
    bad: HashSet<u32>,
    /// Whether a manifest is damaged or lost of which there are files: one that nothing is known of.
    lacks_manifest: bool,
}

impl Look<'_> {
    /// What is wrong with a snapshot's own file, or that it couldn't be read.
    fn add(&mut self, point: &Manifest, error: Error) -> Result<()> {
        match finding(self.disk, point, error) {
            Ok(finding) => self.tell(finding.error, finding.affected),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) => self.found.unread.push(error),
        }
        Ok(())
    }

    /// The same, if nothing is known yet of why the snapshot can't be relied on.
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

/// What is made of a snapshot whose manifest can't be read: it and all up to the next base.
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

/// What is wrong with a snapshot, and which ones it affects.
///
/// # Errors
///
/// The same error, if it says nothing of what was read: no descriptor, no permission, a device that failed, a lock. Of a
/// file that wasn't found it is damage only if the folder, which could be read, has no such name either.
pub(super) fn finding(disk: &Disk, point: &Manifest, error: Error) -> Result<Finding> {
    let missing = is_missing(disk, &error);
    // Found by looking: an undo journal stands beside the file.
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
        error.with_hint(disk.repair_hint())
    } else {
        error
    };
    Ok(Finding { error, affected })
}

/// Whether an error is that a file of the disk isn't there, by its name and by the listing of the folder.
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

/// The window hashes of the newest snapshot, if they are there and right; what is wrong with them costs nothing but the
/// time to make them again.
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
            look.tell(error.with_hint(hint), Vec::new());
            Ok(None)
        }
    }
}
