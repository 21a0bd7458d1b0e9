//! What an interrupted download leaves: the image so far under a name of its own, and beside it a record of what is in it.
//!
//! ```text
//! "vhdkit fetched 1"    16 bytes
//! length of the source   4 bytes, big-endian
//! the source             text, a line for each: name, version, format, virtual size, block size, hash of the footer
//! BLAKE3 of all this    32 bytes
//! first byte             8 bytes, big-endian  ┐
//! length of the file     8 bytes              │ for each window that was fetched, ascending
//! window hashes        128 bytes              ┘
//! ```
//!
//! Nothing in either file is trusted. A download goes on only for the same source and version, and up to the first window
//! whose data in the image doesn't have its recorded hashes: a crash may have kept one of the two from the disk.

use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use byteorder::{BigEndian, ByteOrder as _};

use super::Format;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{
    ContentDigest, ContentHasher, DIGEST_WINDOW, Hash, Image, ImageMut, Pass, Resized, WINDOW_SIZE,
    WindowHashes, all_needed, content_digest, copy_on, zero_hash,
};
use crate::page::PageRange;
use crate::parallel::Work;
use crate::storage::{File, ReadAt as _, WriteAt as _, beside, open_kept, remove_if_there};
use crate::vhd::{FOOTER_SIZE, Footer};

const LABEL: &[u8; 16] = b"vhdkit fetched 1";
const HASHES: usize = (WINDOW_SIZE / DIGEST_WINDOW) as usize;
const RECORD: usize = 16 + HASHES * 32;

/// The longest description of a source that is read.
const LONGEST: usize = 64 << 10;

/// How often an image is flushed that isn't complete without it.
const PERIOD: Duration = Duration::from_secs(1);

/// The name under which the image at `path` is fetched.
pub fn fetched_path(path: &Path) -> PathBuf {
    beside(path, ".fetched")
}

/// The name of its record.
fn record_path(path: &Path) -> PathBuf {
    beside(path, ".fetched.log")
}

/// What is fetched: an image that isn't on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedFrom {
    /// Its name, without credentials.
    pub source: String,
    /// What changes whenever its content does; empty if that never happens under this name.
    pub version: String,
}

/// The image that is made of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form<'a> {
    pub(super) format: Format,
    pub(super) virtual_size: u64,
    pub(super) block_size: Option<u32>,
    /// The footer whose identity it adopts.
    pub(super) identity: Option<&'a Footer>,
}

/// A source and the image that is made from it, as lines of text.
#[derive(Debug, PartialEq, Eq)]
struct Fetch(Vec<String>);

impl Fetch {
    fn new(from: &FetchedFrom, form: Form<'_>) -> Self {
        // Neither may pass for more than one line.
        let line = |text: &str| text.escape_default().to_string();
        let footer = form
            .identity
            .map(|footer| blake3::hash(&footer.encode()).to_string());
        Self(vec![
            line(&from.source),
            line(&from.version),
            form.format.name().to_owned(),
            form.virtual_size.to_string(),
            format!("{:?}", form.block_size),
            footer.unwrap_or_default(),
        ])
    }

    /// Why a download of `other` can't go on as this one.
    fn differs(&self, other: &Self) -> Option<&'static str> {
        if self.0.first() != other.0.first() {
            Some("it was from another source")
        } else if self.0.get(1) != other.0.get(1) {
            Some("the source has changed since")
        } else {
            (self != other).then_some("it was of another size or format")
        }
    }

    fn head(&self) -> Result<Vec<u8>> {
        let text = self.0.join("\n");
        let len = u32::try_from(text.len())
            .ok()
            .filter(|_| text.len() <= LONGEST);
        let len = len.ok_or_else(|| Error::usage("the name of the source is too long"))?;
        let mut head = LABEL.to_vec();
        head.extend_from_slice(&len.to_be_bytes());
        head.extend_from_slice(text.as_bytes());
        head.extend_from_slice(blake3::hash(&head).as_bytes());
        Ok(head)
    }

    /// The source in a record, and the length of the record's head.
    fn read(record: &File) -> Option<(Self, u64)> {
        let mut start = [0; LABEL.len() + 4];
        record.read_exact_at(&mut start, 0).ok()?;
        let (label, len) = start.split_at(LABEL.len());
        let len = usize::try_from(BigEndian::read_u32(len)).ok()?;
        if label != LABEL || len > LONGEST {
            return None;
        }
        let mut rest = vec![0; len + 32];
        record.read_exact_at(&mut rest, start.len() as u64).ok()?;
        let (text, sum) = rest.split_at(len);
        let whole = [&start[..], text].concat();
        if blake3::hash(&whole).as_bytes() != sum {
            return None;
        }
        let text = std::str::from_utf8(text).ok()?;
        let fetch = Self(text.split('\n').map(str::to_owned).collect());
        Some((fetch, (whole.len() + sum.len()) as u64))
    }
}

