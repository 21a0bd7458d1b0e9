//! Applying diffs to a base: creating a new image.

use std::path::Path;
use std::sync::Arc;

use super::base_match::{
    BaseMatch, check_can_be_full, check_size, check_touched, checked, fit, known_digest, position,
};
use super::options::{Applied, ApplyOptions, BaseChecked, Output, Strategy};
use super::write::{Changes, check_result, identity, read_back, write_changes};
use crate::diff::{Applier, BaseCheck, Chain, DiffFile};
use crate::error::{Error, ErrorKind, Result};
use crate::files::diffs::format_of;
use crate::files::{ChildOf, Format, NewImage, NewImageOptions, OpenImage, Opened};
use crate::image::{ContentDigest, Image as _, ImageMut, content_digest};
use crate::storage::Audience;
use crate::vhd::VhdImage;

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
        .work
        .progress
        .begin("applying", base.virtual_size().max(chain.target_size()));
    let layers = Applier::new(base, chain, options.work.workers, options.work.progress);
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
    new.complete(options.work.progress)?;
    if options.verify {
        options
            .work
            .progress
            .begin("verifying", chain.target_size());
        let found = content_digest(new.image(), options.work.workers, options.work.progress)?;
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
pub(in crate::files) fn check_before(
    base: &dyn Opened,
    chain: &Chain,
    options: ApplyOptions<'_>,
) -> Result<(usize, BaseChecked)> {
    check_size(base, chain)?;
    let larger = base.virtual_size().max(chain.target_size());
    let layers = Applier::new(base, chain, options.work.workers, options.work.progress);
    Ok(
        if options.check != BaseCheck::Touched && chain.base_digest().is_some() {
            options
                .work
                .progress
                .begin("checking the base", base.virtual_size());
            let digest = content_digest(base, options.work.workers, options.work.progress)?;
            (position(base, chain, digest)?, BaseChecked::Full)
        } else {
            options.work.progress.begin("checking the base", larger);
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
pub(in crate::files) fn rebuild_checked(
    base: &dyn Opened,
    chain: &Chain,
    (already, checked): (usize, BaseChecked),
    (out, name): (&mut dyn ImageMut, &Path),
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    let larger = base.virtual_size().max(chain.target_size());
    options.work.progress.begin("applying", larger);
    let layers = Applier::new(base, chain, options.work.workers, options.work.progress);
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
            base: Some(base),
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
    new.complete(options.work.progress)?;
    if let Some(expected) = applied.target_digest.filter(|_| options.verify) {
        options
            .work
            .progress
            .begin("verifying", applied.target_size);
        let digest = content_digest(new.image(), options.work.workers, options.work.progress)?;
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
