//! Writing to a VHD: blocks are appended, and the BAT is updated last.
//!
//! A crash at any point leaves a file that can be opened and in which every page has its previous contents or contents
//! written since, never anything else:
//!
//! 1. A new block first gets a trailing footer after it, so that the file always ends with one; only then is the old
//!    footer's place filled with the new block's bitmap and zeros.
//! 2. BAT entries stay in memory until everything they refer to is on stable storage. Until then the new blocks are
//!    unreferenced space in the file. If the storage reorders writes, the file can still be opened by the footer's
//!    copy.
//! 3. The same applies to the bitmaps of blocks that are in the file's BAT already: a set bit means that the data is
//!    here, not in the parent.
//!
//! With a parent, zeros can't be omitted: an absent page is the parent's.

use super::dynamic::{self, DeferredBitmap, OpenBlock, Piece};
use super::image::Unwritten;
use super::{Bitmap, DiskType, Footer, VhdImage};
use crate::error::{Error, Result};
use crate::page::{PageRange, is_zero, to_usize};
use crate::storage::WriteAt;

/// Block data starts at multiples of this, the block size of most file systems and devices.
const DATA_ALIGNMENT: u64 = 4096;

/// The offset of the trailing footer after structures and blocks that end at `end`.
///
/// Writers put a new block in place of the footer, its bitmap first. After a bitmap of one sector the data is aligned
/// if the footer was the last sector of a 4 KiB unit; Hyper-V recognizes an aligned file by this. The gap isn't wasted:
/// the next block needs it before its bitmap anyway. Before larger bitmaps it would be.
pub(super) fn footer_place(end: u64, bitmap_bytes: u64) -> u64 {
    if bitmap_bytes == FOOTER_LEN {
        (end + FOOTER_LEN).next_multiple_of(DATA_ALIGNMENT) - FOOTER_LEN
    } else {
        end
    }
}

/// The most bytes of bitmaps that wait for a flush, so that memory stays bounded.
const MAX_WAITING: u64 = 16 << 20;

const FOOTER_LEN: u64 = super::FOOTER_SIZE as u64;

/// The largest file in which every sector number fits into a BAT entry: 2 TiB.
const MAX_FILE: u64 = 1 << 41;

impl<S: WriteAt> VhdImage<S> {
    /// Adopts the identity of `footer`, as [`Footer::for_disk`] does. It is written by the next flush.
    pub fn set_footer(&mut self, footer: &Footer) {
        if *footer == self.footer {
            return;
        }
        let Footer {
            disk_type,
            current_size,
            data_offset,
            unique_id,
            ..
        } = self.footer;
        self.footer = Footer::for_layout(disk_type, current_size, data_offset, Some(footer));
        // A child with its parent's id would be mistaken for it.
        let parent = self.header().map(|header| header.parent_unique_id);
        if disk_type == DiskType::Differencing && parent == Some(self.footer.unique_id) {
            self.footer = self.footer.clone().with_unique_id(unique_id);
        }
        self.unwritten.trailing = true;
        self.unwritten.copy = self.dynamic.is_some();
    }

    /// Makes everything written so far durable, in the order that the module documentation describes.
    pub(super) fn commit(&mut self) -> Result<()> {
        self.write_bitmap()?;
        if self.unwritten != Unwritten::default() {
            self.mend_end()?;
        }
        if self.unwritten.trailing {
            self.storage.write_all_at(&self.footer.encode(), self.end)?;
        }
        self.storage.sync()?;
        self.unwritten.trailing = false;
        let pending = match &mut self.dynamic {
            Some(dynamic) if dynamic.table.has_pending() || !dynamic.waiting.is_empty() => {
                dynamic.table.write_pending(&self.storage)?;
                for DeferredBitmap { at, bitmap } in dynamic.waiting.values() {
                    self.storage.write_all_at(bitmap.as_bytes(), *at)?;
                }
                true
            }
            _ => false,
        };
        if self.unwritten.copy {
            self.storage.write_all_at(&self.footer.encode(), 0)?;
        }
        if pending || self.unwritten.copy {
            self.storage.sync()?;
        }
        self.unwritten.copy = false;
        if let Some(dynamic) = &mut self.dynamic {
            dynamic.waiting.clear();
        }
        Ok(())
    }

    pub(super) fn update_blocks(&mut self, range: PageRange, data: &[u8]) -> Result<()> {
        self.mend_end()?;
        let Some(dynamic) = &self.dynamic else {
            return Ok(());
        };
        let mut rest = data;
        for piece in dynamic.pieces(range.start(), range.end()) {
            let (now, later) = rest
                .split_at_checked(to_usize(piece.len))
                .ok_or_else(|| Error::internal("blocks and data differ in length"))?;
            rest = later;
            self.update_piece(piece, now)?;
        }
        Ok(())
    }

    pub(super) fn clear_blocks(&mut self, range: PageRange) -> Result<()> {
        self.mend_end()?;
        let Some(dynamic) = &self.dynamic else {
            return Ok(());
        };
        for piece in dynamic.pieces(range.start(), range.end()) {
            self.clear_piece(piece)?;
        }
        Ok(())
    }

    fn clear_piece(&mut self, piece: Piece) -> Result<()> {
        let differencing = self.disk_type() == DiskType::Differencing;
        let Some(dynamic) = &self.dynamic else {
            return Ok(());
        };
        if let Some(at) = dynamic.table.entry(&self.storage, piece.block)?.offset() {
            let start = at + dynamic.bitmap_bytes + piece.start;
            if differencing {
                self.enter(piece.block, at)?;
            }
            self.storage.write_zeros_at(start..start + piece.len)?;
        } else {
            let start = piece.block * dynamic.block_size + piece.start;
            let range = PageRange::from_len(start, piece.len)?;
            if !dynamic.beneath.may_hold_data(range)? {
                return Ok(());
            }
            // A new block is all zeros.
            self.allocate(piece.block)?;
        }
        if differencing {
            self.set_bits(piece);
        }
        Ok(())
    }

