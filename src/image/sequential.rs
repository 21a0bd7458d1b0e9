//! A new image that is written sequentially into a pipe.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Extents, Image, ImageMut, check_update};
use crate::error::{Error, Result};
use crate::page::PageRange;

/// Zeros, written a piece at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Writes a virtual disk into a pipe. Skipped ranges are written as zeros. Nothing can be written before the current
/// position, or read back.
#[derive(Debug)]
pub struct Sequential<W> {
    out: W,
    name: PathBuf,
    virtual_size: u64,
    at: u64,
}

impl<W: Write> Sequential<W> {
    /// Begins a disk of `virtual_size` bytes. Messages call `out` `name`.
    pub fn new(out: W, name: impl Into<PathBuf>, virtual_size: u64) -> Self {
        Self {
            out,
            name: name.into(),
            virtual_size,
            at: 0,
        }
    }

    /// Writes zeros up to `end`.
    fn zeros_to(&mut self, end: u64) -> Result<()> {
        while self.at < end {
            let piece = PageRange::covering(self.at, end.min(self.at + ZEROS.len() as u64));
            let zeros = ZEROS.get(..piece.buffer_len()).unwrap_or(&ZEROS);
            write(&mut self.out, &self.name, zeros)?;
            self.at = piece.end();
        }
        Ok(())
    }

    /// Fills the rest of the disk with zeros, and returns the writer.
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) if the reader of the pipe didn't take all of it.
    pub fn finish(mut self) -> Result<W> {
        self.zeros_to(self.virtual_size)?;
        self.out.flush().map_err(|e| failed(e, &self.name))?;
        Ok(self.out)
    }
}

fn write(out: &mut impl Write, name: &Path, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).map_err(|e| failed(e, name))
}

fn failed(error: std::io::Error, name: &Path) -> Error {
    Error::io("cannot write", error).with_path(name)
}

impl<W: Write + Send + Sync> Image for Sequential<W> {
    fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    fn read_exact_at(&self, _buf: &mut [u8], _offset: u64) -> Result<()> {
        Err(Error::usage("data written to a pipe can't be read back").with_path(&self.name))
    }

    fn extents(&self, _within: PageRange) -> Extents<'_> {
        Box::new(std::iter::once(Err(Error::usage(
            "data written to a pipe can't be read back",
        )
        .with_path(&self.name))))
    }
}

impl<W: Write + Send + Sync> ImageMut for Sequential<W> {
    fn update(&mut self, range: PageRange, data: &[u8]) -> Result<()> {
        check_update(self.virtual_size, range, data)?;
        if range.start() < self.at {
            return Err(Error::usage("data written to a pipe can't be changed")
                .with_path(&self.name)
                .with_offset(range.start()));
        }
        self.zeros_to(range.start())?;
        write(&mut self.out, &self.name, data)?;
        self.at = range.end();
        Ok(())
    }

    fn clear(&mut self, range: PageRange) -> Result<()> {
        self.update_zeros(range)
    }

    fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(|e| failed(e, &self.name))
    }
}

impl<W: Write> Sequential<W> {
    /// Ranges not written yet read as zeros anyway; what was written can't become zero.
    fn update_zeros(&self, range: PageRange) -> Result<()> {
        if range.is_empty() || range.start() >= self.at {
            return Ok(());
        }
        Err(Error::usage("data written to a pipe can't be changed")
            .with_path(&self.name)
            .with_offset(range.start()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_skipped_is_zero_and_nothing_goes_back() {
        let size = 3 * ZEROS.len() as u64 + 512;
        let mut image = Sequential::new(Vec::new(), "pipe", size);
        let range = |start: u64, len: u64| PageRange::covering(start, start + len);
        image.clear(range(0, 4096)).unwrap();
        image.update(range(1024, 512), &[1; 512]).unwrap();
        image
            .update(range(2 * ZEROS.len() as u64, 512), &[2; 512])
            .unwrap();
        assert!(image.update(range(1024, 512), &[3; 512]).is_err());
        assert!(image.clear(range(1024, 512)).is_err());
        assert!(image.update(range(size, 512), &[3; 512]).is_err());
        assert!(image.read_exact_at(&mut [0], 0).is_err());
        let bytes = image.finish().unwrap();
        let mut expected = vec![0; usize::try_from(size).unwrap()];
        expected[1024..1536].fill(1);
        expected[2 * ZEROS.len()..2 * ZEROS.len() + 512].fill(2);
        assert!(bytes == expected);
    }
}
