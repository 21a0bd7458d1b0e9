//! Applying diffs to a base in place, so that it is always one command away from the old or the new point in time.
//!
//! ```text
//!   lock ─► check everything ─► undo journal: write, sync, name, sync ─► base: write, sync ─► journal: remove, sync
//!                               └────────── while it stands, every command refuses the base ──────────┘
//! ```
//!
//! The undo journal is a diff from the new point in time back to the old one. Writing the base goes through
//! [`redo`](redo::redo) in all three cases: the first time, when an interrupted apply is finished, and when it is taken back.
//! It only ever writes what the result shall hold, so it may be repeated from any state in between.
//!
//! [`journal`] writes, opens and ends the undo journal; [`redo`](mod@redo) writes the base and reads it back;
//! [`recover`] finishes what was interrupted, or takes it back.

use std::path::Path;

use super::apply::{Applied, ApplyOptions, fit, identity};
use super::pending::{exists, journal_path, merge_diff_path, remove_merge_diff};
use super::{FormatChoice, OpenImage, OpenOptions, open_image};
use crate::diff::Chain;
use crate::error::Result;
use crate::image::Image as _;
use crate::storage::File;

mod journal;
mod recover;
mod redo;

use journal::{check_undo, close_journal, write_journal};
pub use recover::roll_back;
use recover::{finish, unfinished};
use redo::{count, redo, verify};

/// What only an apply in place can be told.
#[derive(Debug, Clone, Copy, Default)]
pub struct InPlace<'a> {
    /// The format of the base, when it shall not be probed.
    pub format: Option<FormatChoice>,
    /// Where the diff that undoes the apply is kept.
    pub undo: Option<&'a Path>,
    /// Check everything, write nothing.
    pub dry_run: bool,
}

/// Applies `chain` to the image at `path` in place, or finishes the same apply that was interrupted.
pub fn apply_in_place(
    path: &Path,
    chain: Chain,
    how: InPlace<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    how.undo
        .map_or(Ok(()), |undo| check_undo(undo, &journal_path(path)))?;
    let _lock = lock(path, how.dry_run)?;
    apply_locked(path, chain, how, options)
}

/// As [`apply_in_place`], when the caller holds the lock.
pub(super) fn apply_locked(
    path: &Path,
    chain: Chain,
    how: InPlace<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    let journal = journal_path(path);
    if exists(&journal)? {
        return finish(path, &journal, chain, how, options);
    }
    let base = open(path, how.format, false, options)?;
    let found = fit(&base, &chain, options)?;
    let diffs = chain.diffs().len();
    let applied = Applied {
        already: found.already,
        diffs,
        checked: found.checked,
        target_size: chain.target_size(),
        target_digest: chain
            .target_digest()
            .or(found.digest.filter(|_| found.already == diffs)),
        updated: 0,
        cleared: 0,
        verified: false,
        finished_interrupted: false,
    };
    let Some(chain) = chain.without_first(found.already) else {
        return Ok(applied);
    };
    if how.dry_run {
        let (updated, cleared) = count(&base, &chain, options)?;
        return Ok(Applied {
            updated,
            cleared,
            ..applied
        });
    }
    base.check_unchanged()?;
    if let Some(vhd) = base.vhd() {
        vhd.check_resize(chain.target_size())?;
    }
    let footer = identity(&chain, base.vhd().map(|vhd| vhd.footer().clone()))?;
    let merge_diff = merge_diff_path(path);
    if !chain.diffs().iter().any(|diff| diff.name() == merge_diff) {
        // A leftover of an older merge: beside this journal it would tell a wrong story.
        remove_merge_diff(path)?;
    }
    write_journal(&journal, &base, &chain, found.digest, options)?;
    let (format, size) = (base.format(), base.virtual_size());
    drop(base);
    let (updated, cleared) = redo(path, format, size, &chain, footer, options)
        .map_err(|error| unfinished(error, path))?;
    let verified = options.verify && verify(path, format, &chain, chain.target_digest(), options)?;
    close_journal(&journal, how.undo)?;
    Ok(Applied {
        updated,
        cleared,
        verified,
        ..applied
    })
}

fn lock(path: &Path, shared: bool) -> Result<File> {
    let file = if shared {
        File::open(path)?
    } else {
        File::open_writable(path)?
    };
    if shared {
        file.lock_shared()?;
    } else {
        file.lock_exclusive()?;
    }
    Ok(file)
}

fn open(
    path: &Path,
    format: Option<FormatChoice>,
    writable: bool,
    options: ApplyOptions<'_>,
) -> Result<OpenImage> {
    // The lock is held by whoever calls, and the journal is this module's own.
    open_image(
        path,
        &OpenOptions {
            format,
            writable,
            no_lock: true,
            ignore_journal: true,
            parents: options.parents.clone(),
        },
    )
}
