//! Adding a snapshot.

use std::collections::BTreeMap;

use serde::Serialize;

use super::list::PointView;
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::message::{Topic, Warning};
use crate::cli::output::Output;
use crate::cli::rate::RateArgs;
use crate::cli::size::Size;
use crate::cli::snapshot::told::in_the_future;
use crate::error::{Error, Result, quoted};
use crate::files::{Claim, Opened, PointNote};
use crate::image::content_digest;
use crate::snapshot::{
    Family, FarPoint, FarStore, NewFarPoint, Time, Work, check_disk_name, check_name,
};
use crate::vhd::UniqueId;

/// The snapshot to add.
pub(in crate::cli::snapshot) struct New<'a> {
    pub(in crate::cli::snapshot) disk: &'a str,
    pub(in crate::cli::snapshot) name: &'a str,
    pub(in crate::cli::snapshot) time: Time,
    pub(in crate::cli::snapshot) family: &'a Family,
    pub(in crate::cli::snapshot) tags: &'a BTreeMap<String, String>,
    pub(in crate::cli::snapshot) claim: Option<&'a (Claim, u64)>,
    /// Whether the disk must already exist.
    pub(in crate::cli::snapshot) existing: bool,
    pub(in crate::cli::snapshot) json: bool,
    pub(in crate::cli::snapshot) rate: RateArgs,
}

#[derive(Serialize)]
struct View {
    disk: String,
    new_disk: bool,
    #[serde(flatten)]
    point: PointView,
    update_bytes: u64,
    clear_bytes: u64,
    warnings: Vec<Warning>,
}

/// Adds a snapshot of `image`.
pub(in crate::cli::snapshot) fn create(
    store: &dyn FarStore,
    new: &New<'_>,
    image: &dyn Opened,
    context: &Context,
) -> Result<Outcome> {
    check_name(new.name)?;
    check_disk_name(new.disk)?;
    let mut there = store.disks(Some(new.disk))?.pop();
    if let Some(disk) = there.as_ref().filter(|disk| disk.unfinished.is_some()) {
        store.settle(disk)?;
        there = store.disks(Some(new.disk))?.pop();
    }
    if new.existing && there.is_none() {
        return Err(Error::usage("there is no such disk in the store")
            .with_path(store.shown())
            .with_found(format_args!("\"{}\"", new.disk))
            .with_hint("check how the disk is spelled; without --existing, a new disk is begun"));
    }
    let points = there.map_or_else(Vec::new, |disk| disk.points);
    let newest = points.last();
    check_order(store, new, &points)?;
    let family = newest.map(|newest| Family {
        source_resource_id: newest.note.resource.clone(),
        source_unique_id: newest.note.unique.clone(),
    });
    let family = family.unwrap_or_default().join(new.family);
    let family = family.map_err(|error| error.with_path(store.shown()))?;
    let workers = context.workers_far()?;
    let progress = new.rate.limit(context.progress());
    // If only listed ranges are compared, the content of the whole remains unknown.
    let digest = match (new.claim, image.noted_digest()) {
        (_, Some(noted)) => Some(noted),
        (None, None) if newest.is_some() && image.as_blob().is_none() => {
            progress.begin("hashing", image.virtual_size());
            Some(content_digest(image, &workers, &*progress)?)
        }
        _ => None,
    };
    let note = PointNote {
        name: Some(new.name.to_owned()),
        time: Some(new.time.to_string()),
        id: Some(UniqueId::random().to_string()),
        disk_id: newest
            .and_then(|newest| newest.note.disk_id.clone())
            .or_else(|| Some(UniqueId::random().to_string())),
        source: image
            .path()
            .file_name()
            .map(|name| name.to_string_lossy().into_owned()),
        digest,
        resource: family.source_resource_id,
        unique: family.source_unique_id,
        tags: new.tags.clone(),
    };
    let changed = new.claim.map(|(claim, _)| claim.list.ranges());
    let work = Work {
        workers: &workers,
        progress: &*progress,
    };
    let wanted = NewFarPoint {
        image,
        note: &note,
        since: newest,
        changed,
    };
    let added = store.add(new.disk, wanted, work)?;
    drop(progress);
    let mut warnings = Vec::new();
    if new.time.is_ahead() {
        let at = (new.disk, new.name);
        let warning = in_the_future(at, new.time);
        let alone = if points.is_empty() { " --last" } else { "" };
        let hint = format!(
            "if that is not intended, delete it again: vhd snapshot delete --store {} --disk {}{alone} {}",
            quoted(store.shown()),
            quoted(new.disk),
            quoted(new.name)
        );
        let mut warning = Warning::new(Topic::TimeInFuture, warning);
        warning.hint = Some(hint);
        context.warn_of(&warning);
        warnings.push(warning);
    }
    if newest.is_none() {
        context.note(format_args!("{} is a new disk in this store", new.disk));
    }
    context.note(format_args!(
        "{}@{}: {} updated and {} cleared",
        new.disk,
        new.name,
        Size(added.updated),
        Size(added.cleared)
    ));
    if new.json {
        let mut output = Output::text()?;
        output.json(&View {
            disk: new.disk.to_owned(),
            new_disk: newest.is_none(),
            point: PointView::from(&added.point),
            update_bytes: added.updated,
            clear_bytes: added.cleared,
            warnings,
        })?;
        output.finish()?;
    }
    Ok(Outcome::Done)
}

/// Fails if a snapshot with this name and time can't be added.
fn check_order(store: &dyn FarStore, new: &New<'_>, points: &[FarPoint]) -> Result<()> {
    if points.iter().any(|point| point.is_called(new.name)) {
        return Err(Error::usage("a snapshot of this name already exists")
            .with_path(store.shown())
            .with_found(format_args!("{}@{}", new.disk, new.name))
            .with_hint("choose another name, or delete that one first"));
    }
    match points.last() {
        None if new.claim.is_some() => Err(Error::usage(
            "a list of changes needs a snapshot since which they were made",
        )
        .with_path(store.shown())
        .with_hint("make the first snapshot without --changes")),
        Some(newest) if newest.time.is_some_and(|time| new.time < time) => Err(Error::usage(
            "snapshots are added in the order of their times",
        )
        .with_path(store.shown())
        .with_field("time")
        .with_found(new.time)
        .with_expected(format_args!(
            "{} ({}) or later",
            newest.time_text(),
            newest.name
        ))
        .with_hint("give the right time with --time")),
        _ => Ok(()),
    }
}
