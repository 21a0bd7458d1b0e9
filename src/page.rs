//! Pages, ranges of them, and ordered lists of changed ranges.

use std::fmt;
use std::slice::SliceIndex;

use crate::error::{Error, Result};

/// Bytes in a page, the unit of every diff: 512, as in page blobs and in VHD sectors.
pub const PAGE_SIZE: u64 = 512;

// Lengths of disks and buffers are converted into each other everywhere; on other systems each conversion could fail.
const _: () = assert!(usize::BITS == 64, "vhdkit needs a 64-bit system");

/// Returns `n` as a buffer length or index. Lossless, since the crate builds for 64-bit systems only.
#[allow(clippy::cast_possible_truncation, reason = "checked when it is built")]
pub const fn to_usize(n: u64) -> usize {
    n as usize
}

/// Returns the part of a buffer. A range that isn't in it is a fault of this crate, whatever the input.
pub(crate) fn part<I: SliceIndex<[u8], Output = [u8]>>(bytes: &[u8], range: I) -> Result<&[u8]> {
    bytes.get(range).ok_or_else(out_of_buffer)
}

/// Returns the part of a buffer, to be changed. As for [`part`], a range that isn't in it is a fault of this crate.
pub(crate) fn part_mut<I>(bytes: &mut [u8], range: I) -> Result<&mut [u8]>
where
    I: SliceIndex<[u8], Output = [u8]>,
{
    bytes.get_mut(range).ok_or_else(out_of_buffer)
}

fn out_of_buffer() -> Error {
    Error::internal("a range is outside of its buffer")
}

/// A half-open range of bytes, `start..end`, aligned to pages at both ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PageRange {
    start: u64,
    end: u64,
}

impl PageRange {
    /// The range `start..end`, or `None` if it is backwards or not aligned to pages.
    pub const fn new(start: u64, end: u64) -> Option<Self> {
        if start <= end && start.is_multiple_of(PAGE_SIZE) && end.is_multiple_of(PAGE_SIZE) {
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// The range of `len` bytes from `start`. Fails if it isn't aligned to pages, and names the numbers.
    pub fn from_len(start: u64, len: u64) -> Result<Self> {
        start
            .checked_add(len)
            .and_then(|end| Self::new(start, end))
            .ok_or_else(|| {
                Error::usage("a range must start and end on a 512-byte page boundary")
                    .with_found(format_args!("start {start}, length {len}"))
            })
    }

    /// The smallest range of whole pages that contains the bytes `start..end`, or the empty range at `start` if there
    /// are none. Rounding outwards loses no byte, except that the last 511 of all 2^64 bytes are in no page.
    pub const fn covering(start: u64, end: u64) -> Self {
        let start = start - start % PAGE_SIZE;
        let whole = end - end % PAGE_SIZE;
        let end = if whole == end {
            end
        } else {
            whole.saturating_add(PAGE_SIZE) / PAGE_SIZE * PAGE_SIZE
        };
        let end = if end < start { start } else { end };
        Self { start, end }
    }

    /// First byte.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// The byte after the last.
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Length in bytes.
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Returns whether the range is empty.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Number of pages.
    pub const fn pages(self) -> u64 {
        self.len() / PAGE_SIZE
    }

    /// Length in bytes, as a buffer length.
    pub const fn buffer_len(self) -> usize {
        to_usize(self.len())
    }

    /// The smallest range that contains both.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        Self {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        }
    }

    /// The intersection of both ranges. If it is empty, the empty range at the nearer end of `other`.
    #[must_use]
    pub fn cut_to(self, other: Self) -> Self {
        let start = self.start.clamp(other.start, other.end);
        let end = self.end.clamp(start, other.end);
        Self { start, end }
    }

    /// The intersection of both ranges, or `None` if it is empty.
    pub fn intersect(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Self { start, end })
    }

