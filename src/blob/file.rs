//! A page blob as storage: bytes at offsets.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::BlobName;
use super::failure::Failure;
use super::lease::Held;
use super::pages::{Listing, Stored, changes};
use super::retry::Retry;
use super::store::{
    Answer, BlobId, BlobKind, Conditions, MAX_BLOB, MAX_PUT, Metadata, NewBlob, PageStore,
    Properties, Since,
};
use super::writer::{Target, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::page::{PAGE_SIZE, PageList, to_usize};
use crate::storage::{ReadAt, WriteAt};

/// The most requests in flight: with 4 MiB each, this reaches the speed of one blob at 20 ms per request.
pub const DEPTH: usize = 16;

/// Shorter reads fetch and cache the whole aligned block of that length.
const BLOCK: u64 = 64 << 10;

/// The number of cached blocks.
const BLOCKS: usize = 64;

/// Gaps between stored bytes that are read as well, because another request would cost more.
const GAP: u64 = 128 << 10;

/// Metadata by which a program recognizes a blob that it has created although the response was lost.
pub(super) const MAKER: &str = "vhdkit_maker";

/// Options for creating a [`BlobFile`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewBlobFile {
    /// Size in bytes, a whole number of pages.
    pub size: u64,
    /// Metadata of the blob.
    pub metadata: Metadata,
    /// Whether to replace an existing blob; its snapshots are kept.
    pub replace: bool,
}

/// A page blob, or a snapshot of one, as [storage](crate::storage).
///
/// The pages that hold data are listed once, when they are first needed; everything else is known to be zero and isn't
/// read. Writes are collected, and sent by a few threads: [`sync`](WriteAt::sync) returns when all are done, with the
/// first error of any. Reads see preceding writes: they wait for writes to the same bytes.
///
/// A writer holds a lease, which keeps other programs from writing, and which ends when this is dropped. A blob that is
/// only read must not change: another write to it is an error of kind [`Changed`](ErrorKind::Changed).
#[derive(Debug)]
pub struct BlobFile {
    // Must end before the lease does.
    writer: Option<Writer>,
    lease: Option<Held>,
    depth: usize,
    /// The name by which access to a managed disk was granted.
    granted: Option<Box<BlobName>>,
    store: Arc<dyn PageStore>,
    blob: BlobId,
    name: PathBuf,
    retry: Retry,
    /// The conditions for reads.
    only_if: Conditions,
    properties: Properties,
    size: AtomicU64,
    /// The stored ranges, once they have been listed.
    stored: Mutex<Option<Stored>>,
    blocks: Mutex<Blocks>,
    /// Held while pages are read in order to write them again.
    partial: Mutex<()>,
}

/// Cached blocks.
#[derive(Debug, Default)]
struct Blocks {
    /// Counts writes: data read during a write isn't cached.
    writes: u64,
    list: VecDeque<(u64, Arc<[u8]>)>,
}

impl BlobFile {
    /// Opens a blob or a snapshot for reading.
    pub fn open(store: Arc<dyn PageStore>, blob: BlobId, retry: Retry) -> Result<Self> {
        let properties = retry
            .run(|| store.properties(&blob))
            .map_err(Failure::into_error)?;
        // A snapshot can't change, and a managed disk accepts no conditions.
        let may_change = blob.snapshot.is_none() && !store.is_managed_disk();
        let only_if = Conditions {
            etag: may_change.then(|| properties.etag.clone()),
            ..Conditions::default()
        };
        // Only pages can be listed.
        let all = Stored::all(properties.size);
        let stored = (properties.kind != BlobKind::Page).then_some(all);
        Ok(Self::with(store, blob, retry, properties, stored, only_if))
    }

    /// Opens a page blob for reading and writing, and keeps others from writing.
    pub fn open_writable(store: Arc<dyn PageStore>, blob: BlobId, retry: Retry) -> Result<Self> {
        let name = store.shown(&blob);
        if blob.snapshot.is_some() {
            return Err(Error::usage("a snapshot can't be written")
                .with_path(name)
                .with_hint("write to the blob itself, or to a new one"));
        }
        let lease = Self::lease(&store, &blob, &retry)?;
        // Requested only now, when nobody else can change it any more.
        let properties = retry
            .run(|| store.properties(&blob))
            .map_err(Failure::into_error)?;
        if properties.kind != BlobKind::Page {
            return Err(
                Error::unsupported("only page blobs can be written as a disk")
                    .with_path(name)
                    .with_hint("write to a new blob"),
            );
        }
        let mut file = Self::with(store, blob, retry, properties, None, Conditions::default());
        file.make_writable(lease);
        Ok(file)
    }

