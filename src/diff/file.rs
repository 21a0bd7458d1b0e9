//! A stored diff: verified once, then read at random through its index.

use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::format::{
    BACK_FIXED, DiffHeader, Direction, END_LEN, End, Entry, LEAD, TAIL_FIXED, Trailer, damaged,
    decode_back,
};
use super::reader::DiffReader;
use super::sections::{
    Frame, Input, SectionHeader, read_changes, read_frame, read_header, read_index, read_root,
    read_tail,
};
use crate::error::Result;
use crate::image::{Hash, WINDOW_SIZE};
use crate::page::{Change, PageList, PageRange, to_usize};
use crate::parallel::Workers;
use crate::progress::Progress;
use crate::storage::ReadAt;

/// A verified diff file.
pub struct DiffFile {
    storage: Arc<dyn ReadAt>,
    /// Length of the whole file.
    len: u64,
    /// The direction of this view. Header and trailer match it.
    direction: Direction,
    header: DiffHeader,
    trailer: Trailer,
    digest: Hash,
    /// As stored at the end of the file.
    stored_digest: Hash,
    root: Arc<[Entry]>,
    /// The root of the index for the other direction, in a reversible diff.
    other_root: Arc<[Entry]>,
    /// The most recently used segment of the index.
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
    /// Reads and verifies the whole diff. Fails if any byte of it is wrong.
    pub fn open(storage: impl ReadAt + 'static, progress: &dyn Progress) -> Result<Self> {
        Self::verified(storage, progress, |frames| {
            for frame in frames {
                frame?;
            }
            Ok(())
        })
    }

    /// As [`open`](Self::open), and also unpacks every payload: checksums don't prove that a payload can be unpacked.
    /// For a diff that is kept, to be applied later.
    pub fn open_unpacking(
        storage: impl ReadAt + 'static,
        workers: &Workers,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let name = storage.name().to_path_buf();
        Self::verified(storage, progress, |frames| {
            let unpack = |frame: Frame| frame.check_payload().map_err(|e| e.with_path(&name));
            // What was read, and what it unpacks to.
            workers.ordered_within(
                (workers.room(), usize::MAX),
                |_| 2 * WINDOW_SIZE,
                frames,
                unpack,
                Ok,
            )
        })
    }

