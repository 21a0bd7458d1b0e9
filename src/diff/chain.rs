//! Consecutive diffs: each begins where the previous one ends.

use std::sync::Arc;

use super::file::DiffFile;
use super::format::Direction;
use crate::error::{Error, Result};
use crate::image::{ContentDigest, Hash};
use crate::text::shown;

/// One or more verified, consecutive diffs.
#[derive(Debug, Clone)]
pub struct Chain(Vec<Arc<DiffFile>>);

impl Chain {
    /// Checks that each diff's base is the target of the previous one, by size and content digest. If a digest wasn't
    /// computed, only the sizes are compared here, and applying checks the data under the changed pages.
    pub fn new(diffs: Vec<impl Into<Arc<DiffFile>>>) -> Result<Self> {
        let diffs: Vec<Arc<DiffFile>> = diffs.into_iter().map(Into::into).collect();
        if diffs.is_empty() {
            return Err(Error::usage("no diffs were given"));
        }
        for pair in diffs.windows(2) {
            let [earlier, later] = pair else { continue };
            let fits = earlier.header().target_size == later.header().base_size
                && !differ(earlier.trailer().target_digest, later.trailer().base_digest);
            if !fits {
                return Err(mismatch(earlier, later));
            }
        }
        Ok(Self(diffs))
    }

    /// The diffs in order.
    pub fn diffs(&self) -> &[Arc<DiffFile>] {
        &self.0
    }

    /// The first diff.
    pub fn first(&self) -> Option<&DiffFile> {
        self.0.first().map(Arc::as_ref)
    }

    /// The last diff.
    pub fn last(&self) -> Option<&DiffFile> {
        self.0.last().map(Arc::as_ref)
    }

    /// The virtual size of the first diff's base.
    pub fn base_size(&self) -> u64 {
        self.first().map_or(0, |diff| diff.header().base_size)
    }

    /// The virtual size of the last diff's target.
    pub fn target_size(&self) -> u64 {
        self.last().map_or(0, |diff| diff.header().target_size)
    }

    /// The content digest of the first diff's base, if known.
    pub fn base_digest(&self) -> Option<ContentDigest> {
        self.first().and_then(|diff| diff.trailer().base_digest)
    }

    /// The content digest of the last diff's target, if known.
    pub fn target_digest(&self) -> Option<ContentDigest> {
        self.last().and_then(|diff| diff.trailer().target_digest)
    }

    /// The direction in which the diffs are applied.
    pub fn direction(&self) -> Direction {
        self.first().map_or(Direction::Forward, DiffFile::direction)
    }

    /// The chain in the opposite direction, from its target back to its base. Returns `None` unless all diffs are
    /// [reversible](DiffFile::is_reversible).
    pub fn reversed(&self) -> Option<Self> {
        let diffs = self.0.iter().rev();
        let diffs: Option<Vec<_>> = diffs.map(|diff| Some(diff.reversed()?.into())).collect();
        diffs.map(Self)
    }

    /// The identities of the diffs in order.
    pub fn identities(&self) -> Vec<Hash> {
        self.0.iter().map(|diff| *diff.digest()).collect()
    }

    /// Returns how many diffs of the chain are already applied to an image with this content: all up to the last one
    /// with that target.
    pub fn already_applied(&self, digest: ContentDigest) -> usize {
        self.0
            .iter()
            .rposition(|diff| diff.trailer().target_digest == Some(digest))
            .map_or(0, |last| last + 1)
    }

    /// The chain without its first `n` diffs, or `None` if nothing remains.
    pub fn without_first(mut self, n: usize) -> Option<Self> {
        self.0.drain(..n.min(self.0.len()));
        (!self.0.is_empty()).then_some(self)
    }
}

fn differ(a: Option<ContentDigest>, b: Option<ContentDigest>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a != b)
}

fn mismatch(earlier: &DiffFile, later: &DiffFile) -> Error {
    let (what, starts, made) = match later.direction() {
        Direction::Forward => (
            "base",
            "this diff doesn't follow the one before it",
            "target",
        ),
        Direction::Back => (
            "target",
            "this diff isn't the previous one in time, so it can't be undone next",
            "base",
        ),
    };
    let found = point(what, later.header().base_size, later.trailer().base_digest);
    let expected = point(
        what,
        earlier.header().target_size,
        earlier.trailer().target_digest,
    );
    let earlier = shown(earlier.name());
    Error::mismatch(starts)
        .with_path(later.name())
        .with_found(found)
        .with_expected(format_args!("{expected}, the {made} of {earlier}"))
        .with_hint(match later.direction() {
            Direction::Forward => {
                "give the diffs in the order in which they were made, without gaps"
            }
            Direction::Back => "to go back, give the newest diff first, without gaps",
        })
}

fn point(what: &str, size: u64, digest: Option<ContentDigest>) -> String {
    match digest {
        Some(digest) => format!("{what} {digest} of {size} bytes"),
        None => format!("a {what} of {size} bytes"),
    }
}
