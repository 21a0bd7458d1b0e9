//! The images that are served, by name.
//!
//! A point in time is opened on request, and closed when nobody uses it any more: a store with a thousand snapshots
//! costs nothing until they are read, and the space of deleted ones is freed as soon as their last reader has gone.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::diff::{ChangedPages, DiffFile};
use crate::error::{Error, ErrorKind, Result};
use crate::files::Opened;
use crate::image::{ExtentState, whole};
use crate::page::PageRange;
use crate::snapshot::{Access, Disk, PointImage, Time, disks};

/// An opened image or point in time.
#[derive(Debug)]
pub struct Served {
    image: Box<dyn Opened>,
    time: Option<Time>,
    data: OnceLock<u64>,
    /// The names of the snapshots that it is made of, the base first, without its own.
    earlier: Vec<String>,
    /// What leads from each of them to the next one.
    diffs: Vec<Arc<DiffFile>>,
}

impl Served {
    fn of_image(image: Box<dyn Opened>) -> Self {
        Self {
            image,
            time: None,
            data: OnceLock::new(),
            earlier: Vec::new(),
            diffs: Vec::new(),
        }
    }

    fn of_point(point: PointImage) -> Self {
        Self {
            time: Some(point.manifest().time),
            data: OnceLock::new(),
            earlier: point.earlier().to_vec(),
            diffs: point.diffs().to_vec(),
            image: Box::new(point),
        }
    }

    /// The names of the snapshots since which the changes are known, oldest first.
    pub fn earlier(&self) -> impl Iterator<Item = &str> {
        self.earlier.iter().map(String::as_str)
    }

    /// The pages that may have changed since the snapshot `name`, if that is one of the [earlier](Self::earlier) ones.
    pub fn changed_since(&self, name: &str) -> Option<ChangedPages> {
        let at = self.earlier().position(|earlier| earlier == name)?;
        let diffs = self.diffs.get(at..)?;
        Some(ChangedPages::new(diffs.to_vec()))
    }

    /// The image.
    pub fn image(&self) -> &dyn Opened {
        &*self.image
    }

    /// The time of the snapshot, if it is a point in time.
    pub fn time(&self) -> Option<Time> {
        self.time
    }

    /// Bytes that may hold data, as opposed to zeros; counted the first time.
    pub fn data_bytes(&self) -> Result<u64> {
        if let Some(known) = self.data.get() {
            return Ok(*known);
        }
        let counted = data_in(&*self.image, whole(&*self.image))?;
        Ok(*self.data.get_or_init(|| counted))
    }
}

/// Bytes of `range` that may hold data.
pub(super) fn data_in(image: &dyn Opened, range: PageRange) -> Result<u64> {
    image.extents(range).try_fold(0_u64, |sum, extent| {
        let extent = extent?;
        let data = extent.state == ExtentState::Data;
        Ok(sum.saturating_add(if data { extent.range.len() } else { 0 }))
    })
}

/// The facts about a point in time that are known without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointEntry {
    /// The name of the snapshot.
    pub name: String,
    /// Distinguishes it from another snapshot that gets its name later.
    pub id: String,
    /// Size of the virtual disk in bytes.
    pub size: u64,
    /// Its time.
    pub time: Time,
}

/// When a disk was last read, and its snapshots at that time.
type Listed = (Instant, Arc<[PointEntry]>);

/// The source of what is served: one image, the snapshots of one disk, or those of all disks of a store.
#[derive(Debug)]
pub struct Shelf {
    what: What,
    /// Open points, by disk and id.
    open: Mutex<HashMap<(String, String), Weak<Served>>>,
    /// The snapshots of a disk when it was last read, by its name.
    listed: Mutex<HashMap<String, Listed>>,
}

#[derive(Debug)]
enum What {
    Image(Arc<Served>),
    Store {
        store: PathBuf,
        disk: Option<String>,
    },
}

impl Shelf {
    /// Serves one image.
    pub fn of_image(image: Box<dyn Opened>) -> Self {
        Self::new(What::Image(Arc::new(Served::of_image(image))))
    }

    /// Serves one point in time.
    pub fn of_point(point: PointImage) -> Self {
        Self::new(What::Image(Arc::new(Served::of_point(point))))
    }

    /// Serves all snapshots of one disk, including those added later.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage) if there is no such disk.
    pub fn of_disk(store: PathBuf, disk: &str) -> Result<Self> {
        let shelf = Self::new(What::Store {
            store,
            disk: Some(disk.to_owned()),
        });
        shelf.points(disk)?;
        Ok(shelf)
    }

