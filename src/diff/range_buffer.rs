//! A buffer for parts of the disk: a whole window, or only the parts of it that a diff touches, so that a few changed
//! pages take little memory.

use super::format::damaged;
use super::sections::Frame;
use crate::error::Result;
use crate::page::{ChangeKind, PageRange, coalesce};

/// Ranges of the disk, in order, stored one after another in a buffer.
#[derive(Debug)]
pub(super) struct RangeBuffer {
    /// Each range with its offset in the buffer.
    list: Vec<(PageRange, usize)>,
    len: usize,
}

impl RangeBuffer {
    /// A buffer for one range.
    pub(super) fn whole(range: PageRange) -> Self {
        Self::joining(&[range], 0)
    }

    /// A buffer for `ranges`, which are in order. Ranges at most `gap` apart are joined, including the gap.
    pub(super) fn joining(ranges: &[PageRange], gap: u64) -> Self {
        let mut len = 0;
        let place = |range: PageRange| {
            let at = len;
            len += range.buffer_len();
            (range, at)
        };
        let list = coalesce(ranges.iter().copied(), gap).map(place).collect();
        Self { list, len }
    }

    /// Length of the buffer in bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The ranges, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = PageRange> {
        self.list.iter().map(|(range, _)| *range)
    }

    /// Returns the bytes of `range`, which lies within one of the ranges.
    pub(super) fn piece<'b>(&self, bytes: &'b [u8], range: PageRange) -> &'b [u8] {
        bytes.get(self.place(range)).unwrap_or_default()
    }

    /// As [`piece`](Self::piece), mutable.
    pub(super) fn piece_mut<'b>(&self, bytes: &'b mut [u8], range: PageRange) -> &'b mut [u8] {
        bytes.get_mut(self.place(range)).unwrap_or_default()
    }

    /// Zeroes the parts of all ranges within `range`.
    pub(super) fn clear(&self, bytes: &mut [u8], range: PageRange) {
        for part in self.iter().filter_map(|span| span.intersect(range)) {
            self.piece_mut(bytes, part).fill(0);
        }
    }

    fn place(&self, range: PageRange) -> std::ops::Range<usize> {
        let n = self
            .list
            .partition_point(|(span, _)| span.end() <= range.start());
        let at = self.list.get(n).and_then(|(span, at)| {
            let into = range.start().checked_sub(span.start())?;
            at.checked_add(usize::try_from(into).ok()?)
        });
        let at = at.unwrap_or(usize::MAX);
        at..at.saturating_add(range.buffer_len())
    }
}

/// Applies the part of a frame within `within` to the bytes that `spans` covers.
pub(super) fn put(
    frame: Frame,
    within: PageRange,
    spans: &RangeBuffer,
    bytes: &mut [u8],
) -> Result<()> {
    let changes = frame.changes().clone();
    let payload = frame.unpack()?;
    let mut rest = &*payload;
    for change in &changes {
        let Some(range) = change.range.intersect(within) else {
            continue;
        };
        let into = spans.piece_mut(bytes, range);
        match change.kind {
            ChangeKind::Clear => into.fill(0),
            ChangeKind::Update => {
                let Some((data, after)) = rest.split_at_checked(into.len()) else {
                    return Err(damaged("a frame's payload is too short"));
                };
                into.copy_from_slice(data);
                rest = after;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> PageRange {
        PageRange::new(start * 512, end * 512).unwrap()
    }

    #[test]
    fn what_lies_apart_lies_together_in_the_buffer() {
        let spans = RangeBuffer::joining(&[range(1, 2), range(3, 4), range(8, 10)], 512);
        assert_eq!(
            spans.iter().collect::<Vec<_>>(),
            [range(1, 4), range(8, 10)]
        );
        assert_eq!(spans.len(), 5 * 512);
        let mut bytes: Vec<u8> = (0..5).flat_map(|page| [page; 512]).collect();
        for (page, at) in [(1, 0), (2, 1), (3, 2), (8, 3), (9, 4)] {
            assert_eq!(spans.piece(&bytes, range(page, page + 1)), [at; 512]);
        }
        assert_eq!(spans.piece(&bytes, range(8, 10)).len(), 1024);
        for outside in [range(0, 1), range(4, 5), range(10, 11)] {
            assert!(spans.piece(&bytes, outside).is_empty());
        }
        spans.clear(&mut bytes, range(3, 9));
        let left: Vec<u8> = bytes.iter().step_by(512).copied().collect();
        assert_eq!(left, [0, 1, 0, 0, 4]);
    }
}
