//! A mount: threads that answer the kernel until it is unmounted.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

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
        loop {
            let len = match self.device.next(&mut buffer) {
                Ok(Some(len)) => len,
                Ok(None) => return,
                Err(e) => {
                    self.faults
                        .note(&Error::io("cannot read", e).with_path("/dev/fuse"));
                    return;
                }
            };
            let Some(request) = buffer.get(..len).and_then(Request::parse) else {
                continue;
            };
            // If a reply can't be delivered, nobody is waiting for it.
            let _ = match request.op {
                op::FORGET | op::BATCH_FORGET | op::INTERRUPT => Ok(()),
                op::READ => self.read(request, &mut data),
                _ => self.reply(request, self.handle(request)),
            };
        }
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
        self.device.answer(&[&head.0, body])
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
