//! Blocks in the order of their places, in as many passes over the BAT as memory asks for.

use std::collections::VecDeque;
use std::ops::Range;

use super::table::Table;
use crate::vhd::{BatEntry, SECTOR_SIZE};

/// So many blocks are sorted at once, which takes 32 MiB at most. The largest disk with 2 MiB blocks has half as
/// many.
const BATCH: usize = 2 << 20;

/// A block and where it lies.
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

    /// Sorts by place, then by block. A BAT has fewer than 2^32 entries.
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

/// The blocks of one pass: those with the lowest places behind the pass before.
#[derive(Debug)]
pub(super) struct Batch {
    keys: Vec<u64>,
    /// The last key of the pass before.
    after: Option<u64>,
    /// Keys above this one wait for a later pass.
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

    /// The blocks in the order of their places.
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

/// Blocks as they come in the order of their places, each held back until those are known that may lie over it.
#[derive(Debug, Default)]
pub(super) struct Row {
    waiting: VecDeque<Placed>,
    /// The block before them that reaches furthest, and how far.
    furthest: Option<(Placed, u64)>,
}

/// A block, and what of it lies under others.
#[derive(Debug)]
pub(super) struct Stood {
    pub(super) placed: Placed,
    /// The earlier block over which it lies.
    pub(super) over: Option<Placed>,
    /// Where in the file it and another block are both.
    pub(super) doubts: Vec<Range<u64>>,
    /// Whether the next block is where this one goes on after the end of the disk.
    pub(super) shares_tail: bool,
}

impl Row {
    /// Takes the next block; gives back the one of which enough is known then.
    pub(super) fn push(&mut self, table: &Table, placed: Placed) -> Option<Stood> {
        self.waiting.push_back(placed);
        (self.waiting.len() > 2).then(|| self.pop(table)).flatten()
    }

    /// The next of those that still wait, once there are no more.
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
        // Only the last block of the disk is shorter than the others, so no more than two have to be looked at.
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

/// Where a block ends. The last one of the disk ends with the disk if the next in the file comes right after that:
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
