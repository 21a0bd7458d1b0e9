//! Applying diffs to a base: what is checked first, and how a new image is made.

use std::path::Path;
use std::sync::Arc;

use super::diffs::target_footer;
use super::in_place::Strategy;
use super::state::stamped_digest;
use super::{Format, NewImage, NewImageOptions, OpenImage, ParentOptions, Source};
use crate::diff::{BaseCheck, Chain, DiffFile, KnownChanges, Layers, Touched, Way, WindowChange};
use crate::error::{Error, Result};
use crate::image::{ContentDigest, Image, ImageMut, content_digest};
use crate::page::ChangeKind;
use crate::parallel::Workers;
use crate::progress::Progress;
use crate::storage::Overwrite;
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
pub enum BaseChecked {
    /// Its content digest is the one that the diff names.
    Full,
    /// What it held under the changed pages is what the diff says; the rest wasn't looked at.
    Touched,
    /// Some frames of the diff don't say what the base held; the others fit.
    Partly,
    /// A valid state stamp of the file names its content digest, and what it held under the changed pages is what
    /// the diff says.
    Stamp,
}

/// What became of an apply.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Where in a chain a base stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit {
    /// How many diffs it holds already.
    pub(super) already: usize,
    pub(super) checked: BaseChecked,
    /// Its content digest, if that was computed.
    pub(super) digest: Option<ContentDigest>,
}

/// Finds out whether `base` is what the chain, or a later part of it, is for; as far as that can be told without looking
/// under the changed pages, if it [is open](Fit::is_open).
pub(super) fn fit(base: &OpenImage, chain: &Chain, options: ApplyOptions<'_>) -> Result<Fit> {
    check_size(base, chain)?;
    let (workers, progress) = (options.workers, options.progress);
    let by_digest = options.check != BaseCheck::Touched && chain.base_digest().is_some();
    if let Some(digest) = stamped_digest(base)?
        && by_digest
        && options.check == BaseCheck::Stamped
        && let Ok(already) = position(base, chain, digest)
    {
        return Ok(Fit {
            already,
            checked: BaseChecked::Stamp,
            digest: Some(digest),
        });
    }
    if by_digest {
        progress.begin("checking the base", base.virtual_size());
        let digest = content_digest(base, workers, progress)?;
        let already = position(base, chain, digest)?;
        return Ok(Fit {
            already,
            checked: BaseChecked::Full,
            digest: Some(digest),
        });
    }
    Ok(Fit {
        already: 0,
        checked: BaseChecked::Touched,
        digest: None,
    })
}

impl Fit {
    /// Whether what the base holds under the changed pages is still to be compared with what the diffs were made for.
    /// That is done while the changes are made somewhere else: nothing that was made may be used before
    /// [`settle`](Self::settle) has seen the outcome.
    pub(super) fn is_open(&self) -> bool {
        self.checked != BaseChecked::Full
    }

