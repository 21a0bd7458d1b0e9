//! Recovery after an interruption: the same apply is finished, or undone with its journal.

use std::path::Path;

use super::device::beginning;
use super::job::{InPlace, stamp};
use super::journal::{close, complete, take_back, unfinished};
use super::redo::{self, Verify, redo};
use super::undo::{is_kept, open_journal};
use crate::diff::Chain;
use crate::error::{Error, ErrorKind, Result};
use crate::files::Format;
use crate::files::apply::options::{Applied, ApplyOptions, BaseChecked, Strategy};
use crate::files::apply::write::identity;
use crate::files::diffs::target_footer;
use crate::files::pending::{exists, how_to_go_on, journal_of, refuse_foreign, remove_merge_diff};
use crate::files::state::remove_stamp;
use crate::image::ContentDigest;
use crate::remedy::{Choice, Remedy, Step};
use crate::storage::{Access, File, WriteAt as _};
use crate::text::shown;

/// Undoes an interrupted apply: the image at `path` holds the old point in time again. Returns its digest, which was
/// verified, if the journal contains it.
pub fn roll_back(path: &Path, options: ApplyOptions<'_>) -> Result<Option<ContentDigest>> {
    let lock = &File::open_locked(path, Access::Write)?;
    let journal_path = journal_of(lock)?;
    refuse_foreign(lock)?;
    if !exists(&journal_path)? {
        return Err(
            Error::usage("there is nothing to roll back: this image has no undo journal")
                .with_path(path)
                .with_remedy(
                    Remedy::new("to undo a finished apply, apply the diff that ")
                        .step(Step::Choose(Choice::KeepUndo), "it")
                        .text(" kept"),
                ),
        );
    }
    let (journal, format) = open_journal(&journal_path, lock, options)?;
    let part = part_of(lock, format, &journal)?;
    // Until it is done, both directions are possible, and either may need the available space.
    let lock = &part.as_ref().unwrap_or(lock).holding_space();
    let footer = journal
        .last()
        .map(|diff| target_footer(diff.header()))
        .transpose()?
        .flatten();
    remove_stamp(lock)?;
    redo(lock, format, journal.base_size(), &journal, footer, options)
        .and_then(|_| lock.sync())
        .map_err(|error| {
            error.override_hint(
                "the undo journal still exists: remove the cause, then roll back again",
            )
        })?;
    let digest = journal.target_digest();
    Verify {
        file: lock,
        format,
        chain: &journal,
        digest,
        remedy: take_back(path),
    }
    .run(options)?;
    close(&journal_path, None)?;
    lock.give_back();
    remove_merge_diff(lock)?;
    stamp(lock, format, digest, options, None)?;
    Ok(digest)
}

/// The part of a device that was being changed, if that isn't all of it.
fn part_of(lock: &File, format: Format, journal: &Chain) -> Result<Option<File>> {
    match format {
        Format::Raw => beginning(lock, journal.base_size()),
        _ => Ok(None),
    }
}

/// Finishes the apply that left `journal_path`, if it was an apply of these diffs.
pub(super) fn finish(
    lock: &File,
    journal_path: &Path,
    chain: Chain,
    how: InPlace<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    let path = lock.path();
    let (journal, format) = open_journal(journal_path, lock, options)?;
    let part = part_of(lock, format, &journal)?;
    // Until it is done, both directions are possible, and either may need the available space.
    let lock = &part.as_ref().unwrap_or(lock).holding_space();
    let undoes = journal
        .first()
        .map(|diff| diff.header().undoes.clone())
        .unwrap_or_default();
    let diffs = chain.diffs().len();
    if undoes.is_empty() || !chain.identities().ends_with(&undoes) {
        return Err(Error::new(
            ErrorKind::Pending,
            "an apply of other diffs to this image was interrupted",
        )
        .with_path(path)
        .with_found(format_args!("the undo journal {}", shown(&journal_path)))
        .with_remedy(how_to_go_on(path)));
    }
    let already = diffs - undoes.len();
    let mut applied = Applied {
        strategy: Some(Strategy::Journal),
        finished_interrupted: true,
        ..Applied::nothing(already, BaseChecked::Full, &chain)
    };
    let Some(chain) = chain.without_first(applied.already) else {
        return Ok(applied);
    };
    if how.dry_run {
        (applied.updated, applied.cleared) = redo::count_again(lock, format, &chain, options)?;
        return Ok(applied);
    }
    if let Some(place) = how.undo {
        // Checked before anything is written, and again at the end.
        is_kept(&File::open(journal_path)?, place)?;
    }
    let before = journal
        .last()
        .map(|diff| target_footer(diff.header()))
        .transpose()?
        .flatten();
    let footer = identity(&chain, before)?;
    remove_stamp(lock)?;
    (applied.updated, applied.cleared) =
        redo(lock, format, chain.base_size(), &chain, footer, options)
            .and_then(|counts| complete(lock, how, options).map(|()| counts))
            .map_err(|error| unfinished(error, path))?;
    // If the base was checked only under the changed pages, the rest may differ from the target; the journal has the
    // right digest.
    let digest = journal.base_digest();
    applied.verified = Verify {
        file: lock,
        format,
        chain: &chain,
        digest,
        remedy: take_back(path),
    }
    .run(options)?;
    close(journal_path, how.undo)?;
    if !how.dense {
        lock.give_back();
    }
    applied.stamped = stamp(lock, format, digest, options, None)?;
    Ok(applied)
}
