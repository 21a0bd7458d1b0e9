//! Determines whether a chain of diffs is for a given base.

use std::path::Path;

use super::options::{ApplyOptions, BaseChecked};
use super::write::check_result;
use crate::diff::{Applier, BaseCheck, Chain, Direction, Touched};
use crate::error::{Error, Result};
use crate::files::kept::{self, NewList};
use crate::files::state::stamped_digest;
use crate::files::{ImageWindows, Opened};
use crate::image::ContentDigest;
use crate::remedy::{Choice, Remedy, Step};
use crate::text::shown;

/// The position of a base in a chain.
#[derive(Debug, Clone, Copy)]
pub(in crate::files) struct BaseMatch {
    /// How many diffs were applied to it already.
    pub(in crate::files) already: usize,
    pub(in crate::files) checked: BaseChecked,
    /// Its content digest, if it was computed, now or for its state stamp.
    pub(in crate::files) digest: Option<ContentDigest>,
    /// The content digest of the result, if it was computed.
    pub(in crate::files) target: Option<ContentDigest>,
}

/// The content digest from the list next to an image or from its state stamp, if either is valid.
pub(in crate::files) fn known_digest(base: &dyn Opened) -> Result<Option<ContentDigest>> {
    match (kept_list(base), base.as_file()) {
        (Some(list), _) => Ok(Some(list.digest())),
        (None, Some(file)) => stamped_digest(file),
        (None, None) => Ok(base.noted_digest()),
    }
}

/// The list beside an image, if there is one that counts.
fn kept_list(base: &dyn Opened) -> Option<ImageWindows> {
    let kept = base.as_file().and_then(kept::find);
    kept.and_then(|kept| kept.current)
}

/// Determines whether the chain, or a later part of it, is for `base`, as far as possible without reading under the
/// changed pages (see [`is_open`](BaseMatch::is_open)). The diffs' target digest is compared with the predicted result
/// before anything is written. A `list` becomes that of the result, or `None`.
pub(in crate::files) fn fit(
    base: &dyn Opened,
    chain: &Chain,
    options: ApplyOptions<'_>,
    list: &mut Option<NewList>,
) -> Result<BaseMatch> {
    check_size(base, chain)?;
    check_can_be_full(base, chain, options)?;
    let by_digest = options.check != BaseCheck::Touched && chain.base_digest().is_some();
    if by_digest
        && options.check.by_stamp()
        && let Some(known) = fit_known(base, chain, options, list)?
    {
        return Ok(known);
    }
    if options.check == BaseCheck::Touched
        || (chain.base_digest(), chain.target_digest()) == (None, None)
    {
        *list = None;
        return Ok(BaseMatch {
            already: 0,
            checked: BaseChecked::Touched,
            digest: None,
            target: None,
        });
    }
    if list.is_some() {
        // Starts from the beginning.
        let file = base.as_file();
        *list = file.and_then(|file| NewList::begin(file, chain.target_size()));
    }
    let size = base.virtual_size().max(chain.target_size());
    options.work.progress.begin("checking the base", size);
    let layers = Applier::new(base, chain, options.work.workers, options.work.progress);
    let (digest, target) = layers.digests(|start, hashes| {
        if let Some(list) = list {
            list.push(start, hashes);
        }
    })?;
    let already = if by_digest {
        position(base, chain, digest)?
    } else {
        // The digest of the base isn't known, but that of the result is.
        chain.already_applied(digest)
    };
    check_result(base.path(), chain, target)?;
    Ok(BaseMatch {
        already,
        checked: BaseChecked::Full,
        digest: Some(digest),
        target: Some(target),
    })
}

/// As [`fit`], without reading all of the base, by the list next to it or by its state stamp. Returns `None` if neither
/// is valid or sufficient to determine the result.
fn fit_known(
    base: &dyn Opened,
    chain: &Chain,
    options: ApplyOptions<'_>,
    list: &mut Option<NewList>,
) -> Result<Option<BaseMatch>> {
    let kept = kept_list(base);
    let digest = match &kept {
        Some(kept) => Some(kept.digest()),
        None => known_digest(base)?,
    };
    let Some(digest) = digest else {
        return Ok(None);
    };
    let Ok(already) = position(base, chain, digest) else {
        return Ok(None);
    };
    let fit = BaseMatch {
        already,
        checked: BaseChecked::Stamp,
        digest: Some(digest),
        target: None,
    };
    if let Some(kept) = kept.filter(|_| already < chain.diffs().len()) {
        let size = base.virtual_size();
        options
            .work
            .progress
            .begin("checking the changed windows", size);
        let layers = Applier::new(base, chain, options.work.workers, options.work.progress);
        let target = layers.digest_by_list(&kept, |start, hashes| {
            if let Some(list) = list {
                list.push(start, hashes);
            }
        })?;
        if let Some(target) = target {
            check_result(base.path(), chain, target)?;
            return Ok(Some(BaseMatch {
                target: Some(target),
                ..fit
            }));
        }
    }
    let enough = already == chain.diffs().len()
        || chain.target_digest().is_none()
        || options.check == BaseCheck::Trusted;
    if enough {
        *list = None;
    }
    Ok(enough.then_some(fit))
}

impl BaseMatch {
    /// Returns whether the base's data under the changed pages still has to be compared with what the diffs expect.
    /// That happens while the changes are written somewhere else, which must not be used before
    /// [`settle`](Self::settle) has examined the outcome.
    pub(in crate::files) fn is_open(&self) -> bool {
        self.checked != BaseChecked::Full
    }