    /// How the base was checked, with the outcome of that comparison. `None` if it holds the result already.
    pub(super) fn settle(
        &self,
        base: &OpenImage,
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

fn checked(touched: &Touched) -> BaseChecked {
    if touched.unknown {
        BaseChecked::Partly
    } else {
        BaseChecked::Touched
    }
}

/// How many diffs a base with this digest holds already.
fn position(base: &dyn Source, chain: &Chain, digest: ContentDigest) -> Result<usize> {
    if chain.base_digest() == Some(digest) {
        return Ok(0);
    }
    match chain.already_applied(digest) {
        0 => Err(not_its_base(base, chain)
            .field("content digest")
            .found(digest)
            .expected(match chain.base_digest() {
                Some(expected) => format!("{expected}, which {}", starts(chain)),
                None => first_name(chain),
            })),
        already => Ok(already),
    }
}

fn check_size(base: &dyn Source, chain: &Chain) -> Result<()> {
    let size = base.virtual_size();
    let known = chain
        .diffs()
        .iter()
        .any(|diff| diff.header().target_size == size);
    if size == chain.base_size() || known {
        return Ok(());
    }
    Err(Error::mismatch(match chain.way() {
        Way::Forward => "the diff was made from an image of another size",
        Way::Back => "the diff leads to an image of another size",
    })
    .path(base.path())
    .field("virtual size")
    .found(format_args!("{size} bytes"))
    .expected(format_args!(
        "{} bytes, which {}",
        chain.base_size(),
        starts(chain)
    ))
    .hint("take the right base, or the diff that belongs to this one"))
}

/// An error if the base isn't what its state stamp says, as far as the bytes under the changed pages tell.
fn check_stamped(base: &OpenImage, chain: &Chain, touched: &Touched) -> Result<()> {
    check_touched(base, chain, touched).map_err(|error| {
        error.hint(
            "its state stamp says that it is, so somebody wrote past it, or the device is failing: say --base-check \
             full to have all of it read",
        )
    })
}

fn check_touched(base: &dyn Source, chain: &Chain, touched: &Touched) -> Result<()> {
    let Some(misfit) = &touched.misfit else {
        return Ok(());
    };
    let name = chain
        .diffs()
        .get(misfit.diff)
        .map_or(Path::new("the diff"), DiffFile::name);
    Err(not_its_base(base, chain)
        .field("virtual disk")
        .offset(misfit.range.start())
        .found("other bytes under the pages that the diff changes")
        .expected(match chain.way() {
            Way::Forward => format!("what {} was made from", name.display()),
            Way::Back => format!("what {} leads to", name.display()),
        }))
}

/// The beginning of an error about a base that the chain isn't for.
fn not_its_base(base: &dyn Source, chain: &Chain) -> Error {
    match chain.way() {
        Way::Forward => Error::mismatch("this is not the image that the diff was made from").hint(
            "bring the image to that point in time first: apply the earlier diffs, or take the right base",
        ),
        Way::Back => Error::mismatch("this is not the image that the diff leads to").hint(
            "to go back, begin with the image at that point in time: take the newer diffs back first",
        ),
    }
    .path(base.path())
}

/// Says which diff starts where the chain does.
fn starts(chain: &Chain) -> String {
    match chain.way() {
        Way::Forward => format!("{} starts from", first_name(chain)),
        Way::Back => format!("{} leads to", first_name(chain)),
    }
}

fn first_name(chain: &Chain) -> String {
    chain
        .first()
        .map_or_else(String::new, |diff| diff.name().display().to_string())
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
}

/// Applies `chain` to `base` into a new image. The base is read once and checked on the way; the image gets its
/// name only when base and result were found right.
pub fn apply_to_new(
    base: &dyn Source,
    chain: &Chain,
    output: Output<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    check_size(base, chain)?;
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
    let layers = Layers::new(base, chain, options.workers, options.progress);
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
    if options.verify {
        new.image_mut().flush()?;
        options.progress.begin("verifying", chain.target_size());
        let found = content_digest(new.image(), options.workers, options.progress)?;
        read_back(output.path, found, rebuilt.target_digest)?;
    }
    let stamped = new.publish_stamped(rebuilt.target_digest)?;
    let sum = |of: fn(&DiffFile) -> u64| chain.diffs().iter().map(of).sum();
    Ok(Applied {
        target_digest: Some(rebuilt.target_digest),
        updated: sum(|diff| diff.trailer().update_bytes),
        cleared: sum(|diff| diff.trailer().clear_bytes),
        verified: options.verify,
        stamped,
        ..Applied::nothing(already, checked, chain)
    })
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
    let trusted =
        options.check == BaseCheck::Stamped && stamped_digest(base)? == chain.base_digest();
    if !trusted || chain.base_digest().is_none() {
        return Ok(None);
    }
    let Some(new) = NewImage::clone_of(base, output.path, &new_options(base, chain, output)?)?
    else {
        return Ok(None);
    };
    let found = fit(base, chain, options)?;
    let applied = Applied {
        strategy: Some(Strategy::Clone),
        ..Applied::nothing(found.already, found.checked, chain)
    };
    write_to(new, base, Some(chain), found, applied, output.path, options).map(Some)
}

/// Applies `chain` to `base` into a new differencing VHD, which stores only what changed and has `base` as its
/// parent. The base is checked before anything is written, as for an apply in place.
pub fn apply_to_child(
    base: &Arc<OpenImage>,
    chain: Chain,
    output: Output<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    refuse_smaller_child(base, chain.target_size())?;
    let found = fit(base, &chain, options)?;
    let applied = Applied::nothing(found.already, found.checked, &chain);
    let new = NewImage::create(
        output.path,
        &NewImageOptions {
            parent: Some(Arc::clone(base)),
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
    found: Fit,
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
    if let Some(expected) = applied.target_digest.filter(|_| options.verify) {
        new.image_mut().flush()?;
        options.progress.begin("verifying", applied.target_size);
        let digest = content_digest(new.image(), options.workers, options.progress)?;
        read_back(path, digest, expected)?;
        applied.verified = true;
    }
    let certain = applied.verified || found.digest.is_some();
    match applied.target_digest.filter(|_| certain) {
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
    Known(KnownChanges),
}

fn refuse_smaller_child(parent: &OpenImage, size: u64) -> Result<()> {
    if size >= parent.virtual_size() {
        return Ok(());
    }
    Err(
        Error::usage("a differencing VHD can't be smaller than its parent")
            .path(parent.path())
            .field("virtual size")
            .found(format_args!("{} bytes", parent.virtual_size()))
            .expected(format_args!("at most {size} bytes, the size of the child"))
            .hint("make an image that stands alone; or take a parent from after the disk became smaller"),
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
    let layers = Layers::new(base, chain, options.workers, options.progress);
    let touched = match which {
        Changes::Compared { check } => layers.checking(check).changes(Ok, write)?,
        Changes::Known(known) => {
            layers.known_changes(known, write)?;
            Touched::default()
        }
    };
    Ok((updated, cleared, touched))
}

fn new_options(base: &dyn Source, chain: &Chain, output: Output<'_>) -> Result<NewImageOptions> {
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
    let footer = target_footer(last.header()).map_err(|error| error.path(last.name()))?;
    Ok(footer.or(before))
}

/// Compares what was made with what the last diff says its target is.
fn check_result(path: &Path, chain: &Chain, found: ContentDigest) -> Result<()> {
    match chain.target_digest() {
        Some(expected) if expected != found => Err(Error::damaged("the result is not the target of the diff")
            .path(path)
            .field("content digest")
            .found(found)
            .expected(expected)
            .hint("nothing was written; the base differs outside the changed pages (check it without --base-check \
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
            .path(path)
            .field("content digest")
            .found(found)
            .expected(expected)
            .hint("the device or the memory may be failing: check both before trying again"),
    )
}
