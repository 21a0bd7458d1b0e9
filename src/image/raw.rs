//! A raw image: the stored file is the virtual disk.

use std::ops::Range;

use super::{
    Extent, ExtentState, Extents, Image, ImageMut, IoHints, MAX_VIRTUAL_SIZE, check_update,
    check_within, join_extents, whole,
};
use crate::error::{Error, Result};
use crate::page::{PAGE_SIZE, PageRange};
use crate::storage::{ReadAt, WriteAt};

/// The first `virtual_size` bytes of a storage as a virtual disk. Also used for the data area of a fixed VHD.
#[derive(Debug)]
pub struct RawImage<S> {
    storage: S,
    virtual_size: u64,
}

impl<S: ReadAt> RawImage<S> {
    /// Opens all of `storage`, whose length must be a nonzero multiple of the page size.
    pub fn open(storage: S) -> Result<Self> {
        let len = storage.byte_len()?;
        if len == 0 {
            return Err(Error::damaged("the file is empty")
                .with_path(storage.name())
                .with_hint("name an image"));
        }
        if len % PAGE_SIZE != 0 {
            return Err(
                Error::damaged("the size is not a whole number of 512-byte pages")
                    .with_path(storage.name())
                    .with_field("file_size")
                    .with_found(format_args!("{len} bytes, {} too many", len % PAGE_SIZE))
                    .with_expected("a multiple of 512")
                    .with_hint(
                        "this is not a disk image, or it was truncated: copy it again from its source",
                    ),
            );
        }
        if len > MAX_VIRTUAL_SIZE {
            return Err(
                Error::unsupported("the image is larger than this program supports")
                    .with_path(storage.name())
                    .with_field("file_size")
                    .with_found(format_args!("{len} bytes"))
                    .with_expected(format_args!("at most {MAX_VIRTUAL_SIZE} bytes (1 PiB)")),
            );
        }
        Ok(Self {
            storage,
            virtual_size: len,
        })
    }

    /// Opens the first `virtual_size` bytes of `storage` and ignores the rest.
    pub fn with_size(storage: S, virtual_size: u64) -> Self {
        Self {
            storage,
            virtual_size,
        }
    }

    /// The underlying storage.
    pub fn storage(&self) -> &S {
        &self.storage
    }
}

/// Returns the extents of `within` in a storage, where a partially stored page counts as data.
pub(crate) fn storage_extents<S: ReadAt>(storage: &S, within: PageRange) -> Extents<'_> {
    let mut at = within.start();
    let mut next: Option<Range<u64>> = None;
    join_extents(std::iter::from_fn(move || {
        if at >= within.end() {
            return None;
        }
        if next.is_none() {
            next = match storage.data_range(at..within.end()) {
                Ok(Some(data)) => {
                    let start = data.start - data.start % PAGE_SIZE;
                    Some(start..data.end.next_multiple_of(PAGE_SIZE).min(within.end()))
                }
                Ok(None) => Some(within.end()..within.end()),
                Err(error) => {
                    at = within.end();
                    return Some(Err(error));
                }
            };
        }
        let data = next.clone().unwrap_or_default();
        let (end, state) = if at < data.start {
            (data.start, ExtentState::Zero)
        } else {
            next = None;
            (data.end, ExtentState::Data)
        };
        let range = PageRange::covering(at, end);
        at = end;
        Some(Ok(Extent { range, state }))
    }))
}

impl<S: ReadAt> Image for RawImage<S> {
    fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_within(self.virtual_size, offset, buf.len())?;
        self.storage.read_exact_at(buf, offset)
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        storage_extents(&self.storage, within.cut_to(whole(self)))
    }

    fn io(&self) -> IoHints {
        self.storage.io()
    }
}

impl<S: WriteAt> ImageMut for RawImage<S> {
    fn update(&mut self, range: PageRange, data: &[u8]) -> Result<()> {
        check_update(self.virtual_size, range, data)
            .map_err(|e| e.with_path(self.storage.name()))?;
        self.storage.write_all_at(data, range.start())
    }

    fn clear(&mut self, range: PageRange) -> Result<()> {
        let len = range.buffer_len();
        check_within(self.virtual_size, range.start(), len)?;
        self.storage.write_zeros_at(range.start()..range.end())
    }

    fn flush(&mut self) -> Result<()> {
        self.storage.sync()
    }
}
