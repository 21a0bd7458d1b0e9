//! Receives a stream of snapshots.

use std::io::Read;
use std::path::Path;

use super::history::{check_time, refuse_other, send_after};
use super::incoming::{PartialPoint, Target, to_verify};
use super::marker::expect_store;
use super::plain::is_absent;
use super::settle::settle;
use super::stream::{Record, StreamReader};
use super::{Manifest, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Silent;
use crate::remedy::{Remedy, SnapshotJob, Step};
use crate::storage::Audience;

/// The outcome of receiving a stream.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Received {
    /// The disk of the snapshots, once it is known.
    pub disk: String,
    /// The snapshots that are now part of the store.
    pub points: Vec<Manifest>,
    /// How many snapshots were skipped because the store had them already or is past them.
    pub skipped: u32,
    /// The newest snapshot of the disk afterwards.
    pub newest: Option<Manifest>,
    /// Whether the disk was created for them.
    pub is_new: bool,
    /// The reason why the rest couldn't be received.
    pub error: Option<Error>,
}

/// Whether snapshots are accepted whose time is in the future by the clock here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Future {
    /// Accepted.
    Accepted,
    /// Refused if they are more than a day ahead.
    Refused,
}

/// Receives the snapshots from `input`, called `name` in messages, into a disk of the store at `store`: the one called
/// `disk`, or the name in the stream. Snapshots received completely before an error are kept.
pub fn receive<R: Read>(
    store: &Path,
    disk: Option<&str>,
    input: (R, &Path),
    future: Future,
    work: Work<'_>,
) -> Received {
    receive_when_free(store, disk, input, (future, &|_| false), work)
}

/// As [`receive`]; as long as another command has the disk, `waits` is asked with that error whether to try again.
pub fn receive_when_free<R: Read>(
    store: &Path,
    disk: Option<&str>,
    input: (R, &Path),
    (future, waits): (Future, &dyn Fn(&Error) -> bool),
    work: Work<'_>,
) -> Received {
    let mut received = Received::default();
    received.error = take(store, disk, input, (future, waits), &mut received, work).err();
    if let Some(error) = received.error.take() {
        received.error = Some(and_then(error, received.newest.as_ref()));
    }
    received
}

/// Adds how to continue.
fn and_then(error: Error, newest: Option<&Manifest>) -> Error {
    let helps = matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Io);
    if !helps || error.hint().is_some() {
        return error;
    }
    error.with_remedy(match newest {
        Some(newest) => Remedy::new("everything before it was kept: send the rest again")
            .named(", with ")
            .step(
                send_after(newest),
                format!(", that is after {}", newest.name),
            ),
        None => Remedy::new("nothing was kept: send again from the beginning"),
    })
}

fn take<R: Read>(
    store: &Path,
    disk: Option<&str>,
    (input, name): (R, &Path),
    (future, waits): (Future, &dyn Fn(&Error) -> bool),
    received: &mut Received,
    work: Work<'_>,
) -> Result<()> {
    let mut stream = StreamReader::new(input, name)?;
    disk.unwrap_or(stream.disk()).clone_into(&mut received.disk);
    expect_store(store, None)?;
    received.is_new = is_absent(&store.join(&received.disk));
    let mut target = loop {
        match Target::open(store, &received.disk, &Audience::nobody_else()) {
            Err(error) if error.kind() == ErrorKind::Locked && waits(&error) => {}
            opened => break opened?,
        }
    };
    let result = take_into(&mut target, (&mut stream, name), future, received, work);
    if result.is_err() {
        target.discard_if_empty();
    }
    result
}

/// The most snapshots that are received before it is verified what they make, and the most bytes of them: if it is
/// killed before that, they stay.
const UNPROVEN: usize = 64;
const UNPROVEN_BYTES: u64 = 256 << 20;

fn take_into<R: Read>(
    target: &mut Target,
    (stream, name): (&mut StreamReader<R>, &Path),
    future: Future,
    received: &mut Received,
    work: Work<'_>,
) -> Result<()> {
    received.newest = target.disk().newest().cloned();
    let mut unproven = Vec::new();
    let taken = take_points(
        (target, &mut unproven),
        (stream, name),
        future,
        received,
        work,
    );
    // An error or a signal doesn't leave any of them unverified.
    let work = Work {
        progress: if taken.is_ok() {
            work.progress
        } else {
            &Silent
        },
        ..work
    };
    prove(target, &mut unproven, received, work).map_err(|e| in_stream(stream, name, e))?;
    taken
}

/// Verifies what the diffs in `unproven` make. Those that lie are no longer there afterwards.
fn prove(
    target: &mut Target,
    unproven: &mut Vec<Manifest>,
    received: &mut Received,
    work: Work<'_>,
) -> Result<()> {
    let found = settle(target, unproven, work)?;
    unproven.clear();
    let Some((wrong, error)) = found else {
        return Ok(());
    };
    received
        .points
        .retain(|point| point.sequence < wrong.sequence);
    received.newest = target.disk().newest().cloned();
    Err(error)
}

