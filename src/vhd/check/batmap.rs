//! tapdisk's map of full blocks (batmap), which follows the BAT.

use std::ops::Range;

use byteorder::{BigEndian, ByteOrder};

/// Length of its header in bytes.
pub(super) const HEADER: usize = 512;

/// Larger maps aren't checked: 4 MiB cover 32 Mi blocks.
pub(super) const MAX_MAP: u64 = 4 << 20;

pub(super) const COOKIE: [u8; 8] = *b"tdbatmap";

/// Offset of the key's hash in the header.
pub(super) const KEY_AT: usize = 29;

/// A map as found in the file.
#[derive(Debug)]
pub(in crate::vhd) struct Batmap {
    /// Offset of its header.
    pub(in crate::vhd) header_at: u64,
    pub(super) header: [u8; HEADER],
    /// The map's bytes, if they could be read.
    pub(super) map: Vec<u8>,
    pub(super) map_at: u64,
    /// Whether its location and size are valid.
    pub(super) is_placed: bool,
    /// Whether its checksum is right.
    pub(super) is_sound: bool,
    /// Whether it overlaps something else.
    pub(super) is_overlapped: bool,
}

impl Batmap {
    /// Returns whether the map marks the block as full and can be trusted.
    pub(super) fn is_full(&self, block: u64) -> bool {
        let byte = usize::try_from(block / 8)
            .ok()
            .and_then(|n| self.map.get(n));
        self.is_sound && byte.is_some_and(|byte| byte & (0x80 >> (block % 8)) != 0)
    }

    /// Its end in the file.
    pub(super) fn end(&self) -> u64 {
        let header_end = self.header_at.saturating_add(HEADER as u64);
        if self.is_placed {
            header_end.max(self.map_at.saturating_add(self.map.len() as u64))
        } else {
            header_end
        }
    }

    pub(super) fn overlaps(&self, place: &Range<u64>) -> bool {
        let map = self.map_at..self.map_at.saturating_add(self.map.len() as u64);
        let header = self.header_at..self.header_at.saturating_add(HEADER as u64);
        [map, header]
            .iter()
            .any(|range| range.start < place.end && place.start < range.end)
    }

    /// The writes that clear the map: not marking any block as full is always correct. Returns `None` if its location
    /// is invalid.
    pub(in crate::vhd) fn emptied(&self) -> Option<[(u64, Vec<u8>); 2]> {
        if !self.is_placed || self.is_overlapped || self.header.get(..8) != Some(&COOKIE) {
            return None;
        }
        let mut header = self.header;
        // The one's complement of a sum of zeros.
        BigEndian::write_u32(&mut header[24..28], u32::MAX);
        Some([
            (self.map_at, vec![0; self.map.len()]),
            (self.header_at, header.to_vec()),
        ])
    }
}
