//! Applying diffs to a base: how a new image is made.

use std::path::Path;
use std::sync::Arc;

use super::base_match::{
    BaseMatch, check_can_be_full, check_size, check_touched, checked, fit, known_digest, position,
};
use super::diffs::{format_of, target_footer};
use super::in_place::Strategy;
use super::{ChildOf, Format, NewImage, NewImageOptions, OpenImage, Opened, ParentOptions};
use crate::diff::{Applier, BaseCheck, Chain, ChangeMap, DiffFile, Touched, WindowChange};
use crate::error::{Error, Result};
use crate::image::{ContentDigest, Image, ImageMut, content_digest};
use crate::page::ChangeKind;
use crate::parallel::Workers;
use crate::progress::Progress;
use crate::storage::{Audience, Overwrite};
use crate::vhd::VhdImage;

/// How to apply.
#[derive(Clone, Copy)]
pub struct ApplyOptions<'a> {
    /// The threads that read, unpack and hash.
    pub workers: &'a Workers,
    /// Told how far the work is.
    pub progress: &'a dyn Progress,
    /// How it is made sure that the base is the right one.
    pub check: BaseCheck,
    /// Whether to read the result back and compare.
    pub verify: bool,
    /// Where the parents of a differencing VHD may be.
    pub parents: &'a ParentOptions,
}

impl std::fmt::Debug for ApplyOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("ApplyOptions");
        out.field("check", &self.check)
            .field("verify", &self.verify)
            .finish_non_exhaustive()
    }
}

/// How sure it is that the base was the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BaseChecked {
    /// All of it was read: its content digest is the one that the diff names, or, if it names none, what the diff makes
    /// of it has the one that it names for its target.
    Full,
    /// What it held under the changed pages is what the diff says; the rest wasn't looked at.
    Touched,
    /// Some frames of the diff don't say what the base held; the others fit.
    Partly,
    /// A valid state stamp of the file, or the list that is kept beside it, names its content digest, and what it held
    /// under the changed pages is what the diff says.
    Stamp,
}

/// What became of an apply.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applied {
    /// How many of the diffs at the beginning of the chain the base held already.
    pub already: usize,
    /// How many diffs there were.
    pub diffs: usize,
    /// How the base was checked.
    pub checked: BaseChecked,
    /// Virtual size of the result.
    pub target_size: u64,
    /// Content digest of the result: computed, or what the diff says.
    pub target_digest: Option<ContentDigest>,
    /// Bytes of the virtual disk written with data; those that were right already aren't.
    pub updated: u64,
    /// Bytes of the virtual disk made zero.
    pub cleared: u64,
    /// Whether the result was read back and found right.
    pub verified: bool,
    /// Whether an apply that had been interrupted was finished.
    pub finished_interrupted: bool,
    /// How the base was changed in place, if it was; [`Clone`](Strategy::Clone) also for a new image that began as one.
    pub strategy: Option<Strategy>,
    /// Whether the result carries a state stamp now.
    pub stamped: bool,
    /// What the result doesn't have from the file that it replaced, in words.
    pub lost: Vec<String>,
    /// Bytes of a device behind the disk that the base is, which were neither looked at nor changed.
    pub behind: u64,
}

impl Applied {
    /// Nothing was written so far.
    pub(super) fn nothing(already: usize, checked: BaseChecked, chain: &Chain) -> Self {
        Self {
            already,
            diffs: chain.diffs().len(),
            checked,
            target_size: chain.target_size(),
            target_digest: chain.target_digest(),
            updated: 0,
            cleared: 0,
            verified: false,
            finished_interrupted: false,
            strategy: None,
            stamped: false,
            lost: Vec::new(),
            behind: 0,
        }
    }
}

/// Where a new image shall be, and what.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// The path.
    pub path: &'a Path,
    /// The format.
    pub format: Format,
    /// Whether it may replace a file.
    pub overwrite: Overwrite,
    /// The files beside the base whose bytes it will hold: it is open to nobody to whom they, and the base, aren't.
    pub made_from: &'a Audience,
    /// Whether the file has no holes in the end.
    pub dense: bool,
}