    /// Serves all snapshots of all disks of a store, including those added later.
    pub fn of_store(store: PathBuf) -> Result<Self> {
        disks(&store)?;
        Ok(Self::new(What::Store { store, disk: None }))
    }

    fn new(what: What) -> Self {
        Self {
            what,
            open: Mutex::default(),
            listed: Mutex::default(),
        }
    }

    /// The image, if it is the only one.
    pub fn image(&self) -> Option<&Arc<Served>> {
        match &self.what {
            What::Image(image) => Some(image),
            What::Store { .. } => None,
        }
    }

    /// The disk, if the snapshots of only one are served.
    pub fn disk(&self) -> Option<&str> {
        match &self.what {
            What::Store { disk, .. } => disk.as_deref(),
            What::Image(_) => None,
        }
    }

    /// The names of the disks in order; empty for an image.
    pub fn disks(&self) -> Result<Vec<String>> {
        match &self.what {
            What::Image(_) => Ok(Vec::new()),
            What::Store {
                disk: Some(disk), ..
            } => Ok(vec![disk.clone()]),
            What::Store { store, disk: None } => disks(store),
        }
    }

    /// The snapshots of a disk, oldest first, at most one second old; while another command changes the disk, as they
    /// were before.
    ///
    /// # Errors
    ///
    /// [`Locked`](ErrorKind::Locked) while another command changes a disk that wasn't read before.
    pub fn points(&self, name: &str) -> Result<Arc<[PointEntry]>> {
        const FRESH: Duration = Duration::from_secs(1);
        let lock = || self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(name).cloned();
        if let Some((at, points)) = &known
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(points));
        }
        match (self.open_disk(name), known) {
            (Ok(disk), _) => Ok(self.note_points(&disk)),
            (Err(error), Some((_, points))) if error.kind() == ErrorKind::Locked => Ok(points),
            (Err(error), _) => Err(error),
        }
    }

    fn note_points(&self, disk: &Disk) -> Arc<[PointEntry]> {
        let points = disk.points().iter();
        let points: Arc<[PointEntry]> = points
            .map(|point| PointEntry {
                name: point.name.clone(),
                id: point.id.clone(),
                size: point.virtual_size,
                time: point.time,
            })
            .collect();
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.insert(
            disk.name().to_owned(),
            (Instant::now(), Arc::clone(&points)),
        );
        points
    }

    /// Opens a snapshot, or returns the one that is open already. Without a name, the newest one.
    ///
    /// # Errors
    ///
    /// [`Locked`](ErrorKind::Locked) while another command changes the disk.
    pub fn open(&self, disk: &str, name: Option<&str>) -> Result<Arc<Served>> {
        let found = match self.open_disk(disk) {
            Err(error) if error.kind() == ErrorKind::Locked => {
                return self.already_open(disk, name).ok_or(error);
            }
            found => found?,
        };
        self.note_points(&found);
        let point = match name {
            Some(name) => found.find(name)?,
            None => found.newest().ok_or_else(|| {
                Error::usage("there is no snapshot of this disk yet").with_path(found.folder())
            })?,
        };
        let key = (disk.to_owned(), point.id.clone());
        let lock = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = lock().get(&key).and_then(Weak::upgrade) {
            return Ok(open);
        }
        let mut image = found.image(point)?;
        image.hold_files()?;
        let served = Arc::new(Served::of_point(image));
        let mut open = lock();
        if let Some(faster) = open.get(&key).and_then(Weak::upgrade) {
            return Ok(faster);
        }
        open.retain(|_, open| open.strong_count() > 0);
        open.insert(key, Arc::downgrade(&served));
        Ok(served)
    }

    /// A snapshot that is open, according to what was last known about its disk.
    fn already_open(&self, disk: &str, name: Option<&str>) -> Option<Arc<Served>> {
        let points = self.points(disk).ok()?;
        let point = match name {
            Some(name) => points.iter().find(|point| point.name == name)?,
            None => points.last()?,
        };
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (disk.to_owned(), point.id.clone());
        open.get(&key).and_then(Weak::upgrade)
    }

    fn open_disk(&self, name: &str) -> Result<Disk> {
        match &self.what {
            What::Store { store, disk } if disk.as_deref().is_none_or(|only| only == name) => {
                Disk::open(store, name, Access::Read)
            }
            _ => Err(Error::new(ErrorKind::Usage, "there is no such disk here").with_found(name)),
        }
    }
}
