//! Applying with an undo journal: the base itself is written once the journal next to it is on stable storage.

use std::path::Path;

use super::job::{Done, InPlace, Job};
use super::redo::{Verify, first};
use super::undo;
use super::undo::Seen;
use crate::diff::Compression;
use crate::error::{Error, Result};
use crate::files::Format;
use crate::files::apply::options::{ApplyOptions, Strategy};
use crate::files::apply::write::identity;
use crate::files::pending::{
    how_to_go_on, journal_of, make_place_of_open, merge_diff_of, remove_merge_diff, rollback_of,
};
use crate::files::state::remove_stamp;
use crate::remedy::Remedy;
use crate::storage::{AtomicFile, File, Overwrite, ReadAt as _, WriteAt as _, remove, rename};
use crate::vhd::FOOTER_SIZE;

/// Returns `None` if the base already holds the result.
pub(super) fn apply(job: &Job<'_>) -> Result<Option<Done>> {
    let path = job.lock.path();
    // Zeroed ranges stay allocated as long as undoing might need the space.
    let lock = &job.lock.holding_space();
    let journal = journal_of(job.lock)?;
    let footer = identity(&job.chain, job.base.vhd().map(|vhd| vhd.footer().clone()))?;
    let merge_diff = merge_diff_of(job.lock)?;
    if !job
        .chain
        .diffs()
        .iter()
        .any(|diff| diff.name() == merge_diff)
    {
        // The remains of an older merge: next to this journal they would be misleading.
        remove_merge_diff(job.lock)?;
    }
    let Some(seen) = write(&journal, job)? else {
        return Ok(None);
    };
    remove_stamp(job.lock).map_err(|error| unfinished(error, path))?;
    let format = job.base.format();
    let (chain, options) = (&job.chain, job.options);
    let written = first(lock, &job.base, chain, footer, seen.changes, options);
    let (updated, cleared) = written
        .and_then(|counts| complete(lock, job.how, options).map(|()| counts))
        .map_err(|error| unfinished(error, path))?;
    let verified = options.verify
        && Verify {
            file: lock,
            format,
            chain,
            digest: chain.target_digest(),
            remedy: take_back(path),
        }
        .run(options)?;
    close(&journal, job.how.undo)?;
    if !job.how.dense {
        lock.give_back();
    }
    Ok(Some(Done {
        strategy: Strategy::Journal,
        checked: seen.checked,
        updated,
        cleared,
        verified,
        stamped: job.stamp(job.lock, verified)?,
        lost: Vec::new(),
    }))
}

/// From this length on, a file system may refuse a file. Below it, a file system without holes would have to write all
/// of it.
const LONG: u64 = 1 << 31;

/// Fails if the image has to grow to a length that isn't possible here. That is tested with the journal, which is next
/// to it and has no name yet, before anything blocks the image.
fn try_length(file: &File, job: &Job<'_>) -> Result<()> {
    // Undoing writes what is there now.
    let have = job.lock.byte_len()?;
    job.lock.check_limit(length(job).unwrap_or(0).max(have))?;
    // Other formats grow with the stored data.
    let Some(len) = length(job) else {
        return Ok(());
    };
    if job.lock.is_block_device() || len <= have.max(LONG) {
        return Ok(());
    }
    file.set_len(len).map_err(|error| {
        Error::new(error.kind(), "no file may become that long here")
            .with_path(job.lock.path())
            .with_field("length")
            .with_found(format_args!("{len} bytes"))
            .with_source(error.to_string())
            .with_hint(
                "nothing was changed: use a file system that allows it, or lift the limit of the shell (ulimit -f)",
            )
    })?;
    file.set_len(0)
}

/// Writes the journal, which is on stable storage when this returns. Returns `None` if there is nothing to do.
fn write(journal: &Path, job: &Job<'_>) -> Result<Option<Seen>> {
    let place = make_place_of_open(job.lock)?;
    let file = AtomicFile::beside(journal, &place)?;
    try_length(file.file(), job)?;
    // It contains data of the base: whoever may write the base may finish or undo the apply, and nobody else may read
    // it.
    file.file().take_permissions_of(job.base.file())?;
    // Compression isn't worthwhile for data that is read only after a crash.
    let compression = job
        .how
        .undo
        .map_or(Compression::None, |_| Compression::default());
    let seen = undo::write(&file, job, compression)?;
    if let Some(seen) = &seen {
        check_growth(job, seen)?;
        reserve(job, seen)?;
        if !job.lock.is_block_device() {
            // Next to any other file it would be useless, and would block that file.
            file.check_beside(&place, job.lock)?;
        }
        file.publish(Overwrite::No)?;
    }
    Ok(seen)
}

/// Fails if the blocks that the changes add would make the image longer than this process is allowed to write.
fn check_growth(job: &Job<'_>, seen: &Seen) -> Result<()> {
    let (Some(vhd), Some(changes)) = (job.base.vhd(), &seen.changes) else {
        return Ok(());
    };
    let growth = vhd.growth_by(changes.updates())?;
    let len = job.lock.byte_len()?.saturating_add(growth);
    job.lock.check_limit(len)
}

/// The length that the image will have, if it is known in advance.
fn length(job: &Job<'_>) -> Option<u64> {
    let size = job.chain.target_size();
    match job.base.format() {
        Format::Raw => Some(size),
        Format::Fixed => Some(size.saturating_add(FOOTER_SIZE as u64)),
        Format::Dynamic | Format::Differencing => None,
    }
}

/// Reserves space for writes to unallocated ranges before the image is marked. Dynamic VHDs grow as they are written;
/// if that fails, the journal can undo it.
fn reserve(job: &Job<'_>, seen: &Seen) -> Result<()> {
    let (Some(changes), Some(_)) = (&seen.changes, length(job)) else {
        return Ok(());
    };
    let mut reserved = Vec::new();
    for range in changes.updates() {
        if let Err(error) = job
            .lock
            .reserve_range(range.start()..range.end(), &mut reserved)
        {
            job.lock.release(reserved);
            return Err(error);
        }
    }
    Ok(())
}

/// Syncs the image and, if it should have no holes, fills them.
pub(super) fn complete(file: &File, how: InPlace<'_>, options: ApplyOptions<'_>) -> Result<()> {
    file.sync()?;
    if how.dense {
        file.fill_holes(options.work.progress)?;
    }
    Ok(())
}

/// Keeps or removes the journal: from now on the image holds the new point in time.
pub(super) fn close(journal: &Path, undo: Option<&Path>) -> Result<()> {
    let Some(undo) = undo else {
        return remove(journal);
    };
    let file = File::open(journal)?;
    if undo::is_kept(&file, undo)? {
        return remove(journal);
    }
    file.apply_umask()?;
    rename(journal, undo)
}

/// Adds how to proceed after a failure between the old and the new point in time.
pub(super) fn unfinished(error: Error, path: &Path) -> Error {
    let between = "the image is between two points in time, and its undo journal exists: remove the cause and ";
    error.override_remedy(Remedy::new(between).then(how_to_go_on(path)))
}

/// How to proceed if the data written isn't correct.
pub(super) fn take_back(path: &Path) -> Remedy {
    Remedy::new("the journal still exists: undo the apply")
        .named(" with: ")
        .step(rollback_of(path), "")
}
