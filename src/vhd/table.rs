//! The BAT of an open image: in memory if its size is reasonable, otherwise read on demand.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::bat::{self, BatEntry};
use crate::error::{Error, Result};
use crate::page::to_usize;
use crate::storage::{ReadAt, WriteAt};

/// A BAT of up to this many entries (64 MiB) is kept in memory. With 2 MiB blocks the largest dynamic disk has a
/// sixteenth of it.
pub(super) const MAX_LOADED: u64 = 16 << 20;

/// Entries that are read or written at a time: 64 KiB.
const PART: u64 = 16 << 10;

/// The most new entries that wait for a flush, so that memory stays bounded.
const MAX_PENDING: usize = 1 << 20;

/// The entries of the BAT that the virtual disk needs.
#[derive(Debug)]
pub(super) struct Table {
    /// Offset of the first entry in the file, in bytes.
    offset: u64,
    entries: u64,
    allocated: u64,
    content: Content,
    /// New entries, kept out of the file until the blocks they refer to are on stable storage.
    pending: BTreeMap<u64, BatEntry>,
}

#[derive(Debug)]
enum Content {
    Loaded(Vec<u32>),
    /// The part that was last read, and its number.
    OnDemand(Mutex<Option<(u64, Vec<u32>)>>),
}

impl Table {
    /// A new table whose entries are all absent.
    pub(super) fn absent(offset: u64, entries: u64) -> Self {
        let count = to_usize(entries.min(MAX_LOADED));
        Self {
            offset,
            entries,
            allocated: 0,
            content: if entries <= MAX_LOADED {
                Content::Loaded(vec![bat::ABSENT; count])
            } else {
                Content::OnDemand(Mutex::new(None))
            },
            pending: BTreeMap::new(),
        }
    }

    /// Reads a table of `entries` entries at `offset`, which is within the file.
    pub(super) fn read<S: ReadAt>(storage: &S, offset: u64, entries: u64) -> Result<Self> {
        let mut loaded = (entries <= MAX_LOADED).then(|| Vec::with_capacity(to_usize(entries)));
        let mut allocated = 0;
        for part in 0..entries.div_ceil(PART) {
            let part = read_part(storage, offset, entries, part)?;
            allocated += part.iter().filter(|entry| **entry != bat::ABSENT).count() as u64;
            if let Some(loaded) = &mut loaded {
                loaded.extend(part);
            }
        }
        Ok(Self {
            offset,
            entries,
            allocated,
            content: match loaded {
                Some(loaded) => Content::Loaded(loaded),
                None => Content::OnDemand(Mutex::new(None)),
            },
            pending: BTreeMap::new(),
        })
    }

    /// Treats a block as absent, whatever the file says. Such a table must not be written.
    pub(super) fn lose(&mut self, block: u64) {
        if block >= self.entries {
            return;
        }
        self.allocated = self.allocated.saturating_sub(1);
        let slot = match &mut self.content {
            Content::Loaded(entries) => {
                usize::try_from(block).ok().and_then(|n| entries.get_mut(n))
            }
            Content::OnDemand(_) => None,
        };
        match slot {
            Some(slot) => *slot = bat::ABSENT,
            None => drop(self.pending.insert(block, BatEntry::ABSENT)),
        }
    }

    /// Number of stored blocks.
    pub(super) fn allocated(&self) -> u64 {
        self.allocated
    }

    /// All entries, if they are in memory.
    pub(super) fn loaded(&self) -> Option<&[u32]> {
        match &self.content {
            Content::Loaded(entries) => Some(entries),
            Content::OnDemand(_) => None,
        }
    }

    /// Offset of entry `block` in the file.
    pub(super) fn entry_offset(&self, block: u64) -> u64 {
        self.offset.saturating_add(block.saturating_mul(4))
    }

    /// The entry of `block`.
    pub(super) fn entry<S: ReadAt>(&self, storage: &S, block: u64) -> Result<BatEntry> {
        let outside = || {
            Error::usage("there is no such block")
                .with_found(format_args!("block {block} of {} blocks", self.entries))
        };
        let cached = match &self.content {
            Content::Loaded(entries) => {
                let index = to_usize(block);
                return entries.get(index).map(|e| BatEntry(*e)).ok_or_else(outside);
            }
            Content::OnDemand(cached) => cached,
        };
        if let Some(entry) = self.pending.get(&block) {
            return Ok(*entry);
        }
        let wanted = block / PART;
        let mut cached = cached.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(&*cached, Some((part, _)) if *part == wanted) {
            let part = read_part(storage, self.offset, self.entries, wanted)?;
            *cached = Some((wanted, part));
        }
        let index = to_usize(block % PART);
        let entry = cached.as_ref().and_then(|(_, part)| part.get(index));
        entry.map(|e| BatEntry(*e)).ok_or_else(outside)
    }

