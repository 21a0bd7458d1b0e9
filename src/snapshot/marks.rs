//! What is remembered of a snapshot and may change: its tags, and among them the hold that keeps it from being deleted.

use std::collections::BTreeMap;

use super::manifest::LONGEST;
use super::{Disk, Manifest};
use crate::error::{Error, Result};
use crate::storage::Overwrite;

/// The tag of a snapshot that is held: no rule prunes it, and it is deleted only by who says so. Its value is the reason.
pub const HOLD: &str = "hold";

impl Manifest {
    /// Whether it is held.
    pub fn is_held(&self) -> bool {
        self.tags.contains_key(HOLD)
    }
}

/// Gives the snapshot called `name` these tags and takes those called `remove` from it. Returns it as it is now; what it
/// has already isn't written.
///
/// # Errors
///
/// [`Usage`](crate::ErrorKind::Usage) if there is no such snapshot, or its manifest would be too long.
pub fn change_tags(
    disk: &mut Disk,
    name: &str,
    set: &BTreeMap<String, String>,
    remove: &[String],
) -> Result<Manifest> {
    disk.check_writable()?;
    let old = disk.find(name)?;
    let mut new = old.clone();
    new.tags.retain(|key, _| !remove.contains(key));
    let more = set.iter().map(|(key, value)| (key.clone(), value.clone()));
    new.tags.extend(more);
    if new == *old {
        return Ok(new);
    }
    let len = new.encode()?.len() as u64;
    if len > LONGEST {
        return Err(Error::usage("the tags are too long")
            .with_path(disk.label(&new))
            .with_found(format_args!("a manifest of {len} bytes"))
            .with_expected(format_args!("at most {LONGEST} bytes")));
    }
    disk.write_manifest(&new, Overwrite::Yes)?;
    disk.put(new.clone());
    Ok(new)
}

/// An error if the snapshot is held.
pub fn refuse_held(disk: &Disk, point: &Manifest) -> Result<()> {
    let Some(reason) = point.tags.get(HOLD) else {
        return Ok(());
    };
    let error = Error::usage("this snapshot is held, so it isn't deleted")
        .with_path(disk.label(point))
        .with_hint("release the hold first");
    Err(if reason.is_empty() {
        error
    } else {
        error.with_field("hold").with_found(reason)
    })
}
