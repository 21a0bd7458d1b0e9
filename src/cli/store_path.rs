//! `STORE::DISK@SNAPSHOT`: a point in time in place of an image.

use std::path::{Path, PathBuf};

use super::{cloud, far};
use crate::api::{Opener, PointName};
use crate::error::{Error, Result};
use crate::snapshot::PointImage;

/// The environment variable with the default store.
pub(super) const STORE_VARIABLE: &str = "VHDKIT_STORE";

/// Returns whether `path` is a point in time.
pub(super) fn is_point(path: &Path) -> bool {
    PointName::parse(path).is_some()
}

/// Returns whether `path` is a point in time in a container of page blobs.
pub(super) fn is_far_point(path: &Path) -> bool {
    let store = PointName::parse(path).map(|point| store_of(&point));
    matches!(store, Some(Ok(store)) if far::is_address(&store))
}

/// Fails if `path` is a point in time where a file is to be changed.
pub(super) fn refuse_point(path: &Path) -> Result<()> {
    if !is_point(path) {
        return Ok(());
    }
    Err(Error::usage("a point in time can't be changed")
        .with_path(path)
        .with_hint(
            "create a new image from it with -o, or restore it first with vhd snapshot restore",
        ))
}

/// An opener that knows the store of the environment.
pub(super) fn opener(path: &Path) -> Result<Opener> {
    let mut opener = Opener::new();
    if far::is_address(path) {
        opener = opener.connector(far::connector()?);
    }
    if cloud::is_name(path) {
        opener = opener.cloud(cloud::cloud()?);
    }
    match PointName::parse(path) {
        Some(point) if point.store.is_empty() => {
            let mut store = store_of(&point)?;
            if far::is_address(&store) {
                store = far::admit_store(&store)?;
                opener = opener.connector(far::connector()?);
            }
            Ok(opener.store(store))
        }
        _ => Ok(opener),
    }
}

/// The store of a point in time, or that of the environment if it has none.
pub(super) fn store_of(point: &PointName<'_>) -> Result<PathBuf> {
    if !point.store.is_empty() {
        return Ok(PathBuf::from(point.store));
    }
    let store = std::env::var_os(STORE_VARIABLE).filter(|store| !store.is_empty());
    store.map(PathBuf::from).ok_or_else(|| {
        Error::usage("no store is named").with_expected(format_args!(
            "STORE::DISK@SNAPSHOT, or a store in {STORE_VARIABLE}"
        ))
    })
}

/// Opens the point in time `path`. Returns `None` if it is the path of a file.
pub(super) fn open(path: &Path) -> Result<Option<PointImage>> {
    opener(path)?.point(path)
}
