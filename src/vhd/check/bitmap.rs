//! Checks block bitmaps against the block's data and the map of full blocks.

use std::ops::Range;

use super::batmap::Batmap;
use super::checker::{Checker, Depth};
use super::overlap::Placed;
use super::rules;
use super::scan::first_nonzero;
use super::table::Table;
use crate::error::Result;
use crate::page::to_usize;
use crate::vhd::{Bitmap, Run, SECTOR_SIZE};

/// If a truncated block is missing more runs than this, everything from the first to the last is treated as lost.
const MOST_RUNS: usize = 256;

/// The end of the last run of set bits in `sectors`.
fn last_stored(bitmap: &Bitmap, sectors: Range<u64>) -> Option<u64> {
    let runs = bitmap.runs(sectors).filter(|run| run.stored);
    runs.last().map(|run| run.end)
}

impl Checker<'_> {
    /// Checks the bitmap of a block whose location is valid.
    pub(super) fn block(
        &mut self,
        table: &Table,
        placed: Placed,
        batmap: Option<&Batmap>,
    ) -> Result<()> {
        let start = placed.at();
        // In a block that is entirely within the file, nothing found in the bitmap is an error.
        if self.depth == Depth::Structures && start + table.stride() <= table.data_end {
            return Ok(());
        }
        self.bitmaps += 1;
        let end = (start + table.stride()).min(table.data_end);
        let called_full = batmap.is_some_and(|batmap| batmap.is_full(placed.block));
        if self.storage.data_range(start..end)?.is_none() {
            // A hole: no bit is set, and there is no data.
            if called_full {
                self.stale(placed);
            }
            return Ok(());
        }
        let sectors = table.block_size() / SECTOR_SIZE;
        let wanted = table.wanted_sectors(placed.block);
        let bitmap = self.bitmap_of(table, placed)?;
        self.bitmap_padding(bitmap.as_bytes(), sectors, placed);
        let last = self.lose_past_end_of(table, placed, &bitmap);
        let needed = |sector: u64| placed.at() + table.bitmap_bytes() + sector * SECTOR_SIZE;
        if let Some(last) = last {
            self.findings.add(
                &rules::BLOCK_CUT_OFF,
                format_args!("bat[{}]", placed.block),
                table.entry_at(placed.block),
                format_args!("{} bytes before the footer", table.data_end),
                format_args!("at least {} bytes", needed(last)),
            );
        } else if needed(sectors) > table.data_end
            && let Some(last) = last_stored(&bitmap, wanted..sectors)
            && needed(last) > table.data_end
        {
            self.findings.add(
                &rules::BLOCK_SHORT,
                format_args!("bat[{}]", placed.block),
                table.entry_at(placed.block),
                format_args!("{} bytes before the footer", table.data_end),
                format_args!("{} bytes, by its bitmap", needed(last)),
            );
        }
        if bitmap.is_full(0..sectors) {
            return Ok(());
        }
        if called_full {
            self.stale(placed);
        }
        // Clear bits of a child refer to the parent, whatever is stored here.
        if !table.is_child && self.depth == Depth::Whole {
            self.under_clear_bits(table, placed, &bitmap, sectors)?;
        }
        Ok(())
    }

    fn under_clear_bits(
        &mut self,
        table: &Table,
        placed: Placed,
        bitmap: &Bitmap,
        sectors: u64,
    ) -> Result<()> {
        let data = placed.at() + table.bitmap_bytes();
        for run in bitmap.runs(0..sectors).filter(|run| !run.stored) {
            let end = (data + run.end * SECTOR_SIZE).min(table.data_end);
            let start = data + run.start * SECTOR_SIZE;
            if start >= end {
                break;
            }
            if let Some(at) = first_nonzero(self.storage, start..end)? {
                let all_clear = run.start == 0 && run.end == sectors;
                let rule = if all_clear {
                    &rules::BITMAP_EMPTY
                } else {
                    &rules::BITMAP_DATA
                };
                let found = format_args!("data in sector {}", (at - data) / SECTOR_SIZE);
                let field = format_args!("bitmap[{}]", placed.block);
                self.findings
                    .add(rule, field, at, found, "zeros under clear bits");
                break;
            }
        }
        Ok(())
    }

    /// Checks the bits after the last sector.
    fn bitmap_padding(&mut self, bytes: &[u8], sectors: u64, placed: Placed) {
        let whole = to_usize(sectors / 8);
        let within = sectors % 8;
        let mut rest = bytes.iter().enumerate().skip(whole);
        let partial = (within > 0).then(|| rest.next()).flatten();
        let partial = partial.filter(|(_, byte)| **byte & (0xFF >> within) != 0);
        if let Some((n, byte)) = partial.or_else(|| rest.find(|(_, byte)| **byte != 0)) {
            let found = format_args!("{byte:#04x} at byte {n}");
            let field = format_args!("bitmap[{}]", placed.block);
            let at = placed.at().saturating_add(n as u64);
            self.findings
                .add(&rules::BITMAP_PADDING, field, at, found, "zeros");
        }
    }

    /// Reads the bitmap of a block. Missing parts count as clear.
    pub(super) fn bitmap_of(&self, table: &Table, placed: Placed) -> Result<Bitmap> {
        let mut bytes = vec![0; to_usize(table.bitmap_bytes())];
        let there = table.data_end.saturating_sub(placed.at());
        let there = to_usize(there.min(table.bitmap_bytes()));
        if let Some(there) = bytes.get_mut(..there) {
            self.storage.read_exact_at(there, placed.at())?;
        }
        Ok(Bitmap::new(bytes, 0))
    }

    /// Marks the truncated part of an overlapped block as lost.
    pub(super) fn cut_of_block(&mut self, table: &Table, placed: Placed) -> Result<()> {
        if placed.at() + table.wanted_bytes(placed.block) > table.data_end {
            let bitmap = self.bitmap_of(table, placed)?;
            self.lose_past_end_of(table, placed, &bitmap);
        }
        Ok(())
    }

    /// Marks the stored sectors past the end of the file as lost. Returns the end of the last of them, as a number of
    /// sectors.
    fn lose_past_end_of(&mut self, table: &Table, placed: Placed, bitmap: &Bitmap) -> Option<u64> {
        let wanted = table.wanted_sectors(placed.block);
        let data = placed.at() + table.bitmap_bytes();
        let there = table.data_end.saturating_sub(data) / SECTOR_SIZE;
        if there >= wanted {
            return None;
        }
        let last = last_stored(bitmap, there..wanted)?;
        let runs = bitmap.runs(there..last).filter(|run| run.stored);
        let runs: Vec<Run> = runs.take(MOST_RUNS + 1).collect();
        if runs.len() > MOST_RUNS {
            self.lose_past_end(table, placed, there..last);
        } else {
            for run in runs {
                self.lose_past_end(table, placed, run.start..run.end);
            }
        }
        Some(last)
    }

    /// Marks the block's `sectors` past the end of the file as lost.
    pub(super) fn lose_past_end(&mut self, table: &Table, placed: Placed, sectors: Range<u64>) {
        let data = placed.at() + table.bitmap_bytes();
        let there = table.data_end.saturating_sub(data) / SECTOR_SIZE;
        let start = sectors.start.max(there);
        if start < sectors.end {
            let first = placed.block * table.block_size();
            let at = |sector: u64| first + sector * SECTOR_SIZE;
            self.lost.add_range(at(start)..at(sectors.end));
        }
    }

    fn stale(&mut self, placed: Placed) {
        let field = format_args!("bitmap[{}]", placed.block);
        self.findings.add(
            &rules::BATMAP_STALE,
            field,
            placed.at(),
            "clear bits",
            "all bits set, by the map of full blocks",
        );
    }
}
