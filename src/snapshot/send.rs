//! Snapshots as a stream, for use without a shared folder.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::history::missing_there;
use super::layout::PACKED;
use super::point::side;
use super::remedies::lists;
use super::restore::check_content;
use super::sparse_chunks::pieces;
use super::stream::{Record, StreamWriter};
use super::{Disk, Manifest, PointImage, ReceiverState, Standing, Work};
use crate::diff::{Compression, DiffOptions, write_diff_unseen};
use crate::error::{Error, Result};
use crate::files::Opened as _;
use crate::image::{ContentDigest, NoneShared, WindowList};
use crate::remedy::{Choice, Remedy, SnapshotJob, Step};
use crate::storage::{Access, File, room_for_files, spool_beside};

/// The snapshot that a receiver has already.
#[derive(Debug, Clone, Copy)]
pub enum After<'a> {
    /// The one of this name.
    Name(&'a str),
    /// The one that is identified so.
    Point(&'a Standing),
    /// The one of the receiver, of which the window hashes are known: if it is gone here, the next one is sent as what
    /// differs from it.
    State(&'a ReceiverState),
}

/// A range of snapshots of a disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Span<'a> {
    /// Only those after this one.
    pub after: Option<After<'a>>,
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
pub struct Outgoing<'a> {
    disk: String,
    points: Vec<Manifest>,
    /// What the first of them is sent as, if the receiver's newest snapshot is gone here.
    bridge: Option<Bridge<'a>>,
    /// As many as there are points whose files are sent, if all of them could be opened at once.
    files: Vec<File>,
    paths: Vec<PathBuf>,
}

/// A snapshot that is sent as what differs from one that only the receiver has.
#[derive(Debug)]
struct Bridge<'a> {
    from: &'a Manifest,
    windows: &'a WindowList<File>,
    scratch: &'a Path,
    to: PointImage,
}

impl<'a> Outgoing<'a> {
    /// Chooses the snapshots of `disk` in `span` and opens their files. Returns whether all of them are held: if so,
    /// what is sent stays what it is whatever becomes of the disk, else the disk must be kept locked.
    ///
    /// # Errors
    ///
    /// What is wrong with a manifest that can't be read. [`Mismatch`](crate::ErrorKind::Mismatch) if the receiver is at
    /// no point of this history. [`Pending`](crate::ErrorKind::Pending) in the middle of a
    /// deletion that was interrupted.
    pub fn open(disk: &mut Disk, span: Span<'a>, work: Work<'_>) -> Result<(Self, bool)> {
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
        let (points, from) = chosen(disk, span)?;
        let points = points.to_vec();
        let mut held = may_hold && points.len() <= room_for_files();
        let bridge = match (points.first(), from) {
            (Some(first), Some((from, windows, scratch))) => {
                let mut to = disk.image(first)?;
                held = to.hold_files()? && held;
                Some(Bridge {
                    from,
                    windows,
                    scratch,
                    to,
                })
            }
            _ => None,
        };
        let stored = points.iter().skip(usize::from(bridge.is_some()));
        let paths = stored.map(|point| disk.data_path(point));
        let mut outgoing = Self {
            disk: disk.name().to_owned(),
            paths: paths.collect::<Result<_>>()?,
            points,
            bridge,
            files: Vec::new(),
        };
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
        let Self {
            disk,
            mut points,
            bridge,
            files,
            paths,
        } = self;
        let mut made = None;
        if let (Some(bridge), Some(first)) = (&bridge, points.first_mut()) {
            let (point, file) = bridge.make(work)?;
            *first = point;
            made = Some(file);
        }
        let total = points.iter().map(|point| point.data.length);
        work.progress
            .begin("sending", total.fold(0, u64::saturating_add));
        let mut stream = StreamWriter::new(out, name, &disk)?;
        let (mut files, mut paths) = (files.into_iter(), paths.iter());
        for point in &points {
            stream.push(&Record::Snapshot(&point.encode()?))?;
            let file = match made.take() {
                Some(made) => made,
                None => match (files.next(), paths.next()) {
                    (Some(file), _) => file,
                    (None, Some(path)) => File::open(path)?,
                    (None, None) => return Err(Error::internal("a snapshot without its file")),
                },
            };
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
            points,
            bytes: stream.finish()?,
        })
    }
}

