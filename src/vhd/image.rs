//! A VHD as an image.

use super::{DiskType, DynamicHeader, Footer};
use crate::error::{Error, Result};
use crate::image::{Extents, Image, ImageMut};
use crate::page::PageRange;
use crate::storage::{ReadAt, WriteAt};

/// A fixed or dynamic VHD.
#[derive(Debug)]
pub struct VhdImage<S> {
    storage: S,
    footer: Footer,
    header: Option<DynamicHeader>,
    warnings: Vec<Error>,
}

impl<S: ReadAt> VhdImage<S> {
    /// Opens the VHD in `storage` and checks everything that reading relies on.
    pub fn open(_storage: S) -> Result<Self> {
        Err(Error::unsupported("not built yet"))
    }

    /// The footer in force: the trailing one, or its copy where that is damaged.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// The dynamic disk header; a fixed disk has none.
    pub fn header(&self) -> Option<&DynamicHeader> {
        self.header.as_ref()
    }

    /// How the disk is stored.
    pub fn disk_type(&self) -> DiskType {
        self.footer.disk_type
    }

    /// What is wrong with the file, but doesn't keep it from being read.
    pub fn warnings(&self) -> &[Error] {
        &self.warnings
    }

    /// Number of blocks that are stored; 0 for a fixed disk.
    pub fn allocated_blocks(&self) -> u64 {
        0
    }

    /// Bytes of data in a block; `None` for a fixed disk.
    pub fn block_size(&self) -> Option<u64> {
        self.header
            .as_ref()
            .map(|header| u64::from(header.block_size))
    }

    /// The storage below.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Gives the storage back.
    pub fn into_storage(self) -> S {
        self.storage
    }

    /// Offset in the file of the byte at `offset` of the virtual disk, or `None` if its page isn't stored.
    pub fn locate(&self, _offset: u64) -> Result<Option<u64>> {
        Ok(None)
    }
}

impl<S: WriteAt> VhdImage<S> {
    /// Takes over the identity of `footer` as [`Footer::for_disk`] does; written by the next flush.
    pub fn set_footer(&mut self, footer: &Footer) {
        let _ = footer;
    }

    /// Grows or cuts a fixed disk to `virtual_size` bytes; what is new reads as zeros. The footer is written by
    /// the next flush.
    pub fn resize_fixed(&mut self, _virtual_size: u64) -> Result<()> {
        Err(Error::unsupported("not built yet"))
    }
}

impl<S: ReadAt> Image for VhdImage<S> {
    fn virtual_size(&self) -> u64 {
        self.footer.current_size
    }

    fn read_exact_at(&self, _buf: &mut [u8], _offset: u64) -> Result<()> {
        Err(Error::unsupported("not built yet"))
    }

    fn extents(&self, _within: PageRange) -> Extents<'_> {
        Box::new(std::iter::empty())
    }
}

impl<S: WriteAt> ImageMut for VhdImage<S> {
    fn update(&mut self, _range: PageRange, _data: &[u8]) -> Result<()> {
        Err(Error::unsupported("not built yet"))
    }

    fn clear(&mut self, _range: PageRange) -> Result<()> {
        Err(Error::unsupported("not built yet"))
    }

    fn flush(&mut self) -> Result<()> {
        Err(Error::unsupported("not built yet"))
    }
}
