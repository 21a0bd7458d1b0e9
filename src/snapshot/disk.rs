//! A disk in a store: its snapshots, its lock, and its files. It changes nothing; `recovery.rs` handles what an
//! interrupted command left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::file_names::{FileNames, file_names};
use super::layout::NEW;
use super::lock::DiskLock;
use super::manifest::LONGEST;
use super::marker::{disks, expect_store};
use super::plain::{check_plain, is_absent, read_limited};
use super::point::OpenDiffs;
use super::points::Points;
use super::seen::Seen;
use super::{
    Family, Holder, Manifest, PointFileName, PointImage, State, Time, check_disk_name, partial,
};
use crate::error::{Error, ErrorKind, Result};
use crate::remedy::{Choice, Remedy, SnapshotJob, Step};
use crate::storage::{
    AtomicFile, Audience, File, Handles, Overwrite, WriteAt as _, create_folder, on_disk,
    remove_if_there, rename,
};
use crate::text::shown;

/// The most diffs of one disk that are open at a time.
const OPEN_DIFFS: usize = 64;

/// The purpose of opening a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading, together with other readers.
    Read,
    /// Changing it, exclusively.
    Write,
    /// Changing it, and creating it if it doesn't exist.
    Create,
}

/// A disk in a store, locked until it is dropped. Images of its points in time also keep the lock.
#[derive(Debug)]
pub struct Disk {
    store: PathBuf,
    name: String,
    pub(super) folder: PathBuf,
    pub(super) points: Points,
    damaged: Vec<Error>,
    pub(super) copying: Option<Manifest>,
    /// The names of its files when they were last listed.
    pub(super) names: FileNames,
    /// Files that still have other names, under which they are read, because a command was interrupted.
    pub(super) unnamed: BTreeMap<String, String>,
    /// Snapshots that a deletion is removing, but on which others still depend.
    pub(super) going: Vec<Manifest>,
    /// The next snapshot's future manifest, if the base of the first of them is being rolled forward to it.
    pub(super) next_base: Option<Manifest>,
    lock: Arc<DiskLock>,
    handles: Arc<Handles>,
    open_diffs: OpenDiffs,
    /// Limits who may access new files: those who may access the newest snapshot, and the sources.
    audience: Audience,
    writable: bool,
    writer: Option<Writer>,
    /// Its files when it was read without its lock.
    pub(super) seen: Option<Seen>,
    /// The snapshot of another disk as which its first one begins, once it was opened.
    pub(super) below: OnceLock<Box<Below>>,
    /// The disks that begin as one of this disk, directly or by way of others, as far as they were opened for it.
    pub(super) above: Vec<String>,
}

/// The snapshot of another disk as which a disk begins.
#[derive(Debug)]
pub(super) struct Below {
    pub(super) disk: Disk,
    pub(super) point: Manifest,
}

/// A snapshot that another one depends on, and its disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link<'a> {
    pub(super) disk: &'a Disk,
    pub(super) point: &'a Manifest,
}

/// A command that changes a disk while it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// Who it is, if it said so.
    pub holder: Option<Holder>,
}

impl Disk {
    /// Locks the disk `name` of the store at `store` and reads its manifests, whatever an interrupted command left.
    pub(super) fn locked(store: &Path, name: &str, writable: bool) -> Result<Self> {
        let folder = Self::folder_of(store, name)?;
        let lock = DiskLock::take(&folder, writable)?;
        Self::with_lock(store, name, (folder, lock), writable)
    }

    /// Reads the manifests of the disk `name` without its lock: another command may be changing them. `writer` is that
    /// command, if there is one.
    pub(super) fn unlocked(store: &Path, name: &str, writer: Option<Writer>) -> Result<Self> {
        let folder = Self::folder_of(store, name)?;
        let mut disk = Self::with_lock(store, name, (folder, DiskLock::default()), false)?;
        disk.writer = writer;
        Ok(disk)
    }

