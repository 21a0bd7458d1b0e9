//! Writes a diff sequentially to a file or a pipe, in bounded memory.

use std::io::Write;
use std::path::PathBuf;

use super::format::{
    ClearHead, DiffHeader, Direction, Entry, INDEX_ENTRIES, Totals, Trailer, encode_header,
    encode_index, encode_tail, finish_tail,
};
use super::pack::PackedFrame;
use super::stream_hasher::StreamHasher;
use crate::error::{Error, Result};
use crate::image::{ContentDigest, Hash, WINDOW_SIZE};
use crate::page::{ChangeKind, PageRange};

/// Writes a diff to `out`.
#[derive(Debug)]
pub struct DiffWriter<W> {
    sections: SectionWriter<W>,
    forward: Track,
    /// The way back, in a reversible diff.
    back: Option<Track>,
}

/// Writes sections in order, counting and hashing them.
#[derive(Debug)]
struct SectionWriter<W> {
    out: W,
    name: PathBuf,
    digest: StreamHasher,
    offset: u64,
    sequence: u64,
}

/// The frames of one direction.
#[derive(Debug)]
struct Track {
    direction: Direction,
    /// Size of the target in this direction.
    size: u64,
    /// The end of the last frame's range.
    end: u64,
    clear: Option<PendingClear>,
    segment: Vec<Entry>,
    root: Vec<Entry>,
    totals: Totals,
}

/// A finished diff.
#[derive(Debug)]
pub struct FinishedDiff<W> {
    /// The writer.
    pub out: W,
    /// Totals and digests.
    pub trailer: Trailer,
    /// The identity: the digest of all bytes before the digest itself.
    pub digest: Hash,
    /// The length in bytes.
    pub len: u64,
}

/// A clear of whole windows that may still grow.
#[derive(Debug)]
struct PendingClear {
    range: PageRange,
    hasher: blake3::Hasher,
    known: bool,
}

impl<W: Write> DiffWriter<W> {
    /// Begins a diff. Messages call `out` `name`.
    pub fn new(out: W, name: impl Into<PathBuf>, header: &DiffHeader) -> Result<Self> {
        Self::begin(out, name.into(), header, false)
    }

    /// Begins a diff that also leads from the target back to the base, by the frames that are added with
    /// [`push_back`](Self::push_back).
    pub fn reversible(out: W, name: impl Into<PathBuf>, header: &DiffHeader) -> Result<Self> {
        Self::begin(out, name.into(), header, true)
    }

    fn begin(out: W, name: PathBuf, header: &DiffHeader, reversible: bool) -> Result<Self> {
        let mut writer = Self {
            sections: SectionWriter {
                out,
                name,
                digest: StreamHasher::default(),
                offset: 0,
                sequence: 1,
            },
            forward: Track::new(Direction::Forward, header.target_size),
            back: reversible.then(|| Track::new(Direction::Back, header.base_size)),
        };
        let bytes = encode_header(header, reversible)?;
        writer.sections.write(&bytes)?;
        Ok(writer)
    }

    /// Adds the changes of one window. Windows must be in ascending order.
    pub fn push(&mut self, frame: &PackedFrame) -> Result<()> {
        self.forward.push(&mut self.sections, frame)
    }

    /// Adds the changes that turn one window of the target back into that of the base. Windows must be in ascending
    /// order.
    pub fn push_back(&mut self, frame: &PackedFrame) -> Result<()> {
        match &mut self.back {
            Some(back) => back.push(&mut self.sections, frame),
            None => Err(Error::usage("this diff was not begun as a reversible one")),
        }
    }

    /// Adds a clear of any number of whole windows. `base_hash` is the hash for the whole clear.
    pub(super) fn push_long_clear(
        &mut self,
        direction: Direction,
        range: PageRange,
        base_hash: Option<Hash>,
    ) -> Result<()> {
        match (direction, &mut self.back) {
            (Direction::Back, Some(back)) => {
                back.push_long_clear(&mut self.sections, range, base_hash)
            }
            _ => self
                .forward
                .push_long_clear(&mut self.sections, range, base_hash),
        }
    }

    /// Ends the diff.
    pub fn finish(
        mut self,
        base_digest: Option<ContentDigest>,
        target_digest: Option<ContentDigest>,
    ) -> Result<FinishedDiff<W>> {
        let out = &mut self.sections;
        for track in [Some(&mut self.forward), self.back.as_mut()]
            .into_iter()
            .flatten()
        {
            track.flush_clear(out)?;
        }
        self.forward.flush_segment(out)?;
        self.back
            .as_mut()
            .map_or(Ok(()), |back| back.flush_segment(out))?;
        let mut trailer = Trailer::new(self.forward.totals, base_digest, target_digest);
        trailer.way_back = self.back.as_ref().map(|back| back.totals);
        let back = self.back.map(|back| back.root).unwrap_or_default();
        let tail = encode_tail(
            out.sequence,
            out.offset,
            &trailer,
            &self.forward.root,
            &back,
        );
        out.write(&tail)?;
        let digest = out.digest.digest();
        let mut end = Vec::new();
        finish_tail(&mut end, &digest);
        out.write(&end)?;
        out.out
            .flush()
            .map_err(|e| Error::io("cannot write", e).with_path(&out.name))?;
        Ok(FinishedDiff {
            out: self.sections.out,
            trailer,
            digest,
            len: self.sections.offset,
        })
    }
}

