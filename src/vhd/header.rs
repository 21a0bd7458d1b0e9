//! The dynamic disk header: 1024 bytes that contain the location of the BAT and the block size.

use byteorder::{BigEndian, ByteOrder};

use super::bytes::{Field, array, reserved};
use super::{LOCATOR_SIZE, ParentLocator, SECTOR_SIZE, Timestamp, UniqueId, Version, checksum};
use crate::error::{Error, Result};

/// Length of a dynamic disk header in bytes.
pub const HEADER_SIZE: usize = 1024;

/// The largest supported block size: its bitmap takes 256 KiB. No writer is known to go beyond 2 MiB.
pub const MAX_BLOCK_SIZE: u32 = 1 << 30;

const CHECKSUM_AT: usize = 36;
const LOCATORS_AT: usize = 576;

/// The fields of a dynamic disk header as found (specification, "Dynamic Disk Header Format").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamicHeader {
    /// `cxsparse`.
    pub cookie: [u8; 8],
    /// Unused: all ones.
    pub data_offset: u64,
    /// Offset of the BAT in bytes.
    pub table_offset: u64,
    /// 1.0.
    pub header_version: Version,
    /// Entries of the BAT: at least the number of blocks of the virtual disk.
    pub max_table_entries: u32,
    /// Bytes of data in a block, without its bitmap.
    pub block_size: u32,
    /// The stored checksum; see [`compute_checksum`](Self::compute_checksum).
    pub checksum: u32,
    /// `footer.unique_id` of the parent; differencing disks only.
    pub parent_unique_id: UniqueId,
    /// Modification time of the parent; differencing disks only.
    pub parent_timestamp: Timestamp,
    /// Zero.
    pub reserved: u32,
    /// Name of the parent, UTF-16 big-endian, padded with zeros.
    pub parent_unicode_name: [u8; 512],
    /// Locations of the parent.
    pub parent_locators: [ParentLocator; 8],
    /// Zero.
    pub reserved_tail: [u8; 256],
}

/// Offset of entry `n` of the parent locators within the header.
pub(super) fn locator_at(n: usize) -> u64 {
    (LOCATORS_AT + n * LOCATOR_SIZE) as u64
}

impl DynamicHeader {
    /// The cookie of every dynamic disk header.
    pub const COOKIE: [u8; 8] = *b"cxsparse";

    /// Creates a sealed header of a dynamic disk.
    pub fn new(table_offset: u64, max_table_entries: u32, block_size: u32) -> Self {
        Self {
            cookie: Self::COOKIE,
            data_offset: u64::MAX,
            table_offset,
            header_version: Version::ONE,
            max_table_entries,
            block_size,
            checksum: 0,
            parent_unique_id: UniqueId::default(),
            parent_timestamp: Timestamp(0),
            reserved: 0,
            parent_unicode_name: [0; 512],
            parent_locators: [ParentLocator::NONE; 8],
            reserved_tail: [0; 256],
        }
        .sealed()
    }

    /// Decodes a header; every array of bytes is valid.
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Self {
        Self {
            cookie: array(bytes, 0),
            data_offset: BigEndian::read_u64(&bytes[8..16]),
            table_offset: BigEndian::read_u64(&bytes[16..24]),
            header_version: Version(BigEndian::read_u32(&bytes[24..28])),
            max_table_entries: BigEndian::read_u32(&bytes[28..32]),
            block_size: BigEndian::read_u32(&bytes[32..36]),
            checksum: BigEndian::read_u32(&bytes[36..40]),
            parent_unique_id: UniqueId(array(bytes, 40)),
            parent_timestamp: Timestamp(BigEndian::read_u32(&bytes[56..60])),
            reserved: BigEndian::read_u32(&bytes[60..64]),
            parent_unicode_name: array(bytes, 64),
            parent_locators: std::array::from_fn(|n| {
                ParentLocator::decode(&array(bytes, LOCATORS_AT + n * LOCATOR_SIZE))
            }),
            reserved_tail: array(bytes, 768),
        }
    }

