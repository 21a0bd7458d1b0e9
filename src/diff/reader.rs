//! Reads a diff front to back and believes nothing: every byte is checked before the end is reported.

use std::io::{ErrorKind as IoKind, Read};
use std::path::{Path, PathBuf};

use byteorder::{BigEndian, ByteOrder};

use super::format::{
    ClearHead, Codec, DiffHeader, END_LEN, End, Entry, HEAD_FIXED, INDEX_ENTRIES, LEAD, PageHead,
    TAIL_FIXED, Trailer, damaged, decode_index, decode_ranges, decode_tail, section,
};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Hash, WINDOW_SIZE};
use crate::page::{Change, ChangeKind, PAGE_SIZE, PageList, PageRange};

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
    stored: Vec<u8>,
}

impl Frame {
    /// The page ranges, in order.
    pub fn changes(&self) -> &PageList {
        &self.changes
    }

    /// From the first changed byte to the last.
    pub fn range(&self) -> PageRange {
        self.changes.span().unwrap_or_default()
    }

    /// BLAKE3 of the base's bytes under the page ranges; for a long clear, of the hashes of its windows. `None`
    /// if they were never read.
    pub fn base_hash(&self) -> Option<&Hash> {
        self.base_hash.as_ref()
    }

    /// Whether this is one clear that may span many windows.
    pub fn is_long_clear(&self) -> bool {
        self.payload.is_none()
    }

    /// Bytes of the payload as stored.
    pub fn stored_len(&self) -> u64 {
        self.payload.as_ref().map_or(0, |p| p.stored.len() as u64)
    }

    /// The data of all updates, in order, one after another.
    pub fn unpack(self) -> Result<Vec<u8>> {
        let range = self.range();
        let bad = |message| damaged(message).field(format!("payload for {range:?} of the disk"));
        let Some(Payload { codec, len, stored }) = self.payload else {
            return Ok(Vec::new());
        };
        match codec {
            Codec::Stored => Ok(stored),
            Codec::Zstd => {
                // Exactly one zstd frame: the library alone would take several, which other readers don't.
                let one = zstd::zstd_safe::find_frame_compressed_size(&stored);
                if one != Ok(stored.len()) {
                    return Err(bad("a frame's payload isn't one whole zstd frame"));
                }
                let bytes = zstd::bulk::decompress(&stored, len)
                    .map_err(|e| bad("a frame's payload can't be unpacked").source(e))?;
                if bytes.len() == len {
                    return Ok(bytes);
                }
                Err(bad("a frame's payload is shorter than it should be")
                    .found(format_args!("{} bytes", bytes.len()))
                    .expected(format_args!("{len} bytes")))
            }
        }
    }
}

/// Bytes in order.
pub(super) trait Input {
    fn fill(&mut self, buf: &mut [u8]) -> Result<()>;
}

/// Reads a diff from a file or a pipe.
#[derive(Debug)]
pub struct DiffReader<R> {
    input: Stream<R>,
    header: DiffHeader,
    sequence: u64,
    /// The end of the last frame's range.
    end: u64,
    segment: Vec<Entry>,
    root: Vec<Entry>,
    seen: Trailer,
    finished: Option<(Trailer, Hash)>,
}

impl<R: Read> DiffReader<R> {
    /// Reads the header. Messages about `reader` call it `name`.
    pub fn new(reader: R, name: impl Into<PathBuf>) -> Result<Self> {
        let mut input = Stream {
            reader,
            name: name.into(),
            offset: 0,
            hasher: blake3::Hasher::new(),
        };
        let header = read_header(&mut input).map_err(|e| e.path(&input.name))?;
        Ok(Self {
            input,
            header,
            sequence: 1,
            end: 0,
            segment: Vec::new(),
            root: Vec::new(),
            seen: Trailer::default(),
            finished: None,
        })
    }

    /// What the diff turns into what.
    pub fn header(&self) -> &DiffHeader {
        &self.header
    }

