//! A diff that is stored: verified once, then read anywhere through its index.

use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::format::{DiffHeader, Entry, Trailer, Way, damaged};
use super::reader::DiffReader;
use super::sections::{Frame, Input, Lead, read_frame, read_index};
use crate::error::Result;
use crate::image::Hash;
use crate::page::PageRange;
use crate::progress::Progress;
use crate::storage::ReadAt;

/// A verified diff file.
pub struct DiffFile {
    storage: Arc<dyn ReadAt>,
    /// Which of its ways this is a view of. The header and the trailer are as seen from there.
    way: Way,
    header: DiffHeader,
    trailer: Trailer,
    digest: Hash,
    /// As it stands at the end of the file.
    stored_digest: Hash,
    root: Arc<[Entry]>,
    /// The root of the other way, in a reversible diff.
    other_root: Arc<[Entry]>,
    /// The segment of the index that was used last.
    segment: Mutex<Option<(usize, Arc<[Entry]>)>>,
}

impl std::fmt::Debug for DiffFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiffFile")
            .field("name", &self.storage.name())
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

impl DiffFile {
    /// Reads and verifies the whole diff: every byte of it is right, or this fails.
    pub fn open(storage: impl ReadAt + 'static, progress: &dyn Progress) -> Result<Self> {
        let reader = BufReader::with_capacity(
            1 << 18,
            Sequential {
                storage: &storage,
                offset: 0,
            },
        );
        let mut reader = DiffReader::new(reader, storage.name())?;
        let mut done = 0;
        while reader.next_frame()?.is_some() {
            progress.check()?;
            progress.advance(reader.bytes_read() - done);
            done = reader.bytes_read();
        }
        let name = storage.name().to_path_buf();
        let verified = reader
            .into_verified()
            .ok_or_else(|| damaged("the diff has no end").path(name))?;
        let [root, other_root] = verified.roots.map(Arc::from);
        Ok(Self {
            storage: Arc::new(storage),
            way: Way::Forward,
            header: verified.header,
            trailer: verified.trailer,
            digest: verified.digest,
            stored_digest: verified.digest,
            root,
            other_root,
            segment: Mutex::new(None),
        })
    }

    /// The same diff seen from its other end: what turns the target back into the base. `None` unless it is
    /// [reversible](Self::is_reversible).
    pub fn reversed(&self) -> Option<Self> {
        let trailer = self.trailer.reversed()?;
        Some(Self {
            storage: Arc::clone(&self.storage),
            way: self.way.other(),
            header: self.header.reversed(),
            trailer,
            digest: match self.way {
                Way::Forward => back_identity(&self.stored_digest),
                Way::Back => self.stored_digest,
            },
            stored_digest: self.stored_digest,
            root: Arc::clone(&self.other_root),
            other_root: Arc::clone(&self.root),
            segment: Mutex::new(None),
        })
    }

    /// Whether the diff has both ways.
    pub fn is_reversible(&self) -> bool {
        self.trailer.way_back.is_some()
    }

    /// Which way of the file this is.
    pub fn way(&self) -> Way {
        self.way
    }

    /// What messages call it.
    pub fn name(&self) -> &Path {
        self.storage.name()
    }

    /// What it turns into what.
    pub fn header(&self) -> &DiffHeader {
        &self.header
    }

    /// Totals and digests.
    pub fn trailer(&self) -> &Trailer {
        &self.trailer
    }

    /// The identity of the diff: the digest at its end. The way back has another one, made from that, so that the
    /// two are never taken for one another.
    pub fn digest(&self) -> &Hash {
        &self.digest
    }

    /// Where the first frame that reaches beyond `at` begins, or `at` if it begins before: nothing from `at` to
    /// there is changed. For an `at` that starts a window, that is the first changed byte.
    pub fn first_change_from(&self, at: u64) -> Result<Option<u64>> {
        Ok(self.entry_from(at)?.map(|range| range.start().max(at)))
    }

    /// Where the first frame stands that reaches beyond `at`: from its first changed byte to its last.
    pub(super) fn entry_from(&self, at: u64) -> Result<Option<PageRange>> {
        let n = self
            .root
            .partition_point(|segment| segment.range.end() <= at);
        if n == self.root.len() {
            return Ok(None);
        }
        let segment = self.segment(n)?;
        let entry = segment.get(segment.partition_point(|entry| entry.range.end() <= at));
        Ok(entry.map(|entry| entry.range))
    }

    /// The frames that change something in `within`, in order.
    pub fn frames_in(&self, within: PageRange) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        let first = self
            .root
            .partition_point(|segment| segment.range.end() <= within.start());
        for n in first..self.root.len() {
            if self
                .root
                .get(n)
                .is_none_or(|segment| segment.range.start() >= within.end())
            {
                break;
            }
            let segment = self.segment(n)?;
            let first = segment.partition_point(|entry| entry.range.end() <= within.start());
            for entry in segment
                .iter()
                .skip(first)
                .take_while(|entry| entry.range.start() < within.end())
            {
                frames.push(self.frame(entry)?);
            }
        }
        Ok(frames)
    }

    fn frame(&self, entry: &Entry) -> Result<Frame> {
        let mut input = At {
            storage: &*self.storage,
            offset: entry.offset,
        };
        let frame = Lead::read(&mut input)
            .and_then(|lead| {
                if lead.way == self.way {
                    read_frame(&mut input, &lead, self.header.target_size)
                } else {
                    Err(changed())
                }
            })
            .and_then(|frame| {
                if frame.range() == entry.range {
                    Ok(frame)
                } else {
                    Err(changed())
                }
            });
        frame.map_err(|e| e.path(self.name()).offset(entry.offset))
    }

    fn segment(&self, n: usize) -> Result<Arc<[Entry]>> {
        let cached = self
            .segment
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((at, segment)) = cached.filter(|(at, _)| *at == n) {
            debug_assert_eq!(at, n);
            return Ok(segment);
        }
        let offset = self.root.get(n).map_or(0, |entry| entry.offset);
        let mut input = At {
            storage: &*self.storage,
            offset,
        };
        let entries = Lead::read(&mut input)
            .and_then(|lead| read_index(&mut input, &lead))
            .map_err(|e| e.path(self.name()).offset(offset))?;
        let segment: Arc<[Entry]> = entries.into();
        *self.segment.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((n, Arc::clone(&segment)));
        Ok(segment)
    }
}

/// The identity of the way back of the diff with this digest.
fn back_identity(digest: &Hash) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"vhdkit reverse 1").update(digest);
    *hasher.finalize().as_bytes()
}

fn changed() -> crate::error::Error {
    damaged("the diff was changed while it was used")
}

/// Positioned reads as a stream.
struct Sequential<'a> {
    storage: &'a dyn ReadAt,
    offset: u64,
}

impl Read for Sequential<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self
            .storage
            .byte_len()
            .map_err(io::Error::other)?
            .saturating_sub(self.offset);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        self.storage
            .read_exact_at(&mut buf[..len], self.offset)
            .map_err(io::Error::other)?;
        self.offset += len as u64;
        Ok(len)
    }
}

/// Positioned reads from one place on.
struct At<'a> {
    storage: &'a dyn ReadAt,
    offset: u64,
}

impl Input for At<'_> {
    fn fill(&mut self, buf: &mut [u8]) -> Result<()> {
        self.storage.read_exact_at(buf, self.offset)?;
        self.offset += buf.len() as u64;
        Ok(())
    }
}
