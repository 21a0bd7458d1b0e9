//! Inodes: the metadata of files, and small content stored in them.

use super::super::model::{Node, NodeId, NodeKind, Stored};
use super::super::read::Fields;
use crate::error::Result;
use crate::page::to_usize;

const EXTENTS: u32 = 0x8_0000;
const ENCRYPTED: u32 = 0x800;
const ATTRIBUTE: u32 = 0x20_0000;
const INLINE: u32 = 0x1000_0000;

/// Length of the block map, which may instead hold content.
const MAP: usize = 60;
const MAP_AT: usize = 40;

/// An inode as it is stored.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) id: NodeId,
    pub(super) f: Fields,
}

impl Inode {
    pub(super) fn new(id: NodeId, f: Fields) -> Result<Self> {
        f.part(0, 128)?;
        Ok(Self { id, f })
    }

    fn mode(&self) -> Result<u16> {
        self.f.u16(0)
    }

    fn flags(&self) -> u32 {
        self.f.u32(32).unwrap_or(0)
    }

    pub(super) fn has_extents(&self) -> bool {
        self.flags() & EXTENTS != 0
    }

    pub(super) fn has_inline_data(&self) -> bool {
        self.flags() & INLINE != 0
    }

    /// Returns whether it holds an extended attribute of another inode.
    pub(super) fn holds_attributes(&self) -> bool {
        self.flags() & ATTRIBUTE != 0
    }

    fn kind(&self) -> Result<NodeKind> {
        Ok(match self.mode()? >> 12 {
            0x4 => NodeKind::Folder,
            0x8 => NodeKind::File,
            0xA => NodeKind::Link,
            _ => NodeKind::Other,
        })
    }

    pub(super) fn size(&self) -> Result<u64> {
        Ok(u64::from(self.f.u32(4)?) | u64::from(self.f.u32(108)?) << 32)
    }

    /// Returns whether it may own blocks.
    pub(super) fn has_blocks(&self) -> Result<bool> {
        if self.has_inline_data() || self.short_link()?.is_some() {
            return Ok(false);
        }
        let kind = self.mode()? >> 12;
        // The inode of bad blocks, and others of the file system itself, have no type.
        Ok(matches!(kind, 0 | 0x4 | 0x8 | 0xA))
    }

    fn short_link(&self) -> Result<Option<Vec<u8>>> {
        let size = to_usize(self.size()?);
        let short = self.kind()? == NodeKind::Link
            && size < MAP
            && !self.has_extents()
            && !self.has_inline_data();
        Ok(if short {
            Some(self.f.part(MAP_AT, size)?.to_vec())
        } else {
            None
        })
    }

    /// The bytes that locate its blocks.
    pub(super) fn map(&self) -> Result<Fields> {
        self.f.sub(MAP_AT, MAP)
    }

    /// The block with its extended attributes.
    pub(super) fn attributes_block(&self) -> Result<Option<u64>> {
        let block = u64::from(self.f.u32(104)?) | u64::from(self.f.u16(118)?) << 32;
        Ok((block != 0).then_some(block))
    }

    pub(super) fn node(&self) -> Result<Node> {
        let f = &self.f;
        let seconds = i64::from(f.u32(16)?.cast_signed());
        let extra = if f.bytes.len() >= 140 && f.u16(128)? >= 12 {
            f.u32(136)?
        } else {
            0
        };
        let kind = self.kind()?;
        let stored = if self.flags() & ENCRYPTED != 0 && kind != NodeKind::Folder {
            Stored::NotRead("encrypted")
        } else if let Some(link) = self.short_link()? {
            Stored::Inline(link)
        } else {
            Stored::Runs
        };
        Ok(Node {
            id: self.id,
            identity: u128::from(self.id) << 32 | u128::from(f.u32(100)?),
            kind,
            size: self.size()?,
            mode: u32::from(self.mode()?) & 0o7777,
            uid: u32::from(f.u16(2)?) | u32::from(f.u16(120)?) << 16,
            gid: u32::from(f.u16(24)?) | u32::from(f.u16(122)?) << 16,
            modified: (seconds + (i64::from(extra & 3) << 32), extra >> 2),
            stored,
        })
    }

    /// The content stored in the inode: the first part in place of the map, and the rest as an extended attribute.
    pub(super) fn inline_data(&self) -> Result<Vec<u8>> {
        let size = to_usize(self.size()?);
        let mut data = self.f.part(MAP_AT, MAP)?.to_vec();
        data.extend(self.inline_rest()?);
        if size > data.len() {
            return Err(self
                .f
                .damaged("the content in an inode is shorter than its size"));
        }
        data.truncate(size);
        Ok(data)
    }

    /// The part in the extended attribute.
    pub(super) fn inline_rest(&self) -> Result<Vec<u8>> {
        const HEADER: usize = 4;
        let extra = if self.f.bytes.len() > 130 {
            usize::from(self.f.u16(128)?)
        } else {
            return Ok(Vec::new());
        };
        let start = 128 + extra;
        if start + HEADER > self.f.bytes.len() || self.f.u32(start)? != 0xEA02_0000 {
            return Ok(Vec::new());
        }
        let first = start + HEADER;
        let mut at = first;
        while at + 16 <= self.f.bytes.len() && self.f.u32(at)? != 0 {
            let name = usize::from(self.f.u8(at)?);
            if self.f.u8(at + 1)? == 7 && self.f.part(at + 16, name)? == b"data" {
                let offset = usize::from(self.f.u16(at + 2)?);
                let len = to_usize(u64::from(self.f.u32(at + 8)?));
                return if len == 0 {
                    Ok(Vec::new())
                } else {
                    Ok(self.f.part(first + offset, len)?.to_vec())
                };
            }
            at += (16 + name).next_multiple_of(4);
        }
        Ok(Vec::new())
    }
}
