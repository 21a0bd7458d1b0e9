//! A deletion that was interrupted, and of which nobody can read any more what it was.

use std::path::Path;

use crate::diff::BaseCheck;
use crate::error::{ErrorKind, Result};
use crate::files::{ApplyOptions, ParentOptions, journal_path, roll_back};
use crate::snapshot::disk::{file_names, is_absent};
use crate::snapshot::intent::Intent;
use crate::snapshot::layout::DELETING;
use crate::snapshot::lock::DiskLock;
use crate::snapshot::{Work, check_disk_name};

use super::aside::move_aside;

/// Puts aside what says how a deletion in the disk `name` is to be finished, if that can't be read: it keeps the disk
/// from being opened. A base that was being brought forward is taken back first. What the deletion had done by then is
/// found by [`repair`](super::repair). Returns what was done, in words.
pub fn set_aside_intent(store: &Path, name: &str, work: Work<'_>) -> Result<Option<String>> {
    check_disk_name(name)?;
    let folder = store.join(name);
    let intent = folder.join(DELETING);
    if is_absent(&intent) {
        return Ok(None);
    }
    let _lock = DiskLock::take(&folder, true)?;
    match Intent::read(&folder) {
        Err(error) if error.kind() == ErrorKind::Damaged => {}
        // It can be finished; or why it can't is found out when the disk is opened.
        _ => return Ok(None),
    }
    let parents = ParentOptions::default();
    let options = ApplyOptions {
        workers: work.workers,
        progress: work.progress,
        check: BaseCheck::Full,
        verify: true,
        parents: &parents,
    };
    let mut what =
        format!("{DELETING} is damaged and was set aside: what was to be deleted isn't known");
    for file in file_names(&folder)?.iter() {
        let path = folder.join(file);
        if !is_absent(&journal_path(&path)) {
            roll_back(&path, options)?;
            what = format!("{what}; {file} was taken back to what it was");
        }
    }
    move_aside(&intent)?;
    Ok(Some(what))
}
