//! Block devices have a fixed length, so only diffs that don't change the size can be applied to them.

use crate::diff::Chain;
use crate::error::{Error, Result};
use crate::files::{Format, OpenImage};
use crate::image::Image as _;
use crate::remedy::{Choice, Remedy, Step};
use crate::storage::{File, ReadAt as _};
use crate::vhd::FOOTER_SIZE;

/// The part of a device that the chain is for, if that isn't all of it: the beginning of a larger device with a raw
/// image. Fails if `base` is on a device and the chain, or its format, would change its size.
pub(super) fn part(base: &OpenImage, chain: &Chain) -> Result<Option<File>> {
    let file = base.file();
    if !file.is_block_device() {
        return Ok(None);
    }
    let sizes = chain.diffs().iter().map(|diff| diff.header());
    let mut other = sizes.filter(|header| header.base_size != header.target_size);
    let len = file.byte_len()?;
    if let Some(header) = other.next() {
        let (from, to) = (header.base_size, header.target_size);
        return Err(
            refused("an image on a device can't be given another size", base)
                .with_found(format_args!(
                    "a diff from {from} to {to} bytes, for a device of {len} bytes"
                ))
                .with_expected("diffs between disks of one size"),
        );
    }
    let size = chain.base_size();
    match base.format() {
        Format::Raw => beginning(file, size),
        Format::Fixed if len == base.virtual_size() + FOOTER_SIZE as u64 => Ok(None),
        format => Err(refused(
            "a VHD on a device can't be changed in place unless it fills the device exactly and never grows",
            base,
        )
        .with_found(format_args!("a {format} VHD on a device of {len} bytes"))
        .with_expected("a raw image, or a fixed VHD whose footer is the end of the device")),
    }
}

/// The first `size` bytes of a larger device.
pub(super) fn beginning(file: &File, size: u64) -> Result<Option<File>> {
    let larger = file.is_block_device() && file.byte_len()? > size;
    Ok(larger.then(|| file.part_of_device(size)))
}

fn refused(message: &str, base: &OpenImage) -> Error {
    Error::usage(message).with_path(base.path()).with_remedy(
        Remedy::new("apply to a new image")
            .named(" with ")
            .step(Step::Choose(Choice::Output), ""),
    )
}
