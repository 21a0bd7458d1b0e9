//! The superblock: sizes, features, and where the tables of the groups are.

use super::checksum;
use crate::error::{Error, Result};
use crate::inside::model::NodeId;
use crate::inside::read::Volume;

/// Offset of the superblock, whatever the block size.
pub(super) const SUPERBLOCK: u64 = 1024;

pub(super) const MAGIC: u16 = 0xEF53;

pub(super) mod compat {
    pub(crate) const HAS_JOURNAL: u32 = 0x4;
    pub(crate) const SPARSE_SUPER2: u32 = 0x200;
}

pub(super) mod incompat {
    pub(crate) const RECOVER: u32 = 0x4;
    pub(crate) const META_BG: u32 = 0x10;
    pub(crate) const BITS_64: u32 = 0x80;
    pub(crate) const MMP: u32 = 0x100;
    /// Features that are supported, or irrelevant to a reader.
    pub(crate) const KNOWN: u32 = 0x2
        | RECOVER
        | META_BG
        | 0x40
        | BITS_64
        | MMP
        | 0x200
        | 0x400
        | 0x2000
        | 0x4000
        | 0x8000
        | 0x1_0000
        | 0x2_0000;
}

pub(super) mod ro_compat {
    pub(crate) const SPARSE_SUPER: u32 = 0x1;
    pub(crate) const GDT_CSUM: u32 = 0x10;
    pub(crate) const METADATA_CSUM: u32 = 0x400;
}

/// More groups than the largest disk has with 4 KiB blocks.
pub(super) const MOST_GROUPS: u64 = 1 << 24;

/// The relevant fields of a superblock.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    pub(super) block: u64,
    pub(super) blocks: u64,
    pub(super) first_block: u64,
    pub(super) per_group: u64,
    pub(super) inodes: u64,
    pub(super) inodes_per_group: u64,
    pub(super) inode_size: u64,
    pub(super) first_inode: u64,
    pub(super) compat: u32,
    pub(super) incompat: u32,
    pub(super) ro_compat: u32,
    pub(super) descriptor: u64,
    pub(super) first_meta_bg: u64,
    pub(super) reserved_descriptors: u64,
    pub(super) backups: [u64; 2],
    pub(super) journal: NodeId,
    pub(super) external_journal: bool,
    pub(super) mmp_block: u64,
    pub(super) label: String,
}

