//! Page blobs in memory, with correct lists of changes between snapshots and with faults on demand: for tests.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::failure::{Done, Failure};
use super::store::{
    Answer, BlobId, BlobKind, Blobs, BlobsAsked, Changed, Conditions, Deleted, Lease, Listed,
    MAX_BLOB, MAX_PUT, Metadata, NewBlob, PageStore, Pages, PagesAsked, Properties, Sequence,
    Since,
};
use crate::error::{Error, ErrorKind};
use crate::page::{Change, ChangeKind, PAGE_SIZE, PageRange, to_usize};

const PAGE: usize = to_usize(PAGE_SIZE);

/// The most ranges in one response.
const LONGEST_LIST: usize = 10_000;

/// A request, as seen by a test that injects faults.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The number of the request, from 0.
    pub number: u64,
    /// The method of [`PageStore`].
    pub what: &'static str,
    /// The blob it is for.
    pub blob: &'a str,
    /// The range that is written, read or listed, if it is made of pages.
    pub range: Option<PageRange>,
}

/// A fault in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The service is busy: nothing was done.
    Busy,
    /// It is carried out, but the response is lost.
    Lost,
    /// It isn't carried out, and the response is lost.
    Never,
    /// The response is lost, and it is carried out only after this many other requests.
    Late(u64),
    /// Access is refused.
    Forbidden,
}

type Faults = Box<dyn Fn(&Asked<'_>) -> Option<Fault> + Send + Sync>;

/// A container in memory.
pub struct MemoryStore {
    state: Mutex<State>,
    faults: Option<Faults>,
    longest_list: usize,
    managed: bool,
    name: String,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            faults: None,
            longest_list: LONGEST_LIST,
            managed: false,
            name: "memory://container".into(),
        }
    }
}

#[derive(Default)]
struct State {
    blobs: BTreeMap<String, Blob>,
    /// Counts every change.
    generation: u64,
    requests: u64,
    late: Vec<Later>,
}

/// A write that lands after others.
struct Later {
    due: u64,
    blob: BlobId,
    write: Write,
    only_if: Conditions,
}

#[derive(Clone)]
enum Write {
    Put(u64, Arc<[u8]>),
    Clear(PageRange),
}

#[derive(Default)]
struct Blob {
    live: Version,
    snapshots: BTreeMap<String, Version>,
    lease: Option<String>,
}

/// A page: when it was written, and its data; `None` if it was cleared.
type Page = (u64, Option<Box<[u8]>>);

/// A blob at one time.
#[derive(Clone, Default)]
struct Version {
    size: u64,
    /// Every page that was ever written.
    pages: BTreeMap<u64, Page>,
    sequence: u64,
    changed: u64,
    /// When the blob was created or replaced.
    born: u64,
    /// When the snapshot was taken.
    taken: u64,
    metadata: Metadata,
}

impl Version {
    fn etag(&self) -> String {
        format!("\"0x{:X}\"", self.changed)
    }

    fn write(&mut self, write: &Write, generation: u64) {
        match write {
            Write::Put(offset, data) => {
                for (page, bytes) in (offset / PAGE_SIZE..).zip(data.chunks(PAGE)) {
                    self.pages.insert(page, (generation, Some(bytes.into())));
                }
            }
            Write::Clear(range) => self.clear(*range, generation),
        }
        self.changed = generation;
    }

    fn clear(&mut self, range: PageRange, generation: u64) {
        let pages = range.start() / PAGE_SIZE..range.end() / PAGE_SIZE;
        for (_, page) in self.pages.range_mut(pages) {
            *page = (generation, None);
        }
    }

    fn properties(&self, leased: bool) -> Properties {
        Properties {
            size: self.size,
            etag: self.etag(),
            last_modified: None,
            kind: BlobKind::Page,
            sequence: self.sequence,
            leased,
            metadata: self.metadata.clone(),
        }
    }
}

