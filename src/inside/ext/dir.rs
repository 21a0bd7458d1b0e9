//! Folders: lists of names in blocks. Index blocks look like a single unused name, so all blocks are read alike.

use super::super::model::{Entry, Node, NodeKind, Stored};
use super::super::read::Fields;
use super::{Ext, FileSystem as _};
use crate::error::Result;
use crate::page::to_usize;

/// Names include the type of their inode.
const FILE_TYPE: u32 = 0x2;

impl Ext<'_> {
    pub(super) fn list_folder(
        &self,
        node: &Node,
        each: &mut dyn FnMut(Entry) -> Result<()>,
    ) -> Result<()> {
        if node.kind != NodeKind::Folder {
            return Err(self
                .volume
                .damaged("this is not a folder", self.inode_at(node.id)?));
        }
        let inode = self.inode(node.id)?;
        let types = self.sb.incompat & FILE_TYPE != 0;
        if inode.has_inline_data() {
            // The first four bytes are the parent.
            names(&inode.map()?.sub(4, 56)?, types, each)?;
            let rest = inode.inline_rest()?;
            return names(
                &Fields {
                    bytes: rest,
                    at: inode.f.at,
                },
                types,
                each,
            );
        }
        debug_assert!(node.stored == Stored::Runs);
        let block = self.sb.block;
        let mut left = self.volume.len() / block;
        self.runs(node, &mut |run| {
            let mut at = run.place;
            let len = run.len.min(node.size.saturating_sub(run.logical));
            while run.written && at < run.place + len {
                // A folder can't be longer than its partition.
                left = left
                    .checked_sub(1)
                    .ok_or_else(|| self.volume.damaged("an endless folder", at))?;
                names(&self.volume.fields(at, to_usize(block))?, types, each)?;
                at += block;
            }
            Ok(())
        })
    }
}

/// The names in a block, or in a part of an inode.
fn names(f: &Fields, types: bool, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
    let mut at = 0;
    while at + 8 <= f.bytes.len() {
        let inode = u64::from(f.u32(at)?);
        let len = match f.u16(at + 4)? {
            // In 64 KiB blocks.
            0 | 0xFFFF if at == 0 && f.bytes.len() == 1 << 16 => 1 << 16,
            len => usize::from(len),
        };
        let name = usize::from(f.u8(at + 6)?);
        if len < 8 || len % 4 != 0 || at + len > f.bytes.len() {
            return Err(f.damaged("a folder is damaged: a name of an impossible length"));
        }
        if inode != 0 && name > 0 {
            if name + 8 > len {
                return Err(f.damaged("a folder is damaged: a name is longer than its entry"));
            }
            let name = f.part(at + 8, name)?;
            if name != b"." && name != b".." {
                let folder = match f.u8(at + 7)? {
                    0 => None,
                    _ if !types => None,
                    kind => Some(kind == 2),
                };
                let name = name.to_vec();
                each(Entry {
                    name,
                    id: inode,
                    folder,
                })?;
            }
        }
        at += len;
    }
    Ok(())
}
