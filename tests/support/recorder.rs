//! Storage that records writes, to be replayed up to any point, and that fails on request: for code that works on
//! storage and needs no files. The files that whole commands leave are tested in `tests/crash/`.
#![allow(dead_code)]

use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;

use vhdkit::storage::{Memory, ReadAt, WriteAt};
use vhdkit::{Error, Result};

/// Storage that keeps a log of the writes it received.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) inner: Memory,
    pub(crate) log: Mutex<Vec<Event>>,
    /// The length of the log at which everything fails, as on a full disk.
    fail_at: usize,
    /// The number of bytes of the failing write that still arrive.
    torn: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum Event {
    Write(u64, Vec<u8>),
    Zero(Range<u64>),
    SetLen(u64),
    Sync,
}

impl Event {
    pub(crate) fn replay(&self, storage: &Memory) {
        match self {
            Self::Write(offset, bytes) => storage.write_all_at(bytes, *offset).unwrap(),
            Self::Zero(range) => storage.write_zeros_at(range.clone()).unwrap(),
            Self::SetLen(len) => storage.set_len(*len).unwrap(),
            Self::Sync => {}
        }
    }
}

impl Recorder {
    pub(crate) fn new(bytes: Vec<u8>, fail_at: usize) -> Self {
        Self {
            inner: Memory::new(bytes),
            log: Mutex::default(),
            fail_at,
            torn: 0,
        }
    }

    /// Makes the first failing write a torn one, of which this many bytes arrive.
    pub(crate) fn torn(mut self, torn: usize) -> Self {
        self.torn = torn;
        self
    }

    fn log(&self, event: Event) -> Result<()> {
        let mut log = self.log.lock().unwrap();
        if log.len() >= self.fail_at {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(Error::io("cannot write", full));
        }
        log.push(event);
        Ok(())
    }
}

impl ReadAt for Recorder {
    fn name(&self) -> &Path {
        self.inner.name()
    }

    fn byte_len(&self) -> Result<u64> {
        self.inner.byte_len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_exact_at(buf, offset)
    }
}

impl WriteAt for Recorder {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        if let Err(error) = self.log(Event::Write(offset, buf.to_vec())) {
            let arrives = buf.get(..self.torn).unwrap_or(buf);
            if !arrives.is_empty() {
                self.inner.write_all_at(arrives, offset)?;
            }
            return Err(error);
        }
        self.inner.write_all_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.log(Event::SetLen(len))?;
        self.inner.set_len(len)
    }

    fn write_zeros_at(&self, range: Range<u64>) -> Result<()> {
        self.log(Event::Zero(range.clone()))?;
        self.inner.write_zeros_at(range)
    }

    fn sync(&self) -> Result<()> {
        self.log(Event::Sync)?;
        self.inner.sync()
    }
}
