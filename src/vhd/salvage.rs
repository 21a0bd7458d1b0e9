//! Reading a damaged VHD as far as it goes: its storage, as it would be without the faults.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::check::{CheckOptions, Facts, check};
use super::{
    ABSENT, DiskType, DynamicHeader, FOOTER_SIZE, Footer, HEADER_SIZE, MAX_DYNAMIC_SIZE,
    SECTOR_SIZE, Version, bitmap_bytes,
};
use crate::error::{Error, Result};
use crate::image::MAX_VIRTUAL_SIZE;
use crate::page::PageRange;
use crate::progress::Progress;
use crate::storage::ReadAt;

const FOOTER_LEN: u64 = FOOTER_SIZE as u64;

/// The longest patch.
const LONGEST: u64 = HEADER_SIZE as u64;

/// Storage of which some bytes are replaced, and that goes on with zeros behind its end.
#[derive(Debug)]
pub struct Patched<S> {
    inner: S,
    inner_len: u64,
    len: u64,
    /// By offset; none overlaps another.
    patches: BTreeMap<u64, Vec<u8>>,
}

impl<S> Patched<S> {
    /// The storage below.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: ReadAt> ReadAt for Patched<S> {
    fn name(&self) -> &Path {
        self.inner.name()
    }

    fn byte_len(&self) -> Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        if end > self.len {
            return Err(Error::damaged("the file ends too early")
                .path(self.inner.name())
                .offset(offset)
                .found(format_args!("{} bytes", self.len))
                .expected(format_args!("at least {end} bytes")));
        }
        let at = |place: u64| usize::try_from(place - offset).unwrap_or(usize::MAX);
        let inside = end.min(self.inner_len).max(offset);
        let (stored, beyond) = buf.split_at_mut_checked(at(inside)).unwrap_or_default();
        if !stored.is_empty() {
            self.inner.read_exact_at(stored, offset)?;
        }
        beyond.fill(0);
        for (start, bytes) in self.patches.range(offset.saturating_sub(LONGEST)..end) {
            let (from, to) = (offset.max(*start), end.min(start + bytes.len() as u64));
            if from < to {
                let skipped = usize::try_from(from - start).unwrap_or(usize::MAX);
                let patch = bytes.get(skipped..).unwrap_or_default();
                let target = buf.get_mut(at(from)..at(to)).unwrap_or_default();
                let patch = patch.get(..target.len()).unwrap_or_default();
                target.copy_from_slice(patch);
            }
        }
        Ok(())
    }

    fn data_range(&self, within: Range<u64>) -> Result<Option<Range<u64>>> {
        let from = within.start.saturating_sub(LONGEST);
        if self
            .patches
            .range(from..within.end.max(from))
            .next()
            .is_some()
        {
            return Ok((!within.is_empty()).then_some(within));
        }
        let inside = within.start..within.end.min(self.inner_len);
        if inside.start >= inside.end {
            return Ok(None);
        }
        self.inner.data_range(inside)
    }
}

/// What can be read of the damaged VHD in `storage`, and the ranges of its virtual disk that can't and read as
/// zeros.
///
/// # Errors
///
/// [`Damaged`](crate::error::ErrorKind::Damaged) if nothing tells what the file holds; when it can't be read.
pub fn salvage<S: ReadAt>(
    storage: S,
    progress: &dyn Progress,
) -> Result<(Patched<S>, Vec<PageRange>)> {
    let options = CheckOptions {
        progress,
        ..CheckOptions::default()
    };
    let facts = check(&storage, &options)?.facts;
    let plan = Plan::new(&facts).ok_or_else(|| {
        Error::damaged("too much is lost: nothing tells where the data lies")
            .path(storage.name())
            .hint("vhd check lists what is wrong; a fixed disk's bytes can be read with -f raw")
    })?;
    let patched = Patched {
        inner_len: facts.footers.file_len,
        inner: storage,
        len: plan.len,
        patches: plan.patches,
    };
    Ok((patched, plan.lost))
}

struct Plan {
    len: u64,
    patches: BTreeMap<u64, Vec<u8>>,
    lost: Vec<PageRange>,
}

