//! Salvages a damaged VHD: decides what to trust, and which parts of the virtual disk are lost.

use std::ops::Range;

use super::check::Facts;
use super::table::MAX_LOADED;
use super::{DiskType, DynamicHeader, Footer, MAX_DYNAMIC_SIZE, SECTOR_SIZE, Version};
use crate::error::{Error, Result};
use crate::image::MAX_VIRTUAL_SIZE;
use crate::page::PageRange;
use crate::remedy::{Choice, Remedy, Step};

/// The basis for reading a damaged disk.
pub(super) struct Salvaged {
    pub(super) footer: Footer,
    /// The header of a dynamic or differencing disk.
    pub(super) header: Option<DynamicHeader>,
    /// The ranges that can't be read, in order.
    pub(super) lost: Vec<PageRange>,
}

/// Determines what is left of the disk with the given `facts`.
pub(super) fn salvage(facts: &Facts) -> Result<Salvaged> {
    let believed = facts.footers.believed_as_taken();
    let left = believed.filter(|_| !facts.doubts_type).and_then(|seen| {
        let footer = Footer {
            cookie: Footer::COOKIE,
            file_format_version: Version::ONE,
            ..seen.footer
        };
        match footer.disk_type {
            DiskType::Fixed => fixed(facts, footer),
            DiskType::Dynamic | DiskType::Differencing => sparse(facts, footer),
            DiskType::Other(_) => None,
        }
    });
    left.ok_or_else(|| {
        Error::damaged("too much is lost: the locations of the data are unknown").with_remedy(
            Remedy::new("copy the file again from its source, or take the last good backup; ")
                .named("with ")
                .step(Step::Choose(Choice::AsRaw), "as a raw disk")
                .text(" its bytes are read as they are"),
        )
    })
}

fn fixed(facts: &Facts, mut footer: Footer) -> Option<Salvaged> {
    let data_end = facts.footers.data_end();
    let end = data_end / SECTOR_SIZE * SECTOR_SIZE;
    let size = footer.current_size / SECTOR_SIZE * SECTOR_SIZE;
    footer.current_size = if facts.slack_has_data {
        // Data after the end of the disk according to the footer is kept.
        data_end.checked_next_multiple_of(SECTOR_SIZE)?
    } else if (1..=MAX_VIRTUAL_SIZE).contains(&size) {
        size
    } else {
        end
    };
    let size = footer.current_size;
    (size > 0).then(|| Salvaged {
        footer: footer.sealed(),
        header: None,
        lost: ranges(std::iter::once(end.min(size)..size).collect()),
    })
}

fn sparse(facts: &Facts, mut footer: Footer) -> Option<Salvaged> {
    let (header, header_at) = facts.header.as_ref()?;
    let block_size = u64::from(header.block_size);
    let blocks = footer.current_size / block_size.max(SECTOR_SIZE);
    // For disks with absurdly many blocks, untrustworthy bitmaps aren't remembered.
    if facts.lost.more || !facts.lost.bitmaps.is_empty() && blocks >= MAX_LOADED {
        return None;
    }
    let room = u64::from(header.max_table_entries) * block_size;
    let wanted = footer.current_size / SECTOR_SIZE * SECTOR_SIZE;
    let size = wanted.min(room).min(MAX_DYNAMIC_SIZE);
    if size == 0 {
        return None;
    }
    footer.current_size = size;
    footer.data_offset = *header_at;

    let whole = facts.lost.blocks.iter();
    let whole = whole.map(|block| block * block_size..(block + 1) * block_size);
    let mut lost: Vec<Range<u64>> = whole.chain(facts.lost.ranges.iter().cloned()).collect();
    for range in &mut lost {
        range.end = range.end.min(size);
    }
    if wanted <= MAX_DYNAMIC_SIZE {
        lost.push(size..wanted);
    }
    let header = DynamicHeader {
        cookie: DynamicHeader::COOKIE,
        header_version: Version::ONE,
        ..header.clone()
    };
    Some(Salvaged {
        footer: footer.sealed(),
        header: Some(header.sealed()),
        lost: ranges(lost),
    })
}

/// The ranges in order, joined, without empty ones.
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
