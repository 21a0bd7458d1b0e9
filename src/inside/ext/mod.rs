//! ext2, ext3 and ext4: the superblock, the groups, and block ownership.

mod checksum;
mod dir;
mod inode;
mod journal;
mod map;
mod superblock;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::model::{
    Entry, FileSystem, MAPS, Node, NodeId, NodeKind, Owner, Owners, Run, Stored, own_run,
};
use super::read::{Fields, Volume, is_damage};
use crate::error::{Error, Result};
use crate::page::to_usize;
use inode::Inode;
use superblock::{MAGIC, SUPERBLOCK, Superblock, compat, incompat, ro_compat};

const ROOT: NodeId = 2;
const RESIZE: NodeId = 7;
const JOURNAL: NodeId = 8;

/// An ext file system.
#[derive(Debug)]
pub(super) struct Ext<'a> {
    volume: Volume<'a>,
    sb: Superblock,
    transactions: u64,
    notes: Vec<String>,
    /// Map blocks that may still be read in this pass: a sound file system doesn't share them.
    maps_left: AtomicU64,
}

/// The locations of a group's tables.
#[derive(Debug, Clone, Copy)]
struct Group {
    block_bitmap: u64,
    inode_bitmap: u64,
    inode_table: u64,
    inodes_unused: u64,
    flags: u16,
}

const INODE_UNINIT: u16 = 1;

impl<'a> Ext<'a> {
    /// Returns whether there is a superblock.
    pub(super) fn is_there(volume: &Volume<'_>) -> Result<bool> {
        if volume.len() < 2 * SUPERBLOCK {
            return Ok(false);
        }
        Ok(volume.fields(SUPERBLOCK, 1024)?.u16(56)? == MAGIC)
    }

    /// Opens the file system, including the transactions in its journal.
    pub(super) fn open(volume: Volume<'a>) -> Result<Self> {
        let sb = Superblock::read(&volume)?;
        let mut ext = Self {
            maps_left: AtomicU64::new(0),
            volume,
            sb,
            transactions: 0,
            notes: Vec::new(),
        };
        ext.begin_pass();
        let pending = ext.sb.incompat & incompat::RECOVER != 0;
        if pending && ext.sb.compat & compat::HAS_JOURNAL != 0 {
            if ext.sb.external_journal {
                return Err(Error::unsupported(
                    "the newest state of this file system is in a journal on another device, which is not read",
                ));
            }
            let (replayed, transactions) = ext.read_journal()?;
            ext.transactions = transactions;
            ext.volume.replay(replayed);
            ext.sb = Superblock::read(&ext.volume)?;
        }
        // A file system without a root can't be read.
        ext.inode(ROOT)?;
        Ok(ext)
    }

    fn begin_pass(&self) {
        self.maps_left
            .store(self.sb.blocks.saturating_add(1024), Ordering::Relaxed);
    }

    fn has_checksums(&self) -> bool {
        self.sb.ro_compat & (ro_compat::METADATA_CSUM | ro_compat::GDT_CSUM) != 0
    }

    fn group(&self, group: u64) -> Result<Group> {
        let at = self.sb.descriptor_at(group);
        let len = to_usize(self.sb.descriptor);
        let f = self.volume.fields(at, len)?;
        let wide = self.sb.descriptor >= 64;
        let block = |low: usize, high: usize| -> Result<u64> {
            let high = if wide {
                u64::from(f.u32(high)?) << 32
            } else {
                0
            };
            Ok(u64::from(f.u32(low)?) | high)
        };
        let unused = u64::from(f.u16(0x1C)?);
        let unused_high = if wide {
            u64::from(f.u16(0x32)?) << 16
        } else {
            0
        };
        let found = Group {
            block_bitmap: block(0, 0x20)?,
            inode_bitmap: block(4, 0x24)?,
            inode_table: block(8, 0x28)?,
            inodes_unused: if self.has_checksums() {
                unused | unused_high
            } else {
                0
            },
            flags: if self.has_checksums() {
                f.u16(0x12)?
            } else {
                0
            },
        };
        let table_end = found.inode_table.saturating_add(self.table_blocks());
        let last = found
            .block_bitmap
            .max(found.inode_bitmap)
            .max(table_end - 1);
        if last >= self.sb.blocks || found.inode_table < self.sb.first_block {
            return Err(f.damaged(format!("the descriptor of group {group} is damaged")));
        }
        Ok(found)
    }