    fn verified<S: ReadAt + 'static>(
        storage: S,
        progress: &dyn Progress,
        look: impl FnOnce(&mut dyn Iterator<Item = Result<Frame>>) -> Result<()>,
    ) -> Result<Self> {
        let reader = BufReader::with_capacity(
            1 << 18,
            Sequential {
                storage: &storage,
                offset: 0,
            },
        );
        let mut reader = DiffReader::new(reader, storage.name())?;
        let mut done = 0;
        look(&mut std::iter::from_fn(|| {
            let frame = progress.check().and_then(|()| reader.next_of_both());
            progress.advance(reader.bytes_read() - done);
            done = reader.bytes_read();
            frame.map(|frame| frame.map(|(_, frame)| frame)).transpose()
        }))?;
        let name = storage.name().to_path_buf();
        let len = reader.bytes_read();
        let verified = reader
            .into_verified()
            .ok_or_else(|| damaged("the diff has no end").with_path(name))?;
        let [root, other_root] = verified.roots.map(Arc::from);
        Ok(Self {
            storage: Arc::new(storage),
            len,
            direction: Direction::Forward,
            header: verified.header,
            trailer: verified.trailer,
            digest: verified.digest,
            stored_digest: verified.digest,
            root,
            other_root,
            segment: Mutex::new(None),
        })
    }

    /// Opens the diff by reading only its header, its trailer and the roots of the index. Frames and index segments are
    /// verified individually when they are read. For a diff whose [digest](Self::digest) is known from elsewhere, and
    /// whose result is compared with a content digest.
    pub fn open_indexed(storage: impl ReadAt + 'static) -> Result<Self> {
        let len = storage.byte_len()?;
        let mut start = At::new(&storage, 0, len);
        let name = storage.name();
        let (header, reversible) = read_header(&mut start).map_err(|e| e.with_path(name))?;
        let (trailer, [root, other_root], digest) =
            read_end(&storage).map_err(|e| e.with_path(name))?;
        if reversible != trailer.way_back.is_some() {
            return Err(damaged("the trailer doesn't match the header")
                .with_path(name)
                .with_field("flags"));
        }
        Ok(Self {
            storage: Arc::new(storage),
            len,
            direction: Direction::Forward,
            header,
            trailer,
            digest,
            stored_digest: digest,
            root: root.into(),
            other_root: other_root.into(),
            segment: Mutex::new(None),
        })
    }

    /// Returns the diff in the opposite direction, from the target back to the base. Returns `None` unless it is
    /// [reversible](Self::is_reversible).
    pub fn reversed(&self) -> Option<Self> {
        let trailer = self.trailer.reversed()?;
        Some(Self {
            storage: Arc::clone(&self.storage),
            len: self.len,
            direction: self.direction.other(),
            header: self.header.reversed(),
            trailer,
            digest: match self.direction {
                Direction::Forward => back_identity(&self.stored_digest),
                Direction::Back => self.stored_digest,
            },
            stored_digest: self.stored_digest,
            root: Arc::clone(&self.other_root),
            other_root: Arc::clone(&self.root),
            segment: Mutex::new(None),
        })
    }

    /// Returns whether the diff contains both directions.
    pub fn is_reversible(&self) -> bool {
        self.trailer.way_back.is_some()
    }

    /// The direction of this view.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The name of the diff in messages.
    pub fn name(&self) -> &Path {
        self.storage.name()
    }

    /// The header: which disk the diff turns into which.
    pub fn header(&self) -> &DiffHeader {
        &self.header
    }

    /// The trailer: totals and digests.
    pub fn trailer(&self) -> &Trailer {
        &self.trailer
    }

    /// The identity of the diff: the digest at its end. The opposite direction has a different identity, derived from
    /// it, so that the two can't be confused.
    pub fn digest(&self) -> &Hash {
        &self.digest
    }

    /// Returns the start of the first frame that extends beyond `at`, or `at` if the frame begins before: nothing in
    /// between is changed. If `at` starts a window, that is the first changed byte.
    pub fn first_change_from(&self, at: u64) -> Result<Option<u64>> {
        Ok(self.entry_from(at)?.map(|range| range.start().max(at)))
    }

    /// Returns the range, from its first changed byte to its last, of the first frame that extends beyond `at`.
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

    /// Reads the frames that change something in `within`, in order.
    pub fn frames_in(&self, within: PageRange) -> Result<Vec<Frame>> {
        let entries = self.entries_in(within)?;
        entries.iter().map(|entry| self.frame(entry)).collect()
    }

    /// Returns the index entries of the frames that change something in `within`, in order.
    pub(super) fn entries_in(&self, within: PageRange) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
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
            let here = segment.iter().skip(first);
            entries.extend(here.take_while(|entry| entry.range.start() < within.end()));
        }
        Ok(entries)
    }

    fn at(&self, offset: u64) -> At<'_> {
        At::new(&*self.storage, offset, self.len)
    }

    /// Reads the changes of a frame, without its payload.
    pub(super) fn changes_of(&self, entry: &Entry) -> Result<PageList> {
        let mut input = self.at(entry.offset);
        SectionHeader::read(&mut input)
            .and_then(|lead| read_changes(&mut input, &lead, self.header.target_size))
            .and_then(|changes| match changes.span() {
                Some(span) if span == entry.range => Ok(changes),
                _ => Err(changed()),
            })
            .map_err(|e| e.with_path(self.name()).with_offset(entry.offset))
    }

    /// Reads the changes of all frames, in order, without their data.
    pub fn changes(&self) -> impl Iterator<Item = Result<Change>> + '_ {
        let segments = (0..self.root.len()).map(|n| self.segment(n));
        segments.flat_map(|segment| {
            let (entries, error) = match segment {
                Ok(entries) => (entries.to_vec(), None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            let frames = entries.into_iter().flat_map(|entry| {
                let (changes, error) = match self.changes_of(&entry) {
                    Ok(changes) => (changes.iter().copied().collect(), None),
                    Err(error) => (Vec::new(), Some(Err(error))),
                };
                changes.into_iter().map(Ok).chain(error)
            });
            frames.chain(error)
        })
    }

    /// Reads one frame.
    pub(super) fn frame(&self, entry: &Entry) -> Result<Frame> {
        let mut input = self.at(entry.offset);
        let frame = SectionHeader::read(&mut input)
            .and_then(|lead| {
                if lead.direction == self.direction {
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
        frame.map_err(|e| e.with_path(self.name()).with_offset(entry.offset))
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
        let (offset, range) = self.root.get(n).map_or((0, PageRange::default()), |entry| {
            (entry.offset, entry.range)
        });
        let mut input = self.at(offset);
        let entries = SectionHeader::read(&mut input)
            .and_then(|lead| read_index(&mut input, &lead))
            .and_then(|entries| {
                let ends = entries.first().zip(entries.last());
                let fits = ends.is_some_and(|(first, last)| {
                    first.range.start() == range.start() && last.range.end() == range.end()
                });
                let mut pairs = entries.iter().zip(entries.iter().skip(1));
                let ordered = pairs.all(|(a, b)| a.range.end() <= b.range.start());
                if fits && ordered {
                    Ok(entries)
                } else {
                    Err(damaged("a part of the index doesn't match its root").with_field("entries"))
                }
            })
            .map_err(|e| e.with_path(self.name()).with_offset(offset))?;
        let segment: Arc<[Entry]> = entries.into();
        *self.segment.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((n, Arc::clone(&segment)));
        Ok(segment)
    }
}

/// Reads the trailer, the roots of the index for both directions, and the diff's digest.
fn read_end(storage: &dyn ReadAt) -> Result<(Trailer, [Vec<Entry>; 2], Hash)> {
    let len = storage.byte_len()?;
    let cut_off = || damaged("the diff is truncated").with_offset(len);
    let at = len.checked_sub(END_LEN as u64).ok_or_else(cut_off)?;
    let mut bytes = [0; END_LEN];
    storage.read_exact_at(&mut bytes, at)?;
    let end = End::decode(&bytes).ok_or_else(cut_off)?;
    let fixed = (LEAD + TAIL_FIXED) as u64;
    let room = at
        .checked_sub(end.tail_offset)
        .and_then(|tail| tail.checked_sub(fixed))
        .filter(|room| room.is_multiple_of(Entry::LEN as u64))
        .ok_or_else(|| {
            damaged("the trailer is not where it should be")
                .with_field("tail_offset")
                .with_offset(at)
                .with_found(end.tail_offset)
        })?;
    let mut input = At::new(storage, end.tail_offset, at);
    let tail = |e: crate::error::Error| e.with_offset(end.tail_offset);
    let (mut trailer, root) = read_tail(&mut input, room / Entry::LEN as u64).map_err(tail)?;
    let mut back = Vec::new();
    if input.position() < at {
        let mut fixed = [0; BACK_FIXED];
        input.fill(&mut fixed).map_err(tail)?;
        let (count, totals) = decode_back(&fixed)
            .ok_or_else(|| tail(damaged("the trailer's part on the way back is impossible")))?;
        trailer.way_back = Some(totals);
        let most = at.saturating_sub(input.position()) / Entry::LEN as u64;
        back = read_root(&mut input, count, most).map_err(tail)?;
    }
    if input.position() != at {
        return Err(damaged(
            "the root of the index doesn't have the length that the trailer gives",
        )
        .with_field("tail_offset")
        .with_offset(at));
    }
    Ok((trailer, [root, back], end.digest))
}

/// The identity of the reverse direction of the diff with this digest.
fn back_identity(digest: &Hash) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"vhdkit reverse 1").update(digest);
    *hasher.finalize().as_bytes()
}

fn changed() -> crate::error::Error {
    damaged("the diff was changed while it was in use")
}

/// Positioned reads as a sequential stream.
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
        let len = to_usize(left).min(buf.len());
        self.storage
            .read_exact_at(&mut buf[..len], self.offset)
            .map_err(io::Error::other)?;
        self.offset += len as u64;
        Ok(len)
    }
}

