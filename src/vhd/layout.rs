//! Opening the sparse types: do header, BAT and blocks lie where they can?

use std::ops::Range;

use super::dynamic::{Dynamic, cut_off, read_bitmap};
use super::table::Table;
use super::{BatEntry, DynamicHeader, FOOTER_SIZE, Footer, HEADER_SIZE, SECTOR_SIZE, bitmap_bytes};
use crate::error::{Error, Result};
use crate::storage::ReadAt;

const FOOTER_LEN: u64 = FOOTER_SIZE as u64;
const HEADER_LEN: u64 = HEADER_SIZE as u64;

const COPY_AGAIN: &str = "the file is damaged or was cut off: copy it again from its source";

/// The footer in force and its file: what the rest is measured against.
pub(super) struct Frame<'a> {
    pub(super) footer: &'a Footer,
    /// Where that footer stands.
    pub(super) footer_at: u64,
    /// Where what it describes must end.
    pub(super) data_end: u64,
}

/// The block whose end is the last in the file.
#[derive(Clone, Copy)]
pub(super) struct LastBlock {
    block: u64,
    at: u64,
}

/// Reads header and BAT, and checks where blocks lie. Returns also the last block, if there is any.
pub(super) fn read<S: ReadAt>(
    storage: &S,
    frame: &Frame<'_>,
) -> Result<(Dynamic, Option<LastBlock>)> {
    let header = read_header(storage, frame)?;
    let at = frame.footer.data_offset;
    let blocks = count_blocks(frame, &header)?;
    let table_end = check_table(frame, &header)?;
    let rules = EntryRules {
        taken: [
            (0..FOOTER_LEN, "the footer's copy"),
            (at..at + HEADER_LEN, "the dynamic disk header"),
            (header.table_offset..table_end, "the BAT"),
        ],
        bitmap_bytes: bitmap_bytes(header.block_size),
        stride: bitmap_bytes(header.block_size) + u64::from(header.block_size),
        data_end: frame.data_end,
        table_offset: header.table_offset,
    };
    let mut last: Option<LastBlock> = None;
    let table = Table::read(storage, header.table_offset, blocks, |block, entry| {
        if let Some(at) = rules.check(block, entry)?
            && last.is_none_or(|last| last.at < at)
        {
            last = Some(LastBlock { block, at });
        }
        Ok(())
    })?;
    let dynamic = Dynamic::new(header, table, blocks, frame.data_end);
    check_overlaps(&dynamic)?;
    Ok((dynamic, last))
}

/// The last block may be cut short, as tapdisk leaves it, but not where its bitmap says that data is stored.
/// Returns where the block ends, and a warning if the file or its footer comes before.
pub(super) fn check_last<S: ReadAt>(
    storage: &S,
    dynamic: &Dynamic,
    last: LastBlock,
) -> Result<(u64, Option<Error>)> {
    let end = last.at + dynamic.stride();
    if end <= dynamic.data_end {
        return Ok((end, None));
    }
    let data = last.at + dynamic.bitmap_bytes;
    let first_lost = dynamic.data_end.saturating_sub(data) / SECTOR_SIZE;
    let sectors = first_lost..dynamic.block_size / SECTOR_SIZE;
    let bitmap = read_bitmap(storage, last.at, sectors.clone())?;
    let entry_at = dynamic.table.entry_offset(last.block);
    if let Some(lost) = bitmap.runs(sectors).filter(|run| run.stored).last() {
        let needed = data + lost.end * SECTOR_SIZE;
        return Err(cut_off(entry_at, last.block, dynamic.data_end, needed));
    }
    let warning =
        Error::damaged("the last block is cut short, but what is missing was never written")
            .field(format!("bat[{}]", last.block))
            .offset(entry_at)
            .found(format_args!("{} bytes before the footer", dynamic.data_end))
            .expected(format_args!("{end} bytes"))
            .hint("nothing is lost: the file is read as if it went on with zeros");
    Ok((end, Some(warning)))
}

fn read_header<S: ReadAt>(storage: &S, frame: &Frame<'_>) -> Result<DynamicHeader> {
    let at = frame.footer.data_offset;
    let end = at.checked_add(HEADER_LEN);
    let inside = at >= FOOTER_LEN && end.is_some_and(|end| end <= frame.data_end);
    if !inside || !at.is_multiple_of(SECTOR_SIZE) {
        let last = frame.data_end.saturating_sub(HEADER_LEN);
        return Err(
            Error::damaged("the dynamic disk header lies in an impossible place")
                .field("footer.data_offset")
                .offset(frame.footer_at + 16)
                .found(format_args!("{at:#x}"))
                .expected(format_args!("a multiple of 512 from 0x200 to {last:#x}"))
                .hint(COPY_AGAIN),
        );
    }
    let mut bytes = [0; HEADER_SIZE];
    storage.read_exact_at(&mut bytes, at)?;
    let header = DynamicHeader::decode(&bytes);
    header.verify(at)?;
    Ok(header)
}

