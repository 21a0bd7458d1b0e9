//! A base with diffs applied, as an image: each page comes from the newest diff that changes it.
//!
//! The origin of each page in a window is determined from the frame heads, newest diff first, until all pages are
//! accounted for. Then only the payloads that are visible are read, each once, and the base only where no diff covers
//! it. So reading the result of two hundred diffs costs as much as reading that of one.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::coverage::Coverage;
use super::file::DiffFile;
use super::frames::FrameCache;
use super::window_plan::{Origin, Piece, WindowPlan, range};
use crate::error::{Error, Result};
use crate::image::{
    ContentDigest, Extent, ExtentState, Extents, Image, IoHints, WINDOW_SIZE, check_within,
    extents_or_zeros, join_extents, whole, zeros,
};
use crate::page::{PAGE_SIZE, PageRange, to_usize};

/// Memory for plans: those of thousands of windows, so that random reads don't query the frames again.
const PLANS: usize = 16 << 20;

/// Reads of at most this many bytes unpack only the frames they need; larger ones are assumed to be part of a
/// sequential read, which will soon need all of the window.
const FEW: usize = 16 << 10;

/// The most windows of which unpacked data is kept because they haven't been read to their end. A pass has no more in
/// progress.
fn windows() -> u16 {
    static WINDOWS: OnceLock<u16> = OnceLock::new();
    *WINDOWS.get_or_init(|| {
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        u16::try_from(threads / 2).unwrap_or(u16::MAX).max(9)
    })
}

/// The result of applying consecutive diffs to a base.
pub struct Overlay<B> {
    base: B,
    diffs: Vec<Arc<DiffFile>>,
    plans: Mutex<Plans>,
    /// The plans with unpacked data, oldest first.
    unpacked: Mutex<VecDeque<Arc<WindowPlan>>>,
    /// The limit of unpacked data in bytes.
    room: usize,
    frames: FrameCache,
}

/// Plans by the first byte of their window, limited in bytes.
#[derive(Debug, Default)]
struct Plans {
    known: HashMap<u64, Arc<WindowPlan>>,
    /// The order of insertion, oldest first.
    order: VecDeque<u64>,
    bytes: usize,
}

impl Plans {
    fn keep(&mut self, plan: &Arc<WindowPlan>) {
        while self.bytes.saturating_add(plan.size()) > PLANS {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            let gone = self.known.remove(&oldest);
            self.bytes = self
                .bytes
                .saturating_sub(gone.map_or(0, |plan| plan.size()));
        }
        self.bytes = self.bytes.saturating_add(plan.size());
        self.order.push_back(plan.start());
        self.known.insert(plan.start(), Arc::clone(plan));
    }
}

impl<B> std::fmt::Debug for Overlay<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay")
            .field("diffs", &self.diffs)
            .finish_non_exhaustive()
    }
}

impl<B: Image> Overlay<B> {
    /// Applies `diffs` to `base`, in order. Each must be based on the target of the previous one, by size and, where
    /// known, by content digest; `base_digest` is that of the base.
    pub fn new(
        base: B,
        base_digest: Option<ContentDigest>,
        diffs: Vec<Arc<DiffFile>>,
    ) -> Result<Self> {
        let mut state = (base.virtual_size(), base_digest);
        for diff in &diffs {
            let found = (diff.header().base_size, diff.trailer().base_digest);
            let same = !matches!((state.1, found.1), (Some(a), Some(b)) if a != b);
            if state.0 != found.0 || !same {
                return Err(
                    Error::mismatch("this diff doesn't continue the one before it")
                        .with_path(diff.name())
                        .with_found(point(found))
                        .with_expected(point(state)),
                );
            }
            state = (diff.header().target_size, diff.trailer().target_digest);
        }
        Ok(Self {
            base,
            diffs,
            plans: Mutex::default(),
            unpacked: Mutex::default(),
            room: usize::from(windows()) * to_usize(WINDOW_SIZE),
            frames: FrameCache::default(),
        })
    }

    /// The base.
    pub fn base(&self) -> &B {
        &self.base
    }

    /// The diffs in order.
    pub fn diffs(&self) -> &[Arc<DiffFile>] {
        &self.diffs
    }

