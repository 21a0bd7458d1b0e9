//! A container of page blobs as a store: one blob for each disk, a snapshot of it for each point in time.
//!
//! ```text
//!   https://…/CONTAINER/PREFIX/web.vhd                   the disk web as a fixed VHD, as it was at its newest point in time
//!                             ?snapshot=2026-11-28T…     a point in time: vhdkit_name, vhdkit_time, vhdkit_digest, …
//! ```
//!
//! A blob with snapshots by other programs is a disk, too.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::{Added, FarDisk, FarPoint, FarStore, NewFarPoint, Work};
use crate::blob::{BlobKind, BlobName, BlobsAsked, Connector, Listed, PageStore as _, Since};
use crate::diff::BaseCheck;
use crate::error::{Error, Result};
use crate::files::{
    ApplyOptions, BlobImage, BlobPoint, NewBlobPoint, Opened, ParentOptions, begin_blob,
    changed_tags, grow_blob, remove_blob_points, set_blob_tags, settle_blob, unfinished,
};
use crate::page::PageRange;

/// Suffix of the names of blobs.
const SUFFIX: &str = ".vhd";

/// The maximum number of pages of a container's list.
const LONGEST: usize = 10_000;

/// A container of page blobs.
#[derive(Debug)]
pub struct Container {
    connector: Arc<Connector>,
    /// The container, with the prefix as the name of a blob.
    name: BlobName,
    /// The prefix: empty, or ending in a slash.
    prefix: String,
}

impl Container {
    /// The container, or the part of one, that `address` names.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::ErrorKind::Usage) for a snapshot, or a managed disk.
    pub fn open(connector: Arc<Connector>, address: &BlobName) -> Result<Self> {
        let name = connector.recalled(address);
        if name.snapshot().is_some() || name.is_managed_disk() {
            return Err(Error::usage("this is one disk, not a container of them")
                .with_path(name.shown())
                .with_hint("name the container, or a prefix in it"));
        }
        let prefix = match name.blob().trim_end_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        Ok(Self {
            connector,
            name,
            prefix,
        })
    }

    /// Opens the point in time called `name` of the disk called `disk`; the newest if no name is given.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::ErrorKind::Usage) if there is no such disk or point in time,
    /// [`Pending`](crate::ErrorKind::Pending) if it isn't complete.
    pub fn open_point(&self, disk: &str, name: Option<&str>) -> Result<BlobImage> {
        let disk = self.disk(disk)?;
        let point = match name {
            Some(name) => disk.point(name),
            None => disk.points.last(),
        };
        let newest = disk.points.last().map_or("none", |newest| &newest.name);
        let point = point.ok_or_else(|| {
            Error::usage("there is no such snapshot")
                .with_path(self.shown())
                .with_found(match name {
                    Some(name) => format!("\"{name}\""),
                    None => "none at all".to_owned(),
                })
                .with_expected(format_args!(
                    "one of {}, of which {newest} is the newest",
                    disk.name
                ))
                .with_hint("list the store to see what there is")
        })?;
        self.opened(&disk, point)
    }

    fn opened(&self, disk: &FarDisk, point: &FarPoint) -> Result<BlobImage> {
        let name = self.address(&disk.key, Some(&point.key));
        BlobImage::open(self.connector.open(&name)?, None, None)
    }

    /// The address of a disk, or of a point in time of it.
    fn address(&self, blob: &str, snapshot: Option<&str>) -> BlobName {
        self.name.sibling(blob, snapshot)
    }

    fn list(&self, prefix: &str) -> Result<BTreeMap<String, Vec<Listed>>> {
        let store = self.connector.container(&self.name)?;
        let mut asked = BlobsAsked {
            prefix: prefix.to_owned(),
            snapshots: true,
            ..BlobsAsked::default()
        };
        let mut all: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
        for _ in 0..LONGEST {
            let blobs = self.connector.ask(|| store.blobs(&asked))?;
            for listed in blobs.list {
                all.entry(listed.id.name.clone()).or_default().push(listed);
            }
            match blobs.marker {
                Some(marker) if asked.marker.as_ref() != Some(&marker) => {
                    asked.marker = Some(marker);
                }
                _ => return Ok(all),
            }
        }
        Err(
            Error::unsupported("the container has too many blobs to list")
                .with_path(self.shown())
                .with_hint("name a part of it, with a prefix after the container"),
        )
    }

