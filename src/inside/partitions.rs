//! Partition tables: MBR with extended partitions, and GPT.

use std::collections::HashSet;
use std::ops::Range;

use super::read::{Fields, Volume};
use crate::error::{ErrorKind, Result};
use crate::image::{Gpt, Image};

/// Bytes per sector in an MBR.
const SECTOR: u64 = 512;

/// The most logical partitions that are read.
const MOST_LOGICAL: u32 = 256;

/// A partition, or the whole disk if there is no table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number as in Linux; 0 is the whole disk.
    pub number: u32,
    /// The name in a GPT.
    pub name: String,
    /// Offset on the disk, in bytes.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Partition {
    /// Its byte range on the disk.
    pub fn range(&self) -> Range<u64> {
        self.start..self.start.saturating_add(self.len)
    }
}

/// How a disk is partitioned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionTable {
    /// `gpt`, `mbr`, or `none` if the whole disk is one file system or unknown.
    pub kind: &'static str,
    /// In the order of their numbers.
    pub partitions: Vec<Partition>,
    /// A problem with the table that doesn't prevent reading it.
    pub note: Option<String>,
}

/// Reads the partition table of a disk. A disk without one has a single partition with the number 0.
pub fn partitions(image: &dyn Image) -> Result<PartitionTable> {
    let mut note = None;
    let gpt = match Gpt::find(image) {
        Err(error) if error.kind() == ErrorKind::Damaged => {
            note = Some(format!(
                "{error}; its backup at the end of the disk is read"
            ));
            Gpt::find_at_end(image)?
        }
        found => found?,
    };
    if let Some(gpt) = gpt {
        let size = image.virtual_size();
        let entries = gpt.partitions();
        let partitions =
            entries.filter(|(_, range, _)| range.start < range.end && range.start < size);
        let partitions = partitions.map(|(number, range, name)| Partition {
            number,
            name,
            start: range.start,
            len: range.end.min(size) - range.start,
        });
        return Ok(PartitionTable {
            kind: "gpt",
            partitions: partitions.collect(),
            note,
        });
    }
    if let Some(error) = note {
        // The contents of an unreadable table aren't guessed.
        return Ok(PartitionTable {
            kind: "gpt",
            partitions: Vec::new(),
            note: Some(error),
        });
    }
    let disk = Volume::new(image, 0..image.virtual_size());
    let partitions = mbr(&disk)?;
    if partitions.is_empty() {
        let whole = Partition {
            number: 0,
            name: String::new(),
            start: 0,
            len: image.virtual_size(),
        };
        return Ok(PartitionTable {
            kind: "none",
            partitions: vec![whole],
            note: None,
        });
    }
    Ok(PartitionTable {
        kind: "mbr",
        partitions,
        note: None,
    })
}

/// An entry of an MBR.
struct Slot {
    kind: u8,
    status: u8,
    start: u64,
    len: u64,
}

fn slots(sector: &Fields) -> Result<Option<Vec<Slot>>> {
    if sector.part(510, 2)? != [0x55, 0xAA] {
        return Ok(None);
    }
    let slots = (0..4).map(|n| {
        let at = 446 + 16 * n;
        Ok(Slot {
            kind: sector.u8(at + 4)?,
            status: sector.u8(at)?,
            start: u64::from(sector.u32(at + 8)?) * SECTOR,
            len: u64::from(sector.u32(at + 12)?) * SECTOR,
        })
    });
    slots.collect::<Result<_>>().map(Some)
}

/// The partitions of an MBR; empty if there is none. A file system's boot sector has the same signature at its end,
/// with code or text in place of the table.
fn mbr(disk: &Volume<'_>) -> Result<Vec<Partition>> {
    if disk.len() < SECTOR {
        return Ok(Vec::new());
    }
    let sector = disk.fields(0, 512)?;
    let Some(slots) = slots(&sector)? else {
        return Ok(Vec::new());
    };
    let sound = |slot: &Slot| matches!(slot.status, 0 | 0x80) && (slot.kind == 0 || slot.start > 0);
    let boot_sector = matches!(sector.part(3, 8)?, b"NTFS    " | b"EXFAT   ")
        || super::fat::is_boot_sector(&sector, disk.len());
    if boot_sector || !slots.iter().all(sound) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let mut logical = Vec::new();
    for (number, slot) in (1..).zip(&slots) {
        if slot.kind == 0 || slot.len == 0 || slot.start >= disk.len() {
            continue;
        }
        if matches!(slot.kind, 0x05 | 0x0F | 0x85) {
            chain(disk, slot.start, &mut logical)?;
        } else {
            found.push(partition(number, slot.start, slot.len, disk.len()));
        }
    }
    found.extend(logical);
    Ok(found)
}

