//! GUID partition tables (GPT), as far as they are affected by resizing a disk.
//!
//! ```text
//! sector 0        1       2 …                                … before the last   last
//!        MBR   header   partition table   partitions   the same table     backup header
//! ```
//!
//! The primary and the backup header contain each other's sector numbers. When a disk grows, the backup is no longer at
//! its end; when it shrinks, the backup is lost. Such disks can still be read, but partitioning tools complain.
//! [`Gpt::move_backup`] computes the necessary writes: first the backup at the new end, then the primary header that
//! refers to it, so that at least one header is valid at any moment.
//!
//! See UEFI specification 2.10, section 5.3. Numbers are little-endian.

use byteorder::{ByteOrder as _, LittleEndian};

use super::{Image, ImageMut, whole};
use crate::error::{Error, ErrorKind, Result};
use crate::page::{PAGE_SIZE, PageRange, is_zero, to_usize};
use crate::remedy::{Choice, Remedy, Step};

const SIGNATURE: &[u8; 8] = b"EFI PART";

/// Possible logical sector sizes in bytes; the disk doesn't record its own.
const SECTORS: [u64; 2] = [512, 4096];

/// Bytes of the known fields of a header.
const FIELDS: usize = 92;

/// The largest table that is accepted; 16 KiB is common.
const LARGEST_TABLE: u64 = 1 << 20;

/// Offsets of the fields in a header.
mod field {
    pub(super) const LEN: usize = 12;
    pub(super) const CHECKSUM: usize = 16;
    pub(super) const OWN: usize = 24;
    pub(super) const OTHER: usize = 32;
    pub(super) const LAST_USABLE: usize = 48;
    pub(super) const DISK: std::ops::Range<usize> = 56..72;
    pub(super) const TABLE: usize = 72;
    pub(super) const ENTRIES: usize = 80;
    pub(super) const ENTRY_LEN: usize = 84;
    pub(super) const TABLE_CHECKSUM: usize = 88;
}

/// A valid header and the table it refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Half {
    /// All bytes of the header's sector.
    header: Vec<u8>,
    table: Vec<u8>,
}

/// A GPT whose primary header and table are valid.
#[derive(Debug, Clone)]
pub struct Gpt {
    /// Logical sector size in bytes.
    sector: u64,
    primary: Half,
}

/// The writes that move the backup of a GPT to the end of the disk.
#[derive(Debug, Clone)]
pub struct BackupMove {
    /// Performed in this order, each on stable storage before the next.
    writes: Vec<(PageRange, Vec<u8>)>,
}

impl Gpt {
    /// Looks for a GPT at the start of a disk. Returns `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Damaged`](crate::ErrorKind::Damaged) if there is one that is invalid.
    pub fn find(image: &dyn Image) -> Result<Option<Self>> {
        let mut broken = None;
        for sector in SECTORS {
            match Half::read(image, sector, 1) {
                Ok(Some(primary)) => return Ok(Some(Self { sector, primary })),
                Ok(None) => {}
                Err(error) => broken = broken.or(Some(error)),
            }
        }
        broken.map_or(Ok(None), Err)
    }

    /// Looks for the backup in the last sector of a disk whose primary header can't be read.
    pub fn find_at_end(image: &dyn Image) -> Result<Option<Self>> {
        for sector in SECTORS {
            let Some(last) = (image.virtual_size() / sector).checked_sub(1) else {
                continue;
            };
            match Half::read(image, sector, last) {
                Ok(Some(primary)) => return Ok(Some(Self { sector, primary })),
                Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
                Ok(None) | Err(_) => {}
            }
        }
        Ok(None)
    }

