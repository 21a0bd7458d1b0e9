//! Block bitmaps: one bit per sector of a block, most significant bit first.

use super::SECTOR_SIZE;

/// Size of the bitmap of a block of `block_size` bytes in the file, in bytes, rounded up to a whole sector
/// (specification, "Data Block").
pub fn bitmap_bytes(block_size: u32) -> u64 {
    u64::from(block_size)
        .div_ceil(SECTOR_SIZE * 8)
        .next_multiple_of(SECTOR_SIZE)
}

/// A run of sectors with equal bits, counted from the start of the bitmap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First sector.
    pub start: u64,
    /// The sector after the last.
    pub end: u64,
    /// Whether the bits are set, which means that the sectors are stored.
    pub stored: bool,
}

/// A bitmap, or a part of one that begins at a multiple of eight sectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    bytes: Vec<u8>,
    /// The sector of the first bit.
    first: u64,
}

impl Bitmap {
    /// Wraps a bitmap, or the part of one that begins with sector `first`, a multiple of eight.
    pub fn new(bytes: Vec<u8>, first: u64) -> Self {
        Self { bytes, first }
    }

    /// The bytes as stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns whether the sector's bit is set. A sector outside of the bitmap isn't stored.
    pub fn is_stored(&self, sector: u64) -> bool {
        let bit = sector.wrapping_sub(self.first);
        let byte = usize::try_from(bit / 8)
            .ok()
            .and_then(|n| self.bytes.get(n));
        byte.is_some_and(|byte| byte & (0x80 >> (bit % 8)) != 0)
    }

    /// Returns whether all bits of `sectors` are set.
    pub fn is_full(&self, sectors: std::ops::Range<u64>) -> bool {
        self.run_end(sectors.start, sectors.end, true) == sectors.end
    }

    /// Sets the bits of `sectors`. Returns whether any of them was clear.
    pub fn set(&mut self, sectors: std::ops::Range<u64>) -> bool {
        let mut changed = false;
        let mut sector = sectors.start;
        while sector < sectors.end {
            let bit = sector.wrapping_sub(self.first);
            let last = (8 - bit % 8).min(sectors.end - sector);
            // `last` bits, starting with bit `bit % 8`.
            let mask = (0xFF_u8 >> (bit % 8)) & !(0xFF_u16 >> (bit % 8 + last)).to_be_bytes()[1];
            let byte = usize::try_from(bit / 8)
                .ok()
                .and_then(|n| self.bytes.get_mut(n));
            if let Some(byte) = byte {
                changed |= *byte & mask != mask;
                *byte |= mask;
            }
            sector += last;
        }
        changed
    }

    /// The runs of equal bits in `sectors`, in order and without gaps.
    pub fn runs(&self, sectors: std::ops::Range<u64>) -> impl Iterator<Item = Run> + '_ {
        let mut at = sectors.start;
        std::iter::from_fn(move || {
            if at >= sectors.end {
                return None;
            }
            let (start, stored) = (at, self.is_stored(at));
            at = self.run_end(at, sectors.end, stored);
            Some(Run {
                start,
                end: at,
                stored,
            })
        })
    }

    /// Returns the first sector in `start..end` whose bit differs from `stored`, or `end`.
    fn run_end(&self, start: u64, end: u64, stored: bool) -> u64 {
        let uniform = if stored { 0xFF } else { 0 };
        let mut at = start;
        while at < end {
            let bit = at.wrapping_sub(self.first);
            let byte = usize::try_from(bit / 8)
                .ok()
                .and_then(|n| self.bytes.get(n));
            if bit.is_multiple_of(8) && byte.copied().unwrap_or(0) == uniform {
                at = at.saturating_add(8);
            } else if self.is_stored(at) == stored {
                at += 1;
            } else {
                return at;
            }
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_up_to_sectors() {
        assert_eq!(bitmap_bytes(2 << 20), 512);
        assert_eq!(bitmap_bytes(512 << 10), 512);
        assert_eq!(bitmap_bytes(512), 512);
        assert_eq!(bitmap_bytes(4 << 20), 1024);
        assert_eq!(bitmap_bytes(1 << 30), 256 << 10);
    }

    #[test]
    fn the_first_sector_is_the_most_significant_bit() {
        let bitmap = Bitmap::new(vec![0b1000_0001, 0b0100_0000], 0);
        let stored: Vec<u64> = (0..20).filter(|n| bitmap.is_stored(*n)).collect();
        assert_eq!(stored, [0, 7, 9]);
    }

    #[test]
    fn setting_and_runs_agree_with_a_plain_list() {
        for first in [0, 64] {
            for start in 0..40 {
                for end in start..=40 {
                    let mut bitmap = Bitmap::new(vec![0, 0, 0b0010_0000, 0xFF, 0], first);
                    let mut plain: Vec<bool> =
                        (0..40).map(|n| bitmap.is_stored(first + n)).collect();
                    let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
                    let clear = plain[range.clone()].contains(&false);
                    assert_eq!(bitmap.set(first + start..first + end), clear);
                    plain[range].fill(true);
                    let mut seen = Vec::new();
                    let mut last = None;
                    for run in bitmap.runs(first..first + 40) {
                        assert!(run.start < run.end && last != Some(run.stored));
                        last = Some(run.stored);
                        seen.extend((run.start..run.end).map(|_| run.stored));
                    }
                    assert_eq!(seen, plain, "{start}..{end}");
                    assert!(bitmap.is_full(first + start..first + end));
                }
            }
        }
    }
}