/// Applies `chain` to `base` into a new image. The base is read once and checked on the way; the image gets its
/// name only when base and result were found right.
pub fn apply_to_new(
    base: &dyn Opened,
    chain: &Chain,
    output: Output<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    check_size(base, chain)?;
    check_can_be_full(base, chain, options)?;
    let mut new = NewImage::create(output.path, &new_options(base, chain, output)?)?;
    let full = options.check != BaseCheck::Touched && chain.base_digest().is_some();
    let check = if full {
        BaseCheck::Full
    } else {
        BaseCheck::Touched
    };
    options
        .progress
        .begin("applying", base.virtual_size().max(chain.target_size()));
    let layers = Applier::new(base, chain, options.workers, options.progress);
    let (rebuilt, touched) = layers.rebuild(new.image_mut(), check)?;
    base.check_unchanged()?;
    let (already, checked) = if let Some(digest) = rebuilt.base_digest {
        (position(base, chain, digest)?, BaseChecked::Full)
    } else if touched.already_applied && base.virtual_size() == chain.target_size() {
        (chain.diffs().len(), checked(&touched))
    } else {
        check_touched(base, chain, &touched)?;
        (0, checked(&touched))
    };
    check_result(output.path, chain, rebuilt.target_digest)?;
    new.complete(options.progress)?;
    if options.verify {
        options.progress.begin("verifying", chain.target_size());
        let found = content_digest(new.image(), options.workers, options.progress)?;
        read_back(output.path, found, rebuilt.target_digest)?;
    }
    let stamped = new.publish_stamped(rebuilt.target_digest)?;
    Ok(Applied {
        verified: options.verify,
        stamped,
        ..written(already, checked, chain, rebuilt.target_digest)
    })
}

/// Applies `chain` to `base` into `out`, which is written front to back and can't be taken back: before the first byte
/// goes out, the base is known to be the right one.
///
/// # Errors
///
/// [`Mismatch`](crate::ErrorKind::Mismatch) if the base isn't what the chain is for, with nothing written;
/// [`Damaged`](crate::ErrorKind::Damaged) if the result isn't the target, which is known only at its end.
pub fn apply_to_pipe(
    base: &dyn Opened,
    chain: &Chain,
    (out, name): (&mut dyn ImageMut, &Path),
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    check_size(base, chain)?;
    let larger = base.virtual_size().max(chain.target_size());
    let layers = Applier::new(base, chain, options.workers, options.progress);
    let (already, checked) = if options.check != BaseCheck::Touched && chain.base_digest().is_some()
    {
        options
            .progress
            .begin("checking the base", base.virtual_size());
        let digest = content_digest(base, options.workers, options.progress)?;
        (position(base, chain, digest)?, BaseChecked::Full)
    } else {
        options.progress.begin("checking the base", larger);
        let touched = layers.check_touched()?;
        if touched.already_applied && base.virtual_size() == chain.target_size() {
            (chain.diffs().len(), checked(&touched))
        } else {
            check_touched(base, chain, &touched)?;
            (0, checked(&touched))
        }
    };
    options.progress.begin("applying", larger);
    let (rebuilt, _) = layers.rebuild(out, BaseCheck::Touched)?;
    out.flush()?;
    base.check_unchanged()?;
    check_result(name, chain, rebuilt.target_digest).map_err(|error| {
        error.with_hint("don't use what came through the pipe: run the command again")
    })?;
    Ok(written(already, checked, chain, rebuilt.target_digest))
}

/// What became of an apply that wrote all of the result.
fn written(already: usize, checked: BaseChecked, chain: &Chain, digest: ContentDigest) -> Applied {
    let sum = |of: fn(&DiffFile) -> u64| chain.diffs().iter().map(|diff| of(diff)).sum();
    Applied {
        target_digest: Some(digest),
        updated: sum(|diff| diff.trailer().update_bytes),
        cleared: sum(|diff| diff.trailer().clear_bytes),
        ..Applied::nothing(already, checked, chain)
    }
}

