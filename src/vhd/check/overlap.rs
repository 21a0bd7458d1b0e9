//! Sorts blocks by their location, in as many passes over the BAT as memory requires.

use std::collections::VecDeque;
use std::ops::Range;

use super::table::Table;
use crate::vhd::{BatEntry, SECTOR_SIZE};

/// The most blocks that are sorted at a time, which takes up to 32 MiB. The largest disk with 2 MiB blocks has half as
/// many.
const BATCH: usize = 2 << 20;

/// A block and its location.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub(super) entry: BatEntry,
    pub(super) block: u64,
}

impl Placed {
    /// Offset of its bitmap in the file.
    pub(super) fn at(self) -> u64 {
        u64::from(self.entry.0) * SECTOR_SIZE
    }

    /// Sorts by location, then by block. A BAT has fewer than 2^32 entries.
    fn key(self) -> u64 {
        u64::from(self.entry.0) << 32 | self.block & 0xFFFF_FFFF
    }

    fn from_key(key: u64) -> Self {
        Self {
            entry: BatEntry(u32::try_from(key >> 32).unwrap_or(0)),
            block: key & 0xFFFF_FFFF,
        }
    }
}

/// The blocks of one pass: those with the lowest locations after the previous pass.
#[derive(Debug)]
pub(super) struct Batch {
    keys: Vec<u64>,
    /// The last key of the previous pass.
    after: Option<u64>,
    /// Keys above this one are left to a later pass.
    limit: Option<u64>,
    size: usize,
}

impl Batch {
    pub(super) fn first() -> Self {
        Self::of(BATCH)
    }

    fn of(size: usize) -> Self {
        Self {
            keys: Vec::new(),
            after: None,
            limit: None,
            size,
        }
    }

    pub(super) fn is_first(&self) -> bool {
        self.after.is_none()
    }

    pub(super) fn push(&mut self, placed: Placed) {
        let key = placed.key();
        if self.after.is_some_and(|after| key <= after)
            || self.limit.is_some_and(|limit| key > limit)
        {
            return;
        }
        self.keys.push(key);
        if self.keys.len() >= self.size * 2 {
            let last = self.size - 1;
            let (_, limit, _) = self.keys.select_nth_unstable(last);
            self.limit = Some(*limit);
            self.keys.truncate(self.size);
        }
    }

    /// The blocks sorted by location.
    pub(super) fn sorted(&mut self) -> Vec<Placed> {
        self.keys.sort_unstable();
        self.keys.iter().map(|key| Placed::from_key(*key)).collect()
    }

    /// The next pass, if one is needed.
    pub(super) fn next(&self) -> Option<Self> {
        Some(Self {
            after: Some(self.limit?),
            ..Self::of(self.size)
        })
    }
}

/// Blocks in the order of their locations, each held back until all blocks that may overlap it are known.
#[derive(Debug, Default)]
pub(super) struct Row {
    waiting: VecDeque<Placed>,
    /// The previous block that extends furthest, and its end.
    furthest: Option<(Placed, u64)>,
}

/// A block, and its overlaps.
#[derive(Debug)]
pub(super) struct Stood {
    pub(super) placed: Placed,
    /// The earlier block that it overlaps.
    pub(super) over: Option<Placed>,
    /// The ranges of the file that it shares with another block.
    pub(super) doubts: Vec<Range<u64>>,
    /// Whether the next block starts within the part of this one after the end of the disk.
    pub(super) shares_tail: bool,
}

impl Row {
    /// Adds the next block. Returns the one whose overlaps are then known.
    pub(super) fn push(&mut self, table: &Table, placed: Placed) -> Option<Stood> {
        self.waiting.push_back(placed);
        (self.waiting.len() > 2).then(|| self.pop(table)).flatten()
    }

    /// Returns the next of the remaining blocks, once there are no more to add.
    pub(super) fn pop(&mut self, table: &Table) -> Option<Stood> {
        let placed = self.waiting.pop_front()?;
        let (next, second) = (self.waiting.front().copied(), self.waiting.get(1).copied());
        let end = end_of(table, placed, next);
        let mut doubts = Vec::new();
        let over =
            self.furthest
                .filter(|(_, reach)| *reach > placed.at())
                .map(|(earlier, reach)| {
                    doubts.push(placed.at()..reach.min(end));
                    earlier
                });
        // Only the last block of the disk is shorter than the others, so it is enough to look at two.
        let mut under = |later: Option<Placed>, after: Option<Placed>| {
            if let Some(later) = later.filter(|later| later.at() < end) {
                doubts.push(later.at()..end.min(end_of(table, later, after)));
            }
        };
        under(next, second);
        under(second, None);
        if self.furthest.is_none_or(|(_, reach)| reach <= end) {
            self.furthest = Some((placed, end));
        }
        let tail = end..placed.at() + table.stride();
        let shares_tail = self.waiting.iter().any(|later| tail.contains(&later.at()));
        Some(Stood {
            placed,
            over,
            doubts,
            shares_tail,
        })
    }
}

/// The end of a block. The last block of the disk ends with the disk if the next one in the file directly follows it:
/// then its writer stored no more of it.
fn end_of(table: &Table, placed: Placed, next: Option<Placed>) -> u64 {
    const ALIGNMENT: u64 = 4096;
    let wanted = placed.at() + table.wanted_bytes(placed.block);
    let follows = next.is_some_and(|next| (wanted..wanted + ALIGNMENT).contains(&next.at()));
    if follows {
        wanted
    } else {
        placed.at() + table.stride()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_together_give_all_blocks_in_order() {
        let blocks: Vec<Placed> = (0..1000)
            .map(|n: u64| Placed {
                entry: BatEntry(u32::try_from(n * 7919 % 613).unwrap()),
                block: n,
            })
            .collect();
        let mut expected: Vec<u64> = blocks.iter().map(|placed| placed.key()).collect();
        expected.sort_unstable();
        for size in [1, 7, 100, 500, 999, 1000, 5000] {
            let mut batch = Batch::of(size);
            let mut found = Vec::new();
            loop {
                for placed in &blocks {
                    batch.push(*placed);
                }
                assert!(batch.keys.len() <= size * 2);
                found.extend(batch.sorted().iter().map(|placed| placed.key()));
                match batch.next() {
                    Some(next) => batch = next,
                    None => break,
                }
            }
            assert_eq!(found, expected, "{size}");
        }
    }
}
