//! The locations of the BAT and the blocks of a file.

use std::ops::Range;

use crate::vhd::{DynamicHeader, FOOTER_SIZE, HEADER_SIZE, SECTOR_SIZE, bitmap_bytes, table_bytes};

const FOOTER_LEN: u64 = FOOTER_SIZE as u64;
const HEADER_LEN: u64 = HEADER_SIZE as u64;

/// A BAT that can be checked.
pub(super) struct Table {
    pub(super) header: DynamicHeader,
    pub(super) header_at: u64,
    /// Entries within the file, or those that the disk needs if there aren't enough.
    pub(super) entries: u64,
    /// Blocks of the virtual disk.
    pub(super) blocks: u64,
    /// Where blocks must end.
    pub(super) data_end: u64,
    /// Length of the file for messages: up to the trailing footer, if it is in place.
    pub(super) file_len: u64,
    pub(super) is_child: bool,
    /// Bytes of the virtual disk.
    pub(super) virtual_size: u64,
    /// Whether the header is at the offset in the footer, with a correct cookie and checksum.
    pub(super) is_proven: bool,
}

impl Table {
    pub(super) fn start(&self) -> u64 {
        self.header.table_offset
    }

    /// The end of the last entry.
    pub(super) fn end(&self) -> u64 {
        self.start() + u64::from(self.header.max_table_entries) * 4
    }

    pub(super) fn block_size(&self) -> u64 {
        u64::from(self.header.block_size)
    }

    pub(super) fn bitmap_bytes(&self) -> u64 {
        bitmap_bytes(self.header.block_size)
    }

    /// Sectors of a block within the disk: fewer than all in its last one.
    pub(super) fn wanted_sectors(&self, block: u64) -> u64 {
        let start = block.saturating_mul(self.block_size());
        let left = self.virtual_size.saturating_sub(start);
        left.min(self.block_size()).div_ceil(SECTOR_SIZE)
    }

    /// Bytes of a block's bitmap that are ever needed.
    pub(super) fn wanted_bitmap(&self, block: u64) -> u64 {
        self.wanted_sectors(block).div_ceil(8)
    }

    /// Bytes of a block in the file that are ever needed: its bitmap, and its data up to the end of the disk.
    pub(super) fn wanted_bytes(&self, block: u64) -> u64 {
        self.bitmap_bytes() + self.wanted_sectors(block) * SECTOR_SIZE
    }

    /// Bytes of a block in the file.
    pub(super) fn stride(&self) -> u64 {
        self.bitmap_bytes() + self.block_size()
    }

    pub(super) fn entry_at(&self, block: u64) -> u64 {
        self.start().saturating_add(block.saturating_mul(4))
    }

    /// The structures that no block may overlap.
    pub(super) fn structures(&self) -> [(Range<u64>, &'static str); 3] {
        let header = self.header_at..self.header_at + HEADER_LEN;
        [
            (0..FOOTER_LEN, "the footer's copy"),
            (header, "the dynamic disk header"),
            (self.start()..self.end(), "the BAT"),
        ]
    }

    /// The end of the last of these structures.
    pub(super) fn structures_end(&self) -> u64 {
        let table = self.start() + table_bytes(self.header.max_table_entries);
        table.max(self.header_at + HEADER_LEN)
    }
}
