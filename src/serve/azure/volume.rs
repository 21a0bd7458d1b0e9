//! A page blob or a managed disk: its content in a file, the map of its pages beside it, its snapshots in a store.
//!
//! ```text
//! FOLDER/  blob.json       name, metadata, sequence number, lease, snapshots
//!          pages           which pages hold data, and when each was written
//!          disk.vhd        the content of a disk; of a blob: content
//!          TIME.pages      the pages of a snapshot
//! ```

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};

use super::pages::{PageLog, PageMap, Step};
use super::points::{Content, Copied, Point, Points};
use super::text::{http_time, now, snapshot_time, ticks};
use crate::diff::page_list;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{ExtentState, Image, RawImage, whole};
use crate::page::{Change, ChangeKind, PAGE_SIZE, PageRange, to_usize};
use crate::parallel::Workers;
use crate::progress::{Progress, Silent};
use crate::snapshot::{Family, PointImage};
use crate::storage::{
    Access, AtomicFile, Audience, File, Overwrite, ReadAt as _, WriteAt as _, remove_folder,
    remove_if_there,
};

/// Points in time that are kept open.
const OPEN_POINTS: usize = 16;

/// Bytes copied at a time.
const PIECE: u64 = 4 << 20;

/// A lease on a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) id: String,
    /// Duration in seconds; none for an infinite lease.
    pub(super) duration: Option<i64>,
    /// When it expires.
    pub(super) until: Option<i64>,
    /// Whether somebody broke it.
    pub(super) broken: bool,
}

/// The copy operation that created a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CopyOf {
    pub(super) id: String,
    /// The source, without credentials.
    pub(super) source: String,
    pub(super) bytes: u64,
    pub(super) finished: i64,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    /// The time that identifies it.
    pub(super) time: String,
    /// The name of its point in the store; none if it has no bytes.
    point: Option<String>,
    pub(super) size: u64,
    /// The last 512 bytes, which are not part of the point, in hexadecimal digits.
    footer: Option<String>,
    pub(super) etag: String,
    pub(super) modified: i64,
    pub(super) sequence: u64,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) content_type: String,
}

/// The record of a blob, without its pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) schema_version: u32,
    pub(super) name: String,
    /// Whether it is a disk: a fixed VHD.
    pub(super) is_disk: bool,
    /// The file with its content; none of a disk that was deleted, or that only ever had snapshots.
    pub(super) file: Option<String>,
    pub(super) created: i64,
    pub(super) sequence: u64,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) content_type: String,
    pub(super) content_md5: Option<String>,
    pub(super) lease: Option<Held>,
    pub(super) copy: Option<CopyOf>,
    pub(super) snapshots: Vec<Taken>,
    /// The state of the file when the server ended; none while it runs, or if it was killed.
    closed: Option<String>,
}

impl Record {
    pub(super) fn new(name: &str, is_disk: bool, file: Option<&str>) -> Self {
        Self {
            schema_version: 1,
            name: name.to_owned(),
            is_disk,
            file: file.map(str::to_owned),
            created: now(),
            sequence: 0,
            metadata: BTreeMap::new(),
            content_type: "application/octet-stream".to_owned(),
            content_md5: None,
            lease: None,
            copy: None,
            snapshots: Vec::new(),
            closed: None,
        }
    }
}

/// Writes `value` as a JSON file, durably.
pub(super) fn save_json<T: Serialize>(path: &Path, value: &T, audience: &Audience) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| {
        Error::new(ErrorKind::Io, "cannot write as JSON")
            .with_path(path)
            .with_source(e)
    })?;
    bytes.push(b'\n');
    let file = AtomicFile::for_audience(path, audience.clone())?;
    file.file().write_all_at(&bytes, 0)?;
    file.publish(Overwrite::Yes)
}

/// Reads a JSON file.
pub(super) fn load_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let bytes = load(path, 256 << 20)?;
    serde_json::from_slice(&bytes).map_err(|e| {
        Error::damaged("this is not what this program writes")
            .with_path(path)
            .with_source(e)
            .with_hint("restore the file from a backup of the folder")
    })
}

