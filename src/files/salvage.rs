//! Damaged VHDs in files, read as far as they go.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ParentOptions;
use super::open::OpenImage;
use super::parents::{Finder, Trail};
use super::pending::refuse_pending;
use crate::error::{Error, Result};
use crate::image::{Extents, Image};
use crate::page::PageRange;
use crate::progress::Progress;
use crate::storage::{Access, File, Stamp};
use crate::vhd::{self, Footer, Patched, VhdImage};

/// What is left of a damaged VHD.
#[derive(Debug)]
pub struct Salvaged {
    path: PathBuf,
    image: VhdImage<Patched<File>>,
    parent: Option<Arc<OpenImage>>,
    lost: Vec<PageRange>,
    stamp: Stamp,
}

/// Opens what is left of the VHD at `path`, which isn't changed.
///
/// # Errors
///
/// [`Damaged`](crate::error::ErrorKind::Damaged) if nothing tells where its data lies; what opening an image says
/// of locks and parents.
pub fn salvage(path: &Path, parents: &ParentOptions, progress: &dyn Progress) -> Result<Salvaged> {
    let file = File::open_locked(path, Access::Read)?;
    refuse_pending(path)?;
    let stamp = file.stamp()?;
    let (storage, lost) = vhd::salvage(file, progress)?;
    let mut trail = Trail::default();
    trail.push(path, stamp);
    let mut finder = Finder::new(parents, &mut trail);
    let image = VhdImage::open_with(storage, &mut finder)?;
    if image.footer().current_size > crate::image::MAX_VIRTUAL_SIZE {
        return Err(
            Error::unsupported("the virtual disk is larger than this program goes").path(path),
        );
    }
    Ok(Salvaged {
        path: path.to_path_buf(),
        image,
        parent: finder.found,
        lost,
        stamp,
    })
}

impl Salvaged {
    /// The ranges of the virtual disk that are lost and read as zeros, in order.
    pub fn lost(&self) -> &[PageRange] {
        &self.lost
    }

    /// The footer, without its faults.
    pub fn footer(&self) -> &Footer {
        self.image.footer()
    }

    /// The files that are read: this one, its parent, that one's parent and so on.
    pub fn chain(&self) -> impl Iterator<Item = &Path> {
        let parents = self.parent.iter().flat_map(|parent| parent.chain());
        std::iter::once(self.path.as_path()).chain(parents.map(OpenImage::path))
    }

    /// An error of kind [`Changed`](crate::error::ErrorKind::Changed) if another program wrote to the file since it
    /// was opened.
    pub fn check_unchanged(&self) -> Result<()> {
        self.image.storage().inner().check_unchanged(&self.stamp)
    }
}

impl Image for Salvaged {
    fn virtual_size(&self) -> u64 {
        self.image.virtual_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.image.read_exact_at(buf, offset)
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        self.image.extents(within)
    }
}
