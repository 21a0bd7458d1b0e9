//! Lists the snapshots of a managed disk, oldest first.

use serde::Serialize;

use super::super::list::Args;
use super::super::{Context, Count, Outcome, Output, Result, Short};
use super::{Managed, changed, kind, state, time};
use crate::blob::BlobFile;
use crate::cloud::Resource;

#[derive(Serialize)]
struct Listing {
    disk: String,
    disk_id: String,
    unique_id: Option<String>,
    snapshots: Vec<View>,
}

#[derive(Serialize)]
struct View {
    name: String,
    id: String,
    unique_id: Option<String>,
    time: String,
    kind: &'static str,
    completion_percent: Option<f64>,
    virtual_size: Option<u64>,
    /// Bytes that the service lists as changed since the previous incremental snapshot; null if it doesn't, or wasn't asked.
    changed_bytes: Option<u64>,
    sku: Option<String>,
    access_granted: bool,
}

pub(in super::super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let managed = Managed::open(&args.store.store, context)?;
    let family = &managed.family;
    let mut changes = vec![None; family.snapshots.len()];
    if !args.no_changes {
        measure(&managed, &mut changes, context);
    }
    let mut all: Vec<(&Resource, Option<u64>)> = family.snapshots.iter().zip(changes).collect();
    all.extend(family.regular.iter().map(|one| (one, None)));
    all.sort_by_key(|(one, _)| one.created);
    let mut output = Output::text()?;
    if args.json {
        output.json(&Listing {
            disk: managed.name.clone(),
            disk_id: family.disk_id.clone(),
            unique_id: family.unique_id.clone(),
            snapshots: all.iter().map(|(one, bytes)| view(one, *bytes)).collect(),
        })?;
    } else {
        text(&all, &mut output)?;
    }
    output.finish()?;
    Ok(Outcome::Done)
}

/// Queries the changes from each snapshot to the next, for which access to two of them at a time is granted.
fn measure(managed: &Managed, changes: &mut [Option<u64>], context: &Context) {
    let mut before: Option<BlobFile> = None;
    let mut told = false;
    for (snapshot, bytes) in managed.family.snapshots.iter().zip(changes) {
        // With only one snapshot, access isn't needed.
        if managed.family.snapshots.len() < 2 {
            return;
        }
        if !snapshot.is_complete() {
            before = None;
            continue;
        }
        let this = managed.read(snapshot);
        let listed = match (&before, &this) {
            (Some(before), Ok(this)) => {
                changed(before, this, snapshot.size.unwrap_or(u64::MAX)).map(Some)
            }
            _ => Ok(None),
        };
        let error = match listed {
            Ok(listed) => {
                *bytes = listed;
                this.as_ref().err()
            }
            Err(ref error) => Some(error),
        };
        if let Some(error) = error.filter(|_| !told) {
            context.note(format_args!("what changed isn't known: {error}"));
            told = true;
        }
        before = this.ok();
    }
}

fn view(snapshot: &Resource, changed_bytes: Option<u64>) -> View {
    View {
        name: snapshot.name.clone(),
        id: snapshot.id.clone(),
        unique_id: snapshot.unique_id.clone(),
        time: time(snapshot),
        kind: kind(snapshot),
        completion_percent: snapshot.percent,
        virtual_size: snapshot.size,
        changed_bytes,
        sku: snapshot.sku.clone(),
        access_granted: snapshot.is_granted(),
    }
}

fn text(all: &[(&Resource, Option<u64>)], output: &mut Output) -> Result<()> {
    let name_width = all
        .iter()
        .map(|(one, _)| one.name.len())
        .fold(4, usize::max);
    let state_width = all
        .iter()
        .map(|(one, _)| state(one).len())
        .fold(8, usize::max);
    let mut row = |[name, time, kind, state, size, changed]: [&str; 6]| {
        output.line(format_args!(
            "{name:<name_width$}  {time:<20}  {kind:<11}  {state:<state_width$}  {size:>10}  {changed:>10}"
        ))
    };
    row(["NAME", "TIME", "KIND", "STATE", "SIZE", "CHANGED"])?;
    for (snapshot, changed) in all {
        let short = |bytes: Option<u64>| {
            bytes.map_or_else(|| "-".to_owned(), |bytes| Short(bytes).to_string())
        };
        row([
            &snapshot.name,
            &time(snapshot),
            kind(snapshot),
            &state(snapshot),
            &short(snapshot.size),
            &short(*changed),
        ])?;
    }
    output.line(Count(all.len() as u64, "snapshot"))
}
