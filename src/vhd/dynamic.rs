//! Reading a dynamic or differencing disk: BAT, block bitmaps, blocks, and its backing image.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bitmap::{self, Bitmap};
use super::parent::Backing;
use super::table::Table;
use super::{DynamicHeader, SECTOR_SIZE};
use crate::error::{Error, Result};
use crate::image::{Extent, Extents, join_extents, storage_extents};
use crate::page::{PageRange, to_usize};
use crate::storage::ReadAt;

/// Larger blocks are processed in pieces of this many bytes, so that memory doesn't depend on the block size.
const PIECE: u64 = 4 << 20;

/// The state of an open dynamic or differencing disk.
#[derive(Debug)]
pub(super) struct Dynamic {
    pub(super) header: DynamicHeader,
    pub(super) table: Table,
    /// Bytes of data in a block.
    pub(super) block_size: u64,
    /// Bytes of a block's bitmap in the file.
    pub(super) bitmap_bytes: u64,
    /// The limit for blocks: the trailing footer, or the end of the file if there is none.
    pub(super) data_end: u64,
    /// Whether data that should be stored after `data_end` reads as if it weren't stored; otherwise it is an error.
    pub(super) reads_zeros_behind: bool,
    /// Ranges of the disk that read as if they weren't stored, in order, because a salvage found them lost.
    pub(super) lost: Vec<PageRange>,
    /// Whether the last block's part after the end of the disk is used by something else.
    pub(super) shares_tail: bool,
    /// The backing image, which is read where nothing is stored.
    pub(super) beneath: Backing,
    /// The block that is being written.
    pub(super) current: Option<OpenBlock>,
    /// Bitmaps, by block, of blocks that are in the file's BAT. They are kept out of the file until the data that they
    /// make visible is on stable storage.
    pub(super) waiting: BTreeMap<u64, DeferredBitmap>,
    /// Which blocks are known to have all bits set. Bits are never cleared, so this never becomes wrong.
    full: FullBlocks,
}

/// The block that is being written, with its bitmap.
#[derive(Debug)]
pub(super) struct OpenBlock {
    pub(super) block: u64,
    /// Offset of the bitmap in the file.
    pub(super) bitmap_at: u64,
    pub(super) bitmap: Bitmap,
    /// Whether the bitmap in the file is outdated.
    pub(super) dirty: bool,
}

/// A bitmap that hasn't been written yet.
#[derive(Debug, Clone)]
pub(super) struct DeferredBitmap {
    /// Its offset in the file.
    pub(super) at: u64,
    pub(super) bitmap: Bitmap,
}

/// A run of the virtual disk that is stored contiguously, or not stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// Offset on the disk, in bytes.
    pub(super) start: u64,
    pub(super) end: u64,
    /// Offset in the file, if it is stored.
    pub(super) at: Option<u64>,
}

