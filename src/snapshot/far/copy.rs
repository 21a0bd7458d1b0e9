//! Copies points in time between a folder and a store on a service, or between two of those: in order, completing each one
//! before the next.

use std::path::Path;

use super::history::refuse_taken_names;
use super::history::{Known, missing};
use super::{Added, FarDisk, FarPoint, FarStore, NewFarPoint};
use crate::error::{Error, Result};
use crate::files::{ChangedRanges, Claim, PointNote};
use crate::snapshot::between::Between;
use crate::snapshot::plain::is_absent;
use crate::snapshot::{Access, Disk, Family, Manifest, NewPoint, Work, check_name, create};
use crate::storage::Audience;
use crate::text::shown;

/// The outcome of copying a disk.
#[derive(Debug, Default)]
pub struct FarCopied {
    /// The disk.
    pub disk: String,
    /// The points in time that were copied, oldest first.
    pub points: Vec<FarCopiedPoint>,
    /// The newest one in the target afterwards.
    pub newest: Option<String>,
    /// Whether the disk was created for them.
    pub is_new: bool,
    /// The reason for which the rest couldn't be copied.
    pub error: Option<Error>,
}

/// A point in time that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarCopiedPoint {
    /// Its name in the target.
    pub name: String,
    /// Bytes written.
    pub bytes: u64,
    /// Whether an interrupted copy was resumed.
    pub resumed: bool,
}

impl FarCopied {
    fn of(disk: &str) -> Self {
        Self {
            disk: disk.to_owned(),
            ..Self::default()
        }
    }

    /// Adds the outcome of a retry.
    pub fn go_on(&mut self, again: Self) {
        self.points.extend(again.points);
        self.newest = again.newest.or(self.newest.take());
        self.is_new |= again.is_new;
        self.error = again.error;
    }

    fn took(&mut self, added: &Added) {
        self.newest = Some(added.point.name.clone());
        self.points.push(FarCopiedPoint {
            name: added.point.name.clone(),
            bytes: added.updated,
            resumed: added.resumed,
        });
    }

    fn ended(mut self, result: Result<()>) -> Self {
        self.error = result.err();
        self
    }
}

/// Copies the points in time that the disk `name` has in the folder `from` and lacks in `to`.
pub fn copy_in(from: &Path, to: &dyn FarStore, name: &str, work: Work<'_>) -> FarCopied {
    let mut copied = FarCopied::of(name);
    let result = bring_in(from, to, &mut copied, work);
    copied.ended(result)
}

fn bring_in(from: &Path, to: &dyn FarStore, copied: &mut FarCopied, work: Work<'_>) -> Result<()> {
    let mut source = Disk::open(from, &copied.disk, Access::Read)?;
    if let Some(error) = source.take_damaged().pop() {
        return Err(error);
    }
    let points = source.points();
    let known: Vec<Known> = points.iter().map(|point| known(&source, point)).collect();
    let (mut newest, missing) = target(to, &known, copied)?;
    for at in missing.begin..points.len() {
        work.progress.check()?;
        let (Some(point), Some(of)) = (points.get(at), known.get(at)) else {
            break;
        };
        let before = at.checked_sub(1).and_then(|before| points.get(before));
        let follows = at > missing.begin || missing.follows;
        let before = before.filter(|_| follows && newest.is_some());
        let between = before.map(|before| Between::open(&source, before, point));
        let between = between.transpose()?;
        let changed = match &between {
            Some(between) => between.changed_ranges()?,
            None => None,
        };
        let image;
        let image = if let Some(between) = &between {
            between.to()
        } else {
            image = source.image(point)?;
            &image
        };
        let new = NewFarPoint {
            image,
            note: &of.note,
            since: newest.as_ref(),
            changed: changed.as_deref(),
        };
        let added = to.add(&copied.disk, new, work)?;
        copied.took(&added);
        newest = Some(added.point);
    }
    Ok(())
}

/// A point in time that a copy would bring, and about how many bytes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarWanted {
    /// Its name in the target.
    pub name: String,
    /// Its id.
    pub id: Option<String>,
    /// Bytes of its data in a folder; of one on a service, the length of its blob, of which only what changed is read.
    pub bytes: u64,
}

