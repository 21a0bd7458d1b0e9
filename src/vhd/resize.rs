//! Resizes a VHD, in place and crash-safe.
//!
//! Every critical write is one sector, and everything it depends on is on stable storage before it. After a crash at
//! any point the file can be opened, has the old or the new size, and has kept its contents.
//!
//! ```text
//!   fixed     old footer at the new end ─► zeros in between ─► new footer over it
//!   growing   zeros behind the old end, longer BAT ─► header: one sector ─► trailing footer ─► its copy
//!   cutting   trailing footer ─► its copy ─► BAT entries become absent ─► header ─► their blocks become holes
//! ```
//!
//! A BAT without room to grow is rewritten at the end of the file. Both tables have the same contents until the header
//! refers to the new one: all header fields that change are in its first sector.

use super::create::check_size;
use super::dynamic::Dynamic;
use super::parent::{self, Backing};
use super::table::{MAX_LOADED, Table};
use super::write::footer_place;
use super::{
    BatEntry, DiskType, DynamicHeader, FOOTER_SIZE, Footer, HEADER_SIZE, MAX_DYNAMIC_SIZE,
    SECTOR_SIZE, VhdImage, table_bytes,
};
use crate::error::{Error, Result};
use crate::page::{part, part_mut, to_usize};
use crate::remedy::{Act, Conversion, Remedy, Step};
use crate::storage::WriteAt;

const FOOTER_LEN: u64 = FOOTER_SIZE as u64;

/// Bytes of a BAT that are copied or filled at a time.
const PIECE: usize = 16 << 10;

impl<S: WriteAt> VhdImage<S> {
    /// Grows or shrinks the virtual disk to `virtual_size` bytes: a nonzero multiple of 512, at most
    /// [`MAX_DYNAMIC_SIZE`] unless it is a fixed disk. The new part reads as zeros; anything beyond the new end is
    /// lost. Returns when the result is on stable storage.
    ///
    /// The identity and `original_size` don't change; `current_size` and `disk_geometry` do. A child can't become
    /// smaller than its parent. Resizing a parent may make its children unreadable.
    pub fn resize(&mut self, virtual_size: u64) -> Result<()> {
        self.resize_to(virtual_size)
            .map_err(|error| error.with_path(self.storage.name()))
    }

    /// Fails if the disk can't be resized to that size; see [`resize`](Self::resize).
    pub fn check_resize(&self, virtual_size: u64) -> Result<()> {
        self.check_new_size(virtual_size)
            .map_err(|error| error.with_path(self.storage.name()))
    }

    fn check_new_size(&self, size: u64) -> Result<()> {
        check_size(size)?;
        let converted = |how| Step::Do(Act::Convert(how), self.storage.name().to_path_buf());
        let Some(dynamic) = &self.dynamic else {
            if self.slack_has_data && size != self.footer.current_size {
                return Err(Error::usage(
                    "data is stored between the end of the disk and its footer, and would be lost",
                )
                .with_field("file_size")
                .with_offset(self.footer.current_size)
                .with_remedy(
                    Remedy::new("copy it first: ")
                        .step(converted(Conversion::SALVAGE), "salvaging it")
                        .text(" keeps that data, ")
                        .step(converted(Conversion::PLAIN), "a plain conversion")
                        .text(" drops it"),
                ));
            }
            return Ok(());
        };
        if dynamic.shares_tail && size > self.footer.current_size {
            return Err(Error::unsupported(
                "the last block can't grow: something else is in the way",
            )
            .with_field("footer.current_size")
            .with_remedy(
                Remedy::new("convert it first")
                    .named(": ")
                    .step(converted(Conversion::PLAIN), ""),
            ));
        }
        check_blocks(dynamic, size)?;
        match &dynamic.beneath {
            Backing::Parent(parent) => parent::check_sizes(size, parent),
            Backing::Unknown if size < self.footer.current_size => Err(Error::unsupported(
                "a differencing VHD can't be shrunk without its parent",
            )
            .with_hint("open it together with its parent")),
            Backing::Unknown | Backing::Zeros => Ok(()),
        }
    }

