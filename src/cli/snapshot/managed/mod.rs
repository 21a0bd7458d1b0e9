//! `vhd snapshot` with a managed disk as the store: its snapshots in the cloud are the points in time.

use std::path::Path;
use std::sync::Arc;

use super::{Context, Count};
use crate::blob::{BlobFile, Since};
use crate::cli::cloud;
use crate::cloud::{Access, Cloud, Family, Resource};
use crate::error::{Error, ErrorKind, Result, quoted};
use crate::files::ChangedRanges;
use crate::storage::ReadAt as _;
use crate::text::shown;

pub(super) mod copies;
pub(crate) mod copy;
pub(crate) mod create;
pub(super) mod delete;
pub(super) mod diff;
pub(crate) mod follow;
pub(super) mod list;
pub(crate) mod prune;
pub(super) mod restore;
pub(super) mod show;

/// Returns whether a store is a managed disk.
pub(super) fn is_wanted(store: &Path) -> bool {
    cloud::is_name(store)
}

/// A managed disk and its snapshots.
pub(crate) struct Managed {
    pub(crate) cloud: Arc<Cloud>,
    pub(crate) family: Family,
    /// The name of the disk.
    pub(crate) name: String,
    /// The store as given on the command line.
    pub(crate) store: std::path::PathBuf,
}

impl Managed {
    /// Finds the disk called `store`, and its snapshots.
    pub(crate) fn open(store: &Path, context: &Context) -> Result<Self> {
        let (cloud, name) = (cloud::cloud()?, cloud::name(store)?);
        let family = cloud.family(&name)?;
        if family.others > 0 {
            context.note(format_args!(
                "{}: {} of other disks that had this name before are left out",
                shown(&store),
                Count(family.others as u64, "snapshot")
            ));
        }
        if family.disk.is_none() {
            context.note(format_args!(
                "{}: the disk itself isn't there any more",
                shown(&store)
            ));
        }
        Ok(Self {
            cloud,
            family,
            name: name.name().to_owned(),
            store: store.to_path_buf(),
        })
    }

    /// The name of a snapshot, which may be preceded by the disk and an @.
    pub(crate) fn meant<'a>(&self, snapshot: &'a str) -> Result<&'a str> {
        match snapshot.split_once('@') {
            Some((disk, name)) if disk.eq_ignore_ascii_case(&self.name) => Ok(name),
            Some((disk, _)) => Err(Error::usage(
                "the store is one managed disk, which has another name",
            )
            .with_path(&self.store)
            .with_found(disk)
            .with_expected(&self.name)),
            None => Ok(snapshot),
        }
    }

    /// The snapshot called `snapshot`, or the newest.
    pub(crate) fn find(&self, snapshot: Option<&str>) -> Result<&Resource> {
        let advice = || {
            format!(
                "vhd snapshot list --store {} lists them",
                quoted(&self.store)
            )
        };
        let Some(snapshot) = snapshot else {
            return self.family.snapshots.last().ok_or_else(|| {
                Error::usage("the disk has no incremental snapshot yet")
                    .with_path(&self.store)
                    .with_hint(format!(
                        "take one: vhd snapshot create --store {}",
                        quoted(&self.store)
                    ))
            });
        };
        let name = self.meant(snapshot)?;
        self.family.find(name).ok_or_else(|| {
            Error::usage("the disk has no such snapshot")
                .with_path(&self.store)
                .with_found(name)
                .with_hint(advice())
        })
    }

    /// Fails if a snapshot is in use: somebody reads it, or the service is copying it.
    pub(crate) fn in_use(&self, one: &Resource) -> Result<()> {
        if one.is_granted() {
            return Err(Error::new(ErrorKind::Locked, "the snapshot is being read: access to it is granted")
                .with_path(&one.id)
                .with_hint("wait until that is taken back; if nobody needs it any more, take it back in the portal, or with az"));
        }
        if let Some(copy) = self.family.copy_under_way(one) {
            let percent = copy.percent.unwrap_or(0.0);
            return Err(Error::new(
                ErrorKind::Locked,
                "the service is copying the snapshot, which is needed until that is complete",
            )
            .with_path(&one.id)
            .with_found(format_args!("{percent:.0} % of {}", copy.id))
            .with_expected("100 %")
            .with_hint("run the command again later"));
        }
        Ok(())
    }

    /// Requests access to a snapshot.
    pub(crate) fn read(&self, snapshot: &Resource) -> Result<BlobFile> {
        self.cloud
            .open(snapshot, Access::Read, Path::new(&snapshot.id))
    }
}

/// Bytes of the disk that the service lists as changed between two snapshots to which access is granted.
fn changed(before: &BlobFile, after: &BlobFile, size: u64) -> Result<u64> {
    let name = before.granted().cloned().ok_or_else(|| {
        Error::internal("a managed disk that is open was granted").with_path(before.name())
    })?;
    let pages = after.changes_since(&Since::Disk(Box::new(name)))?;
    let list = ChangedRanges::of_ranges(pages.iter().map(|change| change.range).collect());
    // The bytes after the disk are its footer.
    let within =
        |range: &crate::page::PageRange| range.end().min(size).saturating_sub(range.start());
    Ok(list
        .ranges()
        .iter()
        .map(within)
        .fold(0, u64::saturating_add))
}

/// The state of a snapshot, for display.
fn state(snapshot: &Resource) -> String {
    match snapshot.percent.filter(|percent| *percent < 100.0) {
        Some(percent) => format!("copying {percent:.0} %"),
        None => "complete".to_owned(),
    }
}

/// The kind of a snapshot.
fn kind(snapshot: &Resource) -> &'static str {
    if snapshot.incremental {
        "incremental"
    } else {
        "regular"
    }
}

fn time(snapshot: &Resource) -> String {
    let time = snapshot
        .created
        .map(|time| crate::snapshot::Time::from_unix(time.as_second()));
    time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}
