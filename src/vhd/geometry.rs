//! Disk geometry: cylinders, heads and sectors per track.

use std::fmt;

use super::SECTOR_SIZE;

/// `footer.disk_geometry`. It is never used as the size of a disk here (that is `current_size`); it is written for
/// other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Geometry {
    /// Cylinders.
    pub cylinders: u16,
    /// Heads.
    pub heads: u8,
    /// Sectors per track.
    pub sectors_per_track: u8,
}

impl Geometry {
    /// Computes the geometry of a disk of `size` bytes by the specification's "Appendix: CHS Calculation". It is
    /// rounded down: it may cover less than the size, and covers at most 65535 × 16 × 255 sectors.
    pub fn for_size(size: u64) -> Self {
        let total = (size / SECTOR_SIZE).min(65_535 * 16 * 255);
        let (heads, sectors_per_track) = if total >= 65_535 * 16 * 63 {
            (16, 255)
        } else {
            Self::small(total)
        };
        let cylinders = total / sectors_per_track / heads;
        Self {
            cylinders: u16::try_from(cylinders).unwrap_or(u16::MAX),
            heads: u8::try_from(heads).unwrap_or(u8::MAX),
            sectors_per_track: u8::try_from(sectors_per_track).unwrap_or(u8::MAX),
        }
    }

    /// Heads and sectors per track for a disk that fits into 63 sectors per track.
    fn small(total: u64) -> (u64, u64) {
        let tracks = total / 17;
        let heads = tracks.div_ceil(1024).max(4);
        if tracks < heads * 1024 && heads <= 16 {
            return (heads, 17);
        }
        if total / 31 < 16 * 1024 {
            return (16, 31);
        }
        (16, 63)
    }

    /// Bytes covered by the geometry.
    pub fn size(self) -> u64 {
        u64::from(self.cylinders)
            * u64::from(self.heads)
            * u64::from(self.sectors_per_track)
            * SECTOR_SIZE
    }

    pub(super) fn from_bytes(bytes: [u8; 4]) -> Self {
        let [high, low, heads, sectors_per_track] = bytes;
        Self {
            cylinders: u16::from_be_bytes([high, low]),
            heads,
            sectors_per_track,
        }
    }

    pub(super) fn to_bytes(self) -> [u8; 4] {
        let [high, low] = self.cylinders.to_be_bytes();
        [high, low, self.heads, self.sectors_per_track]
    }
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}",
            self.cylinders, self.heads, self.sectors_per_track
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_get_the_geometry_of_the_specification() {
        const MIB: u64 = 1 << 20;
        for (size, text) in [
            (MIB, "30/4/17"),
            (4 * MIB, "120/4/17"),
            (40 * MIB, "963/5/17"),
            (128 * MIB, "963/16/17"),
            (504 * MIB, "1024/16/63"),
            (1024 * MIB, "2080/16/63"),
            (8192 * MIB, "16644/16/63"),
            (32_255 * MIB, "65533/16/63"),
            (32_256 * MIB, "16191/16/255"),
            (127 * 1024 * MIB, "65278/16/255"),
            (130_560 * MIB, "65535/16/255"),
            (u64::MAX, "65535/16/255"),
            (66_059_280 * 512, "16191/16/255"),
            (66_059_279 * 512, "65534/16/63"),
            (0, "0/4/17"),
        ] {
            assert_eq!(Geometry::for_size(size).to_string(), text, "{size} bytes");
        }
        assert_eq!(Geometry::for_size(504 * MIB).size(), 504 * MIB);
    }

    #[test]
    fn it_never_covers_more_than_the_disk() {
        for sectors in (0..40_000_000_u64).step_by(99_991) {
            assert!(Geometry::for_size(sectors * 512).size() <= sectors * 512);
        }
    }
}
