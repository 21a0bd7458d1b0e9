//! Block bitmaps, against the data below them and the map of full blocks.

use super::bat::first_nonzero;
use super::batmap::Batmap;
use super::header::Table;
use super::overlap::Placed;
use super::rules;
use super::{Checker, Depth};
use crate::error::Result;
use crate::vhd::{Bitmap, SECTOR_SIZE};

impl Checker<'_> {
    /// Looks at the bitmap of a block that lies where it may.
    pub(super) fn block(
        &mut self,
        table: &Table,
        placed: Placed,
        batmap: Option<&Batmap>,
    ) -> Result<()> {
        let start = placed.at();
        // Nothing that is found in the bitmap of a block that is all there is an error.
        if self.depth == Depth::Structures && start + table.stride() <= table.data_end {
            return Ok(());
        }
        let end = (start + table.stride()).min(table.data_end);
        let called_full = batmap.is_some_and(|batmap| batmap.is_full(placed.block));
        if self.storage.data_range(start..end)?.is_none() {
            // A hole: no bit is set, and there is no data.
            if called_full {
                self.stale(placed);
            }
            return Ok(());
        }
        let len = usize::try_from(table.bitmap_bytes()).unwrap_or(0);
        let mut bytes = vec![0; len];
        self.storage.read_exact_at(&mut bytes, start)?;
        let sectors = table.block_size() / SECTOR_SIZE;
        self.bitmap_padding(&bytes, sectors, placed);
        let bitmap = Bitmap::new(bytes, 0);
        if bitmap.is_full(0..sectors) {
            self.cut_off(table, placed, sectors);
            return Ok(());
        }
        if called_full {
            self.stale(placed);
        }
        if let Some(last) = bitmap.runs(0..sectors).filter(|run| run.stored).last() {
            self.cut_off(table, placed, last.end);
        }
        // The clear bits of a child stand for the parent, whatever is stored there.
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

    /// Bits behind the last sector.
    fn bitmap_padding(&mut self, bytes: &[u8], sectors: u64, placed: Placed) {
        let whole = usize::try_from(sectors / 8).unwrap_or(usize::MAX);
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

    /// Data that should be stored up to the end of sector `last` of the block.
    fn cut_off(&mut self, table: &Table, placed: Placed, last: u64) {
        let needed = placed.at() + table.bitmap_bytes() + last * SECTOR_SIZE;
        if needed > table.data_end {
            self.lost.add_cut(placed.block, placed.at());
            self.findings.add(
                &rules::BLOCK_CUT_OFF,
                format_args!("bat[{}]", placed.block),
                table.entry_at(placed.block),
                format_args!("{} bytes before the footer", table.data_end),
                format_args!("at least {needed} bytes"),
            );
        }
    }

    fn stale(&mut self, placed: Placed) {
        let field = format_args!("bitmap[{}]", placed.block);
        self.findings.add(
            &rules::BATMAP_STALE,
            field,
            placed.at(),
            "clear bits",
            "all bits set, as the map of full blocks says",
        );
    }
}
