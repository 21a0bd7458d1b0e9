//! A mount: threads that answer the kernel until it is unmounted.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::content::Content;
use super::tree::{ROOT, Refusal, Tree};
use super::wire::{Attributes, Out, Request, VERSION, errno, op};
use super::{Faults, Shelf};
use crate::error::{Error, Result};
use crate::page::PageRange;
use crate::storage::{FuseDevice, own_ids, unmount_at};

/// Requests are short, because nothing is written, but the kernel requires a larger buffer.
const REQUEST: usize = 64 << 10;

/// The largest read that is requested, in pages of 4 KiB.
const PAGES: u16 = 256;

/// How often in a row the device may fail to hand over a request before the mount is given up, and the pause after each.
const MOST_FAILURES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// How often a reply is tried: without one, its reader would wait forever.
const TRIES: u32 = 5;

/// How long the kernel may cache a file: a number always refers to the same file.
const FILE_SECONDS: u64 = 3600;

/// How long it may cache a folder, in which snapshots come and go.
const FOLDER_SECONDS: u64 = 1;

const ASYNC_READ: u32 = 1;
const PARALLEL_FOLDERS: u32 = 1 << 18;
const MAX_PAGES: u32 = 1 << 22;
const KEEP_CACHE: u32 = 1 << 1;
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;

/// How a shelf is mounted.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Shown as the source of the mount.
    pub name: String,
    /// Whether other users may read it too.
    pub allow_other: bool,
    /// Number of threads that answer.
    pub threads: usize,
    /// For an image, the partitions that are shown as files: number and range on the disk.
    pub parts: Vec<(u32, PageRange)>,
}

/// A mounted file system, until it is unmounted.
#[derive(Debug)]
pub struct Session {
    place: PathBuf,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    device: FuseDevice,
    tree: Tree,
    faults: Arc<Faults>,
    next: AtomicU64,
    /// Whether it is unmounted.
    gone: AtomicBool,
    open: Mutex<HashMap<u64, Arc<Content>>>,
    /// The entries of folders that are being read, so that they don't change between requests.
    folders: Mutex<HashMap<u64, Arc<Vec<u8>>>>,
}