    /// Creates a page blob of zeros for writing, and keeps others from writing.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage) if it exists and may not be replaced. A managed disk is never created here: it is
    /// opened, and must have this size.
    pub fn create(
        store: Arc<dyn PageStore>,
        blob: BlobId,
        new: &NewBlobFile,
        retry: Retry,
    ) -> Result<Self> {
        let name = store.shown(&blob);
        let wrong = |what: &str| {
            Error::usage(what.to_owned())
                .with_path(&name)
                .with_found(format_args!("{} bytes", new.size))
        };
        if !new.size.is_multiple_of(PAGE_SIZE) {
            return Err(wrong("the size of a page blob is a multiple of 512 bytes"));
        }
        if store.is_managed_disk() {
            let file = Self::open_writable(store, blob, retry)?;
            return match file.byte_len()? {
                len if len == new.size => Ok(file),
                len => Err(wrong("the managed disk has another size")
                    .with_expected(format_args!("{len} bytes"))),
            };
        }
        if new.size > MAX_BLOB {
            return Err(wrong("the image is larger than a page blob can be")
                .with_expected(format_args!("at most {MAX_BLOB} bytes (8 TiB)")));
        }
        Self::make(&*store, &blob, new, &retry).map_err(Failure::into_error)?;
        let lease = Self::lease(&store, &blob, &retry)?;
        let properties = retry
            .run(|| store.properties(&blob))
            .map_err(Failure::into_error)?;
        let stored = Some(Stored::default());
        let mut file = Self::with(
            store,
            blob,
            retry,
            properties,
            stored,
            Conditions::default(),
        );
        file.make_writable(lease);
        Ok(file)
    }

    /// Creates the blob, and recognizes its own if the response is lost.
    fn make(store: &dyn PageStore, blob: &BlobId, new: &NewBlobFile, retry: &Retry) -> Answer<()> {
        let maker = uuid::Uuid::new_v4().to_string();
        let mut metadata = new.metadata.clone();
        metadata.insert(MAKER.to_owned(), maker.clone());
        let wanted = NewBlob {
            size: new.size,
            sequence: 0,
            metadata,
        };
        let only_if = Conditions {
            absent: !new.replace,
            ..Conditions::default()
        };
        let mut lost = false;
        let mut attempts = retry.begin();
        loop {
            match store.create(blob, &wanted, &only_if) {
                Ok(_) => return Ok(()),
                Err(failure) if lost && failure.is("BlobAlreadyExists") => {
                    let found = retry.run(|| store.properties(blob))?;
                    return match found.metadata.get(MAKER) {
                        Some(found) if *found == maker => Ok(()),
                        _ => Err(failure),
                    };
                }
                Err(failure) => {
                    attempts.wait(failure)?;
                    lost = true;
                }
            }
        }
    }

    fn lease(store: &Arc<dyn PageStore>, blob: &BlobId, retry: &Retry) -> Result<Option<Held>> {
        if store.is_managed_disk() {
            return Ok(None);
        }
        Ok(Some(
            Held::take(store, blob, retry).map_err(Failure::into_error)?,
        ))
    }

    fn with(
        store: Arc<dyn PageStore>,
        blob: BlobId,
        retry: Retry,
        properties: Properties,
        stored: Option<Stored>,
        only_if: Conditions,
    ) -> Self {
        Self {
            writer: None,
            lease: None,
            depth: DEPTH,
            granted: None,
            name: store.shown(&blob),
            size: AtomicU64::new(properties.size),
            stored: Mutex::new(stored),
            blocks: Mutex::default(),
            partial: Mutex::default(),
            store,
            blob,
            retry,
            only_if,
            properties,
        }
    }