fn partition(number: u32, start: u64, len: u64, disk: u64) -> Partition {
    Partition {
        number,
        name: String::new(),
        start,
        len: len.min(disk.saturating_sub(start)),
    }
}

/// The logical partitions of the extended one at `first`.
fn chain(disk: &Volume<'_>, first: u64, found: &mut Vec<Partition>) -> Result<()> {
    let mut seen = HashSet::new();
    let mut at = first;
    while found.len() < MOST_LOGICAL as usize && seen.insert(at) && at + SECTOR <= disk.len() {
        let Some(slots) = slots(&disk.fields(at, 512)?)? else {
            break;
        };
        let mut next = None;
        for slot in slots.iter().take(2).filter(|slot| slot.len > 0) {
            match slot.kind {
                0 => {}
                0x05 | 0x0F | 0x85 => next = first.checked_add(slot.start),
                _ => {
                    let start = at.saturating_add(slot.start);
                    if start < disk.len() {
                        let number = u32::try_from(found.len()).unwrap_or(MOST_LOGICAL) + 5;
                        found.push(partition(number, start, slot.len, disk.len()));
                    }
                }
            }
        }
        match next {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use byteorder::{ByteOrder as _, LittleEndian};

    use super::*;
    use crate::image::RawImage;
    use crate::storage::Memory;

    type Sector<'a> = (usize, &'a [(u8, u32, u32)]);

    fn disk(sectors: &[Sector<'_>]) -> RawImage<Memory> {
        let mut bytes = vec![0; 1 << 20];
        for (sector, slots) in sectors {
            let mbr = &mut bytes[sector * 512..][..512];
            mbr[510..].copy_from_slice(&[0x55, 0xAA]);
            for (n, (kind, first, count)) in slots.iter().enumerate() {
                let entry = &mut mbr[446 + 16 * n..][..16];
                entry[4] = *kind;
                LittleEndian::write_u32(&mut entry[8..], *first);
                LittleEndian::write_u32(&mut entry[12..], *count);
            }
        }
        RawImage::open(Memory::new(bytes)).unwrap()
    }

    fn found(disk: &RawImage<Memory>) -> Vec<(u32, u64, u64)> {
        let found = partitions(disk).unwrap().partitions.into_iter();
        found
            .filter(|partition| partition.number > 0)
            .map(|p| (p.number, p.start / SECTOR, p.len / SECTOR))
            .collect()
    }

    #[test]
    fn primary_and_logical_partitions_have_their_numbers() {
        let disk = disk(&[
            (
                0,
                &[(0x83, 8, 100), (0, 0, 0), (5, 200, 1000), (7, 2000, 9999)],
            ),
            (200, &[(0x83, 1, 10), (5, 50, 60)]),
            (250, &[(0x82, 2, 20), (0, 0, 0)]),
        ]);
        let expected = [(1, 8, 100), (4, 2000, 48), (5, 201, 10), (6, 252, 20)];
        assert_eq!(found(&disk), expected);
    }

    #[test]
    fn loops_and_nonsense_end() {
        let endless = disk(&[(0, &[(5, 1, 9)]), (1, &[(0x83, 1, 1), (5, 0, 1)])]);
        assert_eq!(found(&endless).len(), 1);
        let endless = disk(&[
            (0, &[(5, 1, 9)]),
            (1, &[(0x83, 1, 1), (5, 1, 1)]),
            (2, &[(0x83, 1, 1), (5, 1, 1)]),
        ]);
        assert!(found(&endless).len() <= MOST_LOGICAL as usize);
        let far = disk(&[(0, &[(5, u32::MAX, 9), (0x83, u32::MAX, u32::MAX)])]);
        assert_eq!(found(&far), []);
        assert_eq!(found(&disk(&[])), []);
    }
}