    /// The disk in a blob and its snapshots; `None` if it isn't a disk.
    fn as_disk(
        &self,
        blob: String,
        taken: &HashSet<String>,
        mut all: Vec<Listed>,
    ) -> Option<FarDisk> {
        if all
            .iter()
            .any(|listed| listed.properties.kind != BlobKind::Page)
        {
            return None;
        }
        let name = blob.strip_prefix(&self.prefix)?;
        // Of a blob that has the ending and one that doesn't, the latter has the shorter name.
        let short = name.strip_suffix(SUFFIX).filter(|short| !short.is_empty());
        let short = short.filter(|short| !taken.contains(&format!("{}{short}", self.prefix)));
        let name = short.unwrap_or(name).to_owned();
        // The order of a list isn't guaranteed; the text of times sorts chronologically.
        all.sort_by(|a, b| a.id.cmp(&b.id));
        let live = all.iter().find(|listed| listed.id.snapshot.is_none());
        let mut points: Vec<FarPoint> = all.iter().filter_map(BlobPoint::of).map(point).collect();
        let mut tags = live.map_or_else(BTreeMap::new, changed_tags);
        for point in &mut points {
            if let Some(changed) = tags.remove(&point.key) {
                point.note.tags = changed;
            }
        }
        let unfinished = live.and_then(unfinished);
        // A blob without snapshots has no points in time.
        (!points.is_empty() || unfinished.is_some()).then_some(FarDisk {
            name,
            points,
            unfinished,
            key: blob,
        })
    }
}

fn point(found: BlobPoint) -> FarPoint {
    let BlobPoint {
        note,
        snapshot,
        blob_size,
        is_torn,
    } = found;
    let time = note.time.as_ref().and_then(|time| time.parse().ok());
    FarPoint {
        name: note.name.clone().unwrap_or_else(|| snapshot.clone()),
        time: time.or_else(|| snapshot.parse().ok()),
        key: snapshot,
        size: blob_size,
        note,
        is_complete: !is_torn,
    }
}

impl FarStore for Container {
    fn shown(&self) -> &Path {
        self.name.shown()
    }

    fn disks(&self, only: Option<&str>) -> Result<Vec<FarDisk>> {
        let prefix = format!("{}{}", self.prefix, only.unwrap_or_default());
        let all = self.list(&prefix)?;
        let names: HashSet<String> = all.keys().cloned().collect();
        let disks = all
            .into_iter()
            .filter_map(|(blob, all)| self.as_disk(blob, &names, all));
        Ok(disks
            .filter(|disk| only.is_none_or(|only| disk.name == only))
            .collect())
    }

    fn image(&self, disk: &FarDisk, point: &FarPoint) -> Result<Box<dyn Opened>> {
        Ok(Box::new(self.opened(disk, point)?))
    }

    fn changes(&self, disk: &FarDisk, from: &FarPoint, to: &FarPoint) -> Result<Vec<PageRange>> {
        let blob = self
            .connector
            .open(&self.address(&disk.key, Some(&to.key)))?;
        let list = blob.changes_since(&Since::Snapshot(from.key.clone()))?;
        Ok(list.iter().map(|change| change.range).collect())
    }

    fn add(&self, disk: &str, new: NewFarPoint<'_>, work: Work<'_>) -> Result<Added> {
        let there = self.disks(Some(disk))?.pop();
        let blob = there.map_or_else(|| format!("{}{disk}{SUFFIX}", self.prefix), |disk| disk.key);
        let name = self.address(&blob, None);
        let wanted = NewBlobPoint {
            image: new.image,
            note: new.note,
            work,
        };
        let grown = match new.since {
            None => begin_blob(&self.connector, &name, wanted)?,
            Some(since) => grow_blob(&self.connector, &name, &since.key, new.changed, wanted)?,
        };
        Ok(Added {
            point: point(BlobPoint {
                note: new.note.clone(),
                snapshot: grown.snapshot,
                blob_size: new.image.virtual_size(),
                is_torn: false,
            }),
            updated: grown.updated,
            cleared: grown.cleared,
            resumed: grown.resumed,
        })
    }

    fn settle(&self, disk: &FarDisk) -> Result<()> {
        if disk.unfinished.is_some() {
            settle_blob(&self.connector, &self.address(&disk.key, None))?;
        }
        Ok(())
    }

    fn set_tags(
        &self,
        disk: &FarDisk,
        point: &FarPoint,
        tags: &BTreeMap<String, String>,
    ) -> Result<()> {
        self.settle(disk)?;
        let name = self.address(&disk.key, None);
        set_blob_tags(&self.connector, &name, &point.key, tags)
    }

    fn delete(&self, disk: &FarDisk, points: &[&FarPoint], work: Work<'_>) -> Result<()> {
        self.settle(disk)?;
        let parents = ParentOptions::default();
        let options = ApplyOptions {
            check: BaseCheck::Trusted,
            parents: &parents,
            work,
            verify: true,
        };
        let times: Vec<&str> = points.iter().map(|point| point.key.as_str()).collect();
        let name = self.address(&disk.key, None);
        remove_blob_points(&self.connector, &name, &times, options)
    }
}
