//! Detects a VHD that was treated as a raw disk: the virtual disk of another image contains all of it, including its
//! footer.

use std::path::Path;

use super::{DiskType, DynamicHeader, FOOTER_SIZE, Footer, FooterPlace, HEADER_SIZE, VhdImage};
use crate::error::Result;
use crate::image::Image;
use crate::remedy::{Act, Remedy, Step};
use crate::storage::ReadAt;

/// A complete VHD within a virtual disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// The end of its footer: the VHD takes this many bytes of the virtual disk.
    pub len: u64,
    /// Its footer.
    pub footer: Footer,
}

impl Inside {
    /// How to extract the VHD from the image at `file`, whose virtual disk has `virtual_size` bytes.
    pub fn take_out(&self, file: &Path, virtual_size: u64) -> Remedy {
        let len = Some(self.len).filter(|len| *len < virtual_size);
        Remedy::new("take it out: ").step(
            Step::Do(Act::TakeOut(len), file.to_path_buf()),
            "the first bytes of the virtual disk, up to the end of that footer, are the file",
        )
    }
}

/// Finds a VHD at the beginning of the virtual disk of `image`: there must be an intact footer in the last MiB that is
/// consistent with its position, following as many bytes as its fixed disk has, or with its dynamic disk header at the
/// right offset.
///
/// Read errors are ignored: whoever reads the disk will encounter them.
pub fn vhd_inside(image: &dyn Image) -> Option<Inside> {
    let disk = Disk(image);
    let hint = VhdImage::probe(&disk).ok()??;
    let at = match hint.place {
        FooterPlace::Trailing => image.virtual_size().checked_sub(FOOTER_SIZE as u64)?,
        FooterPlace::Displaced(at) => at,
        FooterPlace::Trailing511 | FooterPlace::Copy => return None,
    };
    let proven = match hint.footer.disk_type {
        DiskType::Fixed => hint.footer.current_size == at,
        DiskType::Dynamic | DiskType::Differencing => disk.has_header(hint.footer.data_offset),
        DiskType::Other(_) => false,
    };
    (hint.intact && proven).then_some(Inside {
        len: at.checked_add(FOOTER_SIZE as u64)?,
        footer: hint.footer,
    })
}

/// A virtual disk as a storage.
struct Disk<'a>(&'a dyn Image);

impl Disk<'_> {
    fn has_header(&self, at: u64) -> bool {
        let mut bytes = [0; HEADER_SIZE];
        let read = self.0.read_exact_at(&mut bytes, at);
        read.is_ok() && DynamicHeader::decode(&bytes).verify(at).is_ok()
    }
}

impl ReadAt for Disk<'_> {
    fn name(&self) -> &Path {
        Path::new("(virtual disk)")
    }

    fn byte_len(&self) -> Result<u64> {
        Ok(self.0.virtual_size())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::RawImage;
    use crate::storage::Memory;
    use crate::vhd::Geometry;

    fn footer(size: u64) -> [u8; FOOTER_SIZE] {
        let mut footer = Footer::decode(&[0; FOOTER_SIZE]);
        footer.cookie = Footer::COOKIE;
        footer.file_format_version = crate::vhd::Version::ONE;
        footer.features = 2;
        footer.data_offset = u64::MAX;
        footer.current_size = size;
        footer.original_size = size;
        footer.disk_geometry = Geometry::for_size(size);
        footer.disk_type = DiskType::Fixed;
        footer.checksum = footer.compute_checksum();
        footer.encode()
    }

    fn inside(disk: Vec<u8>) -> Option<u64> {
        let image = RawImage::open(Memory::new(disk)).unwrap();
        vhd_inside(&image).map(|inside| inside.len)
    }

    #[test]
    fn a_fixed_vhd_is_found_at_the_end_and_before_the_zeros_of_rounding_up() {
        let vhd = [vec![7; 8192], footer(8192).to_vec()].concat();
        assert_eq!(inside(vhd.clone()), Some(8704));
        let mut rounded = vhd.clone();
        rounded.resize(1 << 20, 0);
        assert_eq!(inside(rounded), Some(8704));
        // A footer of another disk is data.
        assert_eq!(inside([vec![7; 512], vhd.clone()].concat()), None);
        let mut damaged = vhd;
        damaged[8192 + 70] ^= 1;
        assert_eq!(inside(damaged), None);
        assert_eq!(inside(vec![7; 8192]), None);
        assert_eq!(inside(vec![0; 512]), None);
    }

    #[test]
    fn what_is_after_the_footer_is_cut_off() {
        let inside = Inside {
            len: 8704,
            footer: Footer::decode(&footer(8192)),
        };
        let file = Path::new("no such folder/a.vhd");
        for (size, len) in [(8704, None), (1 << 20, Some(8704))] {
            let step = Step::Do(Act::TakeOut(len), file.to_path_buf());
            let remedy = inside.take_out(file, size);
            assert_eq!(remedy.steps().collect::<Vec<_>>(), [&step]);
        }
    }
}
