//! tapdisk's map of full blocks, which stands behind the BAT.

use std::ops::Range;

use byteorder::{BigEndian, ByteOrder};

use super::Checker;
use super::header::Table;
use super::rules;
use crate::error::Result;
use crate::vhd::{Footer, SECTOR_SIZE, Version, table_bytes};

/// Bytes of its header.
const HEADER: usize = 512;

/// Larger maps aren't looked at: 4 MiB are 32 Mi blocks.
const MAX_MAP: u64 = 4 << 20;

const COOKIE: [u8; 8] = *b"tdbatmap";

/// Where the key's mark lies in the header.
const KEY_AT: usize = 29;

/// A map as found.
#[derive(Debug)]
pub(in crate::vhd) struct Batmap {
    /// Where its header lies.
    pub(in crate::vhd) header_at: u64,
    header: [u8; HEADER],
    /// The bits, if they could be read.
    map: Vec<u8>,
    map_at: u64,
    /// Whether its place and size make sense.
    is_placed: bool,
    /// Whether its checksum is right.
    is_sound: bool,
    /// Whether anything else is where it is.
    pub(super) is_overlapped: bool,
}

impl Batmap {
    /// Whether the map calls the block full, and can be believed.
    pub(super) fn is_full(&self, block: u64) -> bool {
        let byte = usize::try_from(block / 8)
            .ok()
            .and_then(|n| self.map.get(n));
        self.is_sound && byte.is_some_and(|byte| byte & (0x80 >> (block % 8)) != 0)
    }

    /// Where it ends.
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

    /// The writes that empty the map: no block is called full, which is always true. `None` if its place makes no
    /// sense.
    pub(in crate::vhd) fn emptied(&self) -> Option<[(u64, Vec<u8>); 2]> {
        if !self.is_placed || self.is_overlapped || self.header.get(..8) != Some(&COOKIE) {
            return None;
        }
        let mut header = self.header;
        // The complement of a sum of zeros.
        BigEndian::write_u32(&mut header[24..28], u32::MAX);
        Some([
            (self.map_at, vec![0; self.map.len()]),
            (self.header_at, header.to_vec()),
        ])
    }
}

impl Checker<'_> {
    /// Looks at the map of full blocks, if there is one or should be one.
    pub(super) fn batmap(&mut self, footer: &Footer, table: &Table) -> Result<Option<Batmap>> {
        let at = table.start() + table_bytes(table.header.max_table_entries);
        let is_tapdisk = footer.creator_application.0 == *b"tap\0";
        let promised = is_tapdisk && footer.creator_version >= Version(0x0001_0002);
        if !is_tapdisk {
            return Ok(None);
        }
        let mut header = [0; HEADER];
        if at + HEADER as u64 <= table.data_end {
            self.storage.read_exact_at(&mut header, at)?;
        }
        if header[..8] != COOKIE {
            if promised {
                let found = format_args!("\"{}\"", header[..8].escape_ascii());
                let rule = &rules::BATMAP_MISSING;
                self.findings.add(rule, "batmap", at, found, "\"tdbatmap\"");
            }
            return Ok(None);
        }
        if header[KEY_AT] != 0 {
            let (rule, at) = (&rules::BATMAP_ENCRYPTED, at + KEY_AT as u64);
            self.findings
                .add(rule, "batmap", at, "the hash of a key", "none");
        }
        self.read_batmap(table, &header, at).map(Some)
    }

    fn read_batmap(&mut self, table: &Table, header: &[u8; HEADER], at: u64) -> Result<Batmap> {
        let map_at = BigEndian::read_u64(&header[8..16]);
        let len = u64::from(BigEndian::read_u32(&header[16..20])) * SECTOR_SIZE;
        let version = BigEndian::read_u32(&header[20..24]);
        let sum = BigEndian::read_u32(&header[24..28]);
        let end = map_at.checked_add(len);
        let is_placed = map_at.is_multiple_of(SECTOR_SIZE)
            && map_at >= at + HEADER as u64
            && end.is_some_and(|end| end <= table.data_end)
            && len <= MAX_MAP
            && len * 8 >= table.entries;
        let mut map = vec![
            0;
            if is_placed {
                usize::try_from(len).unwrap_or(0)
            } else {
                0
            }
        ];
        self.storage
            .read_exact_at(&mut map, if is_placed { map_at } else { 0 })?;
        let right = checksum(&map, version);
        let is_sound = is_placed && right == sum;
        if !is_placed {
            let found = format_args!("{len} bytes at {map_at:#x}");
            let expected = format_args!(
                "a map of {} bits before {:#x}",
                table.entries, table.data_end
            );
            let rule = &rules::BATMAP_BAD;
            self.findings.add(rule, "batmap", at + 8, found, expected);
        } else if !is_sound {
            let (found, expected) = (format_args!("{sum:#010x}"), format_args!("{right:#010x}"));
            let rule = &rules::BATMAP_BAD;
            self.findings.add(rule, "batmap", at + 24, found, expected);
        }
        Ok(Batmap {
            header_at: at,
            header: *header,
            map,
            map_at,
            is_placed,
            is_sound,
            is_overlapped: false,
        })
    }
}

/// One's complement of the sum of all bytes, which version 1.1 took for signed ones.
fn checksum(map: &[u8], version: u32) -> u32 {
    let signed = version <= 0x0001_0001;
    !map.iter().fold(0_u32, |sum, byte| {
        let value = if signed && *byte > 127 {
            u32::from(*byte).wrapping_sub(256)
        } else {
            u32::from(*byte)
        };
        sum.wrapping_add(value)
    })
}
