//! Writes a point in time to an image file: a new one, an existing one that gets only the differences, or a child of
//! another image.

use std::path::Path;

use super::between::Between;
use super::remedies::find_damage;
use super::{Disk, Manifest, PointImage, Work};
#[cfg(feature = "azure")]
use crate::diff::write_diff_known;
use crate::diff::{BaseCheck, Chain, Compression, DiffOptions, write_diff};
use crate::error::{Error, Result};
#[cfg(feature = "azure")]
use crate::files::Claim;
use crate::files::{
    Applied, ApplyOptions, ChildOf, Format, InPlace, NewImage, NewImageOptions, OpenImage, Opened,
    Output, ParentOptions, apply_made_in_place, apply_to_child, find_stamp, spool_made,
};
use crate::image::{ContentDigest, CopyOptions, Image as _, NoneShared, copy};
use crate::remedy::{Choice, Remedy, Step};
use crate::storage::Audience;

/// Writes a point in time to a new image, which appears only if its content digest matches the manifest. A fixed VHD is
/// restored byte for byte.
pub fn restore(point: &PointImage, output: Output<'_>, work: Work<'_>) -> Result<()> {
    write_image(point, Some(point.manifest().content_digest), output, work)
}

/// Writes `point`, which has this content digest if that is known, to a new image.
pub fn write_image(
    point: &dyn Opened,
    expected: Option<ContentDigest>,
    output: Output<'_>,
    work: Work<'_>,
) -> Result<()> {
    let mut new = NewImage::create(
        output.path,
        &NewImageOptions {
            format: output.format,
            virtual_size: point.virtual_size(),
            block_size: point
                .block_size()
                .filter(|_| output.format == Format::Dynamic),
            identity: point.footer().cloned(),
            parent: None,
            overwrite: output.overwrite,
            made_from: output.made_from.clone().and(Audience::of(point.files())?),
            dense: output.dense,
        },
    )?;
    work.progress.begin("restoring", point.virtual_size());
    let options = CopyOptions { work, digest: true };
    let found = copy(point, new.image_mut(), options)?;
    if let (Some(found), Some(expected)) = (found, expected) {
        check_digest(point.path(), found, expected)?;
    }
    point.check_unchanged()?;
    new.complete(work.progress)?;
    match expected.or(found) {
        Some(digest) => new.publish_stamped(digest).map(drop)?,
        None => new.publish()?,
    }
    Ok(())
}

/// An image that was brought to a point in time.
#[derive(Debug)]
#[non_exhaustive]
pub struct Restored {
    /// What was written; `None` if the image already held the point.
    pub applied: Option<Applied>,
    /// The snapshot that it held before, according to its state stamp.
    pub from: Option<String>,
}

