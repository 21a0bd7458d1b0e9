//! A disk in a store: its snapshots, its lock, and what an interrupted command left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::delete::{self, Intent};
use super::layout::{DELETING, LOCK, NEW, PART, WINDOWS};
use super::manifest::LONGEST;
use super::{Manifest, PointImage, State, Stem, Time, check_disk_name, incoming};
use crate::error::{Error, ErrorKind, Result};
use crate::parallel::Workers;
use crate::progress::{Progress, Silent};
use crate::storage::{
    AtomicFile, File, Handles, Overwrite, ReadAt as _, WriteAt as _, create_folder,
    remove_if_there, rename,
};
use crate::text::shown;

/// Diffs of one disk that are open at a time.
const OPEN_DIFFS: usize = 64;

/// The threads to work with, and who is told how far the work is.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// The threads.
    pub workers: &'a Workers,
    /// Told what is done.
    pub progress: &'a dyn Progress,
}

impl std::fmt::Debug for Work<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").finish_non_exhaustive()
    }
}

/// What a disk is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To read, beside other readers.
    Read,
    /// To change it, alone.
    Write,
    /// To change it, and to make it if it isn't there.
    Create,
}

/// A disk in a store, locked until it is dropped. Images of its points in time keep the lock too.
#[derive(Debug)]
pub struct Disk {
    store: PathBuf,
    name: String,
    folder: PathBuf,
    points: Vec<Manifest>,
    damaged: Vec<Error>,
    copying: Option<Manifest>,
    lock: Arc<File>,
    handles: Arc<Handles>,
    writable: bool,
}

/// The names of the disks in the store at `store`, in order.
pub fn disks(store: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(store).map_err(|e| no_store(store, e))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("cannot read the folder", e).path(store))?;
        let name = entry.file_name().into_string().unwrap_or_default();
        let is_disk = check_disk_name(&name).is_ok() && entry.path().is_dir();
        if is_disk && !file_names(&entry.path())?.is_empty() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn no_store(store: &Path, error: io::Error) -> Error {
    let missing = error.kind() == io::ErrorKind::NotFound;
    let error = Error::io("cannot open the store", error).path(store);
    if missing {
        return error.hint(
            "name a store with --store or VHDKIT_STORE; vhd snapshot create makes a new one",
        );
    }
    error
}

/// The names of the files of a folder that may belong to snapshots.
pub(super) fn file_names(folder: &Path) -> Result<Vec<String>> {
    let failed = |e| Error::io("cannot read the folder", e).path(folder);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        names.extend(name.into_string().ok().filter(|name| {
            Stem::parse(name).is_some() || name.starts_with(".vhdkit-") || name == WINDOWS
        }));
    }
    names.sort_unstable();
    Ok(names)
}

impl Disk {
    /// Opens the disk `name` of the store at `store`, and finishes what an interrupted command left.
    ///
    /// # Errors
    ///
    /// [`Locked`](ErrorKind::Locked) at once when another command is in the way.
    pub fn open(store: &Path, name: &str, access: Access) -> Result<Self> {
        check_disk_name(name)?;
        let folder = store.join(name);
        if access == Access::Create && !folder.is_dir() {
            create_folder(&folder, 0o777)?;
        } else if !folder.is_dir() {
            return Err(no_disk(store, name));
        }
        let disk = Self::locked(store, name, access)?;
        if access == Access::Create {
            disk.ensure_folder()?;
        }
        if disk.writable || !disk.is_interrupted()? {
            return Ok(disk);
        }
        // Only who is alone may finish it.
        drop(disk);
        drop(Self::locked(store, name, Access::Write)?);
        Self::locked(store, name, Access::Read)
    }

    fn locked(store: &Path, name: &str, access: Access) -> Result<Self> {
        let folder = store.join(name);
        let writable = access != Access::Read;
        let lock = open_lock(&folder.join(LOCK), writable)?;
        if writable {
            lock.lock_exclusive()?;
        } else {
            lock.lock_shared()?;
        }
        let mut disk = Self {
            store: store.to_path_buf(),
            name: name.to_owned(),
            folder,
            points: Vec::new(),
            damaged: Vec::new(),
            copying: None,
            lock: Arc::new(lock),
            handles: Handles::new(OPEN_DIFFS),
            writable,
        };
        disk.load()?;
        if writable {
            disk.recover()?;
        }
        Ok(disk)
    }

