//! Verifies what received diffs make, and takes those out again that don't make what they say: a diff by itself can be
//! sound and still lie about its result.

use std::sync::Arc;

use super::incoming::Target;
use super::windows::{self, MadeList};
use super::{Disk, Manifest, Work};
use crate::diff::results_of;
use crate::error::{Error, Result};
use crate::image::{ContentDigest, Image as _, WindowList};
use crate::storage::File;

/// Verifies the consecutive diffs `new`, the newest of the disk, and brings its window hashes up to date. The first one
/// that doesn't make what its manifest says is taken out of the disk, with all after it.
///
/// Returns that one, and what is wrong with it.
pub(super) fn settle(
    target: &mut Target,
    new: &[Manifest],
    work: Work<'_>,
) -> Result<Option<(Manifest, Error)>> {
    let (Some(first), Some(last)) = (new.first(), new.last()) else {
        return Ok(None);
    };
    let (list, digests) = made(target.disk(), first, last, work)?;
    // The results of the last ones; those before them were there already.
    let before = digests.len().saturating_sub(new.len());
    let results = digests.iter().skip(before).zip(new);
    let wrong = results
        .clone()
        .position(|(digest, point)| *digest != point.content_digest);
    let Some(at) = wrong else {
        list.publish()?;
        return Ok(None);
    };
    let Some((digest, point)) = results.clone().nth(at) else {
        return Ok(None);
    };
    let error = Error::damaged("this diff doesn't make what its snapshot should hold")
        .with_path(target.disk().path(&point.data.file))
        .with_field("content digest")
        .with_found(digest)
        .with_expected(point.content_digest);
    for point in new.iter().skip(at).rev() {
        target.take_out(point)?;
    }
    Ok(Some((point.clone(), error)))
}

/// The window hashes of `last`, and the digests of the snapshots up to it: from the one whose window hashes are there,
/// or from the one before `first`.
fn made(
    disk: &Disk,
    first: &Manifest,
    last: &Manifest,
    work: Work<'_>,
) -> Result<(MadeList, Vec<ContentDigest>)> {
    let chain = disk.chain(last)?;
    let older = chain.partition_point(|point| point.sequence < first.sequence);
    let known = windows::stored(disk)?.and_then(|list: WindowList<File>| {
        let older = chain.get(..older).unwrap_or_default();
        let at = older
            .iter()
            .rposition(|point| point.content_digest == list.digest());
        at.map(|at| (at, list))
    });
    let start = known
        .as_ref()
        .map_or(older.saturating_sub(1), |(at, _)| *at);
    let Some((base, later)) = chain.get(start..).and_then(<[_]>::split_first) else {
        return Err(Error::damaged("a snapshot without a base").with_path(disk.folder()));
    };
    let image = disk.image(base)?;
    let diffs = later
        .iter()
        .map(|point| Ok(Arc::clone(&disk.open_diffs().get(disk, point)?.diff)))
        .collect::<Result<Vec<_>>>()?;
    work.progress
        .begin("verifying what was received", image.virtual_size());
    let list = known.as_ref().map(|(_, list)| list);
    windows::make(disk, last.virtual_size, |each| {
        results_of(
            (&image, list),
            &diffs,
            work.workers,
            work.progress,
            |start, hashes| each(start, hashes),
        )
    })
}
