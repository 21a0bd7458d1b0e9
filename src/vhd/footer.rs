//! The footer: 512 bytes at the end of every VHD, with a copy at the start of a dynamic one.

use byteorder::{BigEndian, ByteOrder};

use super::bytes::{Field, array, reserved};
use super::{
    CreatorApplication, DiskType, Geometry, HostOs, SECTOR_SIZE, Timestamp, UniqueId, Version,
    checksum,
};
use crate::error::{Error, Result};

/// Length of a footer in bytes.
pub const FOOTER_SIZE: usize = 512;

/// Offset of the checksum within the footer.
const CHECKSUM_AT: usize = 64;

/// tapdisk marks a hidden disk in the first reserved byte.
const HIDDEN: usize = 0;

/// The fields of a footer as found (specification, "Hard Disk Footer Format").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// `conectix`.
    pub cookie: [u8; 8],
    /// Bit 1 is always set; bit 0 marks a temporary disk.
    pub features: u32,
    /// 1.0.
    pub file_format_version: Version,
    /// Offset of the dynamic disk header in bytes; all ones for a fixed disk.
    pub data_offset: u64,
    /// When the disk was created.
    pub timestamp: Timestamp,
    /// The program that created it.
    pub creator_application: CreatorApplication,
    /// That program's version.
    pub creator_version: Version,
    /// The system it ran on.
    pub creator_host_os: HostOs,
    /// Virtual size at creation in bytes; informational.
    pub original_size: u64,
    /// Virtual size in bytes.
    pub current_size: u64,
    /// Cylinders, heads, sectors per track; informational.
    pub disk_geometry: Geometry,
    /// How the disk is stored.
    pub disk_type: DiskType,
    /// The stored checksum; see [`compute_checksum`](Self::compute_checksum).
    pub checksum: u32,
    /// Identity of the disk, by which a child recognizes its parent.
    pub unique_id: UniqueId,
    /// 1 while the virtual machine is in saved state.
    pub saved_state: u8,
    /// Zero; tapdisk stores a mark in the first byte.
    pub reserved: [u8; 427],
}

impl Footer {
    /// The cookie of every footer.
    pub const COOKIE: [u8; 8] = *b"conectix";

    /// The cookie that Xen tools write to disable a disk.
    pub const POISON: [u8; 8] = *b"v_poison";

    /// `data_offset` of a fixed disk.
    pub const NO_OFFSET: u64 = u64::MAX;

    /// Offset of a dynamic disk's header in the files written here.
    pub(super) const HEADER_AT: u64 = FOOTER_SIZE as u64;

    /// Creates a sealed footer for a disk of `virtual_size` bytes, whose dynamic disk header, if any, follows the
    /// footer's copy.
    ///
    /// With the identity of a disk of the same type and size, the result is that footer, byte for byte. With the
    /// identity of a different disk it keeps unique id, time stamp, creator, features, original size, saved state and
    /// reserved bytes. The creator is replaced by our own only if readers would expect of it what the new file doesn't
    /// have: a geometry that determines the size, or tapdisk's batmap. Without an identity the disk is new, with a
    /// random id and the current time.
    pub fn for_disk(disk_type: DiskType, virtual_size: u64, identity: Option<&Self>) -> Self {
        let data_offset = if disk_type.is_sparse() {
            Self::HEADER_AT
        } else {
            Self::NO_OFFSET
        };
        Self::for_layout(disk_type, virtual_size, data_offset, identity)
    }