    fn make_writable(&mut self, lease: Option<Held>) {
        let conditions = !self.store.is_managed_disk();
        let target = Target {
            store: Arc::clone(&self.store),
            blob: self.blob.clone(),
            retry: self.retry.apart(),
            lease: lease.as_ref().map(|lease| lease.id().to_owned()),
            sequence: conditions.then(|| Mutex::new(self.properties.sequence)),
        };
        self.writer = Some(Writer::new(target, self.depth));
        self.lease = lease;
    }

    /// The same, of which nothing was written so far, with so many requests under way at most.
    #[must_use]
    pub fn with_depth(mut self, depth: usize) -> Self {
        self.depth = depth.max(1);
        if self.writer.take().is_some() {
            let lease = self.lease.take();
            self.make_writable(lease);
        }
        self
    }

    /// The same managed disk, to which access was granted by this name.
    #[must_use]
    pub(crate) fn granted_by(mut self, name: BlobName) -> Self {
        self.granted = Some(Box::new(name));
        self
    }

    /// The name by which access to a managed disk was granted, with its signature.
    pub fn granted(&self) -> Option<&BlobName> {
        self.granted.as_deref()
    }

    /// The container of the blob.
    pub fn store(&self) -> &Arc<dyn PageStore> {
        &self.store
    }

    /// The id of the blob.
    pub fn blob(&self) -> &BlobId {
        &self.blob
    }

    /// The properties of the blob when it was opened.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Number of bytes that it stores.
    pub fn stored_bytes(&self) -> Result<u64> {
        let stored = self.listed()?;
        Ok(stored.as_ref().map_or(0, Stored::bytes))
    }

    /// The pages that were written or cleared since an earlier snapshot, according to the service. Pages reported as
    /// written may hold the same bytes as before.
    pub fn changes_since(&self, since: &Since) -> Result<PageList> {
        if let Some(writer) = &self.writer {
            writer.drain()?;
        }
        let listing = Listing {
            since: Some(since),
            ..self.listing()
        };
        let refuse = || {
            Error::unsupported("this server can't list what changed since a snapshot")
                .with_path(&self.name)
                .with_hint("compare the two by their content")
        };
        if matches!(since, Since::Snapshot(_)) && !listing.tells_changes()? {
            return Err(refuse());
        }
        changes(&listing).map_err(Failure::into_error)
    }

    /// Replaces the blob's metadata.
    pub fn set_metadata(&self, metadata: &Metadata) -> Result<()> {
        let writer = self.writer()?;
        writer.drain()?;
        let target = writer.target();
        target
            .send(|only_if| self.store.set_metadata(&self.blob, metadata, only_if))
            .map_err(Failure::into_error)?;
        Ok(())
    }