    /// Returns how the base was checked, given the outcome of that comparison. Returns `None` if it already holds the
    /// result.
    pub(in crate::files) fn settle(
        &self,
        base: &dyn Opened,
        chain: &Chain,
        touched: &Touched,
    ) -> Result<Option<BaseChecked>> {
        match self.checked {
            BaseChecked::Full => Ok(Some(BaseChecked::Full)),
            BaseChecked::Stamp => check_stamped(base, chain, touched).map(|()| Some(self.checked)),
            BaseChecked::Touched | BaseChecked::Partly => {
                if touched.already_applied && base.virtual_size() == chain.target_size() {
                    return Ok(None);
                }
                check_touched(base, chain, touched)?;
                Ok(Some(checked(touched)))
            }
        }
    }
}

pub(in crate::files) fn checked(touched: &Touched) -> BaseChecked {
    if touched.unknown {
        BaseChecked::Partly
    } else {
        BaseChecked::Touched
    }
}

/// Fails if a full check is requested but the diffs don't contain the base's digest.
pub(in crate::files) fn check_can_be_full(
    base: &dyn Opened,
    chain: &Chain,
    options: ApplyOptions<'_>,
) -> Result<()> {
    if options.check != BaseCheck::Full || chain.base_digest().is_some() {
        return Ok(());
    }
    Err(
        Error::usage("the base can't be checked in full: the diff has no content digest of it")
            .with_path(base.path())
            .with_found(format_args!(
                "{} without a content digest of its base",
                first_name(chain)
            ))
            .with_remedy(
                Remedy::new("create the diff ")
                    .named("without ")
                    .step(Step::Choose(Choice::NoDigests), "with content digests")
                    .text("; or ")
                    .named("omit ")
                    .step(
                        Step::Choose(Choice::BaseCheck),
                        "don't ask for all of it to be checked",
                    )
                    .text(" to compare only the data under the changed pages"),
            ),
    )
}

/// Returns how many diffs were applied already to a base with this digest.
pub(in crate::files) fn position(
    base: &dyn Opened,
    chain: &Chain,
    digest: ContentDigest,
) -> Result<usize> {
    if chain.base_digest() == Some(digest) {
        return Ok(0);
    }
    match chain.already_applied(digest) {
        0 => Err(not_its_base(base, chain)
            .with_field("content digest")
            .with_found(digest)
            .with_expected(match chain.base_digest() {
                Some(expected) => format!("{expected}, which {}", starts(chain)),
                None => first_name(chain),
            })),
        already => Ok(already),
    }
}

pub(in crate::files) fn check_size(base: &dyn Opened, chain: &Chain) -> Result<()> {
    let size = base.virtual_size();
    let known = chain
        .diffs()
        .iter()
        .any(|diff| diff.header().target_size == size);
    if size == chain.base_size() || known {
        return Ok(());
    }
    Err(Error::mismatch(match chain.direction() {
        Direction::Forward => "the diff was made from an image of another size",
        Direction::Back => "the diff leads to an image of another size",
    })
    .with_path(base.path())
    .with_field("virtual size")
    .with_found(format_args!("{size} bytes"))
    .with_expected(format_args!(
        "{} bytes, which {}",
        chain.base_size(),
        starts(chain)
    ))
    .with_hint("use the right base, or the diff that belongs to this one"))
}

/// Fails if the base doesn't match its state stamp, as far as the data under the changed pages shows.
fn check_stamped(base: &dyn Opened, chain: &Chain, touched: &Touched) -> Result<()> {
    check_touched(base, chain, touched).map_err(|error| {
        error.override_remedy(
            Remedy::new(
                "its state stamp says that it is, so something wrote to the file without updating it, or the device is \
                 failing: ",
            )
            .named("use ")
            .step(Step::Choose(Choice::CheckWholeBase), "have the whole base checked")
            .text(" to read all of it"),
        )
    })
}

pub(in crate::files) fn check_touched(
    base: &dyn Opened,
    chain: &Chain,
    touched: &Touched,
) -> Result<()> {
    let Some(mismatch) = &touched.mismatch else {
        return Ok(());
    };
    let name = chain
        .diffs()
        .get(mismatch.diff)
        .map_or(Path::new("the diff"), |diff| diff.name());
    Err(not_its_base(base, chain)
        .with_field("virtual disk")
        .with_offset(mismatch.range.start())
        .with_found("other bytes under the pages that the diff changes")
        .with_expected(match chain.direction() {
            Direction::Forward => format!("what {} was made from", shown(&name)),
            Direction::Back => format!("what {} leads to", shown(&name)),
        }))
}

/// The common part of errors about a base that the chain isn't for.
fn not_its_base(base: &dyn Opened, chain: &Chain) -> Error {
    match chain.direction() {
        Direction::Forward => Error::mismatch("this is not the image that the diff was made from").with_hint(
            "bring the image to that point in time first: apply the earlier diffs, or use the right base",
        ),
        Direction::Back => Error::mismatch("this is not the image that the diff leads to").with_hint(
            "to go back, start with the image at that point in time: undo the newer diffs first",
        ),
    }
    .with_path(base.path())
}

/// Describes which diff the chain starts with.
fn starts(chain: &Chain) -> String {
    match chain.direction() {
        Direction::Forward => format!("{} starts from", first_name(chain)),
        Direction::Back => format!("{} leads to", first_name(chain)),
    }
}

fn first_name(chain: &Chain) -> String {
    chain.first().map_or_else(String::new, |diff| {
        diff.name().to_string_lossy().into_owned()
    })
}
