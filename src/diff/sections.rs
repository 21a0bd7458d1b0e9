//! Reads single sections of a diff, from a stream or at an offset, and verifies each by itself.

use byteorder::{BigEndian, ByteOrder};

use super::format::{
    ClearHead, Codec, DiffHeader, Direction, Entry, HEAD_FIXED, INDEX_ENTRIES, LEAD, MAGIC,
    PageHead, TAIL_FIXED, Trailer, damaged, decode_index, decode_ranges, decode_tail, section,
};
use super::pack::PackedFrame;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Hash, MAX_VIRTUAL_SIZE, WINDOW_SIZE};
use crate::page::{Change, ChangeKind, PAGE_SIZE, PageList, PageRange};
use crate::parallel::Bytes;

/// The changed pages of one window of the disk, or one long clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    changes: PageList,
    base_hash: Option<Hash>,
    /// `None` for a long clear.
    payload: Option<Payload>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Payload {
    codec: Codec,
    len: usize,
    stored: Bytes,
}

impl Frame {
    /// Converts the frame for another diff without unpacking it. Returns `None` for a long clear.
    pub(super) fn into_packed(self) -> Option<PackedFrame> {
        let Payload { codec, len, stored } = self.payload?;
        let start = self.changes.span()?.start();
        let head = PageHead {
            window: start - start % WINDOW_SIZE,
            payload_len: u32::try_from(len).ok()?,
            stored_len: u32::try_from(stored.len()).ok()?,
            codec,
            payload_crc: crc32fast::hash(&stored),
            base_hash: self.base_hash.unwrap_or_default(),
        };
        Some(PackedFrame {
            head,
            changes: self.changes,
            stored,
        })
    }

    /// The page ranges, in order.
    pub fn changes(&self) -> &PageList {
        &self.changes
    }

    /// From the first changed byte to the last.
    pub fn range(&self) -> PageRange {
        self.changes.span().unwrap_or_default()
    }

    /// BLAKE3 of the base's data under the page ranges (on the way back, of the target's); for a long clear, of the
    /// hashes of its windows. `None` if it wasn't recorded.
    pub fn base_hash(&self) -> Option<&Hash> {
        self.base_hash.as_ref()
    }

    /// Returns whether this is one clear that may span many windows.
    pub fn is_long_clear(&self) -> bool {
        self.payload.is_none()
    }

    /// Whether it clears any page.
    pub(super) fn clears(&self) -> bool {
        let mut changes = self.changes.iter();
        changes.any(|change| change.kind == ChangeKind::Clear)
    }

    /// Length of the payload as stored, in bytes.
    pub fn stored_len(&self) -> u64 {
        self.payload.as_ref().map_or(0, |p| p.stored.len() as u64)
    }

    /// Unpacks the data of all updates, concatenated in order.
    pub fn unpack(self) -> Result<Bytes> {
        let range = self.range();
        match self.payload {
            None => Ok(Bytes::new()),
            Some(payload) if payload.codec == Codec::Stored => Ok(payload.stored),
            Some(payload) => payload.unzip(range),
        }
    }

    /// Fails if [`unpack`](Self::unpack) would fail. For frames that are passed on unchanged.
    pub fn check_payload(&self) -> Result<()> {
        match &self.payload {
            Some(payload) if payload.codec == Codec::Zstd => payload.unzip(self.range()).map(drop),
            _ => Ok(()),
        }
    }
}

impl Payload {
    /// Decompresses the payload. `range` is for messages.
    fn unzip(&self, range: PageRange) -> Result<Bytes> {
        let bad =
            |message| damaged(message).with_field(format!("payload for {range:?} of the disk"));
        let (stored, len) = (&self.stored, self.len);
        // Exactly one zstd frame: the library alone would take several, which other readers don't.
        let one = zstd::zstd_safe::find_frame_compressed_size(stored);
        if one != Ok(stored.len()) {
            return Err(bad("a frame's payload isn't one whole zstd frame"));
        }
        let mut bytes = Bytes::zeroed(len);
        let written = zstd::bulk::decompress_to_buffer(stored, &mut bytes)
            .map_err(|e| bad("a frame's payload can't be unpacked").with_source(e))?;
        if written == len {
            return Ok(bytes);
        }
        Err(bad("a frame's payload is shorter than it should be")
            .with_found(format_args!("{written} bytes"))
            .with_expected(format_args!("{len} bytes")))
    }
}