    /// The next frame, or `None` when the end was reached and everything, the digest included, was right.
    /// Until then frames are only as good as their own checksums.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        while self.finished.is_none() {
            let start = self.input.offset;
            let frame = self
                .section()
                .map_err(|e| e.path(&self.input.name).offset(start))?;
            if frame.is_some() {
                return Ok(frame);
            }
        }
        Ok(None)
    }

    /// Totals and digests, and the diff's identity; after the end.
    pub fn finished(&self) -> Option<&(Trailer, Hash)> {
        self.finished.as_ref()
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.input.offset
    }

    /// The root of the index; after the end.
    pub(super) fn into_parts(self) -> (DiffHeader, Vec<Entry>, Option<(Trailer, Hash)>) {
        (self.header, self.root, self.finished)
    }

    /// Reads one section: a frame, or something that only this reader needs.
    fn section(&mut self) -> Result<Option<Frame>> {
        let start = self.input.offset;
        let lead = Lead::read(&mut self.input)?;
        if lead.sequence != self.sequence {
            return Err(
                damaged("a section is missing, repeated or in the wrong place")
                    .field("sequence")
                    .found(lead.sequence)
                    .expected(self.sequence),
            );
        }
        self.sequence += 1;
        match lead.kind {
            section::INDEX => self.index(&lead, start)?,
            section::TAIL => self.tail(&lead, start)?,
            _ => {
                let frame = read_frame(&mut self.input, &lead, self.header.target_size)?;
                self.count(&frame, start)?;
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    fn count(&mut self, frame: &Frame, offset: u64) -> Result<()> {
        let range = frame.range();
        if range.start() < self.end {
            return Err(damaged("a frame lies before the one it follows")
                .field("page_ranges")
                .found(format_args!("{range:?}"))
                .expected(format_args!("from {}", self.end)));
        }
        let indexed = self.root.len() * INDEX_ENTRIES + self.segment.len();
        if self.segment.len() == INDEX_ENTRIES || self.seen.frames != indexed as u64 {
            return Err(damaged("an index section is missing or too early")
                .field("entries")
                .expected(format_args!("{INDEX_ENTRIES} in all but the last")));
        }
        self.end = range.end();
        self.segment.push(Entry { range, offset });
        self.seen.frames += 1;
        self.seen.ranges += frame.changes.len() as u64;
        self.seen.update_bytes += frame.changes.bytes(ChangeKind::Update);
        self.seen.clear_bytes += frame.changes.bytes(ChangeKind::Clear);
        self.seen.stored_bytes += frame.stored_len();
        Ok(())
    }

    fn index(&mut self, lead: &Lead, offset: u64) -> Result<()> {
        let entries = read_index(&mut self.input, lead)?;
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Err(damaged("an index section is empty")
                .field("entries")
                .found(0));
        };
        if entries != self.segment {
            return Err(damaged("the index doesn't match the frames before it").field("entries"));
        }
        let range = PageRange::new(first.range.start(), last.range.end()).unwrap_or_default();
        self.root.push(Entry { range, offset });
        self.segment.clear();
        Ok(())
    }

    fn tail(&mut self, lead: &Lead, offset: u64) -> Result<()> {
        let wrong =
            |field: &str| damaged("the trailer doesn't match the diff before it").field(field);
        let mut fixed = [0; TAIL_FIXED];
        self.input.fill(&mut fixed)?;
        let trailer = decode_tail(&fixed).ok_or_else(|| wrong("flags"))?;
        let seen = Trailer {
            base_digest: trailer.base_digest,
            target_digest: trailer.target_digest,
            ..self.seen
        };
        if trailer != seen {
            return Err(wrong("totals")
                .found(format_args!("{trailer:?}"))
                .expected(format_args!("{seen:?}")));
        }
        if !self.segment.is_empty() || lead.count as usize != self.root.len() {
            return Err(wrong("segments")
                .found(lead.count)
                .expected(self.root.len()));
        }
        for expected in &self.root {
            let mut entry = [0; Entry::LEN];
            self.input.fill(&mut entry)?;
            if Entry::decode(&entry).as_ref() != Some(expected) {
                return Err(wrong("root"));
            }
        }
        let mut end = [0; END_LEN];
        self.input.fill(&mut end[..8])?;
        let digest = *self.input.hasher.finalize().as_bytes();
        self.input.fill(&mut end[8..])?;
        let found = End::decode(&end).ok_or_else(|| wrong("end magic"))?;
        if found.tail_offset != offset {
            return Err(wrong("tail_offset")
                .found(found.tail_offset)
                .expected(offset));
        }
        if found.digest != digest {
            return Err(damaged(
                "the digest of the diff is wrong: some byte before it was changed",
            )
            .field("digest"));
        }
        self.input.expect_end()?;
        self.finished = Some((trailer, digest));
        Ok(())
    }
}

/// What every section but the header begins with.
#[derive(Debug)]
pub(super) struct Lead {
    kind: [u8; 4],
    count: u32,
    sequence: u64,
    bytes: [u8; LEAD],
}

impl Lead {
    pub(super) fn read(input: &mut impl Input) -> Result<Self> {
        let mut bytes = [0; LEAD];
        input.fill(&mut bytes)?;
        let [a, b, c, d, ..] = bytes;
        Ok(Self {
            kind: [a, b, c, d],
            count: BigEndian::read_u32(&bytes[4..]),
            sequence: BigEndian::read_u64(&bytes[8..]),
            bytes,
        })
    }
}

fn read_header(input: &mut impl Input) -> Result<DiffHeader> {
    let mut fixed = [0; HEAD_FIXED];
    // The magic first: a short file that is no diff should be called that, not a diff that was cut off. Trouble
    // with reading stays what it is.
    input
        .fill(&mut fixed[..8])
        .and_then(|()| input.fill(&mut fixed[8..]))
        .map_err(|error| {
            let read = error.at().map_or(0, |at| at.min(8) as usize);
            match DiffHeader::length(&fixed) {
                Err(no_diff)
                    if error.kind() == ErrorKind::Damaged
                        && !super::MAGIC.starts_with(&fixed[..read]) =>
                {
                    no_diff
                }
                _ => error,
            }
        })?;
    let mut bytes = fixed.to_vec();
    bytes.resize(DiffHeader::length(&fixed)?, 0);
    input.fill(&mut bytes[HEAD_FIXED..])?;
    DiffHeader::decode(&bytes)
}

/// Reads what follows the lead of a frame.
pub(super) fn read_frame(input: &mut impl Input, lead: &Lead, target_size: u64) -> Result<Frame> {
    match lead.kind {
        section::PAGE => read_pages(input, lead, target_size),
        section::CLEAR => read_clear(input, lead, target_size),
        other => Err(Error::unsupported(
            "the diff has a section of a kind that this program doesn't know",
        )
        .field("type")
        .found(format_args!("{:?}", other.escape_ascii().to_string()))
        .expected("PAGE, CLER, INDX or TAIL")
        .hint("get the diff again from its source; if it is whole, use the program that wrote it")),
    }
}

fn read_pages(input: &mut impl Input, lead: &Lead, target_size: u64) -> Result<Frame> {
    let mut fixed = [0; PageHead::LEN];
    input.fill(&mut fixed)?;
    let count = lead.count as usize;
    if !(1..=(WINDOW_SIZE / PAGE_SIZE) as usize).contains(&count) {
        return Err(damaged("a frame has an impossible number of page ranges")
            .field("ranges")
            .found(count));
    }
    let mut ranges = vec![0; 4 * count + 4];
    input.fill(&mut ranges)?;
    let (ranges, crc) = ranges.split_at(4 * count);
    check_crc("header_crc32", &[&lead.bytes, &fixed, ranges], crc)?;
    let head = PageHead::decode(&fixed)?;
    let changes = decode_ranges(ranges, &head, target_size)?;
    let mut stored = vec![0; head.stored_len as usize];
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

fn read_clear(input: &mut impl Input, lead: &Lead, target_size: u64) -> Result<Frame> {
    let mut fixed = [0; ClearHead::LEN];
    input.fill(&mut fixed)?;
    let (fields, crc) = fixed.split_at(ClearHead::LEN - 4);
    check_crc("header_crc32", &[&lead.bytes, fields], crc)?;
    if lead.count != 0 {
        return Err(damaged("a long clear has page ranges")
            .field("ranges")
            .found(lead.count)
            .expected(0));
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

/// Reads what follows the lead of an index section.
pub(super) fn read_index(input: &mut impl Input, lead: &Lead) -> Result<Vec<Entry>> {
    let count = lead.count as usize;
    if lead.kind != section::INDEX || count > INDEX_ENTRIES {
        return Err(damaged("an index section has an impossible length")
            .field("entries")
            .found(count));
    }
    let mut bytes = vec![0; Entry::LEN * count + 4];
    input.fill(&mut bytes)?;
    let (entries, crc) = bytes.split_at(Entry::LEN * count);
    check_crc("index_crc32", &[&lead.bytes, entries], crc)?;
    decode_index(entries)
        .ok_or_else(|| damaged("the index has an impossible range").field("entries"))
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
        .field(field)
        .found(format_args!("{found:#010x}"))
        .expected(format_args!("{computed:#010x}")))
}

/// A reader that counts and hashes what passes.
#[derive(Debug)]
struct Stream<R> {
    reader: R,
    name: PathBuf,
    offset: u64,
    hasher: blake3::Hasher,
}

impl<R: Read> Stream<R> {
    fn expect_end(&mut self) -> Result<()> {
        let mut byte = [0];
        loop {
            match self.reader.read(&mut byte) {
                Ok(0) => return Ok(()),
                Ok(_) => {
                    return Err(damaged("there is something behind the end of the diff")
                        .offset(self.offset)
                        .expected("the end of the file"));
                }
                Err(e) if e.kind() == IoKind::Interrupted => {}
                Err(e) => return Err(read_error(&self.name, self.offset, e)),
            }
        }
    }
}

impl<R: Read> Input for Stream<R> {
    fn fill(&mut self, buf: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.reader.read(&mut buf[filled..]) {
                Ok(0) => {
                    let offset = self.offset + filled as u64;
                    return Err(damaged("the diff was cut off")
                        .offset(offset)
                        .found("the end of the file")
                        .expected(format_args!("at least {} more bytes", buf.len() - filled)));
                }
                Ok(n) => filled += n,
                Err(e) if e.kind() == IoKind::Interrupted => {}
                Err(e) => return Err(read_error(&self.name, self.offset, e)),
            }
        }
        self.hasher.update(buf);
        self.offset += buf.len() as u64;
        Ok(())
    }
}

/// Our own errors pass through `std::io::Read` unchanged.
fn read_error(name: &Path, offset: u64, error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::io("cannot read", error).path(name).offset(offset),
    }
}
