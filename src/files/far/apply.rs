//! Applying diffs to an image in a page blob, or to a new one.

use super::change::{self, Change};
use super::image::BlobImage;
use super::marks::{self, Applying, Mark, NAME};
use super::new::NewBlobImage;
use super::snapshots::{current, named};
use crate::blob::{BlobFile, BlobName, Connector, Listed, MAX_BLOB};
use crate::diff::{Applier, Chain};
use crate::error::{Error, ErrorKind, Result};
use crate::files::apply::base_match::{BaseMatch, fit};
use crate::files::apply::new::{check_before, rebuild_checked};
use crate::files::apply::options::{Applied, ApplyOptions, BaseChecked};
use crate::files::apply::write::{count_changes, read_back};
use crate::files::{Format, FormatChoice, Opened};
use crate::image::{ContentDigest, Image as _, content_digest};
use crate::page::PAGE_SIZE;
use crate::storage::ReadAt as _;

/// Options that only an apply to a blob has.
#[derive(Clone, Copy, Default)]
pub struct BlobApply<'a> {
    /// The format of the base, unless it is to be probed.
    pub format: Option<FormatChoice>,
    /// The name of the format option, for messages.
    pub format_option: Option<&'a str>,
    /// Check everything, write nothing.
    pub dry_run: bool,
    /// The name of a blob snapshot that is taken of the result.
    pub snapshot: Option<&'a str>,
    /// Receives problems with the base that don't prevent reading it.
    pub warn: Option<&'a (dyn Fn(&Error) + Sync)>,
}

impl std::fmt::Debug for BlobApply<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobApply")
            .field("format", &self.format)
            .field("dry_run", &self.dry_run)
            .field("snapshot", &self.snapshot)
            .finish_non_exhaustive()
    }
}

/// The outcome of an apply to a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobApplied {
    /// The outcome as for a file.
    pub applied: Applied,
    /// The time of the snapshot of the result, which may have existed before.
    pub snapshot: Option<String>,
    /// The time of the snapshot that served as checkpoint, if it existed before and is kept.
    pub fell_back_on: Option<String>,
}

impl BlobApplied {
    fn of(applied: Applied) -> Self {
        Self {
            applied,
            snapshot: None,
            fell_back_on: None,
        }
    }
}

/// Applies `chain` to the image in the blob called `name`, or finishes the same apply that was interrupted.
///
/// # Errors
///
/// [`Mismatch`](ErrorKind::Mismatch) if the chain isn't for what the blob holds; [`Locked`](ErrorKind::Locked) if
/// another program writes to it; [`Pending`](ErrorKind::Pending) if an apply of other diffs was interrupted.
pub fn apply_to_blob(
    connector: &Connector,
    name: &BlobName,
    chain: &Chain,
    how: BlobApply<'_>,
    options: ApplyOptions<'_>,
) -> Result<BlobApplied> {
    if how.dry_run {
        let image = read(connector, name, how)?;
        let Checked {
            mut applied, rest, ..
        } = Checked::new(&image, chain, options)?;
        if let Some(rest) = rest {
            (applied.updated, applied.cleared, _) = count_changes(&image, &rest, false, options)?;
        }
        return Ok(BlobApplied::of(applied));
    }
    let (blob, mark) = change::open(connector, name)?;
    match mark {
        None => {}
        Some(Mark::Applying(mark)) => return finish(blob, mark, chain, how, options),
        Some(_) => change::refuse(&blob)?,
    }
    // From here on nobody else can write.
    let image = read(connector, name, how)?;
    let latest = current(&blob);
    let image = image.with_digest(latest.as_ref().and_then(|latest| latest.digest));
    let taken = point(&blob, how)?;
    let checked = Checked::new(&image, chain, options)?;
    let Checked {
        mut applied, found, ..
    } = checked;
    let Some(rest) = checked.rest else {
        let digest = found.digest.filter(|_| found.already == applied.diffs);
        return Ok(BlobApplied {
            snapshot: take_point(&blob, (digest, taken), how)?,
            ..BlobApplied::of(applied)
        });
    };
    refuse_taken(&blob, taken.as_ref(), how)?;
    check_size(&blob, image.format(), &rest)?;
    image.check_unchanged()?;
    let fell_back_on = latest.map(|latest| latest.time);
    let checkpoint = if let Some(time) = &fell_back_on {
        (time.clone(), false)
    } else {
        let holds = marks::checkpoint(&blob.properties().metadata, found.digest);
        (blob.take_snapshot(&holds)?, true)
    };
    let mark = Applying {
        checkpoint: checkpoint.0,
        own: checkpoint.1,
        diffs: marks::identity(&rest.identities()),
        target: found.target,
        copy: None,
    };
    let change = Change::begin(blob, mark, image.format())?;
    let wrote = change.write(&rest, options)?;
    let read_back = rest.target_digest().filter(|_| options.verify);
    if let Some(expected) = read_back {
        change.verify(&rest, Some(expected), options)?;
        applied.verified = true;
    }
    (applied.updated, applied.cleared) = wrote;
    let certain = read_back.or(found.target);
    applied.stamped = certain.is_some();
    let blob = change.end(certain)?;
    Ok(BlobApplied {
        snapshot: take_point(&blob, (certain, None), how)?,
        applied,
        fell_back_on,
    })
}

