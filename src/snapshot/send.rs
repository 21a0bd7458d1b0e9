//! Snapshots as a stream, for use without a shared folder.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::remedies::lists;
use super::sparse_chunks::pieces;
use super::stream::{Record, StreamWriter};
use super::{Disk, Manifest, Work};
use crate::error::{Error, Result};
use crate::storage::{Access, File, room_for_files};

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

/// Snapshots with their files open, ready to be sent.
#[derive(Debug)]
pub struct Outgoing {
    disk: String,
    points: Vec<Manifest>,
    /// As many as there are points, if all of them could be opened at once.
    files: Vec<File>,
    paths: Vec<PathBuf>,
}

impl Outgoing {
    /// Chooses the snapshots of `disk` in `span` and opens their files. Returns whether all of them are held: if so,
    /// what is sent stays what it is whatever becomes of the disk, else the disk must be kept locked.
    ///
    /// # Errors
    ///
    /// What is wrong with a manifest that can't be read. [`Pending`](crate::ErrorKind::Pending) in the middle of a
    /// deletion that was interrupted.
    pub fn open(disk: &mut Disk, span: Span<'_>, work: Work<'_>) -> Result<(Self, bool)> {
        if let Some(error) = disk.damaged().first() {
            let file = error.path().unwrap_or(disk.folder());
            return Err(Error::damaged("a manifest of this disk can't be read")
                .with_path(file)
                .with_source(error.to_string())
                .with_remedy(lists("what is damaged")));
        }
        // A base that a deletion has begun to change stays what it is only as long as the disk is locked.
        let may_hold = disk.next_base.is_none();
        if may_hold || disk.seen.is_none() {
            disk.settle(work)?;
        }
        let points = chosen(disk, span)?.to_vec();
        let paths = points.iter().map(|point| disk.data_path(point));
        let mut outgoing = Self {
            disk: disk.name().to_owned(),
            paths: paths.collect::<Result<_>>()?,
            points,
            files: Vec::new(),
        };
        let held = may_hold && outgoing.points.len() <= room_for_files();
        if held {
            let paths = outgoing.paths.iter();
            outgoing.files = paths
                .map(|path| File::open_locked(path, Access::Read))
                .collect::<Result<_>>()?;
        }
        Ok((outgoing, held))
    }

    /// Writes them to `out`, which messages call `name`.
    pub fn send<W: Write>(self, (out, name): (W, &Path), work: Work<'_>) -> Result<Sent> {
        let total = self.points.iter().map(|point| point.data.length);
        work.progress
            .begin("sending", total.fold(0, u64::saturating_add));
        let mut stream = StreamWriter::new(out, name, &self.disk)?;
        let mut files = self.files.into_iter();
        for (point, path) in self.points.iter().zip(&self.paths) {
            stream.push(&Record::Snapshot(&point.encode()?))?;
            let file = match files.next() {
                Some(file) => file,
                None => File::open(path)?,
            };
            let len = point.data.length;
            pieces(&file, 0, len, work.progress, |offset, piece| {
                stream.push(&Record::Data(offset, piece))
            })?;
            stream.push(&Record::Done(len))?;
        }
        stream.push(&Record::End(
            u32::try_from(self.points.len()).unwrap_or(u32::MAX),
        ))?;
        Ok(Sent {
            points: self.points,
            bytes: stream.finish()?,
        })
    }
}

/// Writes the snapshots of `disk` in `span` to `out`, called `name` in messages.
pub fn send<W: Write>(
    disk: &mut Disk,
    span: Span<'_>,
    (out, name): (W, &Path),
    work: Work<'_>,
) -> Result<Sent> {
    let (outgoing, _) = Outgoing::open(disk, span, work)?;
    outgoing.send((out, name), work)
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
