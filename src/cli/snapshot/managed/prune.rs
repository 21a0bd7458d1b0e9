//! Thins out the snapshots of a managed disk.

use serde::Serialize;

use super::super::prune::Args;
use super::super::{Context, Count, Outcome, Output, Result, Time};
use super::{Managed, time};
use crate::cloud::Resource;
use crate::snapshot::{Candidate, HeldPoint, Policy};

#[derive(Serialize)]
struct View {
    dry_run: bool,
    disk: String,
    kept_count: usize,
    deleted_count: usize,
    snapshots: Vec<PointView>,
}

#[derive(Serialize)]
struct PointView {
    name: String,
    id: String,
    time: String,
    keep: bool,
    reasons: Vec<String>,
}

pub(in super::super) fn run(args: &Args, policy: &Policy, context: &Context) -> Result<Outcome> {
    let managed = Managed::open(&args.store.store, context)?;
    let decided = decide(&managed, policy);
    if !args.json && (!context.quiet() || args.dry_run) {
        let mut output = Output::text()?;
        let width = decided
            .iter()
            .map(|(one, _)| one.name.len())
            .fold(0, usize::max);
        for (one, reasons) in &decided {
            let (name, time) = (&one.name, time(one));
            let what = if reasons.is_empty() {
                "delete".to_owned()
            } else {
                format!("keep    {}", reasons.join(", "))
            };
            output.line(format_args!("{name:<width$}  {time}  {what}"))?;
        }
        output.finish()?;
    }
    let mut deleted = 0;
    for (one, _) in decided.iter().filter(|(_, reasons)| reasons.is_empty()) {
        if !args.dry_run {
            managed.cloud.delete(one)?;
        }
        deleted += 1;
    }
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            dry_run: args.dry_run,
            disk: managed.name.clone(),
            kept_count: decided.len() - deleted,
            deleted_count: deleted,
            snapshots: decided
                .iter()
                .map(|(one, reasons)| PointView {
                    name: one.name.clone(),
                    id: one.id.clone(),
                    time: time(one),
                    keep: !reasons.is_empty(),
                    reasons: reasons.clone(),
                })
                .collect(),
        })?;
        output.finish()?;
    }
    let word = if args.dry_run {
        "would be deleted"
    } else {
        "deleted"
    };
    context.note(format_args!(
        "{}: {} {word}, {} kept",
        managed.name,
        Count(deleted as u64, "snapshot"),
        decided.len() - deleted
    ));
    Ok(Outcome::Done)
}

/// The snapshots that may be deleted after a copy, oldest first: of those that are `ours`, all but the newest `keep`. Kept are
/// those newer than the points in `held`, the newest one, and those in use.
pub(crate) fn deletable<'a>(
    managed: &'a Managed,
    held: &[HeldPoint],
    keep: usize,
    ours: impl Fn(&Resource) -> bool,
) -> Vec<&'a Resource> {
    let all = &managed.family.snapshots;
    let copied = held.last().and_then(|newest| {
        let id = newest.snapshot_id()?;
        all.iter()
            .position(|one| one.unique_id.as_deref() == Some(id))
    });
    // The next changes are listed relative to the newest one that was copied.
    let reached = all.get(..copied.unwrap_or(0)).unwrap_or_default();
    let own = all.iter().filter(|one| ours(one)).count();
    let gone = own.saturating_sub(keep);
    let oldest = all.iter().filter(|one| ours(one)).take(gone);
    oldest
        .filter(|one| reached.iter().any(|known| known.id == one.id))
        .filter(|one| one.is_complete() && managed.in_use(one).is_ok())
        .collect()
}

/// The reasons to keep each incremental snapshot, oldest first; one without any should be deleted. The newest is kept, since the
/// next changes are listed relative to it, and so are those that are in use or incomplete.
fn decide<'a>(managed: &'a Managed, policy: &Policy) -> Vec<(&'a Resource, Vec<String>)> {
    let all = &managed.family.snapshots;
    let candidates: Vec<Candidate<'_>> = all
        .iter()
        .map(|one| Candidate {
            time: Time::from_unix(one.created.map_or(i64::MAX, jiff::Timestamp::as_second)),
            tags: &one.tags,
        })
        .collect();
    let reasons = policy.decide(&candidates);
    let both = all.iter().zip(reasons);
    both.map(|(one, mut reasons)| {
        if !one.is_complete() {
            reasons.push("not complete".to_owned());
        }
        if managed.family.copy_under_way(one).is_some() {
            reasons.push("being copied".to_owned());
        } else if managed.in_use(one).is_err() {
            reasons.push("in use".to_owned());
        }
        (one, reasons)
    })
    .collect()
}