    /// Encodes the header; the inverse of [`decode`](Self::decode).
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        bytes[0..8].copy_from_slice(&self.cookie);
        BigEndian::write_u64(&mut bytes[8..16], self.data_offset);
        BigEndian::write_u64(&mut bytes[16..24], self.table_offset);
        BigEndian::write_u32(&mut bytes[24..28], self.header_version.0);
        BigEndian::write_u32(&mut bytes[28..32], self.max_table_entries);
        BigEndian::write_u32(&mut bytes[32..36], self.block_size);
        BigEndian::write_u32(&mut bytes[36..40], self.checksum);
        bytes[40..56].copy_from_slice(&self.parent_unique_id.0);
        BigEndian::write_u32(&mut bytes[56..60], self.parent_timestamp.0);
        BigEndian::write_u32(&mut bytes[60..64], self.reserved);
        bytes[64..576].copy_from_slice(&self.parent_unicode_name);
        for (n, locator) in self.parent_locators.iter().enumerate() {
            let at = LOCATORS_AT + n * LOCATOR_SIZE;
            bytes[at..at + LOCATOR_SIZE].copy_from_slice(&locator.encode());
        }
        bytes[768..1024].copy_from_slice(&self.reserved_tail);
        bytes
    }

    /// The correct checksum for the other fields.
    pub fn compute_checksum(&self) -> u32 {
        checksum(&self.encode(), CHECKSUM_AT)
    }

    /// The header with a correct checksum.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.checksum = self.compute_checksum();
        self
    }

    /// The parent's name up to the first NUL. Invalid UTF-16 becomes U+FFFD.
    pub fn parent_name(&self) -> String {
        let (units, _) = self.parent_unicode_name.as_chunks::<2>();
        let units: Vec<u16> = units
            .iter()
            .map(|unit| u16::from_be_bytes(*unit))
            .take_while(|unit| *unit != 0)
            .collect();
        String::from_utf16_lossy(&units)
    }

    /// Stores the parent's name. Fails if it has more than 255 UTF-16 units.
    pub(super) fn set_parent_name(&mut self, name: &str) -> Result<()> {
        let bytes: Vec<u8> = name.encode_utf16().flat_map(u16::to_be_bytes).collect();
        // A final NUL is part of the field.
        if bytes.len() + 2 > self.parent_unicode_name.len() {
            return Err(Error::usage("the parent's name is too long")
                .with_field("header.parent_unicode_name")
                .with_found(format_args!("{} UTF-16 units", bytes.len() / 2))
                .with_expected("at most 255")
                .with_hint("rename the parent"));
        }
        self.parent_unicode_name = [0; 512];
        for (slot, byte) in self.parent_unicode_name.iter_mut().zip(bytes) {
            *slot = byte;
        }
        Ok(())
    }

    /// Fails with the first problem of this header, found at offset `at` of its file. Problems that depend on the rest
    /// of the file are found when an image is opened.
    pub fn verify(&self, at: u64) -> Result<()> {
        let fault = |field: &str, offset: u64, message: &str| {
            Error::damaged(message)
                .with_field(format!("header.{field}"))
                .with_offset(at.saturating_add(offset))
                .with_hint(
                    "there is no second copy of this header: copy the file again from its source",
                )
        };
        if self.cookie != Self::COOKIE {
            return Err(fault("cookie", 0, "there is no dynamic disk header")
                .with_found(format_args!("\"{}\"", self.cookie.escape_ascii()))
                .with_expected("\"cxsparse\""));
        }
        let expected = self.compute_checksum();
        if self.checksum != expected {
            return Err(fault(
                "checksum",
                CHECKSUM_AT as u64,
                "the checksum of the dynamic disk header is wrong",
            )
            .with_found(format_args!("{:#010x}", self.checksum))
            .with_expected(format_args!("{expected:#010x}")));
        }
        if self.header_version.major() != 1 {
            return Err(Error::unsupported(
                "this version of the dynamic disk header is not supported",
            )
            .with_field("header.header_version")
            .with_offset(at.saturating_add(24))
            .with_found(self.header_version)
            .with_expected("1.0")
            .with_hint("convert it with the program that wrote it"));
        }
        let sensible = SECTOR_SIZE..=u64::from(MAX_BLOCK_SIZE);
        if !self.block_size.is_power_of_two() || !sensible.contains(&u64::from(self.block_size)) {
            return Err(fault("block_size", 32, "the block size is impossible")
                .with_found(format_args!("{} bytes", self.block_size))
                .with_expected("a power of two from 512 bytes to 1 GiB"));
        }
        if !self.table_offset.is_multiple_of(SECTOR_SIZE) {
            return Err(
                fault("table_offset", 16, "the BAT doesn't start at a sector")
                    .with_found(self.table_offset)
                    .with_expected("a multiple of 512"),
            );
        }
        if self.max_table_entries == 0 {
            return Err(fault("max_table_entries", 28, "the BAT has no entries")
                .with_found(0)
                .with_expected("one for each block"));
        }
        Ok(())
    }

    /// The fields with their offsets, for display. Unused parent locators are omitted.
    pub fn fields(&self) -> Vec<Field> {
        let data_offset = match self.data_offset {
            u64::MAX => "none (all ones)".to_string(),
            offset => offset.to_string(),
        };
        let mut fields = vec![
            Field::new(
                0,
                "cookie",
                &format_args!("\"{}\"", self.cookie.escape_ascii()),
            ),
            Field::new(8, "data_offset", &data_offset),
            Field::new(16, "table_offset", &self.table_offset),
            Field::new(24, "header_version", &self.header_version),
            Field::new(28, "max_table_entries", &self.max_table_entries),
            Field::new(32, "block_size", &self.block_size),
            Field::new(36, "checksum", &format_args!("{:#010x}", self.checksum)),
            Field::new(40, "parent_unique_id", &self.parent_unique_id),
            Field::new(56, "parent_timestamp", &self.parent_timestamp),
            Field::new(60, "reserved", &format_args!("{:#010x}", self.reserved)),
            Field::new(
                64,
                "parent_unicode_name",
                &format_args!("\"{}\"", self.parent_name()),
            ),
        ];
        for (n, locator) in self.parent_locators.iter().enumerate() {
            if *locator != ParentLocator::NONE {
                let offset = LOCATORS_AT + n * LOCATOR_SIZE;
                fields.push(Field::new(offset, format!("parent_locator[{n}]"), &locator));
            }
        }
        fields.push(Field::new(768, "reserved", &reserved(&self.reserved_tail)));
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_come_back() {
        let mut bytes = [0; HEADER_SIZE];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(at * 11 % 253).unwrap();
        }
        assert_eq!(DynamicHeader::decode(&bytes).encode(), bytes);
    }

    #[test]
    fn faults_name_field_and_offset() {
        let good = DynamicHeader::new(1536, 4, 2 << 20);
        good.verify(512).unwrap();
        let fault = |header: DynamicHeader| {
            let error = header.verify(512).unwrap_err();
            (error.field().unwrap().to_string(), error.offset().unwrap())
        };
        let wrong = DynamicHeader {
            cookie: [0; 8],
            ..good.clone()
        };
        assert_eq!(fault(wrong), ("header.cookie".into(), 512));
        let wrong = DynamicHeader {
            reserved: 1,
            ..good.clone()
        };
        assert_eq!(fault(wrong), ("header.checksum".into(), 548));
        let wrong = DynamicHeader {
            header_version: Version(0x2_0000),
            ..good.clone()
        };
        assert_eq!(fault(wrong.sealed()), ("header.header_version".into(), 536));
        for block_size in [0, 128, 256, 0x1234_5678, 1 << 31] {
            let wrong = DynamicHeader {
                block_size,
                ..good.clone()
            };
            assert_eq!(fault(wrong.sealed()), ("header.block_size".into(), 544));
        }
        let wrong = DynamicHeader {
            table_offset: 1537,
            ..good.clone()
        };
        assert_eq!(fault(wrong.sealed()), ("header.table_offset".into(), 528));
        let wrong = DynamicHeader {
            max_table_entries: 0,
            ..good
        };
        assert_eq!(
            fault(wrong.sealed()),
            ("header.max_table_entries".into(), 540)
        );
    }

    #[test]
    fn the_parents_name_ends_at_the_first_nul() {
        let mut header = DynamicHeader::new(1536, 1, 512);
        header.parent_unicode_name[..6].copy_from_slice(&[0, b'a', 0xD8, 0, 0, b'b']);
        assert_eq!(header.parent_name(), "a\u{FFFD}b");
    }
}
