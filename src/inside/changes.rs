//! Attributes the changes from one disk to another to their owners: files, the file system itself, free space, and the
//! space outside.

use std::collections::{BTreeMap, HashMap};

use super::changed::{FileChange, Owned, Wrong};
use super::files::{Contents, Files, contents};
use super::model::{FileSystem, NodeId, Owner};
use super::partitions::{Partition, partitions};
use super::ranges::{ChangedBytes, Touched, Unclaimed};
use super::walk::walk;
use crate::error::Result;
use crate::image::Image;

/// A part of a file system, or of the disk, that isn't a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    /// Its name.
    pub name: String,
    /// Changed bytes in it.
    pub changed_bytes: u64,
}

/// The changes in a partition.
#[derive(Debug)]
pub struct PartitionChanges {
    /// The partition in the target.
    pub partition: Partition,
    /// The file system in the target, or what it looks like.
    pub file_system: &'static str,
    /// The name that its owner gave it.
    pub label: String,
    /// `read`, `not read` or `damaged`.
    pub state: &'static str,
    /// Remarks about the result.
    pub notes: Vec<String>,
    /// Number of transactions replayed from the journal of the target.
    pub transactions: u64,
    /// Total changed bytes.
    pub changed_bytes: u64,
    /// Number of changed ranges.
    pub ranges: u64,
    /// Files, sorted by path.
    pub entries: Vec<FileChange>,
    /// All other known areas.
    pub areas: Vec<Area>,
    /// Changed bytes that no file and no area of the target owns.
    pub free_bytes: u64,
}

impl PartitionChanges {
    /// The sum over all owners, which always equals [`changed_bytes`](Self::changed_bytes).
    pub fn accounted(&self) -> u64 {
        let files = self
            .entries
            .iter()
            .map(|entry| entry.changed_bytes)
            .sum::<u64>();
        files
            + self
                .areas
                .iter()
                .map(|area| area.changed_bytes)
                .sum::<u64>()
            + self.free_bytes
    }
}

/// The changes from one disk to another.
#[derive(Debug)]
pub struct FileChanges {
    /// `gpt`, `mbr` or `none`.
    pub table: &'static str,
    /// The partitions of the target.
    pub partitions: Vec<PartitionChanges>,
    /// The areas outside of them.
    pub outside: Vec<Area>,
    /// Remarks about the result.
    pub notes: Vec<String>,
    /// Total changed bytes.
    pub changed_bytes: u64,
}

impl FileChanges {
    /// The sum over all owners, which always equals [`changed_bytes`](Self::changed_bytes).
    pub fn accounted(&self) -> u64 {
        let inside = self
            .partitions
            .iter()
            .map(PartitionChanges::accounted)
            .sum::<u64>();
        inside
            + self
                .outside
                .iter()
                .map(|area| area.changed_bytes)
                .sum::<u64>()
    }
}

/// Attributes the bytes that changed from `base` to `target` to their owners.
///
/// Bytes belong to their owner in the target. Memory is bounded: if there are too many changed ranges or changed files,
/// the rest is added up under a descriptive name.
///
/// # Errors
///
/// Fails if a disk can't be read. Damaged or unknown structures are reported in the result.
pub fn file_changes(
    base: &dyn Image,
    target: &dyn Image,
    changed: &ChangedBytes,
) -> Result<FileChanges> {
    let before = partitions(base)?;
    let after = partitions(target)?;
    let mut left = changed.unclaimed();
    let mut order: Vec<&Partition> = after.partitions.iter().collect();
    order.sort_by_key(|partition| partition.start);
    let mut found = Vec::new();
    for partition in &order {
        let own = left.split_off(&partition.range());
        let old = before
            .partitions
            .iter()
            .find(|old| old.start == partition.start);
        found.push(in_partition((base, old), (target, partition), own)?);
    }
    found.sort_by_key(|changes| changes.partition.number);
    let mut notes: Vec<String> = after.note.iter().cloned().collect();
    for old in &before.partitions {
        if !after.partitions.iter().any(|new| new.start == old.start) {
            notes.push(format!("partition {} of the base is gone", old.number));
        }
    }
    let mut outside = Vec::new();
    let mut add = |name: &str, bytes: u64| {
        if bytes > 0 {
            outside.push(Area {
                name: name.to_owned(),
                changed_bytes: bytes,
            });
        }
    };
    let size = target.virtual_size();
    let first = order.first().map_or(size, |partition| partition.start);
    let last = order
        .iter()
        .map(|partition| partition.range().end)
        .max()
        .unwrap_or(size);
    add("before the first partition", left.take(&(0..first)));
    add("between partitions", left.take(&(first..last)));
    add(
        "after the last partition",
        left.take(&(last..size.max(last))),
    );
    add("beyond the end of the target", left.bytes());
    add("in ranges that are too many to look at", changed.beyond());
    Ok(FileChanges {
        table: after.kind,
        partitions: found,
        outside,
        notes,
        changed_bytes: changed.total(),
    })
}