/// As [`apply_to_new`], but the new image begins as a clone of `base`, which isn't read but under the changed pages: for
/// a base with a valid state stamp, if it may be trusted. `None` if there can't be a clone, or if the base isn't the one
/// that the chain is for.
pub fn apply_to_clone(
    base: &OpenImage,
    chain: &Chain,
    output: Output<'_>,
    options: ApplyOptions<'_>,
) -> Result<Option<Applied>> {
    let trusted = options.check.by_stamp() && known_digest(base)? == chain.base_digest();
    if !trusted || chain.base_digest().is_none() {
        return Ok(None);
    }
    let Some(new) = NewImage::clone_of(base, output.path, &new_options(base, chain, output)?)?
    else {
        return Ok(None);
    };
    let found = fit(base, chain, options, &mut None)?;
    let applied = Applied {
        strategy: Some(Strategy::Clone),
        ..Applied::nothing(found.already, found.checked, chain)
    };
    write_to(new, base, Some(chain), found, applied, output.path, options).map(Some)
}

/// Applies `chain` to `base` into a new image: as a clone of a base that is known by its state stamp where the file
/// system can clone it, else page by page.
pub fn apply_to_image(
    base: &dyn Opened,
    chain: &Chain,
    output: Output<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    if let Some(file) = base.as_file()
        && let Some(applied) = apply_to_clone(file, chain, output, options)?
    {
        return Ok(applied);
    }
    apply_to_new(base, chain, output, options)
}

/// The format of the new image at `output`, when none is chosen: raw or VHD by its name; the kind of VHD is that of the
/// diffs' target, or of the base.
pub fn format_of_result(output: &Path, base: &dyn Opened, chain: &Chain) -> Result<Format> {
    let by_name = Format::by_name(output)?;
    if by_name == Format::Raw {
        return Ok(by_name);
    }
    let target = chain
        .last()
        .and_then(|diff| format_of(&diff.header().target));
    let kind = [target, Some(base.format())]
        .into_iter()
        .flatten()
        // A child of another image is made only if asked for.
        .find(|format| !matches!(format, Format::Raw | Format::Differencing));
    Ok(kind.unwrap_or(by_name))
}

/// Applies `chain` to `base` into a new differencing VHD, which stores only what changed and has `base` as its
/// parent. The base is checked before anything is written, as for an apply in place.
pub fn apply_to_child(
    parent: ChildOf,
    chain: Chain,
    output: Output<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    let base = &Arc::clone(&parent.image);
    refuse_smaller_child(base, chain.target_size())?;
    let found = fit(base, &chain, options, &mut None)?;
    let applied = Applied::nothing(found.already, found.checked, &chain);
    let new = NewImage::create(
        output.path,
        &NewImageOptions {
            parent: Some(parent),
            block_size: base.vhd().and_then(VhdImage::header).map(|h| h.block_size),
            ..new_options(&**base, &chain, output)?
        },
    )?;
    let rest = chain.without_first(found.already);
    write_to(
        new,
        base,
        rest.as_ref(),
        found,
        applied,
        output.path,
        options,
    )
}

/// Writes what `rest`, what there is left of the chain, changes in `base` to `new`, which reads as the base so far, and
/// publishes it.
fn write_to(
    mut new: NewImage,
    base: &OpenImage,
    rest: Option<&Chain>,
    found: BaseMatch,
    mut applied: Applied,
    path: &Path,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    if let Some(chain) = rest {
        let compared = Changes::Compared {
            check: found.is_open(),
        };
        let touched;
        (applied.updated, applied.cleared, touched) =
            write_changes(base, new.image_mut(), chain, compared, options)?;
        match found.settle(base, chain, &touched)? {
            Some(checked) => applied.checked = checked,
            None => applied.already = applied.diffs,
        }
    }
    base.check_unchanged()?;
    new.complete(options.progress)?;
    if let Some(expected) = applied.target_digest.filter(|_| options.verify) {
        options.progress.begin("verifying", applied.target_size);
        let digest = content_digest(new.image(), options.workers, options.progress)?;
        read_back(path, digest, expected)?;
        applied.verified = true;
    }
    let read_back = applied.target_digest.filter(|_| applied.verified);
    match read_back.or(found.target) {
        Some(digest) => applied.stamped = new.publish_stamped(digest)?,
        None => new.publish()?,
    }
    Ok(applied)
}