/// What was there when a download began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// Nothing.
    New,
    /// A part of it, which is checked and kept.
    Resumed,
    /// Something that can't be used, for this reason.
    Afresh(&'static str),
}

/// The record of a download under way.
#[derive(Debug)]
pub(super) struct Fetching {
    record: File,
    /// The image so far, to look at its length and to cut it.
    image: File,
    paths: [PathBuf; 2],
    head: Vec<u8>,
    begun: Begun,
    format: Format,
    /// The end of the record.
    end: u64,
    /// Records of windows that aren't in the image for certain yet.
    waiting: Vec<u8>,
    flushed: Instant,
    fate: Fate,
}

/// What becomes of the files when the download ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// They are kept if there is anything in them.
    Kept,
    /// They are removed.
    Useless,
    /// The image has its own name.
    Complete,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        let [image, record] = &self.paths;
        let empty = self.end <= self.head.len() as u64;
        let gone = match self.fate {
            Fate::Complete => &[][..],
            Fate::Useless => &[image, record],
            Fate::Kept if empty => &[image, record],
            Fate::Kept => &[],
        };
        for path in gone {
            // At worst it is found again.
            let _ = remove_if_there(path);
        }
    }
}

impl Fetching {
    /// Opens the record of the download to `target`, whose image so far is `image`.
    pub(super) fn open(
        target: &Path,
        image: File,
        (from, form): (&FetchedFrom, Form<'_>),
        owner: Option<u32>,
    ) -> Result<Self> {
        let paths = [fetched_path(target), record_path(target)];
        let record = open_kept(&paths[1], &paths[1], owner)?;
        let fetch = Fetch::new(from, form);
        let mut this = Self {
            head: fetch.head()?,
            record,
            image,
            paths,
            begun: Begun::New,
            format: form.format,
            end: 0,
            waiting: Vec::new(),
            flushed: Instant::now(),
            fate: Fate::Kept,
        };
        let there = Fetch::read(&this.record);
        let windows = |head: u64| -> Result<u64> {
            let len = this.record.byte_len()?.saturating_sub(head);
            Ok(head + len - len % RECORD as u64)
        };
        match there {
            Some((found, head)) if windows(head)? > head => match fetch.differs(&found) {
                None => (this.begun, this.end) = (Begun::Resumed, windows(head)?),
                Some(why) => this.begin_afresh(why)?,
            },
            // Nothing was fetched yet.
            _ => this.clear()?,
        }
        Ok(this)
    }

    /// What was there.
    pub(super) fn begun(&self) -> Begun {
        self.begun
    }

    /// The name under which what is fetched is kept, if there is anything.
    pub(super) fn kept(&self) -> Option<&Path> {
        let kept = self.fate == Fate::Kept && self.end > self.head.len() as u64;
        kept.then_some(&self.paths[0])
    }

    /// Forgets what was there, because of `why`.
    pub(super) fn begin_afresh(&mut self, why: &'static str) -> Result<()> {
        self.begun = Begun::Afresh(why);
        self.clear()
    }

    fn clear(&mut self) -> Result<()> {
        self.image.set_len(0)?;
        self.record.set_len(0)?;
        self.record.write_all_at(&self.head, 0)?;
        self.end = self.head.len() as u64;
        Ok(())
    }

    /// Brings a file with blocks back to the state of the last record, since blocks that were added later are in no
    /// table. Returns whether it has one.
    pub(super) fn rewind(&self) -> Result<bool> {
        let Some(last) = self.end.checked_sub(RECORD as u64) else {
            return Ok(false);
        };
        let mut record = [0; RECORD];
        self.record.read_exact_at(&mut record, last)?;
        let len = BigEndian::read_u64(&record[8..16]);
        if len < 3 * FOOTER_SIZE as u64 || len > self.image.byte_len()? {
            return Ok(false);
        }
        // The footer is at the end, and its copy at the start.
        let mut footer = [0; FOOTER_SIZE];
        self.image.read_exact_at(&mut footer, 0)?;
        self.image.set_len(len)?;
        self.image.write_all_at(&footer, len - FOOTER_SIZE as u64)?;
        Ok(true)
    }

    /// Copies `source` to `to`, the image so far: what is in it already is checked, and not fetched again.
    pub(super) fn fill(
        &mut self,
        source: &dyn Image,
        to: &mut dyn ImageMut,
        work: Work<'_>,
    ) -> Result<ContentDigest> {
        let resumed = self.begun == Begun::Resumed;
        let size = source.virtual_size();
        let begun = if resumed {
            work.progress.begin("checking what is here already", size);
            self.verify(&*to, size, work)?
        } else {
            (0, ContentHasher::new(size))
        };
        if resumed {
            // Anything after that was under way when it was interrupted.
            to.clear(PageRange::covering(begun.0, to.virtual_size()))?;
            self.record.set_len(self.end)?;
            work.progress.begin("fetching the rest", size);
        }
        self.flushed = Instant::now();
        let copied = copy_on(source, to, work, begun, |range, hashes, to| {
            self.add(range, hashes, to)
        });
        let digest = match copied {
            Ok(digest) => digest,
            Err(error) if error.kind() == ErrorKind::Changed => {
                self.fate = Fate::Useless;
                return Err(error);
            }
            Err(error) => {
                // If this fails, less is kept, and that error isn't the one to report.
                let _ = self.settle(to);
                return Err(error);
            }
        };
        self.settle(to)?;
        if resumed {
            work.progress.begin("checking all of it", size);
            let whole = Resized::new(&*to, size);
            let found = content_digest(&whole, work.workers, work.progress)?;
            if found != digest {
                self.fate = Fate::Useless;
                return Err(Error::damaged(
                    "the image that was fetched in parts isn't what it should be",
                )
                .with_path(&self.paths[0])
                .with_field("content digest")
                .with_found(found)
                .with_expected(digest)
                .with_hint("run the command again, which begins afresh; the device or the memory may be failing"));
            }
        }
        Ok(digest)
    }

    /// Removes everything that was fetched, because it is wrong.
    pub(super) fn is_useless(&mut self) {
        self.fate = Fate::Useless;
    }

    /// Removes the record, because the image has got its own name.
    pub(super) fn completed(mut self) -> Result<()> {
        self.fate = Fate::Complete;
        remove_if_there(&self.paths[1]).map(drop)
    }

    fn add(
        &mut self,
        range: PageRange,
        hashes: &WindowHashes,
        to: &mut dyn ImageMut,
    ) -> Result<()> {
        let mut record = [0; RECORD];
        BigEndian::write_u64(&mut record, range.start());
        for (place, hash) in record[16..].chunks_mut(32).zip(hashes.as_slice()) {
            place.copy_from_slice(hash);
        }
        self.waiting.extend_from_slice(&record);
        // Only an image without blocks holds what was written at once.
        let at_once = matches!(self.format, Format::Raw | Format::Fixed);
        if at_once || self.flushed.elapsed() >= PERIOD {
            self.settle(to)?;
        }
        Ok(())
    }

    /// Adds the waiting windows to the record.
    fn settle(&mut self, to: &mut dyn ImageMut) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        if !matches!(self.format, Format::Raw | Format::Fixed) {
            to.flush()?;
        }
        let len = self.image.byte_len()?;
        for record in self.waiting.chunks_mut(RECORD) {
            BigEndian::write_u64(&mut record[8..16], len);
        }
        self.record.write_all_at(&self.waiting, self.end)?;
        self.end = self.end.saturating_add(self.waiting.len() as u64);
        self.waiting.clear();
        self.flushed = Instant::now();
        Ok(())
    }

