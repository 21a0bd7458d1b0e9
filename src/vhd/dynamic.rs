//! Reading a dynamic disk: BAT, block bitmaps, blocks.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bitmap::{self, Bitmap};
use super::table::Table;
use super::{DynamicHeader, SECTOR_SIZE};
use crate::error::{Error, Result};
use crate::image::{Extent, ExtentState, Extents, join_extents, storage_extents};
use crate::page::PageRange;
use crate::storage::ReadAt;

/// Larger blocks are looked at in pieces of this many bytes, so that memory doesn't follow the block size.
const PIECE: u64 = 4 << 20;

/// What an open dynamic disk knows.
#[derive(Debug)]
pub(super) struct Dynamic {
    pub(super) header: DynamicHeader,
    pub(super) table: Table,
    /// Bytes of data in a block.
    pub(super) block_size: u64,
    /// Bytes of a block's bitmap in the file.
    pub(super) bitmap_bytes: u64,
    /// Where blocks end at the latest: at the trailing footer, or at the end of the file if there is none.
    pub(super) data_end: u64,
    /// The block that is being written.
    pub(super) current: Option<Current>,
    /// Which blocks are known to have all bits set. Bits are never cleared, so this never becomes wrong.
    full: FullBlocks,
}

/// The block that is being written, with its bitmap.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) block: u64,
    /// Where the bitmap belongs in the file.
    pub(super) bitmap_at: u64,
    pub(super) bitmap: Bitmap,
    /// Whether the bitmap in the file is older.
    pub(super) dirty: bool,
}

/// A part of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) block: u64,
    /// Offset within the block's data, in bytes.
    pub(super) start: u64,
    pub(super) len: u64,
}

impl Piece {
    /// The sectors of the block that it touches.
    pub(super) fn sectors(self) -> Range<u64> {
        self.start / SECTOR_SIZE..(self.start + self.len).div_ceil(SECTOR_SIZE)
    }
}

/// How a piece is stored.
enum Stored {
    /// Not at all.
    Absent,
    /// All of it, in a block whose data starts at this offset of the file.
    Full(u64),
    /// The sectors that the bitmap says.
    Partly(u64, Bitmap),
}

impl Dynamic {
    pub(super) fn new(header: DynamicHeader, table: Table, blocks: u64, data_end: u64) -> Self {
        Self {
            block_size: u64::from(header.block_size),
            bitmap_bytes: bitmap::bitmap_bytes(header.block_size),
            full: FullBlocks::new(blocks),
            header,
            table,
            data_end,
            current: None,
        }
    }

    /// Bytes of a block in the file: bitmap and data.
    pub(super) fn stride(&self) -> u64 {
        self.bitmap_bytes + self.block_size
    }

    /// The pieces of `start..end`, in order; each lies in one block.
    pub(super) fn pieces(&self, start: u64, end: u64) -> impl Iterator<Item = Piece> + use<> {
        let block_size = self.block_size.max(SECTOR_SIZE);
        let mut at = start;
        std::iter::from_fn(move || {
            let left = end.checked_sub(at).filter(|left| *left > 0)?;
            let start = at % block_size;
            let len = (block_size - start).min(left).min(PIECE);
            let piece = Piece {
                block: at / block_size,
                start,
                len,
            };
            at += len;
            Some(piece)
        })
    }

    pub(super) fn locate<S: ReadAt>(&self, storage: &S, offset: u64) -> Result<Option<u64>> {
        let Some(piece) = self.pieces(offset, offset.saturating_add(1)).next() else {
            return Ok(None);
        };
        Ok(match self.stored(storage, piece)? {
            Stored::Absent => None,
            Stored::Full(data) => Some(data + piece.start),
            Stored::Partly(data, bitmap) => bitmap
                .is_stored(piece.sectors().start)
                .then_some(data + piece.start),
        })
    }

    pub(super) fn read_exact_at<S: ReadAt>(
        &self,
        storage: &S,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        let mut rest = buf;
        for piece in self.pieces(offset, end) {
            let (now, later) = rest
                .split_at_mut_checked(usize::try_from(piece.len).unwrap_or(usize::MAX))
                .unwrap_or_default();
            rest = later;
            match self.stored(storage, piece)? {
                Stored::Absent => now.fill(0),
                Stored::Full(data) => {
                    self.within_file(piece, data + piece.start + piece.len)?;
                    storage.read_exact_at(now, data + piece.start)?;
                }
                Stored::Partly(data, bitmap) => {
                    self.read_partly(storage, now, piece, data, &bitmap)?;
                }
            }
        }
        Ok(())
    }

    fn read_partly<S: ReadAt>(
        &self,
        storage: &S,
        buf: &mut [u8],
        piece: Piece,
        data: u64,
        bitmap: &Bitmap,
    ) -> Result<()> {
        let mut rest = buf;
        for run in bitmap.runs(piece.sectors()) {
            let start = (run.start * SECTOR_SIZE).max(piece.start);
            let end = (run.end * SECTOR_SIZE).min(piece.start + piece.len);
            let (now, later) = rest
                .split_at_mut_checked(usize::try_from(end - start).unwrap_or(usize::MAX))
                .unwrap_or_default();
            rest = later;
            if run.stored {
                self.within_file(piece, data + end)?;
                storage.read_exact_at(now, data + start)?;
            } else {
                now.fill(0);
            }
        }
        Ok(())
    }