impl Superblock {
    pub(super) fn read(volume: &Volume<'_>) -> Result<Self> {
        let f = volume.fields(SUPERBLOCK, 1024)?;
        let bad = |what: &str| f.damaged(format!("the superblock is damaged: {what}"));
        if f.u16(56)? != MAGIC {
            return Err(bad("it has another magic number"));
        }
        let block = match f.u32(24)? {
            shift @ 0..=6 => 1024_u64 << shift,
            _ => return Err(bad("an impossible block size")),
        };
        let new = f.u32(76)? > 0;
        let (compat, incompat, ro_compat) = if new {
            (f.u32(92)?, f.u32(96)?, f.u32(100)?)
        } else {
            (0, 0, 0)
        };
        let wide = incompat & incompat::BITS_64 != 0;
        let high =
            |at: usize| -> Result<u64> { Ok(if wide { u64::from(f.u32(at)?) << 32 } else { 0 }) };
        let name = f.part(120, 16)?;
        let label = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let sb = Self {
            block,
            blocks: u64::from(f.u32(4)?) | high(0x150)?,
            first_block: f.u32(20)?.into(),
            per_group: f.u32(32)?.into(),
            inodes: f.u32(0)?.into(),
            inodes_per_group: f.u32(40)?.into(),
            inode_size: if new { f.u16(88)?.into() } else { 128 },
            first_inode: if new { f.u32(84)?.into() } else { 11 },
            compat,
            incompat,
            ro_compat,
            descriptor: if wide { f.u16(254)?.into() } else { 32 },
            first_meta_bg: f.u32(260)?.into(),
            reserved_descriptors: f.u16(0xCE)?.into(),
            backups: [f.u32(0x24C)?.into(), f.u32(0x250)?.into()],
            journal: f.u32(224)?.into(),
            external_journal: f.u32(224)? == 0,
            mmp_block: f.u64(0x168)?,
            label: String::from_utf8_lossy(label).into_owned(),
        };
        if ro_compat & ro_compat::METADATA_CSUM != 0
            && checksum::crc32c(!0, f.part(0, 0x3FC)?) != f.u32(0x3FC)?
        {
            return Err(bad("its checksum is wrong"));
        }
        if sb.incompat & !incompat::KNOWN != 0 {
            return Err(
                Error::unsupported("this ext file system has features that are not read")
                    .with_field("superblock.s_feature_incompat")
                    .with_offset(volume.on_disk(SUPERBLOCK))
                    .with_found(format_args!("{:#x}", sb.incompat & !incompat::KNOWN)),
            );
        }
        let fits = sb
            .blocks
            .checked_mul(block)
            .is_some_and(|bytes| bytes <= volume.len());
        if !fits || sb.first_block >= sb.blocks {
            return Err(bad("it is larger than its partition"));
        }
        let table = sb.inodes_per_group.saturating_mul(sb.inode_size);
        if !sb.inode_size.is_power_of_two()
            || !(128..=block).contains(&sb.inode_size)
            || !(1..=block * 8).contains(&sb.inodes_per_group)
            || table > sb.blocks.saturating_mul(block)
            || !sb.descriptor.is_power_of_two()
            || !(32..=1024).contains(&sb.descriptor)
            || sb.per_group < 8
            || sb.groups() > MOST_GROUPS
            || sb.inodes > sb.groups().saturating_mul(sb.inodes_per_group)
        {
            return Err(bad("impossible sizes of groups and inodes"));
        }
        Ok(sb)
    }

    pub(super) fn groups(&self) -> u64 {
        (self.blocks - self.first_block).div_ceil(self.per_group)
    }

    pub(super) fn first_of(&self, group: u64) -> u64 {
        self.first_block
            .saturating_add(group.saturating_mul(self.per_group))
    }

    /// Returns whether a group begins with a copy of the superblock.
    pub(super) fn has_super(&self, group: u64) -> bool {
        if self.compat & compat::SPARSE_SUPER2 != 0 {
            return group == 0 || self.backups.contains(&group);
        }
        let power_of = |base: u64| {
            let mut n = base;
            while n < group {
                n = n.saturating_mul(base);
            }
            n == group
        };
        group <= 1
            || self.ro_compat & ro_compat::SPARSE_SUPER == 0
            || [3, 5, 7].into_iter().any(power_of)
    }

    /// The block of the superblock within group 0.
    pub(super) fn first_super(&self) -> u64 {
        u64::from(self.block == 1024)
    }

    pub(super) fn descriptors_per_block(&self) -> u64 {
        self.block / self.descriptor
    }

    pub(super) fn is_meta(&self, group: u64) -> bool {
        self.incompat & incompat::META_BG != 0
            && group / self.descriptors_per_block() >= self.first_meta_bg
    }

    /// Offset of a group's descriptor.
    pub(super) fn descriptor_at(&self, group: u64) -> u64 {
        let per_block = self.descriptors_per_block();
        let within = (group % per_block) * self.descriptor;
        let block = if self.is_meta(group) {
            let first = group - group % per_block;
            self.meta_block(first)
        } else {
            self.first_super() + 1 + group / per_block
        };
        block.saturating_mul(self.block).saturating_add(within)
    }

    /// The block with descriptors in `group`, in a file system with meta block groups.
    pub(super) fn meta_block(&self, group: u64) -> u64 {
        let mut skip = u64::from(self.has_super(group));
        if group == 0 && self.block == 1024 && self.first_block == 0 {
            skip += 1;
        }
        self.first_of(group).saturating_add(skip)
    }
}