    /// Compares the beginning of `image` with the record, and cuts the record at the first difference. Returns up to where
    /// they agree, and the digest so far.
    fn verify(
        &mut self,
        image: &dyn Image,
        size: u64,
        work: Work<'_>,
    ) -> Result<(u64, ContentHasher)> {
        let head = self.head.len() as u64;
        let mut reader = BufReader::with_capacity(64 << 10, self.record.reader());
        let mut skipped = vec![0; self.head.len()];
        let failed = |e| Error::io("cannot read", e).with_path(&self.paths[1]);
        reader.read_exact(&mut skipped).map_err(failed)?;
        let mut known = Checked {
            digest: ContentHasher::new(size),
            size,
            at: 0,
            good: head,
            end: self.end,
            next: None,
            wrong: false,
            reader,
        };
        known.advance().map_err(failed)?;
        let last = self.last_window(size)?;
        let pass = Pass::over([image], work).within(PageRange::covering(0, last));
        pass.run(
            pass.windows(()),
            all_needed,
            |[mut window], ()| {
                window.read()?;
                Ok(window.hashes(size))
            },
            |range, hashes| known.take(range.start(), &hashes).map_err(failed),
        )?;
        known.zeros_until(u64::MAX).map_err(failed)?;
        let (at, digest, good) = (known.at, known.digest, known.good);
        self.end = good;
        Ok((at, digest))
    }