    pub(super) fn extents<'a, S: ReadAt>(
        &'a self,
        storage: &'a S,
        within: PageRange,
    ) -> Extents<'a> {
        let mut pieces = self.pieces(within.start(), within.end());
        let mut ready = VecDeque::new();
        let mut failed = false;
        join_extents(std::iter::from_fn(move || {
            loop {
                if let Some(extent) = ready.pop_front() {
                    return Some(Ok(extent));
                }
                let piece = pieces.next().filter(|_| !failed)?;
                if let Err(error) = self.piece_extents(storage, piece, &mut ready) {
                    failed = true;
                    ready.clear();
                    return Some(Err(error));
                }
            }
        }))
    }

    fn piece_extents<S: ReadAt>(
        &self,
        storage: &S,
        piece: Piece,
        ready: &mut VecDeque<Extent>,
    ) -> Result<()> {
        let block_start = piece.block * self.block_size;
        let zero = |start: u64, end: u64| Extent {
            range: PageRange::new(block_start + start, block_start + end).unwrap_or_default(),
            state: ExtentState::Zero,
        };
        let end = piece.start + piece.len;
        let (data, runs) = match self.stored(storage, piece)? {
            Stored::Absent => {
                ready.push_back(zero(piece.start, end));
                return Ok(());
            }
            Stored::Full(data) => {
                let run = bitmap::Run {
                    start: piece.sectors().start,
                    end: piece.sectors().end,
                    stored: true,
                };
                (data, vec![run])
            }
            Stored::Partly(data, bitmap) => (data, bitmap.runs(piece.sectors()).collect()),
        };
        for run in runs {
            let (start, end) = (run.start * SECTOR_SIZE, run.end * SECTOR_SIZE);
            if !run.stored {
                ready.push_back(zero(start, end));
                continue;
            }
            self.within_file(piece, data + end)?;
            let stored = PageRange::new(data + start, data + end).unwrap_or_default();
            for extent in storage_extents(storage, stored) {
                let Extent { range, state } = extent?;
                let to_disk = |at: u64| block_start + (at - data);
                ready.push_back(Extent {
                    range: PageRange::new(to_disk(range.start()), to_disk(range.end()))
                        .unwrap_or_default(),
                    state,
                });
            }
        }
        Ok(())
    }

    /// Whether all of the block's sectors are known to be stored.
    pub(super) fn is_known_full(&self, block: u64) -> bool {
        self.full.contains(block)
    }

    pub(super) fn set_known_full(&self, block: u64) {
        self.full.insert(block);
    }

    /// Refuses a stored piece that lies behind the end of the file or within the trailing footer.
    fn within_file(&self, piece: Piece, end: u64) -> Result<()> {
        if end <= self.data_end {
            return Ok(());
        }
        Err(cut_off(
            self.table.entry_offset(piece.block),
            piece.block,
            self.data_end,
            end,
        ))
    }

    fn stored<S: ReadAt>(&self, storage: &S, piece: Piece) -> Result<Stored> {
        let Some(at) = self.table.entry(storage, piece.block)?.offset() else {
            return Ok(Stored::Absent);
        };
        let data = at + self.bitmap_bytes;
        if self.full.contains(piece.block) {
            return Ok(Stored::Full(data));
        }
        let sectors = piece.sectors();
        let bitmap = match &self.current {
            Some(current) if current.block == piece.block => current.bitmap.clone(),
            _ => read_bitmap(storage, at, sectors.clone())?,
        };
        if !bitmap.is_full(sectors) {
            return Ok(Stored::Partly(data, bitmap));
        }
        if piece.len == self.block_size {
            self.full.insert(piece.block);
        }
        Ok(Stored::Full(data))
    }
}

/// The bits of `sectors` in the bitmap at `at`.
pub(super) fn read_bitmap<S: ReadAt>(storage: &S, at: u64, sectors: Range<u64>) -> Result<Bitmap> {
    let first = sectors.start / 8;
    let mut bytes = vec![0; usize::try_from(sectors.end.div_ceil(8) - first).unwrap_or(0)];
    storage.read_exact_at(&mut bytes, at.saturating_add(first))?;
    Ok(Bitmap::new(bytes, first * 8))
}

/// The error for data that should be stored where the file has none.
pub(super) fn cut_off(entry_at: u64, block: u64, data_end: u64, needed: u64) -> Error {
    Error::damaged("the file ends within a block whose bitmap says that more is stored")
        .field(format!("bat[{block}]"))
        .offset(entry_at)
        .found(format_args!("{data_end} bytes before the footer"))
        .expected(format_args!("at least {needed} bytes"))
        .hint(
            "the file was cut off: copy it again from its source; if it is the first part of a split image \
             (.vhd, .v01, .v02 and so on), join the parts into one file first",
        )
}

/// One bit per block, set from any thread.
#[derive(Debug)]
struct FullBlocks(Vec<AtomicU64>);

impl FullBlocks {
    /// For disks with absurdly many blocks nothing is remembered.
    fn new(blocks: u64) -> Self {
        let words = if blocks <= super::table::MAX_LOADED {
            blocks.div_ceil(64)
        } else {
            0
        };
        Self((0..words).map(|_| AtomicU64::new(0)).collect())
    }

    fn word(&self, block: u64) -> Option<&AtomicU64> {
        self.0.get(usize::try_from(block / 64).ok()?)
    }

    fn contains(&self, block: u64) -> bool {
        self.word(block)
            .is_some_and(|word| word.load(Ordering::Relaxed) >> (block % 64) & 1 == 1)
    }

    fn insert(&self, block: u64) {
        if let Some(word) = self.word(block) {
            word.fetch_or(1 << (block % 64), Ordering::Relaxed);
        }
    }
}
