//! Stored lists of window hashes: a fingerprint of a virtual disk, 40 bytes for each nonzero mebibyte.
//!
//! ```text
//! "vhdkit windows 1"   16 bytes
//! virtual size          8 bytes, big-endian
//! window number         8 bytes, big-endian  ┐ for each window that isn't zero, ascending;
//! BLAKE3 of the window 32 bytes              ┘ a window is DIGEST_WINDOW bytes
//! content digest       32 bytes
//! ```
//!
//! The list needs no checksum: the content digest is computed from nothing but the virtual size and these hashes, so a
//! list that yields the expected digest is correct.

use std::io::{BufReader, Read, Write};
use std::path::PathBuf;

use byteorder::{BigEndian, ByteOrder};

use super::window_hash::zero_hash;
use super::{
    ContentDigest, ContentHasher, DIGEST_WINDOW, Hash, MAX_VIRTUAL_SIZE, WINDOW_SIZE, WindowHashes,
};
use crate::error::{Error, Result};
use crate::page::to_usize;
use crate::storage::ReadAt;

const LABEL: &[u8; 16] = b"vhdkit windows 1";
const HEAD: usize = 24;
const RECORD: usize = 40;
const TAIL: usize = 32;

/// Number of digest windows in a window.
const PARTS: usize = (WINDOW_SIZE / DIGEST_WINDOW) as usize;

/// The entries of a list for one window of [`WINDOW_SIZE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedWindow {
    /// First byte of the window.
    pub start: u64,
    /// The hashes of its digest windows; `None` for zeros.
    pub hashes: [Option<Hash>; PARTS],
}

/// Writes a list sequentially.
#[derive(Debug)]
pub struct WindowListWriter<W> {
    out: W,
    name: PathBuf,
    virtual_size: u64,
    digest: ContentHasher,
}

impl<W: Write> WindowListWriter<W> {
    /// Begins the list of a disk of `virtual_size` bytes. Messages call `out` `name`.
    pub fn new(out: W, name: impl Into<PathBuf>, virtual_size: u64) -> Result<Self> {
        let mut writer = Self {
            out,
            name: name.into(),
            virtual_size,
            digest: ContentHasher::new(virtual_size),
        };
        writer.write(LABEL)?;
        writer.write(&virtual_size.to_be_bytes())?;
        Ok(writer)
    }

    /// Adds the windows from `start` on, in ascending order. Windows that are zero or beyond the end are skipped.
    pub fn push(&mut self, start: u64, hashes: &WindowHashes) -> Result<()> {
        self.digest.push(start, hashes);
        for (n, hash) in hashes.as_slice().iter().enumerate() {
            let at = start.saturating_add(DIGEST_WINDOW.saturating_mul(n as u64));
            let len = self.virtual_size.saturating_sub(at).min(DIGEST_WINDOW);
            if len > 0 && *hash != zero_hash(len) {
                let mut record = [0; RECORD];
                BigEndian::write_u64(&mut record, at / DIGEST_WINDOW);
                record[8..].copy_from_slice(hash);
                self.write(&record)?;
            }
        }
        Ok(())
    }

    /// Ends the list. Returns the content digest that follows from it.
    pub fn finish(mut self) -> Result<ContentDigest> {
        let hasher = std::mem::replace(&mut self.digest, ContentHasher::new(0));
        let digest = hasher.finish();
        self.write(&digest.0)?;
        self.out
            .flush()
            .map_err(|e| Error::io("cannot write", e).with_path(&self.name))?;
        Ok(digest)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out
            .write_all(bytes)
            .map_err(|e| Error::io("cannot write", e).with_path(&self.name))
    }
}

/// The number of nonzero windows in a list of `len` bytes.
pub const fn windows_in(len: u64) -> u64 {
    len.saturating_sub((HEAD + TAIL) as u64) / RECORD as u64
}

/// A list that has been read and verified.
#[derive(Debug)]
pub struct WindowList<S> {
    storage: S,
    virtual_size: u64,
    count: u64,
    digest: ContentDigest,
}

impl<S: ReadAt> WindowList<S> {
    /// Reads the list and verifies that its hashes yield the digest at its end.
    pub fn open(storage: S) -> Result<Self> {
        let damaged = |what: &str| Error::damaged(what.to_owned()).with_path(storage.name());
        let len = storage.byte_len()?;
        let body = len.checked_sub((HEAD + TAIL) as u64);
        let count = body.filter(|body| body.is_multiple_of(RECORD as u64));
        let Some(count) = count.map(|body| body / RECORD as u64) else {
            return Err(damaged(
                "this is not a list of window hashes, or it was truncated",
            ));
        };
        let mut head = [0; HEAD];
        storage.read_exact_at(&mut head, 0)?;
        if !head.starts_with(LABEL) {
            return Err(damaged(
                "this is not a list of window hashes of a supported version",
            ));
        }
        let virtual_size = BigEndian::read_u64(&head[16..]);
        // Checked before anything is computed: the digest of an endless disk would never be finished.
        if virtual_size > MAX_VIRTUAL_SIZE {
            return Err(
                damaged("the list of window hashes is for an impossibly large disk")
                    .with_offset(LABEL.len() as u64)
                    .with_found(format_args!("{virtual_size} bytes")),
            );
        }
        let mut tail = [0; TAIL];
        storage.read_exact_at(&mut tail, len - TAIL as u64)?;
        let list = Self {
            virtual_size,
            count,
            digest: ContentDigest(tail),
            storage,
        };
        let mut digest = ContentHasher::new(list.virtual_size);
        let mut expected = 0;
        for record in list.records() {
            let (number, hash) = record?;
            let last = list.virtual_size.div_ceil(DIGEST_WINDOW);
            if number < expected || number >= last {
                return Err(Error::damaged("the list of window hashes is out of order")
                    .with_path(list.storage.name())
                    .with_found(format_args!("window {number}"))
                    .with_expected(format_args!("from {expected}, below {last}")));
            }
            expected = number + 1;
            digest.push(number.saturating_mul(DIGEST_WINDOW), &hash.into());
        }
        let found = digest.finish();
        if found != list.digest {
            return Err(Error::damaged("the list of window hashes was changed")
                .with_path(list.storage.name())
                .with_field("content digest")
                .with_found(found)
                .with_expected(list.digest));
        }
        Ok(list)
    }