impl Plan {
    fn new(facts: &Facts) -> Option<Self> {
        let seen = facts.footers.believed()?;
        let footer = Footer {
            cookie: Footer::COOKIE,
            file_format_version: Version::ONE,
            ..seen.footer.clone()
        };
        match footer.disk_type {
            DiskType::Fixed => Self::fixed(facts, footer),
            DiskType::Dynamic | DiskType::Differencing => Self::sparse(facts, footer),
            DiskType::Other(_) => None,
        }
    }

    fn fixed(facts: &Facts, mut footer: Footer) -> Option<Self> {
        let end = facts.footers.data_end();
        let size = footer.current_size / SECTOR_SIZE * SECTOR_SIZE;
        footer.current_size = if (1..=MAX_VIRTUAL_SIZE).contains(&size) {
            size
        } else {
            end / SECTOR_SIZE * SECTOR_SIZE
        };
        let size = footer.current_size;
        let lost = (end / SECTOR_SIZE * SECTOR_SIZE).min(size);
        let mut patches = BTreeMap::from([(size, footer.sealed().encode().to_vec())]);
        if lost < size {
            patches.insert(lost, zeros(size - lost));
        }
        (size > 0).then_some(Self {
            len: size + FOOTER_LEN,
            patches,
            lost: PageRange::new(lost, size)
                .filter(|range| !range.is_empty())
                .into_iter()
                .collect(),
        })
    }

    fn sparse(facts: &Facts, mut footer: Footer) -> Option<Self> {
        let (header, header_at) = facts.header.as_ref()?;
        let used_end = facts.used_end?;
        if facts.lost.more {
            return None;
        }
        let block_size = u64::from(header.block_size);
        let room = u64::from(header.max_table_entries) * block_size;
        let wanted = footer.current_size / SECTOR_SIZE * SECTOR_SIZE;
        let size = wanted.min(room).min(MAX_DYNAMIC_SIZE);
        if size == 0 {
            return None;
        }
        let sane = wanted <= MAX_DYNAMIC_SIZE;
        footer.current_size = size;
        footer.data_offset = *header_at;
        let footer = footer.sealed().encode().to_vec();

        let end = used_end.max(
            facts
                .footers
                .file_len
                .checked_next_multiple_of(SECTOR_SIZE)?,
        );
        let mut patches: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        // Under a block that goes beyond it, the footer is no data.
        let data_end = facts.footers.data_end();
        let behind = data_end / SECTOR_SIZE * SECTOR_SIZE;
        if behind < used_end.min(facts.footers.file_len) {
            patches.insert(behind, zeros(end - behind));
        }
        let whole = DynamicHeader {
            cookie: DynamicHeader::COOKIE,
            header_version: Version::ONE,
            ..header.clone()
        };
        patches.insert(*header_at, whole.sealed().encode().to_vec());
        patches.insert(0, footer.clone());
        patches.insert(end, footer);
        for block in &facts.lost.blocks {
            let at = header.table_offset + block * 4;
            patches.insert(at, ABSENT.to_be_bytes().to_vec());
        }

        let of_block = |block: &u64, from: u64| block * block_size + from..(block + 1) * block_size;
        let whole = facts.lost.blocks.iter().map(|block| of_block(block, 0));
        let cut = facts.lost.cut.iter().map(|(block, start)| {
            let data = start + bitmap_bytes(header.block_size);
            let left = facts
                .footers
                .data_end()
                .saturating_sub(data)
                .min(block_size);
            of_block(block, left / SECTOR_SIZE * SECTOR_SIZE)
        });
        let mut lost: Vec<Range<u64>> = whole.chain(cut).collect();
        for range in &mut lost {
            range.end = range.end.min(size);
        }
        if sane {
            lost.push(size..wanted);
        }
        Some(Self {
            len: end + FOOTER_LEN,
            patches,
            lost: ranges(lost),
        })
    }
}

/// Stands over what follows the data: the footer, or a piece of a page, or both. `room` is left there.
fn zeros(room: u64) -> Vec<u8> {
    vec![0; usize::try_from(room.min(2 * FOOTER_LEN)).unwrap_or(0)]
}

/// The ranges in order, neighbours joined, empty ones left out.
fn ranges(mut lost: Vec<Range<u64>>) -> Vec<PageRange> {
    lost.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in lost.into_iter().filter(|range| range.start < range.end) {
        match joined.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    let pages = joined.into_iter();
    pages
        .filter_map(|range| PageRange::new(range.start, range.end))
        .collect()
}
