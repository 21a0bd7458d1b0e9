//! Stores that aren't folders: the points in time of disks on a service.
//!
//! | file | has |
//! | --- | --- |
//! | `mod.rs` | what all such stores can do |
//! | `container.rs` | a container of page blobs: a blob for each disk, a snapshot of it for each point in time |
//! | `history.rs` | which points in time one store has and another lacks |
//! | `copy.rs` | copying between a folder and such a store, and between two of them |

mod container;
mod copy;
mod history;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

pub use container::Container;
pub use copy::{FarCopied, FarCopiedPoint, copy_across, copy_in, copy_out};

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
    /// What is being done to it, if it isn't whole.
    pub unfinished: Option<&'static str>,
}

/// A point in time in such a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarPoint {
    /// Its name; where nobody gave it one, what the store calls it.
    pub name: String,
    /// What the store calls it.
    pub key: String,
    /// The moment whose content it is, as far as that is known.
    pub time: Option<Time>,
    /// Bytes that it takes from beginning to end.
    pub size: u64,
    /// What else is recorded of it.
    pub note: PointNote,
    /// Whether it can be used.
    pub is_complete: bool,
}

impl FarPoint {
    /// Its content digest, if that is recorded.
    pub fn digest(&self) -> Option<ContentDigest> {
        self.note.digest
    }

    /// Its time as text; where it isn't known, what the store calls it.
    pub fn time_text(&self) -> String {
        self.time
            .as_ref()
            .map_or_else(|| self.key.clone(), Time::to_string)
    }

    /// Whether it is called so.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.key == name
    }
}

impl FarDisk {
    /// The point in time of this name; the newest one of several.
    pub fn point(&self, name: &str) -> Option<&FarPoint> {
        self.points.iter().rev().find(|point| point.is_called(name))
    }
}

/// What is added to such a store.
#[derive(Debug, Clone, Copy)]
pub struct NewFarPoint<'a> {
    /// What it holds.
    pub image: &'a dyn Opened,
    /// What is recorded of it.
    pub note: &'a PointNote,
    /// The newest point in time of the disk; `None` if it is the first.
    pub since: Option<&'a FarPoint>,
    /// The ranges outside of which it holds what `since` holds; `None` if that isn't known.
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
    /// Whether it went on with what was interrupted.
    pub resumed: bool,
}

/// A store of points in time on a service.
pub trait FarStore: Debug + Send + Sync {
    /// What messages call it: never with what grants access.
    fn shown(&self) -> &Path;

    /// Its disks by name, or only the one called `only`.
    fn disks(&self, only: Option<&str>) -> Result<Vec<FarDisk>>;

    /// Opens a point in time.
    fn image(&self, disk: &FarDisk, point: &FarPoint) -> Result<Box<dyn Opened>>;

    /// The ranges outside of which two points in time of a disk hold the same, the earlier one first. An error says why the
    /// service doesn't tell.
    fn changes(&self, disk: &FarDisk, from: &FarPoint, to: &FarPoint) -> Result<Vec<PageRange>>;

    /// Adds a point in time to the disk of this name, or goes on with that.
    fn add(&self, disk: &str, new: NewFarPoint<'_>, work: Work<'_>) -> Result<Added>;

    /// Finishes what an interrupted change left to be done that needs no source.
    fn settle(&self, disk: &FarDisk) -> Result<()>;

    /// Deletes points in time of a disk; the disk, too, if they are all.
    fn delete(&self, disk: &FarDisk, points: &[&FarPoint], work: Work<'_>) -> Result<()>;

    /// Gives a point in time these tags in place of those that it has.
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

/// Reads a point in time, and compares what it holds with its content digest. `Ok(false)` if no digest is recorded.
///
/// # Errors
///
/// [`Damaged`](ErrorKind::Damaged) if it holds something else.
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

/// Fails if `found` isn't the content digest that is recorded of a point in time.
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

/// The reasons for keeping each point in time of a disk by these rules, oldest first; without any, it is to be deleted.
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