/// The smallest read, in bytes: a frame with a few pages needs no second one.
const AHEAD: usize = 8 << 10;

/// Positioned reads from an offset on.
struct At<'a> {
    storage: &'a dyn ReadAt,
    offset: u64,
    /// The end of the storage, or of the part that may be read.
    end: u64,
    /// Data that was read ahead, and how much of it was used.
    ahead: Vec<u8>,
    used: usize,
}

impl<'a> At<'a> {
    fn new(storage: &'a dyn ReadAt, offset: u64, end: u64) -> Self {
        Self {
            storage,
            offset,
            end,
            ahead: Vec::new(),
            used: 0,
        }
    }

    /// The offset of the next byte.
    fn position(&self) -> u64 {
        let ready = self.ahead.len().saturating_sub(self.used);
        self.offset.saturating_sub(ready as u64)
    }

    /// Reads ahead, unless `wanted` is larger than that.
    fn read_ahead(&mut self, wanted: usize) -> Result<()> {
        let left = self.end.saturating_sub(self.offset);
        let len = to_usize(left).min(AHEAD);
        self.used = 0;
        self.ahead.resize(if len > wanted { len } else { 0 }, 0);
        self.storage.read_exact_at(&mut self.ahead, self.offset)?;
        self.offset += self.ahead.len() as u64;
        Ok(())
    }

    fn take(&mut self, buf: &mut [u8]) -> usize {
        let ready = self.ahead.get(self.used..).unwrap_or_default();
        let len = ready.len().min(buf.len());
        buf[..len].copy_from_slice(&ready[..len]);
        self.used += len;
        len
    }
}

impl Input for At<'_> {
    fn fill(&mut self, buf: &mut [u8]) -> Result<()> {
        let taken = self.take(buf);
        let rest = &mut buf[taken..];
        if rest.is_empty() {
            return Ok(());
        }
        self.read_ahead(rest.len())?;
        if self.take(rest) == rest.len() {
            return Ok(());
        }
        self.storage.read_exact_at(rest, self.offset)?;
        self.offset += rest.len() as u64;
        Ok(())
    }
}