    /// Returns the plan of the window that begins at `start`.
    fn plan(&self, start: u64) -> Result<Arc<WindowPlan>> {
        let lock = || self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().known.get(&start).cloned();
        if let Some(plan) = known {
            return Ok(plan);
        }
        let end = start.saturating_add(WINDOW_SIZE).min(self.virtual_size());
        let window = PageRange::covering(start, end);
        let new = Arc::new(WindowPlan::of(window, &self.diffs)?);
        let mut plans = lock();
        // Another thread may have been faster; its plan may already hold data.
        if let Some(plan) = plans.known.get(&start) {
            return Ok(Arc::clone(plan));
        }
        plans.keep(&new);
        Ok(new)
    }

    /// Records that data of `plan` was unpacked and is kept, and evicts the oldest data beyond the limit.
    fn note_unpacked(&self, plan: Arc<WindowPlan>) {
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        unpacked.retain(|other| !Arc::ptr_eq(other, &plan));
        unpacked.push_back(plan);
        let mut kept = 0_usize;
        // A plan whose data was used up or evicted has none.
        let mut stay = VecDeque::with_capacity(unpacked.len());
        for plan in unpacked.drain(..).rev() {
            match plan.kept() {
                Some(0) => {}
                bytes => {
                    kept = kept.saturating_add(bytes.unwrap_or(0));
                    if kept > self.room {
                        plan.forget();
                    } else {
                        stay.push_front(plan);
                    }
                }
            }
        }
        *unpacked = stay;
    }

    /// Returns the first window at or after `at`, which starts a window, that some diff changes.
    fn next_changed(&self, at: u64) -> Result<Option<u64>> {
        let next = Coverage::of(&self.diffs).next(at)?;
        Ok(next.map(|next| next - next % WINDOW_SIZE))
    }

    /// Returns the end of the run of whole windows from `at` on that are zero because of one long clear, or `at` if
    /// there is none. A diff of a hundred bytes can clear a pebibyte: that is a single step.
    fn cleared_until(&self, at: u64) -> Result<u64> {
        let mut end = self.virtual_size();
        for diff in self.diffs.iter().rev() {
            let first = diff.first_change_from(at)?.unwrap_or(u64::MAX);
            if first > at {
                end = end.min(first - first % WINDOW_SIZE);
                // Everything after the end of this diff's base was zero when the diff grew the disk.
                if diff.header().base_size <= at {
                    return Ok(end.max(at));
                }
                end = end.min(diff.header().base_size - diff.header().base_size % WINDOW_SIZE);
                if end <= at {
                    return Ok(at);
                }
                continue;
            }
            let page = PageRange::from_len(at, PAGE_SIZE)?;
            let entries = diff.entries_in(page)?;
            let long = entries
                .first()
                .map(|entry| entry.range)
                .filter(|range| range.len() > WINDOW_SIZE);
            // Only a long clear is longer than a window.
            let until = long.map_or(at, PageRange::end);
            let whole = if until >= self.virtual_size() {
                until
            } else {
                until - until % WINDOW_SIZE
            };
            return Ok(end.min(whole).max(at));
        }
        Ok(at)
    }
}

fn point((size, digest): (u64, Option<ContentDigest>)) -> String {
    match digest {
        Some(digest) => format!("content {digest} of {size} bytes"),
        None => format!("a disk of {size} bytes"),
    }
}

impl<B: Image> Image for Overlay<B> {
    fn virtual_size(&self) -> u64 {
        self.diffs
            .last()
            .map_or_else(|| self.base.virtual_size(), |d| d.header().target_size)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_within(self.virtual_size(), offset, buf.len())?;
        if self.diffs.is_empty() {
            return self.base.read_exact_at(buf, offset);
        }
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let start = at - at % WINDOW_SIZE;
            let room = to_usize(start.saturating_add(WINDOW_SIZE) - at);
            let len = room.min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            let plan = self.plan(start)?;
            if len <= FEW {
                plan.read_some(now, at, &self.base, (&self.diffs, &self.frames))?;
            } else if plan.read(now, at, &self.base, &self.diffs)? {
                self.note_unpacked(plan);
            }
            (at, rest) = (at + len as u64, later);
        }
        Ok(())
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        let within = within.cut_to(whole(self));
        let mut at = within.start();
        join_extents(
            std::iter::from_fn(move || {
                if at >= within.end() {
                    return None;
                }
                let step = self.step(at, within.end());
                let (end, extents) = match step {
                    Ok((end, extents)) => (end.max(at + PAGE_SIZE), extents),
                    Err(error) => (
                        within.end(),
                        Box::new(std::iter::once(Err(error))) as Extents<'_>,
                    ),
                };
                at = end;
                Some(extents)
            })
            .flatten(),
        )
    }

    fn io(&self) -> IoHints {
        let kept = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        self.base.io().and(IoHints {
            window_memory: kept(to_usize(WINDOW_SIZE)),
            memory: kept(PLANS),
            windows: windows(),
            ..IoHints::LOCAL
        })
    }
}

