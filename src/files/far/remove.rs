//! Deletes points in time of a blob, and finishes changes of which only the mark remains.

use uuid::Uuid;

use super::change::{self, Change};
use super::marks::{self, Applying};
use super::points::BlobPoint;
use super::since::{refuse_foreign_writes, written_since};
use crate::blob::{BlobName, Connector, Metadata};
use crate::error::Result;
use crate::files::apply::ApplyOptions;

/// Removes the mark of the blob called `name` if nothing else is missing: the snapshot for which it was marked exists.
///
/// # Errors
///
/// Fails only if the service does.
pub fn settle_blob(connector: &Connector, name: &BlobName) -> Result<bool> {
    let is_marked = |metadata: &Metadata| marks::copy_of(metadata).is_some();
    match connector.properties(name)? {
        Some(found) if is_marked(&found.metadata) => {}
        _ => return Ok(false),
    }
    let (blob, _) = change::open(connector, name)?;
    let all = blob.snapshots()?;
    let newest = all
        .iter()
        .rev()
        .find(|listed| BlobPoint::of(listed).is_some());
    let metadata = &blob.properties().metadata;
    let Some(copy) = marks::copy_of(metadata) else {
        return Ok(false);
    };
    let taken =
        newest.is_some_and(|newest| newest.properties.metadata.get(marks::COPY) == Some(copy));
    if taken {
        blob.set_metadata(&marks::whole(metadata, None))?;
    }
    Ok(taken)
}

/// Deletes the snapshots of the blob called `name` that were taken at these `times`. If the newest is among them, the blob is
/// restored to the content of the newest remaining one; if all are, the blob is deleted with them.
///
/// # Errors
///
/// As [`grow_blob`](super::grow_blob).
pub fn remove_blob_points(
    connector: &Connector,
    name: &BlobName,
    times: &[&str],
    options: ApplyOptions<'_>,
) -> Result<()> {
    let (blob, mark) = change::open(connector, name)?;
    if mark.is_some() {
        change::refuse(&blob)?;
    }
    let all = blob.snapshots()?;
    let points: Vec<BlobPoint> = all.iter().filter_map(BlobPoint::of).collect();
    let goes = |point: &BlobPoint| times.contains(&point.snapshot.as_str());
    let back_to = points.iter().rev().find(|point| !goes(point));
    let newest = points.last().filter(|newest| goes(newest));
    if let Some(newest) = newest {
        let written = written_since(&blob, &newest.snapshot);
        refuse_foreign_writes(&blob, &newest.snapshot, written.as_deref(), options.work)?;
    }
    let Some(back_to) = back_to else {
        return blob.delete_with_snapshots();
    };
    let mark = newest.map(|_| Applying {
        checkpoint: back_to.snapshot.clone(),
        own: false,
        diffs: marks::identity(&[]),
        target: back_to.note.digest,
        copy: Some(Uuid::new_v4().to_string()),
    });
    if let Some(mark) = &mark {
        blob.set_metadata(&marks::applying(&blob.properties().metadata, mark))?;
    }
    for time in times {
        blob.delete_snapshot(time)?;
    }
    if let Some(mark) = &mark {
        Change::take_back(&blob, mark, options)?;
    }
    Ok(())
}