    /// Fails with [`Changed`](ErrorKind::Changed) if somebody else has changed the blob since it was opened for
    /// reading.
    pub fn check_unchanged(&self) -> Result<()> {
        let Some(etag) = &self.only_if.etag else {
            return Ok(());
        };
        let now = self
            .retry
            .run(|| self.store.properties(&self.blob))
            .map_err(Failure::into_error)?;
        if now.etag == *etag {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Changed,
            "the blob was changed while it was being read",
        )
        .with_path(&self.name)
        .with_found(now.etag)
        .with_expected(etag)
        .with_hint("run the command again, or read a snapshot of it"))
    }

    pub(super) fn retry(&self) -> &Retry {
        &self.retry
    }

    /// Waits until all that was written is stored; gives the lease that is held.
    pub(super) fn drained(&self) -> Result<Option<String>> {
        let writer = self.writer()?;
        writer.drain()?;
        Ok(writer.target().lease.clone())
    }

    fn writer(&self) -> Result<&Writer> {
        self.writer.as_ref().ok_or_else(|| {
            Error::usage("the blob was opened only for reading").with_path(&self.name)
        })
    }

    fn len(&self) -> u64 {
        self.size.load(Ordering::SeqCst)
    }

    fn listing(&self) -> Listing<'_> {
        Listing {
            store: &*self.store,
            blob: &self.blob,
            size: self.len(),
            since: None,
            only_if: &self.only_if,
            retry: &self.retry,
        }
    }

    fn lock_stored(&self) -> MutexGuard<'_, Option<Stored>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stored ranges, listed by the first caller while others wait.
    fn listed(&self) -> Result<MutexGuard<'_, Option<Stored>>> {
        let mut stored = self.lock_stored();
        if stored.is_none() {
            // Pending writes would be missing in the list. There can't be new ones, since writing requires this lock.
            if let Some(writer) = &self.writer {
                writer.drain()?;
            }
            *stored = Some(Stored::list(&self.listing()).map_err(Failure::into_error)?);
        }
        Ok(stored)
    }

    /// The stored runs of `range`, with those close to each other joined.
    fn runs(&self, range: &Range<u64>, list: bool) -> Result<Vec<Range<u64>>> {
        let stored = if list {
            self.listed()?
        } else {
            self.lock_stored()
        };
        let Some(stored) = &*stored else {
            return Ok(vec![range.clone()]);
        };
        let mut runs: Vec<Range<u64>> = Vec::new();
        let mut at = range.start;
        while let Some(run) = stored.first_in(at..range.end) {
            at = run.end;
            match runs.last_mut() {
                Some(last) if run.start - last.end <= GAP => last.end = run.end,
                _ => runs.push(run),
            }
        }
        Ok(runs)
    }

    /// Reads the stored parts of the bytes at `offset`; the rest is zero.
    fn fetch(&self, buf: &mut [u8], offset: u64, list: bool) -> Result<()> {
        let range = offset..offset.saturating_add(buf.len() as u64);
        let runs = self.runs(&range, list)?;
        buf.fill(0);
        for run in runs {
            let mut at = run.start;
            while at < run.end {
                let end = run.end.min(at + MAX_PUT);
                let (from, to) = (to_usize(at - offset), to_usize(end - offset));
                let piece = buf.get_mut(from..to).unwrap_or_default();
                self.retry
                    .run(|| self.store.read(&self.blob, at, piece, &self.only_if))
                    .map_err(|failure| failure.into_error().with_offset(at))?;
                at = end;
            }
        }
        Ok(())
    }

    /// The block around a short read.
    fn block(&self, number: u64) -> Result<Arc<[u8]>> {
        let lock = || self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let writes = {
            let blocks = lock();
            if let Some((_, block)) = blocks.list.iter().find(|(n, _)| *n == number) {
                return Ok(Arc::clone(block));
            }
            blocks.writes
        };
        let start = number * BLOCK;
        let end = (start + BLOCK).min(self.len());
        if let Some(writer) = &self.writer {
            writer.wait_for(&(start..end))?;
        }
        let mut bytes = vec![0; to_usize(end - start)];
        self.fetch(&mut bytes, start, false)?;
        let block: Arc<[u8]> = bytes.into();
        let mut blocks = lock();
        if blocks.writes == writes {
            if blocks.list.len() >= BLOCKS {
                blocks.list.pop_front();
            }
            blocks.list.push_back((number, Arc::clone(&block)));
        }
        Ok(block)
    }

    /// Drops cached data of `range`, which is about to be written.
    fn forget(&self, range: &Range<u64>) {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.writes += 1;
        let touched = range.start / BLOCK..range.end.div_ceil(BLOCK);
        blocks.list.retain(|(number, _)| !touched.contains(number));
    }

    /// Writes whole pages within the blob.
    fn write_pages(&self, data: &[u8], offset: u64) -> Result<()> {
        let writer = self.writer()?;
        let range = offset..offset.saturating_add(data.len() as u64);
        let mut stored = self.lock_stored();
        if let Some(stored) = &mut *stored {
            stored.insert(range.clone());
        }
        let is_listed = stored.is_some();
        // Until the list exists, nobody may list while this write is added.
        let held = (!is_listed).then_some(stored);
        let done = writer.put(offset, data);
        drop(held);
        self.forget(&range);
        done
    }

    /// Writes any bytes within the blob: partially written pages are read first.
    fn write_any(&self, data: &[u8], offset: u64) -> Result<()> {
        let _alone = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset.saturating_add(data.len() as u64);
        let start = offset - offset % PAGE_SIZE;
        let mut pages = vec![0; to_usize(end.next_multiple_of(PAGE_SIZE) - start)];
        self.read_exact_at(&mut pages, start)?;
        let from = to_usize(offset - start);
        if let Some(place) = pages.get_mut(from..from + data.len()) {
            place.copy_from_slice(data);
        }
        self.write_pages(&pages, start)
    }
}

