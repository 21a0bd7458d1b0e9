//! Repairs a disk of a store from what is left of it, from other stores, or from the images from which the snapshots
//! were taken.
//!
//! First everything is read; a read error ends the repair before anything is changed. Then the manifests are repaired,
//! oldest first, then the data; then, on request and after a second look, what can't be repaired is given up. Damaged
//! files are never discarded: they are kept with `.damaged` appended to their names.

mod aside;
mod data;
mod drop;
mod intent;
mod manifests;
mod sources;

pub use aside::{TakenBack, take_back};
pub use intent::set_aside_intent;

use std::collections::{BTreeSet, HashSet};

use super::disk::is_passing;
use super::layout::WINDOWS;
use super::plain::is_absent;
use super::verify::verify;
use super::{Disk, Finding, Manifest, PointFileName, ReadData, Work, windows};
use crate::error::{Error, ErrorKind, Result};
use crate::files::Opened;
use crate::remedy::{Choice, Remedy, Step};

/// The sources that a repair may use, and what it may do.
#[derive(Debug, Default)]
pub struct RepairSources {
    /// The same disk in other stores.
    pub stores: Vec<Disk>,
    /// Images of snapshots, by snapshot name. Each is used only if its content matches the manifest.
    pub images: Vec<(String, Box<dyn Opened>)>,
    /// Whether to give up snapshots that can't be repaired.
    pub drop: bool,
    /// Whether to report only what would be done.
    pub dry_run: bool,
}

/// A file that was rebuilt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// Its name in the folder of the disk.
    pub file: String,
    /// From what it was rebuilt, and what was lost.
    pub how: String,
}

/// The outcome of a repair.
#[derive(Debug, Default)]
pub struct RepairedDisk {
    /// The files that were rebuilt, in order.
    pub mended: Vec<Repaired>,
    /// Snapshots that were given up because they couldn't be repaired.
    pub dropped: Vec<String>,
    /// Why available sources could not be used.
    pub refused: Vec<Error>,
    /// The remaining problems.
    pub left: Vec<Finding>,
    /// Why a possible source couldn't be read, so that more may be possible another time.
    pub unread: Option<Error>,
}

/// Repairs what it can. Reads all data of the disk, before and after.
///
/// # Errors
///
/// Fails if something of the disk can't be read, which says nothing about its content; nothing was changed then.
pub fn repair(disk: &mut Disk, means: &RepairSources, work: Work<'_>) -> Result<RepairedDisk> {
    if !means.dry_run {
        disk.check_open_for_writing()?;
    }
    let mut job = Job {
        disk,
        means,
        work,
        broken: BTreeSet::new(),
        lying: HashSet::new(),
        proven: HashSet::new(),
        faults: Vec::new(),
        manifests: Vec::new(),
        unread: None,
        done: RepairedDisk::default(),
    };
    job.manifests()?;
    let damaged = job.look()?;
    job.write_manifests()?;
    job.data(damaged)?;
    if means.drop {
        job.drop_broken()?;
    }
    job.windows()?;
    let Job {
        disk,
        faults,
        unread,
        mut done,
        ..
    } = job;
    done.unread = unread;
    done.left = if means.dry_run {
        faults.into_iter().map(|(_, fault)| fault).collect()
    } else {
        disk.load()?;
        verify(disk, ReadData::All, work)?.into_findings()?
    };
    Ok(done)
}

/// A repair in progress. The snapshots of its disk are in their currently known state; without a dry run, the folder is
/// in that state as well.
struct Job<'a> {
    disk: &'a mut Disk,
    means: &'a RepairSources,
    work: Work<'a>,
    /// The ids of snapshots whose own file is still damaged.
    broken: BTreeSet<String>,
    /// The ids of snapshots whose own file is sound, but doesn't make what it should.
    lying: HashSet<String>,
    /// The ids of snapshots that held what they should at the beginning, whatever they depend on.
    proven: HashSet<String>,
    /// What couldn't be repaired.
    faults: Vec<(PointFileName, Finding)>,
    /// Manifests that have been rebuilt but not written yet.
    manifests: Vec<Manifest>,
    /// Why a possible source couldn't be read.
    unread: Option<Error>,
    done: RepairedDisk,
}

impl Job<'_> {
    fn say(&mut self, file: &str, how: impl Into<String>) {
        let how = how.into();
        self.done.mended.push(Repaired {
            file: file.to_owned(),
            how,
        });
    }

    /// Records an error after which the repair continues. Fails if the user wants to stop.
    fn refuse(&mut self, error: Error) -> Result<()> {
        if error.kind() == ErrorKind::Interrupted {
            return Err(error);
        }
        let is_gone = error.io_kind() == Some(std::io::ErrorKind::NotFound)
            && error.path().is_some_and(is_absent);
        if is_passing(&error) && !is_gone {
            let again = Error::new(error.kind(), "something that may help couldn't be read");
            let again = again.with_source(error.to_string());
            self.unread.get_or_insert(
                again.with_hint(
                    "nothing was given up: remove the cause, then run the command again",
                ),
            );
        }
        self.done.refused.push(error);
        Ok(())
    }

    /// Records that the manifest of these files can't be rebuilt.
    fn lost(&mut self, stem: &PointFileName) {
        let error = Error::damaged("this manifest is lost or damaged, and can't be reconstructed")
            .with_path(self.disk.path(&stem.manifest()))
            .with_remedy(
                Remedy::new("specify a store that has it")
                    .named(": ")
                    .step(Step::Choose(Choice::FromStore), "")
                    .text("; or give up the snapshot")
                    .named(": ")
                    .step(Step::Choose(Choice::Drop), ""),
            );
        let affected = vec![stem.name.clone()];
        self.faults
            .push((stem.clone(), Finding { error, affected }));
    }

    /// The snapshot on which the diff of `point` is based.
    fn before(&self, point: &Manifest) -> Option<Manifest> {
        self.disk.parent_of(point).cloned()
    }

    /// The numbers of the snapshots of whose dependencies nothing is damaged.
    fn whole(&self) -> HashSet<u32> {
        let mut whole = HashSet::new();
        for point in self.disk.points() {
            let parent = self.disk.parent_of(point).map(|parent| parent.sequence);
            let on_sound = parent.map_or(point.is_base(), |parent| whole.contains(&parent));
            if on_sound && !self.broken.contains(&point.id) {
                whole.insert(point.sequence);
            }
        }
        whole
    }

    /// Returns whether nothing that the snapshot depends on is damaged.
    fn is_whole(&self, point: &Manifest) -> bool {
        let chain = self.disk.chain(point);
        chain.is_ok_and(|chain| chain.iter().all(|part| !self.broken.contains(&part.id)))
    }

    /// Rebuilds the window hashes if they aren't right, which only takes time.
    fn windows(&mut self) -> Result<()> {
        let newest = self.disk.newest().filter(|newest| self.is_whole(newest));
        let Some(newest) = newest.cloned() else {
            return Ok(());
        };
        match windows::open(self.disk) {
            Ok(Some(list)) if list.digest() == newest.content_digest => return Ok(()),
            Err(error) if is_passing(&error) => return Err(error),
            _ => {}
        }
        if !self.means.dry_run {
            // It is replaced at once by a complete file.
            windows::of_newest(self.disk, &newest, self.work)?;
        }
        self.say(WINDOWS, "from the data of the newest snapshot");
        Ok(())
    }
}