    /// As [`for_disk`](Self::for_disk), with the dynamic disk header at `data_offset`.
    pub(super) fn for_layout(
        disk_type: DiskType,
        virtual_size: u64,
        data_offset: u64,
        identity: Option<&Self>,
    ) -> Self {
        let Some(identity) = identity else {
            return Self::new(disk_type, virtual_size, data_offset);
        };
        let same_place = identity.data_offset == data_offset || disk_type == DiskType::Fixed;
        let no_batmap = disk_type.is_sparse() && identity.promises_batmap();
        if identity.disk_type == disk_type
            && identity.current_size == virtual_size
            && same_place
            && !no_batmap
            && identity.verify(0).is_ok()
        {
            return identity.clone();
        }
        let own = Self::new(disk_type, virtual_size, data_offset);
        let misread = identity
            .creator_application
            .size_may_be_read_from_geometry()
            && own.disk_geometry.size() != virtual_size;
        let creator = if misread || no_batmap { &own } else { identity };
        Self {
            features: identity.features,
            timestamp: identity.timestamp,
            creator_application: creator.creator_application,
            creator_version: creator.creator_version,
            creator_host_os: identity.creator_host_os,
            original_size: identity.original_size,
            unique_id: identity.unique_id,
            saved_state: identity.saved_state,
            reserved: identity.reserved,
            ..own
        }
        .sealed()
    }

    fn new(disk_type: DiskType, virtual_size: u64, data_offset: u64) -> Self {
        Self {
            cookie: Self::COOKIE,
            features: 2,
            file_format_version: Version::ONE,
            data_offset,
            timestamp: Timestamp::now(),
            creator_application: CreatorApplication::OURS,
            creator_version: Version::ONE,
            creator_host_os: HostOs::WINDOWS,
            original_size: virtual_size,
            current_size: virtual_size,
            disk_geometry: Geometry::for_size(virtual_size),
            disk_type,
            checksum: 0,
            unique_id: UniqueId::random(),
            saved_state: 0,
            reserved: [0; 427],
        }
        .sealed()
    }

    /// Decodes a footer; every array of bytes is valid.
    pub fn decode(bytes: &[u8; FOOTER_SIZE]) -> Self {
        Self {
            cookie: array(bytes, 0),
            features: BigEndian::read_u32(&bytes[8..12]),
            file_format_version: Version(BigEndian::read_u32(&bytes[12..16])),
            data_offset: BigEndian::read_u64(&bytes[16..24]),
            timestamp: Timestamp(BigEndian::read_u32(&bytes[24..28])),
            creator_application: CreatorApplication(array(bytes, 28)),
            creator_version: Version(BigEndian::read_u32(&bytes[32..36])),
            creator_host_os: HostOs(array(bytes, 36)),
            original_size: BigEndian::read_u64(&bytes[40..48]),
            current_size: BigEndian::read_u64(&bytes[48..56]),
            disk_geometry: Geometry::from_bytes(array(bytes, 56)),
            disk_type: DiskType::from_u32(BigEndian::read_u32(&bytes[60..64])),
            checksum: BigEndian::read_u32(&bytes[64..68]),
            unique_id: UniqueId(array(bytes, 68)),
            saved_state: bytes[84],
            reserved: array(bytes, 85),
        }
    }

    /// Encodes the footer; the inverse of [`decode`](Self::decode).
    pub fn encode(&self) -> [u8; FOOTER_SIZE] {
        let mut bytes = [0; FOOTER_SIZE];
        bytes[0..8].copy_from_slice(&self.cookie);
        BigEndian::write_u32(&mut bytes[8..12], self.features);
        BigEndian::write_u32(&mut bytes[12..16], self.file_format_version.0);
        BigEndian::write_u64(&mut bytes[16..24], self.data_offset);
        BigEndian::write_u32(&mut bytes[24..28], self.timestamp.0);
        bytes[28..32].copy_from_slice(&self.creator_application.0);
        BigEndian::write_u32(&mut bytes[32..36], self.creator_version.0);
        bytes[36..40].copy_from_slice(&self.creator_host_os.0);
        BigEndian::write_u64(&mut bytes[40..48], self.original_size);
        BigEndian::write_u64(&mut bytes[48..56], self.current_size);
        bytes[56..60].copy_from_slice(&self.disk_geometry.to_bytes());
        BigEndian::write_u32(&mut bytes[60..64], self.disk_type.to_u32());
        BigEndian::write_u32(&mut bytes[64..68], self.checksum);
        bytes[68..84].copy_from_slice(&self.unique_id.0);
        bytes[84] = self.saved_state;
        bytes[85..512].copy_from_slice(&self.reserved);
        bytes
    }

