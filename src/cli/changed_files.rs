//! `--files`: lists the files that own the changes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use serde::Serialize;

use super::context::Context;
use super::output::Output;
use super::size::{Count, Short};
use crate::error::Result;
use crate::files::Opened;
use crate::inside::{
    Area, ChangedBytes, FileChange, FileChangeKind, FileChanges, NodeKind, PartitionChanges,
    file_changes,
};
use crate::text::shown;

/// How to print the list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// Include files of which only owner, permissions or times changed.
    pub(super) all: bool,
    pub(super) json: bool,
}

impl Form {
    fn lists(self, entry: &FileChange) -> bool {
        self.all || entry.change != FileChangeKind::Attributes || entry.changed_bytes > 0
    }
}

/// Prints the owners of the bytes in `changed`.
pub(super) fn print(
    base: &dyn Opened,
    target: &dyn Opened,
    changed: &ChangedBytes,
    form: Form,
    context: &Context,
) -> Result<()> {
    let changes = file_changes(base, target, changed)?;
    base.check_unchanged()?;
    target.check_unchanged()?;
    if context.quiet() && !form.json {
        return Ok(());
    }
    let listed = |entry: &&FileChange| form.lists(entry);
    let mut output = Output::text()?;
    if form.json {
        json(&mut output, [base, target], &changes, form)?;
        return output.finish();
    }
    let mut totals = [0_u64; 5];
    for partition in &changes.partitions {
        text(&mut output, partition)?;
        for entry in partition.entries.iter().filter(listed) {
            output.line(line(entry))?;
        }
        for entry in &partition.entries {
            let at = match entry.change {
                FileChangeKind::Modified => 0,
                FileChangeKind::Created => 1,
                FileChangeKind::Removed => 2,
                FileChangeKind::Renamed => 3,
                FileChangeKind::Attributes => 4,
            };
            if let Some(total) = totals.get_mut(at) {
                *total += 1;
            }
        }
        if !partition.areas.is_empty() {
            let name = if partition.state == "not read" {
                "not read"
            } else {
                "file system"
            };
            output.line(format_args!("     {name}: {}", areas(&partition.areas)))?;
        }
        if partition.free_bytes > 0 {
            output.line(format_args!(
                "     free space: {}",
                Short(partition.free_bytes)
            ))?;
        }
    }
    let outside = if changes.outside.is_empty() {
        "no change".to_owned()
    } else {
        areas(&changes.outside)
    };
    if changes.table != "none" || !changes.outside.is_empty() {
        output.line(format_args!("outside of partitions: {outside}"))?;
    }
    for note in &changes.notes {
        output.line(format_args!("note: {note}"))?;
    }
    let [modified, created, removed, renamed, attributes] = totals;
    let attributes = if attributes > 0 {
        format!(", {attributes} with other attributes")
    } else {
        String::new()
    };
    let accounted = if changes.accounted() == changes.changed_bytes {
        "all accounted for".to_owned()
    } else {
        format!("{} accounted for", Short(changes.accounted()))
    };
    output.line(format_args!(
        "{modified} modified, {created} created, {removed} removed, {renamed} renamed{attributes}: {}, {accounted}",
        Short(changes.changed_bytes)
    ))?;
    output.finish()
}

fn json(
    output: &mut Output,
    [base, target]: [&dyn Opened; 2],
    changes: &FileChanges,
    form: Form,
) -> Result<()> {
    let partitions = changes.partitions.iter().map(|partition| PartitionJson {
        partition: partition.partition.number,
        name: &partition.partition.name,
        label: &partition.label,
        start: partition.partition.start,
        length: partition.partition.len,
        file_system: partition.file_system,
        state: partition.state,
        notes: &partition.notes,
        replayed_transactions: partition.transactions,
        changed_bytes: partition.changed_bytes,
        range_count: partition.ranges,
        entries: partition
            .entries
            .iter()
            .filter(|entry| form.lists(entry))
            .map(EntryJson::new)
            .collect(),
        areas: partition.areas.iter().map(AreaJson::new).collect(),
        free_bytes: partition.free_bytes,
    });
    output.json(&Json {
        base: Side::new(base),
        target: Side::new(target),
        partition_table: changes.table,
        notes: &changes.notes,
        partitions: partitions.collect(),
        outside: changes.outside.iter().map(AreaJson::new).collect(),
        changed_bytes: changes.changed_bytes,
        accounted_bytes: changes.accounted(),
    })
}

