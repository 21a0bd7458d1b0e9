//! After an interruption: the same apply is finished, or taken back by its undo journal.

use std::path::Path;

use super::journal::{close_journal, open_journal};
use super::redo::{redo, verify};
use super::{InPlace, lock};
use crate::diff::Chain;
use crate::error::{Error, ErrorKind, Result};
use crate::files::apply::{Applied, ApplyOptions, BaseChecked, identity};
use crate::files::diffs::target_footer;
use crate::files::pending::{exists, how_to_go_on, journal_path, remove_merge_diff};
use crate::image::ContentDigest;

/// Takes an interrupted apply back: the image at `path` holds the old point in time again. Returns its digest,
/// if the journal knows it; it was checked then.
pub fn roll_back(path: &Path, options: ApplyOptions<'_>) -> Result<Option<ContentDigest>> {
    let _lock = lock(path, false)?;
    let journal_path = journal_path(path);
    if !exists(&journal_path)? {
        return Err(Error::usage(
            "there is nothing to roll back: no undo journal stands beside this image",
        )
        .path(path)
        .hint("to undo a finished apply, apply the diff that --undo kept"));
    }
    let (journal, format) = open_journal(&journal_path, options)?;
    let footer = journal
        .last()
        .map(|diff| target_footer(diff.header()))
        .transpose()?
        .flatten();
    redo(path, format, journal.base_size(), &journal, footer, options).map_err(|error| {
        error.hint("the undo journal still stands: remove the cause, then roll back again")
    })?;
    verify(path, format, &journal, journal.target_digest(), options)?;
    close_journal(&journal_path, None)?;
    remove_merge_diff(path)?;
    Ok(journal.target_digest())
}

/// Finishes the apply that left `journal_path`, if it was of these diffs.
pub(super) fn finish(
    path: &Path,
    journal_path: &Path,
    chain: Chain,
    how: InPlace<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    let (journal, format) = open_journal(journal_path, options)?;
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
        .path(path)
        .found(format_args!("the undo journal {}", journal_path.display()))
        .hint(how_to_go_on(path)));
    }
    let mut applied = Applied {
        already: diffs - undoes.len(),
        diffs,
        checked: BaseChecked::Full,
        target_size: chain.target_size(),
        target_digest: chain.target_digest(),
        updated: 0,
        cleared: 0,
        verified: false,
        finished_interrupted: true,
    };
    let Some(chain) = chain.without_first(applied.already) else {
        return Ok(applied);
    };
    if how.dry_run {
        return Ok(applied);
    }
    let before = journal
        .last()
        .map(|diff| target_footer(diff.header()))
        .transpose()?
        .flatten();
    let footer = identity(&chain, before)?;
    (applied.updated, applied.cleared) =
        redo(path, format, chain.base_size(), &chain, footer, options)
            .map_err(|error| unfinished(error, path))?;
    // A base that was checked only under the changed pages needn't become the target elsewhere; the journal knows.
    applied.verified = verify(path, format, &chain, journal.base_digest(), options)?;
    close_journal(journal_path, how.undo)?;
    Ok(applied)
}

/// Says how to go on after a failure between the old and the new point in time.
pub(super) fn unfinished(error: Error, path: &Path) -> Error {
    error.hint(format!(
        "the image is between two points in time and its undo journal stands: remove the cause and {}",
        how_to_go_on(path)
    ))
}