impl ReadAt for BlobFile {
    fn name(&self) -> &Path {
        &self.name
    }

    fn byte_len(&self) -> Result<u64> {
        Ok(self.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let end = offset.saturating_add(buf.len() as u64);
        if end > self.len() {
            return Err(Error::damaged("the blob is too short")
                .with_path(&self.name)
                .with_offset(offset)
                .with_found(format_args!("{} bytes", self.len()))
                .with_expected(format_args!("at least {end} bytes")));
        }
        if (buf.len() as u64) < BLOCK {
            let mut at = offset;
            let mut rest = buf;
            while !rest.is_empty() {
                let block = self.block(at / BLOCK)?;
                let from = to_usize(at % BLOCK);
                let here = block.get(from..).unwrap_or_default();
                let take = here.len().min(rest.len());
                if take == 0 {
                    return Err(Error::new(
                        ErrorKind::Changed,
                        "the blob was truncated while it was being read",
                    )
                    .with_path(&self.name));
                }
                let (now, later) = rest.split_at_mut(take);
                now.copy_from_slice(here.get(..take).unwrap_or_default());
                (at, rest) = (at + take as u64, later);
            }
            return Ok(());
        }
        if let Some(writer) = &self.writer {
            writer.wait_for(&(offset..end))?;
        }
        self.fetch(buf, offset, true)
    }

    fn data_range(&self, within: Range<u64>) -> Result<Option<Range<u64>>> {
        let stored = self.listed()?;
        Ok(stored.as_ref().and_then(|stored| stored.first_in(within)))
    }
}

impl WriteAt for BlobFile {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let end = offset.saturating_add(buf.len() as u64);
        if end > self.len() {
            self.set_len(end.next_multiple_of(PAGE_SIZE))?;
        }
        if offset.is_multiple_of(PAGE_SIZE) && end.is_multiple_of(PAGE_SIZE) {
            self.write_pages(buf, offset)
        } else {
            self.write_any(buf, offset)
        }
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let writer = self.writer()?;
        if len == self.len() {
            return Ok(());
        }
        let refuse = |what: &str| {
            Err(Error::usage(what.to_owned())
                .with_path(&self.name)
                .with_found(format_args!("{len} bytes")))
        };
        if !len.is_multiple_of(PAGE_SIZE) {
            return refuse("the size of a page blob is a multiple of 512 bytes");
        }
        if self.store.is_managed_disk() {
            return refuse("the size of a managed disk can't be changed through its blob");
        }
        if len > MAX_BLOB {
            return refuse("a page blob can have at most 8 TiB");
        }
        let mut stored = self.lock_stored();
        writer.drain()?;
        writer
            .target()
            .send(|only_if| self.store.resize(&self.blob, len, only_if))
            .map_err(Failure::into_error)?;
        let old = self.size.swap(len, Ordering::SeqCst);
        if let Some(stored) = &mut *stored {
            stored.remove(len..old.max(len));
        }
        self.forget(&(len.min(old)..len.max(old)));
        Ok(())
    }

    fn write_zeros_at(&self, range: Range<u64>) -> Result<()> {
        let writer = self.writer()?;
        let end = range.end.min(self.len());
        let (mut start, last) = (range.start.min(end), end - end % PAGE_SIZE);
        // Partially zeroed pages.
        let head = start.next_multiple_of(PAGE_SIZE).min(end);
        if start < head {
            self.write_any(&vec![0; to_usize(head - start)], start)?;
            start = head;
        }
        if last.max(start) < end {
            self.write_any(&vec![0; to_usize(end - last.max(start))], last.max(start))?;
        }
        if start >= last {
            return Ok(());
        }
        let mut stored = self.listed()?;
        let Some(stored) = &mut *stored else {
            return Ok(());
        };
        // From the first to the last stored byte, in one request.
        let Some(first) = stored.first_in(start..last) else {
            return Ok(());
        };
        writer.clear(first.start..last)?;
        stored.remove(start..last);
        self.forget(&(start..last));
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.writer()?.drain()
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "sizes are those of tests")]
mod tests {
    use super::*;
    use crate::blob::memory::{Fault, MemoryStore};
    use crate::blob::retry::tests::at_once;
    use crate::blob::store::{Deleted, Lease};
    use crate::page::ChangeKind;