impl Session {
    /// Mounts the contents of `shelf` at the folder `place`. `gone` is called once when it is unmounted, by whomever.
    /// Failed reads are recorded in `faults`.
    pub fn mount(
        shelf: Shelf,
        place: &Path,
        faults: Arc<Faults>,
        options: &SessionOptions,
        gone: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self> {
        let begun = SystemTime::now().duration_since(UNIX_EPOCH);
        let begun = begun.map_or(0, |time| time.as_secs());
        let tree = Tree::new(shelf, Arc::clone(&faults), &options.parts, own_ids(), begun);
        let device = FuseDevice::mount(place, &options.name, options.allow_other)?;
        let shared = Arc::new(Shared {
            device,
            tree,
            faults,
            next: AtomicU64::new(1),
            gone: AtomicBool::new(false),
            open: Mutex::default(),
            folders: Mutex::default(),
        });
        let gone = Arc::new(gone);
        let start = |n: usize| {
            let (shared, gone) = (Arc::clone(&shared), Arc::clone(&gone));
            let run = move || {
                shared.answer();
                shared.gone.store(true, Ordering::SeqCst);
                if n == 0 {
                    gone();
                }
            };
            let started = thread::Builder::new().name("fuse".into()).spawn(run);
            started.map_err(|e| Error::io("cannot start a thread", e))
        };
        let threads = (0..options.threads.clamp(1, 64))
            .map(start)
            .collect::<Result<Vec<_>>>();
        match threads {
            Ok(threads) => Ok(Self {
                place: place.to_path_buf(),
                shared,
                threads,
            }),
            Err(error) => {
                let _ = unmount_at(place, true);
                Err(error)
            }
        }
    }

    /// Unmounts it. With `lazily`, even if it is in use.
    ///
    /// # Errors
    ///
    /// [`Locked`](crate::ErrorKind::Locked) if it is in use; then it stays mounted.
    pub fn unmount(&self, lazily: bool) -> Result<()> {
        if self.shared.gone.load(Ordering::SeqCst) {
            return Ok(());
        }
        match unmount_at(&self.place, lazily) {
            // Someone else was faster.
            Err(_) if self.shared.gone.load(Ordering::SeqCst) => Ok(()),
            unmounted => unmounted,
        }
    }

    /// Waits until all requests made before the unmount are answered.
    pub fn join(self) {
        for thread in self.threads {
            // A panic is a bug whose message its thread has printed already.
            let _ = thread.join();
        }
        drop(self.shared);
    }
}

impl Shared {
    fn answer(&self) {
        let (mut buffer, mut data) = (vec![0; REQUEST], Vec::new());
        let mut failures = 0;
        loop {
            match self.device.next(&mut buffer) {
                Ok(Some(len)) => {
                    failures = 0;
                    self.answer_to(buffer.get(..len).unwrap_or_default(), &mut data);
                }
                Ok(None) => return,
                Err(e) => {
                    failures += 1;
                    if failures == 1 || failures == MOST_FAILURES {
                        self.faults
                            .note(&Error::io("cannot read", e).with_path("/dev/fuse"));
                    }
                    // An error that passes must not end the mount under its users.
                    if failures == MOST_FAILURES || self.gone.load(Ordering::SeqCst) {
                        return;
                    }
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Answers the request in `bytes`.
    fn answer_to(&self, bytes: &[u8], data: &mut Vec<u8>) {
        let Some(request) = Request::parse(bytes) else {
            if let Some(request) = Request::unreadable(bytes) {
                let _ = self.reply(request, Err(errno::INVAL));
            }
            return;
        };
        // If a reply can't be delivered, nobody is waiting for it.
        let _ = match request.op {
            op::FORGET | op::BATCH_FORGET | op::INTERRUPT => Ok(()),
            op::READ => self.read(request, data),
            _ => self.reply(request, self.handle(request)),
        };
    }

    fn reply(&self, request: Request<'_>, done: Result<Out, Refusal>) -> io::Result<()> {
        let (error, body) = match done {
            Ok(out) => (0, out.0),
            Err(number) => (number, Vec::new()),
        };
        self.send(request, error, &body)
    }

    fn send(&self, request: Request<'_>, error: i32, body: &[u8]) -> io::Result<()> {
        let len = u32::try_from(body.len().saturating_add(16)).map_err(io::Error::other)?;
        let head = Out::default().u32(len).i32(-error).u64(request.unique);
        let mut sent = self.device.answer(&[&head.0, body]);
        for _ in 1..TRIES {
            if sent.is_ok() {
                return sent;
            }
            thread::sleep(PAUSE);
            sent = self.device.answer(&[&head.0, body]);
        }
        if sent.is_err() && !body.is_empty() {
            // The kernel may refuse just this body.
            let head = Out::default().u32(16).i32(-errno::IO).u64(request.unique);
            return self.device.answer(&[&head.0]);
        }
        sent
    }

    fn handle(&self, request: Request<'_>) -> Result<Out, Refusal> {
        match request.op {
            op::INIT => init(request),
            op::DESTROY | op::RELEASEDIR | op::RELEASE => {
                let handle = request.u64(0).unwrap_or(0);
                lock(&self.open).remove(&handle);
                lock(&self.folders).remove(&handle);
                Ok(Out::default())
            }
            op::LOOKUP => {
                let name = request.name().ok_or(errno::INVAL)?;
                let found = self.tree.find(request.node, name)?;
                let seconds = seconds(&found);
                let entry = Out::default().u64(found.node).u64(0).u64(FOLDER_SECONDS);
                Ok(found.put(entry.u64(seconds).zeros(8)))
            }
            op::GETATTR => {
                let found = self.tree.attributes(request.node)?;
                Ok(found.put(Out::default().u64(seconds(&found)).zeros(8)))
            }
            op::OPEN => {
                const WRITES: u32 = 3;
                if request.u32(0).ok_or(errno::INVAL)? & WRITES != 0 {
                    return Err(errno::ROFS);
                }
                let content = Arc::new(self.tree.open(request.node)?);
                let handle = self.next.fetch_add(1, Ordering::Relaxed);
                lock(&self.open).insert(handle, content);
                Ok(Out::default().u64(handle).u32(KEEP_CACHE).u32(0))
            }
            op::OPENDIR => {
                let entries = self.folder(request.node)?;
                let handle = self.next.fetch_add(1, Ordering::Relaxed);
                lock(&self.folders).insert(handle, Arc::new(entries));
                Ok(Out::default().u64(handle).zeros(8))
            }
            op::READDIR => {
                let (handle, offset, size) = place(request).ok_or(errno::INVAL)?;
                let entries = lock(&self.folders).get(&handle).cloned();
                let entries = entries.ok_or(errno::BADF)?;
                Ok(Out(piece(&entries, offset, size).to_vec()))
            }
            op::STATFS => Ok(Out::default()
                .zeros(40)
                .u32(4096)
                .u32(255)
                .u32(4096)
                .zeros(28)),
            op::LSEEK => self.seek(request),
            _ => Err(errno::NOSYS),
        }
    }

    fn content(&self, handle: u64) -> Result<Arc<Content>, Refusal> {
        lock(&self.open).get(&handle).cloned().ok_or(errno::BADF)
    }

    fn read(&self, request: Request<'_>, data: &mut Vec<u8>) -> io::Result<()> {
        match self.read_into(request, data) {
            Ok(len) => self.send(request, 0, data.get(..len).unwrap_or_default()),
            Err(number) => self.send(request, number, &[]),
        }
    }

    fn read_into(&self, request: Request<'_>, data: &mut Vec<u8>) -> Result<usize, Refusal> {
        let (handle, offset, size) = place(request).ok_or(errno::INVAL)?;
        let content = self.content(handle)?;
        let size = size.min(usize::from(PAGES) * 4096);
        if data.len() < size {
            data.resize(size, 0);
        }
        let buffer = data.get_mut(..size).ok_or(errno::INVAL)?;
        content.read(buffer, offset).map_err(|error| {
            self.faults.note(&error);
            errno::IO
        })
    }

    fn seek(&self, request: Request<'_>) -> Result<Out, Refusal> {
        let (handle, offset) = (request.u64(0), request.u64(8));
        let content = self.content(handle.ok_or(errno::INVAL)?)?;
        let offset = offset.ok_or(errno::INVAL)?;
        let data = match request.u32(16) {
            Some(SEEK_DATA) => true,
            Some(SEEK_HOLE) => false,
            _ => return Err(errno::INVAL),
        };
        let found = content.seek(offset, data);
        let found = found.map_err(|error| self.tree.refusal(&error))?;
        Ok(Out::default().u64(found.ok_or(errno::NXIO)?))
    }

    /// The entries of a folder in the kernel's format.
    fn folder(&self, node: u64) -> Result<Vec<u8>, Refusal> {
        let mut bytes = Vec::new();
        let entries = self.tree.list(node)?;
        let entries = entries.iter();
        let entries = entries.map(|entry| (entry.node, entry.name.as_str(), entry.is_folder));
        for (node, name, is_folder) in [(node, ".", true), (ROOT, "..", true)]
            .into_iter()
            .chain(entries)
        {
            const FOLDER: u32 = 4;
            const FILE: u32 = 8;
            let padded = name.len().next_multiple_of(8);
            // The offset of the next one.
            let next = (bytes.len() + 24 + padded) as u64;
            let len = u32::try_from(name.len()).map_err(|_| errno::INVAL)?;
            let kind = if is_folder { FOLDER } else { FILE };
            let head = Out::default().u64(node).u64(next).u32(len).u32(kind);
            bytes.extend(head.0);
            bytes.extend(name.as_bytes());
            bytes.resize(bytes.len() + padded - name.len(), 0);
        }
        Ok(bytes)
    }
}

/// The complete entries from `offset` on, at most `size` bytes.
fn piece(entries: &[u8], offset: u64, size: usize) -> &[u8] {
    let all = usize::try_from(offset)
        .ok()
        .and_then(|at| entries.get(at..));
    let all = all.unwrap_or_default();
    let mut end = 0;
    while let Some(len) = all.get(end + 16..end + 20) {
        let len = len.try_into().map_or(0, u32::from_ne_bytes) as usize;
        let next = end + 24 + len.next_multiple_of(8);
        if next > size || next > all.len() {
            break;
        }
        end = next;
    }
    all.get(..end).unwrap_or_default()
}

/// Handle, offset and size of a read.
fn place(request: Request<'_>) -> Option<(u64, u64, usize)> {
    let size = usize::try_from(request.u32(16)?).ok()?;
    Some((request.u64(0)?, request.u64(8)?, size))
}

fn seconds(found: &Attributes) -> u64 {
    if found.is_folder {
        FOLDER_SECONDS
    } else {
        FILE_SECONDS
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn init(request: Request<'_>) -> Result<Out, Refusal> {
    let (major, minor) = (request.u32(0), request.u32(4));
    let (major, minor) = (major.ok_or(errno::INVAL)?, minor.ok_or(errno::INVAL)?);
    if major < VERSION.0 || (major == VERSION.0 && minor < VERSION.1) {
        return Err(errno::PROTO);
    }
    let ahead = request.u32(8).ok_or(errno::INVAL)?;
    let can = request.u32(12).ok_or(errno::INVAL)?;
    let flags = can & (ASYNC_READ | PARALLEL_FOLDERS | MAX_PAGES);
    Ok(Out::default()
        .u32(VERSION.0)
        .u32(VERSION.1)
        .u32(ahead)
        .u32(flags)
        .u16(64)
        .u16(48)
        // Nothing is written, but the kernel rejects a smaller value.
        .u32(4096)
        .u32(1)
        .u16(PAGES)
        .u16(0)
        .zeros(32))
}

#[cfg(test)]
#[allow(
    clippy::host_endian_bytes,
    clippy::cast_possible_truncation,
    clippy::items_after_statements,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "the kernel of this machine speaks its order of bytes; tests"
)]
mod tests {
    use std::fs;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};

    use super::*;

    const SIZE: usize = 300_000;

    /// A server of one image whose requests come from this side of a socket, as whole messages.
    fn shared() -> (Arc<Shared>, OwnedFd, Vec<u8>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..SIZE).map(|n| (n / 512 * 7 + n % 251) as u8).collect();
        let path = folder.path().join("disk.raw");
        fs::write(&path, &bytes[..SIZE / 512 * 512]).unwrap();
        let faults = Arc::new(Faults::new(Box::new(|_| {})));
        let shelf = Shelf::of_image(crate::open(&path).unwrap());
        let parts = [(1, PageRange::covering(1024, 4096))];
        let tree = Tree::new(shelf, Arc::clone(&faults), &parts, (0, 0), 1);
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let shared = Shared {
            device: FuseDevice::over(fs::File::from(theirs)),
            tree,
            faults,
            next: AtomicU64::new(1),
            gone: AtomicBool::new(false),
            open: Mutex::default(),
            folders: Mutex::default(),
        };
        (Arc::new(shared), ours, bytes, folder)
    }

    fn request(op: u32, unique: u64, node: u64, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(HEAD + body.len()).unwrap();
        let head = Out::default().u32(len).u32(op).u64(unique).u64(node);
        let mut bytes = head.zeros(16).0;
        bytes.extend(body);
        bytes
    }

    use super::super::wire::HEAD;

    /// The reply, if there is one: its error and its body.
    fn reply(ours: &OwnedFd, unique: u64) -> Option<(i32, Vec<u8>)> {
        let mut buffer = vec![0; 2 << 20];
        let (len, _) = recv(ours, &mut buffer[..], RecvFlags::DONTWAIT).ok()?;
        let bytes = &buffer[..len];
        assert_eq!(
            u32::from_ne_bytes(bytes[..4].try_into().unwrap()),
            len as u32
        );
        assert_eq!(u64::from_ne_bytes(bytes[8..16].try_into().unwrap()), unique);
        let error = i32::from_ne_bytes(bytes[4..8].try_into().unwrap());
        assert!((-4095..=0).contains(&error), "{error}");
        assert!(error == 0 || len == 16);
        Some((error, bytes[16..].to_vec()))
    }

    fn ask(shared: &Shared, ours: &OwnedFd, op: u32, node: u64, body: &[u8]) -> (i32, Vec<u8>) {
        shared.answer_to(&request(op, 77, node, body), &mut Vec::new());
        reply(ours, 77).unwrap()
    }

    fn number(bytes: &[u8]) -> u64 {
        u64::from_ne_bytes(bytes[..8].try_into().unwrap())
    }

    /// Looks up, opens and reads the disk, whatever came before.
    fn assert_well(shared: &Shared, ours: &OwnedFd, bytes: &[u8]) {
        let (error, found) = ask(shared, ours, op::LOOKUP, 1, b"disk.raw\0");
        assert_eq!(error, 0);
        let node = number(&found);
        let (error, opened) = ask(shared, ours, op::OPEN, node, &[0; 8]);
        assert_eq!(error, 0);
        let at = |offset: u64, size: u32| {
            let body = Out::default().u64(number(&opened)).u64(offset).u32(size);
            ask(shared, ours, op::READ, node, &body.zeros(20).0)
        };
        assert_eq!(at(1000, 5000), (0, bytes[1000..6000].to_vec()));
        let end = SIZE / 512 * 512;
        assert_eq!(at(end as u64 - 3, 4096), (0, bytes[end - 3..end].to_vec()));
        assert_eq!(at(u64::MAX, u32::MAX), (0, Vec::new()));
        ask(shared, ours, op::RELEASE, node, &opened);
    }

    /// A small generator, the same each time.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            self.0 ^ (self.0 >> 29)
        }

        fn of<T: Copy>(&mut self, all: &[T]) -> T {
            all[usize::try_from(self.next() >> 33).unwrap() % all.len()]
        }
    }