    /// The partitions: number from 1, byte range on the disk (which may be beyond its end), name.
    pub fn partitions(&self) -> impl Iterator<Item = (u32, std::ops::Range<u64>, String)> + '_ {
        let entry = to_usize(u64::from(self.primary.short(field::ENTRY_LEN)));
        let entries = (1..).zip(self.primary.table.chunks_exact(entry.max(1)));
        entries.filter_map(|(number, entry)| {
            if is_zero(entry.get(..16)?) {
                return None;
            }
            let sectors = |at: usize| entry.get(at..at + 8).map(LittleEndian::read_u64);
            let start = sectors(32)?.saturating_mul(self.sector);
            let end = sectors(40)?.saturating_add(1).saturating_mul(self.sector);
            let units = entry
                .get(56..128)?
                .chunks_exact(2)
                .map(LittleEndian::read_u16);
            let name = char::decode_utf16(units.take_while(|unit| *unit != 0));
            let name = name.map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER));
            Some((number, start..end, name.collect()))
        })
    }

    /// The location of the backup according to the header, in bytes. It may be beyond the end of the disk.
    pub fn backup_at(&self) -> u64 {
        self.primary
            .number(field::OTHER)
            .saturating_mul(self.sector)
    }

    /// Returns whether the backup is where it belongs on a disk of `size` bytes: in the last sector.
    pub fn is_at_end_of(&self, size: u64) -> bool {
        (size / self.sector).checked_sub(1) == Some(self.primary.number(field::OTHER))
    }

    /// Returns the byte range of the backup, if it is within the disk and valid.
    ///
    /// # Errors
    ///
    /// [`Damaged`](crate::ErrorKind::Damaged) if it disagrees with the primary.
    pub fn backup(&self, image: &dyn Image) -> Result<Option<PageRange>> {
        self.copy_in(image, self.primary.number(field::OTHER))
    }

    /// As [`backup`](Self::backup), for a copy of this table at the end of the disk, to which no header need refer.
    pub fn copy_at_end(&self, image: &dyn Image) -> Result<Option<PageRange>> {
        let last = (image.virtual_size() / self.sector).saturating_sub(1);
        match self.copy_in(image, last) {
            Err(error) if error.kind() == ErrorKind::Damaged => Ok(None),
            found => found,
        }
    }

    /// Returns the byte range of the header in sector `at` and its table, if they are valid.
    fn copy_in(&self, image: &dyn Image, at: u64) -> Result<Option<PageRange>> {
        let backup = match Half::read(image, self.sector, at) {
            Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
            Ok(Some(backup)) => backup,
            Ok(None) | Err(_) => return Ok(None),
        };
        let header_at = at.saturating_mul(self.sector);
        let of = |half: &Half, range| half.header.get(range).map(<[u8]>::to_vec);
        let same = backup.table == self.primary.table
            && of(&backup, field::DISK) == of(&self.primary, field::DISK);
        if !same {
            return Err(
                Error::damaged("the two copies of the partition table (GPT) differ")
                    .with_field("GPT backup header")
                    .with_offset(header_at)
                    .with_hint("decide between them with gdisk first"),
            );
        }
        let start = backup
            .number(field::TABLE)
            .saturating_mul(self.sector)
            .min(header_at);
        Ok(PageRange::new(start, header_at.saturating_add(self.sector)))
    }

    /// Computes the writes that put the backup at the end of a disk of `size` bytes. `image` is the disk as it is,
    /// larger or smaller. Returns `None` if the backup is there already.
    ///
    /// # Errors
    ///
    /// Fails if the two copies of the table differ, or if the new location of the backup holds a partition or other
    /// nonzero data.
    pub fn move_backup(&self, image: &dyn Image, size: u64) -> Result<Option<BackupMove>> {
        let old = self.backup(image)?;
        if self.is_at_end_of(size) && old.is_some() {
            return Ok(None);
        }
        let sector = self.sector;
        let sectors = (self.primary.table.len() as u64).div_ceil(sector);
        let last = (size / sector).checked_sub(1);
        let table_at = last.and_then(|last| last.checked_sub(sectors));
        let (Some(last), Some(table_at)) = (last, table_at) else {
            return Err(no_room(size));
        };
        if table_at <= self.primary.end_of_partitions(sectors) {
            return Err(no_room(size).with_field("GPT partition").with_offset(
                self.primary
                    .end_of_partitions(sectors)
                    .saturating_mul(sector),
            ));
        }
        let place = PageRange::covering(table_at * sector, (last + 1) * sector);
        let mut backup = self.primary.table.clone();
        backup.resize(to_usize(sectors * sector), 0);
        backup.extend(self.primary.renamed(last, 1, table_at, table_at - 1));
        if let Some(at) = self.first_data(image, place, &backup)? {
            return Err(Error::usage(
                "there is data where the backup of the partition table (GPT) belongs",
            )
            .with_field("virtual disk")
            .with_offset(at)
            .with_found("a nonzero page outside of all partitions")
            .with_remedy(
                Remedy::new("inspect it, then ")
                    .named("omit ")
                    .step(
                        Step::Choose(Choice::MoveGpt),
                        "leave the backup where it is",
                    )
                    .text(" or choose another size"),
            ));
        }
        let own_table = self.primary.number(field::TABLE);
        let primary = self.primary.renamed(1, last, own_table, table_at - 1);
        let mut writes = vec![
            (place, backup),
            (PageRange::from_len(sector, sector)?, primary),
        ];
        writes.extend(Self::protective(image, last)?);
        Ok(Some(BackupMove { writes }))
    }

    /// Returns the first byte of `within` that is nonzero, not part of the current backup, and not on a page that
    /// already holds `wanted`. Moving a backup by a few sectors, and being interrupted, leaves parts of both there. The
    /// disk reads as zeros beyond its end.
    fn first_data(
        &self,
        image: &dyn Image,
        within: PageRange,
        wanted: &[u8],
    ) -> Result<Option<u64>> {
        let sectors = (self.primary.table.len() as u64).div_ceil(self.sector);
        let last = self.primary.number(field::OTHER);
        let after_usable = self.primary.number(field::LAST_USABLE).saturating_add(1);
        let first = last.saturating_sub(sectors).max(after_usable);
        let bytes = |sector: u64| sector.saturating_mul(self.sector);
        let kept = bytes(first)..bytes(last).saturating_add(self.sector);
        let mut page = [0; 512];
        const { assert!(PAGE_SIZE == 512) };
        for range in within.cut_to(whole(image)).windows(PAGE_SIZE) {
            if kept.contains(&range.start()) {
                continue;
            }
            image.read_exact_at(&mut page, range.start())?;
            let at = to_usize(range.start() - within.start());
            let there = wanted.get(at..).and_then(|bytes| bytes.get(..page.len()));
            if !is_zero(&page) && there != Some(&page[..]) {
                return Ok(Some(range.start()));
            }
        }
        Ok(None)
    }

    /// Updates the first sector if it is a protective MBR, so that its entry extends to sector `last`.
    fn protective(image: &dyn Image, last: u64) -> Result<Option<(PageRange, Vec<u8>)>> {
        const PARTITIONS: usize = 446;
        const ENTRY: usize = 16;
        let page = PageRange::from_len(0, PAGE_SIZE)?;
        let mut bytes = vec![0; to_usize(PAGE_SIZE)];
        image.read_exact_at(&mut bytes, 0)?;
        let (Some(first), Some(others)) = (
            bytes.get(PARTITIONS..PARTITIONS + ENTRY),
            bytes.get(PARTITIONS + ENTRY..PARTITIONS + 4 * ENTRY),
        ) else {
            return Ok(None);
        };
        let whole_disk =
            first.get(4) == Some(&0xEE) && first.get(8..12).map(LittleEndian::read_u32) == Some(1);
        let signed = bytes.ends_with(&[0x55, 0xAA]);
        if !(whole_disk && signed && others.iter().all(|byte| *byte == 0)) {
            return Ok(None);
        }
        let len = u32::try_from(last).unwrap_or(u32::MAX);
        let place = PARTITIONS + 12..PARTITIONS + 16;
        let Some(field) = bytes.get_mut(place) else {
            return Ok(None);
        };
        if LittleEndian::read_u32(field) == len {
            return Ok(None);
        }
        LittleEndian::write_u32(field, len);
        Ok(Some((page, bytes)))
    }
}

