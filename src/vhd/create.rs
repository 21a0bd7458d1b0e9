//! Making a new VHD.

use super::{DiskType, Footer, VhdImage};
use crate::error::{Error, Result};
use crate::storage::WriteAt;

/// Bytes of data in a block, unless told otherwise: 2 MiB, the only size that all readers know.
pub const DEFAULT_BLOCK_SIZE: u32 = 2 << 20;

/// What [`VhdImage::create`] makes.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// Bytes of the virtual disk: a multiple of 512, not zero.
    pub virtual_size: u64,
    /// [`Fixed`](DiskType::Fixed) or [`Dynamic`](DiskType::Dynamic).
    pub disk_type: DiskType,
    /// Bytes of data in a block of a dynamic disk: a power of two from 512 bytes to 1 GiB.
    pub block_size: u32,
    /// The footer of the disk whose identity the new one takes over; see [`Footer::for_disk`].
    pub identity: Option<Footer>,
}

impl CreateOptions {
    /// A new disk with an identity of its own and blocks of the usual size.
    pub fn new(disk_type: DiskType, virtual_size: u64) -> Self {
        Self {
            virtual_size,
            disk_type,
            block_size: DEFAULT_BLOCK_SIZE,
            identity: None,
        }
    }
}

impl<S: WriteAt> VhdImage<S> {
    /// Makes a new VHD in `storage`, which is empty. It is complete and durable after the first
    /// [`flush`](crate::image::ImageMut::flush).
    pub fn create(_storage: S, _options: &CreateOptions) -> Result<Self> {
        Err(Error::unsupported("not built yet"))
    }
}
