//! Deletes and prunes snapshots.

use serde::Serialize;

use super::{choose, chosen, meant};
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::output::Output;
use crate::cli::size::Count;
use crate::cli::snapshot::locking::Patience;
use crate::error::{Error, Result};
use crate::snapshot::{FarDisk, FarPoint, FarStore, HOLD, Policy, Work, decide_far};

#[derive(Serialize)]
struct View {
    dry_run: bool,
    disk: String,
    deleted: Vec<Gone>,
}

#[derive(Serialize)]
struct Gone {
    snapshot: String,
    outcome: &'static str,
}

/// Which snapshots may be deleted.
#[derive(Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(in crate::cli::snapshot) struct Delete {
    pub(in crate::cli::snapshot) last: bool,
    pub(in crate::cli::snapshot) release_hold: bool,
    pub(in crate::cli::snapshot) dry_run: bool,
    pub(in crate::cli::snapshot) json: bool,
}

/// Deletes snapshots.
pub(in crate::cli::snapshot) fn delete(
    store: &dyn FarStore,
    (disk, snapshots): (Option<&str>, &[String]),
    how: Delete,
    (patience, context): (&Patience<'_>, &Context),
) -> Result<Outcome> {
    let (disk, names) = meant(store, disk, snapshots)?;
    let mut points: Vec<&FarPoint> = Vec::new();
    for name in names {
        let point = choose(store, &disk, Some(name), None)?;
        if point.note.tags.contains_key(HOLD) && !how.release_hold {
            return Err(Error::usage("this snapshot is held")
                .with_path(store.shown())
                .with_found(format_args!("{}@{}", disk.name, point.name))
                .with_hint("use --release-hold to delete it all the same"));
        }
        if !points.contains(&point) {
            points.push(point);
        }
    }
    if points.len() == disk.points.len() && !how.last {
        return Err(Error::usage("these are all snapshots of the disk")
            .with_path(store.shown())
            .with_found(&disk.name)
            .with_hint("use --last to delete them too; nothing will be left of the disk, and its blob is deleted"));
    }
    if !how.dry_run {
        patience.wait_for(|| remove(store, &disk, &points, context))?;
    }
    let outcome = if how.dry_run {
        "would_be_deleted"
    } else {
        "removed"
    };
    for point in &points {
        let what = if how.dry_run {
            "would be deleted"
        } else {
            "deleted"
        };
        context.note(format_args!("{}@{}: {what}", disk.name, point.name));
    }
    if how.json {
        let mut output = Output::text()?;
        output.json(&View {
            dry_run: how.dry_run,
            disk: disk.name.clone(),
            deleted: points
                .iter()
                .map(|point| Gone {
                    snapshot: point.name.clone(),
                    outcome,
                })
                .collect(),
        })?;
        output.finish()?;
    }
    Ok(Outcome::Done)
}

fn remove(
    store: &dyn FarStore,
    disk: &FarDisk,
    points: &[&FarPoint],
    context: &Context,
) -> Result<()> {
    let workers = context.workers_far()?;
    let progress = context.progress();
    let work = Work {
        workers: &workers,
        progress: &*progress,
    };
    store.delete(disk, points, work)
}

#[derive(Serialize)]
struct Pruned {
    dry_run: bool,
    disks: Vec<PrunedDisk>,
}

#[derive(Serialize)]
struct PrunedDisk {
    disk: String,
    kept_count: usize,
    deleted_count: usize,
    snapshots: Vec<PrunedPoint>,
}

#[derive(Serialize)]
struct PrunedPoint {
    name: String,
    time: String,
    keep: bool,
    reasons: Vec<String>,
}

/// Deletes the snapshots that no rule keeps.
pub(in crate::cli::snapshot) fn prune(
    store: &dyn FarStore,
    only: &[String],
    policy: &Policy,
    (dry_run, json): (bool, bool),
    (patience, context): (&Patience<'_>, &Context),
) -> Result<Outcome> {
    let mut all = Vec::new();
    for disk in chosen(store, only)? {
        let reasons = decide_far(store, &disk, policy)?;
        let told = !json && (!context.quiet() || dry_run);
        let decided = || disk.points.iter().zip(&reasons);
        if told {
            let mut output = Output::text()?;
            let of = |length: fn(&FarPoint) -> usize| disk.points.iter().map(length);
            let name_width = of(|point| point.name.len()).fold(0, usize::max);
            let time_width = of(|point| point.time_text().len()).fold(0, usize::max);
            for (point, reasons) in decided() {
                let what = if reasons.is_empty() {
                    "delete".to_owned()
                } else {
                    format!("keep    {}", reasons.join(", "))
                };
                let (disk, name, time) = (&disk.name, &point.name, point.time_text());
                output.line(format_args!(
                    "{disk}@{name:<name_width$}  {time:<time_width$}  {what}"
                ))?;
            }
            output.finish()?;
        }
        let gone = decided().filter(|(_, reasons)| reasons.is_empty());
        let gone: Vec<&FarPoint> = gone.map(|(point, _)| point).collect();
        if !dry_run && !gone.is_empty() {
            patience.wait_for(|| remove(store, &disk, &gone, context))?;
        }
        let kept = disk.points.len() - gone.len();
        if told {
            let count = Count(gone.len() as u64, "snapshot");
            let mut output = Output::text()?;
            output.line(if dry_run {
                format!(
                    "{}: {kept} would be kept, {count} would be deleted",
                    disk.name
                )
            } else {
                format!("{}: {kept} kept, {count} deleted", disk.name)
            })?;
            output.finish()?;
        }
        all.push(PrunedDisk {
            kept_count: kept,
            deleted_count: gone.len(),
            snapshots: decided()
                .map(|(point, reasons)| PrunedPoint {
                    name: point.name.clone(),
                    time: point.time_text(),
                    keep: !reasons.is_empty(),
                    reasons: reasons.clone(),
                })
                .collect(),
            disk: disk.name.clone(),
        });
    }
    if json {
        let mut output = Output::text()?;
        output.json(&Pruned {
            dry_run,
            disks: all,
        })?;
        output.finish()?;
    }
    Ok(Outcome::Done)
}
