//! Snapshots as a stream, for use without a shared folder.

use std::io::Write;
use std::path::Path;

use super::remedies::lists;
use super::sparse_chunks::pieces;
use super::stream::{Record, StreamWriter};
use super::{Disk, Manifest, Work};
use crate::error::{Error, Result};
use crate::storage::File;

/// A range of snapshots of a disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Span<'a> {
    /// Only those after the one of this name.
    pub after: Option<&'a str>,
    /// Only those up to the one of this name, inclusive.
    pub until: Option<&'a str>,
}

/// The outcome of sending.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Sent {
    /// The snapshots, oldest first.
    pub points: Vec<Manifest>,
    /// Length of the stream in bytes.
    pub bytes: u64,
}

/// Writes the snapshots of `disk` in `span` to `out`, called `name` in messages.
pub fn send<W: Write>(
    disk: &mut Disk,
    span: Span<'_>,
    (out, name): (W, &Path),
    work: Work<'_>,
) -> Result<Sent> {
    if let Some(error) = disk.damaged().first() {
        let file = error.path().unwrap_or(disk.folder());
        return Err(Error::damaged("a manifest of this disk can't be read")
            .with_path(file)
            .with_source(error.to_string())
            .with_remedy(lists("what is damaged")));
    }
    disk.settle(work)?;
    let points = chosen(disk, span)?;
    let total = points.iter().map(|point| point.data.length);
    work.progress
        .begin("sending", total.fold(0, u64::saturating_add));
    let mut stream = StreamWriter::new(out, name, disk.name())?;
    for point in points {
        stream.push(&Record::Snapshot(&point.encode()?))?;
        let file = File::open(disk.data_path(point)?)?;
        let len = point.data.length;
        pieces(&file, 0, len, work.progress, |offset, piece| {
            stream.push(&Record::Data(offset, piece))
        })?;
        stream.push(&Record::Done(len))?;
    }
    stream.push(&Record::End(
        u32::try_from(points.len()).unwrap_or(u32::MAX),
    ))?;
    Ok(Sent {
        points: points.to_vec(),
        bytes: stream.finish()?,
    })
}

fn chosen<'a>(disk: &'a Disk, span: Span<'_>) -> Result<&'a [Manifest]> {
    let place = |name: &str| {
        let sequence = disk.find(name)?.sequence;
        let points = disk.points().iter();
        Ok(points
            .take_while(|point| point.sequence <= sequence)
            .count())
    };
    let start = span.after.map_or(Ok(0), place)?;
    let end = span.until.map_or(Ok(disk.points().len()), place)?;
    disk.points().get(start..end).ok_or_else(|| {
        Error::usage("the span ends before it begins")
            .with_path(disk.folder())
            .with_found(format_args!(
                "after {} and until {}",
                span.after.unwrap_or_default(),
                span.until.unwrap_or_default()
            ))
            .with_expected("snapshots after one that is earlier than the last of them")
    })
}