impl MemoryStore {
    /// Adds faults: `plan` decides which requests fail, and how.
    #[must_use]
    pub fn with_faults(
        mut self,
        plan: impl Fn(&Asked<'_>) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        self.faults = Some(Box::new(plan));
        self
    }

    /// Limits the number of ranges in a response.
    #[must_use]
    pub fn with_longest_list(mut self, ranges: usize) -> Self {
        self.longest_list = ranges.max(1);
        self
    }

    /// Behaves like a managed disk.
    #[must_use]
    pub fn as_managed_disk(mut self) -> Self {
        self.managed = true;
        self
    }

    /// Sets the name, with which the names of its blobs begin.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Number of requests so far.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// All bytes of a blob.
    pub fn bytes(&self, blob: &BlobId) -> Option<Vec<u8>> {
        let mut state = self.state();
        // Late writes land eventually.
        self.land(&mut state, u64::MAX);
        let version = version(&state, blob)?;
        let mut bytes = vec![0; to_usize(version.size)];
        for (page, (_, data)) in &version.pages {
            let at = to_usize(page * PAGE_SIZE);
            if let (Some(data), Some(place)) = (data, bytes.get_mut(at..at + PAGE)) {
                place.copy_from_slice(data);
            }
        }
        Some(bytes)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request, and returns its fault.
    fn begin(
        &self,
        what: &'static str,
        blob: &BlobId,
        range: Option<PageRange>,
    ) -> Answer<(MutexGuard<'_, State>, Option<Fault>)> {
        let mut state = self.state();
        let asked = Asked {
            number: state.requests,
            what,
            blob: &blob.name,
            range,
        };
        state.requests += 1;
        let now = state.requests;
        self.land(&mut state, now);
        let fault = self.faults.as_ref().and_then(|plan| plan(&asked));
        match fault {
            Some(Fault::Busy) => Err(lost(&self.shown(blob), Done::No).answered(503, "ServerBusy")),
            Some(Fault::Forbidden) => Err(refused(
                &self.shown(blob),
                403,
                "AuthorizationFailure",
                ErrorKind::Io,
            )),
            Some(Fault::Never) => Err(lost(&self.shown(blob), Done::Perhaps)),
            other => Ok((state, other)),
        }
    }

    /// Carries out late requests that are due.
    fn land(&self, state: &mut State, now: u64) {
        let (due, late) = std::mem::take(&mut state.late)
            .into_iter()
            .partition(|later| later.due <= now);
        state.late = late;
        for later in due {
            let Later {
                blob,
                write,
                only_if,
                ..
            } = later;
            // Nobody learns if it is refused.
            let _ = self.write_now(state, &blob, &write, &only_if);
        }
    }

    fn write_now(
        &self,
        state: &mut State,
        blob: &BlobId,
        write: &Write,
        only_if: &Conditions,
    ) -> Answer<Changed> {
        self.check(state, blob, only_if, true)?;
        let range = match write {
            Write::Put(offset, data) => PageRange::from_len(*offset, data.len() as u64)?,
            Write::Clear(range) => *range,
        };
        let generation = next(state);
        let live = self.live(state, blob)?;
        if range.end() > live.size {
            return Err(refused(
                &self.shown(blob),
                416,
                "InvalidPageRange",
                ErrorKind::Damaged,
            ));
        }
        live.write(write, generation);
        Ok(changed(live))
    }

    fn write(
        &self,
        what: &'static str,
        blob: &BlobId,
        write: Write,
        only_if: &Conditions,
    ) -> Answer<Changed> {
        let range = match &write {
            Write::Put(offset, data) => PageRange::from_len(*offset, data.len() as u64)?,
            Write::Clear(range) => *range,
        };
        let (mut state, fault) = self.begin(what, blob, Some(range))?;
        if let Some(Fault::Late(others)) = fault {
            let due = state.requests + others;
            state.late.push(Later {
                due,
                blob: blob.clone(),
                write,
                only_if: only_if.clone(),
            });
            return Err(lost(&self.shown(blob), Done::Perhaps));
        }
        let answer = self.write_now(&mut state, blob, &write, only_if)?;
        self.end(fault, blob, answer)
    }

    /// Returns the response, unless it is lost.
    fn end<T>(&self, fault: Option<Fault>, blob: &BlobId, answer: T) -> Answer<T> {
        match fault {
            None => Ok(answer),
            Some(_) => Err(lost(&self.shown(blob), Done::Perhaps)),
        }
    }

    fn check(
        &self,
        state: &State,
        blob: &BlobId,
        only_if: &Conditions,
        writes: bool,
    ) -> Answer<()> {
        let refuse = |status, code, kind| Err(refused(&self.shown(blob), status, code, kind));
        if self.managed && *only_if != Conditions::default() {
            return refuse(400, "UnsupportedHeader", ErrorKind::Unsupported);
        }
        let Some(found) = state.blobs.get(&blob.name) else {
            return Ok(());
        };
        if only_if.absent {
            return refuse(409, "BlobAlreadyExists", ErrorKind::Usage);
        }
        if writes && found.lease.is_some() && found.lease != only_if.lease {
            return refuse(412, "LeaseIdMissing", ErrorKind::Locked);
        }
        if only_if.lease.is_some() && found.lease != only_if.lease {
            return refuse(412, "LeaseNotPresentWithBlobOperation", ErrorKind::Locked);
        }
        let version = version(state, blob).unwrap_or(&found.live);
        if only_if
            .etag
            .as_ref()
            .is_some_and(|etag| *etag != version.etag())
        {
            return refuse(412, "ConditionNotMet", ErrorKind::Changed);
        }
        if only_if
            .sequence_at_most
            .is_some_and(|most| version.sequence > most)
        {
            return refuse(412, "SequenceNumberConditionNotMet", ErrorKind::Changed);
        }
        Ok(())
    }

    fn live<'s>(&self, state: &'s mut State, blob: &BlobId) -> Answer<&'s mut Version> {
        let live = state.blobs.get_mut(&blob.name).map(|found| &mut found.live);
        live.filter(|_| blob.snapshot.is_none())
            .ok_or_else(|| refused(&self.shown(blob), 404, "BlobNotFound", ErrorKind::Io))
    }

