//! Compares the histories of two copies of a disk: what has to be copied, or why it can't be.

use std::path::PathBuf;

use super::manifest::LAST_SEQUENCE;
use super::verify::check_footer;
use super::{Disk, Manifest, Time};
use crate::error::{Error, Result};
use crate::remedy::{Choice, Remedy, SnapshotJob, Step};

/// What a copy has to bring.
#[derive(Debug)]
pub(super) struct Missing<'a> {
    /// The snapshots that the target lacks, in order: all after its newest one.
    pub(super) points: &'a [Manifest],
    /// The newest one of the target, if the source doesn't have it any more: the first of `points` is copied as a diff
    /// from that, which is made for it.
    pub(super) bridge: Option<Manifest>,
}

/// What `target` lacks of `source`.
///
/// # Errors
///
/// [`Mismatch`](crate::ErrorKind::Mismatch) if the target isn't at a point of the source's history.
pub(super) fn missing<'a>(source: &'a Disk, target: &Disk) -> Result<Missing<'a>> {
    missing_there(source, target.points(), &|point| target.label(point))
}

/// As [`missing`], where of the target nothing is at hand but the manifests of `points`, in order, of which the last one
/// is its newest; messages call them as `label` does.
pub(super) fn missing_there<'a>(
    source: &'a Disk,
    points: &[Manifest],
    label: &dyn Fn(&Manifest) -> PathBuf,
) -> Result<Missing<'a>> {
    for there in points {
        if let Some(here) = source.points.numbered(there.sequence).next() {
            refuse_other_at(label, there, here)?;
        }
    }
    let Some(newest) = points.last() else {
        return Ok(Missing {
            points: source.points(),
            bridge: None,
        });
    };
    let here = source.points.with_id(&newest.id);
    let sequence = here.map_or(newest.sequence, |here| here.sequence);
    let later = source.points.from(sequence.saturating_add(1));
    let bridge = here.is_none().then(|| newest.clone());
    if bridge.is_some() {
        let follows = later
            .first()
            .is_some_and(|next| continues(source, points, newest, next));
        if !follows {
            return Err(gone(source, points, label(newest), newest));
        }
    }
    Ok(Missing {
        points: later,
        bridge,
    })
}

/// Whether `next` is of the disk that `newest` is of, at a later time: `newest` was deleted in the source. The target has
/// `points`.
fn continues(source: &Disk, points: &[Manifest], newest: &Manifest, next: &Manifest) -> bool {
    if next.time < newest.time || newest.family.join(&next.family).is_err() {
        return false;
    }
    if let (Some(there), Some(here)) = (&newest.disk_id, &next.disk_id) {
        return there == here;
    }
    // An older program began the disk: a snapshot that both have proves it, or the ids of the cloud.
    let known = |point: &Manifest| source.points.with_id(&point.id).is_some();
    let told = newest.family.source_unique_id.is_some() && next.family.source_unique_id.is_some();
    told || points.iter().any(known)
}

/// Fails unless two snapshots with the same number are identical.
pub(super) fn refuse_other(target: &Disk, there: &Manifest, here: &Manifest) -> Result<()> {
    refuse_other_at(&|point| target.label(point), there, here)
}

fn refuse_other_at(
    label: &dyn Fn(&Manifest) -> PathBuf,
    there: &Manifest,
    here: &Manifest,
) -> Result<()> {
    let (field, found, expected) = if there.id != here.id {
        ("id", there.id.clone(), here.id.clone())
    } else if there.content_digest != here.content_digest {
        let digests = [there, here].map(|point| point.content_digest.to_string());
        let [found, expected] = digests;
        ("content digest", found, expected)
    } else {
        return Ok(());
    };
    Err(
        Error::mismatch("the histories of the two disks have diverged")
            .with_path(label(there))
            .with_field(field)
            .with_found(found)
            .with_expected(format_args!(
                "{expected}, which is {} in the source",
                here.name
            ))
            .with_hint(format!(
                "copy to another store; or delete {} and what came after it from the target",
                there.name
            )),
    )
}

fn gone(source: &Disk, points: &[Manifest], label: PathBuf, newest: &Manifest) -> Error {
    let known = |point: &&Manifest| source.points.with_id(&point.id).is_some();
    let error = Error::mismatch("the source doesn't have the newest snapshot of the target")
        .with_path(label)
        .with_field("id")
        .with_found(&newest.id)
        .with_expected(match source.newest() {
            Some(theirs) => format!(
                "one of the source's snapshots, of which {} is the newest ({})",
                theirs.name, theirs.id
            ),
            None => "one of the source's snapshots, but it has none".to_owned(),
        });
    match points.iter().rev().find(known) {
        Some(common) => error.with_hint(format!(
            "delete what came after {} from the target: copies continue from the last snapshot that both have",
            common.name
        )),
        None => error.with_hint("the two have no snapshot in common: copy to another store"),
    }
}

