//! Reads a diff sequentially and trusts nothing: every byte is checked before the end is reported.

use std::io::{ErrorKind as IoKind, Read};
use std::path::{Path, PathBuf};

use super::format::{
    BACK_FIXED, DiffHeader, Direction, END_LEN, End, Entry, INDEX_ENTRIES, TAIL_FIXED, Totals,
    Trailer, damaged, decode_back, decode_tail, section,
};
use super::sections::{Frame, Input, SectionHeader, read_frame, read_header, read_index};
use super::stream_hasher::StreamHasher;
use crate::error::{Error, Result};
use crate::image::Hash;
use crate::page::{ChangeKind, PageRange};

/// Reads a diff from a file or a pipe.
#[derive(Debug)]
pub struct DiffReader<R> {
    input: Stream<R>,
    header: DiffHeader,
    sequence: u64,
    forward: Track,
    /// The way back, in a reversible diff.
    back: Option<Track>,
    finished: Option<(Trailer, Hash)>,
}

/// The frames of one direction that have been read.
#[derive(Debug)]
struct Track {
    /// Size of the target in this direction.
    size: u64,
    /// The end of the last frame's range.
    end: u64,
    segment: Vec<Entry>,
    root: Vec<Entry>,
    seen: Totals,
}

/// A complete diff, with what [`DiffFile`](super::DiffFile) keeps of it.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) header: DiffHeader,
    /// The roots of the index, for the way forward and the way back.
    pub(super) roots: [Vec<Entry>; 2],
    pub(super) trailer: Trailer,
    pub(super) digest: Hash,
}

impl<R: Read> DiffReader<R> {
    /// Reads the header. Messages call `reader` `name`.
    pub fn new(reader: R, name: impl Into<PathBuf>) -> Result<Self> {
        let mut input = Stream {
            reader,
            name: name.into(),
            offset: 0,
            hasher: StreamHasher::default(),
        };
        let (header, reversible) = read_header(&mut input).map_err(|e| e.with_path(&input.name))?;
        Ok(Self {
            input,
            forward: Track::new(header.target_size),
            back: reversible.then(|| Track::new(header.base_size)),
            header,
            sequence: 1,
            finished: None,
        })
    }

    /// The header.
    pub fn header(&self) -> &DiffHeader {
        &self.header
    }

    /// Returns whether the diff also contains the way from the target back to the base.
    pub fn is_reversible(&self) -> bool {
        self.back.is_some()
    }

    /// Reads the next frame of the way forward. Returns `None` when the end was reached and everything was correct,
    /// including the digest and the way back. Until then, frames are only protected by their own checksums.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        while let Some((direction, frame)) = self.next_of_both()? {
            if direction == Direction::Forward {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// As [`next_frame`](Self::next_frame), including the frames of the way back. Those of each direction are in order.
    pub fn next_of_both(&mut self) -> Result<Option<(Direction, Frame)>> {
        while self.finished.is_none() {
            let start = self.input.offset;
            let frame = self
                .section()
                .map_err(|e| e.with_path(&self.input.name).with_offset(start))?;
            if frame.is_some() {
                return Ok(frame);
            }
        }
        Ok(None)
    }

    /// The trailer and the diff's identity, after the end was reached.
    pub fn finished(&self) -> Option<&(Trailer, Hash)> {
        self.finished.as_ref()
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.input.offset
    }

    /// Returns everything except the frames, or `None` before the end.
    pub(super) fn into_verified(self) -> Option<Verified> {
        let (trailer, digest) = self.finished?;
        Some(Verified {
            header: self.header,
            roots: [
                self.forward.root,
                self.back.map(|track| track.root).unwrap_or_default(),
            ],
            trailer,
            digest,
        })
    }

    /// Reads one section: either a frame, or one that only this reader needs.
    fn section(&mut self) -> Result<Option<(Direction, Frame)>> {
        let start = self.input.offset;
        let lead = SectionHeader::read(&mut self.input)?;
        if lead.sequence != self.sequence {
            return Err(
                damaged("a section is missing, repeated or in the wrong place")
                    .with_field("sequence")
                    .with_found(lead.sequence)
                    .with_expected(self.sequence),
            );
        }
        self.sequence += 1;
        let (track, other) = match (lead.direction, &mut self.back) {
            (Direction::Forward, _) if lead.kind == section::TAIL => {
                self.tail(&lead, start)?;
                return Ok(None);
            }
            (Direction::Forward, back) => (&mut self.forward, back.as_mut()),
            (Direction::Back, Some(back)) if lead.kind != section::TAIL => {
                (back, Some(&mut self.forward))
            }
            (Direction::Back, _) => return Err(lead.unknown()),
        };
        if lead.kind == section::INDEX {
            let entries = read_index(&mut self.input, &lead)?;
            // A segment directly follows its last frame. The last ones are at the end, that of the way forward first.
            let early = other.is_some_and(|other| match lead.direction {
                _ if other.segment.len() == INDEX_ENTRIES => true,
                _ if entries.len() == INDEX_ENTRIES => other.is_closed(),
                Direction::Forward => other.is_closed(),
                Direction::Back => !other.segment.is_empty(),
            });
            if early {
                return Err(misplaced_index());
            }
            track.index(&entries, start)?;
            return Ok(None);
        }
        if other.is_some_and(|other| other.is_closed() || other.segment.len() == INDEX_ENTRIES) {
            return Err(misplaced_index());
        }
        let frame = read_frame(&mut self.input, &lead, track.size)?;
        track.count(&frame, start)?;
        Ok(Some((lead.direction, frame)))
    }

    fn tail(&mut self, lead: &SectionHeader, offset: u64) -> Result<()> {
        let mut fixed = [0; TAIL_FIXED];
        self.input.fill(&mut fixed)?;
        let mut trailer = decode_tail(&fixed).ok_or_else(|| wrong("flags"))?;
        self.forward
            .check(&mut self.input, &trailer.totals(), lead.count)?;
        if let Some(back) = &self.back {
            let mut fixed = [0; BACK_FIXED];
            self.input.fill(&mut fixed)?;
            let (count, totals) = decode_back(&fixed).ok_or_else(|| wrong("reserved"))?;
            back.check(&mut self.input, &totals, count)?;
            trailer.way_back = Some(totals);
        }
        let mut end = [0; END_LEN];
        self.input.fill(&mut end[..8])?;
        let digest = self.input.hasher.digest();
        self.input.fill(&mut end[8..])?;
        let found = End::decode(&end).ok_or_else(|| wrong("end magic"))?;
        if found.tail_offset != offset {
            return Err(wrong("tail_offset")
                .with_found(found.tail_offset)
                .with_expected(offset));
        }
        if found.digest != digest {
            return Err(damaged(
                "the digest of the diff is wrong: some byte before it was changed",
            )
            .with_field("digest"));
        }
        self.input.expect_end()?;
        self.finished = Some((trailer, digest));
        Ok(())
    }
}

impl Track {
    fn new(size: u64) -> Self {
        Self {
            size,
            end: 0,
            segment: Vec::new(),
            root: Vec::new(),
            seen: Totals::default(),
        }
    }

