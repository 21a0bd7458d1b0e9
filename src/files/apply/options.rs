//! Options and outcomes of applying diffs.

use std::path::Path;

use crate::diff::{BaseCheck, Chain};
use crate::files::{Format, ParentOptions};
use crate::image::ContentDigest;
use crate::parallel::Work;
use crate::storage::{Audience, Overwrite};

/// Options for applying diffs.
#[derive(Debug, Clone, Copy)]
pub struct ApplyOptions<'a> {
    /// The threads, and the receiver of progress.
    pub work: Work<'a>,
    /// How the base is checked.
    pub check: BaseCheck,
    /// Whether to read the result back and compare it.
    pub verify: bool,
    /// Where to look for the parents of a differencing VHD.
    pub parents: &'a ParentOptions,
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
    pub(in crate::files) fn nothing(already: usize, checked: BaseChecked, chain: &Chain) -> Self {
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

/// How an in-place apply ensures that the base can always be brought to the old or the new point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The diffs are applied to a clone, which then replaces the base.
    Clone,
    /// As [`Clone`](Self::Clone), with a full copy.
    Copy,
    /// The base itself is written, with an undo journal.
    Journal,
}

impl Strategy {
    /// `clone`, `copy` or `journal`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clone => "clone",
            Self::Copy => "copy",
            Self::Journal => "journal",
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
