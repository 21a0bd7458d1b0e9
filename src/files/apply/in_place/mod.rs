//! Applying diffs to a base in place, such that one command always suffices to reach the old or the new point in time.
//!
//! ```text
//!   lock ─► check everything ─┬─► by the undo journal (journal.rs)
//!                             │     journal: write, sync, name, sync ─► base: write, sync ─► journal: remove, sync
//!                             │              └──────── while it stands, every command refuses the base ────────┘
//!                             └─► by replacing the base (replace.rs)
//!                                   clone or copy: make, write, sync ─► name it as the base, sync
//! ```
//!
//! | file | has |
//! | --- | --- |
//! | `device.rs` | what can be applied to a block device |
//! | `job.rs` | what all strategies share |
//! | `journal.rs` | applying behind an undo journal: a diff from the new point in time back to the old one |
//! | `replace.rs` | applying to a clone or a copy that then replaces the base |
//! | `recover.rs` | finishing what was interrupted while a journal stands, or taking it back |
//! | `undo.rs` | the inverse diff, which serves as the journal and for `--undo` |
//! | `redo.rs` | writing an image so that it holds the result, and reading it back |
//!
//! All writing goes through [`redo`](redo::redo), which only writes data of the result, so it can be repeated from any
//! intermediate state.

use std::cell::RefCell;
use std::path::Path;

use super::base_match::fit;
use super::options::{Applied, ApplyOptions, Strategy};
use crate::diff::Chain;
use crate::error::Result;
use crate::files::kept::{self, NewList};
use crate::files::open::beginning_of;
use crate::files::pending::{
    exists, journal_of, journal_path, merge_diff_path, refuse_foreign, refuse_pending,
};
use crate::files::{Format, FormatChoice, OpenImage};
use crate::storage::{Access, File, ReadAt as _, refuse_part_of_store};
use job::{Done, Job, open, open_settled};

mod device;
mod job;
mod journal;
mod recover;
mod redo;
mod replace;
mod undo;

pub use job::InPlace;
pub use recover::roll_back;

/// Applies `chain` to the image at `path` in place, or finishes the same apply after an interruption.
pub fn apply_in_place(
    path: &Path,
    chain: Chain,
    how: InPlace<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    how.undo.map_or(Ok(()), |place| {
        undo::check_place(place, &journal_path(path), &chain)
    })?;
    let access = if how.dry_run {
        Access::Read
    } else {
        Access::Write
    };
    refuse_part_of_store(path)?;
    let lock = File::open_locked(path, access)?;
    apply_locked(&lock, chain, how, options)
}

/// Locks the image at `path` and applies the diffs that `make` returns for it, or nothing if that is `None`. An
/// interrupted apply is undone first; an interrupted merge is refused. If the image is on a device larger than `size`,
/// only the beginning of the device is used.
pub fn apply_made_in_place(
    path: &Path,
    size: u64,
    make: impl FnOnce(&OpenImage) -> Result<Option<Chain>>,
    how: InPlace<'_>,
    options: ApplyOptions<'_>,
) -> Result<Option<Applied>> {
    if exists(&journal_path(path))? {
        if exists(&merge_diff_path(path))? {
            refuse_pending(path)?;
        }
        roll_back(path, options)?;
    }
    let lock = File::open_locked(path, Access::Write)?;
    refuse_pending(path)?;
    let base = beginning_of(open_settled(&lock, how.format, options)?, size)?;
    let chain = make(&base)?;
    drop(base);
    chain
        .map(|chain| apply_locked(&lock, chain, how, options))
        .transpose()
}

/// As [`apply_in_place`], for a caller that holds the lock on the base.
pub(in crate::files) fn apply_locked(
    lock: &File,
    chain: Chain,
    how: InPlace<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    let keeping = how.dense.then(|| lock.keeping_space());
    let lock = keeping.as_ref().unwrap_or(lock);
    let journal = journal_of(lock)?;
    if !how.dry_run {
        refuse_foreign(lock)?;
    }
    if exists(&journal)? {
        return recover::finish(lock, &journal, chain, how, options);
    }
    if !how.dry_run {
        replace::remove_leftovers_of(lock);
    }
    let mut base = open_settled(lock, how.format, options)?;
    if let Some(warn) = how.warn {
        base.chain().flat_map(OpenImage::warnings).for_each(warn);
    }
    let part = device::part(&base, &chain)?;
    let behind = match &part {
        Some(part) => base.file().byte_len()? - part.byte_len()?,
        None => 0,
    };
    if let Some(part) = &part {
        base = open(part, Some(FormatChoice::Only(Format::Raw)), false, options)?;
    }
    let lock = part.as_ref().unwrap_or(lock);
    // An existing list is kept up to date.
    let mut list = if how.dry_run {
        None
    } else {
        kept::find(&base).and_then(|_| NewList::begin(&base, chain.target_size()))
    };
    let found = fit(&base, &chain, options, &mut list)?;
    let diffs = chain.diffs().len();
    let applied = Applied {
        target_digest: chain
            .target_digest()
            .or(found.target)
            .or(found.digest.filter(|_| found.already == diffs)),
        behind,
        ..Applied::nothing(found.already, found.checked, &chain)
    };
    let Some(chain) = chain.without_first(found.already) else {
        return Ok(applied);
    };
    let job = Job {
        base,
        lock,
        chain,
        found,
        list: RefCell::new(list),
        how,
        options,
    };
    let nothing_to_do = Applied {
        already: diffs,
        ..applied.clone()
    };
    if how.dry_run {
        let (updated, cleared, touched) = redo::count(&job)?;
        return Ok(match job.settle(&touched)? {
            None => nothing_to_do,
            Some(checked) => {
                job.refuse_orphans()?;
                Applied {
                    checked,
                    updated,
                    cleared,
                    ..applied
                }
            }
        });
    }
    job.refuse_orphans()?;
    job.base.check_unchanged()?;
    if let Some(vhd) = job.base.vhd() {
        vhd.check_resize(job.chain.target_size())?;
    }
    if job.how.dense {
        // A lower bound: the number of new blocks isn't known yet.
        let len = job.lock.byte_len()?;
        let flat = matches!(job.base.format(), Format::Raw | Format::Fixed);
        let size = job.chain.target_size();
        job.lock
            .check_room_for(if flat { len.max(size) } else { len })?;
    }
    let Some(done) = run(&job)? else {
        return Ok(nothing_to_do);
    };
    Ok(Applied {
        strategy: Some(done.strategy),
        checked: done.checked,
        updated: done.updated,
        cleared: done.cleared,
        verified: done.verified,
        stamped: done.stamped,
        lost: done.lost,
        ..applied
    })
}

/// Applies the job's diffs by its strategy. Returns `None` if the base already holds the result.
fn run(job: &Job<'_>) -> Result<Option<Done>> {
    match job.how.strategy {
        Some(Strategy::Journal) => journal::apply(job),
        Some(strategy) => {
            let new = replace::begin(job, strategy)?;
            replace::apply(job, strategy, new)
        }
        None => match replace::begin_if_nothing_is_lost(job)? {
            Some(new) => replace::apply(job, Strategy::Clone, new),
            None => journal::apply(job),
        },
    }
}