/// Finishes an apply that was interrupted, if it was of these diffs.
fn finish(
    blob: BlobFile,
    mark: Applying,
    chain: &Chain,
    how: BlobApply<'_>,
    options: ApplyOptions<'_>,
) -> Result<BlobApplied> {
    let Some(left) = mark.was_of(chain) else {
        let error = Error::new(
            ErrorKind::Pending,
            "an apply of other diffs to this blob was interrupted",
        );
        return Err(error
            .with_path(blob.name())
            .with_found(format_args!(
                "the snapshot {}, which holds what was there before",
                mark.checkpoint
            ))
            .with_remedy(marks::how_to_go_on(blob.name())));
    };
    let taken = point(&blob, how)?;
    refuse_taken(&blob, taken.as_ref(), how)?;
    let already = chain.diffs().len() - left;
    let mut applied = Applied {
        finished_interrupted: true,
        ..Applied::nothing(already, BaseChecked::Full, chain)
    };
    let Some(rest) = chain.clone().without_first(already) else {
        return Ok(BlobApplied::of(applied));
    };
    let fell_back_on = (!mark.own).then(|| mark.checkpoint.clone());
    let digest = mark.target;
    let change = Change::resume(blob, mark)?;
    (applied.updated, applied.cleared) = change.write(&rest, options)?;
    // Another program may have interfered since the interruption.
    change.verify(&rest, digest, options)?;
    applied.verified = true;
    applied.stamped = digest.is_some();
    let blob = change.end(digest)?;
    Ok(BlobApplied {
        snapshot: take_point(&blob, (digest, None), how)?,
        applied,
        fell_back_on,
    })
}

/// Undoes an interrupted apply to the blob called `name`, which then has the old point in time again. Returns its digest if it
/// is known.
pub fn roll_back_blob(
    connector: &Connector,
    name: &BlobName,
    options: ApplyOptions<'_>,
) -> Result<Option<ContentDigest>> {
    let (blob, mark) = change::open(connector, name)?;
    match mark {
        Some(Mark::Applying(mark)) => Change::take_back(&blob, &mark, options),
        Some(_) => change::refuse(&blob).map(|()| None),
        None => Err(Error::usage(
            "there is nothing to roll back: no apply to this blob was interrupted",
        )
        .with_path(blob.name())
        .with_hint(
            "to go back to an earlier point in time, restore a snapshot of the blob to a new one",
        )),
    }
}

/// Applies `chain` to `base` into a new blob, which `create` makes once the base is known to be the right one.
pub fn apply_to_new_blob(
    base: &dyn Opened,
    chain: &Chain,
    create: impl FnOnce() -> Result<NewBlobImage>,
    options: ApplyOptions<'_>,
) -> Result<Applied> {
    let found = check_before(base, chain, options)?;
    let mut new = create()?;
    new.begin_anew()?;
    let name = new.name().to_path_buf();
    let hint = |error: Error| {
        match error.kind() {
        ErrorKind::Damaged => error.override_hint(
            "the new blob is marked as incomplete: find out what is wrong with base or diff, and run the command again",
        ),
        _ => error,
    }
    };
    let out = (new.image_mut(), name.as_path());
    let mut applied = rebuild_checked(base, chain, found, out, options).map_err(hint)?;
    if let Some(expected) = applied.target_digest.filter(|_| options.verify) {
        options
            .work
            .progress
            .begin("verifying", chain.target_size());
        let written = new.written(chain.target_size());
        let digest = content_digest(&written, options.work.workers, options.work.progress)?;
        read_back(&name, digest, expected).map_err(hint)?;
        applied.verified = true;
    }
    new.publish(applied.target_digest)?;
    applied.stamped = applied.target_digest.is_some();
    Ok(applied)
}