/// How it is known which pages change.
pub(super) enum Changes {
    /// By comparing what the base holds under the pages of the diffs; with `check`, also with what they were made for.
    Compared { check: bool },
    /// It was remembered, and was checked then.
    Known(ChangeMap),
}

fn refuse_smaller_child(parent: &OpenImage, size: u64) -> Result<()> {
    if size >= parent.virtual_size() {
        return Ok(());
    }
    Err(
        Error::usage("a differencing VHD can't be smaller than its parent")
            .with_path(parent.path())
            .with_field("virtual size")
            .with_found(format_args!("{} bytes", parent.virtual_size()))
            .with_expected(format_args!("at most {size} bytes, the size of the child"))
            .with_hint("make an image without a parent, or take a parent from after the disk became smaller"),
    )
}

/// Writes what the chain changes in `base` to `image`, which holds the same as the base so far. Returns the bytes
/// updated and cleared and, if that was to be checked, how what the base holds there compares with what the diffs were
/// made for.
pub(super) fn write_changes(
    base: &dyn Image,
    image: &mut dyn ImageMut,
    chain: &Chain,
    which: Changes,
    options: ApplyOptions<'_>,
) -> Result<(u64, u64, Touched)> {
    let (mut updated, mut cleared) = (0, 0);
    let write = |change: WindowChange| {
        updated += change.changes.bytes(ChangeKind::Update);
        cleared += change.changes.bytes(ChangeKind::Clear);
        change.write_to(image)
    };
    options
        .progress
        .begin("applying", base.virtual_size().max(chain.target_size()));
    let layers = Applier::new(base, chain, options.workers, options.progress);
    let touched = match which {
        Changes::Compared { check } => layers.checking(check).changes(Ok, write)?,
        Changes::Known(known) => {
            layers.change_map(known, write)?;
            Touched::default()
        }
    };
    Ok((updated, cleared, touched))
}

fn new_options(base: &dyn Opened, chain: &Chain, output: Output<'_>) -> Result<NewImageOptions> {
    Ok(NewImageOptions {
        format: output.format,
        virtual_size: chain.target_size(),
        // A dynamic disk stays in blocks of its size.
        block_size: base
            .block_size()
            .filter(|_| output.format == Format::Dynamic),
        identity: identity(chain, base.footer().cloned())?,
        parent: None,
        overwrite: output.overwrite,
        made_from: Audience::of(base.files())?.and(output.made_from.clone()),
        dense: output.dense,
    })
}

/// The footer whose identity the result takes over: the target's, or else what it had.
pub(super) fn identity(
    chain: &Chain,
    before: Option<crate::vhd::Footer>,
) -> Result<Option<crate::vhd::Footer>> {
    let Some(last) = chain.last() else {
        return Ok(before);
    };
    let footer = target_footer(last.header()).map_err(|error| error.with_path(last.name()))?;
    Ok(footer.or(before))
}

/// Compares what was made with what the last diff says its target is.
pub(super) fn check_result(path: &Path, chain: &Chain, found: ContentDigest) -> Result<()> {
    match chain.target_digest() {
        Some(expected) if expected != found => Err(Error::damaged("the result is not the target of the diff")
            .with_path(path)
            .with_field("content digest")
            .with_found(found)
            .with_expected(expected)
            .with_hint("nothing was written; the base differs outside the changed pages (check it without --base-check \
                   touched), or the memory of this machine is failing")),
        _ => Ok(()),
    }
}

/// Compares what was read back with what was written.
pub(super) fn read_back(path: &Path, found: ContentDigest, expected: ContentDigest) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(
        Error::damaged("what was read back is not what should be there")
            .with_path(path)
            .with_field("content digest")
            .with_found(found)
            .with_expected(expected)
            .with_hint("the device or the memory may be failing: check both before trying again"),
    )
}
