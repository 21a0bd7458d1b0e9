//! The blob snapshots of an image.

use super::marks::{Mark, NAME, digest_of};
use crate::blob::{BlobFile, Listed, Properties, Since};
use crate::error::Result;
use crate::image::ContentDigest;
use crate::storage::ReadAt as _;

/// A snapshot with the current content of its blob.
#[derive(Debug, Clone)]
pub(super) struct Current {
    pub(super) time: String,
    /// The digest of the virtual disk, if the snapshot names it.
    pub(super) digest: Option<ContentDigest>,
}

/// The newest snapshot of `blob`, if nothing was written since according to the service. `None` if that can't be determined.
pub(super) fn current(blob: &BlobFile) -> Option<Current> {
    let newest = blob.snapshots().ok()?.pop()?;
    let (time, properties) = (newest.id.snapshot.clone()?, &newest.properties);
    let usable = Mark::of(&properties.metadata).is_none() && is_as_long(blob, properties);
    if !usable {
        return None;
    }
    let since = Since::Snapshot(time.clone());
    blob.changes_since(&since)
        .ok()?
        .is_empty()
        .then(|| Current {
            digest: digest_of(&newest.id, properties),
            time,
        })
}

fn is_as_long(blob: &BlobFile, snapshot: &Properties) -> bool {
    blob.byte_len().is_ok_and(|len| len == snapshot.size)
}

/// The snapshot of `blob` that is called `name`.
pub(super) fn named(blob: &BlobFile, name: &str) -> Result<Option<Listed>> {
    let all = blob.snapshots().map_err(|error| {
        error.override_hint("to give a snapshot a name, the names of the others are looked at: allow listing the container")
    })?;
    Ok(all.into_iter().find(|listed| {
        listed
            .properties
            .metadata
            .get(NAME)
            .is_some_and(|n| n == name)
    }))
}