impl BackupMove {
    /// Performs the writes, each on stable storage before the next, then reads the result back.
    pub fn write(&self, image: &mut dyn ImageMut) -> Result<()> {
        for (range, bytes) in &self.writes {
            image.update(*range, bytes)?;
            image.flush()?;
        }
        for (range, bytes) in &self.writes {
            let mut found = vec![0; bytes.len()];
            image.read_exact_at(&mut found, range.start())?;
            if found != *bytes {
                return Err(Error::damaged("the data read back differs from the data written")
                    .with_field("partition table (GPT)")
                    .with_offset(range.start())
                    .with_hint(
                        "the device or the memory may be failing: check both before trying again",
                    ));
            }
        }
        Ok(())
    }
}

impl Half {
    /// Reads the header in sector `at` and its table. Returns `None` if there is no header.
    fn read(image: &dyn Image, sector: u64, at: u64) -> Result<Option<Self>> {
        let size = image.virtual_size();
        let bytes = |at: u64, len: u64| -> Result<Option<Vec<u8>>> {
            let start = at.checked_mul(sector);
            let end = start.and_then(|start| start.checked_add(len));
            let Some(start) = start.filter(|_| end.is_some_and(|end| end <= size)) else {
                return Ok(None);
            };
            let mut bytes = vec![0; to_usize(len)];
            image.read_exact_at(&mut bytes, start)?;
            Ok(Some(bytes))
        };
        let Some(header) = bytes(at, sector)?.filter(|bytes| bytes.starts_with(SIGNATURE)) else {
            return Ok(None);
        };
        let bad = |what: &str| {
            Error::damaged(format!("the partition table (GPT) is damaged: {what}"))
                .with_field("GPT header")
                .with_offset(at.saturating_mul(sector))
                .with_hint("fix it with gdisk first")
        };
        let mut half = Self {
            header,
            table: Vec::new(),
        };
        if half.sealed().as_ref() != Some(&half.header) || half.number(field::OWN) != at {
            return Err(bad(
                "its header has a wrong checksum or is in a wrong place",
            ));
        }
        let entry = u64::from(half.short(field::ENTRY_LEN));
        let len = entry.saturating_mul(u64::from(half.short(field::ENTRIES)));
        if entry < 128 || len > LARGEST_TABLE {
            return Err(bad("its header describes an impossible table"));
        }
        half.table = bytes(half.number(field::TABLE), len)?
            .ok_or_else(|| bad("the table is beyond the end of the disk"))?;
        if crc32fast::hash(&half.table) != half.short(field::TABLE_CHECKSUM) {
            return Err(bad("the table has a wrong checksum"));
        }
        Ok(Some(half))
    }