impl Span {
    /// The run as a range. It must have been requested in whole pages.
    pub(super) fn range(self) -> PageRange {
        PageRange::covering(self.start, self.end)
    }
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
enum BlockState {
    /// Not stored.
    Absent,
    /// Completely stored, in a block whose data starts at this offset of the file.
    Full(u64),
    /// Stored where the bitmap has set bits.
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
            reads_zeros_behind: false,
            lost: Vec::new(),
            shares_tail: false,
            beneath: Backing::Zeros,
            current: None,
            waiting: BTreeMap::new(),
        }
    }

    /// Size of a block in the file in bytes, bitmap and data.
    pub(super) fn stride(&self) -> u64 {
        self.bitmap_bytes + self.block_size
    }

    /// The pieces of `start..end`, in order, each within one block.
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
        let mut spans = self.spans(storage, offset, offset.saturating_add(1));
        Ok(spans.next().transpose()?.and_then(|span| span.at))
    }

    pub(super) fn read_exact_at<S: ReadAt>(
        &self,
        storage: &S,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        let mut rest = buf;
        for span in self.spans(storage, offset, end) {
            let Span { start, end, at } = span?;
            let (now, later) = rest
                .split_at_mut_checked(to_usize(end - start))
                .unwrap_or_default();
            rest = later;
            match at {
                Some(at) => storage.read_exact_at(now, at)?,
                None => self.beneath.read(now, start)?,
            }
        }
        Ok(())
    }

    pub(super) fn extents<'a, S: ReadAt>(
        &'a self,
        storage: &'a S,
        within: PageRange,
    ) -> Extents<'a> {
        let spans = self.spans(storage, within.start(), within.end());
        join_extents(spans.flat_map(move |span| match span {
            Ok(span) => self.span_extents(storage, span),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }))
    }

    fn span_extents<'a, S: ReadAt>(&'a self, storage: &'a S, span: Span) -> Extents<'a> {
        let Some(at) = span.at else {
            return self.beneath.extents(span.range());
        };
        let stored = PageRange::covering(at, at + (span.end - span.start));
        let to_disk = move |offset: u64| span.start + (offset - at);
        Box::new(storage_extents(storage, stored).map(move |extent| {
            let Extent { range, state } = extent?;
            let (start, end) = (to_disk(range.start()), to_disk(range.end()));
            Ok(Extent {
                range: PageRange::covering(start, end),
                state,
            })
        }))
    }

    /// The locations of the bytes of `start..end`: in order, without gaps, and with maximal runs of what isn't stored.
    pub(super) fn spans<'a, S: ReadAt>(
        &'a self,
        storage: &'a S,
        start: u64,
        end: u64,
    ) -> impl Iterator<Item = Result<Span>> + 'a {
        let mut pieces = self.pieces(start, end);
        let mut ready: VecDeque<Span> = VecDeque::new();
        let mut failed = false;
        std::iter::from_fn(move || {
            loop {
                // A run that isn't stored may continue in the next block.
                let complete = ready.len() > 1 || ready.front().is_some_and(|s| s.at.is_some());
                if complete {
                    return ready.pop_front().map(Ok);
                }
                let Some(piece) = pieces.next().filter(|_| !failed) else {
                    return ready.pop_front().map(Ok);
                };
                if let Err(error) = self.piece_spans(storage, piece, &mut ready) {
                    failed = true;
                    ready.clear();
                    return Some(Err(error));
                }
            }
        })
    }

    fn piece_spans<S: ReadAt>(
        &self,
        storage: &S,
        piece: Piece,
        ready: &mut VecDeque<Span>,
    ) -> Result<()> {
        let disk = piece.block * self.block_size;
        let end = piece.start + piece.len;
        let mut push_one = |start: u64, end: u64, data: Option<u64>| match ready.back_mut() {
            _ if start >= end => {}
            Some(last) if last.at.is_none() && data.is_none() => last.end = disk + end,
            _ => ready.push_back(Span {
                start: disk + start,
                end: disk + end,
                at: data.map(|data| data + start),
            }),
        };
        let mut push = |start: u64, end: u64, data: Option<u64>| {
            let mut at = start;
            for lost in self.lost_within(disk + start..disk + end) {
                let lost = lost.start.saturating_sub(disk)..lost.end.saturating_sub(disk);
                push_one(at, lost.start, data);
                push_one(lost.start.max(at), lost.end, None);
                at = at.max(lost.end);
            }
            push_one(at, end, data);
        };
        match self.stored(storage, piece)? {
            BlockState::Absent => push(piece.start, end, None),
            BlockState::Full(data) => {
                let there = self.within_file(piece, data, piece.start..end)?;
                push(piece.start, there, Some(data));
                push(there, end, None);
            }
            BlockState::Partly(data, bitmap) => {
                for run in bitmap.runs(piece.sectors()) {
                    let start = (run.start * SECTOR_SIZE).max(piece.start);
                    let end = (run.end * SECTOR_SIZE).min(end);
                    let there = if run.stored {
                        self.within_file(piece, data, start..end)?
                    } else {
                        start
                    };
                    push(start, there, Some(data));
                    push(there, end, None);
                }
            }
        }
        Ok(())
    }

    /// The parts of `range` that a salvage found lost, in order.
    fn lost_within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let first = self.lost.partition_point(|lost| lost.end() <= range.start);
        let lost = self.lost.get(first..).unwrap_or_default().iter();
        lost.map(move |lost| lost.start().max(range.start)..lost.end().min(range.end))
            .take_while(|lost| lost.start < lost.end)
    }

    /// Returns whether all of the block's sectors are known to be stored.
    pub(super) fn is_known_full(&self, block: u64) -> bool {
        self.full.contains(block)
    }

    pub(super) fn set_known_full(&self, block: u64) {
        self.full.insert(block);
    }

    /// Returns the end of the stored part of `range` in a block: its own end, unless data past the end of the file or
    /// within the trailing footer reads as if it weren't stored. Otherwise such data is an error.
    fn within_file(&self, piece: Piece, data: u64, range: Range<u64>) -> Result<u64> {
        let end = data + range.end;
        if end <= self.data_end {
            return Ok(range.end);
        }
        if self.reads_zeros_behind {
            let there = self.data_end.saturating_sub(data) / SECTOR_SIZE * SECTOR_SIZE;
            return Ok(there.clamp(range.start, range.end));
        }
        Err(cut_off(
            self.table.entry_offset(piece.block),
            piece.block,
            self.data_end,
            end,
        ))
    }

    fn stored<S: ReadAt>(&self, storage: &S, piece: Piece) -> Result<BlockState> {
        let Some(at) = self.table.entry(storage, piece.block)?.offset() else {
            return Ok(BlockState::Absent);
        };
        let data = at + self.bitmap_bytes;
        if self.full.contains(piece.block) {
            return Ok(BlockState::Full(data));
        }
        let sectors = piece.sectors();
        let bitmap = match (&self.current, self.waiting.get(&piece.block)) {
            (Some(current), _) if current.block == piece.block => current.bitmap.clone(),
            (_, Some(waiting)) => waiting.bitmap.clone(),
            _ if is_hole(storage, at, &sectors)? => return Ok(BlockState::Absent),
            _ => read_bitmap(storage, at, sectors.clone())?,
        };
        if !bitmap.is_full(sectors) {
            return Ok(BlockState::Partly(data, bitmap));
        }
        if piece.len == self.block_size {
            self.full.insert(piece.block);
        }
        Ok(BlockState::Full(data))
    }
}