/// Opens the image in a blob that may be changed.
fn read(connector: &Connector, name: &BlobName, how: BlobApply<'_>) -> Result<BlobImage> {
    let image = BlobImage::open(connector.open(name)?, how.format, how.format_option)?;
    if let Some(warn) = how.warn {
        image.warnings().into_iter().for_each(warn);
    }
    if image.format() == Format::Dynamic {
        return Err(Error::unsupported(
            "diffs are applied only to a fixed VHD or a raw disk in a blob",
        )
        .with_path(name.shown())
        .with_found("a dynamic VHD")
        .with_hint("make a new blob instead, which is a fixed VHD"));
    }
    Ok(image)
}

/// A base that was checked.
struct Checked {
    applied: Applied,
    found: BaseMatch,
    /// The diffs that remain to be applied.
    rest: Option<Chain>,
}

impl Checked {
    fn new(image: &BlobImage, chain: &Chain, options: ApplyOptions<'_>) -> Result<Self> {
        let found = fit(image, chain, options, &mut None)?;
        let diffs = chain.diffs().len();
        let mut applied = Applied {
            target_digest: chain
                .target_digest()
                .or(found.target)
                .or(found.digest.filter(|_| found.already == diffs)),
            ..Applied::nothing(found.already, found.checked, chain)
        };
        let mut rest = chain.clone().without_first(found.already);
        if let Some(left) = rest.as_ref().filter(|_| found.is_open()) {
            let larger = image.virtual_size().max(left.target_size());
            options.work.progress.begin("checking the base", larger);
            let layers = Applier::new(image, left, options.work.workers, options.work.progress);
            let touched = layers.check_touched()?;
            if let Some(checked) = found.settle(image, left, &touched)? {
                applied.checked = checked;
            } else {
                (applied.already, rest) = (diffs, None);
            }
        }
        Ok(Self {
            applied,
            found,
            rest,
        })
    }
}

/// An error if the result is larger than a blob can be.
fn check_size(blob: &BlobFile, format: Format, chain: &Chain) -> Result<()> {
    let footer = if format == Format::Raw { 0 } else { PAGE_SIZE };
    let size = chain.target_size().saturating_add(footer);
    if size <= MAX_BLOB {
        return Ok(());
    }
    Err(Error::usage("the image is larger than a page blob can be")
        .with_path(blob.name())
        .with_found(format_args!("{size} bytes"))
        .with_expected(format_args!("at most {MAX_BLOB} bytes (8 TiB)")))
}

/// The snapshot that has the wanted name already.
fn point(blob: &BlobFile, how: BlobApply<'_>) -> Result<Option<Listed>> {
    how.snapshot.map_or(Ok(None), |name| named(blob, name))
}

/// An error if the name is taken by a snapshot of another point in time.
fn refuse_taken(blob: &BlobFile, taken: Option<&Listed>, how: BlobApply<'_>) -> Result<()> {
    let (Some(taken), Some(name)) = (taken, how.snapshot) else {
        return Ok(());
    };
    Err(Error::usage("the blob has a snapshot of that name already")
        .with_path(blob.name())
        .with_found(format_args!(
            "{name}, taken at {}",
            taken.id.snapshot.as_deref().unwrap_or("an unknown time")
        ))
        .with_hint("choose another name"))
}

/// Takes the requested snapshot of the current content of the blob, a disk with this digest if that is known. One that was
/// already `taken` must have the same content.
fn take_point(
    blob: &BlobFile,
    (digest, taken): (Option<ContentDigest>, Option<Listed>),
    how: BlobApply<'_>,
) -> Result<Option<String>> {
    let Some(name) = how.snapshot else {
        return Ok(None);
    };
    if let Some(taken) = &taken {
        let holds = marks::digest_of(&taken.id, &taken.properties);
        if digest.is_none() || holds != digest {
            return refuse_taken(blob, Some(taken), how).map(|()| None);
        }
        return Ok(taken.id.snapshot.clone());
    }
    let mut metadata = marks::whole(&blob.properties().metadata, digest);
    metadata.insert(NAME.to_owned(), name.to_owned());
    blob.take_snapshot(&metadata).map(Some).map_err(|error| {
        error.with_hint(
            "the blob itself holds the target; to take the snapshot alone, run the command again",
        )
    })
}
