//! Applying diffs to a base: creating a new image.

use std::path::Path;
use std::sync::Arc;

use super::base_match::{
    BaseMatch, check_can_be_full, check_size, check_touched, checked, fit, known_digest, position,
};
use super::diffs::{format_of, target_footer};
use super::in_place::Strategy;
use super::{ChildOf, Format, NewImage, NewImageOptions, OpenImage, Opened, ParentOptions};
use crate::diff::{Applier, BaseCheck, Chain, ChangeMap, DiffFile, Touched, WindowChange};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{ContentDigest, Image, ImageMut, content_digest};
use crate::page::ChangeKind;
use crate::parallel::Workers;
use crate::progress::Progress;
use crate::remedy::{Choice, Remedy, Step};
use crate::storage::{Audience, Overwrite};
use crate::vhd::VhdImage;

/// Options for applying diffs.
#[derive(Clone, Copy)]
pub struct ApplyOptions<'a> {
    /// The threads that read, unpack and hash.
    pub workers: &'a Workers,
    /// Receives progress.
    pub progress: &'a dyn Progress,
    /// How the base is checked.
    pub check: BaseCheck,
    /// Whether to read the result back and compare it.
    pub verify: bool,
    /// Where to look for the parents of a differencing VHD.
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

/// How thoroughly the base was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BaseChecked {
    /// All of it was read. Its content digest is the one in the diff or, if the diff doesn't contain it, the result has
    /// the content digest of the diff's target.
    Full,
    /// The data under the changed pages matches the diff; the rest wasn't read.
    Touched,
    /// Some frames of the diff don't record a hash of the base; the others match.
    Partly,
    /// A valid state stamp of the file, or the list of window hashes next to it, contains its content digest, and the
    /// data under the changed pages matches the diff.
    Stamp,
}

/// The outcome of an apply.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applied {
    /// How many diffs at the beginning of the chain were applied to the base already.
    pub already: usize,
    /// Number of diffs.
    pub diffs: usize,
    /// How the base was checked.
    pub checked: BaseChecked,
    /// Virtual size of the result.
    pub target_size: u64,
    /// Content digest of the result, computed or taken from the diff.
    pub target_digest: Option<ContentDigest>,
    /// Bytes of the virtual disk written with data, not counting those that were right already.
    pub updated: u64,
    /// Bytes of the virtual disk made zero.
    pub cleared: u64,
    /// Whether the result was read back and verified.
    pub verified: bool,
    /// Whether an interrupted apply was finished.
    pub finished_interrupted: bool,
    /// How the base was changed in place, if it was. Also [`Clone`](Strategy::Clone) for a new image that began as a
    /// clone.
    pub strategy: Option<Strategy>,
    /// Whether the result has a state stamp.
    pub stamped: bool,
    /// Attributes of the replaced file that the result doesn't have, as text.
    pub lost: Vec<String>,
    /// Bytes of a device after the end of the disk, which were neither read nor changed.
    pub behind: u64,
}

impl Applied {
    /// An outcome in which nothing was written.
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

/// Where to create a new image, and how.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// The path.
    pub path: &'a Path,
    /// The format.
    pub format: Format,
    /// Whether it may replace a file.
    pub overwrite: Overwrite,
    /// The files, besides the base, from which the data comes: nobody gets access to the image who has none to them and
    /// the base.
    pub made_from: &'a Audience,
    /// Whether to fill all holes of the file at the end.
    pub dense: bool,
}

/// Applies `chain` to `base` and writes a new image. The base is read once and checked on the way; the image gets its
/// name only when base and result have been verified.
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

/// Applies `chain` to `base` and writes the result to `out`, sequentially and irrevocably: the base is verified before
/// the first byte is written.
///
/// # Errors
///
/// [`Mismatch`](crate::ErrorKind::Mismatch) if the chain isn't for this base, with nothing written;
/// [`Damaged`](crate::ErrorKind::Damaged) if the result isn't the target, which is known only at its end.
pub fn apply_to_pipe(
    base: &dyn Opened,
    chain: &Chain,
    (out, name): (&mut dyn ImageMut, &Path),
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    let found = check_before(base, chain, options)?;
    rebuild_checked(base, chain, found, (out, name), options).map_err(|error| match error.kind() {
        ErrorKind::Damaged => {
            error.override_hint("don't use what came through the pipe: run the command again")
        }
        _ => error,
    })
}

/// Makes sure that `base` is what `chain` is for before anything is written: how many diffs it holds already, and how it was
/// checked.
pub(super) fn check_before(
    base: &dyn Opened,
    chain: &Chain,
    options: ApplyOptions<'_>,
) -> Result<(usize, BaseChecked)> {
    check_size(base, chain)?;
    let larger = base.virtual_size().max(chain.target_size());
    let layers = Applier::new(base, chain, options.workers, options.progress);
    Ok(
        if options.check != BaseCheck::Touched && chain.base_digest().is_some() {
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
        },
    )
}