/// Number of blocks of the virtual disk, for which the BAT must be long enough.
fn count_blocks(frame: &Frame<'_>, header: &DynamicHeader) -> Result<u64> {
    let size = frame.footer.current_size;
    let blocks = size.div_ceil(u64::from(header.block_size));
    if u64::from(header.max_table_entries) >= blocks {
        return Ok(blocks);
    }
    Err(Error::damaged("the BAT is too short for the virtual disk")
        .field("header.max_table_entries")
        .offset(frame.footer.data_offset + 28)
        .found(header.max_table_entries)
        .expected(format_args!("at least {blocks}, for {size} bytes"))
        .hint("the file is damaged, or its writer was wrong: copy it again from its source"))
}

/// Where the BAT ends, which must lie in the file and beside the other structures.
fn check_table(frame: &Frame<'_>, header: &DynamicHeader) -> Result<u64> {
    let header_at = frame.footer.data_offset;
    let start = header.table_offset;
    let end = start.checked_add(u64::from(header.max_table_entries) * 4);
    let end = end.filter(|end| {
        let beside_header = start >= header_at + HEADER_LEN || *end <= header_at;
        *end <= frame.data_end && start >= FOOTER_LEN && beside_header
    });
    end.ok_or_else(|| {
        let entries = header.max_table_entries;
        Error::damaged("the BAT lies in an impossible place")
            .field("header.table_offset")
            .offset(header_at + 16)
            .found(format_args!("{start:#x}, for {entries} entries"))
            .expected(format_args!(
                "a place beside the header that ends at {:#x} or before",
                frame.data_end
            ))
            .hint(COPY_AGAIN)
    })
}

/// What a BAT entry may point at.
struct EntryRules {
    taken: [(Range<u64>, &'static str); 3],
    bitmap_bytes: u64,
    /// Bitmap and data.
    stride: u64,
    data_end: u64,
    table_offset: u64,
}

impl EntryRules {
    /// Where the block lies, if it is stored.
    fn check(&self, block: u64, entry: BatEntry) -> Result<Option<u64>> {
        let Some(start) = entry.offset() else {
            return Ok(None);
        };
        let fault = |message: String| {
            Error::damaged(message)
                .field(format!("bat[{block}]"))
                .offset(self.table_offset + block * 4)
                .found(format_args!("sector {}", entry.0))
        };
        let end = start + self.stride;
        let under = self
            .taken
            .iter()
            .find(|(range, _)| start < range.end && range.start < end);
        if let Some((_, what)) = under {
            return Err(fault(format!("a block lies over {what}"))
                .expected("a place of its own")
                .hint(COPY_AGAIN));
        }
        if start + self.bitmap_bytes > self.data_end {
            return Err(fault("a block lies behind the end of the file".into())
                .expected(format_args!(
                    "a sector before {}",
                    self.data_end / SECTOR_SIZE
                ))
                .hint(
                    "the file was cut off: copy it again from its source; if it is the first part of a split \
                     image (.vhd, .v01, .v02 and so on), join the parts into one file first",
                ));
        }
        Ok(Some(start))
    }
}

/// Refuses blocks that share bytes of the file: in one pass when the blocks lie in order, else after a sort. A
/// BAT too large for memory isn't looked at.
fn check_overlaps(dynamic: &Dynamic) -> Result<()> {
    let entries = dynamic.table.loaded().unwrap_or_default();
    let stored = || {
        let stored = |entry: &u32| BatEntry(*entry) != BatEntry::ABSENT;
        entries.iter().copied().filter(stored)
    };
    let apart = |a: &u32, b: &u32| a < b && u64::from(b - a) * SECTOR_SIZE >= dynamic.stride();
    if stored().is_sorted_by(apart) {
        return Ok(());
    }
    let mut places: Vec<u32> = stored().collect();
    places.sort_unstable();
    for pair in places.windows(2) {
        if let [a, b] = pair
            && !apart(a, b)
        {
            return Err(overlap(dynamic, entries, *a, *b));
        }
    }
    Ok(())
}

/// The error for the blocks stored at sectors `a` and `b`, which are too near to each other.
fn overlap(dynamic: &Dynamic, entries: &[u32], a: u32, b: u32) -> Error {
    let first = entries.iter().position(|entry| *entry == a).unwrap_or(0);
    let second = entries.iter().rposition(|entry| *entry == b).unwrap_or(0);
    Error::damaged("two blocks overlap in the file")
        .field(format!("bat[{second}]"))
        .offset(dynamic.table.entry_offset(second as u64))
        .found(format_args!(
            "sector {b}, where bat[{first}] has sector {a}"
        ))
        .expected(format_args!(
            "at least {} sectors between them",
            dynamic.stride() / SECTOR_SIZE
        ))
        .hint(COPY_AGAIN)
}