    fn number(&self, at: usize) -> u64 {
        let bytes = self.header.get(at..at + 8);
        bytes.map_or(u64::MAX, LittleEndian::read_u64)
    }

    fn short(&self, at: usize) -> u32 {
        let bytes = self.header.get(at..at + 4);
        bytes.map_or(u32::MAX, LittleEndian::read_u32)
    }

    /// Returns the header with a correct checksum, or `None` if its length field is impossible.
    fn sealed(&self) -> Option<Vec<u8>> {
        let mut header = self.header.clone();
        let len = usize::try_from(self.short(field::LEN)).ok();
        let len = len.filter(|len| (FIELDS..=header.len()).contains(len))?;
        header
            .get_mut(field::CHECKSUM..field::CHECKSUM + 4)?
            .fill(0);
        let sum = crc32fast::hash(header.get(..len)?);
        LittleEndian::write_u32(header.get_mut(field::CHECKSUM..field::CHECKSUM + 4)?, sum);
        Some(header)
    }

    /// Returns the header with new locations.
    fn renamed(&self, own: u64, other: u64, table: u64, last_usable: u64) -> Vec<u8> {
        let mut new = self.clone();
        for (at, number) in [
            (field::OWN, own),
            (field::OTHER, other),
            (field::TABLE, table),
            (field::LAST_USABLE, last_usable),
        ] {
            if let Some(bytes) = new.header.get_mut(at..at + 8) {
                LittleEndian::write_u64(bytes, number);
            }
        }
        new.sealed().unwrap_or(new.header)
    }