    fn table_blocks(&self) -> u64 {
        (self.sb.inodes_per_group * self.sb.inode_size).div_ceil(self.sb.block)
    }

    fn inode_at(&self, id: NodeId) -> Result<u64> {
        let n = id
            .checked_sub(1)
            .filter(|_| id <= self.sb.inodes)
            .ok_or_else(|| {
                self.volume
                    .damaged("there is no inode of this number", SUPERBLOCK)
                    .with_found(id)
            })?;
        let group = self.group(n / self.sb.inodes_per_group)?;
        let within = (n % self.sb.inodes_per_group) * self.sb.inode_size;
        Ok(group.inode_table * self.sb.block + within)
    }

    fn inode(&self, id: NodeId) -> Result<Inode> {
        let at = self.inode_at(id)?;
        let len = to_usize(self.sb.inode_size);
        Inode::new(id, self.volume.fields(at, len)?)
    }

    /// The byte range of blocks.
    fn bytes_of(&self, block: u64, blocks: u64) -> Range<u64> {
        let start = block.saturating_mul(self.sb.block);
        start..start.saturating_add(blocks.saturating_mul(self.sb.block))
    }

    /// Reports the locations of superblock, descriptors and bitmaps.
    fn own_groups(&self, each: &mut Owners<'_>, wrong: &mut dyn FnMut(Error)) -> Result<()> {
        let sb = &self.sb;
        each(0..SUPERBLOCK, Owner::Area("boot sectors"))?;
        each(SUPERBLOCK..2 * SUPERBLOCK, Owner::Area("superblock"))?;
        let groups = sb.groups();
        let per_block = sb.descriptors_per_block();
        let old = if sb.incompat & incompat::META_BG != 0 {
            sb.first_meta_bg.min(groups.div_ceil(per_block))
        } else {
            groups.div_ceil(per_block) + sb.reserved_descriptors
        };
        for group in 0..groups {
            let first = if group == 0 {
                sb.first_super()
            } else {
                sb.first_of(group)
            };
            if sb.has_super(group) {
                each(
                    self.bytes_of(first, 1),
                    Owner::Area("copies of the superblock"),
                )?;
                if !sb.is_meta(group) || old > 0 {
                    each(
                        self.bytes_of(first + 1, old),
                        Owner::Area("group descriptors"),
                    )?;
                }
            }
            if sb.is_meta(group) && matches!(group % per_block, 0 | 1)
                || sb.is_meta(group) && group % per_block == per_block - 1
            {
                each(
                    self.bytes_of(sb.meta_block(group), 1),
                    Owner::Area("group descriptors"),
                )?;
            }
            match self.group(group) {
                Ok(found) => {
                    each(self.bytes_of(found.block_bitmap, 1), Owner::Area("bitmaps"))?;
                    each(self.bytes_of(found.inode_bitmap, 1), Owner::Area("bitmaps"))?;
                    let table = self.bytes_of(found.inode_table, self.table_blocks());
                    each(table, Owner::Area("inode tables"))?;
                }
                Err(error) if is_damage(&error) => wrong(error),
                Err(error) => return Err(error),
            }
        }
        if sb.incompat & incompat::MMP != 0 && sb.mmp_block > 0 {
            each(
                self.bytes_of(sb.mmp_block, 1),
                Owner::Area("mount protection"),
            )?;
        }
        Ok(())
    }

