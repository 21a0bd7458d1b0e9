//! Frames: the changed pages of one window of the disk, or one long clear.

use byteorder::{BigEndian, ByteOrder};

use super::{Direction, LEAD, count, damaged, section};
use crate::error::{Error, Result};
use crate::image::{Hash, WINDOW_SIZE};
use crate::page::{Change, ChangeKind, PAGE_SIZE, PageList, PageRange};

const WINDOW_PAGES: u64 = WINDOW_SIZE / PAGE_SIZE;

/// The bit in the second half of a page range that marks a clear.
const CLEAR_BIT: u16 = 0x8000;

/// How the payload is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Stored = 0,
    Zstd = 1,
}

/// The head of a `PAGE` frame, between its section header and its page ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageHead {
    /// First byte of the window.
    pub(crate) window: u64,
    /// Total length of all updates in bytes.
    pub(crate) payload_len: u32,
    /// Their length as stored, in bytes.
    pub(crate) stored_len: u32,
    pub(crate) codec: Codec,
    /// CRC-32 of the stored bytes.
    pub(crate) payload_crc: u32,
    /// BLAKE3 of the source disk's data under the frame's ranges; zeros if that isn't known.
    pub(crate) base_hash: Hash,
}

impl PageHead {
    pub(crate) const LEN: usize = 56;

    /// Encodes the frame up to its payload.
    pub(crate) fn encode(
        &self,
        direction: Direction,
        sequence: u64,
        changes: &PageList,
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(LEAD + Self::LEN + 4 * changes.len() + 4);
        out.extend_from_slice(&direction.section(section::PAGE));
        out.extend_from_slice(&count(changes.len()));
        out.extend_from_slice(&sequence.to_be_bytes());
        out.extend_from_slice(&self.window.to_be_bytes());
        out.extend_from_slice(&self.payload_len.to_be_bytes());
        out.extend_from_slice(&self.stored_len.to_be_bytes());
        out.extend_from_slice(&[self.codec as u8, 0, 0, 0]);
        out.extend_from_slice(&self.payload_crc.to_be_bytes());
        out.extend_from_slice(&self.base_hash);
        for change in changes {
            let first = (change.range.start() - self.window) / PAGE_SIZE;
            let clear = if change.kind == ChangeKind::Clear {
                CLEAR_BIT
            } else {
                0
            };
            out.extend_from_slice(&half(first, 0));
            out.extend_from_slice(&half(change.range.pages() - 1, clear));
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        out
    }

    pub(crate) fn decode(b: &[u8; Self::LEN]) -> Result<Self> {
        let codec = match b[16] {
            0 => Codec::Stored,
            1 => Codec::Zstd,
            other => {
                return Err(
                    Error::unsupported("the payload is compressed with an unknown method")
                        .with_field("codec")
                        .with_found(other)
                        .with_expected("0 (stored) or 1 (zstd)")
                        .with_hint("use the program that wrote the diff, or a newer vhdkit"),
                );
            }
        };
        let head = Self {
            window: BigEndian::read_u64(b),
            payload_len: BigEndian::read_u32(&b[8..]),
            stored_len: BigEndian::read_u32(&b[12..]),
            codec,
            payload_crc: BigEndian::read_u32(&b[20..]),
            base_hash: b[24..].try_into().unwrap_or_default(),
        };
        if !head.window.is_multiple_of(WINDOW_SIZE) {
            return Err(damaged("a window has an unaligned start")
                .with_field("window")
                .with_found(head.window)
                .with_expected(format_args!("a multiple of {WINDOW_SIZE}")));
        }
        let fits = match codec {
            Codec::Stored => head.stored_len == head.payload_len,
            Codec::Zstd => head.stored_len < head.payload_len,
        };
        if !fits || u64::from(head.payload_len) > WINDOW_SIZE || b[17..20] != [0; 3] {
            return Err(damaged("a frame's lengths are impossible")
                .with_field("payload_len, stored_len")
                .with_found(format_args!(
                    "{}, {}, codec {}",
                    head.payload_len, head.stored_len, codec as u8
                )));
        }
        Ok(head)
    }
}

/// Encodes half of a page range: a number below [`WINDOW_PAGES`], and the bit for a clear.
fn half(pages: u64, bit: u16) -> [u8; 2] {
    (u16::try_from(pages).unwrap_or(u16::MAX) | bit).to_be_bytes()
}

/// Decodes the page ranges of a `PAGE` frame, which must be in order, joined, without overlap, within the window and
/// the target, and whose updates must add up to the payload's length.
pub(crate) fn decode_ranges(bytes: &[u8], head: &PageHead, target_size: u64) -> Result<PageList> {
    let bad = |found: std::fmt::Arguments<'_>| {
        damaged("a frame's page ranges are impossible")
            .with_field("page_ranges")
            .with_found(found)
    };
    let mut list = PageList::new();
    let (entries, _) = bytes.as_chunks::<4>();
    for entry in entries {
        let first = u64::from(BigEndian::read_u16(entry));
        let second = BigEndian::read_u16(&entry[2..]);
        let pages = u64::from(second & !CLEAR_BIT) + 1;
        let kind = if second & CLEAR_BIT == 0 {
            ChangeKind::Update
        } else {
            ChangeKind::Clear
        };
        // Numbers of pages are checked before they are converted to bytes, so that the sums can't overflow.
        let room = target_size.saturating_sub(head.window) / PAGE_SIZE;
        if first + pages > room.min(WINDOW_PAGES) {
            return Err(bad(format_args!(
                "{pages} pages from page {first} of the window at {}, beyond its end or the disk's",
                head.window
            )));
        }
        let range = PageRange::from_len(head.window + first * PAGE_SIZE, pages * PAGE_SIZE)?;
        list.push(Change { range, kind })
            .map_err(|_| bad(format_args!("{range:?}, out of order")))?;
    }
    if list.len() != entries.len() || list.is_empty() {
        return Err(bad(format_args!(
            "{} ranges that are {}",
            entries.len(),
            list.len()
        )));
    }
    let updates = list.bytes(ChangeKind::Update);
    if updates != u64::from(head.payload_len) {
        return Err(bad(format_args!(
            "updates of {updates} bytes with a payload of {}",
            head.payload_len
        )));
    }
    Ok(list)
}

