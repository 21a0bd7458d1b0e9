//! Applying to a clone or a copy that then replaces the base with one rename. Until then the base is unchanged;
//! whatever happens, only a temporary file is left over.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::job::{Done, Job};
use super::redo::{Verify, redo_elsewhere};
use super::undo;
use super::undo::{Seen, is_kept};
use crate::diff::Compression;
use crate::error::{Error, ErrorKind, Result};
use crate::files::apply::options::Strategy;
use crate::files::apply::write::{Changes, identity};
use crate::files::pending::{place_of_open, remove_merge_diff};
use crate::files::state::STATE_ATTRIBUTE;
use crate::remedy::{Choice, Remedy, Step};
use crate::storage::{AtomicFile, Audience, File, Overwrite, remove, remove_leftovers};

/// The replacement for the base, with the base's data so far.
pub(super) struct Replacement {
    file: AtomicFile,
    /// Attributes of the base that it doesn't have, as text.
    lost: Vec<String>,
}

/// Begins a replacement, if a clone is possible and no attribute of the base would be lost.
pub(super) fn begin_if_nothing_is_lost(job: &Job<'_>) -> Result<Option<Replacement>> {
    if refusal(job.lock)?.is_some() {
        return Ok(None);
    }
    let new = begin_clone(job.lock)?;
    Ok(new.filter(|new| new.lost.is_empty()))
}

/// Begins the replacement for `strategy`, or fails with the reason why that isn't possible.
pub(super) fn begin(job: &Job<'_>, strategy: Strategy) -> Result<Replacement> {
    if let Some(error) = refusal(job.lock)? {
        return Err(error);
    }
    if strategy == Strategy::Clone {
        return begin_clone(job.lock)?.ok_or_else(|| {
            Error::unsupported("this file system can't clone the image")
                .with_path(job.lock.path())
                .with_expected("XFS or btrfs, with reflinks")
                .with_remedy(
                    Remedy::default()
                        .named("omit ")
                        .step(
                            Step::Choose(Choice::InPlace),
                            "leave it open how the image is changed",
                        )
                        .text(", or use ")
                        .step(Step::Choose(Choice::InPlaceByJournal), "an undo journal")
                        .text(" or ")
                        .named("copy")
                        .otherwise("a copy"),
                )
        });
    }
    let file = begin_file(job.lock)?;
    file.file()
        .copy_from_file(job.lock, job.options.work.progress)?;
    finish_begin(file, job.lock)
}

fn begin_clone(base: &File) -> Result<Option<Replacement>> {
    let file = begin_file(base)?;
    if !file.file().clone_from_file(base)? {
        return Ok(None);
    }
    finish_begin(file, base).map(Some)
}

fn begin_file(base: &File) -> Result<AtomicFile> {
    // A symbolic link is resolved and stays. It is resolved only once, since it may be changed meanwhile.
    let path = base.place()?;
    let file = AtomicFile::beside(&path, &path)?;
    file.check_replaces(base)?;
    Ok(file)
}

fn finish_begin(file: AtomicFile, base: &File) -> Result<Replacement> {
    let lost = file.file().take_attributes_of(base, STATE_ATTRIBUTE)?;
    Ok(Replacement { file, lost })
}

/// Returns why the base can't be replaced by another file, if so.
fn refusal(base: &File) -> Result<Option<Error>> {
    let error = if base.is_block_device() {
        Error::usage("a block device can't be replaced by a file")
    } else {
        let links = base.metadata()?.nlink();
        if links <= 1 {
            return Ok(None);
        }
        Error::usage("the image has several names, of which only one would be replaced")
            .with_found(format_args!("{links} hard links"))
            .with_expected("one")
    };
    Ok(Some(
        error.with_path(base.path()).with_remedy(
            Remedy::default()
                .named("omit ")
                .step(
                    Step::Choose(Choice::InPlace),
                    "leave it open how the image is changed",
                )
                .text(", or use ")
                .step(Step::Choose(Choice::InPlaceByJournal), "an undo journal")
                .text(", which changes the image itself"),
        ),
    ))
}