/// The bytes of a plain file that has no more than `longest`.
pub(super) fn load(path: &Path, longest: u64) -> Result<Vec<u8>> {
    let file = File::open(path)?;
    let len = file.byte_len()?;
    if len > longest {
        return Err(Error::damaged("the file is too long")
            .with_path(path)
            .with_found(format_args!("{len} bytes"))
            .with_expected(format_args!("at most {longest} bytes")));
    }
    let mut bytes = vec![0; to_usize(len)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// The open files and the state of a blob.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) record: Record,
    log: PageLog,
    file: Option<File>,
    folder: PathBuf,
    audience: Audience,
}

impl Live {
    /// Bytes of the blob.
    pub(super) fn size(&self) -> u64 {
        self.log.map.size
    }

    /// The pages.
    pub(super) fn map(&self) -> &PageMap {
        &self.log.map
    }

    /// Changes with every change.
    pub(super) fn etag(&self) -> String {
        etag(self.log.map.generation)
    }

    /// Seconds since 1970.
    pub(super) fn modified(&self) -> i64 {
        self.log.map.modified
    }

    /// Whether there is a blob, beside its snapshots.
    pub(super) fn is_there(&self) -> bool {
        self.file.is_some()
    }

    fn file(&self) -> Result<&File> {
        self.file.as_ref().ok_or_else(|| {
            Error::usage("this disk is there no more, only its snapshots").with_path(&self.folder)
        })
    }

    fn step(&mut self, step: Step) -> Result<()> {
        self.log.note(step, now())
    }

    /// Records a change to something other than its pages, and saves the record.
    pub(super) fn touch(&mut self) -> Result<()> {
        self.step(Step::Touch)?;
        self.save()
    }

    /// Saves the record.
    pub(super) fn save(&self) -> Result<()> {
        save_json(&self.folder.join("blob.json"), &self.record, &self.audience)
    }

    /// Writes whole pages. When this returns they are on stable storage.
    pub(super) fn update(&mut self, range: PageRange, data: &[u8]) -> Result<()> {
        self.step(Step::Update(range))?;
        let file = self.file()?;
        file.write_all_at(data, range.start())?;
        file.sync()
    }

    /// Clears whole pages.
    pub(super) fn clear(&mut self, range: PageRange) -> Result<()> {
        self.step(Step::Clear(range))?;
        let file = self.file()?;
        file.write_zeros_at(range.start()..range.end())?;
        file.sync()
    }

    /// Cuts or extends the blob.
    pub(super) fn resize(&mut self, size: u64) -> Result<()> {
        self.step(Step::Resize(size))?;
        let file = self.file()?;
        file.set_len(size)?;
        file.sync()
    }

    /// Makes it a new blob of zeros.
    pub(super) fn replace(&mut self, size: u64, record: Record) -> Result<()> {
        self.step(Step::Born(size))?;
        let file = self.file()?;
        file.set_len(0)?;
        file.set_len(size)?;
        file.sync()?;
        let snapshots = std::mem::take(&mut self.record.snapshots);
        let (file, lease) = (self.record.file.take(), self.record.lease.take());
        self.record = Record {
            file,
            lease,
            snapshots,
            ..record
        };
        self.save()
    }

    /// Bytes of the blob itself.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file()?.read_exact_at(buf, offset)
    }
}

fn etag(generation: u64) -> String {
    format!("\"0x{generation:016X}\"")
}

/// A page blob or a managed disk.
#[derive(Debug)]
pub(super) struct Volume {
    folder: PathBuf,
    live: RwLock<Live>,
    points: Points,
    /// Points that are open, the one that was used last at the end.
    open: Mutex<Vec<(String, Arc<PointImage>)>>,
    /// The maps of snapshots that were asked for.
    maps: Mutex<HashMap<String, Arc<PageMap>>>,
}

