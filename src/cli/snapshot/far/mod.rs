//! The commands on a store that isn't a folder: a container of page blobs.
//!
//! Each command first checks for such a store ([`store`]), and delegates to the command with the same name here if it has one.

mod copy;
mod create;
mod diff;
mod list;
mod remove;
mod restore;
mod tag;
mod verify;

pub(super) use copy::copy;
pub(super) use create::{New, create};
pub(super) use diff::{Wish, diff};
pub(super) use list::{list, show};
pub(super) use remove::{Delete, delete, prune};
pub(super) use restore::{Restore, restore};
pub(super) use tag::tag;
pub(super) use verify::{Look, verify};

use std::path::Path;

use super::stores::refuse_address;
use crate::blob::BlobName;
use crate::cli::context::Context;
use crate::cli::far;
use crate::cli::size::Count;
use crate::error::{Error, Result};
use crate::snapshot::{Container, FarDisk, FarPoint, FarStore, Time};

/// The store, unless it is a folder.
pub(super) fn store(store: &Path, context: &Context) -> Result<Option<Box<dyn FarStore>>> {
    if !far::is_address(store) {
        return Ok(None);
    }
    let name = BlobName::parse(store.to_str().unwrap_or_default())?;
    let connector = far::connector()?;
    context.tell_access(name.shown())?;
    Ok(Some(Box::new(Container::open(connector, &name)?)))
}

/// Returns the error for a command or an option that only works with a folder.
pub(super) fn refuse(store: &Path, what: &str, hint: &str) -> Result<()> {
    if !far::is_address(store) {
        return Ok(());
    }
    Err(
        Error::usage("with a container of page blobs, this isn't possible")
            .with_path(store)
            .with_found(what)
            .with_hint(hint.to_owned()),
    )
}

/// The named disks, or all.
fn chosen(store: &dyn FarStore, names: &[String]) -> Result<Vec<FarDisk>> {
    if !names.is_empty() {
        let mut names = names.to_vec();
        names.sort_unstable();
        names.dedup();
        return names.iter().map(|name| store.disk(name)).collect();
    }
    let disks = store.disks(None)?;
    if disks.is_empty() {
        return Err(
            Error::usage("there is nothing here: no blob with snapshots")
                .with_path(store.shown())
                .with_hint("check the name of the container and the prefix; vhd snapshot copy brings a store here"),
        );
    }
    Ok(disks)
}

/// The disk given by name or by `DISK@SNAPSHOT`, else the only one; and the names of the snapshots in it.
fn meant<'a>(
    store: &dyn FarStore,
    disk: Option<&str>,
    snapshots: impl IntoIterator<Item = &'a String>,
) -> Result<(FarDisk, Vec<&'a str>)> {
    let mut meant = disk.map(str::to_owned);
    let mut found = Vec::new();
    for snapshot in snapshots {
        refuse_address(snapshot)?;
        let Some((disk, name)) = snapshot.split_once('@') else {
            found.push(snapshot.as_str());
            continue;
        };
        if meant.get_or_insert_with(|| disk.to_owned()) != disk {
            return Err(Error::usage("these are snapshots of two disks")
                .with_found(format_args!("{} and {disk}", meant.unwrap_or_default()))
                .with_expected("one disk, named with --disk or before an @"));
        }
        found.push(name);
    }
    if let Some(name) = meant {
        return Ok((store.disk(&name)?, found));
    }
    let mut disks = chosen(store, &[])?;
    match (disks.pop(), disks.len()) {
        (Some(only), 0) => Ok((only, found)),
        (last, others) => Err(
            Error::usage("the store has several disks, and none is specified")
                .with_path(store.shown())
                .with_found(Count(others as u64 + 1, "disk"))
                .with_expected("--disk NAME, or DISK@SNAPSHOT")
                .with_hint(format!(
                    "specify one of them: --disk {}",
                    last.map_or_else(String::new, |disk| disk.name)
                )),
        ),
    }
}

/// The snapshot with this name, else the newest at that time, else the newest.
fn choose<'a>(
    store: &dyn FarStore,
    disk: &'a FarDisk,
    name: Option<&str>,
    at: Option<Time>,
) -> Result<&'a FarPoint> {
    let found = match (name, at) {
        (Some(name), _) => disk.point(name),
        (None, Some(at)) => {
            let mut points = disk.points.iter().rev();
            points.find(|point| point.time.is_some_and(|time| time <= at))
        }
        (None, None) => disk.points.last(),
    };
    found.ok_or_else(|| {
        let wanted = match (name, at) {
            (Some(name), _) => format!("\"{name}\""),
            (None, Some(at)) => format!("one at {at} or before"),
            (None, None) => "none at all".to_owned(),
        };
        let newest = disk.points.last().map_or("none", |newest| &newest.name);
        Error::usage("there is no such snapshot")
            .with_path(store.shown())
            .with_found(wanted)
            .with_expected(format_args!(
                "one of {}, of which {newest} is the newest",
                disk.name
            ))
            .with_hint("vhd snapshot list shows what there is")
    })
}
