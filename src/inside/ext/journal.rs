//! The journal: transactions that were committed but not yet written in place.
//!
//! A transaction consists of descriptor blocks, each followed by the blocks that it lists, and a commit block; revoke
//! blocks list blocks whose older content must not be written any more. Numbers are big-endian.

use std::collections::{BTreeMap, HashMap};

use super::super::model::Run;
use super::super::read::{Fields, JOURNAL_MAGIC, Replayed};
use super::Ext;
use super::checksum::crc32c;
use crate::error::{Error, Result};
use crate::page::to_usize;

const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const REVOKE: u32 = 5;

mod feature {
    pub(super) const BITS_64: u32 = 2;
    pub(super) const CSUM_V2: u32 = 8;
    pub(super) const CSUM_V3: u32 = 16;
    pub(super) const FAST_COMMIT: u32 = 32;
    pub(super) const KNOWN: u32 = 1 | BITS_64 | 4 | CSUM_V2 | CSUM_V3 | FAST_COMMIT;
}

/// The journal as a sequence of blocks.
struct Journal<'a, 'b> {
    ext: &'a Ext<'b>,
    /// First block, location in the volume, number of blocks.
    runs: Vec<(u64, u64, u64)>,
    block: u64,
    first: u64,
    end: u64,
    features: u32,
    seed: u32,
}

/// A block contained in a transaction.
struct Held {
    place: u64,
    escaped: bool,
    transaction: u32,
}

impl Journal<'_, '_> {
    fn place(&self, n: u64) -> Result<u64> {
        let run = self
            .runs
            .iter()
            .find(|(first, _, len)| (*first..first + len).contains(&n));
        match run {
            Some((first, place, _)) => Ok(place + (n - first) * self.block),
            None => Err(self
                .ext
                .volume
                .damaged("the journal has a hole", 1024)
                .with_found(format_args!("no block {n}"))),
        }
    }

    fn read(&self, n: u64) -> Result<Fields> {
        self.ext.volume.fields(self.place(n)?, to_usize(self.block))
    }

    fn after(&self, n: u64) -> u64 {
        if n + 1 >= self.end { self.first } else { n + 1 }
    }

    /// Returns whether the fast-commit area is in use: it then begins with a head, which is tag 9.
    fn holds_fast_commits(&self, first: u64) -> Result<bool> {
        let head = self.read(first)?;
        Ok(head.part(0, 2)? == [9, 0])
    }

    fn has_checksums(&self) -> bool {
        self.features & (feature::CSUM_V2 | feature::CSUM_V3) != 0
    }

    /// Returns whether the checksum at `at`, computed over the block with that field zeroed, is correct.
    fn is_sealed(&self, f: &Fields, at: usize) -> Result<bool> {
        if !self.has_checksums() {
            return Ok(true);
        }
        let mut bytes = f.bytes.clone();
        let stored = f.be32(at)?;
        if let Some(sum) = bytes.get_mut(at..at + 4) {
            sum.fill(0);
        }
        Ok(crc32c(self.seed, &bytes) == stored)
    }

    fn replay(&self, start: u64, sequence: u32) -> Result<(Replayed, u64)> {
        let mut blocks: HashMap<u64, Held> = HashMap::new();
        let mut revoked: HashMap<u64, u32> = HashMap::new();
        let (mut at, mut transaction, mut count) = (start, sequence, 0);
        let (mut new, mut new_revoked) = (Vec::new(), Vec::new());
        // At most once around.
        let mut left = self.end - self.first;
        loop {
            if left == 0 || at < self.first || at >= self.end {
                break;
            }
            left -= 1;
            let f = self.read(at)?;
            if f.part(0, 4)? != JOURNAL_MAGIC || f.be32(8)? != transaction {
                break;
            }
            at = self.after(at);
            match f.be32(4)? {
                DESCRIPTOR => {
                    if !self.is_sealed(&f, f.bytes.len() - 4)? {
                        break;
                    }
                    for (block, escaped) in self.tags(&f)? {
                        left = left.saturating_sub(1);
                        new.push((
                            block,
                            Held {
                                place: self.place(at)?,
                                escaped,
                                transaction,
                            },
                        ));
                        at = self.after(at);
                    }
                }
                REVOKE => {
                    if !self.is_sealed(&f, f.bytes.len() - 4)? {
                        break;
                    }
                    self.revokes(&f, &mut new_revoked)?;
                }
                COMMIT => {
                    if !self.is_sealed(&f, 16)? {
                        break;
                    }
                    blocks.extend(new.drain(..));
                    for block in new_revoked.drain(..) {
                        revoked.insert(block, transaction);
                    }
                    transaction = transaction.wrapping_add(1);
                    count += 1;
                }
                _ => break,
            }
        }
        let newer = |revoke: u32, write: u32| revoke.wrapping_sub(write).cast_signed() >= 0;
        blocks.retain(|block, held| {
            revoked
                .get(block)
                .is_none_or(|r| !newer(*r, held.transaction))
        });
        let mut found = BTreeMap::new();
        for (block, held) in blocks {
            self.ext.check_block(block)?;
            found.insert(block, (held.place, held.escaped));
        }
        Ok((
            Replayed {
                block: self.block,
                blocks: found,
            },
            count,
        ))
    }