    /// Returns whether an incomplete index segment was read, which is the last one.
    fn is_closed(&self) -> bool {
        let indexed = self.root.len() * INDEX_ENTRIES + self.segment.len();
        self.seen.frames != indexed as u64
    }

    fn count(&mut self, frame: &Frame, offset: u64) -> Result<()> {
        let range = frame.range();
        if range.start() < self.end {
            return Err(damaged("a frame is out of order")
                .with_field("page_ranges")
                .with_found(format_args!("{range:?}"))
                .with_expected(format_args!("from {}", self.end)));
        }
        if self.segment.len() == INDEX_ENTRIES || self.is_closed() {
            return Err(misplaced_index());
        }
        self.end = range.end();
        self.segment.push(Entry { range, offset });
        self.seen.frames += 1;
        self.seen.ranges += frame.changes().len() as u64;
        self.seen.update_bytes += frame.changes().bytes(ChangeKind::Update);
        self.seen.clear_bytes += frame.changes().bytes(ChangeKind::Clear);
        self.seen.stored_bytes += frame.stored_len();
        Ok(())
    }

    fn index(&mut self, entries: &[Entry], offset: u64) -> Result<()> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Err(damaged("an index section is empty")
                .with_field("entries")
                .with_found(0));
        };
        if entries != self.segment {
            return Err(
                damaged("the index doesn't match the frames before it").with_field("entries")
            );
        }
        let range = PageRange::covering(first.range.start(), last.range.end());
        self.root.push(Entry { range, offset });
        self.segment.clear();
        Ok(())
    }

    /// Compares totals and root with what was read. Reads the root.
    fn check(&self, input: &mut impl Input, totals: &Totals, segments: u32) -> Result<()> {
        if *totals != self.seen {
            return Err(wrong("totals")
                .with_found(format_args!("{totals:?}"))
                .with_expected(format_args!("{:?}", self.seen)));
        }
        if !self.segment.is_empty() {
            return Err(misplaced_index().with_found(format_args!(
                "none that lists the last {} frames",
                self.segment.len()
            )));
        }
        if segments as usize != self.root.len() {
            return Err(wrong("segments")
                .with_found(segments)
                .with_expected(self.root.len()));
        }
        for expected in &self.root {
            let mut entry = [0; Entry::LEN];
            input.fill(&mut entry)?;
            if Entry::decode(&entry).as_ref() != Some(expected) {
                return Err(wrong("root"));
            }
        }
        Ok(())
    }
}

fn misplaced_index() -> Error {
    damaged("an index section is missing or too early")
        .with_field("entries")
        .with_expected(format_args!("{INDEX_ENTRIES} in all but the last"))
}

fn wrong(field: &str) -> Error {
    damaged("the trailer doesn't match the diff before it").with_field(field)
}

/// A reader that counts and hashes all bytes.
#[derive(Debug)]
struct Stream<R> {
    reader: R,
    name: PathBuf,
    offset: u64,
    hasher: StreamHasher,
}

impl<R: Read> Stream<R> {
    fn expect_end(&mut self) -> Result<()> {
        let mut byte = [0];
        loop {
            match self.reader.read(&mut byte) {
                Ok(0) => return Ok(()),
                Ok(_) => {
                    return Err(damaged("there is data after the end of the diff")
                        .with_offset(self.offset)
                        .with_expected("the end of the file"));
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
                    return Err(damaged("the diff is truncated")
                        .with_offset(offset)
                        .with_found("the end of the file")
                        .with_expected(format_args!(
                            "at least {} more bytes",
                            buf.len() - filled
                        )));
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

/// Passes this crate's own errors through `std::io::Read` unchanged.
fn read_error(name: &Path, offset: u64, error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::io("cannot read", error)
            .with_path(name)
            .with_offset(offset),
    }
}
