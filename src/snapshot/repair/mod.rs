//! What is damaged in a disk of a store, made again from what is left of it, from other stores, or from the images that
//! the snapshots were taken from.
//!
//! First the manifests, the oldest first, then the data, then what can't be mended goes if that is wanted. Nothing that
//! was damaged is thrown away: it is kept beside, with `.damaged` behind its name.

mod data;
mod drop;
mod intent;
mod manifests;
mod sources;

pub use intent::put_aside_intent;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::layout::{DAMAGED, WINDOWS};
use super::verify::verify;
use super::{Disk, Finding, Manifest, ReadData, Stem, Work, windows};
use crate::error::{Error, ErrorKind, Result};
use crate::files::Source;
use crate::image::WindowList;
use crate::progress::Silent;
use crate::storage::{AtomicFile, File, Overwrite, rename};

/// What a repair may use, and what it may do.
#[derive(Debug, Default)]
pub struct Means {
    /// The same disk in other stores.
    pub stores: Vec<Disk>,
    /// Images of snapshots, by their names. Each is used only if it holds what the manifest says.
    pub images: Vec<(String, Box<dyn Source>)>,
    /// Whether snapshots that can't be mended shall go.
    pub drop: bool,
    /// Whether it is only said what would be done.
    pub dry_run: bool,
}

/// A file that was made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// Its name in the folder of the disk.
    pub file: String,
    /// From what, and what was lost.
    pub how: String,
}

/// What a repair came to.
#[derive(Debug, Default)]
pub struct RepairedDisk {
    /// What was made again, in order.
    pub mended: Vec<Mended>,
    /// Snapshots that went because they couldn't be mended.
    pub dropped: Vec<String>,
    /// Why something that was at hand could not be used.
    pub refused: Vec<Error>,
    /// What is still wrong.
    pub left: Vec<Finding>,
}

/// Mends what it can. Reads all data of the disk, before and after.
pub fn repair(disk: &mut Disk, means: &Means, work: Work<'_>) -> Result<RepairedDisk> {
    if !means.dry_run {
        disk.check_open_for_writing()?;
    }
    let mut job = Job {
        disk,
        means,
        work,
        broken: BTreeSet::new(),
        faults: Vec::new(),
        done: RepairedDisk::default(),
    };
    job.manifests()?;
    job.data()?;
    if means.drop {
        job.drop_broken()?;
    }
    job.windows()?;
    let Job {
        disk,
        faults,
        mut done,
        ..
    } = job;
    done.left = if means.dry_run {
        faults.into_iter().map(|(_, fault)| fault).collect()
    } else {
        disk.load()?;
        verify(disk, ReadData::All, work)?
    };
    Ok(done)
}

/// A repair under way. The snapshots of its disk are what they are known to be; without a dry run they also stand so in
/// the folder.
struct Job<'a> {
    disk: &'a mut Disk,
    means: &'a Means,
    work: Work<'a>,
    /// The ids of snapshots whose own file is damaged still.
    broken: BTreeSet<String>,
    /// What couldn't be mended.
    faults: Vec<(Stem, Finding)>,
    done: RepairedDisk,
}

impl Job<'_> {
    fn say(&mut self, file: &str, how: impl Into<String>) {
        let how = how.into();
        self.done.mended.push(Mended {
            file: file.to_owned(),
            how,
        });
    }

    /// Whether something goes on after this error, which is remembered; not if the user doesn't want to.
    fn refuse(&mut self, error: Error) -> Result<()> {
        if error.kind() == ErrorKind::Interrupted {
            return Err(error);
        }
        self.done.refused.push(error);
        Ok(())
    }

    /// Nothing makes the manifest of these files again.
    fn lost(&mut self, stem: &Stem) {
        let error =
            Error::damaged("this manifest is lost or damaged, and nothing says what it was")
                .path(self.disk.path(&stem.manifest()))
                .hint("name a store that has it: --from STORE; or give the snapshot up: --drop");
        let affected = vec![stem.name.clone()];
        self.faults
            .push((stem.clone(), Finding { error, affected }));
    }

    /// The snapshot that the diff of `point` starts from.
    fn before(&self, point: &Manifest) -> Option<Manifest> {
        let id = point.parent.as_ref()?;
        let points = self.disk.points();
        points.iter().find(|point| point.id == *id).cloned()
    }

    /// Whether nothing that the snapshot is made of is damaged.
    fn is_whole(&self, point: &Manifest) -> bool {
        let chain = self.disk.chain(point);
        chain.is_ok_and(|chain| chain.iter().all(|part| !self.broken.contains(&part.id)))
    }

    /// The window hashes cost nothing but time: what isn't right is made again.
    fn windows(&mut self) -> Result<()> {
        let path = self.disk.path(WINDOWS);
        let newest = self.disk.newest().filter(|newest| self.is_whole(newest));
        let Some(newest) = newest.cloned() else {
            return Ok(());
        };
        let stored = File::open(&path).and_then(WindowList::open);
        if stored.is_ok_and(|list| list.digest() == newest.content_digest) {
            return Ok(());
        }
        if !self.means.dry_run {
            // It is replaced at once, by a file that is complete.
            windows::of_newest(self.disk, &newest, self.work)?;
        }
        self.say(WINDOWS, "from the data of the newest snapshot");
        Ok(())
    }
}

/// Keeps a file under a name that says what it is; the original name is free then.
fn move_aside(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    rename(path, &aside(path))
}

/// Keeps a copy of a file that is about to be replaced.
fn copy_aside(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let copy = AtomicFile::new(aside(path))?;
    copy.file().copy_from_file(&File::open(path)?, &Silent)?;
    copy.publish(Overwrite::Yes)
}

fn aside(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(DAMAGED);
    name.into()
}