    /// The folder of the disk `name`, which must be there.
    pub(super) fn folder_of(store: &Path, name: &str) -> Result<PathBuf> {
        check_disk_name(name)?;
        let folder = store.join(name);
        expect_store(store, Some(name))?;
        match fs::metadata(on_disk(&folder)) {
            Ok(found) if found.is_dir() => Ok(folder),
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("cannot look at", e).with_path(folder))
            }
            _ => Err(no_disk(store, name)),
        }
    }

    fn with_lock(
        store: &Path,
        name: &str,
        (folder, lock): (PathBuf, DiskLock),
        writable: bool,
    ) -> Result<Self> {
        let mut disk = Self {
            store: store.to_path_buf(),
            name: name.to_owned(),
            folder,
            points: Points::default(),
            damaged: Vec::new(),
            copying: None,
            names: FileNames::default(),
            unnamed: BTreeMap::new(),
            going: Vec::new(),
            next_base: None,
            lock: Arc::new(lock),
            handles: Handles::new(OPEN_DIFFS),
            open_diffs: OpenDiffs::default(),
            audience: Audience::default(),
            writable,
            writer: None,
            seen: None,
            below: OnceLock::new(),
            above: Vec::new(),
        };
        disk.load()?;
        Ok(disk)
    }

    /// Reads all manifests again.
    pub(super) fn load(&mut self) -> Result<()> {
        self.damaged.clear();
        self.going.clear();
        self.next_base = None;
        self.unnamed.clear();
        self.names = file_names(&self.folder)?;
        let mut points = Vec::new();
        for file in self.names.iter() {
            if !matches!(PointFileName::parse(file), Some((_, ".json"))) {
                continue;
            }
            let path = self.folder.join(file);
            match read_manifest(&path, &path) {
                Ok(manifest) => points.push(manifest),
                Err(error) if is_passing(&error) => return Err(error),
                Err(error) => self.damaged.push(error),
            }
        }
        self.points = Points::new(points);
        self.below = OnceLock::new();
        self.refuse_later_likes();
        self.copying = partial::find(self)?;
        self.made_from(Audience::default());
        Ok(())
    }

    /// Only the first snapshot of a disk can begin as one of another disk: who asks what depends on that looks no further.
    fn refuse_later_likes(&mut self) {
        let later = self.points().iter().skip(1);
        let wrong: Vec<Manifest> = later.filter(|p| p.like.is_some()).cloned().collect();
        for point in wrong {
            let error = Error::damaged(
                "only the first snapshot of a disk can begin as one of another disk",
            )
            .with_path(self.path(&point.stem().manifest()))
            .with_field("like")
            .with_found(
                point
                    .like
                    .as_ref()
                    .map_or_else(String::new, ToString::to_string),
            )
            .with_remedy(self.repair_remedy());
            self.damaged.push(error);
            self.points.take_out(point.sequence, &point.id);
        }
    }

    /// Restricts access to files created from now on to those who may access the sources and the newest snapshot.
    pub(super) fn made_from(&mut self, audience: Audience) {
        let newest = self.newest().map(|newest| self.path(&newest.data.file));
        // A missing one imposes no limit.
        let newest = newest.and_then(|path| Audience::of([path]).ok());
        self.audience = audience.and(newest.unwrap_or_default());
    }

    pub(super) fn audience(&self) -> &Audience {
        &self.audience
    }

    /// Creates a file at `path`, which may end in `.new`, to replace `file`. If `file` exists, the new one gets its
    /// owner and permissions.
    pub(super) fn new_file(&self, path: PathBuf, file: &str) -> Result<AtomicFile> {
        let mut new = AtomicFile::for_audience(path, self.audience.clone())?;
        let place = self.path(file);
        if check_plain(&place).is_ok() && !is_absent(&place) {
            new = new.for_audience_of_replaced(&File::open(&place)?)?;
        }
        Ok(new)
    }

    /// Lists its files again.
    pub(super) fn list_again(&mut self) -> Result<()> {
        self.names = file_names(&self.folder)?;
        Ok(())
    }

    /// The first snapshot must not be lost with its folder, which may have been created by a command that was killed.
    pub(super) fn ensure_folder(&self) -> Result<()> {
        if self.points().is_empty() {
            create_folder(&self.folder, 0o777)?;
        }
        Ok(())
    }

    /// The folder with its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The store that contains it.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// The snapshots whose manifests can be read, oldest first.
    pub fn points(&self) -> &[Manifest] {
        self.points.as_slice()
    }

    /// The problems with the other manifests.
    pub fn damaged(&self) -> &[Error] {
        &self.damaged
    }

    /// Returns the problems with the manifests, and forgets them.
    pub fn take_damaged(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.damaged)
    }

    /// The snapshots that an interrupted deletion was removing. The next command that changes the disk finishes it;
    /// until then the others can be read as they are.
    pub fn interrupted_deletion(&self) -> &[Manifest] {
        &self.going
    }

    /// Returns whether an interrupted deletion was removing these files.
    pub(super) fn is_going(&self, stem: &PointFileName) -> bool {
        self.going.iter().any(|point| point.stem() == *stem)
    }

    /// The snapshot that is being copied into the store, or whose copy was interrupted. It can't be used.
    pub fn copying(&self) -> Option<&Manifest> {
        self.copying.as_ref()
    }

    /// The command that was changing the disk when it was opened to be read beside it.
    pub fn writer(&self) -> Option<&Writer> {
        self.writer.as_ref()
    }

    /// The newest snapshot.
    pub fn newest(&self) -> Option<&Manifest> {
        self.points().last()
    }

    /// The disk to which all snapshots belong, from everything that they record about it.
    pub(super) fn family(&self) -> Result<Family> {
        self.points.family()
    }

    /// The snapshot called `name`.
    pub fn find(&self, name: &str) -> Result<&Manifest> {
        self.points.named(name).ok_or_else(|| {
            if let Some(part) = self.copying().filter(|part| part.name == name) {
                return partial::incomplete(self, part);
            }
            let newest = self.newest().map_or("none at all", |point| &point.name);
            Error::usage("there is no such snapshot")
                .with_path(&self.folder)
                .with_found(format_args!("\"{name}\""))
                .with_expected(format_args!(
                    "the name of a snapshot of this disk; the newest is \"{newest}\""
                ))
                .with_remedy(
                    Remedy::default()
                        .step(self.step(SnapshotJob::List), "a list of the snapshots")
                        .text(" has all names"),
                )
        })
    }

    /// The newest snapshot at or before `time`.
    pub fn at(&self, time: Time) -> Result<&Manifest> {
        let found = self.points().iter().rev().find(|point| point.time <= time);
        found.ok_or_else(|| {
            let oldest = self.points().first().map(|point| point.time);
            let oldest = oldest.map_or_else(|| "none at all".to_owned(), |time| time.to_string());
            Error::usage("there is no snapshot that old")
                .with_path(&self.folder)
                .with_found(time)
                .with_expected(format_args!("{oldest} or later"))
        })
    }

    /// The snapshot on which the diff of `point` is based; `None` if that is missing, and for a base.
    pub(super) fn parent_of(&self, point: &Manifest) -> Option<&Manifest> {
        let id = point.parent.as_deref()?;
        let known = self.points.with_id_before(id, point.sequence);
        known.or_else(|| {
            let mut going = self.going.iter();
            going.rfind(|p| p.sequence < point.sequence && p.id == id)
        })
    }

    /// The snapshots of this disk on which `point` depends: a base, then the diffs up to `point` itself.
    pub fn chain<'a>(&'a self, point: &'a Manifest) -> Result<Vec<&'a Manifest>> {
        let mut chain = vec![point];
        let mut last = point;
        while last.parent.is_some() {
            last = self.parent_of(last).ok_or_else(|| self.orphan(last))?;
            chain.push(last);
        }
        chain.reverse();
        Ok(chain)
    }

    /// The error for a snapshot whose parent is missing.
    pub(super) fn orphan(&self, point: &Manifest) -> Error {
        let error = Error::damaged("a snapshot on which this one depends is missing")
            .with_path(self.folder.join(point.stem().manifest()))
            .with_field("parent")
            .with_found(point.parent.as_deref().unwrap_or("none"));
        match self.damaged.first() {
            Some(cause) => error.with_source(cause.to_string()),
            None => error.with_remedy(self.repair_remedy()),
        }
    }

    /// How to rebuild damaged files.
    pub(super) fn repair_remedy(&self) -> Remedy {
        Remedy::new("rebuild it, from another store")
            .named(" (")
            .step(Step::Choose(Choice::FromStore), "")
            .named(")")
            .text(" or an image")
            .named(" (")
            .step(Step::Choose(Choice::FromImage), "")
            .named(")")
            .text(" if necessary: ")
            .step(self.step(SnapshotJob::Repair), "a repair does that")
    }

    /// This work on this disk, for remedies.
    pub(super) fn step(&self, job: SnapshotJob) -> Step {
        Step::Snapshot {
            job,
            of: Some((self.store.clone(), self.name.clone())),
        }
    }

    /// The snapshots that depend on `point`, including itself, in order.
    pub fn made_of(&self, point: &Manifest) -> Vec<&Manifest> {
        let mut made = BTreeSet::new();
        let all = self.points.from(point.sequence).iter();
        all.filter(|later| {
            let parent = self.parent_of(later).map(|parent| parent.sequence);
            let is_made = **later == *point
                || later.parent.is_some() && parent.is_some_and(|parent| made.contains(&parent));
            if is_made {
                made.insert(later.sequence);
            }
            is_made
        })
        .collect()
    }

    /// A point in time as an image.
    pub fn image(&self, point: &Manifest) -> Result<PointImage> {
        for Link { disk, point: part } in self.links(point)? {
            if part.state != State::Complete || part.completion_percent != 100 {
                return Err(
                    Error::new(ErrorKind::Pending, "this snapshot isn't complete")
                        .with_path(disk.folder.join(part.stem().manifest()))
                        .with_field("state, completion_percent")
                        .with_found(completion(part))
                        .with_expected("complete, 100")
                        .with_hint("run the command that was copying it again"),
                );
            }
        }
        PointImage::open(self, point)
    }

    /// The name of a point in time in messages: `STORE::DISK@SNAPSHOT`.
    pub fn label(&self, point: &Manifest) -> PathBuf {
        let name = format!("{}::{}@{}", shown(&self.store), self.name, point.name);
        PathBuf::from(name)
    }

    pub(super) fn lock(&self) -> &Arc<DiskLock> {
        &self.lock
    }

    pub(super) fn handles(&self) -> &Arc<Handles> {
        &self.handles
    }

    pub(super) fn open_diffs(&self) -> &OpenDiffs {
        &self.open_diffs
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// The path of a snapshot's data. Fails if something other than a plain file is there.
    pub(super) fn data_path(&self, point: &Manifest) -> Result<PathBuf> {
        let path = self.data_name(point);
        check_plain(&path)?;
        Ok(path)
    }

    /// As [`data_path`](Self::data_path), without checking the file.
    pub(super) fn data_name(&self, point: &Manifest) -> PathBuf {
        let file = &point.data.file;
        self.folder.join(self.unnamed.get(file).unwrap_or(file))
    }

    /// Fails unless the disk may be changed.
    pub(super) fn check_open_for_writing(&self) -> Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(Error::usage("the disk was opened only for reading").with_path(&self.folder))
    }

    /// Adds or replaces the manifest with its number in memory.
    pub(super) fn put(&mut self, point: Manifest) {
        self.open_diffs.forget(&point.data.file);
        if point.is_base() {
            self.below = OnceLock::new();
        }
        self.points.put(point);
    }

    /// Removes a manifest from memory.
    pub(super) fn take_out(&mut self, point: &Manifest) {
        self.open_diffs.forget(&point.data.file);
        self.points.take_out(point.sequence, &point.id);
    }

    /// Fails unless the disk may be changed and nothing of it is damaged.
    pub(super) fn check_writable(&mut self) -> Result<()> {
        self.check_open_for_writing()?;
        match self.damaged.pop() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Makes a snapshot exist whose data has its name with `.new` appended: writes the manifest, then renames the data.
    /// If that fails for lack of space, nothing is left of it.
    pub(super) fn commit(&mut self, manifest: Manifest) -> Result<()> {
        let file = self.path(&manifest.data.file);
        let new = self.path(&format!("{}{NEW}", manifest.data.file));
        if let Err(error) = self.write_manifest(&manifest, Overwrite::No) {
            if is_absent(&self.path(&manifest.stem().manifest())) {
                // It would only take space until the next command removes it.
                let _ = remove_if_there(&new);
            }
            return Err(error);
        }
        rename(&new, &file)?;
        self.names.insert(manifest.data.file.clone());
        self.names.insert(manifest.stem().manifest());
        self.put(manifest);
        Ok(())
    }

    pub(super) fn write_manifest(&self, manifest: &Manifest, overwrite: Overwrite) -> Result<()> {
        let name = manifest.stem().manifest();
        let file = self.new_file(self.path(&name), &name)?;
        file.file().write_all_at(&manifest.encode()?, 0)?;
        file.publish(overwrite)
    }

    /// Removes the folder of a disk that has no snapshot and no file except its locks, because the command that created
    /// it has failed.
    pub fn discard_if_empty(self) {
        const OURS: [&str; 2] = [super::layout::LOCK, super::layout::COPY_LOCK];
        if !self.points().is_empty() || !self.damaged.is_empty() {
            return;
        }
        let Ok(entries) = fs::read_dir(on_disk(&self.folder)) else {
            return;
        };
        let mut names = entries.map(|entry| entry.map(|entry| entry.file_name()));
        if names.all(|name| name.is_ok_and(|name| OURS.iter().any(|ours| name == *ours))) {
            let removed = OURS
                .iter()
                .try_for_each(|ours| remove_if_there(&self.path(ours)).map(drop));
            let _ = removed.and_then(|()| crate::storage::remove_folder(&self.folder));
        }
    }
}

/// Returns whether an error is about reading rather than about the data: it may be temporary, and isn't damage.
pub(super) fn is_passing(error: &Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::Damaged | ErrorKind::Unsupported | ErrorKind::Mismatch
    )
}

/// Describes whether a snapshot can be used, and how complete it is: the two may contradict each other.
pub(super) fn completion(point: &Manifest) -> String {
    format!("{}, {}", point.state.name(), point.completion_percent)
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
                .with_path(store)
                .with_found(format_args!("\"{name}\""))
                .with_expected(there)
        }
    }
}

/// Reads the manifest at `path`, whose final name is `name`.
pub(super) fn read_manifest(path: &Path, name: &Path) -> Result<Manifest> {
    let damaged = || Error::damaged("this is not a manifest").with_path(path);
    let bytes = read_limited(path, LONGEST, damaged)?
        .ok_or_else(|| Error::io("cannot open", io::ErrorKind::NotFound.into()).with_path(path))?;
    Manifest::decode(&bytes, name)
}
