//! Opens images by the names that people type.

use std::fs;
use std::path::{Path, PathBuf};

#[cfg(feature = "azure")]
use crate::blob::BlobName;
#[cfg(feature = "azure")]
use crate::cloud::{Access, Cloud, ResourceName};
use crate::error::{Error, Result};
#[cfg(feature = "azure")]
use crate::files::BlobImage;
use crate::files::{FormatChoice, OpenOptions, Opened, ParentOptions, open_image};
#[cfg(all(feature = "azure", feature = "store"))]
use crate::snapshot::Container;
#[cfg(feature = "store")]
use crate::snapshot::{Disk, PointImage, open_beside};
use crate::storage::IoPolicy;

fn format_of_a_point(path: &Path) -> Error {
    Error::usage("the format of a point in time can't be chosen")
        .with_path(path)
        .with_hint("omit the option")
}

/// Returns whether a store is one on a service.
#[cfg(all(feature = "azure", feature = "store"))]
fn is_address(store: &Path) -> bool {
    store.to_str().is_some_and(BlobName::is_address)
}

/// The name of a point in time of a store, `STORE::DISK@SNAPSHOT`, which can be used wherever an image is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PointName<'a> {
    /// The store; empty for the default one.
    pub store: &'a str,
    /// The disk.
    pub disk: &'a str,
    /// The snapshot; `None` for the newest.
    pub snapshot: Option<&'a str>,
}

impl<'a> PointName<'a> {
    /// Parses `name`. Returns `None` if it is the name of a file, or if a file of exactly that name exists.
    pub fn parse(name: &'a Path) -> Option<Self> {
        let (store, point) = name.to_str()?.rsplit_once("::")?;
        if point.contains('/') || fs::symlink_metadata(name).is_ok() {
            return None;
        }
        let (disk, snapshot) = match point.split_once('@') {
            Some((disk, snapshot)) => (disk, Some(snapshot)),
            None => (point, None),
        };
        Some(Self {
            store,
            disk,
            snapshot,
        })
    }
}

/// Opens images by name: files, block devices, and points in time of stores.
///
/// ```no_run
/// use vhdkit::image::{DiskReader, Image as _};
///
/// # fn main() -> vhdkit::Result<()> {
/// let disk = vhdkit::open("backup::web@tue")?;
/// println!("{} bytes", disk.virtual_size());
/// let seekable = DiskReader::new(&*disk); // Read + Seek, for crates that read partitions and file systems
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Opener {
    options: OpenOptions,
    store: Option<PathBuf>,
    #[cfg(feature = "azure")]
    connector: Option<std::sync::Arc<crate::blob::Connector>>,
    #[cfg(feature = "azure")]
    cloud: Option<std::sync::Arc<Cloud>>,
}

impl Opener {
    /// Creates an opener that detects formats, reads intact images only, and looks for parents next to their children.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens files as images of this format instead of detecting it.
    #[must_use]
    pub fn format(mut self, format: FormatChoice) -> Self {
        self.options.format = Some(format);
        self
    }

    /// Reads as much as possible of damaged VHDs: lost blocks read as zeros, or as the parent has them.
    #[must_use]
    pub fn salvage(mut self, salvage: bool) -> Self {
        self.options.salvage = salvage;
        self
    }

    /// Sets where to look for the parents of differencing VHDs.
    #[must_use]
    pub fn parents(mut self, parents: ParentOptions) -> Self {
        self.options.parents = parents;
        self
    }

    /// Sets how files are read.
    #[must_use]
    pub fn io(mut self, policy: IoPolicy) -> Self {
        self.options.io = policy;
        self
    }

    /// Sets the store for names without one: `::DISK@SNAPSHOT`.
    #[must_use]
    pub fn store(mut self, store: impl Into<PathBuf>) -> Self {
        self.store = Some(store.into());
        self
    }