    fn resize_to(&mut self, size: u64) -> Result<()> {
        self.check_resize(size)?;
        let old = self.footer.current_size;
        if size == old {
            return self.finish_footers();
        }
        let Some(block_size) = self.block_size() else {
            return self.resize_fixed(size);
        };
        let blocks = size.div_ceil(block_size.max(SECTOR_SIZE));
        let old_blocks = self.block_count();
        // From here on, both footers are complete and in place.
        self.commit()?;
        self.mend_end()?;
        if size > old {
            self.wipe_behind(old)?;
            self.lengthen_table(blocks)?;
            self.write_footers(size)?;
            self.reload(blocks)
        } else {
            self.write_footers(size)?;
            let dropped = self.drop_entries(blocks..old_blocks)?;
            self.shorten_table(blocks)?;
            self.reload(blocks)?;
            self.wipe_behind(size)?;
            self.cut_file()?;
            self.punch(&dropped)
        }
    }

    fn resize_fixed(&mut self, size: u64) -> Result<()> {
        let old = self.footer.current_size;
        let footer = Footer::for_disk(DiskType::Fixed, size, Some(&self.footer));
        if size > self.end {
            // The file is temporarily longer than its disk, and the space in between is ignored.
            let len = self.storage.byte_len()?;
            let place = size.max(len.next_multiple_of(SECTOR_SIZE));
            self.storage.write_all_at(&self.footer.encode(), place)?;
            self.storage.sync()?;
            self.end = place;
        }
        if size > old {
            self.storage.write_zeros_at(old..self.end)?;
            self.storage.sync()?;
        }
        self.storage.write_all_at(&footer.encode(), self.end)?;
        self.storage.sync()?;
        self.footer = footer;
        self.unwritten.trailing = false;
        self.cut_to(size)
    }

    /// Moves the trailing footer to `end`, where nothing needed is stored, and truncates the file after it.
    pub(super) fn cut_to(&mut self, end: u64) -> Result<()> {
        if end + FOOTER_LEN > self.end {
            return Ok(());
        }
        self.storage.write_all_at(&self.footer.encode(), end)?;
        self.storage.sync()?;
        self.storage.set_len(end + FOOTER_LEN)?;
        self.storage.sync()?;
        self.end = end;
        Ok(())
    }

    /// Zeroes the rest of the last block, after the end of a disk of `size` bytes.
    fn wipe_behind(&self, size: u64) -> Result<()> {
        let Some(dynamic) = &self.dynamic else {
            return Ok(());
        };
        let (block, within) = (size / dynamic.block_size, size % dynamic.block_size);
        if within == 0 {
            return Ok(());
        }
        if let Some(at) = dynamic.table.entry(&self.storage, block)?.offset() {
            let data = at + dynamic.bitmap_bytes;
            self.storage
                .write_zeros_at(data + within..data + dynamic.block_size)?;
            self.storage.sync()?;
        }
        Ok(())
    }

    /// Extends the BAT to at least `blocks` entries, of which the new ones are absent.
    fn lengthen_table(&mut self, blocks: u64) -> Result<()> {
        let room = self.table_room()?;
        let Some(dynamic) = &mut self.dynamic else {
            return Ok(());
        };
        let have = self
            .footer
            .current_size
            .div_ceil(dynamic.block_size.max(SECTOR_SIZE));
        let mut header = dynamic.header.clone();
        let start = header.table_offset;
        let longer = table_entries(blocks)?;
        let in_place = blocks <= u64::from(header.max_table_entries) || blocks * 4 <= room;
        if in_place {
            let end = start + table_bytes(longer).min(room.max(blocks * 4));
            fill_absent(&self.storage, start + have * 4, end)?;
        } else {
            // The file always ends with a footer: the new one is written before its old place is filled.
            let at = self.end;
            let table_end = at + table_bytes(longer);
            let end = footer_place(table_end, dynamic.bitmap_bytes);
            self.storage.write_all_at(&self.footer.encode(), end)?;
            copy_entries(&self.storage, start, at, have)?;
            fill_absent(&self.storage, at + have * 4, table_end)?;
            header.table_offset = at;
            self.end = end;
            dynamic.data_end = end;
        }
        self.storage.sync()?;
        header.max_table_entries = longer;
        self.write_header(header)
    }