    fn update_piece(&mut self, piece: Piece, data: &[u8]) -> Result<()> {
        let Some(dynamic) = &self.dynamic else {
            return Ok(());
        };
        let at = match dynamic.table.entry(&self.storage, piece.block)?.offset() {
            Some(at) => at,
            None if is_zero(data) => return self.clear_piece(piece),
            None => self.allocate(piece.block)?,
        };
        self.enter(piece.block, at)?;
        let Some(dynamic) = &self.dynamic else {
            return Ok(());
        };
        self.storage
            .write_all_at(data, at + dynamic.bitmap_bytes + piece.start)?;
        self.set_bits(piece);
        Ok(())
    }

    /// Sets the bits of a piece of the current block. A block that isn't current has all bits set.
    fn set_bits(&mut self, piece: Piece) {
        let Some(dynamic) = &mut self.dynamic else {
            return;
        };
        let sectors = 0..dynamic.block_size / super::SECTOR_SIZE;
        if let Some(current) = &mut dynamic.current
            && current.block == piece.block
            && current.bitmap.set(piece.sectors())
        {
            current.dirty = true;
            if current.bitmap.is_full(sectors) {
                dynamic.set_known_full(piece.block);
            }
        }
    }

    /// Allocates an absent block after all others, and returns the offset of its bitmap.
    fn allocate(&mut self, block: u64) -> Result<u64> {
        self.write_bitmap()?;
        if self.dynamic.as_ref().is_some_and(|d| d.table.is_crowded()) {
            self.commit()?;
        }
        let Some(dynamic) = &mut self.dynamic else {
            return Err(Error::usage("a fixed disk has no blocks"));
        };
        let data = (self.end + dynamic.bitmap_bytes).next_multiple_of(DATA_ALIGNMENT);
        let at = data - dynamic.bitmap_bytes;
        let end = footer_place(data + dynamic.block_size, dynamic.bitmap_bytes);
        let entry = super::BatEntry::at(at).filter(|_| end <= MAX_FILE - DATA_ALIGNMENT);
        let Some(entry) = entry else {
            return Err(
                Error::unsupported("the file can't grow: a dynamic VHD has at most 2 TiB")
                    .with_field(format!("bat[{block}]"))
                    .with_offset(self.end)
                    .with_hint("convert it to a fixed VHD or to a raw image, or use larger blocks"),
            );
        };
        self.storage.write_all_at(&self.footer.encode(), end)?;
        let gap_and_bitmap = vec![0; to_usize(data - self.end)];
        self.storage.write_all_at(&gap_and_bitmap, self.end)?;
        dynamic.table.set(block, entry);
        dynamic.current = Some(OpenBlock {
            block,
            bitmap_at: at,
            bitmap: Bitmap::new(vec![0; to_usize(dynamic.bitmap_bytes)], 0),
            dirty: false,
        });
        dynamic.data_end = end;
        self.end = end;
        Ok(at)
    }

    /// Makes the block at `at` the current one, unless its bitmap needs no change.
    fn enter(&mut self, block: u64, at: u64) -> Result<()> {
        let is_current = |c: &OpenBlock| c.block == block;
        match &self.dynamic {
            Some(d) if d.is_known_full(block) || d.current.as_ref().is_some_and(is_current) => {
                return Ok(());
            }
            _ => self.write_bitmap()?,
        }
        let crowded = |d: &dynamic::Dynamic| d.waiting.len() as u64 * d.bitmap_bytes >= MAX_WAITING;
        if self.dynamic.as_ref().is_some_and(crowded) {
            self.commit()?;
        }
        let Some(dynamic) = &mut self.dynamic else {
            return Ok(());
        };
        let bits = 0..dynamic.bitmap_bytes * 8;
        let waiting = dynamic.waiting.get(&block);
        let bitmap = waiting.map(|waiting| Ok(waiting.bitmap.clone()));
        dynamic.current = Some(OpenBlock {
            block,
            bitmap_at: at,
            bitmap: bitmap.unwrap_or_else(|| dynamic::read_bitmap(&self.storage, at, bits))?,
            dirty: false,
        });
        Ok(())
    }

    /// Writes the current block's bitmap to the file, or defers it if the block is in the file's BAT.
    fn write_bitmap(&mut self) -> Result<()> {
        let Some(dynamic) = &mut self.dynamic else {
            return Ok(());
        };
        if let Some(current) = &mut dynamic.current
            && current.dirty
        {
            if dynamic.table.is_pending(current.block) {
                self.storage
                    .write_all_at(current.bitmap.as_bytes(), current.bitmap_at)?;
            } else {
                let waiting = DeferredBitmap {
                    at: current.bitmap_at,
                    bitmap: current.bitmap.clone(),
                };
                dynamic.waiting.insert(current.block, waiting);
            }
            current.dirty = false;
        }
        Ok(())
    }

    /// Called before anything else is written: completes a last block that was stored only in part, and writes a
    /// complete footer after all blocks if there is none.
    pub(super) fn mend_end(&mut self) -> Result<()> {
        let Some(dynamic) = &mut self.dynamic else {
            return Ok(());
        };
        if dynamic.data_end == self.end && !self.unwritten.trailing {
            return Ok(());
        }
        self.storage.write_all_at(&self.footer.encode(), self.end)?;
        self.storage.write_zeros_at(dynamic.data_end..self.end)?;
        dynamic.data_end = self.end;
        self.unwritten.trailing = false;
        Ok(())
    }
}