    fn found<'s>(&self, state: &'s State, blob: &BlobId) -> Answer<&'s Version> {
        version(state, blob)
            .ok_or_else(|| refused(&self.shown(blob), 404, "BlobNotFound", ErrorKind::Io))
    }

    fn change(
        &self,
        what: &'static str,
        blob: &BlobId,
        only_if: &Conditions,
        change: impl FnOnce(&mut Version, u64),
    ) -> Answer<Changed> {
        let (mut state, fault) = self.begin(what, blob, None)?;
        self.check(&state, blob, only_if, true)?;
        let generation = next(&mut state);
        let live = self.live(&mut state, blob)?;
        change(live, generation);
        live.changed = generation;
        let answer = changed(live);
        self.end(fault, blob, answer)
    }
}

fn next(state: &mut State) -> u64 {
    state.generation += 1;
    state.generation
}

fn changed(version: &Version) -> Changed {
    Changed {
        etag: Some(version.etag()),
        sequence: Some(version.sequence),
    }
}

fn version<'s>(state: &'s State, blob: &BlobId) -> Option<&'s Version> {
    let found = state.blobs.get(&blob.name)?;
    match &blob.snapshot {
        Some(time) => found.snapshots.get(time),
        None => Some(&found.live),
    }
}

fn lost(name: &Path, done: Done) -> Failure {
    let error = Error::new(ErrorKind::Io, "no answer").with_path(name);
    Failure::passing(error, done)
}

fn refused(name: &Path, status: u16, code: &str, kind: ErrorKind) -> Failure {
    let error = Error::new(kind, format!("refused: {status} {code}")).with_path(name);
    Failure::lasting(error).answered(status, code)
}

impl PageStore for MemoryStore {
    fn shown(&self, blob: &BlobId) -> PathBuf {
        let time = blob.snapshot.as_ref();
        let time = time.map_or_else(String::new, |time| format!("?snapshot={time}"));
        PathBuf::from(format!("{}/{}{time}", self.name, blob.name))
    }

    fn is_managed_disk(&self) -> bool {
        self.managed
    }

    fn properties(&self, blob: &BlobId) -> Answer<Properties> {
        let (state, fault) = self.begin("properties", blob, None)?;
        let leased = state
            .blobs
            .get(&blob.name)
            .is_some_and(|b| b.lease.is_some());
        let answer = self.found(&state, blob)?.properties(leased);
        self.end(fault, blob, answer)
    }

    fn create(&self, blob: &BlobId, new: &NewBlob, only_if: &Conditions) -> Answer<Changed> {
        let (mut state, fault) = self.begin("create", blob, None)?;
        self.check(&state, blob, only_if, true)?;
        if !new.size.is_multiple_of(PAGE_SIZE) || new.size > MAX_BLOB {
            return Err(refused(
                &self.shown(blob),
                400,
                "InvalidHeaderValue",
                ErrorKind::Usage,
            ));
        }
        let generation = next(&mut state);
        let place = state.blobs.entry(blob.name.clone()).or_default();
        place.live = Version {
            size: new.size,
            sequence: new.sequence,
            metadata: new.metadata.clone(),
            changed: generation,
            born: generation,
            ..Version::default()
        };
        let answer = changed(&place.live);
        self.end(fault, blob, answer)
    }

    fn resize(&self, blob: &BlobId, size: u64, only_if: &Conditions) -> Answer<Changed> {
        self.change("resize", blob, only_if, |live, generation| {
            if size < live.size {
                live.clear(PageRange::covering(size, live.size), generation);
            }
            live.size = size;
        })
    }

    fn set_metadata(
        &self,
        blob: &BlobId,
        metadata: &Metadata,
        only_if: &Conditions,
    ) -> Answer<Changed> {
        self.change("set_metadata", blob, only_if, |live, _| {
            metadata.clone_into(&mut live.metadata);
        })
    }