/// The file system in the base, or why there is none to compare with.
fn in_base<'a>(base: (&'a dyn Image, Option<&Partition>)) -> Result<Result<Files<'a>, String>> {
    let Some(partition) = base.1 else {
        return Ok(Err("the base has no partition here".to_owned()));
    };
    Ok(match contents(base.0, partition)? {
        Contents::Files(files) => Ok(files),
        Contents::NotRead(what) => Err(format!("in the base it is {what}, which is not read")),
        Contents::Damaged(name, error) => {
            Err(format!("in the base it is {name}, damaged: {error}"))
        }
    })
}

fn in_partition(
    base: (&dyn Image, Option<&Partition>),
    target: (&dyn Image, &Partition),
    mut left: Unclaimed,
) -> Result<PartitionChanges> {
    let mut changes = PartitionChanges {
        partition: target.1.clone(),
        file_system: "unknown",
        label: String::new(),
        state: "not read",
        notes: Vec::new(),
        transactions: 0,
        changed_bytes: left.bytes(),
        ranges: left.len(),
        entries: Vec::new(),
        areas: Vec::new(),
        free_bytes: 0,
    };
    let not_read = |changes: &mut PartitionChanges| {
        if changes.changed_bytes > 0 {
            changes.areas.push(Area {
                name: "not read".to_owned(),
                changed_bytes: changes.changed_bytes,
            });
        }
    };
    let files = match contents(target.0, target.1)? {
        Contents::Files(files) => files,
        Contents::NotRead(what) => {
            changes.file_system = what;
            not_read(&mut changes);
            return Ok(changes);
        }
        Contents::Damaged(name, error) => {
            changes.file_system = name;
            changes.state = "damaged";
            changes.notes.push(error.to_string());
            not_read(&mut changes);
            return Ok(changes);
        }
    };
    changes.file_system = files.name();
    changes.label = files.label();
    changes.state = "read";
    changes.transactions = files.transactions();
    changes.notes = files.notes();
    if changes.changed_bytes == 0 {
        return Ok(changes);
    }
    let old = match in_base(base)? {
        Ok(files) => Some(files),
        Err(why) => {
            let note = format!("{why}: every file is reported as created");
            changes.notes.push(note);
            None
        }
    };
    let old = old.as_ref().map(|files| &*files.fs);
    let mut touched: Vec<_> = left.ranges().collect();
    for fs in [Some(&*files.fs), old].into_iter().flatten() {
        touched.extend(fs.volume().replayed());
    }
    let touched = Touched::new(touched);
    let mut wrong = Wrong::default();
    let (mut owned, mut areas) = own(&*files.fs, &mut left, &touched, &mut wrong)?;
    let walked = walk(old, &*files.fs, &touched, &mut owned, &mut wrong)?;
    changes.entries = walked.entries;
    for (name, bytes) in walked.areas {
        *areas.entry(name).or_default() += bytes;
    }
    let nameless = owned
        .values()
        .filter(|owned| !owned.told)
        .map(|owned| owned.bytes)
        .sum();
    areas.insert("files whose names were not found", nameless);
    let rest = left.bytes();
    if wrong.count > 0 {
        areas.insert("free, or belonging to what could not be read", rest);
    } else {
        changes.free_bytes = rest;
    }
    changes.areas = areas
        .into_iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(name, changed_bytes)| Area {
            name: name.to_owned(),
            changed_bytes,
        })
        .collect();
    changes
        .areas
        .sort_by_key(|area| std::cmp::Reverse(area.changed_bytes));
    if let Some(first) = wrong.first {
        changes.state = "damaged";
        let more = wrong.count - 1;
        let more = if more > 0 {
            format!(" (and {more} more)")
        } else {
            String::new()
        };
        changes.notes.push(format!("{first}{more}"));
    }
    Ok(changes)
}

type Owners = (HashMap<NodeId, Owned>, BTreeMap<&'static str, u64>);

/// Attributes every changed byte to its owner in `fs`.
fn own(
    fs: &dyn FileSystem,
    left: &mut Unclaimed,
    touched: &Touched,
    wrong: &mut Wrong,
) -> Result<Owners> {
    let mut owned: HashMap<NodeId, Owned> = HashMap::new();
    let mut areas = BTreeMap::new();
    let mut each = |range: std::ops::Range<u64>, owner: Owner| {
        if !touched.any_in(&range) {
            return Ok(());
        }
        let bytes = left.take(&range);
        match owner {
            Owner::Area(name) => *areas.entry(name).or_default() += bytes,
            Owner::Content(id) => owned.entry(id).or_default().bytes += bytes,
            Owner::Map(id) => {
                // Being touched is reason enough to compare the node.
                owned.entry(id).or_default();
                *areas.entry(super::model::MAPS).or_default() += bytes;
            }
        }
        Ok(())
    };
    fs.owners(&mut each, &mut |error| wrong.add(&error))?;
    Ok((owned, areas))
}
