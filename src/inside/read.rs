//! Reads the bytes of a partition through a small cache, replacing blocks by those in a journal.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use byteorder::{BigEndian, ByteOrder as _, LittleEndian};

use crate::error::{Error, ErrorKind, Result};
use crate::image::{ExtentState, Image};
use crate::page::{PageRange, to_usize};

/// Bytes that are read and cached at a time.
const PIECE: u64 = 64 << 10;

/// Number of cached pieces: 8 MiB.
const KEPT: usize = 128;

/// The largest structure that is read as a whole.
const LARGEST: usize = 4 << 20;

/// A partition, or a whole disk, with offsets from 0.
#[derive(Debug)]
pub(super) struct Volume<'a> {
    image: Held<'a>,
    range: Range<u64>,
    cache: Mutex<Cache>,
    replayed: Replayed,
}

/// An image that prints nothing about itself in debug output.
struct Held<'a>(&'a dyn Image);

impl std::fmt::Debug for Held<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("image")
    }
}

#[derive(Debug, Default)]
struct Cache {
    clock: u64,
    pieces: HashMap<u64, (u64, Arc<Vec<u8>>)>,
}

/// Blocks whose latest content is in the journal.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// Block size in bytes.
    pub(super) block: u64,
    /// By block number: the location of its content, and whether its first four bytes were escaped.
    pub(super) blocks: BTreeMap<u64, (u64, bool)>,
}

/// The first bytes of every journal block, which are escaped in data blocks.
pub(super) const JOURNAL_MAGIC: [u8; 4] = [0xC0, 0x3B, 0x39, 0x98];

impl<'a> Volume<'a> {
    /// The bytes `range` of `image`, cut at its end.
    pub(super) fn new(image: &'a dyn Image, range: Range<u64>) -> Self {
        let end = range.end.min(image.virtual_size());
        Self {
            image: Held(image),
            range: range.start.min(end)..end,
            cache: Mutex::default(),
            replayed: Replayed::default(),
        }
    }

    /// Length of the volume in bytes.
    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Reads blocks from the journal from now on.
    pub(super) fn replay(&mut self, replayed: Replayed) {
        self.replayed = replayed;
    }

    /// The ranges that are read from the journal.
    pub(super) fn replayed(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let block = self.replayed.block;
        let blocks = self.replayed.blocks.keys();
        blocks.map(move |n| n.saturating_mul(block)..n.saturating_add(1).saturating_mul(block))
    }

    /// Converts an offset in the volume to one on the disk.
    pub(super) fn on_disk(&self, at: u64) -> u64 {
        self.range.start.saturating_add(at)
    }

