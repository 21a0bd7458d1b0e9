//! Checks the BAT: every entry and, through it, every block.

use std::ops::Range;

use super::batmap::Batmap;
use super::checker::Checker;
use super::finding::LISTED;
use super::overlap::{Batch, Placed, Row, Stood};
use super::rules::{self, Rule, Severity};
use super::table::Table;
use crate::error::Result;
use crate::page::to_usize;
use crate::vhd::{ABSENT, BatEntry, FOOTER_SIZE, SECTOR_SIZE};

/// Bytes of the BAT that are read at a time.
const PART: u64 = 64 << 10;

/// A range of the file that belongs to something else, and the field that refers to it.
pub(super) struct Reserved {
    pub(super) range: Range<u64>,
    pub(super) field: String,
    pub(super) at: u64,
}

impl Checker<'_> {
    /// Checks the whole BAT and all blocks. Returns the end of the last structure or block.
    pub(super) fn bat(
        &mut self,
        table: &Table,
        reserved: &[Reserved],
        mut batmap: Option<&mut Batmap>,
    ) -> Result<Option<u64>> {
        self.padding(table)?;
        let progress = self.options.progress;
        progress.begin("checking", table.blocks.saturating_mul(table.stride()));
        let mut end = reserved
            .iter()
            .map(|reserved| reserved.range.end)
            .filter(|end| *end <= table.data_end)
            .fold(table.structures_end(), u64::max);
        if let Some(batmap) = &batmap {
            end = end.max(batmap.end());
        }
        if let Some(batmap) = batmap.as_deref_mut() {
            let structures = table.structures().map(|(range, _)| range);
            let all = structures.iter().chain(reserved.iter().map(|r| &r.range));
            batmap.is_overlapped |= all.into_iter().any(|range| batmap.overlaps(range));
        }
        let mut batch = Batch::first();
        let mut row = Row::default();
        loop {
            self.entries(table, &mut batch)?;
            for placed in batch.sorted() {
                progress.check()?;
                let place = placed.at()..placed.at() + table.stride();
                self.over_reserved(table, reserved, placed);
                if let Some(batmap) = batmap.as_deref_mut() {
                    batmap.is_overlapped |= batmap.overlaps(&place);
                }
                end = end.max(place.end);
                if let Some(stood) = row.push(table, placed) {
                    self.placed(table, &stood, batmap.as_deref())?;
                }
                progress.advance(table.stride());
            }
            match batch.next() {
                Some(next) => batch = next,
                None => break,
            }
        }
        while let Some(stood) = row.pop(table) {
            self.placed(table, &stood, batmap.as_deref())?;
        }
        Ok(Some(end.next_multiple_of(SECTOR_SIZE)))
    }

    /// Checks a block once its overlaps are known.
    fn placed(&mut self, table: &Table, stood: &Stood, batmap: Option<&Batmap>) -> Result<()> {
        let placed = stood.placed;
        self.shares_tail |= stood.shares_tail;
        if let Some(earlier) = stood.over {
            let rule = if placed.at() == earlier.at() {
                &rules::BAT_DUPLICATE
            } else {
                &rules::BAT_OVERLAP
            };
            let expected = format_args!(
                "at least {} sectors from bat[{}], which has sector {}",
                table.stride() / SECTOR_SIZE,
                earlier.block,
                earlier.entry.0
            );
            self.bad_entry(table, placed.block, placed.entry, rule, &expected);
        }
        let bitmap = placed.at()..placed.at() + table.wanted_bitmap(placed.block);
        let structures = table.structures();
        let doubts = stood.doubts.iter().chain(structures.iter().map(|(r, _)| r));
        let mut bitmap_in_doubt = false;
        for doubt in doubts {
            bitmap_in_doubt |= overlap(doubt, &bitmap);
            self.lose_under(table, placed, doubt);
        }
        if bitmap_in_doubt {
            self.unsure_bitmap(table, placed)
        } else if stood.over.is_some() {
            self.cut_of_block(table, placed)
        } else {
            self.block(table, placed, batmap)
        }
    }

    /// Marks the pages of a block at the file range `doubt` as lost.
    fn lose_under(&mut self, table: &Table, placed: Placed, doubt: &Range<u64>) {
        let data = placed.at() + table.bitmap_bytes();
        let end = placed.at() + table.wanted_bytes(placed.block);
        let (start, end) = (doubt.start.max(data), doubt.end.min(end));
        if start < end {
            let first = placed.block * table.block_size();
            let end = (end - data).next_multiple_of(SECTOR_SIZE);
            let start = (start - data) / SECTOR_SIZE * SECTOR_SIZE;
            self.lost.add_range(first + start..first + end);
        }
    }

    /// Handles a block whose bitmap is overlapped. If all of its bits are set, it is still right; otherwise it is
    /// unknown which pages of a child are the parent's, whereas unwritten pages of a dynamic disk are zeros anyway.
    fn unsure_bitmap(&mut self, table: &Table, placed: Placed) -> Result<()> {
        if !table.is_child {
            self.lost.add_bitmap(placed.block);
            self.lose_past_end(table, placed, 0..table.wanted_sectors(placed.block));
            return Ok(());
        }
        let bitmap = self.bitmap_of(table, placed)?;
        let wanted = 0..table.wanted_sectors(placed.block);
        if bitmap.is_full(wanted.clone()) {
            self.lose_past_end(table, placed, wanted);
        } else {
            self.lost.add_block(placed.block);
        }
        Ok(())
    }

    /// Reads all entries. They are checked on the first pass; on every pass, the sound ones are added to `batch`.
    fn entries(&mut self, table: &Table, batch: &mut Batch) -> Result<()> {
        let end = table.start() + table.entries * 4;
        let mut at = table.start();
        let mut bytes = Vec::new();
        while at < end {
            self.options.progress.check()?;
            let data = self.storage.data_range(at..end)?.unwrap_or(end..end);
            // Entries in a hole are zeros. Only multiples of a part are worth skipping.
            let hole = (data.start.saturating_sub(at)) / PART * PART;
            if hole > 0 {
                self.zero_entries(table, (at - table.start()) / 4, hole / 4, batch);
                at += hole;
                continue;
            }
            let len = (end - at).min(PART);
            bytes.resize(to_usize(len), 0);
            self.storage.read_exact_at(&mut bytes, at)?;
            let first = (at - table.start()) / 4;
            for (block, entry) in (first..).zip(bytes.as_chunks::<4>().0) {
                let entry = BatEntry::decode(entry);
                if entry.0 != ABSENT {
                    self.entry(table, block, entry, batch);
                }
            }
            at += len;
        }
        Ok(())
    }

    /// Reports `count` zero entries from `first` on: the first ones individually, and the others like them.
    fn zero_entries(&mut self, table: &Table, first: u64, count: u64, batch: &mut Batch) {
        let wanted = table.blocks.saturating_sub(first).min(count);
        for (first, count, rule) in [
            (first, wanted, &rules::BAT_OVER_STRUCTURE),
            (first + wanted, count - wanted, &rules::BAT_BEYOND_DISK),
        ] {
            let listed = count.min(LISTED);
            for block in first..first + listed {
                self.entry(table, block, BatEntry(0), batch);
            }
            if batch.is_first() && count > listed {
                self.findings.count(rule, count - listed);
                self.lost.more |= rule.severity == Severity::Error;
            }
        }
    }

    /// Checks an entry that isn't absent.
    fn entry(&mut self, table: &Table, block: u64, entry: BatEntry, batch: &mut Batch) {
        let start = u64::from(entry.0) * SECTOR_SIZE;
        if block >= table.blocks {
            if batch.is_first() {
                let expected = format_args!("none, as the disk has {} blocks", table.blocks);
                self.bad_entry(table, block, entry, &rules::BAT_BEYOND_DISK, &expected);
            }
            return;
        }
        let fault = fault_of(table, block, start);
        let is_lost = fault.as_ref().is_some_and(|fault| fault.is_lost);
        if !is_lost {
            batch.push(Placed { entry, block });
        }
        if let Some(Fault { rule, expected, .. }) = fault.filter(|_| batch.is_first()) {
            self.bad_entry(table, block, entry, rule, &expected);
            if is_lost {
                self.lost.add_block(block);
            }
        }
        let tail = start + table.wanted_bytes(block)..start + table.stride();
        let structures = table.structures();
        self.shares_tail |= structures.iter().any(|(range, _)| overlap(range, &tail));
    }

    fn bad_entry(
        &mut self,
        table: &Table,
        block: u64,
        entry: BatEntry,
        rule: &'static Rule,
        expected: &dyn std::fmt::Display,
    ) {
        let field = format_args!("bat[{block}]");
        let found = format_args!("sector {}", entry.0);
        self.findings
            .add(rule, field, table.entry_at(block), found, expected);
    }

    /// Reports locators and the like overlapped by a block, which doesn't affect the block's data.
    fn over_reserved(&mut self, table: &Table, reserved: &[Reserved], placed: Placed) {
        let place = placed.at()..placed.at() + table.wanted_bytes(placed.block);
        for Reserved { range, field, at } in reserved {
            if overlap(range, &place) {
                let found = format_args!("{:#x}, under bat[{}]", range.start, placed.block);
                let expected = format_args!("a place of its own before {:#x}", table.data_end);
                self.findings
                    .add(&rules::LOCATOR_PLACE, field, *at, found, expected);
            }
        }
    }

    /// Checks the padding in the last sector of the BAT.
    fn padding(&mut self, table: &Table) -> Result<()> {
        let start = table.end();
        let end = start.next_multiple_of(SECTOR_SIZE).min(table.data_end);
        let mut bytes = vec![0; to_usize(end.saturating_sub(start))];
        self.storage.read_exact_at(&mut bytes, start)?;
        let uniform = [0, 0xFF].map(|fill| bytes.iter().position(|byte| *byte != fill));
        if let [Some(nonzero), Some(other)] = uniform {
            let at = nonzero.max(other);
            let byte = bytes.get(at).copied().unwrap_or(0);
            self.findings.add(
                &rules::BAT_PADDING,
                "bat.padding",
                start.saturating_add(at as u64),
                format_args!("{byte:#04x} among others"),
                "all ones or all zeros",
            );
        }
        Ok(())
    }
}

