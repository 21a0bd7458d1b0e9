//! What is damaged in a disk of a store, made again from what is left of it, from other stores, or from the images that
//! the snapshots were taken from.
//!
//! First everything is read; what can't be read now ends the repair before anything is changed. Then the manifests, the
//! oldest first, then the data, then what can't be mended goes if that is wanted, after a second look. Nothing that was
//! damaged is thrown away: it is kept beside, with `.damaged` behind its name.

mod aside;
mod data;
mod drop;
mod intent;
mod manifests;
mod sources;

pub use aside::{TakenBack, take_back};
pub use intent::set_aside_intent;

use std::collections::{BTreeSet, HashSet};

use super::disk::{is_absent, is_passing};
use super::layout::WINDOWS;
use super::verify::verify;
use super::{Disk, Finding, Manifest, PointFileName, ReadData, Work, windows};
use crate::error::{Error, ErrorKind, Result};
use crate::files::Opened;

/// What a repair may use, and what it may do.
#[derive(Debug, Default)]
pub struct RepairSources {
    /// The same disk in other stores.
    pub stores: Vec<Disk>,
    /// Images of snapshots, by their names. Each is used only if it holds what the manifest says.
    pub images: Vec<(String, Box<dyn Opened>)>,
    /// Whether snapshots that can't be mended shall go.
    pub drop: bool,
    /// Whether it is only said what would be done.
    pub dry_run: bool,
}

/// A file that was made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// Its name in the folder of the disk.
    pub file: String,
    /// From what, and what was lost.
    pub how: String,
}

/// What a repair came to.
#[derive(Debug, Default)]
pub struct RepairedDisk {
    /// What was made again, in order.
    pub mended: Vec<Repaired>,
    /// Snapshots that went because they couldn't be mended.
    pub dropped: Vec<String>,
    /// Why something that was at hand could not be used.
    pub refused: Vec<Error>,
    /// What is still wrong.
    pub left: Vec<Finding>,
    /// Why something that might have helped couldn't be read, so that more may be possible another time.
    pub unread: Option<Error>,
}

/// Mends what it can. Reads all data of the disk, before and after.
///
/// # Errors
///
/// When something of the disk can't be read, which says nothing of what it holds; nothing was changed then.
pub fn repair(disk: &mut Disk, means: &RepairSources, work: Work<'_>) -> Result<RepairedDisk> {
    if !means.dry_run {
        disk.check_open_for_writing()?;
    }
    let mut job = Job {
        disk,
        means,
        work,
        broken: BTreeSet::new(),
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

/// A repair under way. The snapshots of its disk are what they are known to be; without a dry run they also stand so in
/// the folder.
struct Job<'a> {
    disk: &'a mut Disk,
    means: &'a RepairSources,
    work: Work<'a>,
    /// The ids of snapshots whose own file is damaged still.
    broken: BTreeSet<String>,
    /// What couldn't be mended.
    faults: Vec<(PointFileName, Finding)>,
    /// Manifests that are made again, but not written yet.
    manifests: Vec<Manifest>,
    /// Why something that might have helped couldn't be read.
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

    /// Whether something goes on after this error, which is remembered; not if the user doesn't want to.
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

    /// Nothing makes the manifest of these files again.
    fn lost(&mut self, stem: &PointFileName) {
        let error = Error::damaged("this manifest is lost or damaged, and can't be reconstructed")
            .with_path(self.disk.path(&stem.manifest()))
            .with_hint("name a store that has it: --from STORE; or give the snapshot up: --drop");
        let affected = vec![stem.name.clone()];
        self.faults
            .push((stem.clone(), Finding { error, affected }));
    }

    /// The snapshot that the diff of `point` starts from.
    fn before(&self, point: &Manifest) -> Option<Manifest> {
        self.disk.parent_of(point).cloned()
    }

    /// The snapshots of which nothing that they are made of is damaged, by their numbers.
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

    /// Whether nothing that the snapshot is made of is damaged.
    fn is_whole(&self, point: &Manifest) -> bool {
        let chain = self.disk.chain(point);
        chain.is_ok_and(|chain| chain.iter().all(|part| !self.broken.contains(&part.id)))
    }

    /// The window hashes cost nothing but time: what isn't right is made again.
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
            // It is replaced at once, by a file that is complete.
            windows::of_newest(self.disk, &newest, self.work)?;
        }
        self.say(WINDOWS, "from the data of the newest snapshot");
        Ok(())
    }
}
