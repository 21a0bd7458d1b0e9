//! Warns about a VHD that was converted again as if it were a raw disk.

use super::OpenImage;
use crate::error::{Error, Reason};
use crate::image::Image as _;
use crate::vhd;

/// The warning for an image whose virtual disk is itself a VHD, with the command that extracts it; `None` for any
/// other. Reads the last MiB of the disk.
pub fn vhd_inside(image: &OpenImage) -> Option<Error> {
    if image.vhd().is_none() || image.parent().is_some() {
        return None;
    }
    let inside = vhd::vhd_inside(image)?;
    let take_out = inside.take_out(image.path(), image.virtual_size());
    Some(
        Error::unsupported(
            "the virtual disk is itself a VHD: it was treated as a raw disk and converted again",
        )
        .with_reason(Reason::Finding("vhd-inside"))
        .with_path(image.path())
        .with_found(format_args!(
            "the footer of a {} VHD that ends at {} of the virtual disk",
            inside.footer.disk_type, inside.len
        ))
        .with_remedy(take_out),
    )
}
