//! Where parts of the disk lie in a buffer: all of a window, or no more of it than a diff touches, so that a few changed
//! pages take a few pages of memory.

use super::format::damaged;
use super::sections::Frame;
use crate::error::Result;
use crate::page::{ChangeKind, PageRange, coalesce};

/// Ranges of the disk, in order, one after another in a buffer.
#[derive(Debug)]
pub(super) struct RangeBuffer {
    /// Each with where it begins in the buffer.
    list: Vec<(PageRange, usize)>,
    len: usize,
}

impl RangeBuffer {
    /// One range.
    pub(super) fn whole(range: PageRange) -> Self {
        Self::joining(&[range], 0)
    }

    /// `ranges`, which are in order; those that are no more than `gap` apart with what lies between them.
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

    /// Bytes of the buffer.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The ranges, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = PageRange> {
        self.list.iter().map(|(range, _)| *range)
    }

    /// The bytes of `range`, which lies in one of the ranges.
    pub(super) fn piece<'b>(&self, bytes: &'b [u8], range: PageRange) -> &'b [u8] {
        bytes.get(self.place(range)).unwrap_or_default()
    }

    /// The same, to be changed.
    pub(super) fn piece_mut<'b>(&self, bytes: &'b mut [u8], range: PageRange) -> &'b mut [u8] {
        bytes.get_mut(self.place(range)).unwrap_or_default()
    }

    /// Makes zero what lies in `range` of any of the ranges.
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

/// Applies the part of a frame that lies in `within` to the bytes that `spans` has of it.
pub(super) fn put(
    frame: Frame,
    within: PageRange,
    spans: &RangeBuffer,
    bytes: &mut [u8],
) -> Result<()> {
    let changes = frame.changes().clone();
    let payload = frame.unpack()?;
    let mut rest = payload.as_slice();
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
