//! Files without holes, for systems that refuse sparse images: Windows and services that run on it.
//!
//! A hole isn't only unallocated space. Space that was reserved but never written reads as zeros as well, and tools
//! that copy files by their data (`SEEK_DATA`) turn it into a hole. So zeros are actually written.

use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{SeekFrom, fstatvfs, seek};
use rustix::io::Errno;

use super::{File, ReadAt as _, WriteAt as _, system};
use crate::error::{Error, ErrorKind, Result};
use crate::page::{is_zero, part, part_mut, to_usize};
use crate::parallel::Buffer;
use crate::progress::Progress;
use crate::remedy::{Choice, Remedy, Step};

/// Bytes written at a time.
const PIECE: u64 = 1 << 20;

/// The unit in which file systems report allocated space, in bytes.
const BLOCK: u64 = 512;

/// File systems may store files smaller than this inline in their metadata, where they take no blocks.
const SMALLEST: u64 = 8 << 10;

impl File {
    /// Another handle to the same open file, through which zeroed ranges stay allocated.
    #[must_use]
    pub fn keeping_space(&self) -> Self {
        let mut handle = self.another_handle();
        handle.keeps_space = true;
        handle
    }

    /// Reserves space for all `len` bytes of the file. Where the file system can't reserve space, only checks that
    /// enough is free. Nothing is written.
    pub fn reserve(&self, len: u64) -> Result<()> {
        if self.is_block_device() || len == 0 {
            return Ok(());
        }
        let reserved = system::allocate(self.as_std(), self.path(), 0..len);
        match reserved.map_err(|e| (Errno::from_io_error(&e), e)) {
            Ok(()) => Ok(()),
            Err((Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL), _)) => {
                self.check_room_for(len)
            }
            Err((_, e)) => {
                let found = format!("{len} bytes to be stored without holes");
                let error = Error::io("cannot reserve the space of", e);
                Err(error.with_path(self.path()).with_found(found))
            }
        }
    }

    /// Fails if the file system doesn't have enough free space to store `len` bytes of this file without holes.
    pub fn check_room_for(&self, len: u64) -> Result<()> {
        if self.is_block_device() {
            return Ok(());
        }
        let needed = len.saturating_sub(self.allocated()?);
        let Ok(there) = fstatvfs(self.as_std()) else {
            return Ok(());
        };
        // Counts blocks reserved for root, too.
        let free = there.f_bfree.saturating_mul(there.f_frsize);
        if needed <= free {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Io,
            "there is no space for this file without holes",
        )
        .with_path(self.path())
        .with_found(format_args!("{free} bytes free"))
        .with_expected(format_args!("{needed} bytes"))
        .with_remedy(
            Remedy::new("free some space or choose another place, or ")
                .named("omit ")
                .step(Step::Choose(Choice::Dense), "let it have holes"),
        ))
    }

    /// Writes zeros into all holes of the file and syncs it. The file reads the same at any moment.
    ///
    /// # Errors
    ///
    /// Fails if the file still has holes afterwards: some file systems store zeros as holes.
    pub fn fill_holes(&self, progress: &dyn Progress) -> Result<()> {
        if self.is_block_device() {
            return Ok(());
        }
        let len = self.byte_len()?;
        self.check_room_for(len)?;
        progress.begin("filling holes", len);
        let zeros = Buffer::new(to_usize(PIECE));
        let mut at = 0;
        while let Some((hole, end)) = self.next_hole(at, len)? {
            progress.advance(hole - at);
            self.write_zeros(hole, end, &zeros, progress)?;
            at = end;
        }
        progress.advance(len - at);
        self.sync()?;
        if len >= SMALLEST && self.allocated()? < len {
            // The file system doesn't report all of its holes.
            self.write_zeros_again(len, &zeros, progress)?;
            self.sync()?;
        }
        let allocated = self.allocated()?;
        if len < SMALLEST || allocated >= len {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Io,
            "the file system stores zeros as holes, so there can't be a file without them",
        )
        .with_path(self.path())
        .with_found(format_args!("{allocated} bytes stored"))
        .with_expected(format_args!("{len} bytes"))
        .with_remedy(
            Remedy::new("choose a place on another file system, or ")
                .named("omit ")
                .step(Step::Choose(Choice::Dense), "let it have holes"),
        ))
    }

    /// Bytes allocated for the file.
    fn allocated(&self) -> Result<u64> {
        Ok(self.metadata()?.blocks().saturating_mul(BLOCK))
    }

    /// The first hole at or after `at`, cut at `len`.
    fn next_hole(&self, at: u64, len: u64) -> Result<Option<(u64, u64)>> {
        if at >= len {
            return Ok(None);
        }
        let file = self.as_std();
        let hole = match seek(file, SeekFrom::Hole(at)) {
            Ok(hole) if hole < len => hole.max(at),
            // Or the file system doesn't report holes.
            Ok(_) | Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(e) => {
                return Err(Error::io("cannot look for holes in", e.into()).with_path(self.path()));
            }
        };
        let end = match seek(file, SeekFrom::Data(hole)) {
            Ok(data) => data.min(len),
            Err(Errno::NXIO) => len,
            Err(e) => {
                return Err(Error::io("cannot look for holes in", e.into()).with_path(self.path()));
            }
        };
        Ok((hole < end).then_some((hole, end)))
    }

    fn write_zeros(
        &self,
        start: u64,
        end: u64,
        zeros: &[u8],
        progress: &dyn Progress,
    ) -> Result<()> {
        let mut at = start;
        while at < end {
            progress.check()?;
            let piece = (PIECE - at % PIECE).min(end - at);
            self.write_all_at(part(zeros, ..to_usize(piece))?, at)?;
            progress.advance(piece);
            at += piece;
        }
        Ok(())
    }

    /// Reads the whole file and writes all zeros in it again.
    fn write_zeros_again(&self, len: u64, zeros: &[u8], progress: &dyn Progress) -> Result<()> {
        progress.begin("filling holes", len);
        let mut buffer = Buffer::new(to_usize(PIECE));
        let mut at = 0;
        while at < len {
            progress.check()?;
            let now = (len - at).min(PIECE);
            let piece = part_mut(&mut buffer, ..to_usize(now))?;
            self.read_exact_at(piece, at)?;
            if is_zero(piece) {
                self.write_all_at(part(zeros, ..to_usize(now))?, at)?;
            }
            progress.advance(now);
            at += now;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::progress::Silent;

    #[test]
    fn holes_and_reserved_space_become_written_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"").unwrap();
        let file = File::open_writable(&path).unwrap();
        let len = (5 << 20) + 512;
        file.set_len(len).unwrap();
        file.write_all_at(&[7; 9000], 2 << 20).unwrap();
        let before = fs::read(&path).unwrap();
        file.reserve(len).unwrap();
        file.fill_holes(&Silent).unwrap();
        assert!(fs::read(&path).unwrap() == before);
        assert_eq!(file.next_hole(0, len).unwrap(), None);
        assert!(file.allocated().unwrap() >= len);
        // Ranges zeroed through this handle stay allocated.
        let handle = file.keeping_space();
        handle.write_zeros_at(1 << 20..3 << 20).unwrap();
        handle.sync().unwrap();
        assert!(file.allocated().unwrap() >= len);
        assert!(fs::read(&path).unwrap() == vec![0; before.len()]);
        file.fill_holes(&Silent).unwrap();
        assert_eq!(file.next_hole(0, len).unwrap(), None);
    }

    #[test]
    fn what_has_no_room_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"").unwrap();
        let file = File::open_writable(&path).unwrap();
        assert!(file.check_room_for(1 << 60).is_err());
        assert!(file.reserve(1 << 60).is_err());
        assert!(file.allocated().unwrap() < 1 << 20);
    }
}
