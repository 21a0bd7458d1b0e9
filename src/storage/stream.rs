//! Sequential access to files, for code that takes a [`std::io::Read`] or a [`std::io::Write`].

use std::io::{self, Read};

use super::sealed::as_io;
use super::{File, ReadAt as _, system};
use crate::page::to_usize;
use crate::parallel::Buffer;

/// Bytes that are buffered before they are written: an efficient size for a device.
const PIECE: usize = 1 << 20;

/// From this offset on, data is written past the page cache if possible. Small files go through it: that is faster than
/// a device, and they are likely to be read again soon.
const DIRECT_FROM: u64 = 32 << 20;

/// Reads a file sequentially.
#[derive(Debug)]
pub struct Reader<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.file.is_sealed() {
            let left = self
                .file
                .byte_len()
                .map_err(as_io)?
                .saturating_sub(self.offset);
            let now = buf.len().min(to_usize(left));
            let buf = buf.get_mut(..now).unwrap_or_default();
            self.file.read_exact_at(buf, self.offset).map_err(as_io)?;
            self.offset += now as u64;
            return Ok(now);
        }
        let read = system::read_at(self.file.as_std(), self.file.path(), buf, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Writes a file sequentially, in large pieces. Data is in the file only after a flush.
#[derive(Debug)]
pub struct Appender<'a> {
    file: &'a File,
    /// Offset of the buffered bytes.
    offset: u64,
    gathered: Buffer,
    len: usize,
}

impl File {
    /// A reader that starts at offset 0.
    pub fn reader(&self) -> Reader<'_> {
        Reader {
            file: self,
            offset: 0,
        }
    }

    /// A writer that starts at offset 0. It is buffered already.
    pub fn appender(&self) -> Appender<'_> {
        Appender {
            file: self,
            offset: 0,
            gathered: Buffer::default(),
            len: 0,
        }
    }
}

impl Appender<'_> {
    /// Writes everything from `from`, and flushes. Returns the number of bytes.
    pub fn take_all(&mut self, from: &mut (impl Read + ?Sized)) -> io::Result<u64> {
        let mut taken = 0;
        loop {
            let read = match from.read(self.room()) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            taken += read as u64;
            self.gathered(read)?;
        }
        io::Write::flush(self)?;
        Ok(taken)
    }

    /// The free part of the buffer, empty when the piece is full. A piece ends at a multiple of its size in the file.
    fn room(&mut self) -> &mut [u8] {
        let before = to_usize(self.offset % PIECE as u64);
        if self.gathered.is_empty() {
            self.gathered = Buffer::new(PIECE);
        }
        self.gathered
            .get_mut(self.len..PIECE - before)
            .unwrap_or_default()
    }

    /// Records that `len` bytes were added to the buffer.
    fn gathered(&mut self, len: usize) -> io::Result<()> {
        self.len += len;
        if self.room().is_empty() {
            self.write_out()?;
        }
        Ok(())
    }

    fn write_out(&mut self) -> io::Result<()> {
        let bytes = self
            .gathered
            .get(..self.len)
            .ok_or(io::ErrorKind::InvalidData)?;
        if self.offset >= DIRECT_FROM {
            self.file.write_at(bytes, self.offset)?;
        } else {
            self.file.write_through(bytes, self.offset)?;
        }
        self.offset += bytes.len() as u64;
        self.len = 0;
        Ok(())
    }
}

impl io::Write for Appender<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let room = self.room();
        let now = room.len().min(buf.len());
        let (Some(to), Some(from)) = (room.get_mut(..now), buf.get(..now)) else {
            return Ok(0);
        };
        to.copy_from_slice(from);
        self.gathered(now)?;
        Ok(now)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.len > 0 {
            self.write_out()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::storage::{AtomicFile, Overwrite};

    /// Each byte depends on its offset.
    fn bytes(at: usize, len: usize) -> Vec<u8> {
        (at..at + len).map(|n| (n / 509).to_be_bytes()[7]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn what_is_written_in_pieces_is_there_as_a_whole(
            lens in prop::collection::vec(prop_oneof![0..600_usize, 0..3 * PIECE], 0..40),
            flushed in any::<u64>(),
        ) {
            let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
            let file = AtomicFile::new(folder.path().join("file")).unwrap();
            let mut out = file.file().appender();
            let mut written = 0;
            for (n, len) in lens.into_iter().enumerate() {
                let piece = bytes(written, len);
                if n % 3 == 2 {
                    prop_assert_eq!(out.take_all(&mut &piece[..]).unwrap(), len as u64);
                } else {
                    out.write_all(&piece).unwrap();
                }
                written += len;
                if flushed >> (n % 64) & 1 == 1 {
                    out.flush().unwrap();
                    prop_assert_eq!(file.file().metadata().unwrap().len(), written as u64);
                }
            }
            out.flush().unwrap();
            drop(out);
            file.publish(Overwrite::No).unwrap();
            let found = fs::read(folder.path().join("file")).unwrap();
            prop_assert!(found == bytes(0, written));
        }
    }
}
