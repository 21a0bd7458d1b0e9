//! Locates the partitions of a disk: as much of MBR and GPT as is needed to show each as a file.

use byteorder::{ByteOrder as _, LittleEndian};

use crate::error::{ErrorKind, Result};
use crate::image::{Gpt, Image};
use crate::page::{PAGE_SIZE, PageRange, is_zero, to_usize};

/// The largest table that is accepted.
const LARGEST_TABLE: u64 = 1 << 20;

/// The most logical partitions that are read.
const MOST_LOGICAL: u32 = 128;

/// The partitions: their numbers as in Linux, and their ranges, as far as they are on the disk. Empty if there is no
/// table or it is damaged.
pub fn partitions(image: &dyn Image) -> Result<Vec<(u32, PageRange)>> {
    let gpt = match Gpt::find(image) {
        Err(error) if error.kind() == ErrorKind::Damaged => return Ok(Vec::new()),
        found => found?,
    };
    if gpt.is_some() {
        for sector in [512, 4096] {
            let found = gpt_entries(image, sector)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        return Ok(Vec::new());
    }
    mbr_entries(image)
}

/// Reads `len` bytes at `at`, if the disk has them.
fn bytes(image: &dyn Image, at: u64, len: u64) -> Result<Option<Vec<u8>>> {
    let end = at.checked_add(len);
    if end.is_none_or(|end| end > image.virtual_size()) {
        return Ok(None);
    }
    let mut bytes = vec![0; to_usize(len)];
    image.read_exact_at(&mut bytes, at)?;
    Ok(Some(bytes))
}

/// The part of the disk from one sector on, if it isn't empty.
fn range(image: &dyn Image, sector: u64, first: u64, count: u64) -> Option<PageRange> {
    let start = first.checked_mul(sector)?;
    let end = start.saturating_add(count.checked_mul(sector)?);
    let end = end.min(image.virtual_size());
    PageRange::new(start, end).filter(|range| !range.is_empty())
}

fn gpt_entries(image: &dyn Image, sector: u64) -> Result<Vec<(u32, PageRange)>> {
    let Some(header) = bytes(image, sector, 512)?.filter(|head| head.starts_with(b"EFI PART"))
    else {
        return Ok(Vec::new());
    };
    let long = |at: usize| header.get(at..at + 8).map_or(0, LittleEndian::read_u64);
    let short = |at: usize| header.get(at..at + 4).map_or(0, LittleEndian::read_u32);
    let (count, each) = (u64::from(short(80)), u64::from(short(84)));
    let len = count.saturating_mul(each).min(LARGEST_TABLE);
    let Some(table) = bytes(image, long(72).saturating_mul(sector), len)? else {
        return Ok(Vec::new());
    };
    let entries = table.chunks_exact(to_usize(each).max(128));
    let found = (1..).zip(entries).filter_map(|(number, entry)| {
        let first = LittleEndian::read_u64(entry.get(32..40)?);
        let last = LittleEndian::read_u64(entry.get(40..48)?);
        let count = last.checked_sub(first)?.checked_add(1)?;
        let used = !is_zero(entry.get(..16)?);
        Some((number, range(image, sector, first, count).filter(|_| used)?))
    });
    Ok(found.collect())
}

/// An entry of an MBR: type, first sector and number of sectors.
type Slot = (u8, u64, u64);

/// The entries of the MBR in `sector`; `None` if there is none.
fn slots(image: &dyn Image, sector: u64) -> Result<Option<Vec<Slot>>> {
    let at = sector.saturating_mul(PAGE_SIZE);
    let Some(mbr) = bytes(image, at, PAGE_SIZE)?.filter(|mbr| mbr.ends_with(&[0x55, 0xAA])) else {
        return Ok(None);
    };
    let entries = mbr.get(446..510).unwrap_or_default().chunks_exact(16);
    let slot = |entry: &[u8]| {
        let number = |at: usize| entry.get(at..at + 4).map(LittleEndian::read_u32);
        let active = entry
            .first()
            .is_some_and(|status| matches!(status, 0 | 0x80));
        Some((
            *entry.get(4).filter(|_| active)?,
            u64::from(number(8)?),
            u64::from(number(12)?),
        ))
    };
    // A file system's boot sector ends with the same signature, with arbitrary data in place of the table.
    Ok(entries.map(slot).collect())
}

fn mbr_entries(image: &dyn Image) -> Result<Vec<(u32, PageRange)>> {
    const EXTENDED: [u8; 3] = [0x05, 0x0F, 0x85];
    let Some(primary) = slots(image, 0)? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    let mut extended = None;
    for (number, (kind, first, count)) in (1..).zip(primary) {
        if EXTENDED.contains(&kind) {
            extended = extended.or(Some(first));
        } else if kind != 0 && first != 0 {
            found.extend(range(image, PAGE_SIZE, first, count).map(|range| (number, range)));
        }
    }
    let Some(begin) = extended else {
        return Ok(found);
    };
    let mut at = begin;
    for number in 5..5 + MOST_LOGICAL {
        let Some(links) = slots(image, at)? else {
            break;
        };
        let [(kind, first, count), (next_kind, next, _), ..] = links[..] else {
            break;
        };
        if kind != 0 {
            let logical = range(image, PAGE_SIZE, at.saturating_add(first), count);
            found.extend(logical.map(|range| (number, range)));
        }
        if !EXTENDED.contains(&next_kind) || next == 0 {
            break;
        }
        at = begin.saturating_add(next);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
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
        let found = partitions(disk).unwrap().into_iter();
        found
            .map(|(n, range)| (n, range.start() / 512, range.len() / 512))
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