    /// The storage that it was read from.
    pub fn into_storage(self) -> S {
        self.storage
    }

    /// The number of nonzero windows in the list.
    pub fn windows_listed(&self) -> u64 {
        self.count
    }

    /// Size of the disk in bytes.
    pub fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// The content digest of the disk.
    pub fn digest(&self) -> ContentDigest {
        self.digest
    }

    /// Iterates over the windows that aren't all zero, in order.
    pub fn windows(&self) -> impl Iterator<Item = Result<ListedWindow>> + '_ {
        let mut records = self.records().peekable();
        std::iter::from_fn(move || {
            let (number, hash) = match records.next()? {
                Ok(record) => record,
                Err(error) => return Some(Err(error)),
            };
            let first = number - number % PARTS as u64;
            let mut window = ListedWindow {
                start: first.saturating_mul(DIGEST_WINDOW),
                hashes: [None; PARTS],
            };
            let mut put = |number: u64, hash| {
                let slot = usize::try_from(number - first).ok();
                if let Some(slot) = slot.and_then(|n| window.hashes.get_mut(n)) {
                    *slot = Some(hash);
                }
            };
            put(number, hash);
            let within = |record: &Result<(u64, Hash)>| matches!(record, Ok((next, _)) if next.saturating_sub(first) < PARTS as u64);
            while let Some(Ok((number, hash))) = records.next_if(within) {
                put(number, hash);
            }
            Some(Ok(window))
        })
    }

    /// Iterates over the hashes of the digest windows that aren't all zero, in order, each with the first byte of its
    /// window.
    pub fn hashes(&self) -> impl Iterator<Item = Result<(u64, Hash)>> + '_ {
        let records = self.records();
        records
            .map(|record| record.map(|(number, hash)| (number.saturating_mul(DIGEST_WINDOW), hash)))
    }

    fn records(&self) -> impl Iterator<Item = Result<(u64, Hash)>> + '_ {
        let mut reader = BufReader::with_capacity(
            1 << 16,
            Positioned {
                storage: &self.storage,
                offset: HEAD as u64,
                end: HEAD as u64 + RECORD as u64 * self.count,
            },
        );
        let mut left = self.count;
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let mut record = [0; RECORD];
            if let Err(e) = reader.read_exact(&mut record) {
                left = 0;
                return Some(Err(
                    Error::io("cannot read", e).with_path(self.storage.name())
                ));
            }
            let mut hash = Hash::default();
            hash.copy_from_slice(&record[8..]);
            Some(Ok((BigEndian::read_u64(&record), hash)))
        })
    }
}

/// A part of a storage as a stream.
struct Positioned<'a, S> {
    storage: &'a S,
    offset: u64,
    end: u64,
}

impl<S: ReadAt> Read for Positioned<'_, S> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let left = to_usize(self.end - self.offset);
        let len = left.min(buf.len());
        self.storage
            .read_exact_at(&mut buf[..len], self.offset)
            .map_err(std::io::Error::other)?;
        self.offset += len as u64;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{RawImage, content_digest, window_hashes};
    use crate::parallel::Workers;
    use crate::progress::Silent;
    use crate::storage::Memory;

    fn listed(disk: &RawImage<Memory>) -> Vec<u8> {
        let workers = Workers::new(None).unwrap();
        let size = disk.storage().byte_len().unwrap();
        let mut bytes = Vec::new();
        let mut writer = WindowListWriter::new(&mut bytes, "list", size).unwrap();
        let digest =
            window_hashes(disk, &workers, &Silent, |start, h| writer.push(start, h)).unwrap();
        assert_eq!(writer.finish().unwrap(), digest);
        assert_eq!(digest, content_digest(disk, &workers, &Silent).unwrap());
        bytes
    }

    #[test]
    fn a_list_comes_back_as_it_was_and_any_flipped_byte_is_found() {
        let mut disk = vec![0; (11 << 20) + 512];
        for at in [5, 3 << 20, (9 << 20) + 7, 11 << 20] {
            disk[at] = 1;
        }
        let disk = RawImage::open(Memory::new(disk)).unwrap();
        let bytes = listed(&disk);
        let list = WindowList::open(Memory::new(bytes.clone())).unwrap();
        let windows: Vec<_> = list.windows().collect::<Result<_>>().unwrap();
        let known: Vec<_> = windows
            .iter()
            .map(|w| (w.start >> 20, w.hashes.map(|h| h.is_some())))
            .collect();
        assert_eq!(
            known,
            [
                (0, [true, false, false, true]),
                (8, [false, true, false, true])
            ]
        );
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(WindowList::open(Memory::new(bad)).is_err(), "{at}");
        }
        for len in 0..bytes.len() {
            assert!(WindowList::open(Memory::new(bytes[..len].to_vec())).is_err());
        }
    }
}