/// The content and the pages of a snapshot.
#[derive(Debug, Clone)]
pub(super) struct Frozen {
    pub(super) taken: Taken,
    pub(super) map: Arc<PageMap>,
    /// None if it has no bytes but those of the footer.
    image: Option<Arc<PointImage>>,
    footer: Vec<u8>,
}

impl Frozen {
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let size = self.image.as_deref().map_or(0, Image::virtual_size);
        let inside = to_usize(size.saturating_sub(offset)).min(buf.len());
        let (disk, footer) = buf.split_at_mut(inside);
        if let Some(image) = self.image.as_ref().filter(|_| !disk.is_empty()) {
            image.read_exact_at(disk, offset)?;
        }
        if footer.is_empty() {
            return Ok(());
        }
        let at = to_usize(offset.saturating_sub(size));
        let bytes = self
            .footer
            .get(at..)
            .and_then(|rest| rest.get(..footer.len()));
        let bytes = bytes
            .ok_or_else(|| Error::damaged("a snapshot is shorter than it was").with_found(size))?;
        footer.copy_from_slice(bytes);
        Ok(())
    }
}

impl Volume {
    /// Makes a blob of `size` zeros in a new folder; with `content`, its bytes come from there.
    pub(super) fn create(
        folder: PathBuf,
        record: Record,
        size: u64,
        points: Points,
        audience: &Audience,
    ) -> Result<Self> {
        let map = PageMap::new(size, ticks(), now());
        let log = PageLog::create(&folder.join("pages"), &map, audience)?;
        let mut file = None;
        if let Some(name) = &record.file {
            let path = folder.join(name);
            let new = AtomicFile::for_audience(&path, audience.clone())?;
            new.file().set_len(size)?;
            new.publish(Overwrite::Yes)?;
            file = Some(File::open_locked(path, Access::Write)?);
        }
        let live = Live {
            record,
            log,
            file,
            folder: folder.clone(),
            audience: audience.clone(),
        };
        // Last: a blob without a record doesn't exist.
        live.save()?;
        Ok(Self {
            folder,
            live: RwLock::new(live),
            points,
            open: Mutex::default(),
            maps: Mutex::default(),
        })
    }

    /// Opens what is in a folder.
    pub(super) fn open(folder: PathBuf, points: Points, audience: &Audience) -> Result<Self> {
        let record: Record = load_json(&folder.join("blob.json"))?;
        if record.schema_version != 1 {
            return Err(Error::unsupported("this blob was made by a newer program")
                .with_path(folder.join("blob.json"))
                .with_field("schema_version")
                .with_found(record.schema_version)
                .with_expected(1));
        }
        let log = PageLog::open(&folder.join("pages"), audience)?;
        let file = match &record.file {
            Some(name) => Some(File::open_locked(folder.join(name), Access::Write)?),
            None => None,
        };
        let mut live = Live {
            record,
            log,
            file,
            folder: folder.clone(),
            audience: audience.clone(),
        };
        let closed = live.record.closed.take();
        let stamp = live.file.as_ref().map(File::stamp).transpose()?;
        let same = match (&closed, &stamp) {
            (Some(closed), Some(stamp)) => *closed == hex(&stamp.to_bytes()),
            (_, None) => true,
            (None, Some(_)) => false,
        };
        let volume = Self {
            folder,
            live: RwLock::new(live),
            points,
            open: Mutex::default(),
            maps: Mutex::default(),
        };
        let mut live = volume.write();
        volume.drop_unfinished(&live)?;
        if !same {
            volume.reconcile(&mut live)?;
        }
        live.save()?;
        drop(live);
        Ok(volume)
    }

    /// Removes points that a killed server made for snapshots that never came to be.
    fn drop_unfinished(&self, live: &Live) -> Result<()> {
        let known: Vec<_> = live
            .record
            .snapshots
            .iter()
            .filter_map(|taken| taken.point.as_ref())
            .collect();
        for name in self.points.names()? {
            if !known.contains(&&name) {
                self.points.delete(&name, &Silent)?;
            }
        }
        Ok(())
    }

