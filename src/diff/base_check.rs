//! Checks whether a base is the one that the diffs were made for, by the data under their changes.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::range_buffer::RangeBuffer;
use super::sections::Frame;
use crate::image::{Hash, WINDOW_SIZE};
use crate::page::{PAGE_SIZE, PageRange, to_usize};

/// How a base is checked to be the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BaseCheck {
    /// Read the whole base and compare its content digest.
    #[default]
    Full,
    /// Read and compare only the data under the changed pages.
    Touched,
    /// Accept a valid state stamp or a current list of window hashes in place of the digest, and compare the data under
    /// the changed pages. Without the list the digest of the result can't be computed, and everything is read as with
    /// [`Full`](Self::Full).
    Stamped,
    /// As [`Stamped`](Self::Stamped), but a stamp alone suffices: the digest of the result is taken from the diffs and
    /// then isn't recorded in a stamp.
    Trusted,
}

/// The first frame whose data in the base differs from what the diff expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseMismatch {
    /// Position of the diff in the chain.
    pub diff: usize,
    /// The range that the frame changes.
    pub range: PageRange,
}

impl BaseCheck {
    /// Returns whether a state stamp is trusted.
    pub const fn by_stamp(self) -> bool {
        matches!(self, Self::Stamped | Self::Trusted)
    }
}

/// The result of [`Applier::check_touched`](super::Applier::check_touched).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touched {
    /// The first place where the base isn't the one that the diffs were made for.
    pub mismatch: Option<BaseMismatch>,
    /// Whether every changed page already holds what the diffs write. Not determined by
    /// [`Applier::rebuild`](super::Applier::rebuild) when the whole base is checked.
    pub already_applied: bool,
    /// Whether some frame doesn't record a hash of its base, so that it can't be checked.
    pub unknown: bool,
}

/// The check of the base under a frame, or under this window's part of a long clear.
#[derive(Debug)]
pub(super) struct FrameCheck {
    diff: usize,
    range: PageRange,
    /// `None` if the frame doesn't record it.
    expected: Option<Hash>,
    found: Hash,
    long: bool,
    /// The number of consecutive windows to which this applies.
    windows: u64,
}

impl FrameCheck {
    /// Checks a frame. `bytes` holds the base's data of the window, as far as `spans` covers it.
    pub(super) fn new(
        diff: usize,
        frame: &Frame,
        window: PageRange,
        (spans, bytes): (&RangeBuffer, &[u8]),
    ) -> Self {
        let mut hasher = blake3::Hasher::new();
        for range in frame
            .changes()
            .iter()
            .filter_map(|change| change.range.intersect(window))
        {
            hasher.update(spans.piece(bytes, range));
        }
        Self {
            diff,
            range: frame.range(),
            expected: frame.base_hash().copied(),
            found: *hasher.finalize().as_bytes(),
            long: frame.is_long_clear(),
            windows: 1,
        }
    }
}

/// The checks of a zero window, or of a run of zero windows, that only long clears change.
pub(super) fn zero_checks(window: PageRange, frames: &[Vec<Frame>]) -> Vec<FrameCheck> {
    let each = frames
        .iter()
        .enumerate()
        .flat_map(|(n, frames)| frames.iter().map(move |frame| (n, frame)));
    each.map(|(diff, frame)| {
        let len = frame.range().intersect(window).map_or(0, PageRange::len);
        FrameCheck {
            diff,
            range: frame.range(),
            expected: frame.base_hash().copied(),
            found: zeros_hash(len.min(WINDOW_SIZE)),
            long: true,
            windows: len.div_ceil(WINDOW_SIZE),
        }
    })
    .collect()
}

/// Updates a hasher with `hash`, `times` times.
fn repeat(hasher: &mut blake3::Hasher, hash: &Hash, mut times: u64) {
    /// Enough for BLAKE3 to reach full speed.
    const AT_ONCE: usize = 4096;
    if times > 1 {
        let many = hash.repeat(AT_ONCE.min(to_usize(times)));
        let each = (many.len() / hash.len()) as u64;
        while times >= each {
            hasher.update(&many);
            times -= each;
        }
    }
    (0..times).for_each(|_| {
        hasher.update(hash);
    });
}

/// The BLAKE3 hash of `len` zeros, at most a window.
fn zeros_hash(len: u64) -> Hash {
    static WINDOW: OnceLock<Hash> = OnceLock::new();
    let compute = || {
        let mut hasher = blake3::Hasher::new();
        let zeros = [0; 512];
        (0..len / PAGE_SIZE).for_each(|_| {
            hasher.update(&zeros);
        });
        *hasher.finalize().as_bytes()
    };
    if len == WINDOW_SIZE {
        *WINDOW.get_or_init(compute)
    } else {
        compute()
    }
}

/// Combines the checks of all windows, in order.
#[derive(Debug)]
pub(super) struct BaseVerifier {
    mismatch: Option<BaseMismatch>,
    unknown: bool,
    /// True until a page is found that doesn't hold its new data.
    pub(super) already_applied: bool,
    /// The long clears in progress, at most one per diff.
    long: HashMap<usize, blake3::Hasher>,
}

impl BaseVerifier {
    pub(super) fn new() -> Self {
        Self {
            mismatch: None,
            unknown: false,
            already_applied: true,
            long: HashMap::new(),
        }
    }

    pub(super) fn take(&mut self, window: PageRange, checks: Vec<FrameCheck>) {
        for check in checks {
            let Some(expected) = check.expected else {
                self.unknown = true;
                continue;
            };
            let found = if check.long {
                let hasher = self.long.entry(check.diff).or_default();
                repeat(hasher, &check.found, check.windows);
                if check.range.end() > window.end() {
                    continue;
                }
                let hash = *hasher.finalize().as_bytes();
                self.long.remove(&check.diff);
                hash
            } else {
                check.found
            };
            if found != expected && self.mismatch.is_none() {
                self.mismatch = Some(BaseMismatch {
                    diff: check.diff,
                    range: check.range,
                });
            }
        }
    }

    pub(super) fn finish(self) -> Touched {
        Touched {
            mismatch: self.mismatch,
            already_applied: self.already_applied,
            unknown: self.unknown,
        }
    }
}
