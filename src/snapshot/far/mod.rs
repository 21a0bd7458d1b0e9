//! Stores that aren't folders: the points in time of disks on a service.
//!
//! | file | content |
//! | --- | --- |
//! | `mod.rs` | the interface of all such stores |
//! | `container.rs` | a container of page blobs: a blob for each disk, a snapshot of it for each point in time |
//! | `history.rs` | finding the points in time that one store has and another lacks |
//! | `copy.rs` | copying between a folder and such a store, and between two of them |

mod container;
mod copy;
mod history;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

pub use container::Container;
pub use copy::{
    FarCopied, FarCopiedPoint, FarEnd, FarWanted, copy_across, copy_in, copy_out, would_copy_far,
};

use super::{Candidate, Policy, Time, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::files::{Opened, PointNote};
use crate::image::{ContentDigest, content_digest};
use crate::page::PageRange;

/// A disk in such a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarDisk {
    /// Its name.
    pub name: String,
    /// What the store calls it.
    pub key: String,
    /// Its points in time, oldest first.
    pub points: Vec<FarPoint>,
    /// The operation in progress on it, if it is incomplete.
    pub unfinished: Option<&'static str>,
}

/// A point in time in such a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarPoint {
    /// Its name, or its identifier in the store if it wasn't given one.
    pub name: String,
    /// What the store calls it.
    pub key: String,
    /// The time of its content, if known.
    pub time: Option<Time>,
    /// Its length in bytes, including holes.
    pub size: u64,
    /// Its other metadata.
    pub note: PointNote,
    /// Whether it can be used.
    pub is_complete: bool,
}

impl FarPoint {
    /// Its content digest, if that is recorded.
    pub fn digest(&self) -> Option<ContentDigest> {
        self.note.digest
    }

    /// Its time as text, or its identifier in the store if the time isn't known.
    pub fn time_text(&self) -> String {
        self.time
            .as_ref()
            .map_or_else(|| self.key.clone(), Time::to_string)
    }

    /// Returns whether it has this name.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.key == name
    }
}

impl FarDisk {
    /// The point in time with this name; the newest if there are several.
    pub fn point(&self, name: &str) -> Option<&FarPoint> {
        self.points.iter().rev().find(|point| point.is_called(name))
    }
}

/// A point in time to add to such a store.
#[derive(Debug, Clone, Copy)]
pub struct NewFarPoint<'a> {
    /// Its content.
    pub image: &'a dyn Opened,
    /// The metadata to record for it.
    pub note: &'a PointNote,
    /// The newest point in time of the disk; `None` if it is the first.
    pub since: Option<&'a FarPoint>,
    /// The ranges outside of which its content equals that of `since`; `None` if that isn't known.
    pub changed: Option<&'a [PageRange]>,
}

/// A point in time that was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The point in time.
    pub point: FarPoint,
    /// Bytes written with data.
    pub updated: u64,
    /// Bytes cleared.
    pub cleared: u64,
    /// Whether an interrupted change was resumed.
    pub resumed: bool,
}

/// A store of points in time on a service.
pub trait FarStore: Debug + Send + Sync {
    /// Its name in messages, without credentials.
    fn shown(&self) -> &Path;

    /// Its disks by name, or only the one called `only`.
    fn disks(&self, only: Option<&str>) -> Result<Vec<FarDisk>>;

    /// Opens a point in time.
    fn image(&self, disk: &FarDisk, point: &FarPoint) -> Result<Box<dyn Opened>>;

    /// The ranges outside of which two points in time of a disk are equal, the earlier one first. An error gives the reason
    /// if the service can't list them.
    fn changes(&self, disk: &FarDisk, from: &FarPoint, to: &FarPoint) -> Result<Vec<PageRange>>;

    /// Adds a point in time to the disk with this name, or resumes doing so.
    fn add(&self, disk: &str, new: NewFarPoint<'_>, work: Work<'_>) -> Result<Added>;

    /// Finishes the steps of an interrupted change that don't need the source.
    fn settle(&self, disk: &FarDisk) -> Result<()>;

    /// Deletes points in time of a disk, and the disk if none remain.
    fn delete(&self, disk: &FarDisk, points: &[&FarPoint], work: Work<'_>) -> Result<()>;

    /// Replaces the tags of a point in time.
    fn set_tags(
        &self,
        disk: &FarDisk,
        point: &FarPoint,
        tags: &BTreeMap<String, String>,
    ) -> Result<()>;

    /// The disk called `name`.
    fn disk(&self, name: &str) -> Result<FarDisk> {
        let mut disks = self.disks(Some(name))?;
        disks.pop().ok_or_else(|| {
            Error::usage("there is no such disk in this store")
                .with_path(self.shown())
                .with_found(format_args!("\"{name}\""))
                .with_hint("list the store to see what there is")
        })
    }
}

/// Reads a point in time, and compares its content with its digest. `Ok(false)` if no digest is recorded.
///
/// # Errors
///
/// [`Damaged`](ErrorKind::Damaged) if the content differs.
pub fn verify_far(
    store: &dyn FarStore,
    disk: &FarDisk,
    point: &FarPoint,
    work: Work<'_>,
) -> Result<bool> {
    let image = store.image(disk, point)?;
    work.progress.begin("verifying", image.virtual_size());
    let found = content_digest(&image, work.workers, work.progress)?;
    check_far_content(&*image, point, found).map(|()| point.digest().is_some())
}

/// Fails if `found` isn't the recorded content digest of a point in time.
pub fn check_far_content(image: &dyn Opened, point: &FarPoint, found: ContentDigest) -> Result<()> {
    match point.digest() {
        Some(expected) if expected != found => {
            Err(Error::damaged("this snapshot doesn't hold what is recorded of it")
                .with_path(image.path())
                .with_field("content digest")
                .with_found(found)
                .with_expected(expected)
                .with_hint(
                    "use another snapshot; or copy the disk again, to another place, from a store that is whole",
                ))
        }
        _ => Ok(()),
    }
}

/// The reasons to keep each point in time of a disk by these rules, oldest first; one without any should be deleted.
///
/// # Errors
///
/// [`Damaged`](ErrorKind::Damaged) if the time of one isn't known, [`Pending`](ErrorKind::Pending) if one isn't complete.
pub fn decide_far(
    store: &dyn FarStore,
    disk: &FarDisk,
    policy: &Policy,
) -> Result<Vec<Vec<String>>> {
    let mut candidates = Vec::with_capacity(disk.points.len());
    let none = BTreeMap::new();
    for point in &disk.points {
        if !point.is_complete {
            return Err(Error::new(ErrorKind::Pending, "a snapshot isn't complete")
                .with_path(store.shown())
                .with_found(format_args!("{}@{}", disk.name, point.name))
                .with_hint("delete it first, or wait until it is complete"));
        }
        let Some(time) = point.time else {
            return Err(Error::damaged("the time of a snapshot isn't known")
                .with_path(store.shown())
                .with_found(format_args!("{}@{}", disk.name, point.name))
                .with_hint("delete it by its name, or keep all"));
        };
        let tags = if point.note.tags.is_empty() {
            &none
        } else {
            &point.note.tags
        };
        candidates.push(Candidate { time, tags });
    }
    let mut reasons = policy.decide(&candidates);
    for (point, why) in disk.points.iter().zip(&mut reasons) {
        if point.note.tags.contains_key(super::HOLD) {
            why.push("held".to_owned());
        }
    }
    Ok(reasons)
}
