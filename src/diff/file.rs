//! A diff that is stored: verified once, then read anywhere through its index.

use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::format::{DiffHeader, Entry, Trailer, damaged};
use super::reader::DiffReader;
use super::sections::{Frame, Input, Lead, read_frame, read_index};
use crate::error::Result;
use crate::image::Hash;
use crate::page::PageRange;
use crate::progress::Progress;
use crate::storage::ReadAt;

/// A verified diff file.
pub struct DiffFile {
    storage: Box<dyn ReadAt>,
    header: DiffHeader,
    trailer: Trailer,
    digest: Hash,
    root: Vec<Entry>,
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
        let (header, root, finished) = reader.into_parts();
        let (trailer, digest) =
            finished.ok_or_else(|| damaged("the diff has no end").path(name))?;
        Ok(Self {
            storage: Box::new(storage),
            header,
            trailer,
            digest,
            root,
            segment: Mutex::new(None),
        })
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

    /// The identity of the diff: the digest at its end.
    pub fn digest(&self) -> &Hash {
        &self.digest
    }

    /// Where the first frame that reaches beyond `at` begins, or `at` if it begins before: nothing from `at` to
    /// there is changed. For an `at` that starts a window, that is the first changed byte.
    pub fn first_change_from(&self, at: u64) -> Result<Option<u64>> {
        let n = self
            .root
            .partition_point(|segment| segment.range.end() <= at);
        if n == self.root.len() {
            return Ok(None);
        }
        let segment = self.segment(n)?;
        let entry = segment.get(segment.partition_point(|entry| entry.range.end() <= at));
        Ok(entry.map(|entry| entry.range.start().max(at)))
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
            .and_then(|lead| read_frame(&mut input, &lead, self.header.target_size))
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
