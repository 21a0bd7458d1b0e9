//! Checks the dynamic disk header, and the location of the BAT.

use super::checker::Checker;
use super::footers::Footers;
use super::rules;
use super::table::Table;
use crate::error::Result;
use crate::vhd::{
    DiskType, DynamicHeader, FOOTER_SIZE, Footer, HEADER_SIZE, MAX_BLOCK_SIZE, SECTOR_SIZE,
    Timestamp, UniqueId, Version,
};

const FOOTER_LEN: u64 = FOOTER_SIZE as u64;
const HEADER_LEN: u64 = HEADER_SIZE as u64;

impl Checker<'_> {
    /// Checks every field of the header. Returns the BAT if it can be located.
    pub(super) fn header(&mut self, footer: &Footer, footers: &Footers) -> Result<Option<Table>> {
        let data_end = footers.data_end();
        let Some(at) = self.header_place(footer, footers, data_end)? else {
            return Ok(None);
        };
        let mut bytes = [0; HEADER_SIZE];
        self.storage.read_exact_at(&mut bytes, at)?;
        let mut header = DynamicHeader::decode(&bytes);
        let wrong_cookie = header.cookie != DynamicHeader::COOKIE;
        let expected = header.compute_checksum();
        if wrong_cookie {
            let found = format_args!("\"{}\"", header.cookie.escape_ascii());
            let rule = &rules::HEADER_COOKIE;
            self.findings
                .add(rule, "header.cookie", at, found, "\"cxsparse\"");
            let whole = DynamicHeader {
                cookie: DynamicHeader::COOKIE,
                ..header.clone()
            };
            if header.checksum != expected && whole.compute_checksum() != header.checksum {
                // There is no header at all, so its fields mean nothing.
                return Ok(None);
            }
        } else if header.checksum != expected {
            self.findings.add(
                &rules::HEADER_CHECKSUM,
                "header.checksum",
                at + 36,
                format_args!("{:#010x}", header.checksum),
                format_args!("{expected:#010x}"),
            );
        }
        let is_proven = !wrong_cookie && header.checksum == expected && at == footer.data_offset;
        self.header_fields(&header, at);
        if footer.disk_type == DiskType::Dynamic {
            self.no_parent(&header, at);
        }
        let sound = self.block_size(&header, at) & self.table_place(&header, at, data_end);
        let blocks = if sound {
            let blocks = footer.current_size.div_ceil(u64::from(header.block_size));
            self.table_size(&header, at, blocks, data_end)
                .map(|entries| (blocks, entries))
        } else {
            None
        };
        if let Some((_, entries)) = blocks {
            // A table of the wrong size is treated as one that fits.
            let entries = u32::try_from(entries).unwrap_or(u32::MAX);
            header.max_table_entries = header.max_table_entries.min(entries);
        }
        Ok(blocks.map(|(blocks, entries)| Table {
            header,
            header_at: at,
            entries,
            blocks,
            data_end,
            file_len: footers.file_len,
            is_child: footer.disk_type == DiskType::Differencing,
            virtual_size: footer.current_size,
            is_proven,
        }))
    }

    /// Returns the header's offset. If the footer's is invalid, but there is a header at the usual offset, returns that
    /// one.
    fn header_place(
        &mut self,
        footer: &Footer,
        footers: &Footers,
        data_end: u64,
    ) -> Result<Option<u64>> {
        let at = footer.data_offset;
        let inside = |at: u64| {
            let end = at.checked_add(HEADER_LEN);
            at >= FOOTER_LEN && end.is_some_and(|end| end <= data_end)
        };
        if inside(at) && at.is_multiple_of(SECTOR_SIZE) {
            return Ok(Some(at));
        }
        let last = data_end.saturating_sub(HEADER_LEN);
        let (name, start) = footers
            .believed()
            .map_or(("footer", 0), |seen| (footers.name_of(seen), seen.at));
        self.findings.add(
            &rules::DATA_OFFSET,
            format_args!("{name}.data_offset"),
            start.saturating_add(16),
            format_args!("{at:#x}"),
            format_args!("a multiple of 512 from 0x200 to {last:#x}"),
        );
        if !inside(FOOTER_LEN) {
            return Ok(None);
        }
        let mut bytes = [0; HEADER_SIZE];
        self.storage.read_exact_at(&mut bytes, FOOTER_LEN)?;
        let header = DynamicHeader::decode(&bytes);
        Ok(header.verify(FOOTER_LEN).is_ok().then_some(FOOTER_LEN))
    }

    fn header_fields(&mut self, header: &DynamicHeader, at: u64) {
        let add = &mut self.findings;
        if header.header_version.major() != 1 {
            let (rule, found) = (&rules::HEADER_VERSION, header.header_version);
            add.add(rule, "header.header_version", at + 24, found, Version::ONE);
        }
        if header.data_offset != Footer::NO_OFFSET {
            let found = format_args!("{:#x}", header.data_offset);
            let rule = &rules::HEADER_DATA_OFFSET;
            add.add(rule, "header.data_offset", at + 8, found, "all ones");
        }
        if header.reserved != 0 {
            let found = format_args!("{:#010x}", header.reserved);
            let rule = &rules::HEADER_RESERVED;
            add.add(rule, "header.reserved", at + 60, found, "zeros");
        }
        if let Some(n) = header.reserved_tail.iter().position(|byte| *byte != 0) {
            let byte = header.reserved_tail.get(n).copied().unwrap_or(0);
            let found = format_args!("{byte:#04x} at byte {}", 768 + n);
            let rule = &rules::HEADER_RESERVED;
            let offset = at + 768 + n as u64;
            add.add(rule, "header.reserved", offset, found, "zeros");
        }
    }

    /// Reports parent fields in a dynamic disk, where they mean nothing.
    fn no_parent(&mut self, header: &DynamicHeader, at: u64) {
        let mut add = |field: &str, offset: u64, found: &dyn std::fmt::Display| {
            let rule = &rules::PARENT_UNWANTED;
            self.findings.add(
                rule,
                format_args!("header.{field}"),
                at + offset,
                found,
                "zeros",
            );
        };
        if header.parent_unique_id != UniqueId::default() {
            add("parent_unique_id", 40, &header.parent_unique_id);
        }
        if header.parent_timestamp != Timestamp(0) {
            add("parent_timestamp", 56, &header.parent_timestamp);
        }
        if header.parent_unicode_name != [0; 512] {
            let name = format!("\"{}\"", header.parent_name());
            add("parent_unicode_name", 64, &name);
        }
        for (n, locator) in header.parent_locators.iter().enumerate() {
            // Some programs leave the offsets of empty locators in place.
            if locator.is_used() || locator.data_length != 0 {
                let field = format!("parent_locator[{n}].platform_code");
                add(&field, 576 + n as u64 * 24, &locator);
            }
        }
    }

    fn block_size(&mut self, header: &DynamicHeader, at: u64) -> bool {
        let size = header.block_size;
        let sensible = SECTOR_SIZE..=u64::from(MAX_BLOCK_SIZE);
        let sound = size.is_power_of_two() && sensible.contains(&u64::from(size));
        if !sound {
            self.findings.add(
                &rules::BLOCK_SIZE,
                "header.block_size",
                at + 32,
                format_args!("{size} bytes"),
                "a power of two from 512 bytes to 1 GiB",
            );
        }
        sound
    }

    fn table_place(&mut self, header: &DynamicHeader, at: u64, data_end: u64) -> bool {
        let start = header.table_offset;
        let beside = start >= at + HEADER_LEN || start < at;
        let inside = start >= FOOTER_LEN && start.checked_add(4).is_some_and(|end| end <= data_end);
        let sound = start.is_multiple_of(SECTOR_SIZE) && beside && inside;
        if !sound {
            let expected = format_args!(
                "a multiple of 512 after the footer's copy, outside the header, before {data_end:#x}"
            );
            let found = format_args!("{start:#x}");
            let rule = &rules::TABLE_OFFSET;
            self.findings
                .add(rule, "header.table_offset", at + 16, found, expected);
        }
        sound
    }

    /// The number of entries that can be checked.
    fn table_size(
        &mut self,
        header: &DynamicHeader,
        at: u64,
        blocks: u64,
        data_end: u64,
    ) -> Option<u64> {
        let entries = u64::from(header.max_table_entries);
        let start = header.table_offset;
        let room_end = if start < at { at } else { data_end };
        let room = room_end.saturating_sub(start) / 4;
        if entries >= blocks && entries <= room && entries > 0 {
            return Some(entries);
        }
        let expected = format!("from {} to {room}", blocks.max(1));
        let field = "header.max_table_entries";
        let rule = &rules::MAX_TABLE_ENTRIES;
        self.findings.add(rule, field, at + 28, entries, expected);
        let seen = entries.min(blocks);
        (seen > 0 && seen <= room).then_some(seen)
    }
}
