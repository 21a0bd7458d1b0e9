//! Thins out a disk by rules: what isn't kept is deleted, each run of consecutive snapshots at once.

use super::delete::delete_run;
use super::disk::completion;
use super::{Candidate, Disk, Manifest, Policy, State, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::remedy::{Remedy, SnapshotJob, Step};

/// The decision of the rules about a snapshot.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The snapshot.
    pub point: Manifest,
    /// The reasons for keeping it; without any, it is deleted.
    pub reasons: Vec<String>,
}

impl Decision {
    /// Returns whether it is kept.
    pub fn is_kept(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// The outcome of a prune.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Number of deleted snapshots.
    pub deleted: usize,
    /// Used size before and after, in bytes.
    pub used: [u64; 2],
}

/// Decides about every snapshot of the disk, oldest first.
///
/// # Errors
///
/// [`Usage`](ErrorKind::Usage) without a rule; the error of an unreadable manifest, about whose snapshot no rule can
/// decide; [`Pending`](ErrorKind::Pending) while a snapshot isn't complete.
pub fn decide(disk: &mut Disk, policy: &Policy) -> Result<Vec<Decision>> {
    if !policy.has_rules() {
        let delete = Step::Snapshot {
            job: SnapshotJob::Delete {
                name: None,
                last: false,
            },
            of: None,
        };
        return Err(Error::usage("no rule says what to keep")
            .with_expected("at least one rule")
            .with_remedy(
                Remedy::default()
                    .step(delete, "a deletion")
                    .text(" deletes a snapshot by its name"),
            ));
    }
    if let Some(error) = disk.take_damaged().pop() {
        return Err(error);
    }
    let points = disk.points();
    if let Some(point) = points.iter().find(|p| p.state != State::Complete) {
        return Err(
            Error::new(ErrorKind::Pending, "a snapshot isn't complete yet")
                .with_path(disk.label(point))
                .with_field("state, completion_percent")
                .with_found(completion(point))
                .with_expected("complete, 100")
                .with_hint("prune when it is complete, or delete it first"),
        );
    }
    let candidates: Vec<Candidate<'_>> = points
        .iter()
        .map(|point| Candidate {
            time: point.time,
            tags: &point.tags,
        })
        .collect();
    let reasons = policy.decide(&candidates);
    let dependants = disk.dependants()?;
    // Of several with the same content, one is enough.
    let grounds = dependants.iter().filter_map(|dependant| {
        let mut points = points.iter().rev();
        let ground = points.find(|point| dependant.like.is(point))?;
        Some((ground.sequence, dependant.disk.as_str()))
    });
    let grounds: Vec<(u32, &str)> = grounds.collect();
    let decisions = points.iter().cloned().zip(reasons);
    Ok(decisions
        .map(|(point, mut reasons)| {
            if point.is_held() {
                reasons.push("held".to_owned());
            }
            let stands = grounds
                .iter()
                .filter(|(number, _)| *number == point.sequence);
            reasons.extend(stands.map(|(_, name)| format!("{name} begins as it")));
            Decision { point, reasons }
        })
        .collect())
}

/// Deletes what `decisions` don't keep, oldest first. Kept snapshots are rewritten at most once: a run of consecutive
/// snapshots is folded into the next one at once. An interrupted prune has deleted some of them; repeating it
/// continues.
pub fn prune(disk: &mut Disk, decisions: &[Decision], work: Work<'_>) -> Result<Pruned> {
    let before = used(disk);
    let mut deleted = 0;
    for run in runs(decisions) {
        work.progress.check()?;
        deleted += run.len();
        delete_run(disk, run, work)?;
    }
    Ok(Pruned {
        deleted,
        used: [before, used(disk)],
    })
}

/// Groups what is deleted into runs of snapshots that depend on each other.
fn runs(decisions: &[Decision]) -> Vec<Vec<Manifest>> {
    let mut runs: Vec<Vec<Manifest>> = Vec::new();
    let mut last_goes = false;
    for decision in decisions {
        let goes = !decision.is_kept();
        let point = &decision.point;
        match runs.last_mut().filter(|_| last_goes && !point.is_base()) {
            Some(run) if goes => run.push(point.clone()),
            _ if goes => runs.push(vec![point.clone()]),
            _ => {}
        }
        last_goes = goes;
    }
    runs
}

fn used(disk: &Disk) -> u64 {
    let sizes = disk.points().iter().map(|point| point.used_size);
    sizes.fold(0, u64::saturating_add)
}
