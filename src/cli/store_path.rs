//! `STORE::DISK@SNAPSHOT`: a point in time wherever a command reads an image.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::snapshot::{Access, Disk, PointImage};

/// The environment variable that names the store.
pub(super) const STORE_VARIABLE: &str = "VHDKIT_STORE";

/// What such a path names.
pub(super) struct PointPath<'a> {
    /// Empty for the store of the environment.
    pub(super) store: &'a str,
    pub(super) disk: &'a str,
    /// `None` for the newest.
    pub(super) snapshot: Option<&'a str>,
}

impl<'a> PointPath<'a> {
    /// `None` if it is the path of a file. A file of exactly that name comes first.
    pub(super) fn parse(path: &'a Path) -> Option<Self> {
        let (store, point) = path.to_str()?.rsplit_once("::")?;
        if point.contains('/') || fs::symlink_metadata(path).is_ok() {
            return None;
        }
        let (disk, snapshot) = match point.split_once('@') {
            Some((disk, snapshot)) => (disk, Some(snapshot)),
            None => (point, None),
        };
        Some(Self {
            store,
            disk,
            snapshot,
        })
    }
}

/// Whether `path` names a point in time.
pub(super) fn is_point(path: &Path) -> bool {
    PointPath::parse(path).is_some()
}

/// An error if `path` names a point in time, where a file is to be changed.
pub(super) fn refuse_point(path: &Path) -> Result<()> {
    if !is_point(path) {
        return Ok(());
    }
    Err(Error::usage("a point in time can't be changed")
        .path(path)
        .hint("make a new image of it with -o, or restore it first with vhd snapshot restore"))
}

/// Opens the point in time that `path` names; `None` if it is the path of a file.
pub(super) fn open(path: &Path) -> Result<Option<PointImage>> {
    let Some(point) = PointPath::parse(path) else {
        return Ok(None);
    };
    let store = if point.store.is_empty() {
        from_environment()?
    } else {
        PathBuf::from(point.store)
    };
    let disk = Disk::open(&store, point.disk, Access::Read)?;
    let found = match point.snapshot {
        Some(name) => disk.find(name)?,
        None => disk.newest().ok_or_else(|| {
            Error::usage("there is no snapshot of this disk yet").path(disk.folder())
        })?,
    };
    disk.image(found).map(Some)
}

fn from_environment() -> Result<PathBuf> {
    let store = std::env::var_os(STORE_VARIABLE).filter(|store| !store.is_empty());
    store.map(PathBuf::from).ok_or_else(|| {
        Error::usage("no store is named").expected(format_args!(
            "STORE::DISK@SNAPSHOT, or a store in {STORE_VARIABLE}"
        ))
    })
}
