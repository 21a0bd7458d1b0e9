//! Lists and shows snapshots.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{choose, chosen, meant};
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::output::Output;
use crate::cli::size::{Count, Short, Size};
use crate::error::Result;
use crate::snapshot::{FarDisk, FarPoint, FarStore, Time};

#[derive(Serialize)]
struct Listing {
    store: String,
    disks: Vec<DiskView>,
}

#[derive(Serialize)]
struct DiskView {
    disk: String,
    blob: String,
    /// The operation in progress on it, if it is incomplete.
    unfinished: Option<&'static str>,
    snapshots: Vec<PointView>,
}

/// A snapshot, for display.
#[derive(Serialize)]
pub(super) struct PointView {
    name: String,
    blob_snapshot: String,
    id: Option<String>,
    time: String,
    state: &'static str,
    /// Length of the blob in bytes, including holes and the footer.
    blob_size: u64,
    content_digest: Option<String>,
    source_name: Option<String>,
    source_resource_id: Option<String>,
    source_unique_id: Option<String>,
    tags: BTreeMap<String, String>,
}

impl From<&FarPoint> for PointView {
    fn from(point: &FarPoint) -> Self {
        Self {
            name: point.name.clone(),
            blob_snapshot: point.key.clone(),
            id: point.note.id.clone(),
            time: point.time_text(),
            state: if point.is_complete {
                "complete"
            } else {
                "incomplete"
            },
            blob_size: point.size,
            content_digest: point.digest().map(|digest| digest.to_string()),
            source_name: point.note.source.clone(),
            source_resource_id: point.note.resource.clone(),
            source_unique_id: point.note.unique.clone(),
            tags: point.note.tags.clone(),
        }
    }
}

impl From<&FarDisk> for DiskView {
    fn from(disk: &FarDisk) -> Self {
        Self {
            disk: disk.name.clone(),
            blob: disk.key.clone(),
            unfinished: disk.unfinished,
            snapshots: disk.points.iter().map(PointView::from).collect(),
        }
    }
}

/// Lists the snapshots of all disks, or of one.
pub(in crate::cli::snapshot) fn list(
    store: &dyn FarStore,
    only: Option<&String>,
    json: bool,
    context: &Context,
) -> Result<Outcome> {
    let disks = chosen(store, only.map_or(&[], std::slice::from_ref))?;
    for disk in &disks {
        if let Some(what) = disk.unfinished {
            context.note(format_args!("{}: its blob is {what}", disk.name));
        }
    }
    let views: Vec<DiskView> = disks.iter().map(DiskView::from).collect();
    let mut output = Output::text()?;
    if json {
        output.json(&Listing {
            store: store.shown().to_string_lossy().into_owned(),
            disks: views,
        })?;
    } else {
        text(&views, &mut output)?;
    }
    output.finish()?;
    Ok(Outcome::Done)
}

fn text(disks: &[DiskView], output: &mut Output) -> Result<()> {
    let points = || {
        disks
            .iter()
            .flat_map(|disk| disk.snapshots.iter().map(move |point| (disk, point)))
    };
    let width =
        |head: &str, lengths: &mut dyn Iterator<Item = usize>| lengths.fold(head.len(), usize::max);
    let disk_width = width("DISK", &mut disks.iter().map(|disk| disk.disk.len()));
    let name_width = width("NAME", &mut points().map(|(_, point)| point.name.len()));
    let time_width = width("TIME", &mut points().map(|(_, point)| point.time.len()));
    let mut row = |[disk, name, time, state, size]: [&str; 5]| {
        output.line(format_args!(
            "{disk:<disk_width$}  {name:<name_width$}  {time:<time_width$}  {state:<10}  {size:>10}"
        ))
    };
    row(["DISK", "NAME", "TIME", "STATE", "SIZE"])?;
    for (disk, point) in points() {
        let size = Short(point.blob_size).to_string();
        row([&disk.disk, &point.name, &point.time, point.state, &size])?;
    }
    let count = points().count() as u64;
    output.line(format_args!(
        "{} of {}",
        Count(count, "snapshot"),
        Count(disks.len() as u64, "disk")
    ))
}

/// Prints everything that is known about a snapshot.
pub(in crate::cli::snapshot) fn show(
    store: &dyn FarStore,
    (disk, snapshot, at): (Option<&str>, Option<&String>, Option<Time>),
    json: bool,
) -> Result<Outcome> {
    let (disk, names) = meant(store, disk, snapshot)?;
    let point = choose(store, &disk, names.first().copied(), at)?;
    let view = PointView::from(point);
    let mut output = Output::text()?;
    if json {
        output.json(&view)?;
    } else {
        let mut line = |name: &str, value: &str| output.line(format_args!("{name:<18} {value}"));
        line("point in time", &format!("{}@{}", disk.name, view.name))?;
        line("blob", &disk.key)?;
        line("blob snapshot", &view.blob_snapshot)?;
        line("time", &view.time)?;
        line("state", view.state)?;
        line("blob size", &Size(view.blob_size).to_string())?;
        for (name, value) in [
            ("content digest", &view.content_digest),
            ("copied from", &view.source_name),
            ("source resource", &view.source_resource_id),
            ("source unique id", &view.source_unique_id),
            ("id", &view.id),
        ] {
            if let Some(value) = value {
                line(name, value)?;
            }
        }
        for (key, value) in &view.tags {
            line("tag", &format!("{key}={value}"))?;
        }
    }
    output.finish()?;
    Ok(Outcome::Done)
}