    /// The end of the last window in the record.
    fn last_window(&self, size: u64) -> Result<u64> {
        let mut record = [0; RECORD];
        let at = self.end.saturating_sub(RECORD as u64);
        self.record.read_exact_at(&mut record, at)?;
        let start = BigEndian::read_u64(&record);
        Ok(start.saturating_add(WINDOW_SIZE).min(size))
    }
}

/// Compares records with what is there, in order.
struct Checked<R> {
    digest: ContentHasher,
    size: u64,
    /// The end of the last window that is as recorded.
    at: u64,
    /// The end of its record.
    good: u64,
    /// The end of all records.
    end: u64,
    next: Option<(u64, WindowHashes)>,
    wrong: bool,
    reader: R,
}

impl<R: std::io::Read> Checked<R> {
    /// Reads the next record.
    fn advance(&mut self) -> std::io::Result<()> {
        self.next = None;
        if self.wrong || self.good >= self.end {
            return Ok(());
        }
        let mut record = [0; RECORD];
        self.reader.read_exact(&mut record)?;
        let start = BigEndian::read_u64(&record);
        if start < self.at || start >= self.size || !start.is_multiple_of(WINDOW_SIZE) {
            self.wrong = true;
            return Ok(());
        }
        let parts = lens(start, self.size).count();
        let mut hashes = WindowHashes::default();
        for hash in record[16..].chunks(32).take(parts) {
            let mut one = Hash::default();
            one.copy_from_slice(hash);
            hashes.append(one.into());
        }
        self.next = Some((start, hashes));
        Ok(())
    }

    /// The record is right.
    fn accept(&mut self, start: u64, hashes: &WindowHashes) -> std::io::Result<()> {
        self.digest.push(start, hashes);
        self.at = start.saturating_add(WINDOW_SIZE).min(self.size);
        self.good = self.good.saturating_add(RECORD as u64);
        self.advance()
    }

    /// There are only zeros before `end`.
    fn zeros_until(&mut self, end: u64) -> std::io::Result<()> {
        while let Some((start, hashes)) = self.next.take_if(|(start, _)| *start < end) {
            let zeros = lens(start, self.size).map(zero_hash);
            if self.wrong || !zeros.eq(hashes.as_slice().iter().copied()) {
                self.wrong = true;
                break;
            }
            self.accept(start, &hashes)?;
        }
        Ok(())
    }

    /// The window at `start` has these hashes.
    fn take(&mut self, start: u64, found: &WindowHashes) -> std::io::Result<()> {
        self.zeros_until(start)?;
        if self.wrong {
            return Ok(());
        }
        if let Some((_, hashes)) = self
            .next
            .take_if(|(next, hashes)| *next == start && hashes == found)
        {
            return self.accept(start, &hashes);
        }
        let zeros = lens(start, self.size).map(zero_hash);
        // Data that nothing is recorded of, or other data.
        self.wrong = self.next.as_ref().is_some_and(|(next, _)| *next == start)
            || !zeros.eq(found.as_slice().iter().copied());
        Ok(())
    }
}

/// The lengths of the digest windows of the window at `start`.
fn lens(start: u64, size: u64) -> impl Iterator<Item = u64> {
    let end = start.saturating_add(WINDOW_SIZE).min(size);
    let parts = (start..end).step_by(usize::try_from(DIGEST_WINDOW).unwrap_or(usize::MAX));
    parts.map(move |at| (end - at).min(DIGEST_WINDOW))
}
