//! Messages about a disk that several commands print.

use std::path::Path;

use crate::cli::context::Context;
use crate::cli::message::Topic;
use crate::snapshot::{Disk, Manifest, Time};
use crate::text::shown;

/// Bytes that the snapshots take together.
pub(super) fn used(points: &[&Manifest]) -> u64 {
    points
        .iter()
        .fold(0, |sum, point| sum.saturating_add(point.used_size))
}

/// Reports problems with manifests that can't be read. Returns whether there are any.
pub(super) fn report_damaged(disk: &mut Disk, context: &Context) -> bool {
    let damaged = disk.take_damaged();
    for error in &damaged {
        context.report(error);
    }
    !damaged.is_empty()
}

/// A note about a disk on which a deletion was interrupted.
pub(super) fn unfinished(disk: &Disk) -> Option<String> {
    let going = disk.interrupted_deletion();
    let names: Vec<&str> = going.iter().map(|point| point.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "{}: deleting {} was interrupted; the next command that changes the disk finishes it",
            disk.name(),
            names.join(", ")
        )
    })
}

/// The note about a disk that another command was changing while it was read.
pub(super) fn being_written(disk: &Disk) -> Option<String> {
    let writer = disk.writer()?;
    let by = writer.holder.as_ref();
    let by = by.map_or_else(|| "another command".to_owned(), ToString::to_string);
    Some(format!("{}: is being written by {by}", disk.name()))
}

/// A command that was changing a disk when it was read, as it is shown.
#[derive(Debug, serde::Serialize)]
pub(super) struct WriterView {
    command: Option<String>,
    process: Option<u32>,
    host: Option<String>,
    since: Option<String>,
}

impl WriterView {
    pub(super) fn of(disk: &Disk) -> Option<Self> {
        let holder = disk.writer()?.holder.as_ref();
        Some(Self {
            command: holder.map(|holder| holder.command.clone()),
            process: holder.map(|holder| holder.process),
            host: holder.map(|holder| holder.host.clone()),
            since: holder.map(|holder| holder.since.to_string()),
        })
    }
}

/// The warning about the snapshot `name` of `disk` with a time in the future.
pub(super) fn in_the_future((disk, name): (&str, &str), time: Time) -> String {
    format!(
        "{disk}@{name}: its time, {time}, is in the future: until then no current snapshot can be added"
    )
}

/// Reports possible mistakes about snapshots from elsewhere: a new disk, or a time in the future.
pub(super) fn say_what_is_unusual(
    (store, disk): (&Path, &str),
    is_new: bool,
    newest: Option<&Manifest>,
    context: &Context,
) {
    if is_new {
        context.note(format_args!(
            "{}: {disk} is a new disk in this store",
            shown(store)
        ));
    }
    if let Some(newest) = newest.filter(|newest| newest.time.is_ahead()) {
        let text = in_the_future((disk, &newest.name), newest.time);
        context.warn(Topic::TimeInFuture, text);
    }
}