    /// Corrects the map after the server was killed, or the file was changed while no server was running: everything that may
    /// have changed is listed as changed.
    fn reconcile(&self, live: &mut Live) -> Result<()> {
        let file = live.file()?.another_handle();
        let size = file.byte_len()?;
        if size != live.size() {
            if size % PAGE_SIZE != 0 {
                return Err(
                    Error::damaged("the size is not a whole number of 512-byte pages")
                        .with_path(file.path())
                        .with_found(size)
                        .with_expected(live.size()),
                );
            }
            live.step(Step::Resize(size))?;
        }
        // A clear that was recorded is carried out.
        let cleared: Vec<PageRange> = live.map().cleared().collect();
        let image = RawImage::with_size(&file, size);
        for range in cleared {
            let mut differs = false;
            for extent in image.extents(range) {
                let extent = extent?;
                differs |= extent.state == ExtentState::Data;
            }
            if differs {
                file.write_zeros_at(range.start()..range.end())?;
            }
        }
        file.sync()?;
        // Pages with data that wasn't recorded.
        let mut unknown = Vec::new();
        for extent in image.extents(whole(&image)) {
            let extent = extent?;
            if extent.state == ExtentState::Data {
                for gap in live.map().without_data(extent.range) {
                    unknown.extend(not_zero(&file, gap)?);
                }
            }
        }
        for range in unknown {
            live.step(Step::Update(range))?;
        }
        let Some(newest) = live.record.snapshots.last().cloned() else {
            return Ok(());
        };
        let before = self.frozen_of(&newest)?;
        let Some(point) = &before.image else {
            return Ok(());
        };
        let workers = Workers::new(None)?;
        let now = RawImage::with_size(&file, size.min(point.virtual_size()));
        let changes = page_list(&**point, &now, &workers)?;
        let mut differing: Vec<Change> = changes.iter().copied().collect();
        if !before.footer.is_empty() && size >= newest.size {
            let mut footer = [0; 512];
            let at = newest.size - PAGE_SIZE;
            file.read_exact_at(&mut footer, at)?;
            if footer[..] != before.footer[..] {
                let range = PageRange::covering(at, at + PAGE_SIZE);
                differing.push(Change {
                    range,
                    kind: ChangeKind::Update,
                });
            }
        }
        for change in differing {
            if !live.map().is_newer(change.range, before.map.generation) {
                live.step(match change.kind {
                    ChangeKind::Update => Step::Update(change.range),
                    ChangeKind::Clear => Step::Clear(change.range),
                })?;
            }
        }
        Ok(())
    }

    /// Locks it for reading.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks it for changing.
    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Live> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a snapshot of the current state of `live`, and returns the time that identifies it.
    pub(super) fn snapshot(
        &self,
        live: &mut Live,
        metadata: Option<BTreeMap<String, String>>,
        family: Family,
        full: bool,
    ) -> Result<Taken> {
        let last = live.record.snapshots.last().map(|taken| taken.time.clone());
        let mut tick = ticks();
        let mut time = snapshot_time(tick);
        // The clock may have been set back.
        while last.as_ref().is_some_and(|last| *last >= time) {
            tick = tick.saturating_add(1);
            if tick - ticks() > 10_000 {
                return Err(Error::new(
                    ErrorKind::Pending,
                    "the newest snapshot is from the future",
                )
                .with_found(last.unwrap_or_default())
                .with_hint("set the clock right, or wait"));
            }
            time = snapshot_time(tick);
        }
        let (size, is_disk) = (live.size(), live.record.is_disk);
        let file = live.file()?;
        file.sync()?;
        let mut footer = None;
        let mut inside = size;
        if is_disk && size >= PAGE_SIZE {
            inside = size - PAGE_SIZE;
            let mut bytes = [0; 512];
            file.read_exact_at(&mut bytes, inside)?;
            footer = Some(hex(&bytes));
        }
        let mut point = None;
        if inside > 0 {
            let name = time.replace(':', ".");
            self.close_points();
            let content = Content::new(file, inside, is_disk)?;
            let new = Point {
                name: name.clone(),
                family,
                full,
            };
            self.points.create(&content, new, &Silent)?;
            point = Some(name);
        }
        let taken = Taken {
            point,
            size,
            footer,
            etag: live.etag(),
            modified: live.modified(),
            sequence: live.record.sequence,
            metadata: metadata.unwrap_or_else(|| live.record.metadata.clone()),
            content_type: live.record.content_type.clone(),
            time,
        };
        live.log.save_as(&self.map_path(&taken.time))?;
        live.record.snapshots.push(taken.clone());
        live.save()?;
        Ok(taken)
    }