/// A `CLER` frame: one clear of any length, from one multiple of the window size to another or to the end of the
/// target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClearHead {
    pub(crate) range: PageRange,
    /// BLAKE3 of the BLAKE3 hashes of the base's windows under the clear; zeros if that isn't known.
    pub(crate) base_hash: Hash,
}

impl ClearHead {
    pub(crate) const LEN: usize = 52;

    pub(crate) fn encode(&self, direction: Direction, sequence: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(LEAD + Self::LEN);
        out.extend_from_slice(&direction.section(section::CLEAR));
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&sequence.to_be_bytes());
        out.extend_from_slice(&self.range.start().to_be_bytes());
        out.extend_from_slice(&self.range.len().to_be_bytes());
        out.extend_from_slice(&self.base_hash);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        out
    }

    /// Decodes the bytes after the section header. The caller checks the checksum.
    pub(crate) fn decode(b: &[u8; Self::LEN], target_size: u64) -> Result<Self> {
        let (start, len) = (BigEndian::read_u64(b), BigEndian::read_u64(&b[8..]));
        let end = start
            .checked_add(len)
            .filter(|end| *end <= target_size && len > 0 && start % WINDOW_SIZE == 0);
        let whole = |end: &u64| end.is_multiple_of(WINDOW_SIZE) || *end == target_size;
        let range = end
            .filter(whole)
            .and_then(|end| PageRange::new(start, end))
            .ok_or_else(|| {
                damaged("a long clear has an impossible range")
                    .with_field("start, length")
                    .with_found(format_args!("{start}, {len}"))
                    .with_expected(format_args!(
                        "multiples of {WINDOW_SIZE} within {target_size} bytes"
                    ))
            })?;
        Ok(Self {
            range,
            base_hash: b[16..48].try_into().unwrap_or_default(),
        })
    }
}