    /// Sets all options for opening files at once.
    #[must_use]
    pub fn options(mut self, options: OpenOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets the connector through which page blobs are opened by their address.
    #[cfg(feature = "azure")]
    #[must_use]
    pub fn connector(mut self, connector: std::sync::Arc<crate::blob::Connector>) -> Self {
        self.connector = Some(connector);
        self
    }

    /// Sets the resource manager through which managed disks and snapshots are opened by their names.
    #[cfg(feature = "azure")]
    #[must_use]
    pub fn cloud(mut self, cloud: std::sync::Arc<Cloud>) -> Self {
        self.cloud = Some(cloud);
        self
    }

    /// Opens the image called `name` for reading. Later changes to a file are detected by
    /// [`check_unchanged`](Opened::check_unchanged).
    ///
    /// # Errors
    ///
    /// As [`open_image`]. For a point in time, [`Usage`](crate::ErrorKind::Usage) if there is no such store, disk or
    /// snapshot.
    pub fn open(&self, name: impl AsRef<Path>) -> Result<Box<dyn Opened>> {
        let path = name.as_ref();
        #[cfg(feature = "azure")]
        if let Some(image) = self.open_far(path)? {
            return Ok(Box::new(image));
        }
        if PointName::parse(path).is_none() {
            let options = OpenOptions {
                settle: true,
                ..self.options.clone()
            };
            return Ok(Box::new(open_image(path, &options)?));
        }
        if self.options.format.is_some() {
            return Err(format_of_a_point(path));
        }
        self.open_point(path)
    }

    /// Opens the point in time called `name`. Returns `None` if it is the name of a file, or if its store is a container of
    /// page blobs, whose points in time [`open_far`](Self::open_far) opens. The image holds its files
    /// open, so that the disk can be changed meanwhile, unless [`hold_files`](PointImage::hold_files) fails.
    #[cfg(feature = "store")]
    pub fn point(&self, name: &Path) -> Result<Option<PointImage>> {
        let Some(point) = PointName::parse(name) else {
            return Ok(None);
        };
        let store = match (&self.store, point.store) {
            (Some(store), "") => store.as_path(),
            (None, "") => {
                return Err(Error::usage("no store is named")
                    .with_path(name)
                    .with_expected("STORE::DISK@SNAPSHOT"));
            }
            (_, store) => Path::new(store),
        };
        #[cfg(feature = "azure")]
        if is_address(store) {
            return Ok(None);
        }
        let open = |disk: &mut Disk| {
            let found = match point.snapshot {
                Some(name) => disk.find(name)?,
                None => disk.newest().ok_or_else(|| {
                    Error::usage("there is no snapshot of this disk yet").with_path(disk.folder())
                })?,
            };
            let mut image = disk.image(found)?;
            let held = image.hold_files()?;
            Ok((image, held))
        };
        let (_, image) = open_beside(store, point.disk, open)?;
        Ok(Some(image))
    }

    /// Opens the page blob, or the snapshot of one, with the address `name`, or the point in time of that name in a container
    /// of page blobs, `https://ACCOUNT…/CONTAINER::DISK@SNAPSHOT`. Returns `None` if it is neither.
    #[cfg(feature = "azure")]
    pub fn open_blob(&self, name: &Path) -> Result<Option<BlobImage>> {
        if let Some(image) = self.open_in_container(name)? {
            return Ok(Some(image));
        }
        let Some(text) = name.to_str().filter(|text| BlobName::is_address(text)) else {
            return Ok(None);
        };
        let name = BlobName::parse(text)?;
        let blob = self.connected(&name)?.open(&name)?;
        let image = BlobImage::open(blob, self.options.format, self.options.format_option)?;
        Ok(Some(image))
    }

    #[cfg(feature = "azure")]
    fn connected(&self, name: &BlobName) -> Result<&std::sync::Arc<crate::blob::Connector>> {
        self.connector.as_ref().ok_or_else(|| {
            Error::usage("page blobs can't be opened without a connector")
                .with_path(name.shown())
                .with_hint("give the opener a connector")
        })
    }

    /// Opens the point in time called `name`, if its store is a container.
    #[cfg(all(feature = "azure", feature = "store"))]
    fn open_in_container(&self, name: &Path) -> Result<Option<BlobImage>> {
        let Some(point) = PointName::parse(name) else {
            return Ok(None);
        };
        let store = match (&self.store, point.store) {
            (Some(store), "") => store.as_path(),
            (_, store) => Path::new(store),
        };
        let Some(address) = store.to_str().filter(|_| is_address(store)) else {
            return Ok(None);
        };
        if self.options.format.is_some() {
            return Err(format_of_a_point(name));
        }
        let address = BlobName::parse(address)?;
        let connector = std::sync::Arc::clone(self.connected(&address)?);
        let container = Container::open(connector, &address)?;
        container.open_point(point.disk, point.snapshot).map(Some)
    }

    #[cfg(all(feature = "azure", not(feature = "store")))]
    fn open_in_container(&self, _: &Path) -> Result<Option<BlobImage>> {
        Ok(None)
    }

    /// Opens the page blob with the address `name`, or the managed disk or snapshot called `name`. Returns `None` if it is
    /// neither. Access to a managed disk is granted as long as the image is there.
    #[cfg(feature = "azure")]
    pub fn open_far(&self, name: &Path) -> Result<Option<BlobImage>> {
        if !ResourceName::is_name(name) {
            return self.open_blob(name);
        }
        let resource = ResourceName::parse(name.to_str().unwrap_or_default())?;
        let cloud = self.cloud.as_ref().ok_or_else(|| {
            Error::usage("managed disks can't be opened without a resource manager")
                .with_path(name)
                .with_hint("give the opener a cloud")
        })?;
        let blob = cloud.open(&cloud.find(&resource)?, Access::Read, name)?;
        let image = BlobImage::open(blob, self.options.format, self.options.format_option)?;
        Ok(Some(image))
    }

    #[cfg(feature = "store")]
    fn open_point(&self, path: &Path) -> Result<Box<dyn Opened>> {
        match self.point(path)? {
            Some(point) => Ok(Box::new(point)),
            None => Err(Error::usage("this isn't a point in time").with_path(path)),
        }
    }

    #[cfg(not(feature = "store"))]
    fn open_point(&self, path: &Path) -> Result<Box<dyn Opened>> {
        let _ = &self.store;
        Err(Error::unsupported("this program was built without stores").with_path(path))
    }
}