    /// Takes a copy of another disk's snapshot as a snapshot of this one, under the same time.
    pub(super) fn copy_snapshot(
        &self,
        from: &Frozen,
        family: Family,
        full: bool,
        progress: &dyn Progress,
    ) -> Result<()> {
        if let Some(image) = &from.image {
            let name = from.taken.point.clone().unwrap_or_default();
            self.close_points();
            // A server that was killed after the next line has left it, complete.
            if !self.points.names()?.contains(&name) {
                let new = Point { name, family, full };
                self.points
                    .create(&Copied(Arc::clone(image)), new, progress)?;
            }
        }
        let mut live = self.write();
        from.map
            .save(&self.map_path(&from.taken.time), &live.audience)?;
        live.record.snapshots.push(from.taken.clone());
        live.record.snapshots.sort_by(|a, b| a.time.cmp(&b.time));
        live.save()
    }

    /// A snapshot, by its time.
    pub(super) fn frozen(&self, live: &Live, time: &str) -> Result<Option<Frozen>> {
        match live
            .record
            .snapshots
            .iter()
            .find(|taken| taken.time == time)
        {
            Some(taken) => self.frozen_of(taken).map(Some),
            None => Ok(None),
        }
    }

    /// The pages of a snapshot.
    pub(super) fn map_of(&self, taken: &Taken) -> Result<Arc<PageMap>> {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = maps.get(&taken.time) {
            return Ok(Arc::clone(map));
        }
        let map = Arc::new(PageMap::load(&self.map_path(&taken.time))?);
        if maps.len() >= OPEN_POINTS {
            maps.clear();
        }
        maps.insert(taken.time.clone(), Arc::clone(&map));
        Ok(map)
    }

    fn frozen_of(&self, taken: &Taken) -> Result<Frozen> {
        let map = self.map_of(taken)?;
        let image = match &taken.point {
            Some(name) => Some(self.point(name)?),
            None => None,
        };
        let footer = match &taken.footer {
            Some(text) => unhex(text).ok_or_else(|| {
                Error::damaged("the footer of a snapshot is not hexadecimal")
                    .with_path(self.folder.join("blob.json"))
            })?,
            None => Vec::new(),
        };
        Ok(Frozen {
            taken: taken.clone(),
            map,
            image,
            footer,
        })
    }