    /// Splits this range at multiples of `window`, in order. `window` is a nonzero multiple of [`PAGE_SIZE`].
    pub fn windows(self, window: u64) -> impl Iterator<Item = PageRange> {
        let mut at = self.start;
        std::iter::from_fn(move || {
            if at >= self.end {
                return None;
            }
            let end = (at - at % window).saturating_add(window).min(self.end);
            let piece = PageRange { start: at, end };
            at = end;
            Some(piece)
        })
    }
}

impl fmt::Debug for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// Joins `ranges`, which are sorted by their start, where they overlap or are at most `gap` bytes apart.
pub fn coalesce(
    ranges: impl IntoIterator<Item = PageRange>,
    gap: u64,
) -> impl Iterator<Item = PageRange> {
    let mut ranges = ranges.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut joined = ranges.next()?;
        while let Some(next) =
            ranges.next_if(|next| next.start().saturating_sub(joined.end()) <= gap)
        {
            joined = joined.hull(next);
        }
        Some(joined)
    })
}

/// How a page changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChangeKind {
    /// It holds other data now.
    Update,
    /// It held data and is zero now.
    Clear,
}

impl ChangeKind {
    /// `update` or `clear`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Clear => "clear",
        }
    }
}

/// A changed page range: updated or cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Change {
    /// The changed range.
    pub range: PageRange,
    /// How it changed.
    pub kind: ChangeKind,
}

/// Changed page ranges in ascending order, without overlap. Adjacent ranges of the same kind are joined.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PageList(Vec<Change>);

impl PageList {
    /// An empty list.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a change at or after the end of the list, and joins it to the last one if they are adjacent and of the same
    /// kind. Fails if the change is empty or begins before the end.
    pub fn push(&mut self, change: Change) -> Result<()> {
        let end = self.0.last().map_or(0, |c| c.range.end);
        if change.range.is_empty() || change.range.start < end {
            return Err(Error::usage(
                "page ranges must be given in ascending order, without overlap",
            )
            .with_found(format_args!("{:?} after {end}", change.range)));
        }
        match self.0.last_mut() {
            Some(last) if last.kind == change.kind && last.range.end == change.range.start => {
                last.range.end = change.range.end;
            }
            _ => self.0.push(change),
        }
        Ok(())
    }

    /// Adds every change of `other`, which starts at or after the end of this list.
    pub fn extend(&mut self, other: &Self) -> Result<()> {
        other.0.iter().try_for_each(|change| self.push(*change))
    }

    /// The changes in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Change> {
        self.0.iter()
    }

    /// Number of ranges.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes in ranges of `kind`.
    pub fn bytes(&self, kind: ChangeKind) -> u64 {
        self.0
            .iter()
            .filter(|c| c.kind == kind)
            .map(|c| c.range.len())
            .sum()
    }

    /// The range from the first changed byte to the last, or `None` if nothing changed.
    pub fn span(&self) -> Option<PageRange> {
        Some(PageRange {
            start: self.0.first()?.range.start,
            end: self.0.last()?.range.end,
        })
    }
}

impl<'a> IntoIterator for &'a PageList {
    type Item = &'a Change;
    type IntoIter = std::slice::Iter<'a, Change>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Joins adjacent changes of the same kind in a stream of changes, which the pipelines cut at windows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Joiner(Option<Change>);

impl Joiner {
    /// Adds a change. Returns the previous one if it is known to be complete.
    pub fn push(&mut self, change: Change) -> Option<Change> {
        if let Some(held) = &mut self.0
            && held.kind == change.kind
            && held.range.end == change.range.start
        {
            held.range.end = change.range.end;
            return None;
        }
        self.0.replace(change)
    }