    /// Calls `each` with every inode in use.
    fn inodes(
        &self,
        each: &mut dyn FnMut(&Inode) -> Result<()>,
        wrong: &mut dyn FnMut(Error),
    ) -> Result<()> {
        let sb = &self.sb;
        let size = to_usize(sb.inode_size);
        for number in 0..sb.groups() {
            let group = match self.group(number) {
                Ok(group) => group,
                Err(error) if is_damage(&error) => continue,
                Err(error) => return Err(error),
            };
            if group.flags & INODE_UNINIT != 0 {
                continue;
            }
            let used = sb.inodes_per_group.saturating_sub(group.inodes_unused);
            let bitmap = self
                .volume
                .fields(group.inode_bitmap * sb.block, to_usize(sb.block))?;
            let table = group.inode_table * sb.block;
            for data in self.volume.data_in(table..table + used * sb.inode_size)? {
                let (mut at, end) = (data.start - (data.start - table) % sb.inode_size, data.end);
                while at < end {
                    let n = (at - table) / sb.inode_size;
                    let f = self.volume.fields(at, size)?;
                    at += sb.inode_size;
                    let bit = bitmap.u8(to_usize(n / 8))? >> (n % 8) & 1;
                    let id = number * sb.inodes_per_group + n + 1;
                    if f.u16(0)? == 0 && id >= sb.first_inode || f.u16(26)? == 0 && bit == 0 {
                        continue;
                    }
                    match Inode::new(id, f).and_then(|inode| each(&inode)) {
                        Err(error) if is_damage(&error) => wrong(error),
                        done => done?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Reports the owners of an inode's runs.
    fn own_inode(&self, inode: &Inode, each: &mut Owners<'_>) -> Result<()> {
        let node = inode.node()?;
        let area = match inode.id {
            RESIZE => Some("group descriptors"),
            3 | 4 => Some("quotas"),
            id if id == self.sb.journal || id == JOURNAL => Some("journal"),
            1 => Some("bad blocks"),
            _ if inode.holds_attributes() => Some("extended attributes"),
            id if id < self.sb.first_inode && id != ROOT => Some("reserved inodes"),
            _ => None,
        };
        if let Some(block) = inode.attributes_block()? {
            self.check_run(block, 1)?;
            each(self.bytes_of(block, 1), Owner::Area("extended attributes"))?;
        }
        let each = std::cell::RefCell::new(each);
        self.map(
            inode,
            &mut |run| match area {
                Some(area) => each.borrow_mut()(run.place..run.place + run.len, Owner::Area(area)),
                None => own_run(&node, run, &mut **each.borrow_mut()),
            },
            &mut |block| {
                let owner = match area {
                    Some(area) => Owner::Area(area),
                    None if node.kind == NodeKind::Folder => Owner::Area(MAPS),
                    None => Owner::Map(node.id),
                };
                each.borrow_mut()(self.bytes_of(block, 1), owner)
            },
        )
    }

    /// Fails unless the blocks are within the file system.
    fn check_run(&self, block: u64, blocks: u64) -> Result<()> {
        if block == 0
            || block
                .checked_add(blocks)
                .is_none_or(|end| end > self.sb.blocks)
        {
            return Err(self
                .volume
                .damaged(
                    "there is a reference to a block beyond the end of the file system",
                    SUPERBLOCK,
                )
                .with_found(format_args!("{blocks} from block {block}"))
                .with_expected(format_args!("below {}", self.sb.blocks)));
        }
        Ok(())
    }
}

impl FileSystem for Ext<'_> {
    fn name(&self) -> &'static str {
        let sb = &self.sb;
        let ext4 = sb.incompat & !(0x2 | incompat::RECOVER | incompat::META_BG) != 0
            || sb.ro_compat & !0x7 != 0;
        match (ext4, sb.compat & compat::HAS_JOURNAL != 0) {
            (true, _) => "ext4",
            (false, true) => "ext3",
            (false, false) => "ext2",
        }
    }

    fn label(&self) -> String {
        self.sb.label.clone()
    }

    fn root(&self) -> NodeId {
        ROOT
    }

    fn volume(&self) -> &Volume<'_> {
        &self.volume
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn transactions(&self) -> u64 {
        self.transactions
    }

    fn node(&self, id: NodeId) -> Result<Node> {
        let inode = self.inode(id)?;
        let mut node = inode.node()?;
        if inode.has_inline_data() && node.stored == Stored::Runs {
            node.stored = Stored::Inline(inode.inline_data()?);
        }
        Ok(node)
    }

    fn record(&self, id: NodeId) -> Option<Range<u64>> {
        let at = self.inode_at(id).ok()?;
        Some(at..at + self.sb.inode_size)
    }

    fn list(&self, node: &Node, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        self.list_folder(node, each)
    }

    fn runs(&self, node: &Node, each: &mut dyn FnMut(Run) -> Result<()>) -> Result<()> {
        if node.stored != Stored::Runs {
            return Ok(());
        }
        self.begin_pass();
        self.map(&self.inode(node.id)?, each, &mut |_| Ok(()))
    }

    fn owners(&self, each: &mut Owners<'_>, wrong: &mut dyn FnMut(Error)) -> Result<()> {
        self.own_groups(each, wrong)?;
        self.begin_pass();
        self.inodes(&mut |inode| self.own_inode(inode, each), wrong)
    }
}

/// Reads a block as fields.
fn block_fields(ext: &Ext<'_>, block: u64) -> Result<Fields> {
    ext.check_run(block, 1)?;
    let len = to_usize(ext.sb.block);
    ext.volume.fields(block * ext.sb.block, len)
}