    /// Returns the last sector used by a partition, or by the primary header and table.
    fn end_of_partitions(&self, table_sectors: u64) -> u64 {
        const LAST: usize = 40;
        let entry = to_usize(u64::from(self.short(field::ENTRY_LEN)));
        let entries = self.table.chunks_exact(entry.max(1));
        let used = entries.filter(|entry| entry.iter().take(16).any(|byte| *byte != 0));
        let ends = used.filter_map(|entry| entry.get(LAST..LAST + 8).map(LittleEndian::read_u64));
        let table_end = self.number(field::TABLE).saturating_add(table_sectors);
        ends.fold(table_end.saturating_sub(1), u64::max)
    }
}

fn no_room(size: u64) -> Error {
    Error::usage("the partition table (GPT) has no room for its backup at the end of the disk")
        .with_expected(format_args!(
            "partitions that end before {size} bytes, less the table"
        ))
        .with_hint("choose a larger size, or shrink the last partition first")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::RawImage;
    use crate::storage::{Memory, ReadAt as _, WriteAt as _};

    /// Bytes of a table with 128 entries.
    const TABLE: u64 = 128 * 128;

    /// A disk with a GPT and one partition that ends with sector `last`.
    fn disk(sector: u64, sectors: u64, last: u64) -> RawImage<Memory> {
        let mut mbr = vec![0; 512];
        mbr[446..462].copy_from_slice(&[0, 0, 2, 0, 0xEE, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0]);
        LittleEndian::write_u32(&mut mbr[458..], u32::try_from(sectors - 1).unwrap());
        mbr[510..].copy_from_slice(&[0x55, 0xAA]);
        let mut table = vec![0; to_usize(TABLE)];
        table[..32].fill(0xAB);
        LittleEndian::write_u64(&mut table[32..], 2 + TABLE / sector);
        LittleEndian::write_u64(&mut table[40..], last);
        let mut header = vec![0; to_usize(sector)];
        header[..8].copy_from_slice(SIGNATURE);
        LittleEndian::write_u32(&mut header[8..], 0x1_0000);
        LittleEndian::write_u32(&mut header[field::LEN..], 92);
        LittleEndian::write_u64(&mut header[40..], 2 + TABLE / sector);
        header[field::DISK].fill(0xCD);
        LittleEndian::write_u32(&mut header[field::ENTRIES..], 128);
        LittleEndian::write_u32(&mut header[field::ENTRY_LEN..], 128);
        LittleEndian::write_u32(
            &mut header[field::TABLE_CHECKSUM..],
            crc32fast::hash(&table),
        );
        let half = Half {
            header,
            table: table.clone(),
        };
        let (end, table_at) = (sectors - 1, sectors - 1 - TABLE / sector);
        let memory = Memory::new(vec![0; to_usize(sector * sectors)]);
        for (bytes, at) in [
            (mbr, 0),
            (half.renamed(1, end, 2, table_at - 1), sector),
            (table.clone(), 2 * sector),
            (table, table_at * sector),
            (half.renamed(end, 1, table_at, table_at - 1), end * sector),
        ] {
            memory.write_all_at(&bytes, at).unwrap();
        }
        RawImage::open(memory).unwrap()
    }

    /// A copy of the disk with another size.
    fn resized(image: &RawImage<Memory>, size: u64) -> RawImage<Memory> {
        let mut bytes = vec![0; to_usize(image.virtual_size())];
        image.read_exact_at(&mut bytes, 0).unwrap();
        bytes.resize(to_usize(size), 0);
        RawImage::open(Memory::new(bytes)).unwrap()
    }

    #[test]
    fn the_backup_goes_to_the_new_end_and_the_header_finds_it() {
        for sector in SECTORS {
            let sectors = (4 << 20) / sector;
            let old = disk(sector, sectors, sectors / 2);
            let gpt = Gpt::find(&old).unwrap().unwrap();
            assert!(gpt.is_at_end_of(old.virtual_size()));
            assert!(gpt.move_backup(&old, old.virtual_size()).unwrap().is_none());
            // Longer by a page, by slightly more than the backup, and by a lot; shorter, down to the partition.
            for size in [
                old.virtual_size() + sector,
                old.virtual_size() + TABLE + 3 * sector,
                8 << 20,
                (4 << 20) - 7 * sector,
                (sectors / 2 + 2) * sector + TABLE,
            ] {
                let moved = gpt.move_backup(&old, size).unwrap().unwrap();
                let mut new = if size > old.virtual_size() {
                    resized(&old, size)
                } else {
                    resized(&old, old.virtual_size())
                };
                let partition = (2 + TABLE / sector) * sector;
                moved.write(&mut new).unwrap();
                let new = resized(&new, size);
                let found = Gpt::find(&new).unwrap().unwrap();
                assert_eq!(found.backup_at(), size - sector, "{sector} {size}");
                assert!(found.backup(&new).unwrap().is_some());
                assert_eq!(found.primary.table, gpt.primary.table);
                assert!(found.move_backup(&new, size).unwrap().is_none());
                let mut mbr = [0; 512];
                new.storage().read_exact_at(&mut mbr, 0).unwrap();
                let last = LittleEndian::read_u32(&mbr[458..]);
                assert_eq!(u64::from(last), size / sector - 1);
                assert!(partition < size);
            }
        }
    }

    #[test]
    fn after_a_crash_at_any_step_there_is_a_whole_header_and_it_can_be_done_again() {
        let old = disk(512, 8192, 4000);
        let size = (8192 + 1) * 512;
        let grown = resized(&old, size);
        let moved = Gpt::find(&grown)
            .unwrap()
            .unwrap()
            .move_backup(&grown, size)
            .unwrap()
            .unwrap();
        for done in 0..=moved.writes.len() {
            let mut image = resized(&old, size);
            for (range, bytes) in &moved.writes[..done] {
                image.update(*range, bytes).unwrap();
            }
            let gpt = Gpt::find(&image).unwrap().unwrap();
            if let Some(again) = gpt.move_backup(&image, size).unwrap() {
                again.write(&mut image).unwrap();
            }
            let gpt = Gpt::find(&image).unwrap().unwrap();
            assert!(gpt.is_at_end_of(size) && gpt.backup(&image).unwrap().is_some());
        }
    }

    #[test]
    fn what_is_damaged_or_has_no_room_is_left_alone() {
        let whole = disk(512, 8192, 4000);
        assert!(Gpt::find(&resized(&whole, 512)).unwrap().is_none());
        let broken = |at: u64| {
            let image = resized(&whole, whole.virtual_size());
            image.storage().write_all_at(&[1], at).unwrap();
            image
        };
        for at in [512 + 16, 512 + 60, 512 + 91, 1024 + 5] {
            let error = Gpt::find(&broken(at)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{at}");
        }
        let gpt = Gpt::find(&whole).unwrap().unwrap();
        // The backup disagrees.
        let other = disk(512, 8192, 4001);
        let mut end = vec![0; 33 * 512];
        other.read_exact_at(&mut end, 8159 * 512).unwrap();
        let mixed = resized(&whole, whole.virtual_size());
        mixed.storage().write_all_at(&end, 8159 * 512).unwrap();
        assert_eq!(
            gpt.move_backup(&mixed, 8 << 20).unwrap_err().kind(),
            ErrorKind::Damaged
        );
        // There is no room because of the partition, or because of any nonzero data.
        for size in [4001 * 512, (4001 + 32) * 512, 512, 1024] {
            assert!(gpt.move_backup(&whole, size).is_err(), "{size}");
        }
        let full = broken(5000 * 512);
        assert!(gpt.move_backup(&full, (5000 + 20) * 512).is_err());
        assert!(gpt.move_backup(&full, (5000 + 40) * 512).is_ok());
    }

    #[test]
    fn no_bytes_make_it_fail_otherwise() {
        let image = disk(512, 512, 100);
        for at in 512..512 + 92 {
            for byte in [0, 1, 0x7F, 0xFF] {
                let image = resized(&image, image.virtual_size());
                image.storage().write_all_at(&[byte], at).unwrap();
                // A change with a corrected checksum.
                let mut header = vec![0; 512];
                image.read_exact_at(&mut header, 512).unwrap();
                let half = Half {
                    header,
                    table: Vec::new(),
                };
                if let Some(sealed) = half.sealed() {
                    image.storage().write_all_at(&sealed, 512).unwrap();
                }
                if let Ok(Some(gpt)) = Gpt::find(&image) {
                    let _ = gpt.move_backup(&image, 1 << 20);
                }
            }
        }
    }
}
