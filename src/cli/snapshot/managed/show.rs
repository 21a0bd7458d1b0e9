//! Shows everything that is known about a snapshot of a managed disk.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::show::Args;
use super::super::{Context, Outcome, Output, Result, Size};
use super::{Managed, kind, state, time};

#[derive(Serialize)]
struct View<'a> {
    name: &'a str,
    id: &'a str,
    unique_id: Option<&'a str>,
    time: String,
    kind: &'static str,
    completion_percent: Option<f64>,
    virtual_size: Option<u64>,
    location: &'a str,
    sku: Option<&'a str>,
    disk_state: Option<&'a str>,
    source_resource_id: Option<&'a str>,
    source_unique_id: Option<&'a str>,
    tags: &'a BTreeMap<String, String>,
}

pub(in super::super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let managed = Managed::open(&args.disk.store.store, context)?;
    let found = managed.find(args.snapshot.as_deref())?;
    let mut output = Output::text()?;
    if args.json {
        output.json(&View {
            name: &found.name,
            id: &found.id,
            unique_id: found.unique_id.as_deref(),
            time: time(found),
            kind: kind(found),
            completion_percent: found.percent,
            virtual_size: found.size,
            location: &found.location,
            sku: found.sku.as_deref(),
            disk_state: found.state.as_deref(),
            source_resource_id: found.source_id.as_deref(),
            source_unique_id: found.source_unique_id.as_deref(),
            tags: &found.tags,
        })?;
        output.finish()?;
        return Ok(Outcome::Done);
    }
    let unknown = || "unknown".to_owned();
    let mut line = |name: &str, value: &str| output.line(format_args!("{name:<19} {value}"));
    line("snapshot", &found.name)?;
    line("resource id", &found.id)?;
    line("unique id", found.unique_id.as_deref().unwrap_or("unknown"))?;
    line("time", &time(found))?;
    line("kind", kind(found))?;
    line("state", &state(found))?;
    line(
        "virtual size",
        &found
            .size
            .map_or_else(unknown, |size| Size(size).to_string()),
    )?;
    line("region", &found.location)?;
    line("storage", found.sku.as_deref().unwrap_or("unknown"))?;
    line(
        "access",
        if found.is_granted() {
            "granted"
        } else {
            "not granted"
        },
    )?;
    line(
        "source resource id",
        found.source_id.as_deref().unwrap_or("unknown"),
    )?;
    line(
        "source unique id",
        found.source_unique_id.as_deref().unwrap_or("unknown"),
    )?;
    for (key, value) in &found.tags {
        line("tag", &format!("{key}={value}"))?;
    }
    output.finish()?;
    Ok(Outcome::Done)
}