    /// Writes the sector of the header that contains all fields that change with the BAT.
    fn write_header(&mut self, header: DynamicHeader) -> Result<()> {
        let at = self.footer.data_offset;
        let Some(dynamic) = &mut self.dynamic else {
            return Ok(());
        };
        let header = header.sealed();
        if header != dynamic.header {
            let bytes = header.encode();
            let sector = bytes.first_chunk::<FOOTER_SIZE>().map_or(&[][..], |s| s);
            self.storage.write_all_at(sector, at)?;
            self.storage.sync()?;
            dynamic.header = header;
        }
        Ok(())
    }

    /// Bytes from the start of the BAT to the next structure in the file.
    fn table_room(&self) -> Result<u64> {
        let Some(dynamic) = &self.dynamic else {
            return Ok(0);
        };
        let start = dynamic.header.table_offset;
        let mut next = self.end;
        let mut see = |place: u64| {
            if place >= start {
                next = next.min(place);
            }
        };
        see(self.footer.data_offset);
        for locator in dynamic
            .header
            .parent_locators
            .iter()
            .filter(|l| l.is_used())
        {
            see(locator.data_offset);
        }
        for block in 0..self.block_count() {
            if let Some(at) = dynamic.table.entry(&self.storage, block)?.offset() {
                see(at);
            }
        }
        Ok(next - start.min(next))
    }

    /// Writes the footers of a disk of `size` bytes: the trailing one, which is in force, then its copy.
    fn write_footers(&mut self, size: u64) -> Result<()> {
        let Footer {
            disk_type,
            data_offset,
            ..
        } = self.footer;
        self.footer = Footer::for_layout(disk_type, size, data_offset, Some(&self.footer));
        for at in [self.end, 0] {
            self.storage.write_all_at(&self.footer.encode(), at)?;
            self.storage.sync()?;
        }
        Ok(())
    }

    /// Writes the copy of the footer if a resize to the current size was interrupted just before that.
    fn finish_footers(&self) -> Result<()> {
        if self.dynamic.is_none() {
            return Ok(());
        }
        let mut bytes = [0; FOOTER_SIZE];
        self.storage.read_exact_at(&mut bytes, 0)?;
        let copy = Footer::decode(&bytes);
        let Footer {
            disk_type,
            current_size,
            data_offset,
            ..
        } = self.footer;
        let resized = Footer::for_layout(disk_type, current_size, data_offset, Some(&copy));
        let ours = self.footer.encode();
        if ours == bytes || ours != resized.encode() || copy.verify_intact(0).is_err() {
            return Ok(());
        }
        self.storage.write_all_at(&ours, 0)?;
        self.storage.sync()
    }

    /// Makes `blocks` absent in the file. Returns their previous entries.
    fn drop_entries(&self, blocks: std::ops::Range<u64>) -> Result<Vec<BatEntry>> {
        let mut dropped = Vec::new();
        let Some(dynamic) = &self.dynamic else {
            return Ok(dropped);
        };
        let table = &dynamic.table;
        if table.loaded().is_some() {
            for block in blocks.clone() {
                let entry = table.entry(&self.storage, block)?;
                dropped.extend((entry != BatEntry::ABSENT).then_some(entry));
            }
        }
        fill_absent(
            &self.storage,
            table.entry_offset(blocks.start),
            table.entry_offset(blocks.end),
        )?;
        self.storage.sync()?;
        Ok(dropped)
    }

    /// Shortens the BAT, since some programs refuse one that is longer than needed.
    fn shorten_table(&mut self, blocks: u64) -> Result<()> {
        let Some(dynamic) = &self.dynamic else {
            return Ok(());
        };
        let mut header = dynamic.header.clone();
        header.max_table_entries = table_entries(blocks)?;
        self.write_header(header)
    }

    /// Reads the BAT again, for `blocks` blocks.
    fn reload(&mut self, blocks: u64) -> Result<()> {
        let Some(dynamic) = &mut self.dynamic else {
            return Ok(());
        };
        let header = dynamic.header.clone();
        let table = Table::read(&self.storage, header.table_offset, blocks)?;
        let beneath = dynamic.beneath.clone();
        *dynamic = Dynamic::new(header, table, blocks, self.end);
        dynamic.beneath = beneath;
        Ok(())
    }

