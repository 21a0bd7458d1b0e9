//! Deletes snapshots of a managed disk.

use serde::Serialize;

use super::super::delete::Args;
use super::super::{Context, Outcome, Output, Result};
use super::Managed;
use crate::cloud::Resource;
use crate::error::Error;

#[derive(Serialize)]
struct View {
    dry_run: bool,
    deleted: Vec<String>,
}

pub(in super::super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let managed = Managed::open(&args.disk.store.store, context)?;
    let mut found: Vec<&Resource> = Vec::new();
    for name in &args.snapshots {
        let one = managed.find(Some(name))?;
        if !found.iter().any(|known| known.id == one.id) {
            found.push(one);
        }
    }
    for one in &found {
        check(&managed, one, &found, args.last)?;
    }
    let mut deleted = Vec::new();
    for one in found {
        if !args.dry_run {
            managed.cloud.delete(one)?;
        }
        let word = if args.dry_run {
            "would be deleted"
        } else {
            "deleted"
        };
        context.note(format_args!("{}@{}: {word}", managed.name, one.name));
        deleted.push(one.name.clone());
    }
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            dry_run: args.dry_run,
            deleted,
        })?;
        output.finish()?;
    }
    Ok(Outcome::Done)
}

/// Fails if a snapshot is needed: the newest, relative to which the next changes are listed, or one that is in use.
fn check(managed: &Managed, one: &Resource, all: &[&Resource], last: bool) -> Result<()> {
    let newest = managed.family.snapshots.last();
    let left = managed
        .family
        .snapshots
        .iter()
        .any(|other| !all.iter().any(|gone| gone.id == other.id));
    if newest.is_some_and(|newest| newest.id == one.id) && !last {
        let error =
            Error::usage("this is the newest snapshot, which the next copy lists its changes from")
                .with_path(&one.id);
        return Err(error.with_hint(if left {
            "take a newer one first, and copy it; or delete it all the same with --last: the next copy reads the whole disk"
        } else {
            "delete it all the same with --last: the next copy reads the whole disk"
        }));
    }
    managed.in_use(one)
}