fn take_points<R: Read>(
    (target, unproven): (&mut Target, &mut Vec<Manifest>),
    (stream, name): (&mut StreamReader<R>, &Path),
    future: Future,
    received: &mut Received,
    work: Work<'_>,
) -> Result<()> {
    let (mut last, mut count, mut met) = (0, 0_u32, received.newest.is_none());
    loop {
        let manifest = match stream.next_record()? {
            Record::Snapshot(bytes) => Manifest::decode_alone(bytes),
            Record::End(snapshots) if snapshots == count => break,
            _ => Err(Error::damaged("there can't be such a record here")),
        };
        let point = manifest.map_err(|e| in_stream(stream, name, e))?;
        if point.sequence <= last {
            return Err(stream
                .damaged("a snapshot is repeated or out of its place")
                .with_field("sequence")
                .with_found(point.sequence)
                .with_expected(format_args!("more than {last}")));
        }
        (last, count) = (point.sequence, count.saturating_add(1));
        met |= received
            .newest
            .as_ref()
            .is_some_and(|newest| newest.id == point.id || point.sequence > newest.sequence);
        if is_there(target, &point)? {
            received.skipped = received.skipped.saturating_add(1);
            data(stream, &point, work, |_, _| Ok(()))?;
            continue;
        }
        if future == Future::Refused {
            check_time(&point)?;
        }
        let bytes = unproven.iter().map(|point: &Manifest| point.data.length);
        let bytes = bytes.fold(point.data.length, u64::saturating_add);
        if point.is_base() || unproven.len() >= UNPROVEN || bytes > UNPROVEN_BYTES {
            prove(target, unproven, received, work).map_err(|e| in_stream(stream, name, e))?;
        }
        let incoming = target
            .begin(&point, None)
            .map_err(|e| in_stream(stream, name, e))?;
        work.progress
            .begin(&format!("receiving {}", point.name), point.data.length);
        let result = data(stream, &point, work, |offset, bytes| {
            incoming.write(offset, bytes)
        });
        work.progress
            .begin(&format!("verifying {}", point.name), to_verify(&point));
        let complete = complete(result, incoming, work).map_err(|e| in_stream(stream, name, e))?;
        received.newest = Some(complete.clone());
        if !complete.is_base() {
            unproven.push(complete.clone());
        }
        received.points.push(complete);
    }
    if met || count == 0 {
        return Ok(());
    }
    let list = Step::Snapshot {
        job: SnapshotJob::List,
        of: None,
    };
    Err(
        Error::mismatch("none of the received snapshots continues the existing ones")
            .with_path(target.disk().folder())
            .with_found(format_args!("{count} older snapshots"))
            .with_remedy(
                Remedy::default()
                    .step(list, "a list of the snapshots")
                    .text(" shows what both have; send what comes after the target's newest"),
            ),
    )
}

/// Returns whether the disk has this snapshot, or is past it.
fn is_there(target: &Target, point: &Manifest) -> Result<bool> {
    let disk = target.disk();
    if let Some(there) = disk.points.numbered(point.sequence).next() {
        refuse_other(disk, there, point)?;
        return Ok(true);
    }
    Ok(disk
        .newest()
        .is_some_and(|newest| point.sequence < newest.sequence))
}

fn complete(result: Result<()>, incoming: PartialPoint<'_>, work: Work<'_>) -> Result<Manifest> {
    match result {
        Ok(()) => incoming.finish(work),
        Err(error) => {
            incoming.give_up()?;
            Err(error)
        }
    }
}

/// Receives the data of a snapshot, up to its end.
fn data<R: Read>(
    stream: &mut StreamReader<R>,
    point: &Manifest,
    work: Work<'_>,
    mut sink: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let len = point.data.length;
    let mut end = 0_u64;
    loop {
        work.progress.check()?;
        let wrong = match stream.next_record()? {
            Record::Data(offset, bytes) => {
                let next = offset.saturating_add(bytes.len() as u64);
                if offset >= end && next <= len {
                    sink(offset, bytes)?;
                    work.progress.advance(next - end);
                    end = next;
                    continue;
                }
                "this data has no place in its file"
            }
            Record::Done(found) if found == len => {
                work.progress.advance(len - end);
                return Ok(());
            }
            Record::Done(_) => "the data doesn't have the length that its manifest gives",
            _ => "a snapshot ends before its data does",
        };
        return Err(stream.damaged(wrong));
    }
}

/// Converts a problem with a part of the stream to an error about the stream.
fn in_stream<R: Read>(stream: &StreamReader<R>, name: &Path, error: Error) -> Error {
    match error.kind() {
        ErrorKind::Damaged if error.path() != Some(name) => stream
            .damaged("this snapshot can't be used")
            .with_source(error),
        _ => error,
    }
}
