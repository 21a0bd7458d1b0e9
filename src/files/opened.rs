//! The facts that commands need about an image that they read, wherever it is.

use std::path::Path;

use super::{Clones, FetchedFrom, Format, OpenImage};
#[cfg(feature = "azure")]
use crate::blob::BlobFile;
use crate::diff::Side;
use crate::error::{Error, Result};
use crate::image::{ContentDigest, Image, SharedExtents};
use crate::page::PageList;
use crate::text::without_secrets;
use crate::vhd::{Footer, VhdImage};

/// A virtual disk with information about the image it comes from.
pub trait Opened: Image + std::fmt::Debug {
    /// Its name in messages: the path of a file, or a substitute.
    fn path(&self) -> &Path;

    /// The format of the image, or of the image from which it was made.
    fn format(&self) -> Format;

    /// The footer of the VHD that it is, or from which it was made.
    fn footer(&self) -> Option<&Footer>;

    /// Bytes in a data block, if it has blocks.
    fn block_size(&self) -> Option<u32>;

    /// The files from which it is read.
    fn files(&self) -> Vec<&Path>;

    /// Fails with [`Changed`](crate::ErrorKind::Changed) if any of its files was changed since it was opened.
    fn check_unchanged(&self) -> Result<()>;

    /// The file, if it is a single image in a file.
    fn as_file(&self) -> Option<&OpenImage> {
        None
    }

    /// The page blob, if it is an image in one.
    #[cfg(feature = "azure")]
    fn as_blob(&self) -> Option<&BlobFile> {
        None
    }

    /// What identifies it if it is fetched from elsewhere; `None` if it is on this machine.
    fn fetched_from(&self) -> Option<FetchedFrom> {
        None
    }

    /// The content digest that an image outside of a file is known to have without reading it.
    fn noted_digest(&self) -> Option<ContentDigest> {
        None
    }

    /// Problems with an image outside of a file that don't prevent reading it.
    fn doubts(&self) -> Vec<&Error> {
        Vec::new()
    }

    /// Where this image and `other` are certain to be equal, without reading either: extents they share as clones, or
    /// ranges that didn't change according to a service. Returns `None` if nothing is known.
    fn shared_with<'a>(&'a self, other: &'a dyn Opened) -> Option<Box<dyn SharedExtents + 'a>> {
        let (this, other) = (self.as_file()?, other.as_file()?);
        Some(Box::new(Clones::new(other, this)))
    }

    /// What a service lists as written or cleared on the way from `earlier` to this image; `None` if it doesn't tell.
    fn told_changes(&self, _earlier: &dyn Opened) -> Option<PageList> {
        None
    }

    /// Why it isn't known what this image shares with the one that was asked about last, although it should be.
    fn why_nothing_is_shared(&self) -> Option<Error> {
        None
    }

    /// The information about it that is recorded in a diff.
    fn side(&self) -> Side {
        let footer = self.footer();
        Side {
            name: self
                .path()
                .file_name()
                // It accompanies the diff wherever that goes.
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