impl<W: Write> SectionWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| {
            Error::io("cannot write", e)
                .with_path(&self.name)
                .with_offset(self.offset)
        })?;
        self.digest.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

impl Track {
    fn new(direction: Direction, size: u64) -> Self {
        Self {
            direction,
            size,
            end: 0,
            clear: None,
            segment: Vec::new(),
            root: Vec::new(),
            totals: Totals::default(),
        }
    }

    fn push(&mut self, out: &mut SectionWriter<impl Write>, frame: &PackedFrame) -> Result<()> {
        let Some(range) = frame.changes.span() else {
            return Ok(());
        };
        self.advance(range)?;
        match frame.only_clear() {
            Some(range) if self.is_whole(range) => self.push_clear(out, range, &frame.base_hash()),
            _ => self.push_pages(out, frame, range),
        }
    }

    fn push_long_clear(
        &mut self,
        out: &mut SectionWriter<impl Write>,
        range: PageRange,
        base_hash: Option<Hash>,
    ) -> Result<()> {
        self.advance(range)?;
        match base_hash {
            None => self.push_clear(out, range, &[0; 32]),
            Some(hash) => {
                self.flush_clear(out)?;
                self.write_clear(out, range, hash)
            }
        }
    }

    /// Advances to the end of a frame, after checking its order.
    fn advance(&mut self, range: PageRange) -> Result<()> {
        if range.start() < self.end || range.end() > self.size {
            return Err(Error::usage(
                "the frames of a diff must be in order and within the target",
            )
            .with_found(format_args!(
                "{range:?} after {} of {}",
                self.end, self.size
            )));
        }
        self.end = range.end();
        Ok(())
    }

    /// Returns whether a clear consists of whole windows, so that it can be part of a long one.
    fn is_whole(&self, range: PageRange) -> bool {
        range.start().is_multiple_of(WINDOW_SIZE)
            && (range.end().is_multiple_of(WINDOW_SIZE) || range.end() == self.size)
    }

    fn push_clear(
        &mut self,
        out: &mut SectionWriter<impl Write>,
        range: PageRange,
        window_hash: &Hash,
    ) -> Result<()> {
        let known = *window_hash != [0; 32];
        match &mut self.clear {
            Some(clear) if clear.range.end() == range.start() && clear.known == known => {
                clear.range = clear.range.hull(range);
                clear.hasher.update(window_hash);
            }
            _ => {
                self.flush_clear(out)?;
                let mut hasher = blake3::Hasher::new();
                hasher.update(window_hash);
                self.clear = Some(PendingClear {
                    range,
                    hasher,
                    known,
                });
            }
        }
        Ok(())
    }

    fn flush_clear(&mut self, out: &mut SectionWriter<impl Write>) -> Result<()> {
        let Some(PendingClear {
            range,
            hasher,
            known,
        }) = self.clear.take()
        else {
            return Ok(());
        };
        let base_hash = if known {
            *hasher.finalize().as_bytes()
        } else {
            [0; 32]
        };
        self.write_clear(out, range, base_hash)
    }

    fn write_clear(
        &mut self,
        out: &mut SectionWriter<impl Write>,
        range: PageRange,
        base_hash: Hash,
    ) -> Result<()> {
        let bytes = ClearHead { range, base_hash }.encode(self.direction, out.sequence);
        self.totals.ranges += 1;
        self.totals.clear_bytes += range.len();
        self.write_frame(out, range, &bytes, &[])
    }

    fn push_pages(
        &mut self,
        out: &mut SectionWriter<impl Write>,
        frame: &PackedFrame,
        range: PageRange,
    ) -> Result<()> {
        self.flush_clear(out)?;
        self.totals.ranges += frame.changes.len() as u64;
        self.totals.update_bytes += frame.changes.bytes(ChangeKind::Update);
        self.totals.clear_bytes += frame.changes.bytes(ChangeKind::Clear);
        self.totals.stored_bytes += frame.stored.len() as u64;
        let head = frame
            .head
            .encode(self.direction, out.sequence, &frame.changes);
        self.write_frame(out, range, &head, &frame.stored)
    }

    fn write_frame(
        &mut self,
        out: &mut SectionWriter<impl Write>,
        range: PageRange,
        head: &[u8],
        payload: &[u8],
    ) -> Result<()> {
        self.segment.push(Entry {
            range,
            offset: out.offset,
        });
        out.sequence += 1;
        self.totals.frames += 1;
        out.write(head)?;
        out.write(payload)?;
        if self.segment.len() == INDEX_ENTRIES {
            self.flush_segment(out)
        } else {
            Ok(())
        }
    }

    fn flush_segment(&mut self, out: &mut SectionWriter<impl Write>) -> Result<()> {
        let (Some(first), Some(last)) = (self.segment.first(), self.segment.last()) else {
            return Ok(());
        };
        let range = PageRange::covering(first.range.start(), last.range.end());
        self.root.push(Entry {
            range,
            offset: out.offset,
        });
        let bytes = encode_index(self.direction, out.sequence, &self.segment);
        self.segment.clear();
        out.sequence += 1;
        out.write(&bytes)
    }
}
