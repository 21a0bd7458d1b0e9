//! Making a new VHD.

use super::dynamic::Dynamic;
use super::image::Unwritten;
use super::table::{MAX_LOADED, Table};
use super::{
    DiskType, DynamicHeader, FOOTER_SIZE, Footer, HEADER_SIZE, MAX_BLOCK_SIZE, MAX_DYNAMIC_SIZE,
    SECTOR_SIZE, VhdImage, table_bytes,
};
use crate::error::{Error, Result};
use crate::storage::WriteAt;

/// Bytes of data in a block, unless told otherwise: 2 MiB, the only size that all readers know.
pub const DEFAULT_BLOCK_SIZE: u32 = 2 << 20;

/// Where the BAT lies: behind the footer's copy and the header.
const TABLE_AT: u64 = (FOOTER_SIZE + HEADER_SIZE) as u64;

/// What [`VhdImage::create`] makes.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// Bytes of the virtual disk: a multiple of 512, not zero, for a dynamic disk at most
    /// [`MAX_DYNAMIC_SIZE`].
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
    /// Makes a new VHD in `storage`, which is empty. It reads as zeros, and is durable after the first
    /// [`flush`](crate::image::ImageMut::flush).
    pub fn create(storage: S, options: &CreateOptions) -> Result<Self> {
        match lay_out(&storage, options) {
            Ok((footer, dynamic, end)) => Ok(Self {
                storage,
                footer,
                dynamic,
                end,
                unwritten: Unwritten::default(),
                warnings: Vec::new(),
            }),
            Err(error) => Err(error.path(storage.name())),
        }
    }
}

fn lay_out<S: WriteAt>(
    storage: &S,
    options: &CreateOptions,
) -> Result<(Footer, Option<Dynamic>, u64)> {
    let size = options.virtual_size;
    check_size(size)?;
    if storage.byte_len()? != 0 {
        return Err(Error::usage("a new VHD needs an empty file")
            .found(format_args!("{} bytes", storage.byte_len()?)));
    }
    let footer = Footer::for_disk(options.disk_type, size, options.identity.as_ref());
    match options.disk_type {
        DiskType::Fixed => {
            storage.set_len(size + FOOTER_SIZE as u64)?;
            storage.write_all_at(&footer.encode(), size)?;
            Ok((footer, None, size))
        }
        DiskType::Dynamic => {
            let (dynamic, end) = lay_out_dynamic(storage, options, &footer)?;
            Ok((footer, Some(dynamic), end))
        }
        other => Err(Error::unsupported("VHDs of this type aren't made here")
            .found(other)
            .expected("fixed or dynamic")),
    }
}

fn lay_out_dynamic<S: WriteAt>(
    storage: &S,
    options: &CreateOptions,
    footer: &Footer,
) -> Result<(Dynamic, u64)> {
    let block_size = options.block_size;
    if !block_size.is_power_of_two()
        || u64::from(block_size) < SECTOR_SIZE
        || block_size > MAX_BLOCK_SIZE
    {
        return Err(Error::usage("this block size is not possible")
            .found(format_args!("{block_size} bytes"))
            .expected("a power of two from 512 bytes to 1 GiB")
            .hint("2 MiB is the only size that all programs read"));
    }
    if options.virtual_size > MAX_DYNAMIC_SIZE {
        return Err(Error::usage("this is too large for a dynamic VHD")
            .found(format_args!("{} bytes", options.virtual_size))
            .expected(format_args!("at most {MAX_DYNAMIC_SIZE} bytes (2040 GiB)"))
            .hint("choose a fixed VHD or a raw image"));
    }
    let blocks = options.virtual_size.div_ceil(u64::from(block_size));
    let entries = u32::try_from(blocks).ok().filter(|_| blocks <= MAX_LOADED);
    let Some(entries) = entries else {
        return Err(Error::usage("so many blocks aren't sensible")
            .found(format_args!("{blocks} blocks of {block_size} bytes"))
            .expected(format_args!("at most {MAX_LOADED}"))
            .hint("choose a larger block size; 2 MiB is usual"));
    };
    let header = DynamicHeader::new(TABLE_AT, entries, block_size);
    let end = TABLE_AT + table_bytes(entries);
    storage.write_all_at(&footer.encode(), end)?;
    storage.write_all_at(&header.encode(), FOOTER_SIZE as u64)?;
    let absent = [0xFF; 16 << 10];
    let mut at = TABLE_AT;
    while at < end {
        let piece = usize::try_from(end - at)
            .unwrap_or(usize::MAX)
            .min(absent.len());
        storage.write_all_at(&absent[..piece], at)?;
        at += piece as u64;
    }
    storage.write_all_at(&footer.encode(), 0)?;
    let table = Table::absent(TABLE_AT, blocks);
    Ok((Dynamic::new(header, table, blocks, end), end))
}

fn check_size(size: u64) -> Result<()> {
    // Files end at 2^63 bytes.
    let largest = i64::MAX.unsigned_abs() - (FOOTER_SIZE as u64 * 2 - 1);
    if size == 0 || !size.is_multiple_of(SECTOR_SIZE) || size > largest {
        return Err(Error::usage("a virtual disk can't have this size")
            .found(format_args!("{size} bytes"))
            .expected("a multiple of 512 that isn't zero"));
    }
    Ok(())
}