/// Writes what `chain` makes of `base`, which was checked, to `out`, which is new.
pub(super) fn rebuild_checked(
    base: &dyn Opened,
    chain: &Chain,
    (already, checked): (usize, BaseChecked),
    (out, name): (&mut dyn ImageMut, &Path),
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    let larger = base.virtual_size().max(chain.target_size());
    options.progress.begin("applying", larger);
    let layers = Applier::new(base, chain, options.workers, options.progress);
    let (rebuilt, _) = layers.rebuild(out, BaseCheck::Touched)?;
    out.flush()?;
    base.check_unchanged()?;
    check_result(name, chain, rebuilt.target_digest)?;
    Ok(written(already, checked, chain, rebuilt.target_digest))
}

/// The outcome of an apply that wrote all of the result.
fn written(already: usize, checked: BaseChecked, chain: &Chain, digest: ContentDigest) -> Applied {
    let sum = |of: fn(&DiffFile) -> u64| chain.diffs().iter().map(|diff| of(diff)).sum();
    Applied {
        target_digest: Some(digest),
        updated: sum(|diff| diff.trailer().update_bytes),
        cleared: sum(|diff| diff.trailer().clear_bytes),
        ..Applied::nothing(already, checked, chain)
    }
}

/// As [`apply_to_new`], but the new image begins as a clone of `base`, of which only the data under the changed pages
/// is read: for a base with a valid state stamp that may be trusted. Returns `None` if it can't be cloned, or if the
/// chain isn't for this base.
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

/// Applies `chain` to `base` and writes a new image: as a clone, if the base is identified by its state stamp and the
/// file system supports clones, otherwise page by page.
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

/// The format of the new image at `output` if none is specified. Its name decides between raw and VHD; the kind of VHD
/// is that of the diffs' target, or of the base.
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
        // A differencing VHD is created only on request.
        .find(|format| !matches!(format, Format::Raw | Format::Differencing));
    Ok(kind.unwrap_or(by_name))
}

/// Applies `chain` to `base` and writes a new differencing VHD, which stores only the changes and has `base` as its
/// parent. The base is checked before anything is written, as for an in-place apply.
pub fn apply_to_child(
    parent: ChildOf,
    chain: Chain,
    output: Output<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    let base = &Arc::clone(&parent.image);
    refuse_smaller_child(base, chain.target_size())?;
    let found = fit(&**base, &chain, options, &mut None)?;
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

/// Writes the changes of `rest`, the remaining part of the chain, to `new`, which currently reads like the base, and
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

/// How the pages to change are determined.
pub(super) enum Changes {
    /// By comparing the base under the pages of the diffs. With `check`, it is also compared with what the diffs
    /// expect.
    Compared { check: bool },
    /// An earlier pass determined and checked them.
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
            .with_hint("create an image without a parent, or use a parent from after the disk became smaller"),
    )
}

/// Writes the chain's changes of `base` to `image`, which currently has the same contents as the base. Returns the
/// bytes updated and cleared and, if requested, the result of comparing the base with what the diffs expect.
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

/// The bytes that the chain updates and clears in `base`, and with `check` what looking under them showed.
pub(super) fn count_changes(
    base: &dyn Image,
    chain: &Chain,
    check: bool,
    options: ApplyOptions<'_>,
) -> Result<(u64, u64, Touched)> {
    let (mut updated, mut cleared) = (0, 0);
    options
        .progress
        .begin("counting", base.virtual_size().max(chain.target_size()));
    let touched = Applier::new(base, chain, options.workers, options.progress)
        .checking(check)
        .changes(Ok, |change: WindowChange| {
            updated += change.changes.bytes(ChangeKind::Update);
            cleared += change.changes.bytes(ChangeKind::Clear);
            Ok(())
        })?;
    Ok((updated, cleared, touched))
}

fn new_options(base: &dyn Opened, chain: &Chain, output: Output<'_>) -> Result<NewImageOptions> {
    Ok(NewImageOptions {
        format: output.format,
        virtual_size: chain.target_size(),
        // A dynamic disk keeps its block size.
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

/// The footer whose identity the result adopts: that of the target, otherwise that of the base.
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

/// Compares the result with the last diff's target.
pub(super) fn check_result(path: &Path, chain: &Chain, found: ContentDigest) -> Result<()> {
    match chain.target_digest() {
        Some(expected) if expected != found => {
            Err(Error::damaged("the result is not the target of the diff")
                .with_path(path)
                .with_field("content digest")
                .with_found(found)
                .with_expected(expected)
                .with_remedy(
                    Remedy::new(
                        "nothing was written; the base differs outside the changed pages (",
                    )
                    .named("check it without ")
                    .step(Step::Choose(Choice::CheckTouched), "have all of it checked")
                    .text("), or the memory of this machine is failing"),
                ))
        }
        _ => Ok(()),
    }
}

/// Compares the data read back with the data written.
pub(super) fn read_back(path: &Path, found: ContentDigest, expected: ContentDigest) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(
        Error::damaged("the data read back differs from the data written")
            .with_path(path)
            .with_field("content digest")
            .with_found(found)
            .with_expected(expected)
            .with_hint("the device or the memory may be failing: check both before trying again"),
    )
}