    /// Sets the entry of an absent block. It reaches the file with [`write_pending`](Self::write_pending).
    pub(super) fn set(&mut self, block: u64, entry: BatEntry) {
        if let Content::Loaded(entries) = &mut self.content
            && let Some(slot) = usize::try_from(block).ok().and_then(|n| entries.get_mut(n))
        {
            *slot = entry.0;
        }
        self.allocated += 1;
        self.pending.insert(block, entry);
    }

    /// Returns whether there are entries that aren't in the file yet.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Returns whether the entry of `block` isn't in the file yet.
    pub(super) fn is_pending(&self, block: u64) -> bool {
        self.pending.contains_key(&block)
    }

    /// Returns whether so many entries are pending that they should be written now.
    pub(super) fn is_crowded(&self) -> bool {
        self.pending.len() >= MAX_PENDING
    }

    /// Writes the new entries, adjacent ones together.
    pub(super) fn write_pending<S: WriteAt>(&mut self, storage: &S) -> Result<()> {
        let mut run: Range<u64> = 0..0;
        let mut bytes = Vec::new();
        for (block, entry) in &self.pending {
            if *block != run.end || run.end - run.start >= PART {
                self.write_run(storage, &run, &bytes)?;
                run = *block..*block;
                bytes.clear();
            }
            bytes.extend(entry.encode());
            run.end += 1;
        }
        self.write_run(storage, &run, &bytes)?;
        self.pending.clear();
        if let Content::OnDemand(cached) = &mut self.content {
            *cached = Mutex::new(None);
        }
        Ok(())
    }

    fn write_run<S: WriteAt>(&self, storage: &S, run: &Range<u64>, bytes: &[u8]) -> Result<()> {
        if run.is_empty() {
            return Ok(());
        }
        storage.write_all_at(bytes, self.entry_offset(run.start))
    }
}

fn read_part<S: ReadAt>(storage: &S, offset: u64, entries: u64, part: u64) -> Result<Vec<u32>> {
    let first = part.saturating_mul(PART);
    let count = entries.saturating_sub(first).min(PART);
    let mut bytes = vec![0; to_usize(count * 4)];
    storage.read_exact_at(&mut bytes, offset.saturating_add(first.saturating_mul(4)))?;
    let (entries, _) = bytes.as_chunks::<4>();
    Ok(entries.iter().map(|e| BatEntry::decode(e).0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Memory;

    #[test]
    fn new_entries_reach_the_file_in_runs_and_only_when_told() {
        let entries = PART * 2 + 5;
        let storage = Memory::new(vec![0xFF; usize::try_from(entries * 4).unwrap()]);
        let before = storage.to_vec();
        let mut table = Table::read(&storage, 0, entries).unwrap();
        for block in [0, 1, 2, 9, entries - 1] {
            table.set(block, BatEntry(u32::try_from(block).unwrap()));
        }
        assert_eq!(storage.to_vec(), before);
        assert!(table.has_pending());
        table.write_pending(&storage).unwrap();
        let again = Table::read(&storage, 0, entries).unwrap();
        assert_eq!(again.loaded(), table.loaded());
        assert_eq!((again.allocated(), table.allocated()), (5, 5));
    }

    #[test]
    fn a_table_read_on_demand_says_the_same() {
        let entries = PART + 7;
        let bytes: Vec<u8> = (0..entries)
            .flat_map(|n| u32::try_from(n * 3).unwrap().to_be_bytes())
            .collect();
        let storage = Memory::new([vec![0; 512], bytes].concat());
        let loaded = Table::read(&storage, 512, entries).unwrap();
        let mut on_demand = Table {
            content: Content::OnDemand(Mutex::new(None)),
            ..Table::absent(512, entries)
        };
        on_demand.pending.insert(3, BatEntry(5));
        for block in [0, 1, PART - 1, PART, entries - 1, 0] {
            assert_eq!(
                on_demand.entry(&storage, block).unwrap(),
                loaded.entry(&storage, block).unwrap()
            );
        }
        assert_eq!(on_demand.entry(&storage, 3).unwrap(), BatEntry(5));
        assert!(on_demand.entry(&storage, entries).is_err());
        assert!(loaded.entry(&storage, entries).is_err());
        on_demand.write_pending(&storage).unwrap();
        assert_eq!(on_demand.entry(&storage, 3).unwrap(), BatEntry(5));
    }
}