    /// Requests of every kind with bodies of every length and nonsense in every field: each is answered once, or belongs to
    /// those that have no answer; what is read is never wrong; nothing that was asked disturbs the next one.
    #[test]
    fn nonsense_is_answered_and_harms_nobody() {
        let (shared, ours, bytes, _folder) = shared();
        let mut random = Random(5);
        let mut data = Vec::new();
        let numbers = [
            0,
            1,
            2,
            3,
            4,
            5,
            511,
            4096,
            1 << 20,
            1 << 31,
            1 << 63,
            u64::MAX,
            u64::MAX - 1,
        ];
        let (mut answered, mut refused) = (0, 0);
        for round in 0..40_000_u64 {
            let op = match random.next() % 4 {
                0 => u32::try_from(random.next() % 64).unwrap(),
                1 => random.of(&[u32::MAX, 4096, 1 << 16]),
                _ => random.of(&[1, 3, 14, 15, 17, 18, 26, 27, 28, 29, 38, 46]),
            };
            let mut body = Vec::new();
            for _ in 0..random.next() % 9 {
                body.extend(random.of(&numbers).to_ne_bytes());
            }
            body.truncate(usize::try_from(random.next() % 64).unwrap());
            let unique = round + 100;
            let mut all = request(op, unique, random.of(&numbers), &body);
            match random.next() % 5 {
                // Cut off, or with another length than it has.
                0 => all.truncate(usize::try_from(random.next()).unwrap() % (all.len() + 1)),
                1 => {
                    let len = random.of(&[0, 1, 39, 40, 41, 1 << 16, u32::MAX]);
                    all[..4].copy_from_slice(&len.to_ne_bytes());
                }
                _ => {}
            }
            shared.answer_to(&all, &mut data);
            assert!(data.len() <= usize::from(PAGES) * 4096);
            let whole = all.len() >= HEAD;
            let silent = matches!(op, op::FORGET | op::BATCH_FORGET | op::INTERRUPT);
            match reply(&ours, unique) {
                Some((0, _)) => answered += 1,
                Some(_) => refused += 1,
                None => assert!(!whole || silent, "{op} {body:?}"),
            }
            assert!(reply(&ours, unique).is_none(), "two answers");
            if round % 1000 == 0 {
                assert_well(&shared, &ours, &bytes);
                // Open files that nobody closes take little; here they would only be counted.
                lock(&shared.open).clear();
                lock(&shared.folders).clear();
            }
        }
        assert!(
            answered > 1000 && refused > 1000,
            "{answered} answered, {refused} refused"
        );
        shared.faults.check().unwrap();
    }

