//! The rules for tapdisk's map of full blocks (batmap).

use byteorder::{BigEndian, ByteOrder};

use super::batmap::{Batmap, COOKIE, HEADER, KEY_AT, MAX_MAP};
use super::checker::Checker;
use super::rules;
use super::table::Table;
use crate::error::Result;
use crate::page::to_usize;
use crate::vhd::{Footer, SECTOR_SIZE, Version, table_bytes};

impl Checker<'_> {
    /// Checks the map of full blocks, if there is one or should be one.
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
        let mut map = vec![0; if is_placed { to_usize(len) } else { 0 }];
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

/// The one's complement of the sum of all bytes, which version 1.1 treated as signed.
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
