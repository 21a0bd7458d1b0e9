//! Which gaps between ranges are written, too, because another request would cost more.

use super::store::MAX_PUT;
use crate::page::PageRange;

/// Requests that the service takes in a second for one blob.
const REQUESTS: u128 = 500;

/// Bytes that the service takes in a second for one blob.
const BYTES: u128 = 60 << 20;

/// The ranges, which are in order, with the gaps between some of them: the smallest first, as long as the service's limit for
/// requests takes longer than the one for bytes. Whoever writes a gap must know what is in it.
pub(crate) fn with_gaps(ranges: &[PageRange]) -> Vec<PageRange> {
    let puts = |range: &PageRange| u128::from(range.len().div_ceil(MAX_PUT));
    let mut requests: u128 = ranges.iter().map(puts).sum();
    let mut bytes: u128 = ranges.iter().map(|range| u128::from(range.len())).sum();
    let pairs = ranges.windows(2).enumerate();
    let mut gaps: Vec<(u64, usize)> = pairs
        .filter_map(|(at, pair)| match pair {
            [left, right] => Some((right.start().saturating_sub(left.end()), at)),
            _ => None,
        })
        .collect();
    gaps.sort_unstable();
    let mut joined = vec![false; ranges.len()];
    for (gap, at) in gaps {
        // A request and a byte each take their share of a second.
        let more = bytes.saturating_add(gap.into());
        if more.saturating_mul(REQUESTS) > requests.saturating_mul(BYTES) || gap >= MAX_PUT {
            break;
        }
        requests = requests.saturating_sub(1);
        bytes = more;
        if let Some(joined) = joined.get_mut(at) {
            *joined = true;
        }
    }
    let mut all: Vec<PageRange> = Vec::new();
    let mut join = false;
    for (range, next) in ranges.iter().zip(joined) {
        match all.last_mut().filter(|_| join) {
            Some(last) => *last = last.hull(*range),
            None => all.push(*range),
        }
        join = next;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> PageRange {
        PageRange::covering(start, end)
    }

    #[test]
    fn the_smallest_gaps_are_joined_until_bytes_take_as_long_as_requests() {
        assert_eq!(with_gaps(&[]), []);
        // Single pages 20 KB apart: most are one, until the bytes take as long as the requests that are left.
        let pages: Vec<_> = (0..100)
            .map(|n| range(n * 20_480, n * 20_480 + 512))
            .collect();
        assert!((12..18).contains(&with_gaps(&pages).len()));
        // A mebibyte apart, a request is cheaper than a gap.
        let far: Vec<_> = (0..3).map(|n| range(n << 20, (n << 20) + 512)).collect();
        assert_eq!(with_gaps(&far), far);
        // Large ranges are left as they are.
        let large: Vec<_> = (0..9)
            .map(|n| range(n << 20, (n << 20) + (1 << 19)))
            .collect();
        assert_eq!(with_gaps(&large), large);
        // The smallest gap goes first.
        let mixed = [
            range(0, 512),
            range(1024, 1536),
            range(1 << 20, (1 << 20) + 512),
        ];
        assert_eq!(with_gaps(&mixed)[0], range(0, 1536));
    }
}