/// Reads the trailer at `input`, up to the digest of everything before it: the totals, and the root of the index, which
/// has at most `most` entries.
pub(super) fn read_tail(input: &mut impl Input, most: u64) -> Result<(Trailer, Vec<Entry>)> {
    let lead = SectionHeader::read(input)?;
    if lead.kind != section::TAIL {
        return Err(damaged("the trailer is not where it should be").with_field("tail_offset"));
    }
    let mut fixed = [0; TAIL_FIXED];
    input.fill(&mut fixed)?;
    let trailer = decode_tail(&fixed).ok_or_else(|| damaged("the trailer is impossible"))?;
    Ok((trailer, read_root(input, lead.count, most)?))
}

/// Reads a root of the index with `count` entries, which must be at most `most`.
pub(super) fn read_root(input: &mut impl Input, count: u32, most: u64) -> Result<Vec<Entry>> {
    if u64::from(count) > most.min(ROOT_MAX) {
        return Err(
            damaged("the root of the index doesn't fit into the trailer").with_field("segments"),
        );
    }
    let mut bytes = vec![0; Entry::LEN * count as usize];
    input.fill(&mut bytes)?;
    decode_index(&bytes)
        .filter(|root| {
            let mut pairs = root.iter().zip(root.iter().skip(1));
            pairs.all(|(a, b)| a.range.end() <= b.range.start() && a.offset < b.offset)
        })
        .ok_or_else(|| damaged("the root of the index is impossible").with_field("root"))
}

/// The most segments of an index: those of a disk of 1 PiB, with 4096 windows in each.
const ROOT_MAX: u64 = MAX_VIRTUAL_SIZE / WINDOW_SIZE / INDEX_ENTRIES as u64 + 1;

/// Sequential input.
pub(super) trait Input {
    fn fill(&mut self, buf: &mut [u8]) -> Result<()>;
}

/// The header with which every section except HEAD begins.
#[derive(Debug)]
pub(super) struct SectionHeader {
    pub(super) direction: Direction,
    /// The type, converted to the forward direction.
    pub(super) kind: [u8; 4],
    pub(super) count: u32,
    pub(super) sequence: u64,
    bytes: [u8; LEAD],
}

impl SectionHeader {
    pub(super) fn read(input: &mut impl Input) -> Result<Self> {
        let mut bytes = [0; LEAD];
        input.fill(&mut bytes)?;
        let [a, b, c, d, ..] = bytes;
        let (direction, kind) = Direction::of([a, b, c, d]);
        Ok(Self {
            direction,
            kind,
            count: BigEndian::read_u32(&bytes[4..]),
            sequence: BigEndian::read_u64(&bytes[8..]),
            bytes,
        })
    }

    /// The error for a section of this type.
    pub(super) fn unknown(&self) -> Error {
        let [a, b, c, d, ..] = self.bytes;
        Error::unsupported("the diff has a section of an unknown type")
            .with_field("type")
            .with_found(format_args!("\"{}\"", [a, b, c, d].escape_ascii()))
            .with_expected("PAGE, CLER, INDX or TAIL")
            .with_hint(
                "get the diff again from its source; if it is whole, use the program that wrote it",
            )
    }
}

/// Reads the header. Also returns whether the diff is reversible.
pub(super) fn read_header(input: &mut impl Input) -> Result<(DiffHeader, bool)> {
    let mut fixed = [0; HEAD_FIXED];
    // The magic bytes come first: a short file that isn't a diff should be reported as such, not as a truncated diff.
    // Read errors are passed on.
    input
        .fill(&mut fixed[..8])
        .and_then(|()| input.fill(&mut fixed[8..]))
        .map_err(|error| {
            let read = error.offset().map_or(0, |at| at.min(8) as usize);
            match DiffHeader::length(&fixed) {
                Err(no_diff)
                    if error.kind() == ErrorKind::Damaged && !MAGIC.starts_with(&fixed[..read]) =>
                {
                    no_diff
                }
                _ => error,
            }
        })?;
    let mut bytes = fixed.to_vec();
    bytes.resize(DiffHeader::length(&fixed)?, 0);
    input.fill(&mut bytes[HEAD_FIXED..])?;
    Ok((
        DiffHeader::decode(&bytes)?,
        DiffHeader::is_reversible(&fixed),
    ))
}

