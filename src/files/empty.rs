//! The empty disk: the base of a diff that contains a complete disk.

use std::path::Path;

use super::{Format, Opened};
use crate::error::{Error, Result};
use crate::image::{Extent, ExtentState, Extents, Image, check_within, whole};
use crate::page::PageRange;
use crate::vhd::Footer;

/// The name of the empty disk where an image is read, by analogy to an empty file.
const NAME: &str = "/dev/null";

/// A disk of zeros, of any size. A diff based on it contains all data of its target, and its base digest is that of the
/// empty disk of its size.
#[derive(Debug, Clone, Copy)]
pub struct EmptyDisk {
    size: u64,
}

impl EmptyDisk {
    /// An empty disk of `size` bytes.
    pub fn new(size: u64) -> Self {
        Self { size }
    }

    /// Returns whether `path` is the name of the empty disk.
    pub fn is_named(path: &Path) -> bool {
        path == Path::new(NAME)
    }

    /// Fails with this `hint` if `path` is the name of the empty disk, where a file is required.
    pub fn refuse(path: &Path, hint: &str) -> Result<()> {
        if !Self::is_named(path) {
            return Ok(());
        }
        Err(
            Error::usage("this means an empty disk, which can only be used as a base to read from")
                .with_path(path)
                .with_hint(hint),
        )
    }
}

impl Image for EmptyDisk {
    fn virtual_size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_within(self.size, offset, buf.len())?;
        buf.fill(0);
        Ok(())
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        let range = within.cut_to(whole(self));
        let zeros = (!range.is_empty()).then_some(Ok(Extent {
            range,
            state: ExtentState::Zero,
        }));
        Box::new(zeros.into_iter())
    }
}

impl Opened for EmptyDisk {
    fn path(&self) -> &Path {
        Path::new(NAME)
    }

    fn format(&self) -> Format {
        Format::Raw
    }

    fn footer(&self) -> Option<&Footer> {
        None
    }

    fn block_size(&self) -> Option<u32> {
        None
    }

    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }
}
