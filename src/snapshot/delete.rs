//! Deleting a snapshot: every other point in time stays what it is.
//!
//! ```text
//! newest, or before another base    its files go
//! between others                    its diff is folded into the next one
//! a base                            the next diff is applied to it in place: it becomes the next one's base
//! ```
//!
//! Several in a row that are made of one another go at once: one fold or one apply, whatever their number.
//!
//! What shall be done is written down first; a command that was interrupted after that is finished by the next one.

use std::fs;
use std::io::ErrorKind as IoKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::create::{LARGEST_DYNAMIC, lengths};
use super::layout::{DELETING, NEW};
use super::{Between, Data, DataKind, Disk, Manifest, Work, incoming};
use crate::diff::{BaseCheck, Chain, Compression};
use crate::error::{Error, Result};
use crate::files::{
    ApplyOptions, Format, InPlace, Output, ParentOptions, apply_in_place, journal_path, open_diff,
};
use crate::image::ContentDigest;
use crate::storage::{AtomicFile, Audience, Overwrite, WriteAt as _, remove_if_there, rename};

/// What shall be done, so that it can be finished.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Intent {
    schema_version: u32,
    /// The snapshots that go: one, or several in a row that are made of one another, the oldest first.
    deleted: Vec<Manifest>,
    /// The next one as it was, and as it shall be.
    next: Option<[Manifest; 2]>,
    /// Whether the base of the deleted one becomes the next one's, by applying its diff.
    forward: bool,
}

/// What became of the snapshot after the deleted one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// Nothing was made of the deleted one.
    Alone,
    /// Its diff holds what changed since the one before the deleted one.
    Folded {
        /// The name of the next one.
        next: String,
    },
    /// It is the base now.
    Rolled {
        /// The name of the next one.
        next: String,
    },
}

/// Deletes the snapshot called `name`. The last one of a disk only goes if `last`.
pub fn delete(disk: &mut Disk, name: &str, last: bool, work: Work<'_>) -> Result<Deleted> {
    disk.check_writable()?;
    if disk.copying().is_some_and(|part| part.name == name) {
        incoming::give_up(disk)?;
        disk.load()?;
        return Ok(Deleted::Alone);
    }
    let deleted = disk.find(name)?.clone();
    if disk.points().len() == 1 && !last {
        return Err(Error::usage("this is the last snapshot of the disk")
            .path(disk.folder())
            .found(name)
            .hint("say --last to delete it too; nothing will be left of the disk"));
    }
    delete_run(disk, vec![deleted], work)
}

/// Deletes snapshots in a row, the oldest first, each made of the one before it.
pub(super) fn delete_run(
    disk: &mut Disk,
    deleted: Vec<Manifest>,
    work: Work<'_>,
) -> Result<Deleted> {
    disk.check_writable()?;
    let (Some(first), Some(last)) = (deleted.first(), deleted.last()) else {
        return Ok(Deleted::Alone);
    };
    let next = disk
        .points()
        .iter()
        .find(|point| point.parent.as_deref() == Some(&last.id));
    let Some(next) = next.cloned() else {
        let intent = Intent::new(deleted, None, false);
        intent.write(disk)?;
        finish(disk, &intent, work)?;
        return Ok(Deleted::Alone);
    };
    let name = next.name.clone();
    let before = disk
        .points()
        .iter()
        .find(|point| first.parent.as_ref() == Some(&point.id));
    if let Some(before) = before.cloned() {
        let folded = fold(disk, &before, &next, work)?;
        let intent = Intent::new(deleted, Some([next, folded]), false);
        intent.write(disk)?;
        finish(disk, &intent, work)?;
        return Ok(Deleted::Folded { next: name });
    }
    let dynamic = Path::new(&first.data.file)
        .extension()
        .is_some_and(|ending| ending == "vhd");
    let grows = next.virtual_size > LARGEST_DYNAMIC && dynamic;
    let intent = if grows {
        let base = rebuild(disk, &next, work)?;
        Intent::new(deleted, Some([next, base]), false)
    } else {
        let ending = if dynamic { "vhd" } else { "raw" };
        let base = as_base(&next, format!("{}.{ending}", next.stem()));
        Intent::new(deleted, Some([next, base]), true)
    };
    intent.write(disk)?;
    finish(disk, &intent, work)?;
    Ok(Deleted::Rolled { next: name })
}

impl Intent {
    fn new(deleted: Vec<Manifest>, next: Option<[Manifest; 2]>, forward: bool) -> Self {
        Self {
            schema_version: super::SCHEMA_VERSION,
            deleted,
            next,
            forward,
        }
    }