    /// The correct checksum for the other fields.
    pub fn compute_checksum(&self) -> u32 {
        checksum(&self.encode(), CHECKSUM_AT)
    }

    /// The footer with another identity, sealed.
    #[must_use]
    pub(super) fn with_unique_id(self, unique_id: UniqueId) -> Self {
        Self { unique_id, ..self }.sealed()
    }

    /// The footer with a correct checksum.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.checksum = self.compute_checksum();
        self
    }

    /// The footer with our creator, if some readers would take the geometry for the size because of its creator, and
    /// that would be a different size.
    #[must_use]
    pub fn measured_by_size(self) -> Self {
        let by_geometry = self.creator_application.size_may_be_read_from_geometry();
        if !by_geometry || self.disk_geometry.size() == self.current_size {
            return self;
        }
        Self {
            creator_application: CreatorApplication::OURS,
            creator_version: Version::ONE,
            ..self
        }
        .sealed()
    }

    /// Returns whether tapdisk marked the disk as hidden: it belongs to a chain and isn't shown to users.
    pub fn is_hidden(&self) -> bool {
        self.is_tapdisk() && self.reserved[HIDDEN] == 1
    }

    /// Fails with the first reason not to trust this footer, found at offset `at` of its file: cookie or checksum.
    pub fn verify_intact(&self, at: u64) -> Result<()> {
        if self.cookie == Self::POISON {
            return Err(
                Error::unsupported("this disk was disabled on purpose: its footer is marked as poisoned")
                    .with_field("footer.cookie")
                    .with_offset(at)
                    .with_found("\"v_poison\"")
                    .with_expected("\"conectix\"")
                    .with_hint("use the disk that took its place; XenServer disables disks that were moved or merged"),
            );
        }
        if self.cookie != Self::COOKIE {
            return Err(Error::damaged("there is no VHD footer")
                .with_field("footer.cookie")
                .with_offset(at)
                .with_found(format_args!("\"{}\"", self.cookie.escape_ascii()))
                .with_expected("\"conectix\"")
                .with_hint("if this is a raw image, give its format; otherwise it is truncated: copy it again"));
        }
        let expected = self.compute_checksum();
        if self.checksum != expected && !self.is_sealed_without_mark() {
            return Err(Error::damaged("the checksum of the footer is wrong")
                .with_field("footer.checksum")
                .with_offset(at.saturating_add(CHECKSUM_AT as u64))
                .with_found(format_args!("{:#010x}", self.checksum))
                .with_expected(format_args!("{expected:#010x}"))
                .with_hint("the file is damaged: copy it again from its source"));
        }
        Ok(())
    }

    /// Fails with the first problem of this footer, found at offset `at` of its file. Problems that depend on the rest
    /// of the file are found when an image is opened.
    pub fn verify(&self, at: u64) -> Result<()> {
        self.verify_intact(at)?;
        if self.file_format_version.major() != 1 {
            return Err(
                Error::unsupported("this version of the VHD format is not supported")
                    .with_field("footer.file_format_version")
                    .with_offset(at.saturating_add(12))
                    .with_found(self.file_format_version)
                    .with_expected("1.0")
                    .with_hint("convert it with the program that wrote it"),
            );
        }
        if let DiskType::Other(_) = self.disk_type {
            return Err(Error::unsupported("this type of disk is not supported")
                .with_field("footer.disk_type")
                .with_offset(at.saturating_add(60))
                .with_found(self.disk_type)
                .with_expected("2 (fixed), 3 (dynamic) or 4 (differencing)")
                .with_hint("convert it with the program that wrote it"));
        }
        self.verify_size(at.saturating_add(48))
    }

    fn verify_size(&self, at: u64) -> Result<()> {
        let wrong = |message, expected: &str| {
            Err(Error::damaged(message)
                .with_field("footer.current_size")
                .with_offset(at)
                .with_found(format_args!("{} bytes", self.current_size))
                .with_expected(expected)
                .with_hint(
                    "the file is damaged, or was written incorrectly: copy it again from its source",
                ))
        };
        if self.current_size == 0 || !self.current_size.is_multiple_of(SECTOR_SIZE) {
            return wrong(
                "the virtual size is impossible",
                "a nonzero multiple of 512",
            );
        }
        if self.disk_type.is_sparse() && self.current_size > super::MAX_DYNAMIC_SIZE {
            return wrong(
                "the virtual disk is larger than its type allows",
                "at most 2190433320960 bytes (2040 GiB)",
            );
        }
        Ok(())
    }

    /// Returns whether readers expect tapdisk's batmap after the BAT: since tapdisk version 1.2 it is always there.
    fn promises_batmap(&self) -> bool {
        self.is_tapdisk() && self.creator_version >= Version(0x0001_0002)
    }

    fn is_tapdisk(&self) -> bool {
        self.creator_application.0 == *b"tap\0"
    }

    /// Old versions of tapdisk set the mark of a hidden disk without updating the checksum.
    fn is_sealed_without_mark(&self) -> bool {
        let mut unmarked = self.clone();
        unmarked.reserved[HIDDEN] = 0;
        self.is_hidden() && unmarked.compute_checksum() == self.checksum
    }

    /// The fields with their offsets, for display.
    pub fn fields(&self) -> Vec<Field> {
        let data_offset = match self.data_offset {
            Self::NO_OFFSET => "none (all ones)".to_string(),
            offset => offset.to_string(),
        };
        let unique_id = format!(
            "{} (as a GUID: {})",
            self.unique_id,
            self.unique_id.guid_layout()
        );
        vec![
            Field::new(
                0,
                "cookie",
                &format_args!("\"{}\"", self.cookie.escape_ascii()),
            ),
            Field::new(8, "features", &format_args!("{:#010x}", self.features)),
            Field::new(12, "file_format_version", &self.file_format_version),
            Field::new(16, "data_offset", &data_offset),
            Field::new(24, "timestamp", &self.timestamp),
            Field::new(28, "creator_application", &self.creator_application),
            Field::new(32, "creator_version", &self.creator_version),
            Field::new(36, "creator_host_os", &self.creator_host_os),
            Field::new(40, "original_size", &self.original_size),
            Field::new(48, "current_size", &self.current_size),
            Field::new(56, "disk_geometry", &self.disk_geometry),
            Field::new(60, "disk_type", &self.disk_type),
            Field::new(64, "checksum", &format_args!("{:#010x}", self.checksum)),
            Field::new(68, "unique_id", &unique_id),
            Field::new(84, "saved_state", &self.saved_state),
            Field::new(85, "reserved", &reserved(&self.reserved)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(size: u64) -> Footer {
        Footer::for_disk(DiskType::Fixed, size, None)
    }

    #[test]
    fn a_new_footer_has_no_fault_and_comes_back_byte_for_byte() {
        for disk_type in [DiskType::Fixed, DiskType::Dynamic] {
            let footer = Footer::for_disk(disk_type, 3 << 20, None);
            footer.verify(0).unwrap();
            assert_eq!(Footer::decode(&footer.encode()), footer);
            assert_eq!(footer.features, 2);
        }
        assert_eq!(fixed(512).data_offset, u64::MAX);
    }

    #[test]
    fn any_bytes_come_back() {
        let mut bytes = [0; FOOTER_SIZE];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(at * 7 % 251).unwrap();
        }
        assert_eq!(Footer::decode(&bytes).encode(), bytes);
    }

    #[test]
    fn the_identity_of_an_equal_disk_is_kept_byte_for_byte() {
        let mut identity = fixed(1 << 20);
        identity.reserved[200] = 9;
        identity.features = 3;
        identity.data_offset = 512;
        let identity = identity.sealed();
        let footer = Footer::for_disk(DiskType::Fixed, 1 << 20, Some(&identity));
        assert_eq!(footer.encode(), identity.encode());
    }

    #[test]
    fn the_identity_of_another_disk_is_adapted() {
        let identity = Footer {
            saved_state: 1,
            creator_application: CreatorApplication(*b"win "),
            ..fixed(1 << 20)
        }
        .sealed();
        let footer = Footer::for_disk(DiskType::Dynamic, 5 << 20, Some(&identity));
        footer.verify(0).unwrap();
        assert_eq!(footer.unique_id, identity.unique_id);
        assert_eq!(footer.creator_application, identity.creator_application);
        assert_eq!(
            (footer.original_size, footer.current_size),
            (1 << 20, 5 << 20)
        );
        assert_eq!((footer.data_offset, footer.saved_state), (512, 1));
        assert_eq!(footer.disk_geometry, Geometry::for_size(5 << 20));
    }

    #[test]
    fn a_creator_measured_by_geometry_stays_only_where_the_geometry_is_exact() {
        let identity = Footer {
            creator_application: CreatorApplication(*b"qemu"),
            ..fixed(1 << 20)
        };
        let inexact = Footer::for_disk(DiskType::Dynamic, 1 << 20, Some(&identity));
        assert_eq!(inexact.creator_application, CreatorApplication::OURS);
        let exact = Footer::for_disk(DiskType::Dynamic, 504 << 20, Some(&identity));
        assert_eq!(exact.creator_application, identity.creator_application);
    }

    #[test]
    fn a_batmap_is_not_promised_where_there_is_none() {
        let identity = Footer {
            creator_application: CreatorApplication(*b"tap\0"),
            creator_version: Version(0x0001_0003),
            ..Footer::for_disk(DiskType::Dynamic, 1 << 20, None)
        }
        .sealed();
        let dynamic = Footer::for_disk(DiskType::Dynamic, 1 << 20, Some(&identity));
        assert_eq!(dynamic.creator_application, CreatorApplication::OURS);
        assert_eq!(dynamic.unique_id, identity.unique_id);
        let fixed = Footer::for_disk(DiskType::Fixed, 1 << 20, Some(&identity));
        assert_eq!(fixed.creator_application, identity.creator_application);
    }

    #[test]
    fn faults_name_field_and_offset() {
        let at = 4096;
        let fault = |footer: Footer| {
            let error = footer.verify(at).unwrap_err();
            (
                error.field().unwrap().to_string(),
                error.offset().unwrap() - at,
            )
        };
        let good = fixed(1 << 20);
        let wrong = Footer {
            cookie: *b"conectiX",
            ..good.clone()
        };
        assert_eq!(fault(wrong), ("footer.cookie".into(), 0));
        let wrong = Footer {
            checksum: 1,
            ..good.clone()
        };
        assert_eq!(fault(wrong), ("footer.checksum".into(), 64));
        let wrong = Footer {
            file_format_version: Version(0x2_0000),
            ..good.clone()
        };
        assert_eq!(
            fault(wrong.sealed()),
            ("footer.file_format_version".into(), 12)
        );
        let wrong = Footer {
            disk_type: DiskType::Other(7),
            ..good.clone()
        };
        assert_eq!(fault(wrong.sealed()), ("footer.disk_type".into(), 60));
        for size in [0, 511, u64::MAX] {
            let wrong = Footer {
                current_size: size,
                ..good.clone()
            };
            assert_eq!(fault(wrong.sealed()), ("footer.current_size".into(), 48));
        }
        let wrong = Footer {
            current_size: crate::vhd::MAX_DYNAMIC_SIZE + 512,
            disk_type: DiskType::Dynamic,
            ..good
        };
        assert_eq!(fault(wrong.sealed()), ("footer.current_size".into(), 48));
    }

    #[test]
    fn an_old_tapdisks_hidden_mark_does_not_break_the_checksum() {
        let mut footer = Footer {
            creator_application: CreatorApplication(*b"tap\0"),
            ..fixed(1 << 20)
        }
        .sealed();
        footer.reserved[0] = 1;
        footer.verify(0).unwrap();
        footer.creator_application = CreatorApplication::OURS;
        assert!(footer.verify(0).is_err());
    }
}
