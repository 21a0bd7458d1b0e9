//! Whether a base is the one that the diffs were made for, as far as the bytes under their changes tell.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::range_buffer::RangeBuffer;
use super::sections::Frame;
use crate::image::{Hash, WINDOW_SIZE};
use crate::page::{PAGE_SIZE, PageRange, to_usize};

/// How it is made sure that a base is the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BaseCheck {
    /// The whole base is read and its content digest compared.
    #[default]
    Full,
    /// Only what the base holds under the changed pages is read and compared.
    Touched,
    /// A valid state stamp or a current list of window hashes stands for the digest, and what lies under the changed pages
    /// is compared. Without the list, and without either, as [`Full`](Self::Full): the digest of the result can't be
    /// computed otherwise.
    Stamped,
    /// As [`Stamped`](Self::Stamped), but a stamp alone will do: the diffs are taken at their word for the digest of the
    /// result, which isn't noted in a stamp then.
    Trusted,
}

/// The first frame whose base isn't what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseMismatch {
    /// Position of the diff in the chain.
    pub diff: usize,
    /// What the frame changes.
    pub range: PageRange,
}

impl BaseCheck {
    /// Whether a state stamp is believed.
    pub const fn by_stamp(self) -> bool {
        matches!(self, Self::Stamped | Self::Trusted)
    }
}

/// What [`Applier::check_touched`](super::Applier::check_touched) found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touched {
    /// The first place where the base isn't the one that the diffs were made for.
    pub mismatch: Option<BaseMismatch>,
    /// Whether every changed page already holds what the diffs put there; not looked at by
    /// [`Applier::rebuild`](super::Applier::rebuild) when the whole base is checked.
    pub already_applied: bool,
    /// Whether some frame doesn't know what its base was, so that nothing can be said about it.
    pub unknown: bool,
}

/// Whether the base under a frame, or under this window's part of a long clear, is what it should be.
#[derive(Debug)]
pub(super) struct FrameCheck {
    diff: usize,
    range: PageRange,
    /// `None` if the frame doesn't know.
    expected: Option<Hash>,
    found: Hash,
    long: bool,
    /// Of how many windows, one after another, this is true.
    windows: u64,
}

impl FrameCheck {
    /// `bytes` is what the base holds of the window, as far as `spans` has it.
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

/// The checks of a window, or of whole windows one after another, that is zero and over which lie only long clears.
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

/// Feeds a hash so many times.
fn repeat(hasher: &mut blake3::Hasher, hash: &Hash, mut times: u64) {
    /// Enough for BLAKE3 to be at full speed.
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

/// BLAKE3 of `len` zeros, a window's at most.
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

/// Puts the checks of all windows together, in order.
#[derive(Debug)]
pub(super) struct BaseVerifier {
    mismatch: Option<BaseMismatch>,
    unknown: bool,
    /// Until something is seen that isn't.
    pub(super) already_applied: bool,
    /// The long clears under way, one at most of each diff.
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