/// Changes the image at `path` to a point in time by writing only the differences, as crash-safe as an in-place apply,
/// and reads the result back. The differences are found by comparing all of both or, if a valid state stamp identifies
/// a snapshot of `disk`, from the diffs between the two. A VHD adopts the identity of the point; the image must have
/// this `format`, if one is given.
pub fn restore_in_place(
    disk: &Disk,
    point: &PointImage,
    (path, format): (&Path, Option<Format>),
    (how, parents): (InPlace<'_>, &ParentOptions),
    work: Work<'_>,
) -> Result<Restored> {
    restore_found(
        point,
        (path, format),
        (how, parents),
        |image| difference(disk, image, point, path, work),
        work,
    )
}

/// As [`restore_in_place`], with a list of where image and point may differ, from another program. The rest is taken to
/// be the same: the result is read back as a whole, so a list that leaves something out ends with an error, and the
/// image can be brought back to what it was. `seed` chooses the places where the list is checked.
#[cfg(feature = "azure")]
pub fn restore_in_place_claimed(
    point: &PointImage,
    (path, format): (&Path, Option<Format>),
    (how, parents): (InPlace<'_>, &ParentOptions),
    (claim, seed): (&Claim, u64),
    work: Work<'_>,
) -> Result<Restored> {
    restore_found(
        point,
        (path, format),
        (how, parents),
        |image| {
            claim.check(image, point, seed, (work.workers, work.progress))?;
            claimed_difference(image, point, path, claim, work)
        },
        work,
    )
}

fn restore_found(
    point: &PointImage,
    (path, format): (&Path, Option<Format>),
    (how, parents): (InPlace<'_>, &ParentOptions),
    difference: impl FnOnce(&OpenImage) -> Result<Difference>,
    work: Work<'_>,
) -> Result<Restored> {
    let mut from = None;
    let make = |image: &OpenImage| {
        check_format(image, format)?;
        let found = difference(image)?;
        from = found.from;
        Ok((!found.same).then_some(found.chain))
    };
    let options = options(parents, work);
    let applied = apply_made_in_place(path, point.virtual_size(), make, how, options)?;
    Ok(Restored { applied, from })
}

fn check_format(image: &OpenImage, format: Option<Format>) -> Result<()> {
    match format {
        Some(format) if format != image.format() => Err(Error::usage(
            "an image keeps its format when it is changed in place",
        )
        .with_path(image.path())
        .with_found(image.format())
        .with_expected(format)
        .with_remedy(
            Remedy::default()
                .named("omit ")
                .step(Step::Choose(Choice::OutputFormat), "name no format")
                .text(", or ")
                .named("use ")
                .step(Step::Choose(Choice::Overwrite), "don't change it in place")
                .named(" instead of ")
                .step(Step::Choose(Choice::InPlace), "")
                .text(" to replace it"),
        )),
        _ => Ok(()),
    }
}

/// Creates a new differencing VHD that reads as a point in time and stores only the differences to its parent.
pub fn restore_to_child(
    disk: &Disk,
    point: &PointImage,
    parent: ChildOf,
    output: Output<'_>,
    work: Work<'_>,
) -> Result<Applied> {
    let found = difference(disk, &parent.image, point, output.path, work)?;
    let parents = ParentOptions::default();
    apply_to_child(parent, found.chain, output, options(&parents, work))
}

fn options<'a>(parents: &'a ParentOptions, work: Work<'a>) -> ApplyOptions<'a> {
    ApplyOptions {
        work,
        // The diff was just created from this very image.
        check: BaseCheck::Touched,
        verify: true,
        parents,
    }
}

/// The difference between an image and a point in time.
struct Difference {
    chain: Chain,
    /// Whether both have the same content.
    same: bool,
    /// The snapshot that the image holds, if known.
    from: Option<String>,
}

/// The diff from `image` to `point`, in an unnamed file in the folder of `beside`.
fn difference(
    disk: &Disk,
    image: &OpenImage,
    point: &PointImage,
    beside: &Path,
    work: Work<'_>,
) -> Result<Difference> {
    if let Some(from) = stamped_point(disk, image)?
        && let Ok(chain) = known_difference(disk, from, point, beside, work)
    {
        return Ok(Difference {
            chain,
            same: from.content_digest == point.manifest().content_digest,
            from: Some(from.name.clone()),
        });
    }
    work.progress.begin("comparing", point.virtual_size());
    let options = DiffOptions {
        work,
        compression: Compression::default(),
        digests: true,
        equal: &NoneShared,
        confirm: &|| {
            image.check_unchanged()?;
            point.check_unchanged()
        },
    };
    let mut same = false;
    let (base, target) = ((image as _, image.side()), (point as _, point.side()));
    let diff = spool_made(
        |out, name| {
            let written = write_diff(base, target, out, name, options)?;
            same = written.comparison.is_same();
            let found = written.trailer.target_digest;
            found.map_or(Ok(()), |found| check_content(point, found))
        },
        beside,
        work.progress,
    )?;
    Ok(Difference {
        chain: Chain::new(vec![diff])?,
        same,
        from: None,
    })
}

/// The diff from `image` to `point`, which are the same outside of the ranges of a list. Neither is read there.
#[cfg(feature = "azure")]
fn claimed_difference(
    image: &OpenImage,
    point: &PointImage,
    beside: &Path,
    claim: &Claim,
    work: Work<'_>,
) -> Result<Difference> {
    let equal = claim.shared(image, point);
    let options = DiffOptions {
        work,
        compression: Compression::default(),
        digests: false,
        equal: &*equal,
        confirm: &|| {
            image.check_unchanged()?;
            point.check_unchanged()
        },
    };
    work.progress.begin("comparing", point.virtual_size());
    let (base, target) = ((image as _, image.side()), (point as _, point.side()));
    // What the image must hold at the end is known.
    let digests = [None, Some(point.manifest().content_digest)];
    let diff = spool_made(
        |out, name| write_diff_known(base, target, digests, out, name, options).map(drop),
        beside,
        work.progress,
    )?;
    Ok(Difference {
        chain: Chain::new(vec![diff])?,
        // It may differ where the list says nothing: only reading it back tells.
        same: false,
        from: None,
    })
}

/// The snapshot that `image` holds according to its state stamp.
fn stamped_point<'a>(disk: &'a Disk, image: &OpenImage) -> Result<Option<&'a Manifest>> {
    let found = find_stamp(image)?.filter(|found| found.stale.is_none());
    let Some(digest) = found.map(|found| found.stamp.digest) else {
        return Ok(None);
    };
    let mut points = disk.points().iter().rev();
    Ok(points.find(|point| point.content_digest == digest))
}

/// The diff between two snapshots, reading only what may differ.
fn known_difference(
    disk: &Disk,
    from: &Manifest,
    point: &PointImage,
    beside: &Path,
    work: Work<'_>,
) -> Result<Chain> {
    let between = Between::open(disk, from, point.manifest())?;
    work.progress.begin("comparing", point.virtual_size());
    let diff = spool_made(
        |out, name| {
            between
                .write(out, name, Compression::default(), work)
                .map(drop)
        },
        beside,
        work.progress,
    )?;
    Chain::new(vec![diff])
}

/// Fails if the content read from a point in time doesn't match its manifest.
pub fn check_content(point: &PointImage, found: ContentDigest) -> Result<()> {
    check_digest(point.path(), found, point.manifest().content_digest)
}

fn check_digest(path: &Path, found: ContentDigest, expected: ContentDigest) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::damaged("this snapshot doesn't match its manifest")
        .with_path(path)
        .with_field("content digest")
        .with_found(found)
        .with_expected(expected)
        .with_remedy(find_damage()))
}