    /// Reads all manifests again.
    pub(super) fn load(&mut self) -> Result<()> {
        (self.points, self.damaged) = (Vec::new(), Vec::new());
        for file in file_names(&self.folder)? {
            if !matches!(Stem::parse(&file), Some((_, ".json"))) {
                continue;
            }
            let path = self.folder.join(&file);
            match read_manifest(&path, &path) {
                Ok(manifest) => self.points.push(manifest),
                Err(error) if error.kind() == ErrorKind::Io => return Err(error),
                Err(error) => self.damaged.push(error),
            }
        }
        self.points.sort_by_key(|point| point.sequence);
        self.copying = incoming::partial(self)?;
        Ok(())
    }

    /// Whether an interrupted command left something that readers must not see.
    fn is_interrupted(&self) -> Result<bool> {
        let names = file_names(&self.folder)?;
        let half = self
            .points
            .iter()
            .any(|point| names.contains(&format!("{}{NEW}", point.data.file)));
        Ok(half || self.path(DELETING).exists())
    }

    /// Finishes or takes back what an interrupted command left: data whose manifest stands gets its name, data whose
    /// manifest was never written goes, and so do temporary files. Data under its final name is never touched.
    fn recover(&mut self) -> Result<()> {
        if let Some(intent) = Intent::read(&self.folder)? {
            let (workers, progress) = (Workers::new(None)?, Silent);
            let work = Work {
                workers: &workers,
                progress: &progress,
            };
            delete::finish(self, &intent, work)?;
        }
        for name in file_names(&self.folder)? {
            let path = self.folder.join(&name);
            if name.starts_with(".vhdkit-") {
                remove_if_there(&path)?;
                continue;
            }
            if name.ends_with(PART) && self.copying.is_none() {
                // The copy was complete but for this, or what it was of can't be told any more.
                remove_if_there(&path)?;
                continue;
            }
            let Some(file) = name.strip_suffix(NEW) else {
                continue;
            };
            let (known, there) = (
                self.points.iter().any(|point| point.data.file == file),
                self.folder.join(file).exists(),
            );
            if known && !there {
                rename(&path, &self.folder.join(file))?;
            } else if self.damaged.is_empty() {
                // Without its manifest it was never a snapshot; beside the file that it should have replaced, the
                // deletion that made it was never decided.
                remove_if_there(&path)?;
            }
        }
        Ok(())
    }

    /// The first snapshot must not be lost with its folder, which may have been made by a command that was killed.
    pub(super) fn ensure_folder(&self) -> Result<()> {
        if self.points.is_empty() {
            create_folder(&self.folder, 0o777)?;
        }
        Ok(())
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The snapshots whose manifests can be read, the oldest first.
    pub fn points(&self) -> &[Manifest] {
        &self.points
    }

    /// What is wrong with the other manifests.
    pub fn damaged(&self) -> &[Error] {
        &self.damaged
    }

    /// Takes out what is wrong with the manifests.
    pub fn take_damaged(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.damaged)
    }

    /// The snapshot that is being copied into the store, or whose copy was interrupted. It can't be used.
    pub fn copying(&self) -> Option<&Manifest> {
        self.copying.as_ref()
    }

    /// The newest snapshot.
    pub fn newest(&self) -> Option<&Manifest> {
        self.points.last()
    }

    /// The snapshot called `name`.
    pub fn find(&self, name: &str) -> Result<&Manifest> {
        let found = self.points.iter().find(|point| point.name == name);
        found.ok_or_else(|| {
            if let Some(part) = self.copying().filter(|part| part.name == name) {
                return incoming::incomplete(self, part);
            }
            let newest = self.newest().map_or("none at all", |point| &point.name);
            Error::usage("there is no such snapshot")
                .path(&self.folder)
                .found(format_args!("\"{name}\""))
                .expected(format_args!(
                    "a name that vhd snapshot list prints; the newest is \"{newest}\""
                ))
        })
    }

    /// The newest snapshot that isn't newer than `time`.
    pub fn at(&self, time: Time) -> Result<&Manifest> {
        let found = self.points.iter().rev().find(|point| point.time <= time);
        found.ok_or_else(|| {
            let oldest = self.points.first().map(|point| point.time);
            let oldest = oldest.map_or_else(|| "none".to_owned(), |time| time.to_string());
            Error::usage("there is no snapshot as old as that")
                .path(&self.folder)
                .found(time)
                .expected(format_args!("{oldest} or later"))
        })
    }