    /// Truncates the file after the last thing that is still needed.
    fn cut_file(&mut self) -> Result<()> {
        let Some(dynamic) = &self.dynamic else {
            return Ok(());
        };
        let header = &dynamic.header;
        let table_end = header.table_offset + table_bytes(header.max_table_entries);
        let mut end = table_end.max(self.footer.data_offset + HEADER_SIZE as u64);
        for locator in header.parent_locators.iter().filter(|l| l.is_used()) {
            let space = u64::from(locator.data_space.max(locator.data_length));
            end = end.max(locator.data_offset.saturating_add(space));
        }
        for block in 0..self.block_count() {
            if let Some(at) = dynamic.table.entry(&self.storage, block)?.offset() {
                end = end.max(at + dynamic.stride());
            }
        }
        let needed = end.checked_next_multiple_of(SECTOR_SIZE);
        let bitmap_bytes = dynamic.bitmap_bytes;
        if let Some(needed) = needed
            && footer_place(needed, bitmap_bytes) < self.end
        {
            let end = footer_place(needed, bitmap_bytes);
            // These are blocks that nothing refers to any more.
            self.storage.write_zeros_at(needed..end)?;
            self.cut_to(end)?;
        }
        if let Some(dynamic) = &mut self.dynamic {
            dynamic.data_end = self.end;
        }
        Ok(())
    }

    /// Punches holes for blocks that nothing refers to any more.
    fn punch(&self, dropped: &[BatEntry]) -> Result<()> {
        let stride = self.dynamic.as_ref().map_or(0, Dynamic::stride);
        for at in dropped.iter().filter_map(|entry| entry.offset()) {
            let end = (at + stride).min(self.end);
            self.storage.write_zeros_at(at.min(end)..end)?;
        }
        if dropped.is_empty() {
            return Ok(());
        }
        self.storage.sync()
    }
}

fn check_blocks(dynamic: &Dynamic, size: u64) -> Result<()> {
    if size > MAX_DYNAMIC_SIZE {
        return Err(
            Error::usage("this is too large for a dynamic or differencing VHD")
                .with_found(format_args!("{size} bytes"))
                .with_expected(format_args!("at most {MAX_DYNAMIC_SIZE} bytes (2040 GiB)"))
                .with_hint("convert it to a fixed VHD or a raw image first"),
        );
    }
    let blocks = size.div_ceil(dynamic.block_size.max(SECTOR_SIZE));
    if blocks > MAX_LOADED && blocks > u64::from(dynamic.header.max_table_entries) {
        return Err(Error::usage("the disk would have too many blocks")
            .with_found(format_args!(
                "{blocks} blocks of {} bytes",
                dynamic.block_size
            ))
            .with_expected(format_args!("at most {MAX_LOADED}"))
            .with_hint("convert it to an image with larger blocks; 2 MiB is usual"));
    }
    Ok(())
}

/// `blocks` as the header counts them: the largest dynamic disk has far fewer than 2³² of the smallest blocks.
fn table_entries(blocks: u64) -> Result<u32> {
    u32::try_from(blocks).map_err(|_| Error::internal("more blocks than a table can have"))
}

fn copy_entries<S: WriteAt>(storage: &S, from: u64, to: u64, entries: u64) -> Result<()> {
    let mut bytes = [0; PIECE];
    let (mut done, all) = (0, entries * 4);
    while done < all {
        let len = to_usize(all - done).min(PIECE);
        let piece = part_mut(&mut bytes, ..len)?;
        storage.read_exact_at(piece, from + done)?;
        storage.write_all_at(piece, to + done)?;
        done += len as u64;
    }
    Ok(())
}

fn fill_absent<S: WriteAt>(storage: &S, start: u64, end: u64) -> Result<()> {
    let absent = [0xFF; PIECE];
    let mut at = start;
    while at < end {
        let len = to_usize(end - at).min(PIECE);
        storage.write_all_at(part(&absent, ..len)?, at)?;
        at += len as u64;
    }
    Ok(())
}