/// Returns whether two ranges overlap.
pub(super) fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start.max(b.start) < a.end.min(b.end)
}

/// A problem with a block's location.
struct Fault {
    rule: &'static Rule,
    expected: String,
    /// Whether nothing of the block can be read.
    is_lost: bool,
}

/// Returns the problem with block `block` at `start`, if any.
fn fault_of(table: &Table, block: u64, start: u64) -> Option<Fault> {
    let place = start..start + table.wanted_bytes(block);
    let bitmap = start..start + table.wanted_bitmap(block);
    let structures = table.structures();
    if let Some((_, what)) = structures.iter().find(|(range, _)| overlap(range, &place)) {
        return Some(Fault {
            rule: &rules::BAT_OVER_STRUCTURE,
            expected: format!("a place of its own, not over {what}"),
            // The structures are known to be intact, so a bitmap that they overlap is not.
            is_lost: structures.iter().any(|(range, _)| overlap(range, &bitmap)),
        });
    }
    if bitmap.end <= table.data_end {
        return None;
    }
    let footer_end = table.data_end + FOOTER_SIZE as u64;
    let is_over = table.data_end < table.file_len && start < footer_end;
    Some(Fault {
        rule: if is_over {
            &rules::BAT_OVER_FOOTER
        } else {
            &rules::BAT_PAST_END
        },
        expected: format!("a sector before {}", table.data_end / SECTOR_SIZE),
        is_lost: true,
    })
}