    /// Fills `buf` from `at`.
    pub(super) fn read(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.raw(buf, at)?;
        let block = self.replayed.block;
        if self.replayed.blocks.is_empty() || block == 0 || buf.is_empty() {
            return Ok(());
        }
        let end = at.saturating_add(buf.len() as u64);
        for (number, (place, escaped)) in
            self.replayed.blocks.range(at / block..end.div_ceil(block))
        {
            let start = number.saturating_mul(block);
            let (from, to) = (start.max(at), start.saturating_add(block).min(end));
            let Some(part) = buf.get_mut(to_usize(from.saturating_sub(at))..to_usize(to - at))
            else {
                continue;
            };
            self.raw(part, place.saturating_add(from - start))?;
            if *escaped {
                let shift = from - start;
                for (n, byte) in JOURNAL_MAGIC.iter().enumerate() {
                    let place = (n as u64).checked_sub(shift).map(to_usize);
                    if let Some(there) = place.and_then(|place| part.get_mut(place)) {
                        *there = *byte;
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads `len` bytes at `at`.
    pub(super) fn bytes(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        if len > LARGEST {
            return Err(self
                .damaged("a structure is impossibly large", at)
                .with_found(len));
        }
        let mut bytes = vec![0; len];
        self.read(&mut bytes, at)?;
        Ok(bytes)
    }

    /// As [`bytes`](Self::bytes), as fields.
    pub(super) fn fields(&self, at: u64, len: usize) -> Result<Fields> {
        Ok(Fields {
            bytes: self.bytes(at, len)?,
            at: self.on_disk(at),
        })
    }

    /// Reads the disk itself, ignoring the journal.
    fn raw(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let end = at.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.len()) {
            return Err(self
                .damaged("there is a reference beyond the end of the partition", at)
                .with_expected(format_args!("at most {} bytes", self.len())));
        }
        // Large reads happen once, when a file is copied, and aren't cached.
        if buf.len() as u64 >= PIECE {
            return self.image.0.read_exact_at(buf, self.on_disk(at));
        }
        let mut done = 0;
        while done < buf.len() {
            let from = at + done as u64;
            let piece = self.piece(from / PIECE)?;
            let skip = to_usize(from % PIECE);
            let there = piece.get(skip..).unwrap_or_default();
            let len = there.len().min(buf.len() - done);
            let (Some(to), Some(bytes)) = (buf.get_mut(done..done + len), there.get(..len)) else {
                break;
            };
            if len == 0 {
                return Err(self.damaged("the partition ends here", from));
            }
            to.copy_from_slice(bytes);
            done += len;
        }
        Ok(())
    }

    fn piece(&self, number: u64) -> Result<Arc<Vec<u8>>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.clock += 1;
        let clock = cache.clock;
        if let Some((used, piece)) = cache.pieces.get_mut(&number) {
            *used = clock;
            return Ok(piece.clone());
        }
        let start = number * PIECE;
        let len = self.len().saturating_sub(start).min(PIECE);
        let mut bytes = vec![0; to_usize(len)];
        self.image
            .0
            .read_exact_at(&mut bytes, self.on_disk(start))?;
        let piece = Arc::new(bytes);
        if cache.pieces.len() >= KEPT {
            let oldest = cache.pieces.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(number, _)| *number) {
                cache.pieces.remove(&oldest);
            }
        }
        cache.pieces.insert(number, (clock, piece.clone()));
        Ok(piece)
    }

    /// The parts of `range` that may be nonzero, extended to whole pages and cut to `range`.
    pub(super) fn data_in(&self, range: Range<u64>) -> Result<Vec<Range<u64>>> {
        let start = self.range.start;
        let within = PageRange::covering(
            self.on_disk(range.start.min(self.len())),
            self.on_disk(range.end.min(self.len())),
        );
        let mut found: Vec<Range<u64>> = Vec::new();
        for extent in self.image.0.extents(within) {
            let extent = extent?;
            if extent.state == ExtentState::Zero {
                continue;
            }
            let from = extent.range.start().saturating_sub(start).max(range.start);
            let to = extent.range.end().saturating_sub(start).min(range.end);
            match found.last_mut() {
                Some(last) if last.end >= from => last.end = last.end.max(to),
                _ if from < to => found.push(from..to),
                _ => {}
            }
        }
        let first = self
            .replayed
            .blocks
            .range(range.start.checked_div(self.replayed.block).unwrap_or(0)..);
        let replayed = first.take_while(|(n, _)| n.saturating_mul(self.replayed.block) < range.end);
        if replayed.count() > 0 {
            return Ok(vec![range]);
        }
        Ok(found)
    }

    /// The error for damage at `at`.
    pub(super) fn damaged(&self, what: impl Into<String>, at: u64) -> Error {
        Error::damaged(what)
            .with_field("file system")
            .with_offset(self.on_disk(at))
    }
}

/// Bytes that contain numbers. A missing field is damage, not zero.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    pub(super) bytes: Vec<u8>,
    /// Offset on the disk.
    pub(super) at: u64,
}

impl Fields {
    pub(super) fn part(&self, at: usize, len: usize) -> Result<&[u8]> {
        let end = at.checked_add(len);
        end.and_then(|end| self.bytes.get(at..end)).ok_or_else(|| {
            Error::damaged("a structure is shorter than its fields")
                .with_field("file system")
                .with_offset(self.at.saturating_add(at as u64))
                .with_expected(format_args!("{len} bytes more"))
        })
    }

    /// The bytes from `at` to `at + len` as separate fields.
    pub(super) fn sub(&self, at: usize, len: usize) -> Result<Self> {
        Ok(Self {
            bytes: self.part(at, len)?.to_vec(),
            at: self.at.saturating_add(at as u64),
        })
    }

    pub(super) fn u8(&self, at: usize) -> Result<u8> {
        Ok(self.part(at, 1)?.iter().fold(0, |_, byte| *byte))
    }

    pub(super) fn u16(&self, at: usize) -> Result<u16> {
        self.part(at, 2).map(LittleEndian::read_u16)
    }

    pub(super) fn u32(&self, at: usize) -> Result<u32> {
        self.part(at, 4).map(LittleEndian::read_u32)
    }

    pub(super) fn u64(&self, at: usize) -> Result<u64> {
        self.part(at, 8).map(LittleEndian::read_u64)
    }

    pub(super) fn be32(&self, at: usize) -> Result<u32> {
        self.part(at, 4).map(BigEndian::read_u32)
    }

    pub(super) fn be16(&self, at: usize) -> Result<u16> {
        self.part(at, 2).map(BigEndian::read_u16)
    }

    /// The error for damage to this structure.
    pub(super) fn damaged(&self, what: impl Into<String>) -> Error {
        Error::damaged(what)
            .with_field("file system")
            .with_offset(self.at)
    }
}

/// Returns whether an error is about the stored data, so that everything else can still be read.
pub(super) fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported)
}

/// Decodes UTF-16 little-endian; invalid characters are replaced.
pub(super) fn utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(LittleEndian::read_u16);
    char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}
