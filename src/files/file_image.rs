//! An image in a file, whatever its format.

use super::Format;
use crate::error::{Error, Result};
use crate::image::{Image, ImageMut, RawImage};
use crate::storage::File;
use crate::vhd::{DiskType, VhdImage};

/// An image of any format in a file.
#[derive(Debug)]
pub(super) enum FileImage {
    Raw(RawImage<File>),
    Fixed(VhdImage<File>),
    Dynamic(VhdImage<File>),
    Differencing(VhdImage<File>),
}

impl FileImage {
    pub(super) fn from_vhd(image: VhdImage<File>) -> Result<Self> {
        match image.disk_type() {
            DiskType::Fixed => Ok(Self::Fixed(image)),
            DiskType::Dynamic => Ok(Self::Dynamic(image)),
            DiskType::Differencing => Ok(Self::Differencing(image)),
            other @ DiskType::Other(_) => {
                Err(Error::unsupported("a VHD of this type is not read here")
                    .with_path(image.storage().path())
                    .with_field("footer.disk_type")
                    .with_found(other)
                    .with_expected("fixed, dynamic or differencing")
                    .with_hint("convert it to a fixed or dynamic VHD where it was made"))
            }
        }
    }

    pub(super) fn format(&self) -> Format {
        match self {
            Self::Raw(_) => Format::Raw,
            Self::Fixed(_) => Format::Fixed,
            Self::Dynamic(_) => Format::Dynamic,
            Self::Differencing(_) => Format::Differencing,
        }
    }

    pub(super) fn file(&self) -> &File {
        match self {
            Self::Raw(image) => image.storage(),
            Self::Fixed(image) | Self::Dynamic(image) | Self::Differencing(image) => {
                image.storage()
            }
        }
    }

    pub(super) fn vhd(&self) -> Option<&VhdImage<File>> {
        match self {
            Self::Raw(_) => None,
            Self::Fixed(image) | Self::Dynamic(image) | Self::Differencing(image) => Some(image),
        }
    }

    pub(super) fn vhd_mut(&mut self) -> Option<&mut VhdImage<File>> {
        match self {
            Self::Raw(_) => None,
            Self::Fixed(image) | Self::Dynamic(image) | Self::Differencing(image) => Some(image),
        }
    }

    pub(super) fn image(&self) -> &dyn Image {
        match self {
            Self::Raw(image) => image,
            Self::Fixed(image) | Self::Dynamic(image) | Self::Differencing(image) => image,
        }
    }

    pub(super) fn image_mut(&mut self) -> &mut dyn ImageMut {
        match self {
            Self::Raw(image) => image,
            Self::Fixed(image) | Self::Dynamic(image) | Self::Differencing(image) => image,
        }
    }
}
