//! In-memory storage that behaves like a sparse file.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{ReadAt, WriteAt};
use crate::error::{Error, ErrorKind, Result};
use crate::page::to_usize;

/// Storage in a vector of bytes.
#[derive(Debug)]
pub struct Memory {
    bytes: RwLock<Vec<u8>>,
    name: PathBuf,
}

impl Memory {
    /// Creates storage that holds `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: RwLock::new(bytes),
            name: PathBuf::from("memory"),
        }
    }

    /// Sets the name that messages use.
    #[must_use]
    pub fn named(mut self, name: impl Into<PathBuf>) -> Self {
        self.name = name.into();
        self
    }

    /// Returns a copy of the bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.read().clone()
    }

    /// Returns the bytes.
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<u8>> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<u8>> {
        self.bytes.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn span(&self, offset: u64, len: usize) -> Result<Range<usize>> {
        let start = usize::try_from(offset).ok();
        start
            .and_then(|start| Some(start..start.checked_add(len)?))
            .ok_or_else(|| {
                Error::new(ErrorKind::Io, "the offset doesn't fit into memory")
                    .with_path(&self.name)
                    .with_offset(offset)
            })
    }
}

impl ReadAt for Memory {
    fn name(&self) -> &Path {
        &self.name
    }

    fn byte_len(&self) -> Result<u64> {
        Ok(self.read().len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let span = self.span(offset, buf.len())?;
        let bytes = self.read();
        match bytes.get(span) {
            Some(from) => {
                buf.copy_from_slice(from);
                Ok(())
            }
            None => Err(Error::damaged("the file is too short")
                .with_path(&self.name)
                .with_offset(offset)
                .with_found(format_args!("{} bytes", bytes.len()))
                .with_expected(format_args!(
                    "at least {} bytes",
                    offset.saturating_add(buf.len() as u64)
                ))),
        }
    }
}

impl WriteAt for Memory {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let span = self.span(offset, buf.len())?;
        let mut bytes = self.write();
        if bytes.len() < span.end {
            bytes.resize(span.end, 0);
        }
        bytes[span].copy_from_slice(buf);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let len = self.span(len, 0)?.start;
        self.write().resize(len, 0);
        Ok(())
    }

    fn write_zeros_at(&self, range: Range<u64>) -> Result<()> {
        let mut bytes = self.write();
        let end = to_usize(range.end).min(bytes.len());
        let start = to_usize(range.start).min(end);
        bytes[start..end].fill(0);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}
