//! Revokes a decided deletion as long as nothing was done: a lack of space must not block the disk.

use std::io::ErrorKind as IoKind;

use super::Manifest;
use super::Work;
use super::create::lengths;
use super::disk::Disk;
use super::intent::Intent;
use super::layout::{DELETING, NEW, base_options};
use super::plain::is_absent;
use crate::diff::BaseCheck;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{ApplyOptions, ParentOptions, journal_path, open_image, roll_back};
use crate::image::{Image as _, content_digest};
use crate::storage::{Overwrite, remove_if_there};

/// Revokes a deletion that couldn't be carried out because of `error`. Returns `false` if that isn't possible: part of
/// it was done already, and the next command that changes the disk finishes it.
pub(super) fn take_back(
    disk: &Disk,
    intent: &Intent,
    error: &Error,
    work: Work<'_>,
) -> Result<bool> {
    // A user who wants to stop doesn't want more work done.
    if error.kind() == ErrorKind::Interrupted || !nothing_was_done(disk, intent, error, work)? {
        return Ok(false);
    }
    forget(disk, intent).map(|()| true)
}

/// Removes the record of a deletion of which nothing was done.
pub(super) fn forget(disk: &Disk, intent: &Intent) -> Result<()> {
    remove_if_there(&disk.path(DELETING))?;
    if let Some([_, new]) = intent.next.as_ref().filter(|_| !intent.forward) {
        remove_if_there(&disk.path(&format!("{}{NEW}", new.data.file)))?;
    }
    Ok(())
}

/// Returns whether every file is in its state before the deletion. A base that was being changed is restored first.
fn nothing_was_done(disk: &Disk, intent: &Intent, error: &Error, work: Work<'_>) -> Result<bool> {
    let is_there = |file: &str| !is_absent(&disk.path(file));
    let mut deleted = intent.deleted.iter();
    if !deleted.all(|p| is_there(&p.stem().manifest()) && is_there(&p.data.file)) {
        return Ok(false);
    }
    let Some([old, new]) = &intent.next else {
        return Ok(true);
    };
    if !is_there(&old.data.file) {
        return Ok(false);
    }
    if !intent.forward {
        let gets_another_name = old.name != new.name && !is_there(&new.data.file);
        return Ok(gets_another_name || is_there(&format!("{}{NEW}", new.data.file)));
    }
    let Some(base) = intent.deleted.first().filter(|_| !is_there(&new.data.file)) else {
        return Ok(false);
    };
    let path = disk.path(&base.data.file);
    if !is_absent(&journal_path(&path)) {
        if !is_want_of_room(error) {
            return Ok(false);
        }
        let parents = ParentOptions::default();
        let options = ApplyOptions {
            work,
            check: BaseCheck::Full,
            verify: true,
            parents: &parents,
        };
        roll_back(&path, options)?;
    }
    if !holds_its_snapshot(disk, base, work)? {
        return Ok(false);
    }
    // Undoing may have left the file longer.
    let (length, used) = lengths(&path)?;
    if length != base.data.length {
        let mut now = base.clone();
        (now.data.length, now.used_size) = (length, used);
        disk.write_manifest(&now, Overwrite::Yes)?;
    }
    Ok(true)
}

/// Returns whether a base that is to be rolled forward still matches its manifest. A missing undo journal doesn't prove
/// that: removing the journal may be what failed.
pub(super) fn holds_its_snapshot(disk: &Disk, base: &Manifest, work: Work<'_>) -> Result<bool> {
    let path = disk.data_path(base)?;
    let image = open_image(&path, &base_options(&path))?;
    if image.virtual_size() != base.virtual_size {
        return Ok(false);
    }
    work.progress.begin("checking the base", base.virtual_size);
    Ok(content_digest(&image, work.workers, work.progress)? == base.content_digest)
}

/// Returns whether the error is a lack of space.
pub(super) fn is_want_of_room(error: &Error) -> bool {
    matches!(
        error.io_kind(),
        Some(IoKind::StorageFull | IoKind::QuotaExceeded | IoKind::FileTooLarge)
    )
}