    /// The blocks that a descriptor lists, and whether their first bytes were escaped.
    fn tags(&self, f: &Fields) -> Result<Vec<(u64, bool)>> {
        let wide = self.features & feature::BITS_64 != 0;
        let v3 = self.features & feature::CSUM_V3 != 0;
        let v2 = self.features & feature::CSUM_V2 != 0;
        let len = match (v3, v2, wide) {
            (true, ..) => 16,
            (_, v2, wide) => 8 + 2 * usize::from(v2) + 4 * usize::from(wide),
        };
        let end = f.bytes.len() - 4 * usize::from(self.has_checksums());
        let (mut at, mut tags) = (12, Vec::new());
        while at + len <= end {
            let flags = if v3 {
                f.be32(at + 4)?
            } else {
                f.be16(at + 6)?.into()
            };
            let high = if wide { u64::from(f.be32(at + 8)?) } else { 0 };
            tags.push((u64::from(f.be32(at)?) | high << 32, flags & 1 != 0));
            at += len + if flags & 2 == 0 { 16 } else { 0 };
            if flags & 8 != 0 {
                break;
            }
        }
        Ok(tags)
    }

    fn revokes(&self, f: &Fields, revoked: &mut Vec<u64>) -> Result<()> {
        let wide = self.features & feature::BITS_64 != 0;
        let (len, mut at) = (if wide { 8 } else { 4 }, 16);
        let end = to_usize(u64::from(f.be32(12)?)).min(f.bytes.len());
        while at + len <= end {
            let (high, low) = if wide {
                (u64::from(f.be32(at)?), f.be32(at + 4)?)
            } else {
                (0, f.be32(at)?)
            };
            revoked.push(high << 32 | u64::from(low));
            at += len;
        }
        Ok(())
    }
}

impl Ext<'_> {
    /// Reads the journal. Returns the blocks to replay, and the number of transactions.
    pub(super) fn read_journal(&self) -> Result<(Replayed, u64)> {
        let ext = self;
        let nothing = (Replayed::default(), 0);
        let inode = ext.inode(ext.sb.journal)?;
        let mut runs: Vec<(u64, u64, u64)> = Vec::new();
        let block = ext.sb.block;
        let add = &mut |run: Run| {
            runs.push((run.logical / block, run.place, run.len / block));
            Ok(())
        };
        ext.map(&inode, add, &mut |_| Ok(()))?;
        let mut journal = Journal {
            ext,
            runs,
            block,
            first: 1,
            end: 1,
            features: 0,
            seed: 0,
        };
        let sb = journal.read(0)?;
        if sb.part(0, 4)? != JOURNAL_MAGIC || !matches!(sb.be32(4)?, 3 | 4) {
            return Err(sb.damaged("the superblock of the journal is damaged"));
        }
        let (own_block, max) = (u64::from(sb.be32(12)?), u64::from(sb.be32(16)?));
        let (sequence, start) = (sb.be32(24)?, u64::from(sb.be32(28)?));
        journal.features = if sb.be32(4)? == 4 { sb.be32(40)? } else { 0 };
        journal.first = sb.be32(20)?.into();
        let fast = match (journal.features & feature::FAST_COMMIT, sb.be32(0x54)?) {
            (0, _) => 0,
            (_, 0) => 256,
            (_, blocks) => blocks.into(),
        };
        journal.end = max.saturating_sub(fast);
        if journal.features & !feature::KNOWN != 0 {
            return Err(
                Error::unsupported("the journal has features that are not read")
                    .with_offset(sb.at)
                    .with_found(format_args!("{:#x}", journal.features)),
            );
        }
        let blocks = ext.volume.len() / block;
        if own_block != block || journal.first == 0 || journal.first >= journal.end || max > blocks
        {
            return Err(sb.damaged("the superblock of the journal is damaged: impossible sizes"));
        }
        journal.seed = crc32c(!0, sb.part(0x30, 16)?);
        if fast > 0 && journal.holds_fast_commits(max - fast)? {
            return Err(Error::unsupported(
                "the newest state of this file system is in fast commits, which are not read",
            )
            .with_offset(sb.at));
        }
        if start == 0 {
            return Ok(nothing);
        }
        journal.replay(start, sequence)
    }

    fn check_block(&self, block: u64) -> Result<()> {
        if block < self.sb.blocks {
            return Ok(());
        }
        Err(self
            .volume
            .damaged(
                "the journal refers to a block beyond the end of the file system",
                1024,
            )
            .with_found(block))
    }
}