/// Returns `None` if the base already holds the result.
pub(super) fn apply(job: &Job<'_>, strategy: Strategy, new: Replacement) -> Result<Option<Done>> {
    let Replacement { file, lost } = new;
    let (chain, options) = (&job.chain, job.options);
    let format = job.base.format();
    let footer = identity(chain, job.base.vhd().map(|vhd| vhd.footer().clone()))?;
    let (undo, seen) = match job
        .how
        .undo
        .map(|place| write_undo(place, job))
        .transpose()?
    {
        None => (None, None),
        Some(None) => return Ok(None),
        Some(Some((undo, seen))) => (Some(undo), Some(seen)),
    };
    // If the undo diff was written, the data under the changed pages has been checked already.
    let (checked, from) = match seen {
        Some(seen) => {
            let again = Changes::Compared {
                base: Some(&job.base),
                check: false,
            };
            (
                Some(seen.checked),
                seen.changes.map_or(again, Changes::Known),
            )
        }
        None => (
            None,
            Changes::Compared {
                base: Some(&job.base),
                check: job.check(),
            },
        ),
    };
    let (updated, cleared, touched) =
        redo_elsewhere(file.file(), &job.base, chain, footer, from, options)?;
    let Some(checked) = checked.map_or_else(|| job.settle(&touched), |known| Ok(Some(known)))?
    else {
        return Ok(None);
    };
    if job.how.dense {
        file.file().fill_holes(options.work.progress)?;
    }
    let verified = options.verify
        && Verify {
            file: file.file(),
            format,
            chain,
            digest: chain.target_digest(),
            remedy: Remedy::new("the base is unchanged"),
        }
        .run(options)?;
    let file = put_in_place(file, job, undo)?;
    // The remains of an older merge, which refer to a parent that is gone.
    remove_merge_diff(job.lock)?;
    Ok(Some(Done {
        strategy,
        checked,
        updated,
        cleared,
        verified,
        stamped: job.stamp(&file, verified)?,
        lost,
    }))
}

/// An undo diff that doesn't have its name yet.
type Undo<'a> = (AtomicFile, &'a Path);

fn write_undo<'a>(place: &'a Path, job: &Job<'_>) -> Result<Option<(Undo<'a>, Seen)>> {
    let base = job.base.file();
    let file = AtomicFile::for_audience(place, Audience::of_file(base)?)?.with_owner_of(base)?;
    let seen = undo::write(&file, job, Compression::default())?;
    Ok(seen.map(|seen| ((file, place), seen)))
}

/// Names the undo diff, then gives the new file the name of the base.
fn put_in_place(file: AtomicFile, job: &Job<'_>, undo: Option<Undo<'_>>) -> Result<File> {
    job.base.check_unchanged()?;
    if !job.lock.is_at_its_path()? {
        return Err(
            Error::new(ErrorKind::Changed, "the base was replaced by another file")
                .with_path(job.lock.path())
                .with_hint("run the command again"),
        );
    }
    let mut named = None;
    if let Some((undo, place)) = undo
        && !is_kept(undo.file(), place)?
    {
        undo.publish(Overwrite::No)?;
        named = Some(place);
    }
    file.check_replaces(job.lock)?;
    file.publish_open(Overwrite::Yes).inspect_err(|_| {
        // As long as the base has its name, the undo diff is useless and is removed. Otherwise it is needed.
        if let (Some(place), Ok(true)) = (named, job.lock.is_at_its_path()) {
            let _ = remove(place);
        }
    })
}

/// Removes what killed in-place applies left for this image.
pub(super) fn remove_leftovers_of(image: &File) {
    if let Ok(place) = place_of_open(image) {
        remove_leftovers(&place);
    }
}
