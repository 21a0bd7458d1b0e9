//! Access to the store with the snapshots of blobs and disks: nothing else calls it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::diff::Side;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{Format, Opened};
use crate::image::{Extents, Image, RawImage};
use crate::page::PageRange;
use crate::parallel::Workers;
use crate::progress::Progress;
use crate::snapshot::{
    Access, Disk, Family, NewPoint, PointImage, STORE_VERSION, Work, create, delete, init_if_none,
};
use crate::storage::{Audience, File, ReadAt as _, on_disk};
use crate::vhd::{DiskType, FOOTER_SIZE, Footer};

/// Maximum wait for another command that has locked the disk of a store.
const PATIENCE: Duration = Duration::from_secs(20);

/// The content of a blob as an image: all of it, or without the footer of a fixed VHD.
pub(super) struct Content<'a> {
    image: RawImage<&'a File>,
    footer: Option<Footer>,
    path: &'a Path,
}

impl<'a> Content<'a> {
    /// The first `size` bytes of `file`. With `vhd`, a footer follows them.
    pub(super) fn new(file: &'a File, size: u64, vhd: bool) -> Result<Self> {
        let mut footer = None;
        if vhd {
            let mut bytes = [0; FOOTER_SIZE];
            file.read_exact_at(&mut bytes, size)?;
            let found = Footer::decode(&bytes);
            // A client may have written anything there.
            let fits = found.verify(size).is_ok()
                && found.disk_type == DiskType::Fixed
                && found.current_size == size;
            footer = fits.then_some(found);
        }
        Ok(Self {
            image: RawImage::with_size(file, size),
            footer,
            path: file.path(),
        })
    }
}

impl fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Content").field(&self.path).finish()
    }
}

impl Image for Content<'_> {
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

impl Opened for Content<'_> {
    fn path(&self) -> &Path {
        self.path
    }

    fn format(&self) -> Format {
        if self.footer.is_some() {
            Format::Fixed
        } else {
            Format::Raw
        }
    }

    fn footer(&self) -> Option<&Footer> {
        self.footer.as_ref()
    }

    fn block_size(&self) -> Option<u32> {
        None
    }

    fn files(&self) -> Vec<&Path> {
        vec![self.path]
    }

    fn check_unchanged(&self) -> Result<()> {
        // The server has exclusive use of it, and doesn't write to it meanwhile.
        Ok(())
    }
}

/// A point in time of another disk, to be copied under another name.
#[derive(Debug)]
pub(super) struct Copied(pub(super) Arc<PointImage>);

impl Image for Copied {
    fn virtual_size(&self) -> u64 {
        self.0.virtual_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        self.0.extents(within)
    }
}

impl Opened for Copied {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn format(&self) -> Format {
        self.0.format()
    }

    fn footer(&self) -> Option<&Footer> {
        self.0.footer()
    }

    fn block_size(&self) -> Option<u32> {
        self.0.block_size()
    }

    fn files(&self) -> Vec<&Path> {
        self.0.files()
    }

    fn check_unchanged(&self) -> Result<()> {
        self.0.check_unchanged()
    }

    fn side(&self) -> Side {
        self.0.side()
    }
}

/// A disk of a store.
#[derive(Debug, Clone)]
pub(super) struct Points {
    store: PathBuf,
    disk: String,
}

/// The metadata of a new point.
#[derive(Debug, Default)]
pub(super) struct Point {
    pub(super) name: String,
    pub(super) family: Family,
    pub(super) full: bool,
}

impl Points {
    pub(super) fn new(store: PathBuf, disk: String) -> Self {
        Self { store, disk }
    }

    /// Adds a point with the content of `image`.
    pub(super) fn create(
        &self,
        image: &dyn Opened,
        point: Point,
        progress: &dyn Progress,
    ) -> Result<()> {
        let workers = Workers::new(None)?;
        let work = Work {
            workers: &workers,
            progress,
        };
        self.ensure_store()?;
        let mut disk = self.open(Access::Create)?;
        let new = NewPoint {
            name: point.name,
            family: point.family,
            full: point.full,
            ..NewPoint::default()
        };
        let created = create(&mut disk, image, &new, work);
        if created.is_err() {
            disk.discard_if_empty();
        }
        created.map(drop)
    }

    /// The folder is the server's own. Another snapshot of another disk may be the first one at the same time.
    fn ensure_store(&self) -> Result<()> {
        init_if_none(&self.store, STORE_VERSION, &Audience::nobody_else()).map(drop)
    }

    /// The point called `name`, which stays readable even if it is deleted.
    pub(super) fn image(&self, name: &str) -> Result<PointImage> {
        let disk = self.open(Access::Read)?;
        let mut image = disk.image(disk.find(name)?)?;
        image.hold_files()?;
        Ok(image)
    }

    /// Deletes the point called `name`, if it exists, even if it is the last one.
    pub(super) fn delete(&self, name: &str, progress: &dyn Progress) -> Result<()> {
        if !self.names()?.iter().any(|known| known == name) {
            return Ok(());
        }
        let workers = Workers::new(None)?;
        let work = Work {
            workers: &workers,
            progress,
        };
        delete(&mut self.open(Access::Write)?, name, true, work).map(drop)
    }

    /// The names of the points, the oldest first.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        if !on_disk(&self.store.join(&self.disk)).is_dir() {
            return Ok(Vec::new());
        }
        let disk = self.open(Access::Read)?;
        Ok(disk
            .points()
            .iter()
            .map(|point| point.name.clone())
            .collect())
    }

    /// Opens the disk; waits for a short time if another command has locked it.
    fn open(&self, access: Access) -> Result<Disk> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Disk::open(&self.store, &self.disk, access) {
                Err(error) if is_locked(&error) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                opened => return opened,
            }
        }
    }
}

fn is_locked(error: &Error) -> bool {
    error.kind() == ErrorKind::Locked
}
