//! Computes what each snapshot holds, from the data of its base and of the diffs up to it. A diff says what it makes of
//! the snapshot before it, and its file can be sound all the same if that isn't true: only its effect shows it, and the
//! effect of a later diff can hide that from the newest snapshot.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use crate::diff::results_of;
use crate::error::{Error, ErrorKind, Reason, Result};
use crate::image::{ContentDigest, WindowList};
use crate::snapshot::{Disk, Manifest, Work};
use crate::storage::Memory;

/// The field in errors about a content that isn't that of the manifest.
const CONTENT_DIGEST: &str = "content digest";

/// A snapshot whose own file is sound, but doesn't make what its manifest says.
pub(in crate::snapshot) struct Wrong {
    pub(in crate::snapshot) point: Manifest,
    pub(in crate::snapshot) error: Error,
    /// The names of the snapshots that don't hold what their manifests say because of it, oldest first.
    pub(in crate::snapshot) affected: Vec<String>,
}

/// What the snapshots of a disk hold.
#[derive(Default)]
pub(in crate::snapshot) struct Contents {
    pub(in crate::snapshot) wrong: Vec<Wrong>,
    /// The ids of those that hold what their manifests say.
    pub(in crate::snapshot) right: HashSet<String>,
    /// What couldn't be computed, and why.
    pub(in crate::snapshot) failed: Vec<(Manifest, Error)>,
}

/// Computes what the snapshots hold, except those whose numbers are in `bad`, and those that depend on them. Each base
/// is read once, and of the rest only what the diffs touch.
///
/// # Errors
///
/// Fails if the user stops it.
pub(in crate::snapshot) fn contents(
    disk: &Disk,
    bad: &HashSet<u32>,
    work: Work<'_>,
) -> Result<Contents> {
    let mut found = Contents::default();
    for chain in chains(disk, bad) {
        match results(disk, &chain, work) {
            Ok(digests) => found.judge(disk, &chain, &digests),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let named = |point: &&&Manifest| error.path() == Some(&disk.path(&point.data.file));
                if let Some(point) = chain.iter().find(named).or(chain.first()) {
                    found.failed.push(((*point).clone(), error));
                }
            }
        }
    }
    Ok(found)
}

/// Each base with the snapshots that are made of it, up to the first bad one.
fn chains<'a>(disk: &'a Disk, bad: &HashSet<u32>) -> Vec<Vec<&'a Manifest>> {
    let mut chains: Vec<Vec<&Manifest>> = Vec::new();
    for point in disk.points().iter().filter(|p| !bad.contains(&p.sequence)) {
        if point.is_base() {
            chains.push(vec![point]);
            continue;
        }
        let parent = disk.parent_of(point);
        let chain = chains.last_mut();
        if let Some(chain) = chain.filter(|chain| chain.last().copied() == parent) {
            chain.push(point);
        }
    }
    chains
}

/// The content digests of a base and of the snapshots on it.
fn results(disk: &Disk, chain: &[&Manifest], work: Work<'_>) -> Result<Vec<ContentDigest>> {
    let Some((base, later)) = chain.split_first() else {
        return Ok(Vec::new());
    };
    let image = disk.image(base)?;
    let diffs = later
        .iter()
        .map(|point| Ok(Arc::clone(&disk.open_diffs().get(disk, point)?.diff)))
        .collect::<Result<Vec<_>>>()?;
    work.progress
        .begin("verifying what the diffs make", base.virtual_size);
    let unknown = None::<&WindowList<Memory>>;
    results_of(
        (&image, unknown),
        &diffs,
        work.workers,
        work.progress,
        |_, _| Ok(()),
    )
}

impl Contents {
    fn judge(&mut self, disk: &Disk, chain: &[&Manifest], digests: &[ContentDigest]) {
        let mut was_right = true;
        for (point, digest) in chain.iter().zip(digests) {
            let is_right = point.content_digest == *digest;
            if is_right {
                self.right.insert(point.id.clone());
            } else if point.is_base() {
                let made = disk.made_of(point).into_iter();
                self.wrong.push(Wrong {
                    point: (*point).clone(),
                    error: wrong_base(disk, point, *digest),
                    affected: made.map(|point| point.name.clone()).collect(),
                });
                return;
            } else if was_right {
                self.wrong.push(Wrong {
                    point: (*point).clone(),
                    error: wrong_diff(disk, point, *digest),
                    affected: vec![point.name.clone()],
                });
            } else if let Some(first) = self.wrong.last_mut() {
                first.affected.push(point.name.clone());
            }
            was_right = is_right;
        }
    }
}

fn wrong_diff(disk: &Disk, point: &Manifest, found: ContentDigest) -> Error {
    Error::damaged("this diff doesn't make what its snapshot should hold")
        .with_path(disk.path(&point.data.file))
        .with_reason(Reason::WrongContent)
        .with_field(CONTENT_DIGEST)
        .with_found(found)
        .with_expected(point.content_digest)
        .override_remedy(disk.repair_remedy())
}

/// The error for a base that holds something else than its manifest says.
pub(super) fn wrong_base(disk: &Disk, point: &Manifest, found: ContentDigest) -> Error {
    base_changed(disk, &disk.path(&point.data.file))
        .with_reason(Reason::WrongContent)
        .with_field(CONTENT_DIGEST)
        .with_found(found)
        .with_expected(point.content_digest)
}

/// The same, where only the place is known.
pub(super) fn base_changed(disk: &Disk, path: &Path) -> Error {
    Error::damaged("the content of the base has changed since the snapshot was created")
        .with_path(path)
        .override_remedy(disk.repair_remedy())
}
