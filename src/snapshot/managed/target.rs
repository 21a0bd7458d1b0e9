//! Where points in time are brought to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::diff::DiffFile;
use crate::error::{Error, ErrorKind, Result};
use crate::files::Opened;
use crate::image::ContentDigest;
use crate::snapshot::marker::expect_store;
use crate::snapshot::partial::incomplete;
use crate::snapshot::{
    Access, Disk, Family, Manifest, NewPoint, STORE_VERSION, Time, Work, create, disks,
    init_if_none, store_version,
};
use crate::storage::{Audience, File};

/// The tag of a point in time with the unique id of the snapshot that it was brought from.
pub const SNAPSHOT_ID: &str = "azure-snapshot-id";

/// A point in time that a target holds.
#[derive(Debug, Clone)]
pub struct HeldPoint {
    /// Its name.
    pub name: String,
    /// What tells it from others of the same name.
    pub id: String,
    /// The time of its content.
    pub time: Time,
    /// The disk that it is of.
    pub family: Family,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Size of the disk in bytes.
    pub size: u64,
}

impl HeldPoint {
    /// The id of the snapshot that it was brought from.
    pub fn snapshot_id(&self) -> Option<&str> {
        self.tags.get(SNAPSHOT_ID).map(String::as_str)
    }
}

/// A point that was added to a target.
#[derive(Debug, Clone)]
pub struct AddedPoint {
    /// Its name.
    pub name: String,
    /// Its content digest, if it was computed.
    pub content_digest: Option<ContentDigest>,
    /// Bytes that were updated since the point before; all data of the first one.
    pub updated: u64,
    /// Bytes that were cleared since.
    pub cleared: u64,
    /// Bytes that the target takes for it.
    pub stored: u64,
}

/// A store of points in time of one disk, to which points are added.
pub trait PointTarget {
    /// Its name in messages.
    fn shown(&self) -> PathBuf;

    /// The points that it holds, oldest first.
    fn points(&self) -> Result<Vec<HeldPoint>>;

    /// Fails if no point could be added now: the target can't be written, another command is writing it, or something
    /// unfinished is in the way.
    fn check_ready(&self) -> Result<()>;

    /// Adds a point after the newest one, which must still be the one with the id `after` (`None`: there is none). It is
    /// there completely and was read back, or not at all.
    fn add(
        &mut self,
        after: Option<&str>,
        image: &dyn Opened,
        new: &NewPoint,
        work: Work<'_>,
    ) -> Result<AddedPoint>;
}

/// One disk of a store in a folder.
#[derive(Debug, Clone)]
pub struct FolderTarget {
    store: PathBuf,
    disk: String,
    init: bool,
}

impl FolderTarget {
    /// Refers to the disk called `disk` of the store in `store`. The disk needn't be there yet; nor the store, if `init` allows to
    /// make it.
    pub fn new(store: &Path, disk: &str, init: bool) -> Self {
        Self {
            store: store.to_path_buf(),
            disk: disk.to_owned(),
            init,
        }
    }

    /// Opens the disk to add points, and makes it and the store where that is allowed.
    fn open(&self) -> Result<Disk> {
        let audience = Audience::nobody_else();
        if self.init {
            init_if_none(&self.store, STORE_VERSION, &audience)?;
        }
        Disk::open_for(&self.store, &self.disk, Access::Create, &audience)
    }

    /// Returns whether the store has the disk.
    fn is_there(&self) -> Result<bool> {
        if store_version(&self.store)?.is_none() {
            if self.init {
                return Ok(false);
            }
            expect_store(&self.store, Some(&self.disk))?;
        }
        Ok(disks(&self.store)?.contains(&self.disk))
    }
}

fn held(point: &Manifest) -> HeldPoint {
    HeldPoint {
        name: point.name.clone(),
        id: point.id.clone(),
        time: point.time,
        family: point.family.clone(),
        tags: point.tags.clone(),
        size: point.virtual_size,
    }
}

impl PointTarget for FolderTarget {
    fn shown(&self) -> PathBuf {
        self.store.join(&self.disk)
    }

    fn points(&self) -> Result<Vec<HeldPoint>> {
        if !self.is_there()? {
            return Ok(Vec::new());
        }
        let mut disk = Disk::look(&self.store, &self.disk)?;
        if let Some(error) = disk.take_damaged().pop() {
            return Err(error);
        }
        Ok(disk.points().iter().map(held).collect())
    }

    fn check_ready(&self) -> Result<()> {
        let disk = self.open()?;
        let unfinished = disk.copying().map(|part| incomplete(&disk, part));
        disk.discard_if_empty();
        unfinished.map_or(Ok(()), Err)
    }

    fn add(
        &mut self,
        after: Option<&str>,
        image: &dyn Opened,
        new: &NewPoint,
        work: Work<'_>,
    ) -> Result<AddedPoint> {
        let mut disk = self.open()?;
        if disk.newest().map(|newest| newest.id.as_str()) != after {
            return Err(Error::new(
                ErrorKind::Changed,
                "another command added or deleted a snapshot meanwhile",
            )
            .with_path(disk.folder())
            .with_hint("run the command again, which goes on from what is there now"));
        }
        let made = create(&mut disk, image, new, work).and_then(|made| {
            read_back(&disk, &made.manifest, work)?;
            Ok(made)
        });
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                disk.discard_if_empty();
                return Err(error);
            }
        };
        Ok(AddedPoint {
            name: made.manifest.name.clone(),
            content_digest: Some(made.manifest.content_digest),
            updated: made.updated,
            cleared: made.cleared,
            stored: made.manifest.used_size,
        })
    }
}

/// Reads the stored file of a point back, and compares it with what was written. An image has no digest of its own file: it is
/// verified as every other one.
fn read_back(disk: &Disk, point: &Manifest, work: Work<'_>) -> Result<()> {
    let Some(identity) = point.data.identity else {
        return Ok(());
    };
    work.progress.begin("verifying", point.data.length);
    let file = File::open(disk.data_path(point)?)?;
    let diff = DiffFile::open_unpacking(file, work.workers, work.progress)?;
    let found = ContentDigest(*diff.digest());
    if found == identity && diff.trailer().target_digest == Some(point.content_digest) {
        return Ok(());
    }
    Err(Error::damaged("what was read back is not what was written")
        .with_path(diff_name(disk, point))
        .with_field("digest")
        .with_found(found)
        .with_expected(identity)
        .with_hint("check the storage of the store and the memory of this machine; delete that snapshot, and run the command again"))
}

fn diff_name(disk: &Disk, point: &Manifest) -> PathBuf {
    disk.folder().join(&point.data.file)
}