    fn set_sequence(
        &self,
        blob: &BlobId,
        sequence: Sequence,
        only_if: &Conditions,
    ) -> Answer<Changed> {
        self.change("set_sequence", blob, only_if, |live, _| {
            live.sequence = match sequence {
                Sequence::AtLeast(number) => live.sequence.max(number),
                Sequence::Set(number) => number,
                Sequence::Next => live.sequence + 1,
            };
        })
    }

    fn put_pages(
        &self,
        blob: &BlobId,
        offset: u64,
        data: &[u8],
        only_if: &Conditions,
    ) -> Answer<Changed> {
        if data.is_empty() || data.len() as u64 > MAX_PUT {
            return Err(refused(
                &self.shown(blob),
                413,
                "RequestBodyTooLarge",
                ErrorKind::Usage,
            ));
        }
        self.write("put_pages", blob, Write::Put(offset, data.into()), only_if)
    }

    fn clear_pages(
        &self,
        blob: &BlobId,
        range: PageRange,
        only_if: &Conditions,
    ) -> Answer<Changed> {
        self.write("clear_pages", blob, Write::Clear(range), only_if)
    }

    fn read(&self, blob: &BlobId, offset: u64, buf: &mut [u8], only_if: &Conditions) -> Answer<()> {
        let range = PageRange::new(offset, offset.saturating_add(buf.len() as u64));
        let (state, fault) = self.begin("read", blob, range)?;
        self.check(&state, blob, only_if, false)?;
        let version = self.found(&state, blob)?;
        let end = offset.saturating_add(buf.len() as u64);
        if end > version.size {
            return Err(refused(
                &self.shown(blob),
                416,
                "InvalidRange",
                ErrorKind::Damaged,
            ));
        }
        buf.fill(0);
        let pages = offset / PAGE_SIZE..end.div_ceil(PAGE_SIZE);
        for (page, (_, data)) in version.pages.range(pages) {
            let start = page * PAGE_SIZE;
            let (from, to) = (start.max(offset), (start + PAGE_SIZE).min(end));
            let place = buf.get_mut(to_usize(from - offset)..to_usize(to - offset));
            let data = data
                .as_ref()
                .and_then(|d| d.get(to_usize(from - start)..to_usize(to - start)));
            if let (Some(place), Some(data)) = (place, data) {
                place.copy_from_slice(data);
            }
        }
        self.end(fault, blob, ())
    }

    fn pages(&self, blob: &BlobId, asked: &PagesAsked, only_if: &Conditions) -> Answer<Pages> {
        let (state, fault) = self.begin("pages", blob, asked.within)?;
        self.check(&state, blob, only_if, false)?;
        let version = self.found(&state, blob)?;
        let since = match &asked.since {
            None => None,
            Some(Since::Disk(_)) => {
                return Err(refused(
                    &self.shown(blob),
                    400,
                    "UnsupportedHeader",
                    ErrorKind::Unsupported,
                ));
            }
            Some(Since::Snapshot(time)) => {
                let before = self.found(&state, &blob.at(time))?;
                if version.born > before.taken {
                    let code = "BlobOverwritten";
                    return Err(refused(
                        &self.shown(blob),
                        409,
                        code,
                        ErrorKind::Unsupported,
                    ));
                }
                if version.taken != 0 && version.taken < before.taken {
                    let code = "InvalidQueryParameterValue";
                    return Err(refused(&self.shown(blob), 400, code, ErrorKind::Usage));
                }
                Some(before.taken)
            }
        };
        let whole = PageRange::covering(0, version.size);
        let within = asked.within.map_or(whole, |range| range.cut_to(whole));
        let marker: Option<u64> = asked.marker.as_ref().and_then(|m| m.parse().ok());
        let first = marker.unwrap_or(0).max(within.start()) / PAGE_SIZE;
        let mut pages = Pages {
            size: Some(version.size),
            ..Pages::default()
        };
        for (page, (written, data)) in version
            .pages
            .range(first..(within.end() / PAGE_SIZE).max(first))
        {
            let kind = match (since, data) {
                (None, None) => continue,
                (Some(since), _) if *written <= since => continue,
                (_, Some(_)) => ChangeKind::Update,
                (Some(_), None) => ChangeKind::Clear,
            };
            let start = page * PAGE_SIZE;
            let range = PageRange::covering(start, start + PAGE_SIZE);
            pages.list.push(Change { range, kind })?;
            let most = asked
                .max
                .map_or(self.longest_list, |max| self.longest_list.min(max as usize));
            if pages.list.len() > most {
                // One too many: the list ends before it.
                let mut kept = crate::page::PageList::new();
                for change in pages.list.iter().take(most) {
                    kept.push(*change)?;
                }
                pages.list = kept;
                pages.marker = Some(start.to_string());
                break;
            }
        }
        self.end(fault, blob, pages)
    }