fn text(output: &mut Output, partition: &PartitionChanges) -> Result<()> {
    let what = match partition.partition.number {
        0 => "disk".to_owned(),
        number => format!("partition {number}"),
    };
    let name = if partition.label.is_empty() {
        &partition.partition.name
    } else {
        &partition.label
    };
    let name = if name.is_empty() {
        String::new()
    } else {
        format!(" \"{name}\"")
    };
    let state = if partition.state == "read" {
        String::new()
    } else {
        format!(" ({})", partition.state)
    };
    let changed = if partition.changed_bytes == 0 {
        "no change".to_owned()
    } else {
        format!(
            "{} in {}",
            Short(partition.changed_bytes),
            Count(partition.ranges, "range")
        )
    };
    let journal = match partition.transactions {
        0 => String::new(),
        n => format!(" (journal replayed: {})", Count(n, "transaction")),
    };
    output.line(format_args!(
        "{what}{name}, {}{state}, {}: {changed}{journal}",
        partition.file_system,
        Short(partition.partition.len)
    ))?;
    partition
        .notes
        .iter()
        .try_for_each(|note| output.line(format_args!("     note: {note}")))
}

fn line(entry: &FileChange) -> String {
    let slash = if entry.kind == NodeKind::Folder {
        "/"
    } else {
        ""
    };
    let path = |path: &[u8]| format!("{}{slash}", shown(OsStr::from_bytes(path)));
    let name = match &entry.was {
        Some(was) => format!("{} -> {}", path(was), path(&entry.path)),
        None => path(&entry.path),
    };
    let letter = entry.change.letter();
    match entry.changed_bytes {
        0 => format!("  {letter}  {name}"),
        bytes => format!("  {letter}  {name:<50}  {:>10}", Short(bytes).to_string()),
    }
}

fn areas(areas: &[Area]) -> String {
    let areas = areas
        .iter()
        .map(|area| format!("{} {}", area.name, Short(area.changed_bytes)));
    areas.collect::<Vec<_>>().join(", ")
}

#[derive(Serialize)]
struct Json<'a> {
    base: Side,
    target: Side,
    partition_table: &'static str,
    notes: &'a [String],
    partitions: Vec<PartitionJson<'a>>,
    outside: Vec<AreaJson<'a>>,
    changed_bytes: u64,
    accounted_bytes: u64,
}

#[derive(Serialize)]
struct Side {
    image: String,
    virtual_size: u64,
}

impl Side {
    fn new(image: &dyn Opened) -> Self {
        Self {
            image: image.path().to_string_lossy().into_owned(),
            virtual_size: image.virtual_size(),
        }
    }
}

#[derive(Serialize)]
struct PartitionJson<'a> {
    partition: u32,
    name: &'a str,
    label: &'a str,
    start: u64,
    length: u64,
    file_system: &'static str,
    state: &'static str,
    notes: &'a [String],
    replayed_transactions: u64,
    changed_bytes: u64,
    range_count: u64,
    entries: Vec<EntryJson>,
    areas: Vec<AreaJson<'a>>,
    free_bytes: u64,
}

#[derive(Serialize)]
struct AreaJson<'a> {
    name: &'a str,
    changed_bytes: u64,
}

impl<'a> AreaJson<'a> {
    fn new(area: &'a Area) -> Self {
        Self {
            name: &area.name,
            changed_bytes: area.changed_bytes,
        }
    }
}

#[derive(Serialize)]
struct EntryJson {
    change: &'static str,
    kind: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_path: Option<String>,
    old_size: Option<u64>,
    size: Option<u64>,
    changed_bytes: u64,
}

impl EntryJson {
    fn new(entry: &FileChange) -> Self {
        Self {
            change: entry.change.name(),
            kind: entry.kind.name(),
            path: String::from_utf8_lossy(&entry.path).into_owned(),
            path_bytes: path_bytes(&entry.path),
            old_path: entry
                .was
                .as_ref()
                .map(|was| String::from_utf8_lossy(was).into_owned()),
            old_size: entry.size_before,
            size: entry.size_after,
            changed_bytes: entry.changed_bytes,
        }
    }
}

/// The bytes of a path that isn't UTF-8, in hexadecimal.
pub(super) fn path_bytes(path: &[u8]) -> Option<String> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n & 15)]);
    let bytes = path
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(*byte)]);
    std::str::from_utf8(path).is_err().then(|| bytes.collect())
}
