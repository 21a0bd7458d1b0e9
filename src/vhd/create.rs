//! Creating a new VHD.

use super::bitmap::bitmap_bytes;
use super::dynamic::Dynamic;
use super::image::Unwritten;
use super::parent::{self, Backing};
use super::relink;
use super::table::{MAX_LOADED, Table};
use super::write::footer_place;
use super::{
    DiskType, DynamicHeader, FOOTER_SIZE, Footer, HEADER_SIZE, MAX_BLOCK_SIZE, MAX_DYNAMIC_SIZE,
    NewParent, SECTOR_SIZE, UniqueId, VhdImage, table_bytes,
};
use crate::error::{Error, Result};
use crate::page::to_usize;
use crate::storage::WriteAt;

/// Default block size in bytes: 2 MiB, the only size that all readers support.
pub const DEFAULT_BLOCK_SIZE: u32 = 2 << 20;

/// End of the footer's copy and the header. The data of parent locators follows, if there are any, then the BAT.
const HEADER_END: u64 = (FOOTER_SIZE + HEADER_SIZE) as u64;

/// Options for [`VhdImage::create`].
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// Size of the virtual disk in bytes: a nonzero multiple of 512, at most [`MAX_DYNAMIC_SIZE`] unless it is a fixed
    /// disk.
    pub virtual_size: u64,
    /// [`Fixed`](DiskType::Fixed), [`Dynamic`](DiskType::Dynamic), or with a parent
    /// [`Differencing`](DiskType::Differencing).
    pub disk_type: DiskType,
    /// Bytes of data in a block, except for fixed disks: a power of two from 512 bytes to 1 GiB.
    pub block_size: u32,
    /// The footer of the disk whose identity the new one adopts; see [`Footer::for_disk`].
    pub identity: Option<Footer>,
    /// The parent of a differencing disk, at most as large as the new one.
    pub parent: Option<NewParent>,
}

impl CreateOptions {
    /// A new disk with its own identity and blocks of the default size.
    pub fn new(disk_type: DiskType, virtual_size: u64) -> Self {
        Self {
            virtual_size,
            disk_type,
            block_size: DEFAULT_BLOCK_SIZE,
            identity: None,
            parent: None,
        }
    }

    /// A new child of `parent`. It reads like its parent, with zeros beyond the parent's end.
    pub fn child(parent: NewParent, virtual_size: u64) -> Self {
        Self {
            parent: Some(parent),
            ..Self::new(DiskType::Differencing, virtual_size)
        }
    }
}