    fn write(&self, disk: &Disk) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::usage("the intent can't be written").source(e))?;
        let file = AtomicFile::new(disk.path(DELETING))?;
        file.file().write_all_at(&bytes, 0)?;
        file.publish(Overwrite::No)
    }

    /// What an interrupted deletion left, if anything.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(DELETING);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == IoKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("cannot read", e).path(path)),
        };
        let damaged = || {
            Error::damaged("what an interrupted deletion left can't be read")
                .path(&path)
                .hint("vhd snapshot repair puts it aside and mends what the deletion left")
        };
        let intent: Self = serde_json::from_slice(&bytes).map_err(|e| damaged().source(e))?;
        let next = intent.next.iter().flatten();
        for manifest in next.chain(&intent.deleted) {
            manifest
                .check(&folder.join(manifest.stem().manifest()))
                .map_err(|e| damaged().source(e))?;
        }
        Ok(Some(intent))
    }
}

/// Does what was written down; it may have been begun already.
pub(super) fn finish(disk: &mut Disk, intent: &Intent, work: Work<'_>) -> Result<()> {
    if let Some([old, new]) = &intent.next {
        let mut new = new.clone();
        let file = disk.path(&new.data.file);
        if intent.forward {
            roll_forward(disk, &intent.deleted, old, &new, work)?;
            (new.data.length, new.used_size) = lengths(&file)?;
        } else {
            let fresh = disk.path(&format!("{}{NEW}", new.data.file));
            if fresh.exists() {
                rename(&fresh, &file)?;
            }
        }
        disk.write_manifest(&new, Overwrite::Yes)?;
        if old.data.file != new.data.file {
            remove_if_there(&disk.path(&old.data.file))?;
        }
    }
    for deleted in &intent.deleted {
        remove_if_there(&disk.path(&deleted.stem().manifest()))?;
        remove_if_there(&disk.path(&deleted.data.file))?;
    }
    remove_if_there(&disk.path(DELETING))?;
    disk.load()
}

/// The diff from the snapshot before the deleted one to the next one, complete under its provisional name.
fn fold(disk: &Disk, before: &Manifest, next: &Manifest, work: Work<'_>) -> Result<Manifest> {
    let between = Between::open(disk, before, next)?;
    let path = disk.path(&next.data.file);
    let stored = AtomicFile::new(disk.path(&format!("{}{NEW}", next.data.file)))?;
    work.progress
        .begin("folding", next.virtual_size.max(before.virtual_size));
    let out = stored.file().appender();
    let written = between.write(out, path, Compression::default(), work)?;
    let (len, digest) = (written.len, written.digest);
    drop(written);
    stored.publish(Overwrite::Yes)?;
    Ok(Manifest {
        parent: Some(before.id.clone()),
        data: Data {
            length: len,
            identity: Some(ContentDigest(digest)),
            ..next.data.clone()
        },
        used_size: len,
        ..next.clone()
    })
}

fn as_base(next: &Manifest, file: String) -> Manifest {
    Manifest {
        parent: None,
        data: Data {
            kind: DataKind::Base,
            file,
            length: 0,
            identity: None,
        },
        ..next.clone()
    }
}

/// A raw base for a disk that outgrew the dynamic one, complete under its provisional name.
fn rebuild(disk: &Disk, next: &Manifest, work: Work<'_>) -> Result<Manifest> {
    let mut base = as_base(next, format!("{}.raw", next.stem()));
    let path = disk.path(&format!("{}{NEW}", base.data.file));
    let output = Output {
        path: &path,
        format: Format::Raw,
        overwrite: Overwrite::Yes,
        made_from: &Audience::default(),
        dense: false,
    };
    super::restore(&disk.image(next)?, output, work)?;
    (base.data.length, base.used_size) = lengths(&path)?;
    Ok(base)
}

/// Brings the base of the deleted snapshots to the next one, in place, and gives it its name.
fn roll_forward(
    disk: &Disk,
    deleted: &[Manifest],
    old: &Manifest,
    new: &Manifest,
    work: Work<'_>,
) -> Result<()> {
    let Some((base, later)) = deleted.split_first() else {
        return Ok(());
    };
    let (from, to) = (disk.path(&base.data.file), disk.path(&new.data.file));
    if !from.exists() && !journal_path(&from).exists() {
        return Ok(());
    }
    let parents = ParentOptions::default();
    let options = ApplyOptions {
        workers: work.workers,
        progress: work.progress,
        check: BaseCheck::Full,
        verify: true,
        parents: &parents,
    };
    let diffs = later
        .iter()
        .chain([old])
        .map(|point| open_diff(&disk.path(&point.data.file), work.progress))
        .collect::<Result<_>>()?;
    apply_in_place(&from, Chain::new(diffs)?, InPlace::default(), options)?;
    rename(&from, &to)
}
