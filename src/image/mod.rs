//! Images: the virtual disks that stored files present, whatever their format.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::page::PageRange;
pub use crate::parallel::IoHints;

mod content;
mod copy;
mod digest;
mod disk_io;
mod gpt;
mod hasher;
mod list;
mod masked;
mod part;
mod pass;
mod raw;
mod resized;
mod sequential;
mod shared;
mod window;
mod window_hash;
mod windows;

pub use content::{content_digest, window_hashes};
pub(crate) use copy::copy_on;
pub use copy::{CopyOptions, copy, copy_hashed, stream};
pub use digest::{ContentDigest, ContentHasher};
pub use disk_io::{DiskReader, DiskWriter};
pub use gpt::{BackupMove, Gpt};
pub(crate) use hasher::WindowHasher;
pub use list::{ListedWindow, WindowList, WindowListWriter, windows_in};
pub use masked::{Masked, PageSet};
pub use part::Part;
pub(crate) use pass::{Pass, all_needed};
pub use raw::RawImage;
pub(crate) use raw::storage_extents;
pub use resized::Resized;
pub(crate) use resized::{extents_or_zeros, read_or_zeros, zeros};
pub use sequential::Sequential;
pub use shared::{NoneShared, Ranges, SharedExtents};
pub(crate) use shared::{SharedCursor, WORTH_SKIPPING, unknown};
pub(crate) use window::Window;
pub(crate) use window_hash::zero_hash;
pub use window_hash::{DIGEST_WINDOW, Hash, WindowHashes};
pub use windows::data_windows;
pub(crate) use windows::{DataOf, Listed, Source, Windows, parts_in};

/// The largest virtual disk: 1 PiB. A sparse file can claim to be far larger, and processing it would never end.
pub const MAX_VIRTUAL_SIZE: u64 = 1 << 50;

/// The unit in which the pipelines pass data from step to step: an aligned piece of the virtual disk, as large as the
/// largest page write of a page blob (Put Page: 4 MiB).
pub const WINDOW_SIZE: u64 = 4 << 20;

/// Bytes per I/O where content is only inspected. Two of these fit into a core's L2 cache; larger ones were up to 1.5
/// times slower when measured.
pub const CHUNK_SIZE: usize = 256 << 10;

/// Whether a part of a virtual disk may hold data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentState {
    /// Stored: read it to know.
    Data,
    /// Known to read as zeros, without reading.
    Zero,
}

/// A maximal run of a virtual disk in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Its range.
    pub range: PageRange,
    /// Its state.
    pub state: ExtentState,
}

/// The extents of a range, in order and without gaps.
pub type Extents<'a> = Box<dyn Iterator<Item = Result<Extent>> + 'a>;

/// A virtual disk that can be read.
///
/// # Contract
///
/// * [`virtual_size`](Image::virtual_size) is a multiple of [`PAGE_SIZE`](crate::page::PAGE_SIZE), and constant while
///   the image is only read.
/// * A read within the virtual size succeeds, or fails with a problem of the stored file. A read beyond it is refused.
///   No input causes a panic.
/// * Methods may be called from many threads at once.
pub trait Image: Send + Sync {
    /// Size of the virtual disk in bytes.
    fn virtual_size(&self) -> u64;

    /// Fills `buf` from `offset`. Neither needs any alignment.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Returns the extents of `within`, cut at the virtual size: in order, without gaps or overlap, and with adjacent
    /// extents in different states. Reporting `Data` is always correct.
    fn extents(&self, within: PageRange) -> Extents<'_>;

    /// Hints for efficient reading. A pass over a remote image reads ahead.
    fn io(&self) -> IoHints {
        IoHints::LOCAL
    }
}

/// A virtual disk that can be written.
pub trait ImageMut: Image {
    /// Writes `data` at `range`. Fails unless both have the same length (see [`check_update`]).
    fn update(&mut self, range: PageRange, data: &[u8]) -> Result<()>;

    /// Makes `range` read as zeros, without storing them where format and file system support that.
    fn clear(&mut self, range: PageRange) -> Result<()>;

    /// Returns when everything written so far is on stable storage and the file is complete.
    fn flush(&mut self) -> Result<()>;
}

/// Fails if a read or write isn't within `virtual_size`.
pub fn check_within(virtual_size: u64, offset: u64, len: usize) -> Result<()> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= virtual_size => Ok(()),
        _ => Err(
            Error::usage("the range is beyond the end of the virtual disk")
                .with_found(format_args!("{len} bytes at offset {offset}"))
                .with_expected(format_args!("at most {virtual_size} bytes")),
        ),
    }
}

/// Fails if an update isn't within `virtual_size`, or if its data isn't as long as its range. Every [`ImageMut`] calls
/// this before it writes.
pub fn check_update(virtual_size: u64, range: PageRange, data: &[u8]) -> Result<()> {
    if range.buffer_len() != data.len() {
        return Err(
            Error::usage("the data is not as long as the range it is for")
                .with_found(format_args!("{} bytes", data.len()))
                .with_expected(format_args!("{} bytes", range.len())),
        );
    }
    check_within(virtual_size, range.start(), data.len())
}

/// Returns the range of the whole virtual disk.
pub fn whole(image: &(impl Image + ?Sized)) -> PageRange {
    PageRange::covering(0, image.virtual_size())
}

/// Joins adjacent extents in the same state and drops empty ones, which is how a format can guarantee that its extents
/// are maximal.
pub fn join_extents<'a>(extents: impl Iterator<Item = Result<Extent>> + 'a) -> Extents<'a> {
    let mut extents = extents;
    let mut held: Option<Extent> = None;
    Box::new(std::iter::from_fn(move || {
        loop {
            match extents.next() {
                Some(Ok(next)) if next.range.is_empty() => {}
                Some(Ok(next)) => match &mut held {
                    Some(last)
                        if last.state == next.state && last.range.end() == next.range.start() =>
                    {
                        last.range = PageRange::covering(last.range.start(), next.range.end());
                    }
                    _ => {
                        if let Some(done) = held.replace(next) {
                            return Some(Ok(done));
                        }
                    }
                },
                Some(Err(error)) => return Some(Err(error)),
                None => return held.take().map(Ok),
            }
        }
    }))
}

/// Pointers to images are images.
macro_rules! points_to_image {
    ($($pointer:ty),*) => {$(
        impl<I: Image + ?Sized> Image for $pointer {
            fn virtual_size(&self) -> u64 {
                (**self).virtual_size()
            }

            fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
                (**self).read_exact_at(buf, offset)
            }

            fn extents(&self, within: PageRange) -> Extents<'_> {
                (**self).extents(within)
            }

            fn io(&self) -> IoHints {
                (**self).io()
            }
        }
    )*};
}

points_to_image!(&I, &mut I, Box<I>, Arc<I>);

macro_rules! points_to_image_mut {
    ($($pointer:ty),*) => {$(
        impl<I: ImageMut + ?Sized> ImageMut for $pointer {
            fn update(&mut self, range: PageRange, data: &[u8]) -> Result<()> {
                (**self).update(range, data)
            }

            fn clear(&mut self, range: PageRange) -> Result<()> {
                (**self).clear(range)
            }

            fn flush(&mut self) -> Result<()> {
                (**self).flush()
            }
        }
    )*};
}

points_to_image_mut!(&mut I, Box<I>);
