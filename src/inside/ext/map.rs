//! Locates the blocks of an inode: extent trees, and the older block lists.

use std::sync::atomic::Ordering;

use super::super::model::Run;
use super::super::read::Fields;
use super::inode::Inode;
use super::{Ext, block_fields};
use crate::error::Result;
use crate::page::to_usize;

const EXTENT_MAGIC: u16 = 0xF30A;

/// The maximum depth of an extent tree.
const DEEPEST: u16 = 5;

/// Longer extents are allocated but unwritten.
const UNWRITTEN: u16 = 0x8000;

type Runs<'a> = dyn FnMut(Run) -> Result<()> + 'a;
type Blocks<'a> = dyn FnMut(u64) -> Result<()> + 'a;

impl Ext<'_> {
    /// Calls `each` with the runs of an inode in order, and `tree` with each block of the map itself.
    pub(super) fn map(
        &self,
        inode: &Inode,
        each: &mut Runs<'_>,
        tree: &mut Blocks<'_>,
    ) -> Result<()> {
        if !inode.has_blocks()? {
            return Ok(());
        }
        let map = inode.map()?;
        let mut next = 0;
        if inode.has_extents() {
            return self.extents(&map, None, &mut next, each, tree);
        }
        let mut list = List {
            ext: self,
            held: None,
            logical: 0,
            each,
            tree,
            // The last block of the longest file, for files whose size isn't the length of their content.
            end: u64::from(u32::MAX),
        };
        for n in 0..12 {
            list.block(map.u32(n * 4)?.into())?;
        }
        for (at, depth) in [(48, 1), (52, 2), (56, 3)] {
            list.indirect(map.u32(at)?.into(), depth)?;
        }
        list.flush()
    }

    /// Counts a map block that is read.
    fn count_map(&self, f: &Fields) -> Result<()> {
        let left = self
            .maps_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        match left {
            Ok(_) => Ok(()),
            Err(_) => Err(f.damaged("the maps of files refer to the same blocks repeatedly")),
        }
    }

    fn extents(
        &self,
        f: &Fields,
        depth: Option<u16>,
        next: &mut u64,
        each: &mut Runs<'_>,
        tree: &mut Blocks<'_>,
    ) -> Result<()> {
        let (magic, entries, own) = (f.u16(0)?, usize::from(f.u16(2)?), f.u16(6)?);
        if magic != EXTENT_MAGIC || own > DEEPEST || depth.is_some_and(|depth| depth != own) {
            return Err(f.damaged("a tree of extents is damaged"));
        }
        for n in 0..entries {
            let at = 12 + 12 * n;
            let logical = u64::from(f.u32(at)?);
            if logical < *next {
                return Err(f.damaged("the extents of a file are not in order"));
            }
            if own == 0 {
                let raw = f.u16(at + 4)?;
                let written = raw <= UNWRITTEN;
                let len = u64::from(if written { raw } else { raw - UNWRITTEN });
                let start = u64::from(f.u16(at + 6)?) << 32 | u64::from(f.u32(at + 8)?);
                self.check_run(start, len)?;
                *next = logical + len.max(1);
                each(Run {
                    logical: logical * self.sb.block,
                    place: start * self.sb.block,
                    len: len * self.sb.block,
                    written,
                })?;
            } else {
                let block = u64::from(f.u16(at + 8)?) << 32 | u64::from(f.u32(at + 4)?);
                let below = block_fields(self, block)?;
                self.count_map(&below)?;
                tree(block)?;
                *next = logical;
                self.extents(&below, Some(own - 1), next, each, tree)?;
            }
        }
        Ok(())
    }
}

/// Joins the blocks of a file to runs.
struct List<'a, 'b> {
    ext: &'a Ext<'a>,
    held: Option<Run>,
    /// The next block of the content.
    logical: u64,
    each: &'a mut Runs<'b>,
    tree: &'a mut Blocks<'b>,
    end: u64,
}

impl List<'_, '_> {
    fn block(&mut self, block: u64) -> Result<()> {
        let size = self.ext.sb.block;
        let (logical, place) = (self.logical * size, block * size);
        self.logical += 1;
        if block == 0 || self.logical > self.end {
            return Ok(());
        }
        self.ext.check_run(block, 1)?;
        if let Some(held) = &mut self.held
            && held.logical + held.len == logical
            && held.place + held.len == place
        {
            held.len += size;
            return Ok(());
        }
        let run = Run {
            logical,
            place,
            len: size,
            written: true,
        };
        match self.held.replace(run) {
            Some(done) => (self.each)(done),
            None => Ok(()),
        }
    }

    fn indirect(&mut self, block: u64, depth: u32) -> Result<()> {
        let per_block = self.ext.sb.block / 4;
        if depth == 0 {
            return self.block(block);
        }
        if block == 0 {
            self.logical = self.logical.saturating_add(per_block.saturating_pow(depth));
            return Ok(());
        }
        let f = block_fields(self.ext, block)?;
        self.ext.count_map(&f)?;
        (self.tree)(block)?;
        for n in 0..to_usize(per_block) {
            self.indirect(f.u32(n * 4)?.into(), depth - 1)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        match self.held.take() {
            Some(done) => (self.each)(done),
            None => Ok(()),
        }
    }
}