    /// Returns the last change.
    pub fn finish(&mut self) -> Option<Change> {
        self.0.take()
    }
}

/// Returns whether every byte is zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Checks 64 bytes at a time without branches, which the compiler vectorizes. The early exit between pieces keeps
    // data pages cheap.
    let (pieces, rest) = bytes.as_chunks::<64>();
    pieces
        .iter()
        .all(|piece| piece.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> PageRange {
        PageRange::new(start * PAGE_SIZE, end * PAGE_SIZE).unwrap()
    }

    #[test]
    fn only_aligned_forward_ranges_exist() {
        assert!(PageRange::new(512, 1024).is_some());
        assert!(PageRange::new(512, 512).is_some());
        assert!(PageRange::new(1024, 512).is_none());
        assert!(PageRange::new(1, 512).is_none());
        assert!(PageRange::from_len(512, u64::MAX).is_err());
    }

    #[test]
    fn covering_rounds_outwards_and_is_never_backwards() {
        assert_eq!(PageRange::covering(1, 2), range(0, 1));
        assert_eq!(PageRange::covering(512, 1024), range(1, 2));
        assert_eq!(PageRange::covering(511, 1025), range(0, 3));
        assert_eq!(PageRange::covering(1024, 512), range(2, 2));
        assert!(PageRange::covering(u64::MAX, u64::MAX).is_empty());
    }

    #[test]
    fn hull_and_cut_to_are_total() {
        let (a, b) = (range(2, 4), range(6, 9));
        assert_eq!(a.hull(b), range(2, 9));
        assert_eq!(b.hull(a), range(2, 9));
        assert_eq!(range(3, 7).cut_to(b), range(6, 7));
        assert_eq!(range(0, 20).cut_to(b), b);
        assert_eq!(a.cut_to(b), range(6, 6));
        assert_eq!(b.cut_to(a), range(4, 4));
        for (one, other) in [(a, b), (range(3, 7), b), (b, a), (range(0, 20), b)] {
            let both = one.intersect(other).unwrap_or(one.cut_to(other));
            assert_eq!(one.cut_to(other), both);
        }
    }

    #[test]
    fn coalescing_joins_what_is_near() {
        let ranges = [(1, 2), (2, 4), (3, 5), (3, 4), (7, 9), (12, 13)].map(|(a, b)| range(a, b));
        let joined = |gap| coalesce(ranges, gap * PAGE_SIZE).collect::<Vec<_>>();
        assert_eq!(joined(0), [range(1, 5), range(7, 9), range(12, 13)]);
        assert_eq!(joined(2), [range(1, 9), range(12, 13)]);
        assert_eq!(joined(3), [range(1, 13)]);
        assert_eq!(coalesce([], 0).count(), 0);
    }

    #[test]
    fn windows_cut_at_multiples_and_cover_everything() {
        let pieces: Vec<_> = range(3, 19).windows(8 * PAGE_SIZE).collect();
        assert_eq!(pieces, [range(3, 8), range(8, 16), range(16, 19)]);
        let last = PageRange::new(u64::MAX - 1535, u64::MAX - 511).unwrap();
        assert_eq!(last.windows(1 << 20).count(), 1);
    }

    #[test]
    fn a_list_joins_neighbours_of_one_kind_and_refuses_disorder() {
        let mut list = PageList::new();
        list.push(Change {
            range: range(1, 2),
            kind: ChangeKind::Update,
        })
        .unwrap();
        list.push(Change {
            range: range(2, 4),
            kind: ChangeKind::Update,
        })
        .unwrap();
        list.push(Change {
            range: range(4, 5),
            kind: ChangeKind::Clear,
        })
        .unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(list.bytes(ChangeKind::Update), 3 * PAGE_SIZE);
        assert!(
            list.push(Change {
                range: range(4, 5),
                kind: ChangeKind::Clear
            })
            .is_err()
        );
        assert!(
            list.push(Change {
                range: range(9, 9),
                kind: ChangeKind::Clear
            })
            .is_err()
        );
        assert_eq!(list.span(), Some(range(1, 5)));
    }

    #[test]
    fn zero_test_sees_every_byte() {
        for len in [0, 1, 63, 64, 65, 512, 1000] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes));
            for at in 0..len {
                bytes[at] = 1;
                assert!(!is_zero(&bytes), "byte {at} of {len}");
                bytes[at] = 0;
            }
        }
    }
}
