//! Stores of points in time.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::Running;
use crate::error::Result;
use crate::files::{Format, Opened, Output};
use crate::progress::{Progress, Silent};
use crate::snapshot::{
    Access, Copied, Created, Deleted, Disk, Manifest, NewPoint, PointImage, ReadData,
    STORE_VERSION, Verified, Work, copy_disk, create, delete, disks, init, open_beside, restore,
    verify_beside,
};
use crate::storage::{Audience, Overwrite};

/// A folder with points in time of disks: for each disk a base, and a diff for each later snapshot.
///
/// ```no_run
/// # fn main() -> vhdkit::Result<()> {
/// let store = vhdkit::Store::init("backup")?;
/// let web = store.disk("web");
/// web.create("mon", &*vhdkit::open("monday.vhd")?)?;
/// web.create("tue", &*vhdkit::open("tuesday.vhd")?)?;
/// web.restore("mon", "monday-again.vhd")?;
/// for point in web.points()? {
///     println!("{} {}", point.name, point.time);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Store<'a> {
    folder: PathBuf,
    running: Running<'a>,
}

impl<'a> Store<'a> {
    /// Makes `folder`, which may be there, a store, and refers to it.
    ///
    /// # Errors
    ///
    /// [`Usage`](crate::ErrorKind::Usage) if it is a store already.
    pub fn init(folder: impl Into<PathBuf>) -> Result<Self> {
        let store = Self::new(folder);
        init(&store.folder, STORE_VERSION)?;
        Ok(store)
    }

    /// Refers to the store in `folder`. Nothing is opened yet: what uses it fails with
    /// [`Usage`](crate::ErrorKind::Usage) if it is not a store, as where a disk isn't mounted.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            running: Running {
                threads: None,
                progress: &Silent,
            },
        }
    }

    /// Sets the number of threads; by default one per processor.
    #[must_use]
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.running.threads = Some(threads);
        self
    }

    /// Reports progress, and stops if it asks for that.
    #[must_use]
    pub fn progress(mut self, progress: &'a dyn Progress) -> Self {
        self.running.progress = progress;
        self
    }

    /// The store's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the names of the disks, in order.
    pub fn disks(&self) -> Result<Vec<String>> {
        disks(&self.folder)
    }

    /// Refers to the disk called `name`, which need not exist yet. Nothing is opened: each call locks the disk while it
    /// runs.
    pub fn disk(&self, name: impl Into<String>) -> StoredDisk<'_> {
        StoredDisk {
            store: self,
            name: name.into(),
        }
    }

    /// Copies the snapshots of the disk `name` that `to` lacks, in order. Existing ones aren't sent again.
    pub fn copy(&self, name: &str, to: &Self) -> Result<Copied> {
        let copied = self.work(|work| Ok(copy_disk((&self.folder, &to.folder), name, work)))?;
        match copied.error {
            Some(error) => Err(error),
            None => Ok(copied),
        }
    }

    fn work<T>(&self, run: impl FnOnce(Work<'_>) -> Result<T>) -> Result<T> {
        let workers = self.running.workers()?;
        run(Work {
            workers: &workers,
            progress: self.running.progress,
        })
    }
}

impl std::fmt::Debug for Store<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// One disk of a [`Store`].
#[derive(Debug)]
pub struct StoredDisk<'a> {
    store: &'a Store<'a>,
    name: String,
}

impl StoredDisk<'_> {
    /// Adds a snapshot of `image`, called `name`, with the current time. Only what changed since the newest snapshot is
    /// stored.
    pub fn create(&self, name: impl Into<String>, image: &dyn Opened) -> Result<Created> {
        self.create_point(
            image,
            &NewPoint {
                name: name.into(),
                ..NewPoint::default()
            },
        )
    }

    /// Adds a snapshot of `image` with all of its options.
    pub fn create_point(&self, image: &dyn Opened, point: &NewPoint) -> Result<Created> {
        let mut disk = self.open(Access::Create)?;
        let created = self
            .store
            .work(|work| create(&mut disk, image, point, work));
        if created.is_err() {
            disk.discard_if_empty();
        }
        created
    }

    /// Returns the manifests of all snapshots, oldest first; also while another program changes the disk.
    pub fn points(&self) -> Result<Vec<Manifest>> {
        let mut disk = Disk::look(&self.store.folder, &self.name)?;
        match disk.take_damaged().into_iter().next() {
            Some(error) => Err(error),
            None => Ok(disk.points().to_vec()),
        }
    }

    /// Opens the snapshot called `name` as an image. It holds its files open, so that snapshots can be added and
    /// deleted meanwhile.
    pub fn image(&self, name: &str) -> Result<PointImage> {
        let (_, image) = open_beside(&self.store.folder, &self.name, |disk| {
            let mut image = disk.image(disk.find(name)?)?;
            let held = image.hold_files()?;
            Ok((image, held))
        })?;
        Ok(image)
    }

    /// Writes the snapshot called `name` to a new image, which appears only when its content digest is right. The file
    /// name decides between VHD and raw; a VHD gets the kind of the image from which the snapshot was made.
    pub fn restore(&self, name: &str, output: impl AsRef<Path>) -> Result<()> {
        let (point, path) = (self.image(name)?, output.as_ref());
        crate::files::refuse_same_file(path, &point.files())?;
        let format = match (Format::by_name(path)?, point.format()) {
            (Format::Dynamic, Format::Fixed) => Format::Fixed,
            (by_name, _) => by_name,
        };
        let made_from = Audience::of(point.files())?;
        let output = Output {
            path,
            format,
            overwrite: Overwrite::No,
            made_from: &made_from,
            dense: false,
        };
        self.store.work(|work| restore(&point, output, work))
    }

    /// Deletes the snapshot called `name`, which can't be the newest. All others stay intact.
    pub fn delete(&self, name: &str) -> Result<Deleted> {
        let mut disk = self.open(Access::Write)?;
        self.store.work(|work| delete(&mut disk, name, false, work))
    }

    /// Reads all data of the disk and reports problems.
    ///
    /// # Errors
    ///
    /// Problems are part of the result. An error means that something couldn't be checked.
    pub fn verify(&self) -> Result<Verified> {
        let folder = &self.store.folder;
        let verified = self
            .store
            .work(|work| verify_beside(folder, &self.name, ReadData::All, work));
        verified.map(|(_, verified)| verified)
    }

    fn open(&self, access: Access) -> Result<Disk> {
        Disk::open(&self.store.folder, &self.name, access)
    }
}
