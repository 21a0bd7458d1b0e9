//! What is left of a damaged VHD: what to take for right, and what of the virtual disk is lost.

use std::ops::Range;

use super::check::Facts;
use super::{
    DiskType, DynamicHeader, Footer, MAX_DYNAMIC_SIZE, SECTOR_SIZE, Version, bitmap_bytes,
};
use crate::error::{Error, Result};
use crate::image::MAX_VIRTUAL_SIZE;
use crate::page::PageRange;

/// What a damaged disk is read by.
pub(super) struct Left {
    pub(super) footer: Footer,
    /// The header of a dynamic or differencing disk.
    pub(super) header: Option<DynamicHeader>,
    /// What can't be read, in order.
    pub(super) lost: Vec<PageRange>,
}

/// What is left of the disk of which `facts` are known.
pub(super) fn left_of(facts: &Facts) -> Result<Left> {
    let left = facts.footers.believed().and_then(|seen| {
        let footer = Footer {
            cookie: Footer::COOKIE,
            file_format_version: Version::ONE,
            ..seen.footer.clone()
        };
        match footer.disk_type {
            DiskType::Fixed => fixed(facts, footer),
            DiskType::Dynamic | DiskType::Differencing => sparse(facts, footer),
            DiskType::Other(_) => None,
        }
    });
    left.ok_or_else(|| {
        Error::damaged("too much is lost: nothing tells where the data lies")
            .hint("vhd check lists what is wrong; a fixed disk's bytes can be read with -f raw")
    })
}

fn fixed(facts: &Facts, mut footer: Footer) -> Option<Left> {
    let end = facts.footers.data_end() / SECTOR_SIZE * SECTOR_SIZE;
    let size = footer.current_size / SECTOR_SIZE * SECTOR_SIZE;
    footer.current_size = if (1..=MAX_VIRTUAL_SIZE).contains(&size) {
        size
    } else {
        end
    };
    let size = footer.current_size;
    (size > 0).then(|| Left {
        footer: footer.sealed(),
        header: None,
        lost: ranges(std::iter::once(end.min(size)..size).collect()),
    })
}

fn sparse(facts: &Facts, mut footer: Footer) -> Option<Left> {
    let (header, header_at) = facts.header.as_ref()?;
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
    footer.current_size = size;
    footer.data_offset = *header_at;

    let of_block = |block: &u64, from: u64| block * block_size + from..(block + 1) * block_size;
    let whole = facts.lost.blocks.iter().map(|block| of_block(block, 0));
    let data_end = facts.footers.data_end();
    let cut = facts.lost.cut.iter().map(|(block, start)| {
        let data = start + bitmap_bytes(header.block_size);
        let left = data_end.saturating_sub(data).min(block_size);
        of_block(block, left / SECTOR_SIZE * SECTOR_SIZE)
    });
    let mut lost: Vec<Range<u64>> = whole.chain(cut).collect();
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
    Some(Left {
        footer: footer.sealed(),
        header: Some(header.sealed()),
        lost: ranges(lost),
    })
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