/// Reads the part of a frame after its section header. `target_size` is the size of the disk it leads to.
pub(super) fn read_frame(
    input: &mut impl Input,
    lead: &SectionHeader,
    target_size: u64,
) -> Result<Frame> {
    match lead.kind {
        section::PAGE => read_pages(input, lead, target_size),
        section::CLEAR => read_clear(input, lead, target_size),
        _ => Err(lead.unknown()),
    }
}

/// Reads the changes of a frame, without its payload.
pub(super) fn read_changes(
    input: &mut impl Input,
    lead: &SectionHeader,
    target_size: u64,
) -> Result<PageList> {
    if lead.kind == section::PAGE {
        return read_page_head(input, lead, target_size).map(|(_, changes)| changes);
    }
    read_frame(input, lead, target_size).map(|frame| frame.changes)
}

fn read_page_head(
    input: &mut impl Input,
    lead: &SectionHeader,
    target_size: u64,
) -> Result<(PageHead, PageList)> {
    let mut fixed = [0; PageHead::LEN];
    input.fill(&mut fixed)?;
    let count = lead.count as usize;
    if !(1..=(WINDOW_SIZE / PAGE_SIZE) as usize).contains(&count) {
        return Err(damaged("a frame has an impossible number of page ranges")
            .with_field("ranges")
            .with_found(count));
    }
    let mut ranges = vec![0; 4 * count + 4];
    input.fill(&mut ranges)?;
    let (ranges, crc) = ranges.split_at(4 * count);
    check_crc("header_crc32", &[&lead.bytes, &fixed, ranges], crc)?;
    let head = PageHead::decode(&fixed)?;
    let changes = decode_ranges(ranges, &head, target_size)?;
    Ok((head, changes))
}

fn read_pages(input: &mut impl Input, lead: &SectionHeader, target_size: u64) -> Result<Frame> {
    let (head, changes) = read_page_head(input, lead, target_size)?;
    let mut stored = Bytes::zeroed(head.stored_len as usize);
    input.fill(&mut stored)?;
    check_crc("payload_crc32", &[&stored], &head.payload_crc.to_be_bytes())?;
    let payload = Some(Payload {
        codec: head.codec,
        len: head.payload_len as usize,
        stored,
    });
    Ok(Frame {
        changes,
        base_hash: known(head.base_hash),
        payload,
    })
}

fn read_clear(input: &mut impl Input, lead: &SectionHeader, target_size: u64) -> Result<Frame> {
    let mut fixed = [0; ClearHead::LEN];
    input.fill(&mut fixed)?;
    let (fields, crc) = fixed.split_at(ClearHead::LEN - 4);
    check_crc("header_crc32", &[&lead.bytes, fields], crc)?;
    if lead.count != 0 {
        return Err(damaged("a long clear has page ranges")
            .with_field("ranges")
            .with_found(lead.count)
            .with_expected(0));
    }
    let head = ClearHead::decode(&fixed, target_size)?;
    let mut changes = PageList::new();
    changes.push(Change {
        range: head.range,
        kind: ChangeKind::Clear,
    })?;
    Ok(Frame {
        changes,
        base_hash: known(head.base_hash),
        payload: None,
    })
}

/// Reads the part of an index section after its section header.
pub(super) fn read_index(input: &mut impl Input, lead: &SectionHeader) -> Result<Vec<Entry>> {
    let count = lead.count as usize;
    if lead.kind != section::INDEX || count > INDEX_ENTRIES {
        return Err(damaged("an index section has an impossible length")
            .with_field("entries")
            .with_found(count));
    }
    let mut bytes = vec![0; Entry::LEN * count + 4];
    input.fill(&mut bytes)?;
    let (entries, crc) = bytes.split_at(Entry::LEN * count);
    check_crc("index_crc32", &[&lead.bytes, entries], crc)?;
    decode_index(entries)
        .ok_or_else(|| damaged("the index has an impossible range").with_field("entries"))
}

fn known(hash: Hash) -> Option<Hash> {
    (hash != [0; 32]).then_some(hash)
}

fn check_crc(field: &str, parts: &[&[u8]], found: &[u8]) -> Result<()> {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let (computed, found) = (hasher.finalize(), BigEndian::read_u32(found));
    if computed == found {
        return Ok(());
    }
    Err(damaged("a checksum is wrong")
        .with_field(field)
        .with_found(format_args!("{found:#010x}"))
        .with_expected(format_args!("{computed:#010x}")))
}
