//! Direct I/O, past the page cache: faster on most devices, and doesn't evict other programs' pages.

use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{Advice, OFlags, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::system;
use crate::page::to_usize;

/// Alignment of direct I/O, in the file and in memory: sufficient for every device.
const ALIGN: u64 = 4096;

/// Smaller writes go through the cache, which coalesces them.
const SMALLEST_WRITE: usize = 256 << 10;

/// Smaller reads go through the cache: they are of tables and will be repeated.
const SMALLEST: usize = 64 << 10;

/// Bytes of one read.
const PIECE: u64 = 1 << 20;

/// The cache is probed once per piece of the file of this size.
const PROBED: u64 = 4 << 20;

/// The number of cached probe results.
const VERDICTS: usize = 64;

thread_local! {
    /// Scratch space for one piece, suitably aligned for a device.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Direct reads of one file.
#[derive(Debug)]
pub(super) struct DirectReads {
    file: fs::File,
    /// A descriptor for probing the cache. Without it, everything is read directly.
    probe: Option<fs::File>,
    /// Probe results of pieces, by their number modulo the length: twice the number, plus one if the piece is cold.
    verdicts: [AtomicU64; VERDICTS],
    /// Set when direct I/O turns out not to be supported.
    refused: AtomicBool,
}

impl DirectReads {
    /// Prepares direct reads of `file`; with `cold_only`, only of what isn't in the page cache. Returns `None` if that
    /// isn't possible.
    pub(super) fn new(file: &fs::File, cold_only: bool) -> Option<Self> {
        let probe = || {
            let probe = reopen(file, OFlags::empty(), false).ok()?;
            // A probe must not trigger readahead.
            fadvise(&probe, 0, None, Advice::Random).ok()?;
            Some(probe)
        };
        Some(Self {
            file: reopen(file, OFlags::DIRECT, false).ok()?,
            probe: if cold_only { Some(probe()?) } else { None },
            verdicts: [const { AtomicU64::new(u64::MAX) }; VERDICTS],
            refused: AtomicBool::new(false),
        })
    }

    /// Fills `buf` from `offset`. Returns `false` if the caller should use the page cache instead.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> bool {
        if buf.len() < SMALLEST || self.refused.load(Ordering::Relaxed) || !self.is_cold(offset) {
            return false;
        }
        let done = SCRATCH.with_borrow_mut(|scratch| {
            let mut at = offset;
            let mut rest = &mut *buf;
            while !rest.is_empty() {
                let read = self.read_piece(scratch, rest, at)?;
                at += read as u64;
                rest = rest.get_mut(read..).ok_or(io::ErrorKind::InvalidData)?;
            }
            io::Result::Ok(())
        });
        if let Err(error) = &done {
            let unable = error.raw_os_error() == Some(Errno::INVAL.raw_os_error());
            self.refused.fetch_or(unable, Ordering::Relaxed);
        }
        done.is_ok()
    }

    /// Reads the beginning of `buf`, up to one piece.
    fn read_piece(&self, scratch: &mut Vec<u8>, buf: &mut [u8], at: u64) -> io::Result<usize> {
        if at.is_multiple_of(ALIGN) && is_aligned(buf) {
            let whole = buf.len() - buf.len() % to_usize(ALIGN);
            let room = buf.get_mut(..whole).filter(|room| !room.is_empty());
            if let Some(room) = room {
                return match self.file.read_at(room, at)? {
                    0 => Err(io::ErrorKind::UnexpectedEof.into()),
                    read => Ok(read),
                };
            }
        }
        let start = at - at % ALIGN;
        let before = to_usize(at - start);
        let len = (buf.len() + before)
            .next_multiple_of(to_usize(ALIGN))
            .min(to_usize(PIECE));
        scratch.resize(to_usize(PIECE + ALIGN), 0);
        let shift = scratch.as_ptr().align_offset(to_usize(ALIGN));
        let room = scratch
            .get_mut(shift..)
            .and_then(|room| room.get_mut(..len));
        let room = room.ok_or(io::ErrorKind::OutOfMemory)?;
        let read = self.file.read_at(room, start)?;
        let found = room.get(before..read).unwrap_or_default();
        let taken = found.len().min(buf.len());
        match (buf.get_mut(..taken), found.get(..taken)) {
            (Some(to), Some(from)) if taken > 0 => to.copy_from_slice(from),
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(taken)
    }

    /// Returns whether the data around `offset` is not in the page cache.
    pub(super) fn is_cold(&self, offset: u64) -> bool {
        let Some(probe) = &self.probe else {
            return true;
        };
        let piece = offset / PROBED;
        let slot = to_usize(piece % VERDICTS as u64);
        let Some(verdict) = self.verdicts.get(slot) else {
            return false;
        };
        let known = verdict.load(Ordering::Relaxed);
        if known / 2 == piece {
            return known % 2 == 1;
        }
        let mut byte = [0];
        let asked = preadv2(
            probe,
            &mut [io::IoSliceMut::new(&mut byte)],
            offset,
            ReadWriteFlags::NOWAIT,
        );
        let cold = matches!(asked, Err(Errno::AGAIN));
        if cold {
            // The probe itself loads a page; drop it so that the next probe isn't misled.
            let _ = fadvise(
                probe,
                offset,
                std::num::NonZeroU64::new(1),
                Advice::DontNeed,
            );
        }
        verdict.store(piece * 2 + u64::from(cold), Ordering::Relaxed);
        cold
    }
}

/// Direct writes to one new file.
#[derive(Debug)]
pub(super) struct DirectWrites {
    file: fs::File,
    /// Set if direct I/O isn't supported or was turned off.
    refused: AtomicBool,
}

impl DirectWrites {
    /// Prepares direct writes to `file`. Returns `None` if that isn't possible.
    pub(super) fn new(file: &fs::File) -> Option<Self> {
        Some(Self {
            file: reopen(file, OFlags::DIRECT, true).ok()?,
            refused: AtomicBool::new(false),
        })
    }

    /// Turns direct writes off: everything goes through the cache from now on.
    pub(super) fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Writes as much of the beginning of `bytes` as is better written directly, and returns its length.
    pub(super) fn write(&self, path: &Path, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let len = bytes.len() - bytes.len() % to_usize(ALIGN);
        let suits = len >= SMALLEST_WRITE && offset.is_multiple_of(ALIGN) && is_aligned(bytes);
        if !suits || self.refused.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let whole = bytes.get(..len).ok_or(io::ErrorKind::InvalidInput)?;
        match system::write_all_at(&self.file, path, whole, offset) {
            Ok(()) => Ok(len),
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                self.refuse();
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }
}

/// Returns whether the address and length of a buffer suit direct I/O.
fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().align_offset(to_usize(ALIGN)) == 0
}

/// Reopens the file so that flags and advice don't affect the caller's descriptor.
fn reopen(file: &fs::File, flags: OFlags, write: bool) -> io::Result<fs::File> {
    let again = OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(flags.bits().cast_signed())
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let [one, two] = [file.metadata()?, again.metadata()?];
    if (one.dev(), one.ino()) == (two.dev(), two.ino()) {
        Ok(again)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Buffers;
    use crate::storage::{AtomicFile, Overwrite, WriteAt as _};

    #[test]
    fn direct_reads_give_the_bytes_of_the_file() {
        // Next to the sources: the temporary folder may be in memory, where direct reads aren't possible.
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let bytes: Vec<u8> = (0..5_000_777_u32)
            .map(|n| (n ^ n >> 9).to_be_bytes()[3])
            .collect();
        io::Write::write_all(&mut file, &bytes).unwrap();
        file.sync_all().unwrap();
        let buffers = Buffers::new();
        for cold_only in [false, true] {
            let Some(reads) = DirectReads::new(&file, cold_only) else {
                // The file system doesn't support direct reads.
                return;
            };
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
            let mut direct = 0;
            for (start, len) in [
                (0, 262_144),
                (262_144, 262_144),
                (1_000_001, 70_003),
                (511, 3_000_000),
                (4096, 65_535),
                (4_900_000, 100_777),
                (5_000_776, 1),
                (4_200_000, 800_777),
            ] {
                // Where memory and offset are aligned, data is read directly into the buffer.
                let mut found = buffers.take(len);
                if reads.read(&mut found, start) {
                    let at = to_usize(start);
                    assert!(found[..] == bytes[at..at + len], "{start} {len}");
                    direct += 1;
                }
                buffers.give(found);
            }
            // Small reads are never direct; cold ranges may have been read into the cache by someone else.
            let all = !reads.refused.load(Ordering::Relaxed) && !cold_only;
            assert!(!all || direct == 6, "{direct}");
            // Reads past the end are left to the caller, which reports the error.
            assert!(!reads.read(&mut vec![0; 100_000], 4_950_000));
            assert!(!reads.read(&mut vec![0; 100_000], 1 << 40));
        }
    }

    #[test]
    fn what_was_just_written_is_read() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all_at(&vec![1; 200_000], 0).unwrap();
        let Some(reads) = DirectReads::new(&file, false) else {
            return;
        };
        for round in 2..20 {
            file.write_all_at(&vec![round; 100_000], 50_000).unwrap();
            let mut found = vec![0; 200_000];
            if reads.read(&mut found, 0) {
                assert!(
                    found[..50_000] == vec![1; 50_000]
                        && found[50_000..150_000] == vec![round; 100_000]
                );
            }
        }
    }

    #[test]
    fn direct_writes_and_others_make_one_file() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let [past, through] = ["past", "through"].map(|name| folder.path().join(name));
        let buffers = Buffers::new();
        let mut pieces = buffers.take(3 << 20);
        for (n, byte) in pieces.iter_mut().enumerate() {
            *byte = (n / 4096 + n).to_be_bytes()[7];
        }
        let writes = [
            (0, 0..1 << 20),
            // A length that isn't a whole number of blocks, an overwrite of recent data, and unaligned offsets.
            (512 << 10, 4096..(1 << 20) + 5000),
            (3 << 20, 8..700_000),
            ((4 << 20) + 512, 0..600_000),
            (6 << 20, 0..3 << 20),
            (7 << 20, 0..4096),
        ];
        let mut done = [0, 0];
        for (n, path) in [&past, &through].into_iter().enumerate() {
            let new = AtomicFile::new(path).unwrap();
            if n == 1 {
                new.file().write_through_cache();
            }
            // Where direct I/O isn't supported, both are written in the same way.
            if let Some(direct) = DirectWrites::new(new.file().as_std()) {
                done[n] = direct.write(path, &pieces[..1 << 20], 0).unwrap();
            }
            for (at, bytes) in &writes {
                new.file()
                    .write_all_at(&pieces[bytes.clone()], *at)
                    .unwrap();
            }
            new.publish(Overwrite::No).unwrap();
        }
        assert!(done.iter().all(|done| [0, 1 << 20].contains(done)));
        assert!(fs::read(past).unwrap() == fs::read(through).unwrap());
    }
}