impl<B: Image> Overlay<B> {
    /// Returns the extents from `at` to some point, at most `end`, and that point.
    fn step(&self, at: u64, end: u64) -> Result<(u64, Extents<'_>)> {
        let start = at - at % WINDOW_SIZE;
        let changed = self.next_changed(start)?.unwrap_or(u64::MAX);
        if changed > start {
            let end = changed.min(end);
            return Ok((end, extents_or_zeros(&self.base, range(at, end))));
        }
        let cleared = self.cleared_until(start)?.min(end);
        if cleared > at {
            return Ok((cleared, zeros(range(at, cleared))));
        }
        let end = start.saturating_add(WINDOW_SIZE).min(end);
        let (plan, within) = (self.plan(start)?, range(at, end));
        let pieces: Vec<Piece> = plan.pieces_in(within).collect();
        let extents = pieces.into_iter().flat_map(move |piece| match piece.from {
            Origin::Base => extents_or_zeros(&self.base, piece.range),
            Origin::Zero => zeros(piece.range),
            Origin::Diff { .. } => Box::new(std::iter::once(Ok(Extent {
                range: piece.range,
                state: ExtentState::Data,
            }))),
        });
        Ok((end, Box::new(extents)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::{Compression, DiffOptions, Side, write_diff};
    use crate::image::{NoneShared, RawImage};
    use crate::parallel::{Work, Workers};
    use crate::progress::Silent;
    use crate::storage::Memory;

    #[test]
    fn what_is_read_in_part_is_kept_only_as_far_as_there_is_room() {
        const WINDOWS: usize = 12;
        const WINDOW: usize = 4 << 20;
        const { assert!(WINDOW as u64 == WINDOW_SIZE) };
        let before = vec![0; WINDOWS * WINDOW];
        let mut after = before.clone();
        for window in after.chunks_mut(WINDOW) {
            window[..256 << 10].fill(7);
            window[WINDOW - 512..].fill(8);
        }
        let [base, target] =
            [before, after.clone()].map(|bytes| RawImage::open(Memory::new(bytes)).unwrap());
        let workers = Workers::new(NonZeroUsize::new(2)).unwrap();
        let options = DiffOptions {
            work: Work::new(&workers, &Silent),
            compression: Compression::default(),
            digests: false,
            equal: &NoneShared,
            confirm: &|| Ok(()),
        };
        let sides = [&base, &target].map(|image| (image as &dyn Image, Side::default()));
        let [from, to] = sides;
        let diff = write_diff(from, to, Vec::new(), "diff", options)
            .unwrap()
            .out;
        let diff = DiffFile::open(Memory::new(diff), &Silent).unwrap();
        let mut overlay = Overlay::new(&base, None, vec![Arc::new(diff)]).unwrap();
        overlay.room = 1 << 20;
        let kept = || -> usize {
            overlay
                .plans
                .lock()
                .unwrap()
                .known
                .values()
                .filter_map(|plan| plan.kept())
                .sum()
        };
        for round in 0..2 {
            for window in 0..WINDOWS {
                let at = window * WINDOW + 512 * round;
                let mut bytes = vec![0; 2 * FEW];
                overlay.read_exact_at(&mut bytes, at as u64).unwrap();
                assert!(bytes == after[at..at + 2 * FEW]);
                assert!(kept() <= 1 << 20, "{window}: {}", kept());
            }
            assert!(kept() > 512 << 10);
        }
        // A few bytes at random are read correctly, and nothing is kept for them.
        let unpacked = kept();
        for n in 0..2000 {
            let at = n * 7919 * 512 % (WINDOWS * WINDOW - 5000) + n % 512;
            let mut bytes = vec![0; 1 + n * 37 % 5000];
            overlay.read_exact_at(&mut bytes, at as u64).unwrap();
            assert!(bytes == after[at..at + bytes.len()], "{at}");
        }
        assert_eq!(kept(), unpacked);
        let mut all = vec![0; WINDOWS * WINDOW];
        overlay.read_exact_at(&mut all, 0).unwrap();
        assert!(all == after);
        assert_eq!(kept(), 0);
    }
}
