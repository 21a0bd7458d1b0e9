//! Takes a snapshot of a managed disk.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::super::create::Args;
use super::super::{Context, Outcome, Output, Result, Time, name_of};
use super::{Managed, state, time};
use crate::cloud::{NewSnapshot, Resource};
use crate::error::{Error, quoted};

#[derive(Serialize)]
struct View<'a> {
    name: &'a str,
    id: &'a str,
    unique_id: Option<&'a str>,
    time: String,
    incremental: bool,
    completion_percent: Option<f64>,
}

pub(in super::super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let managed = Managed::open(&args.store.store, context)?;
    let tags: BTreeMap<String, String> = args.tag.iter().cloned().collect();
    let new = Taken {
        name: args.name.as_deref(),
        incremental: !args.full,
        sku: args.sku.as_deref(),
        tags: &tags,
    };
    let made = take(&managed, &new)?;
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            name: &made.name,
            id: &made.id,
            unique_id: made.unique_id.as_deref(),
            time: time(&made),
            incremental: made.incremental,
            completion_percent: made.percent,
        })?;
        output.finish()?;
    }
    context.note(format_args!(
        "{}@{}: {}",
        managed.name,
        made.name,
        state(&made)
    ));
    Ok(Outcome::Done)
}

/// A snapshot to be taken.
pub(crate) struct Taken<'a> {
    /// Its name; `None` for the name of the disk with the time.
    pub(crate) name: Option<&'a str>,
    pub(crate) incremental: bool,
    pub(crate) sku: Option<&'a str>,
    pub(crate) tags: &'a BTreeMap<String, String>,
}

/// Takes a snapshot of the disk, in the resource group of the disk.
pub(crate) fn take(managed: &Managed, new: &Taken<'_>) -> Result<Resource> {
    let disk = managed.family.disk.as_ref().ok_or_else(|| {
        Error::usage("the disk isn't there any more, so no snapshot of it can be taken")
            .with_path(&managed.store)
            .with_hint(format!(
                "its snapshots are there: vhd snapshot list --store {}",
                quoted(&managed.store)
            ))
    })?;
    let now = name_of(Time::now());
    let short: String = managed.name.chars().take(60).collect();
    let name = new
        .name
        .map_or_else(|| format!("{short}-{now}"), str::to_owned);
    managed
        .cloud
        .create_snapshot(&NewSnapshot {
            group: &disk.group,
            name: &name,
            source: disk,
            region: None,
            incremental: new.incremental,
            sku: new.sku,
            tags: new.tags,
        })
        .map_err(|error| error.with_path(Path::new(&disk.id)))
}