/// Returns whether the bits of `sectors` in the bitmap at `at` are known to be clear without reading them.
fn is_hole<S: ReadAt>(storage: &S, at: u64, sectors: &Range<u64>) -> Result<bool> {
    let bits = at.saturating_add(sectors.start / 8)..at.saturating_add(sectors.end.div_ceil(8));
    Ok(storage.data_range(bits)?.is_none())
}

/// Reads the bits of `sectors` in the bitmap at `at`.
pub(super) fn read_bitmap<S: ReadAt>(storage: &S, at: u64, sectors: Range<u64>) -> Result<Bitmap> {
    let first = sectors.start / 8;
    let mut bytes = vec![0; to_usize(sectors.end.div_ceil(8) - first)];
    storage.read_exact_at(&mut bytes, at.saturating_add(first))?;
    Ok(Bitmap::new(bytes, first * 8))
}

/// The error for data that should be stored past the end of the file.
pub(super) fn cut_off(entry_at: u64, block: u64, data_end: u64, needed: u64) -> Error {
    Error::damaged("the file ends within a block that should be longer according to its bitmap")
        .with_field(format!("bat[{block}]"))
        .with_offset(entry_at)
        .with_found(format_args!("{data_end} bytes before the footer"))
        .with_expected(format_args!("at least {needed} bytes"))
        .with_hint(
            "the file was truncated: copy it again from its source; if it is the first part of a split image \
             (.vhd, .v01, .v02 and so on), join the parts into one file first",
        )
}

/// One bit per block, which any thread may set.
#[derive(Debug)]
struct FullBlocks(Vec<AtomicU64>);

impl FullBlocks {
    /// Nothing is remembered for disks with absurdly many blocks.
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