    /// The snapshots that `point` is made of: a base, then the diffs up to it.
    pub fn chain<'a>(&'a self, point: &'a Manifest) -> Result<Vec<&'a Manifest>> {
        let mut chain = vec![point];
        let mut last = point;
        while let Some(parent) = &last.parent {
            let before = self
                .points
                .iter()
                .rfind(|p| p.sequence < last.sequence && p.id == *parent);
            last = before.ok_or_else(|| {
                let error = Error::damaged("a snapshot that this one is made of is missing")
                    .path(self.folder.join(last.stem().manifest()))
                    .field("parent")
                    .found(parent);
                match self.damaged.first() {
                    Some(cause) => error.source(cause.to_string()),
                    None => error.hint("take its files from a copy of the store"),
                }
            })?;
            chain.push(last);
        }
        chain.reverse();
        Ok(chain)
    }

    /// The snapshots that are made of `point`, itself included, in order.
    pub fn made_of(&self, point: &Manifest) -> Vec<&Manifest> {
        let all = self.points.iter();
        all.filter(|later| {
            self.chain(later)
                .is_ok_and(|chain| chain.iter().any(|p| p.id == point.id))
        })
        .collect()
    }

    /// A point in time as an image.
    pub fn image(&self, point: &Manifest) -> Result<PointImage> {
        for part in self.chain(point)? {
            if part.state != State::Complete || part.completion_percent != 100 {
                return Err(
                    Error::new(ErrorKind::Pending, "this snapshot isn't complete")
                        .path(self.folder.join(part.stem().manifest()))
                        .field("completion_percent")
                        .found(part.completion_percent)
                        .expected(100)
                        .hint("run the command again that was copying it"),
                );
            }
        }
        PointImage::open(self, point)
    }

    /// What messages call a point in time: `STORE::DISK@SNAPSHOT`.
    pub fn label(&self, point: &Manifest) -> PathBuf {
        let name = format!("{}::{}@{}", shown(&self.store), self.name, point.name);
        PathBuf::from(name)
    }

    pub(super) fn lock(&self) -> &Arc<File> {
        &self.lock
    }

    pub(super) fn handles(&self) -> &Arc<Handles> {
        &self.handles
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// An error unless the disk may be changed.
    pub(super) fn check_open_for_writing(&self) -> Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(Error::usage("the disk was opened only for reading").path(&self.folder))
    }

    /// Knows a snapshot as it is now, in the place of one with its number.
    pub(super) fn put(&mut self, point: Manifest) {
        self.points.retain(|old| old.sequence != point.sequence);
        self.points.push(point);
        self.points.sort_by_key(|point| point.sequence);
    }

    /// Knows a snapshot no longer.
    pub(super) fn take_out(&mut self, id: &str) {
        self.points.retain(|point| point.id != id);
    }

    /// An error unless the disk may be changed and nothing of it is damaged.
    pub(super) fn check_writable(&mut self) -> Result<()> {
        self.check_open_for_writing()?;
        match self.damaged.pop() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Makes a snapshot exist whose data stands under its name with `.new` at the end: writes the manifest, then gives
    /// the data its name.
    pub(super) fn commit(&mut self, manifest: Manifest) -> Result<()> {
        self.write_manifest(&manifest, Overwrite::No)?;
        let file = self.path(&manifest.data.file);
        let new = self.path(&format!("{}{NEW}", manifest.data.file));
        rename(&new, &file)?;
        self.points.push(manifest);
        Ok(())
    }

    pub(super) fn write_manifest(&self, manifest: &Manifest, overwrite: Overwrite) -> Result<()> {
        let file = AtomicFile::new(self.path(&manifest.stem().manifest()))?;
        file.file().write_all_at(&manifest.encode()?, 0)?;
        file.publish(overwrite)
    }
}

fn no_disk(store: &Path, name: &str) -> Error {
    match disks(store) {
        Err(error) => error,
        Ok(names) => {
            let some = names.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
            let there = if some.is_empty() {
                "no disk at all".to_owned()
            } else {
                format!("one of those that are there: {some}")
            };
            Error::usage("there is no such disk in the store")
                .path(store)
                .found(format_args!("\"{name}\""))
                .expected(there)
        }
    }
}

/// Opens a lock file; a store that can't be written may be without one.
pub(super) fn open_lock(path: &Path, writable: bool) -> Result<File> {
    if !writable {
        match File::open(path) {
            Err(error) if error.io_kind() == Some(io::ErrorKind::NotFound) => {}
            opened => return opened,
        }
    }
    File::open_or_create(path)
}

/// Reads the manifest at `path`, which shall be called `name` when it is complete.
pub(super) fn read_manifest(path: &Path, name: &Path) -> Result<Manifest> {
    let file = File::open(path)?;
    let len = file.byte_len()?;
    if len > LONGEST {
        return Err(Error::damaged("this is no manifest")
            .path(path)
            .found(format_args!("{len} bytes"))
            .expected(format_args!("at most {LONGEST}")));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Manifest::decode(&bytes, name)
}
