//! An interrupted deletion whose record can't be read.

use std::path::Path;

use crate::diff::BaseCheck;
use crate::error::{ErrorKind, Result};
use crate::files::{ApplyOptions, ParentOptions, journal_path, roll_back};
use crate::snapshot::file_names::file_names;
use crate::snapshot::intent::Intent;
use crate::snapshot::layout::DELETING;
use crate::snapshot::lock::DiskLock;
use crate::snapshot::marker::expect_store;
use crate::snapshot::plain::is_absent;
use crate::snapshot::{Work, check_disk_name};

use super::aside::move_aside;

/// Sets aside the record of how a deletion in the disk `name` is to be finished if it is unreadable, because it
/// prevents opening the disk. A base that was being rolled forward is restored first. [`repair`](super::repair) finds
/// out what the deletion had done. Returns a description of what was done.
pub fn set_aside_intent(store: &Path, name: &str, work: Work<'_>) -> Result<Option<String>> {
    check_disk_name(name)?;
    expect_store(store, Some(name))?;
    let folder = store.join(name);
    let intent = folder.join(DELETING);
    if is_absent(&intent) {
        return Ok(None);
    }
    let _lock = DiskLock::take(&folder, true)?;
    match Intent::read(&folder) {
        Err(error) if error.kind() == ErrorKind::Damaged => {}
        // It can be finished; or opening the disk reports why not.
        _ => return Ok(None),
    }
    let parents = ParentOptions::default();
    let options = ApplyOptions {
        work,
        check: BaseCheck::Full,
        verify: true,
        parents: &parents,
    };
    let mut what =
        format!("{DELETING} is damaged and was set aside: what was to be deleted is unknown");
    for file in file_names(&folder)?.iter() {
        let path = folder.join(file);
        if !is_absent(&journal_path(&path)) {
            roll_back(&path, options)?;
            what = format!("{what}; {file} was restored to its previous content");
        }
    }
    move_aside(&intent)?;
    Ok(Some(what))
}