impl<S: WriteAt> VhdImage<S> {
    /// Creates a new VHD in `storage`, which is empty. It reads as zeros or like its parent, and is durable after the
    /// first [`flush`](crate::image::ImageMut::flush).
    pub fn create(storage: S, options: &CreateOptions) -> Result<Self> {
        match lay_out(&storage, options) {
            Ok((footer, dynamic, end)) => Ok(Self {
                is_told: false,
                slack_has_data: false,
                storage,
                footer,
                dynamic,
                end,
                unwritten: Unwritten::default(),
                warnings: Vec::new(),
                lost: Vec::new(),
                parent_paths: Vec::new(),
            }),
            Err(error) => Err(error.with_path(storage.name())),
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
            .with_found(format_args!("{} bytes", storage.byte_len()?)));
    }
    let mut footer = Footer::for_disk(options.disk_type, size, options.identity.as_ref());
    let parent_id = options.parent.as_ref().and_then(|p| p.parent.unique_id);
    if parent_id == Some(footer.unique_id) {
        // A child with its parent's id would be mistaken for it.
        footer = footer.with_unique_id(UniqueId::random());
    }
    match options.disk_type {
        DiskType::Fixed => {
            storage.set_len(size + FOOTER_SIZE as u64)?;
            storage.write_all_at(&footer.encode(), size)?;
            Ok((footer, None, size))
        }
        DiskType::Dynamic | DiskType::Differencing => {
            let (dynamic, end) = lay_out_dynamic(storage, options, &footer)?;
            Ok((footer, Some(dynamic), end))
        }
        other @ DiskType::Other(_) => Err(Error::unsupported(
            "creating VHDs of this type is not supported",
        )
        .with_found(other)
        .with_expected("fixed, dynamic or differencing")),
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
            .with_found(format_args!("{block_size} bytes"))
            .with_expected("a power of two from 512 bytes to 1 GiB")
            .with_hint("2 MiB is the only size that all programs read"));
    }
    if options.virtual_size > MAX_DYNAMIC_SIZE {
        return Err(
            Error::usage("this is too large for a dynamic or differencing VHD")
                .with_found(format_args!("{} bytes", options.virtual_size))
                .with_expected(format_args!("at most {MAX_DYNAMIC_SIZE} bytes (2040 GiB)"))
                .with_hint("choose a fixed VHD or a raw image"),
        );
    }
    let blocks = options.virtual_size.div_ceil(u64::from(block_size));
    let entries = u32::try_from(blocks).ok().filter(|_| blocks <= MAX_LOADED);
    let Some(entries) = entries else {
        return Err(Error::usage("the disk would have too many blocks")
            .with_found(format_args!("{blocks} blocks of {block_size} bytes"))
            .with_expected(format_args!("at most {MAX_LOADED}"))
            .with_hint("choose a larger block size; 2 MiB is usual"));
    };
    let mut header = DynamicHeader::new(HEADER_END, entries, block_size);
    let mut locator_data = Vec::new();
    if let Some(parent) = parent_of(options)? {
        locator_data = name_parent(&mut header, parent)?;
    }
    let table_end = header.table_offset + table_bytes(entries);
    let end = footer_place(table_end, bitmap_bytes(block_size));
    storage.write_all_at(&footer.encode(), end)?;
    storage.write_all_at(&header.encode(), FOOTER_SIZE as u64)?;
    storage.write_all_at(&locator_data, HEADER_END)?;
    let absent = [0xFF; 16 << 10];
    let mut at = header.table_offset;
    while at < table_end {
        let piece = to_usize(table_end - at).min(absent.len());
        storage.write_all_at(&absent[..piece], at)?;
        at += piece as u64;
    }
    storage.write_all_at(&footer.encode(), 0)?;
    let table = Table::absent(header.table_offset, blocks);
    let mut dynamic = Dynamic::new(header, table, blocks, end);
    if let Some(new) = &options.parent {
        dynamic.beneath = Backing::Parent(new.parent.clone());
    }
    Ok((dynamic, end))
}

/// Returns the parent of a differencing disk, after checking that it fits.
fn parent_of(options: &CreateOptions) -> Result<Option<&NewParent>> {
    match (&options.parent, options.disk_type) {
        (Some(new), DiskType::Differencing) => {
            parent::check_sizes(options.virtual_size, &new.parent)?;
            parent::refuse_nil(&new.parent)?;
            Ok(Some(new))
        }
        (None, DiskType::Dynamic) => Ok(None),
        (_, disk_type) => Err(Error::usage(
            "a differencing VHD needs a parent, and no other VHD can have one",
        )
        .with_found(disk_type)),
    }
}

/// Fills in the header of a child of `new`. Returns the data of its locators, which precedes the BAT.
fn name_parent(header: &mut DynamicHeader, new: &NewParent) -> Result<Vec<u8>> {
    let (named, data) = relink::named(header, new, HEADER_END)?;
    *header = DynamicHeader {
        table_offset: HEADER_END + data.len() as u64,
        ..named
    }
    .sealed();
    Ok(data)
}

pub(super) fn check_size(size: u64) -> Result<()> {
    // File sizes are limited to 2^63 bytes.
    let largest = i64::MAX.unsigned_abs() - (FOOTER_SIZE as u64 * 2 - 1);
    if size == 0 || !size.is_multiple_of(SECTOR_SIZE) || size > largest {
        return Err(Error::usage("a virtual disk can't have this size")
            .with_found(format_args!("{size} bytes"))
            .with_expected("a nonzero multiple of 512"));
    }
    Ok(())
}
