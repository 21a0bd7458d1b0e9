//! What the commands need to know of an image that they read, wherever it lies.

use std::path::Path;

use super::{Clones, Format, OpenImage};
#[cfg(feature = "azure")]
use crate::blob::BlobFile;
use crate::diff::Side;
use crate::error::{Error, Result};
use crate::image::{Image, SharedExtents};
use crate::text::without_secrets;
use crate::vhd::{Footer, VhdImage};

/// A virtual disk with what is known of the image that presents it.
pub trait Opened: Image + std::fmt::Debug {
    /// What messages call it: the path of a file, or what stands for it.
    fn path(&self) -> &Path;

    /// The format of the image, or of the one that it was made from.
    fn format(&self) -> Format;

    /// The footer of the VHD that it is, or was made from.
    fn footer(&self) -> Option<&Footer>;

    /// Bytes in a data block, if it has blocks.
    fn block_size(&self) -> Option<u32>;

    /// The files that it is read from.
    fn files(&self) -> Vec<&Path>;

    /// An error of kind [`Changed`](crate::ErrorKind::Changed) if what it is read from was written to since it was
    /// opened.
    fn check_unchanged(&self) -> Result<()>;

    /// The file, if it is one image in a file.
    fn as_file(&self) -> Option<&OpenImage> {
        None
    }

    /// The page blob, if it is an image in one.
    #[cfg(feature = "azure")]
    fn as_blob(&self) -> Option<&BlobFile> {
        None
    }

    /// What is wrong with an image that isn't in a file, but doesn't keep it from being read.
    fn doubts(&self) -> Vec<&Error> {
        Vec::new()
    }

    /// Where this image and `other` are certainly the same, without reading either: what they share as clones,
    /// or what a service says didn't change.
    /// `None` if nothing is known.
    fn shared_with<'a>(&'a self, other: &'a dyn Opened) -> Option<Box<dyn SharedExtents + 'a>> {
        let (this, other) = (self.as_file()?, other.as_file()?);
        Some(Box::new(Clones::new(other, this)))
    }

    /// What a diff is told of it.
    fn side(&self) -> Side {
        let footer = self.footer();
        Side {
            name: self
                .path()
                .file_name()
                // It goes with the diff to wherever that goes.
                .map(|name| without_secrets(&name.to_string_lossy()).into_owned()),
            format: Some(self.format().name().to_owned()),
            unique_id: footer.map(|footer| footer.unique_id.0),
            time: footer.map(|footer| footer.timestamp.to_unix()),
            footer: footer.map(|footer| Box::new(footer.encode())),
            ..Side::default()
        }
    }
}

impl Opened for OpenImage {
    fn path(&self) -> &Path {
        self.path()
    }

    fn format(&self) -> Format {
        self.format()
    }

    fn footer(&self) -> Option<&Footer> {
        self.vhd().map(VhdImage::footer)
    }

    fn block_size(&self) -> Option<u32> {
        let size = self.vhd().and_then(VhdImage::block_size);
        size.and_then(|size| u32::try_from(size).ok())
    }

    fn files(&self) -> Vec<&Path> {
        self.chain().map(OpenImage::path).collect()
    }

    fn check_unchanged(&self) -> Result<()> {
        self.check_unchanged()
    }

    fn as_file(&self) -> Option<&OpenImage> {
        Some(self)
    }
}
