//! Changes tags.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{choose, meant};
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::output::Output;
use crate::cli::snapshot::locking::Patience;
use crate::error::Result;
use crate::snapshot::{FarPoint, FarStore};

#[derive(Serialize)]
struct View {
    disk: String,
    snapshots: Vec<PointView>,
}

#[derive(Serialize)]
struct PointView {
    name: String,
    id: Option<String>,
    tags: BTreeMap<String, String>,
}

/// Adds tags to snapshots, and removes tags from them.
pub(in crate::cli::snapshot) fn tag(
    store: &dyn FarStore,
    (disk, snapshots): (Option<&str>, &[String]),
    (set, remove): (&BTreeMap<String, String>, &[String]),
    (json, patience, context): (bool, &Patience<'_>, &Context),
) -> Result<Outcome> {
    let (disk, names) = meant(store, disk, snapshots)?;
    // If one name is wrong, the others aren't changed either.
    let points = names
        .iter()
        .map(|name| choose(store, &disk, Some(name), None))
        .collect::<Result<Vec<&FarPoint>>>()?;
    let mut views = Vec::new();
    for point in points {
        let mut tags = point.note.tags.clone();
        tags.retain(|key, _| !remove.contains(key));
        tags.extend(set.iter().map(|(key, value)| (key.clone(), value.clone())));
        if tags != point.note.tags {
            patience.wait_for(|| store.set_tags(&disk, point, &tags))?;
        }
        if !json {
            let all = tags.iter().map(|(key, value)| format!("{key}={value}"));
            let all = all.collect::<Vec<_>>().join(", ");
            let said = if all.is_empty() { "no tags" } else { &all };
            context.note(format_args!("{}@{}: {said}", disk.name, point.name));
        }
        views.push(PointView {
            name: point.name.clone(),
            id: point.note.id.clone(),
            tags,
        });
    }
    if json {
        let mut output = Output::text()?;
        output.json(&View {
            disk: disk.name.clone(),
            snapshots: views,
        })?;
        output.finish()?;
    }
    Ok(Outcome::Done)
}
