//! Writes a diff front to back: to a file or a pipe, in bounded memory.

use std::io::Write;
use std::path::PathBuf;

use super::format::{
    ClearHead, DiffHeader, Entry, INDEX_ENTRIES, Trailer, encode_header, encode_index, encode_tail,
    finish_tail,
};
use super::pack::PackedFrame;
use crate::error::{Error, Result};
use crate::image::{ContentDigest, Hash, WINDOW_SIZE};
use crate::page::{ChangeKind, PageRange};

/// Writes a diff to `out`.
#[derive(Debug)]
pub struct DiffWriter<W> {
    out: W,
    name: PathBuf,
    target_size: u64,
    hasher: blake3::Hasher,
    offset: u64,
    sequence: u64,
    /// The end of the last frame's range.
    end: u64,
    clear: Option<PendingClear>,
    segment: Vec<Entry>,
    root: Vec<Entry>,
    trailer: Trailer,
}

/// A finished diff.
#[derive(Debug)]
pub struct Finished<W> {
    /// Where it was written to.
    pub out: W,
    /// Totals and digests.
    pub trailer: Trailer,
    /// Its identity: the digest of all its bytes before the digest.
    pub digest: Hash,
    /// Its length in bytes.
    pub len: u64,
}

/// A clear of whole windows that may go on.
#[derive(Debug)]
struct PendingClear {
    range: PageRange,
    hasher: blake3::Hasher,
    known: bool,
}

impl<W: Write> DiffWriter<W> {
    /// Begins a diff. Messages about `out` call it `name`.
    pub fn new(out: W, name: impl Into<PathBuf>, header: &DiffHeader) -> Result<Self> {
        let mut writer = Self {
            out,
            name: name.into(),
            target_size: header.target_size,
            hasher: blake3::Hasher::new(),
            offset: 0,
            sequence: 1,
            end: 0,
            clear: None,
            segment: Vec::new(),
            root: Vec::new(),
            trailer: Trailer::default(),
        };
        let bytes = encode_header(header)?;
        writer.write(&bytes)?;
        Ok(writer)
    }

    /// Adds the changes of one window; windows come in ascending order.
    pub fn push(&mut self, frame: &PackedFrame) -> Result<()> {
        let Some(range) = frame.changes.span() else {
            return Ok(());
        };
        if range.start() < self.end || range.end() > self.target_size {
            return Err(Error::usage(
                "the frames of a diff must come in order and lie within the target",
            )
            .found(format_args!(
                "{range:?} after {} of {}",
                self.end, self.target_size
            )));
        }
        self.end = range.end();
        match frame.only_clear() {
            Some(range) if self.is_whole(range) => self.push_clear(range, &frame.base_hash()),
            _ => self.push_pages(frame, range),
        }
    }

    /// Ends the diff.
    pub fn finish(
        mut self,
        base_digest: Option<ContentDigest>,
        target_digest: Option<ContentDigest>,
    ) -> Result<Finished<W>> {
        self.flush_clear()?;
        self.flush_segment()?;
        (self.trailer.base_digest, self.trailer.target_digest) = (base_digest, target_digest);
        let tail = encode_tail(self.sequence, self.offset, &self.trailer, &self.root);
        self.write(&tail)?;
        let digest = *self.hasher.finalize().as_bytes();
        let mut end = Vec::new();
        finish_tail(&mut end, &digest);
        self.write(&end)?;
        self.out
            .flush()
            .map_err(|e| Error::io("cannot write", e).path(&self.name))?;
        Ok(Finished {
            out: self.out,
            trailer: self.trailer,
            digest,
            len: self.offset,
        })
    }

    /// Whether a clear consists of whole windows, so that it can be part of a long one.
    fn is_whole(&self, range: PageRange) -> bool {
        range.start().is_multiple_of(WINDOW_SIZE)
            && (range.end().is_multiple_of(WINDOW_SIZE) || range.end() == self.target_size)
    }

    fn push_clear(&mut self, range: PageRange, window_hash: &Hash) -> Result<()> {
        let known = *window_hash != [0; 32];
        match &mut self.clear {
            Some(clear) if clear.range.end() == range.start() && clear.known == known => {
                clear.range = PageRange::new(clear.range.start(), range.end()).unwrap_or(range);
                clear.hasher.update(window_hash);
            }
            _ => {
                self.flush_clear()?;
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

    fn flush_clear(&mut self) -> Result<()> {
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
        let bytes = ClearHead { range, base_hash }.encode(self.sequence);
        self.trailer.ranges += 1;
        self.trailer.clear_bytes += range.len();
        self.write_frame(range, &bytes, &[])
    }

    fn push_pages(&mut self, frame: &PackedFrame, range: PageRange) -> Result<()> {
        self.flush_clear()?;
        self.trailer.ranges += frame.changes.len() as u64;
        self.trailer.update_bytes += frame.changes.bytes(ChangeKind::Update);
        self.trailer.clear_bytes += frame.changes.bytes(ChangeKind::Clear);
        self.trailer.stored_bytes += frame.stored.len() as u64;
        let head = frame.head.encode(self.sequence, &frame.changes);
        self.write_frame(range, &head, &frame.stored)
    }

    fn write_frame(&mut self, range: PageRange, head: &[u8], payload: &[u8]) -> Result<()> {
        self.segment.push(Entry {
            range,
            offset: self.offset,
        });
        self.sequence += 1;
        self.trailer.frames += 1;
        self.write(head)?;
        self.write(payload)?;
        if self.segment.len() == INDEX_ENTRIES {
            self.flush_segment()
        } else {
            Ok(())
        }
    }

    fn flush_segment(&mut self) -> Result<()> {
        let (Some(first), Some(last)) = (self.segment.first(), self.segment.last()) else {
            return Ok(());
        };
        let range = PageRange::new(first.range.start(), last.range.end()).unwrap_or_default();
        self.root.push(Entry {
            range,
            offset: self.offset,
        });
        let bytes = encode_index(self.sequence, &self.segment);
        self.segment.clear();
        self.sequence += 1;
        self.write(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| {
            Error::io("cannot write", e)
                .path(&self.name)
                .offset(self.offset)
        })?;
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }
}