    fn snapshot(&self, blob: &BlobId, metadata: &Metadata, only_if: &Conditions) -> Answer<String> {
        let (mut state, fault) = self.begin("snapshot", blob, None)?;
        self.check(&state, blob, only_if, false)?;
        let generation = next(&mut state);
        let mut taken = self.live(&mut state, blob)?.clone();
        taken.taken = generation;
        if !metadata.is_empty() {
            metadata.clone_into(&mut taken.metadata);
        }
        // Times increase, and no two are equal.
        let time = format!(
            "2026-11-28T{:02}:{:02}:{:02}.0000000Z",
            generation / 3600 % 24,
            generation / 60 % 60,
            generation % 60
        );
        if let Some(found) = state.blobs.get_mut(&blob.name) {
            found.snapshots.insert(time.clone(), taken);
        }
        self.end(fault, blob, time)
    }

    fn lease(&self, blob: &BlobId, lease: &Lease) -> Answer<()> {
        let (mut state, fault) = self.begin("lease", blob, None)?;
        self.live(&mut state, blob)?;
        let held = state
            .blobs
            .get_mut(&blob.name)
            .map(|found| &mut found.lease);
        let refuse = |code| Err(refused(&self.shown(blob), 409, code, ErrorKind::Locked));
        match (held, lease) {
            (None, _) => {}
            (Some(held), Lease::Acquire(id, _)) => {
                if held.as_ref().is_some_and(|held| held != id) {
                    return refuse("LeaseAlreadyPresent");
                }
                *held = Some(id.clone());
            }
            (Some(held), Lease::Renew(id)) => {
                if held.as_ref() != Some(id) {
                    return refuse("LeaseIdMismatchWithLeaseOperation");
                }
            }
            (Some(held), Lease::Release(id)) => {
                if held.as_ref() != Some(id) {
                    return refuse("LeaseIdMismatchWithLeaseOperation");
                }
                *held = None;
            }
            (Some(held), Lease::Break) => *held = None,
        }
        self.end(fault, blob, ())
    }

    fn delete(&self, blob: &BlobId, what: Deleted, only_if: &Conditions) -> Answer<()> {
        let (mut state, fault) = self.begin("delete", blob, None)?;
        self.check(&state, blob, only_if, blob.snapshot.is_none())?;
        self.found(&state, blob)?;
        let snapshots = state
            .blobs
            .get(&blob.name)
            .map_or(0, |found| found.snapshots.len());
        match &blob.snapshot {
            Some(time) => {
                if let Some(found) = state.blobs.get_mut(&blob.name) {
                    found.snapshots.remove(time);
                }
            }
            None if what == Deleted::Itself && snapshots > 0 => {
                return Err(refused(
                    &self.shown(blob),
                    409,
                    "SnapshotsPresent",
                    ErrorKind::Usage,
                ));
            }
            None => {
                state.blobs.remove(&blob.name);
            }
        }
        self.end(fault, blob, ())
    }

    fn blobs(&self, asked: &BlobsAsked) -> Answer<Blobs> {
        let (state, fault) = self.begin("blobs", &BlobId::live(""), None)?;
        let skip: usize = asked
            .marker
            .as_ref()
            .and_then(|m| m.parse().ok())
            .unwrap_or(0);
        let most = asked.max.map_or(5000, |max| max as usize);
        let mut all = Vec::new();
        for (name, found) in state
            .blobs
            .iter()
            .filter(|(name, _)| name.starts_with(&asked.prefix))
        {
            let live = BlobId::live(name);
            if asked.snapshots {
                all.extend(found.snapshots.iter().map(|(time, version)| Listed {
                    id: live.at(time),
                    properties: version.properties(false),
                }));
            }
            all.push(Listed {
                properties: found.live.properties(found.lease.is_some()),
                id: live,
            });
        }
        let more = all.len() > skip.saturating_add(most);
        let answer = Blobs {
            list: all.into_iter().skip(skip).take(most).collect(),
            marker: more.then(|| (skip + most).to_string()),
        };
        self.end(fault, &BlobId::live(""), answer)
    }

    fn create_container(&self) -> Answer<()> {
        Err(refused(
            Path::new(&self.name),
            409,
            "ContainerAlreadyExists",
            ErrorKind::Usage,
        ))
    }
}