/// An end of a copy.
#[derive(Debug, Clone, Copy)]
pub enum FarEnd<'a> {
    /// A store in a folder.
    Folder(&'a Path),
    /// A store on a service.
    Service(&'a dyn FarStore),
}

/// The points in time that a copy of the disk `name` would bring, oldest first; at least one end is on a service. Nothing is
/// changed: an interrupted change of the target isn't finished.
///
/// # Errors
///
/// As the copy: [`Mismatch`](crate::ErrorKind::Mismatch) if the two don't share a history.
pub fn would_copy_far(from: FarEnd<'_>, to: FarEnd<'_>, name: &str) -> Result<Vec<FarWanted>> {
    let (known, sizes): (Vec<Known>, Vec<u64>) = match from {
        FarEnd::Service(from) => {
            let disk = from.disk(name)?;
            let begin = match to {
                FarEnd::Service(_) => 0,
                FarEnd::Folder(to) if is_absent(&to.join(name)) => 0,
                FarEnd::Folder(to) => after_newest(from, &disk, &Disk::look(to, name)?)?,
            };
            let points = disk.points.iter().skip(begin);
            points.map(|p| (known_far(&disk, p), p.size)).unzip()
        }
        FarEnd::Folder(from) => {
            let mut disk = Disk::look(from, name)?;
            if let Some(error) = disk.take_damaged().pop() {
                return Err(error);
            }
            let points = disk.points().iter();
            points.map(|p| (known(&disk, p), p.data.length)).unzip()
        }
    };
    let begin = match to {
        FarEnd::Folder(_) => 0,
        FarEnd::Service(to) => {
            let there = to.disks(Some(name))?.pop();
            let points = there.map_or_else(Vec::new, |disk| disk.points);
            let begin = missing(&known, (&points, to.shown(), name))?.begin;
            refuse_taken_names(known.iter().skip(begin), (&points, to.shown(), name))?;
            begin
        }
    };
    let wanted = known.into_iter().zip(sizes).skip(begin);
    let wanted = wanted.map(|(known, bytes)| FarWanted {
        name: known.name,
        id: known.note.id,
        bytes,
    });
    Ok(wanted.collect())
}

/// The newest point in time of the disk in the target, and those of `source` that the target lacks.
fn target(
    to: &dyn FarStore,
    source: &[Known],
    copied: &mut FarCopied,
) -> Result<(Option<FarPoint>, super::history::Missing)> {
    let mut there = to.disks(Some(&copied.disk))?.pop();
    if let Some(disk) = there.as_ref().filter(|disk| disk.unfinished.is_some()) {
        to.settle(disk)?;
        there = to.disks(Some(&copied.disk))?.pop();
    }
    copied.is_new = there.is_none();
    let points = there.map_or_else(Vec::new, |disk| disk.points);
    let missing = missing(source, (&points, to.shown(), &copied.disk))?;
    let coming = source.iter().skip(missing.begin);
    refuse_taken_names(coming, (&points, to.shown(), &copied.disk))?;
    let newest = points.last().cloned();
    copied.newest = newest.as_ref().map(|newest| newest.name.clone());
    Ok((newest, missing))
}

fn known(disk: &Disk, point: &Manifest) -> Known {
    Known {
        name: point.name.clone(),
        time: Some(point.time),
        note: PointNote {
            name: Some(point.name.clone()),
            time: Some(point.time.to_string()),
            id: Some(point.id.clone()),
            disk_id: point.disk_id.clone(),
            source: Some(format!("{}@{}", disk.name(), point.name)),
            digest: Some(point.content_digest),
            resource: point.family.source_resource_id.clone(),
            unique: point.family.source_unique_id.clone(),
            tags: point.tags.clone(),
        },
    }
}

/// The metadata of a point in time on a service, under its name in the target.
fn known_far(disk: &FarDisk, point: &FarPoint) -> Known {
    let name = plain_name(point);
    Known {
        time: point.time,
        note: PointNote {
            name: Some(name.clone()),
            time: point.time.map(|time| time.to_string()),
            // An unnamed one keeps its identifier in the service.
            id: point.note.id.clone().or_else(|| Some(point.key.clone())),
            source: Some(format!("{}@{}", disk.name, point.key)),
            ..point.note.clone()
        },
        name,
    }
}

/// A name that is valid as a file name: times contain colons.
fn plain_name(point: &FarPoint) -> String {
    match check_name(&point.name) {
        Ok(()) => point.name.clone(),
        Err(_) => point.name.replace(':', "."),
    }
}

fn refuse_incomplete(store: &dyn FarStore, disk: &FarDisk, point: &FarPoint) -> Result<()> {
    if point.is_complete {
        return Ok(());
    }
    Err(
        Error::new(crate::ErrorKind::Pending, "this snapshot isn't complete")
            .with_path(store.shown())
            .with_found(format_args!("{}@{}", disk.name, point.name))
            .with_hint("wait until it is, or delete it"),
    )
}

/// Copies the points in time that the disk `name` has in `from` and lacks in `to`.
pub fn copy_across(
    from: &dyn FarStore,
    to: &dyn FarStore,
    name: &str,
    work: Work<'_>,
) -> FarCopied {
    let mut copied = FarCopied::of(name);
    let result = bring_across(from, to, &mut copied, work);
    copied.ended(result)
}

fn bring_across(
    from: &dyn FarStore,
    to: &dyn FarStore,
    copied: &mut FarCopied,
    work: Work<'_>,
) -> Result<()> {
    let source = from.disk(&copied.disk)?;
    let known: Vec<Known> = source
        .points
        .iter()
        .map(|p| known_far(&source, p))
        .collect();
    let (mut newest, missing) = target(to, &known, copied)?;
    for at in missing.begin..source.points.len() {
        work.progress.check()?;
        let (Some(point), Some(of)) = (source.points.get(at), known.get(at)) else {
            break;
        };
        refuse_incomplete(from, &source, point)?;
        let image = from.image(&source, point)?;
        let follows = (at > missing.begin || missing.follows) && newest.is_some();
        let before = at
            .checked_sub(1)
            .and_then(|before| source.points.get(before));
        // If the service can't list the changes, everything is compared.
        let changed = before
            .filter(|_| follows)
            .and_then(|before| from.changes(&source, before, point).ok());
        let new = NewFarPoint {
            image: &*image,
            note: &of.note,
            since: newest.as_ref(),
            changed: changed.as_deref(),
        };
        let added = to.add(&copied.disk, new, work)?;
        copied.took(&added);
        newest = Some(added.point);
    }
    Ok(())
}

/// Copies the points in time that the disk `name` has in `from` and lacks in the folder `to`. Only changes are read, if the
/// service can list them.
pub fn copy_out(from: &dyn FarStore, to: &Path, name: &str, work: Work<'_>) -> FarCopied {
    let mut copied = FarCopied::of(name);
    let result = bring_out(from, to, &mut copied, work);
    copied.ended(result)
}

fn bring_out(from: &dyn FarStore, to: &Path, copied: &mut FarCopied, work: Work<'_>) -> Result<()> {
    let source = from.disk(&copied.disk)?;
    let mut target = Disk::open_for(to, &copied.disk, Access::Create, &Audience::default())?;
    copied.is_new = target.points().is_empty();
    let result = add_to_folder((from, &source), &mut target, copied, work);
    if result.is_err() {
        target.discard_if_empty();
    }
    result
}

fn add_to_folder(
    (from, source): (&dyn FarStore, &FarDisk),
    target: &mut Disk,
    copied: &mut FarCopied,
    work: Work<'_>,
) -> Result<()> {
    let begin = after_newest(from, source, target)?;
    copied.newest = target.newest().map(|newest| newest.name.clone());
    for (at, point) in source.points.iter().enumerate().skip(begin) {
        work.progress.check()?;
        refuse_incomplete(from, source, point)?;
        let image = from.image(source, point)?;
        let before = at
            .checked_sub(1)
            .and_then(|before| source.points.get(before));
        let before = before.filter(|_| target.newest().is_some());
        let changed = before.and_then(|before| from.changes(source, before, point).ok());
        let new = NewPoint {
            name: plain_name(point),
            time: point.time,
            family: Family {
                source_resource_id: point.note.resource.clone(),
                source_unique_id: point.note.unique.clone(),
            },
            tags: point.note.tags.clone(),
            claim: changed.map(|changed| {
                let list = ChangedRanges::of_ranges(changed);
                (Claim { list, check: None }, 0)
            }),
            expected: point.digest(),
            ..NewPoint::default()
        };
        let created = create(target, &*image, &new, work)?;
        copied.newest = Some(new.name.clone());
        copied.points.push(FarCopiedPoint {
            name: new.name,
            bytes: created.manifest.used_size,
            resumed: false,
        });
    }
    Ok(())
}

/// The index of the first point in time of `source` after the newest of `target`.
fn after_newest(from: &dyn FarStore, source: &FarDisk, target: &Disk) -> Result<usize> {
    let Some(newest) = target.newest() else {
        return Ok(0);
    };
    let same = |point: &FarPoint| {
        let other = point
            .digest()
            .is_some_and(|digest| digest != newest.content_digest);
        plain_name(point) == newest.name && !other
    };
    if let Some(at) = source.points.iter().rposition(same) {
        return Ok(at + 1);
    }
    Err(
        Error::mismatch("the source doesn't have the newest snapshot of the target")
            .with_path(target.label(newest))
            .with_found(format_args!("{} of {}", newest.content_digest, newest.name))
            .with_expected(match source.points.last() {
                Some(last) => format!(
                    "one of those in {}, of which {} is the newest",
                    shown(from.shown()),
                    last.name
                ),
                None => "one of the source's, but it has none".to_owned(),
            })
            .with_hint("copy to another store, or from the one that it came from"),
    )
}