/// Fails if another snapshot of `target` has the name of `next`: one was renamed, or made anew under an old name. Both
/// may be right.
pub(super) fn refuse_taken_name(target: &Disk, next: &Manifest) -> Result<()> {
    let Some(taken) = target.points.named(&next.name) else {
        return Ok(());
    };
    if taken.id == next.id {
        return refuse_other(target, taken, next);
    }
    Err(
        Error::mismatch("another snapshot of the target has the name of the next one to copy")
            .with_path(target.label(taken))
            .with_field("id")
            .with_found(&taken.id)
            .with_expected(format_args!(
                "{}, which has that name in the source",
                next.id
            ))
            .with_hint("give one of the two another name, in its own store, and copy again"),
    )
}

/// Fails unless `next` may be the next snapshot of `target`.
pub(super) fn check_next(target: &Disk, next: &Manifest) -> Result<()> {
    check_alone(next)?;
    refuse_taken_name(target, next)?;
    let newest = target.newest();
    if let Some(newest) = newest.filter(|newest| next.sequence <= newest.sequence) {
        return Err(
            Error::mismatch("the target has newer snapshots than this one")
                .with_path(target.folder())
                .with_field("sequence")
                .with_found(format_args!("{} ({})", next.sequence, next.name))
                .with_expected(format_args!(
                    "more than {} ({})",
                    newest.sequence, newest.name
                )),
        );
    }
    if let Some(newest) = newest.filter(|newest| next.time < newest.time) {
        return Err(
            Error::mismatch("this snapshot is older than the newest of the target")
                .with_path(target.folder())
                .with_field("time")
                .with_found(format_args!("{} ({})", next.time, next.name))
                .with_expected(format_args!("{} ({}) or later", newest.time, newest.name)),
        );
    }
    target
        .family()?
        .join(&next.family)
        .map_err(|e| e.with_path(target.folder()))?;
    let Some(parent) = &next.parent else {
        return Ok(());
    };
    if newest.is_some_and(|newest| newest.id == *parent) {
        return Ok(());
    }
    let error = Error::mismatch("this snapshot doesn't continue the newest of the target")
        .with_path(target.folder())
        .with_field("parent")
        .with_found(format_args!("{parent}, which {} starts from", next.name));
    Err(match newest {
        Some(newest) => error
            .with_expected(format_args!("{} ({})", newest.id, newest.name))
            .with_remedy(
                Remedy::new("send what comes after it")
                    .named(": ")
                    .step(send_after(newest), ""),
            ),
        None => error
            .with_expected("a base, as there is nothing yet")
            .with_remedy(
                Remedy::new("send from the beginning")
                    .named(", without ")
                    .step(Step::Choose(Choice::After), ""),
            ),
    })
}

/// The step that sends what comes after this snapshot.
pub(super) fn send_after(newest: &Manifest) -> Step {
    Step::Snapshot {
        job: SnapshotJob::Send {
            after: Some(newest.name.clone()),
        },
        of: None,
    }
}

/// Fails if a snapshot from elsewhere can't be part of any disk.
fn check_alone(next: &Manifest) -> Result<()> {
    if next.sequence >= LAST_SEQUENCE {
        return Err(
            Error::damaged("no snapshot could follow this one: its number is too great")
                .with_path(next.stem().manifest())
                .with_field("sequence")
                .with_found(next.sequence)
                .with_expected(format_args!("less than {LAST_SEQUENCE}")),
        );
    }
    check_footer(next).map_err(|error| error.with_path(next.stem().manifest()))
}

/// Fails if the time of a snapshot is further in the future than clocks differ: nothing could be added after it until
/// then, and rules that keep the newest of a day would keep only this one.
pub(super) fn check_time(next: &Manifest) -> Result<()> {
    let latest = Time::from_unix(Time::now().to_unix().saturating_add(DAY));
    if next.time <= latest {
        return Ok(());
    }
    Err(
        Error::mismatch("the time of this snapshot is in the future")
            .with_path(next.stem().manifest())
            .with_field("time")
            .with_found(next.time)
            .with_expected(format_args!("{latest} or before, as the clock is here"))
            .with_remedy(
                Remedy::new("correct the clocks on both sides; ")
                    .step(
                        Step::Choose(Choice::AcceptFuture),
                        "leave to accept snapshots of the future",
                    )
                    .text(" accepts it anyway"),
            ),
    )
}

/// The maximum difference of clocks in seconds.
const DAY: i64 = 24 * 60 * 60;