    fn blob() -> BlobId {
        BlobId::live("b")
    }

    fn new(size: u64) -> NewBlobFile {
        NewBlobFile {
            size,
            ..NewBlobFile::default()
        }
    }

    fn made(store: MemoryStore, size: u64) -> (Arc<MemoryStore>, BlobFile) {
        let store = Arc::new(store);
        let file = BlobFile::create(store.clone(), blob(), &new(size), at_once()).unwrap();
        (store, file)
    }

    fn any() -> Conditions {
        Conditions::default()
    }

    #[test]
    fn it_reads_what_was_written_like_memory() {
        let size = 9 << 20;
        let (store, file) = made(MemoryStore::default(), size);
        let memory = crate::storage::Memory::new(vec![0; size as usize]);
        let mut seed = 5_u64;
        let mut next = |most: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % most
        };
        for n in 0..400_u64 {
            let at = next(size);
            let most = [7, 600, 70_000, 3 << 20][next(4) as usize];
            let len = next(most).min(size - at);
            match next(4) {
                0 => {
                    let (mut a, mut b) = (vec![1; len as usize], vec![2; len as usize]);
                    file.read_exact_at(&mut a, at).unwrap();
                    memory.read_exact_at(&mut b, at).unwrap();
                    assert!(a == b, "{len} bytes at {at}");
                }
                1 => {
                    file.write_zeros_at(at..at + len).unwrap();
                    memory.write_zeros_at(at..at + len).unwrap();
                }
                _ => {
                    let data = vec![n as u8; len as usize];
                    file.write_all_at(&data, at).unwrap();
                    memory.write_all_at(&data, at).unwrap();
                }
            }
        }
        file.sync().unwrap();
        assert!(store.bytes(&blob()).unwrap() == memory.to_vec());
        // Every nonzero page is among those that count as stored.
        drop(file);
        let file = BlobFile::open(store, blob(), at_once()).unwrap();
        let mut at = 0;
        while let Some(run) = file.data_range(at..size).unwrap() {
            assert!(
                memory.to_vec()[at as usize..run.start as usize]
                    .iter()
                    .all(|b| *b == 0)
            );
            at = run.end;
        }
    }

    #[test]
    fn only_what_is_stored_is_read_and_the_list_is_asked_for_once() {
        let size = 1 << 30;
        let (store, file) = made(MemoryStore::default(), size);
        for at in [0, 512 << 20, size - 512] {
            file.write_all_at(&[7; 512], at).unwrap();
        }
        file.sync().unwrap();
        drop(file);
        let before = store.requests();
        let file = BlobFile::open(store.clone(), blob(), at_once()).unwrap();
        let mut window = vec![1; 4 << 20];
        for at in (0..size).step_by(4 << 20) {
            file.read_exact_at(&mut window, at).unwrap();
            assert!(window.iter().all(|b| matches!(b, 0 | 7)));
            assert_eq!(window.contains(&7), matches!(at >> 20, 0 | 512 | 1020));
        }
        // Properties, one list, three reads.
        assert_eq!(store.requests() - before, 5);
        file.check_unchanged().unwrap();
    }

    #[test]
    fn short_reads_are_kept_and_need_no_list() {
        let (store, file) = made(MemoryStore::default(), 1 << 20);
        file.write_all_at(&[7; 512], (1 << 20) - 512).unwrap();
        file.sync().unwrap();
        drop(file);
        let file = BlobFile::open(store.clone(), blob(), at_once()).unwrap();
        let before = store.requests();
        let mut footer = [0; 512];
        for _ in 0..5 {
            file.read_exact_at(&mut footer, (1 << 20) - 512).unwrap();
            file.read_exact_at(&mut footer[..8], (1 << 20) - 1024)
                .unwrap();
        }
        assert_eq!(store.requests() - before, 1);
        assert!(file.read_exact_at(&mut footer, (1 << 20) - 511).is_err());
    }

    #[test]
    fn a_blob_that_changes_while_it_is_read_is_told() {
        let (store, file) = made(MemoryStore::default(), 1 << 20);
        drop(file);
        let file = BlobFile::open(store.clone(), blob(), at_once()).unwrap();
        store.put_pages(&blob(), 0, &[1; 512], &any()).unwrap();
        let mut page = [0; 512];
        for error in [
            file.read_exact_at(&mut page, 0).unwrap_err(),
            file.data_range(0..512).unwrap_err(),
            file.check_unchanged().unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Changed);
        }
        // A snapshot is kept.
        let time = store.snapshot(&blob(), &Metadata::new(), &any()).unwrap();
        let file = BlobFile::open(store.clone(), blob().at(&time), at_once()).unwrap();
        store.put_pages(&blob(), 0, &[2; 512], &any()).unwrap();
        file.read_exact_at(&mut page, 0).unwrap();
        assert_eq!(page, [1; 512]);
        file.check_unchanged().unwrap();
        assert!(BlobFile::open_writable(store, blob().at(&time), at_once()).is_err());
    }

    #[test]
    fn a_lease_keeps_others_out_until_the_end() {
        let (store, file) = made(MemoryStore::default(), 1 << 20);
        let error = BlobFile::open_writable(store.clone(), blob(), at_once()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(store.put_pages(&blob(), 0, &[1; 512], &any()).is_err());
        BlobFile::open(store.clone(), blob(), at_once()).unwrap();
        drop(file);
        let file = BlobFile::open_writable(store.clone(), blob(), at_once()).unwrap();
        // Somebody breaks the lease.
        store.lease(&blob(), &Lease::Break).unwrap();
        file.write_all_at(&[1; 512], 0).unwrap();
        assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::Locked);
    }

    #[test]
    fn a_new_blob_is_made_once_and_never_instead_of_another() {
        let store =
            Arc::new(MemoryStore::default().with_faults(|call| {
                (call.what == "create" && call.number < 2).then_some(Fault::Lost)
            }));
        let file = BlobFile::create(store.clone(), blob(), &new(512), at_once()).unwrap();
        drop(file);
        let error = BlobFile::create(store.clone(), blob(), &new(512), at_once()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        let replace = NewBlobFile {
            replace: true,
            ..new(1024)
        };
        let file = BlobFile::create(store.clone(), blob(), &replace, at_once()).unwrap();
        assert_eq!(file.byte_len().unwrap(), 1024);
        drop(file);
        store.delete(&blob(), Deleted::Itself, &any()).unwrap();
        for size in [513, MAX_BLOB + 512] {
            let error = BlobFile::create(store.clone(), blob(), &new(size), at_once()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
        }
    }

    #[test]
    fn a_managed_disk_is_written_without_conditions_and_keeps_its_size() {
        let (plain, file) = made(MemoryStore::default(), 1 << 20);
        drop(file);
        let store = Arc::new(Arc::into_inner(plain).unwrap().as_managed_disk());
        let error = BlobFile::create(store.clone(), blob(), &new(512), at_once()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        let file = BlobFile::create(store.clone(), blob(), &new(1 << 20), at_once()).unwrap();
        file.write_all_at(&[7; 4096], 4096).unwrap();
        file.sync().unwrap();
        assert!(file.set_len(512).is_err());
        drop(file);
        let file = BlobFile::open(store, blob(), at_once()).unwrap();
        assert_eq!(file.data_range(0..1 << 20).unwrap(), Some(4096..8192));
    }

    #[test]
    fn what_changed_since_a_snapshot_comes_from_the_service() {
        let (store, file) = made(MemoryStore::default(), 1 << 20);
        file.write_all_at(&[1; 8192], 0).unwrap();
        file.sync().unwrap();
        let time = store.snapshot(&blob(), &Metadata::new(), &any()).unwrap();
        file.write_all_at(&[2; 512], 4096).unwrap();
        file.write_zeros_at(0..512).unwrap();
        let changes = file.changes_since(&Since::Snapshot(time)).unwrap();
        let found: Vec<_> = changes
            .iter()
            .map(|c| (c.kind, c.range.start(), c.range.end()))
            .collect();
        assert_eq!(
            found,
            [
                (ChangeKind::Clear, 0, 512),
                (ChangeKind::Update, 4096, 4608)
            ]
        );
        assert!(
            file.changes_since(&Since::Snapshot("never".into()))
                .is_err()
        );
    }
}