    #[test]
    fn entries_of_a_folder_are_whole_from_any_offset() {
        let (shared, ours, _, _folder) = shared();
        let (error, opened) = ask(&shared, &ours, op::OPENDIR, 1, &[0; 8]);
        assert_eq!(error, 0);
        for size in [0_u32, 1, 24, 31, 32, 33, 100, 4096, u32::MAX] {
            for offset in (0..200).chain([u64::MAX, 1 << 63]) {
                let body = Out::default()
                    .u64(number(&opened))
                    .u64(offset)
                    .u32(size)
                    .zeros(20);
                let (error, entries) = ask(&shared, &ours, op::READDIR, 1, &body.0);
                assert_eq!(error, 0);
                assert!(entries.len() <= size as usize);
            }
        }
    }

    /// The loop ends with the device, and not before.
    #[test]
    fn the_end_of_the_device_is_the_end() {
        let (shared, ours, bytes, _folder) = shared();
        let server = Arc::clone(&shared);
        let thread = thread::spawn(move || server.answer());
        let stream = UnixStream::from(ours);
        rustix::net::send(&stream, &[], rustix::net::SendFlags::empty()).ok();
        rustix::net::send(
            &stream,
            &request(op::STATFS, 9, 1, &[]),
            rustix::net::SendFlags::empty(),
        )
        .ok();
        drop(stream);
        thread.join().unwrap();
        drop(bytes);
    }
}