impl Bridge<'_> {
    /// Makes the diff. Returns the manifest with which it is sent.
    fn make(&self, work: Work<'_>) -> Result<(Manifest, File)> {
        let point = self.to.manifest();
        let file = format!("{}{PACKED}", point.stem());
        let place = self.scratch.join(&file);
        // What comes from an encrypted store isn't kept as it is anywhere.
        let made = spool_beside(&place, &place)?.sealed_like(self.to.base_file());
        let options = DiffOptions {
            work,
            compression: Compression::default(),
            digests: true,
            equal: &NoneShared,
            confirm: &|| self.to.check_unchanged(),
        };
        work.progress
            .begin(&format!("comparing {}", point.name), point.virtual_size);
        let written = write_diff_unseen(
            self.windows,
            side(self.from),
            (&self.to, side(point)),
            (made.appender(), place),
            options,
        )?;
        if let Some(found) = written.trailer.target_digest {
            check_content(&self.to, found)?;
        }
        let (len, identity) = (written.len, ContentDigest(written.digest));
        drop(written);
        let parent = Some(self.from.id.clone());
        let sent = point.stored_as(parent, file, (len, len), Some(identity));
        Ok((sent, made))
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

/// The snapshots to send, and what the first of them is to be sent as a diff from, if that isn't here.
type Chosen<'d, 'a> = (
    &'d [Manifest],
    Option<(&'a Manifest, &'a WindowList<File>, &'a Path)>,
);

fn chosen<'d, 'a>(disk: &'d Disk, span: Span<'a>) -> Result<Chosen<'d, 'a>> {
    let all = disk.points();
    let place = |name: &str| disk.find(name).map(|point| up_to(all, point.sequence));
    let mut from = None;
    let start = match span.after {
        None | Some(After::Point(Standing::Nothing)) => 0,
        Some(After::Name(name)) => place(name)?,
        Some(After::Point(Standing::At { id, content_digest })) => {
            let here = disk.points.with_id(id).ok_or_else(|| pruned(disk, id))?;
            if here.content_digest != *content_digest {
                return Err(
                    Error::mismatch("the histories of the two disks have diverged")
                        .with_path(disk.label(here))
                        .with_field("content digest")
                        .with_found(here.content_digest)
                        .with_expected(format_args!("{content_digest}, which the receiver has"))
                        .with_hint("send to another disk, from the beginning"),
                );
            }
            up_to(all, here.sequence)
        }
        Some(After::State(state)) => match &state.newest {
            None => 0,
            Some((newest, windows)) => {
                let newests = std::slice::from_ref(newest);
                let missing = missing_there(disk, newests, &|_| state.name.clone())?;
                from = missing
                    .bridge
                    .map(|_| (newest, windows, state.scratch.as_path()));
                all.len() - missing.points.len()
            }
        },
    };
    let end = span.until.map_or(Ok(all.len()), place)?;
    let points = all.get(start..end).ok_or_else(|| {
        let after = match span.after {
            Some(After::Name(name)) => name,
            _ => "the receiver's newest",
        };
        Error::usage("the span ends before it begins")
            .with_path(disk.folder())
            .with_found(format_args!(
                "after {after} and until {}",
                span.until.unwrap_or_default()
            ))
            .with_expected("snapshots after one that is earlier than the last of them")
    })?;
    Ok((points, from))
}

/// The number of snapshots up to this one, inclusive.
fn up_to(points: &[Manifest], sequence: u32) -> usize {
    points.partition_point(|point| point.sequence <= sequence)
}

/// The error for a receiver whose newest snapshot isn't here.
fn pruned(disk: &Disk, id: &str) -> Error {
    let newest = disk.newest().map_or("none", |newest| &newest.name);
    Error::mismatch(
        "the newest snapshot of the receiver isn't here: it was deleted, or is of another history",
    )
    .with_path(disk.folder())
    .with_field("id")
    .with_found(id)
    .with_expected(format_args!(
        "the id of a snapshot of this disk, of which {newest} is the newest"
    ))
    .with_remedy(
        Remedy::new("send what differs from it, by its window hashes, which ")
            .step(
                Step::Snapshot {
                    job: SnapshotJob::Status { windows: true },
                    of: None,
                },
                "asking the receiver where it stands",
            )
            .text(" writes at the receiver: pipe them into this command")
            .named(", with ")
            .step(Step::Choose(Choice::AfterStatus), "")
            .named(" instead of ")
            .step(Step::Choose(Choice::After), ""),
    )
}
