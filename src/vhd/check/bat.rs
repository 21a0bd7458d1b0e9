//! The BAT: every entry, and through it every block.

use std::ops::Range;

use super::batmap::Batmap;
use super::finding::LISTED;
use super::header::Table;
use super::overlap::{Batch, Placed};
use super::rules::{self, Rule};
use super::{Checker, Severity};
use crate::error::Result;
use crate::storage::ReadAt;
use crate::vhd::{ABSENT, BatEntry, FOOTER_SIZE, SECTOR_SIZE};

/// Bytes of the BAT that are read at once.
const PART: u64 = 64 << 10;

/// A range of the file that something else needs, and the field that says so.
pub(super) struct Reserved {
    pub(super) range: Range<u64>,
    pub(super) field: String,
    pub(super) at: u64,
}

impl Checker<'_> {
    /// Looks at the whole BAT and at all blocks. Returns where the last structure or block ends.
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
        let mut batch = Batch::first();
        let mut earlier: Option<Placed> = None;
        loop {
            self.entries(table, &mut batch)?;
            for placed in batch.sorted() {
                progress.check()?;
                if self.apart(table, earlier, placed) {
                    let place = placed.at()..placed.at() + table.stride();
                    self.over_reserved(table, reserved, placed, &place);
                    if let Some(batmap) = batmap.as_deref_mut() {
                        batmap.is_overlapped |= batmap.overlaps(&place);
                    }
                    self.block(table, placed, batmap.as_deref())?;
                }
                end = end.max(placed.at() + table.stride());
                earlier = Some(placed);
                progress.advance(table.stride());
            }
            match batch.next() {
                Some(next) => batch = next,
                None => break,
            }
        }
        Ok(Some(end.next_multiple_of(SECTOR_SIZE)))
    }

    /// Reads all entries; on the first pass each is judged, on every pass the sound ones go to `batch`.
    fn entries(&mut self, table: &Table, batch: &mut Batch) -> Result<()> {
        let end = table.start() + table.entries * 4;
        let mut at = table.start();
        let mut bytes = Vec::new();
        while at < end {
            self.options.progress.check()?;
            let data = self.storage.data_range(at..end)?.unwrap_or(end..end);
            // Entries in a hole are zeros. Only whole parts of them are worth passing over.
            let hole = (data.start.saturating_sub(at)) / PART * PART;
            if hole > 0 {
                self.zero_entries(table, (at - table.start()) / 4, hole / 4, batch);
                at += hole;
                continue;
            }
            let len = (end - at).min(PART);
            bytes.resize(usize::try_from(len).unwrap_or(0), 0);
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

    /// `count` entries from `first` on that are all zero: the first of them are judged one by one, the others
    /// like them.
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

    /// One entry that isn't absent.
    fn entry(&mut self, table: &Table, block: u64, entry: BatEntry, batch: &mut Batch) {
        let start = u64::from(entry.0) * SECTOR_SIZE;
        if block >= table.blocks {
            if batch.is_first() {
                let expected = format_args!("none, as the disk has {} blocks", table.blocks);
                self.bad_entry(table, block, entry, &rules::BAT_BEYOND_DISK, &expected);
            }
            return;
        }
        let fault = fault_of(table, start);
        let Some((rule, expected)) = fault else {
            batch.push(Placed { entry, block });
            return;
        };
        if batch.is_first() {
            self.bad_entry(table, block, entry, rule, &expected);
        }
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
        if rule.severity == Severity::Error {
            self.lost.add(block);
        }
    }

    /// Whether the block lies apart from the one before it in the file.
    fn apart(&mut self, table: &Table, earlier: Option<Placed>, placed: Placed) -> bool {
        let Some(earlier) = earlier else { return true };
        let distance = placed.at() - earlier.at();
        if distance >= table.stride() {
            return true;
        }
        let rule = if distance == 0 {
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
        false
    }

    /// Locators and the like under a block: harmless to its data.
    fn over_reserved(
        &mut self,
        table: &Table,
        reserved: &[Reserved],
        placed: Placed,
        place: &Range<u64>,
    ) {
        for Reserved { range, field, at } in reserved {
            if range.start < place.end && place.start < range.end {
                let found = format_args!("{:#x}, under bat[{}]", range.start, placed.block);
                let expected = format_args!("a place of its own before {:#x}", table.data_end);
                self.findings
                    .add(&rules::LOCATOR_PLACE, field, *at, found, expected);
            }
        }
    }

    /// What fills the last sector of the BAT.
    fn padding(&mut self, table: &Table) -> Result<()> {
        let start = table.end();
        let end = start.next_multiple_of(SECTOR_SIZE).min(table.data_end);
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(0)];
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

/// What is wrong with a block that starts at `start`, and what is expected instead.
fn fault_of(table: &Table, start: u64) -> Option<(&'static Rule, String)> {
    let end = start + table.stride();
    let structures = table.structures();
    let under = structures
        .iter()
        .find(|(range, _)| start < range.end && range.start < end);
    if let Some((_, what)) = under {
        let expected = format!("a place of its own, not over {what}");
        return Some((&rules::BAT_OVER_STRUCTURE, expected));
    }
    if start + table.bitmap_bytes() <= table.data_end {
        return None;
    }
    let expected = format!("a sector before {}", table.data_end / SECTOR_SIZE);
    let footer_end = table.data_end + FOOTER_SIZE as u64;
    let is_over = table.data_end < table.file_len && start < footer_end;
    let rule = if is_over {
        &rules::BAT_OVER_FOOTER
    } else {
        &rules::BAT_PAST_END
    };
    Some((rule, expected))
}

/// The first byte of `range` that isn't zero; holes aren't read.
pub(super) fn first_nonzero(storage: &dyn ReadAt, range: Range<u64>) -> Result<Option<u64>> {
    let mut at = range.start;
    let mut bytes = Vec::new();
    while let Some(data) = storage.data_range(at..range.end)? {
        let len = (data.end - data.start).min(4 * PART);
        bytes.resize(usize::try_from(len).unwrap_or(0), 0);
        storage.read_exact_at(&mut bytes, data.start)?;
        if !crate::page::is_zero(&bytes) {
            let first = bytes.iter().position(|byte| *byte != 0);
            return Ok(first.map(|n| data.start + n as u64));
        }
        at = data.start + len.max(1);
        if at >= range.end {
            break;
        }
    }
    Ok(None)
}
