//! The block allocation table (BAT): the location of each block of the virtual disk.

use super::SECTOR_SIZE;

/// The stored value for an absent block.
pub const ABSENT: u32 = u32::MAX;

/// One entry of the BAT: the sector at which a block's bitmap starts, followed by its data, or [`ABSENT`]
/// (specification, "Block Allocation Table and Data Blocks").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatEntry(pub u32);

impl BatEntry {
    /// An absent block.
    pub const ABSENT: Self = Self(ABSENT);

    /// The entry for a block at byte `offset`. Returns `None` if the offset isn't a multiple of a sector or too large
    /// for an entry.
    pub fn at(offset: u64) -> Option<Self> {
        let sector = u32::try_from(offset / SECTOR_SIZE).ok()?;
        (offset.is_multiple_of(SECTOR_SIZE) && sector != ABSENT).then_some(Self(sector))
    }

    /// Decodes an entry.
    pub fn decode(bytes: &[u8; 4]) -> Self {
        Self(u32::from_be_bytes(*bytes))
    }

    /// Encodes the entry; the inverse of [`decode`](Self::decode).
    pub fn encode(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    /// The block's offset in the file in bytes, or `None` if it is absent.
    pub fn offset(self) -> Option<u64> {
        (self.0 != ABSENT).then(|| u64::from(self.0) * SECTOR_SIZE)
    }
}

/// Size of a BAT of `entries` entries in the file, in bytes, rounded up to a whole sector.
pub fn table_bytes(entries: u32) -> u64 {
    (u64::from(entries) * 4).next_multiple_of(SECTOR_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_sector_number() {
        assert_eq!(BatEntry::at(3584), Some(BatEntry(7)));
        assert_eq!(BatEntry(7).offset(), Some(3584));
        assert_eq!(BatEntry(0xFFFF_FFFE).offset(), Some(0x1FF_FFFF_FC00));
        assert_eq!(BatEntry::ABSENT.offset(), None);
        assert_eq!(BatEntry::at(3585), None);
        assert_eq!(BatEntry::at(0x1FF_FFFF_FE00), None);
        assert_eq!(BatEntry::at(u64::MAX - 511), None);
    }

    #[test]
    fn a_table_fills_whole_sectors() {
        assert_eq!(table_bytes(1), 512);
        assert_eq!(table_bytes(128), 512);
        assert_eq!(table_bytes(129), 1024);
        assert_eq!(table_bytes(u32::MAX), 17_179_869_184);
    }
}