    fn point(&self, name: &str) -> Result<Arc<PointImage>> {
        let lock = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut open = lock();
            if let Some(at) = open.iter().position(|(known, _)| known == name) {
                let found = open.remove(at);
                let image = Arc::clone(&found.1);
                open.push(found);
                return Ok(image);
            }
        }
        let image = Arc::new(self.points.image(name)?);
        let mut open = lock();
        if open.len() >= OPEN_POINTS {
            open.remove(0);
        }
        open.push((name.to_owned(), Arc::clone(&image)));
        Ok(image)
    }

    /// Closes open points before the store changes: one that can't keep its files open holds the lock.
    fn close_points(&self) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Deletes a snapshot; `false` if there isn't one with that time.
    pub(super) fn delete_snapshot(&self, live: &mut Live, time: &str) -> Result<bool> {
        let Some(at) = live
            .record
            .snapshots
            .iter()
            .position(|taken| taken.time == time)
        else {
            return Ok(false);
        };
        let taken = live.record.snapshots.remove(at);
        live.save()?;
        self.maps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(time);
        self.close_points();
        if let Some(point) = &taken.point {
            self.points.delete(point, &Silent)?;
        }
        remove_if_there(&self.map_path(time))?;
        Ok(true)
    }

    /// Deletes the blob itself, but not its snapshots.
    pub(super) fn delete_live(&self, live: &mut Live) -> Result<()> {
        let Some(name) = live.record.file.take() else {
            return Ok(());
        };
        live.save()?;
        live.file = None;
        remove_if_there(&self.folder.join(name))?;
        Ok(())
    }

    /// Deletes all snapshots, newest first, so that nothing has to be folded.
    pub(super) fn delete_snapshots(&self, live: &mut Live) -> Result<()> {
        let taken = live.record.snapshots.iter().rev();
        let times: Vec<_> = taken.map(|taken| taken.time.clone()).collect();
        for time in &times {
            self.delete_snapshot(live, time)?;
        }
        Ok(())
    }

    /// Deletes everything: the blob, its snapshots, its folder.
    pub(super) fn delete_all(&self, live: &mut Live) -> Result<()> {
        self.delete_snapshots(live)?;
        self.delete_live(live)?;
        // Without its record it is not a blob any more.
        remove_if_there(&self.folder.join("blob.json"))?;
        remove_if_there(&self.folder.join("pages"))?;
        remove_folder(&self.folder)
    }

    fn map_path(&self, time: &str) -> PathBuf {
        self.folder
            .join(format!("{}.pages", time.replace(':', ".")))
    }

    /// Copies all data of a snapshot into this new blob.
    pub(super) fn fill(&self, from: &Frozen, progress: &dyn Progress) -> Result<()> {
        let all = PageRange::covering(0, from.taken.size.min(self.read().size()));
        let data = from.map.list(all, None).map(|change| change.range);
        self.fill_with(data, progress, |buf, offset| from.read(buf, offset))
    }

    /// Copies all data of any source.
    pub(super) fn fill_with(
        &self,
        data: impl Iterator<Item = PageRange>,
        progress: &dyn Progress,
        read: impl Fn(&mut [u8], u64) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = Vec::new();
        for piece in data.flat_map(|range| range.windows(PIECE)) {
            progress.check()?;
            buffer.resize(piece.buffer_len(), 0);
            // Not under the lock: the source may be a blob to which this one is being copied.
            read(&mut buffer, piece.start())?;
            let mut live = self.write();
            live.step(Step::Update(piece))?;
            live.file()?.write_all_at(&buffer, piece.start())?;
            progress.advance(piece.len());
        }
        self.read().file()?.sync()
    }

    /// Records the state of the file, so that the next server detects changes by others.
    pub(super) fn close(&self) -> Result<()> {
        let mut live = self.write();
        if let Some(file) = &live.file {
            file.sync()?;
            live.record.closed = Some(hex(&file.settle()?.to_bytes()));
        }
        live.save()
    }

    /// Returns whether nothing remains of it.
    pub(super) fn is_empty(&self) -> bool {
        let live = self.read();
        !live.is_there() && live.record.snapshots.is_empty()
    }
}

/// The pages of `range` that aren't zeros, joined.
fn not_zero(file: &File, range: PageRange) -> Result<Vec<PageRange>> {
    let mut found: Vec<PageRange> = Vec::new();
    let mut buffer = Vec::new();
    for piece in range.windows(PIECE) {
        buffer.resize(piece.buffer_len(), 0);
        file.read_exact_at(&mut buffer, piece.start())?;
        for (at, page) in (piece.start()..).step_by(512).zip(buffer.chunks(512)) {
            if crate::page::is_zero(page) {
                continue;
            }
            let page = PageRange::covering(at, at + PAGE_SIZE);
            match found.last_mut() {
                Some(last) if last.end() == page.start() => *last = last.hull(page),
                _ => found.push(page),
            }
        }
    }
    Ok(found)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs
        .iter()
        .map(byte)
        .collect::<Option<Vec<u8>>>()
        .filter(|_| rest.is_empty())
}

/// The format used in lists and headers.
pub(super) fn shown_time(seconds: i64) -> String {
    http_time(seconds)
}
