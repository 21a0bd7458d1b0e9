//! Files that are stored encrypted, in chunks, under names that tell nothing: the files of a store for which a key is
//! known.
//!
//! ```text
//! STORE/web/000001-mon.vhddiff            how every function here is told of a file, and what messages call it
//! STORE/kq3…/000001-7ya….vhddiff.age      where and as what it is
//! ```
//!
//! Everything that opens, creates, renames or removes a file asks here by its path. So nothing in such a store is ever
//! stored as it is, temporary files among them, whoever writes it. A new file is written from front to back; it ends when
//! it is brought to stable storage or gets its name. Any part of a complete one can be read alone: a chunk is authentic in
//! its place or isn't given out, and so is the length.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::stored_names::{DAMAGED, LOCKS, split_stored_name};
use crate::error::{Error, Result};
use crate::page::to_usize;

/// Bytes of a chunk before it is encrypted.
const CHUNK: usize = 64 << 10;

/// What gaps are filled with.
static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// Bytes that it grows by.
const TAG: usize = 16;

/// Bytes of a chunk as it is stored.
const STORED: u64 = (CHUNK + TAG) as u64;

/// Chunks that are read or written at a time.
const AT_ONCE: usize = 16;

/// The most bytes before the first chunk.
const LONGEST_HEAD: u64 = 16 << 10;

/// How the names of encrypted files end.
const ENDING: &str = ".age";

/// What the files of one store are encrypted with.
pub trait Seal: fmt::Debug + Send + Sync {
    /// Begins a new file: everything before its first chunk, and the key of its chunks.
    fn start(&self) -> Result<(Vec<u8>, Arc<dyn ChunkSeal>)>;

    /// Reads the beginning of a file, of which `head` has the first 16 KiB. Returns the offset of its first chunk.
    fn open(&self, head: &[u8]) -> Result<(usize, Arc<dyn ChunkSeal>)>;

    /// A name that tells nothing of `name`, which something within `within` has; always the same one.
    fn hide(&self, within: &str, name: &str) -> String;

    /// The name that was hidden; `None` if it wasn't one of these.
    fn reveal(&self, within: &str, hidden: &str) -> Option<String>;
}

/// Encrypts the chunks of one file.
pub trait ChunkSeal: Send + Sync {
    /// Encrypts chunk number `n` in place, and returns what follows it.
    fn seal(&self, n: u64, last: bool, chunk: &mut [u8]) -> Result<[u8; TAG]>;

    /// Decrypts chunk number `n` in place, with what follows it; `None` if it isn't authentic.
    fn open<'a>(&self, n: u64, last: bool, stored: &'a mut [u8]) -> Option<&'a mut [u8]>;
}

type Stores = Vec<(PathBuf, Arc<dyn Seal>)>;

/// The stores whose keys are known to this process.
static STORES: RwLock<Stores> = RwLock::new(Vec::new());

/// Has the files in the folders of the store at `store`, as paths name it, encrypted from now on.
pub fn seal_store(store: &Path, seal: Arc<dyn Seal>) {
    let mut stores = STORES.write().unwrap_or_else(PoisonError::into_inner);
    stores.retain(|(known, _)| known != store);
    stores.push((store.to_path_buf(), seal));
}

/// Forgets the key of the store at `store`. What is open stays open.
pub fn unseal_store(store: &Path) {
    let mut stores = STORES.write().unwrap_or_else(PoisonError::into_inner);
    stores.retain(|(known, _)| known != store);
}

/// Returns whether the files in the folders of the store at `store` are encrypted.
pub fn is_sealed(store: &Path) -> bool {
    let stores = STORES.read().unwrap_or_else(PoisonError::into_inner);
    stores.iter().any(|(known, _)| known == store)
}

/// Where something in an encrypted store is.
struct Place {
    seal: Arc<dyn Seal>,
    store: PathBuf,
    /// The folder of a disk, as paths name it.
    disk: String,
    /// The names below that.
    rest: Vec<String>,
}

impl Place {
    fn of(path: &Path) -> Option<Self> {
        let stores = STORES.read().unwrap_or_else(PoisonError::into_inner);
        let (store, seal, rest) = stores.iter().find_map(|(store, seal)| {
            let rest = path.strip_prefix(store).ok()?;
            Some((store, seal, rest))
        })?;
        let mut names = rest.components().map(|part| match part {
            Component::Normal(name) => name.to_str().map(str::to_owned),
            _ => None,
        });
        let disk = names.next()??;
        // Temporary files of the store itself, and its marker and key.
        if disk.starts_with('.') || disk.starts_with("vhdkit-store") {
            return None;
        }
        Some(Self {
            seal: Arc::clone(seal),
            store: store.clone(),
            disk: seal.reveal("", &disk).unwrap_or(disk),
            rest: names.collect::<Option<_>>()?,
        })
    }

    fn on_disk(&self) -> PathBuf {
        let mut path = self.store.join(self.seal.hide("", &self.disk));
        let mut rest = self.rest.iter();
        path.extend(rest.next().map(|name| self.hidden(name)));
        path.extend(rest);
        path
    }

    fn hidden(&self, name: &str) -> String {
        if is_open(name) || name.ends_with(ENDING) {
            return name.to_owned();
        }
        let (whole, aside) = split_aside(name);
        match split_stored_name(whole) {
            Some((number, point, ending)) => {
                let point = self.seal.hide(&self.disk, point);
                format!("{number:06}-{point}{ending}{aside}{ENDING}")
            }
            None => format!("{name}{ENDING}"),
        }
    }

    fn revealed(&self, name: &str) -> Option<String> {
        if is_open(name) {
            return Some(name.to_owned());
        }
        let name = name.strip_suffix(ENDING)?;
        let (whole, aside) = split_aside(name);
        match split_stored_name(whole) {
            Some((number, point, ending)) => {
                let point = self.seal.reveal(&self.disk, point)?;
                Some(format!("{number:06}-{point}{ending}{aside}"))
            }
            None => Some(name.to_owned()),
        }
    }

    /// Whether it is a file that is encrypted.
    fn is_file(&self) -> bool {
        self.rest
            .first()
            .is_some_and(|name| !LOCKS.contains(&name.as_str()))
    }
}

/// Whether a name isn't hidden: it tells nothing of what is stored.
fn is_open(name: &str) -> bool {
    LOCKS.contains(&name) || name.starts_with('.')
}

fn split_aside(name: &str) -> (&str, &str) {
    name.find(DAMAGED)
        .map_or((name, ""), |at| name.split_at(at))
}

/// Where the file that paths name `path` really is: the same, unless it is in an encrypted store.
pub fn on_disk(path: &Path) -> Cow<'_, Path> {
    match Place::of(path) {
        Some(place) => Cow::Owned(place.on_disk()),
        None => Cow::Borrowed(path),
    }
}

/// The name by which paths call an entry of `folder`; `None` if it isn't one that the store would have made.
pub fn name_in(folder: &Path, entry: &str) -> Option<String> {
    let stores = STORES.read().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, seal)) = stores.iter().find(|(store, _)| store == folder) {
        return seal.reveal("", entry);
    }
    drop(stores);
    match Place::of(folder) {
        Some(place) => place.revealed(entry),
        None => Some(entry.to_owned()),
    }
}

/// A file as it is stored.
pub(super) trait Bytes {
    /// What messages call it.
    fn path(&self) -> &Path;

    /// Its length.
    fn stored_len(&self) -> Result<u64>;

    /// Fills `buf` from `offset`; an error of kind `UnexpectedEof` if it ends before that.
    fn read_stored(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes `buf` at `offset`.
    fn write_stored(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Sets its length.
    fn set_stored_len(&self, len: u64) -> io::Result<()>;
}

/// Reads bytes that must be there.
fn read(file: &dyn Bytes, buf: &mut [u8], offset: u64) -> Result<()> {
    file.read_stored(buf, offset).map_err(|e| {
        if e.kind() == io::ErrorKind::UnexpectedEof {
            return damaged(file, offset);
        }
        Error::io("cannot read", e)
            .with_path(file.path())
            .with_offset(offset)
    })
}

/// What a file in an encrypted store is read or written through.
pub(super) struct Sealed {
    seal: Arc<dyn Seal>,
    /// Whether it is written: anew, whatever is there.
    new: bool,
    payload: Mutex<Option<Payload>>,
    /// The chunk that was read last, if a part of it may still be wanted.
    kept: Mutex<Option<(u64, Vec<u8>)>>,
}

/// The chunks of a file.
#[derive(Clone)]
struct Payload {
    key: Arc<dyn ChunkSeal>,
    /// Offset of the first one.
    head: u64,
    /// How many are stored that others follow.
    full: u64,
    /// The length of the last one, once it is stored.
    last: Option<usize>,
    /// What isn't stored yet: at most a chunk, as it may be the last one.
    pending: Vec<u8>,
    /// Whether writing failed.
    broken: bool,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("new", &self.new)
            .finish_non_exhaustive()
    }
}

impl Payload {
    fn len(&self) -> u64 {
        let rest = self.last.unwrap_or(self.pending.len());
        (self.full * CHUNK as u64).saturating_add(rest as u64)
    }

    fn offset(&self, n: u64) -> u64 {
        self.head.saturating_add(n.saturating_mul(STORED))
    }
}

impl Sealed {
    /// How the file that paths name `path` is to be read or, if it is `new`, written; `None` if it is stored as it is.
    pub(super) fn of(path: &Path, new: bool) -> Option<Arc<Self>> {
        let place = Place::of(path).filter(Place::is_file)?;
        Some(Arc::new(Self {
            seal: place.seal,
            new,
            payload: Mutex::default(),
            kept: Mutex::default(),
        }))
    }

    fn payload(&self) -> MutexGuard<'_, Option<Payload>> {
        self.payload.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Option<(u64, Vec<u8>)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its chunks; the first time, the head and the last chunk are read, which prove its length.
    fn loaded(&self, file: &dyn Bytes) -> Result<Payload> {
        let mut payload = self.payload();
        if let Some(known) = &*payload {
            return Ok(known.clone());
        }
        let loaded = if self.new {
            self.begin(file)?
        } else {
            self.load(file)?
        };
        *payload = Some(loaded.clone());
        Ok(loaded)
    }

    fn load(&self, file: &dyn Bytes) -> Result<Payload> {
        let len = file.stored_len()?;
        let mut head = vec![0; to_usize(len.min(LONGEST_HEAD))];
        read(file, &mut head, 0)?;
        let (at, key) = self
            .seal
            .open(&head)
            .map_err(|e| e.with_path(file.path()))?;
        let at = at as u64;
        let cut = || damaged(file, len).with_found(format_args!("{len} bytes"));
        let body = len.checked_sub(at).ok_or_else(cut)?;
        let full = body.saturating_sub(1) / STORED;
        let last = to_usize(body - full * STORED)
            .checked_sub(TAG)
            .ok_or_else(cut)?;
        // Only an empty file has an empty chunk.
        if last == 0 && full > 0 {
            return Err(cut());
        }
        let payload = Payload {
            key,
            head: at,
            full,
            last: Some(last),
            pending: Vec::new(),
            broken: false,
        };
        let mut stored = vec![0; last + TAG];
        read(file, &mut stored, payload.offset(full))?;
        let plain = payload.key.open(full, true, &mut stored);
        let plain = plain
            .ok_or_else(|| damaged(file, payload.offset(full)))?
            .to_vec();
        *self.kept() = Some((full, plain));
        Ok(payload)
    }

    fn begin(&self, file: &dyn Bytes) -> Result<Payload> {
        let (head, key) = self.seal.start().map_err(|e| e.with_path(file.path()))?;
        let failed = |e| Error::io("cannot write", e).with_path(file.path());
        if file.stored_len()? > 0 {
            file.set_stored_len(0).map_err(failed)?;
        }
        file.write_stored(&head, 0).map_err(failed)?;
        Ok(Payload {
            key,
            head: head.len() as u64,
            full: 0,
            last: None,
            pending: Vec::new(),
            broken: false,
        })
    }

    pub(super) fn len(&self, file: &dyn Bytes) -> Result<u64> {
        Ok(self.loaded(file)?.len())
    }

    pub(super) fn read(&self, file: &dyn Bytes, buf: &mut [u8], offset: u64) -> Result<()> {
        let payload = self.loaded(file)?;
        let end = offset.saturating_add(buf.len() as u64);
        if end > payload.len() {
            return Err(Error::damaged("the file is too short")
                .with_path(file.path())
                .with_offset(offset)
                .with_found(format_args!("{} bytes", payload.len()))
                .with_expected(format_args!("at least {end} bytes")));
        }
        let (mut at, mut buf) = (offset, buf);
        while !buf.is_empty() {
            let (n, skip) = (at / CHUNK as u64, to_usize(at % CHUNK as u64));
            let read = self.read_from(file, &payload, (n, skip), buf)?;
            at += read as u64;
            buf = buf.get_mut(read..).unwrap_or_default();
        }
        Ok(())
    }

    /// Reads from chunk `n` on, without its first `skip` bytes. Returns how much was read: something.
    fn read_from(
        &self,
        file: &dyn Bytes,
        payload: &Payload,
        (n, skip): (u64, usize),
        buf: &mut [u8],
    ) -> Result<usize> {
        let copy = |chunk: &[u8], skip: usize, buf: &mut [u8]| {
            let from = chunk.get(skip..).unwrap_or_default();
            let len = from.len().min(buf.len());
            if let (Some(to), Some(from)) = (buf.get_mut(..len), from.get(..len)) {
                to.copy_from_slice(from);
            }
            len
        };
        if n == payload.full && payload.last.is_none() {
            return Ok(copy(&payload.pending, skip, buf));
        }
        if let Some((_, chunk)) = self.kept().as_ref().filter(|(kept, _)| *kept == n) {
            return Ok(copy(chunk, skip, buf));
        }
        // Chunks that are followed by others, or else the last one.
        let wanted = (skip + buf.len()).div_ceil(CHUNK).clamp(1, AT_ONCE);
        let whole = to_usize(payload.full.saturating_sub(n)).min(wanted);
        let (count, size) = match payload.last {
            Some(last) if whole == 0 => (1, last + TAG),
            _ => (whole, CHUNK + TAG),
        };
        let mut stored = vec![0; count * size];
        read(file, &mut stored, payload.offset(n))?;
        let (mut done, mut skip) = (0, skip);
        for (n, chunk) in (n..).zip(stored.chunks_mut(size)) {
            let last = payload.last.is_some() && n == payload.full;
            let plain = payload.key.open(n, last, chunk);
            let plain = plain.ok_or_else(|| damaged(file, payload.offset(n)))?;
            let rest = buf.get_mut(done..).unwrap_or_default();
            let len = copy(plain, skip, rest);
            if skip + len < plain.len() {
                *self.kept() = Some((n, plain.to_vec()));
            }
            done += len;
            skip = 0;
        }
        Ok(done)
    }

    pub(super) fn write(&self, file: &dyn Bytes, buf: &[u8], offset: u64) -> Result<()> {
        self.loaded(file)?;
        let mut payload = self.payload();
        let Some(payload) = payload.as_mut() else {
            return Err(not_here(file, offset));
        };
        if !self.new || payload.last.is_some() || payload.broken || offset < payload.len() {
            return Err(not_here(file, offset));
        }
        let mut gap = offset - payload.len();
        while gap > 0 {
            let piece = to_usize(gap.min(CHUNK as u64));
            append(file, payload, ZEROS.get(..piece).unwrap_or_default())?;
            gap -= piece as u64;
        }
        append(file, payload, buf)
    }

    pub(super) fn set_len(&self, file: &dyn Bytes, len: u64) -> Result<()> {
        let have = self.loaded(file)?.len();
        if len < have {
            if len > 0 || !self.new {
                return Err(not_here(file, len));
            }
            // Begun again with another key: none is ever used twice for one place.
            *self.kept() = None;
            *self.payload() = None;
            return Ok(());
        }
        self.write(file, &[], len)
    }

    /// Ends a file that was written: whatever was given of it is stored.
    pub(super) fn end(&self, file: &dyn Bytes) -> Result<()> {
        if !self.new {
            return Ok(());
        }
        self.loaded(file)?;
        let mut payload = self.payload();
        let Some(payload) = payload.as_mut().filter(|payload| payload.last.is_none()) else {
            return Ok(());
        };
        if payload.broken {
            return Err(not_here(file, payload.len()));
        }
        payload.broken = true;
        let mut chunk = std::mem::take(&mut payload.pending);
        let len = chunk.len();
        let tag = payload.key.seal(payload.full, true, &mut chunk)?;
        chunk.extend(tag);
        let at = payload.offset(payload.full);
        file.write_stored(&chunk, at).map_err(|e| {
            Error::io("cannot write", e)
                .with_path(file.path())
                .with_offset(at)
        })?;
        payload.last = Some(len);
        payload.broken = false;
        Ok(())
    }
}

/// Adds bytes to the end, and stores the chunks of which it is known that others follow.
fn append(file: &dyn Bytes, payload: &mut Payload, buf: &[u8]) -> Result<()> {
    let mut rest = buf;
    while payload.pending.len() + rest.len() > CHUNK {
        let mut out = Vec::with_capacity(AT_ONCE * (CHUNK + TAG));
        let mut count = 0;
        while payload.pending.len() + rest.len() > CHUNK && count < AT_ONCE as u64 {
            let start = out.len();
            out.append(&mut payload.pending);
            let (now, later) = rest.split_at((CHUNK + start - out.len()).min(rest.len()));
            out.extend_from_slice(now);
            rest = later;
            let chunk = out.get_mut(start..).unwrap_or_default();
            let tag = payload.key.seal(payload.full + count, false, chunk)?;
            out.extend(tag);
            count += 1;
        }
        let at = payload.offset(payload.full);
        payload.broken = true;
        file.write_stored(&out, at).map_err(|e| {
            Error::io("cannot write", e)
                .with_path(file.path())
                .with_offset(at)
        })?;
        payload.broken = false;
        payload.full += count;
    }
    payload.pending.extend_from_slice(rest);
    Ok(())
}

fn damaged(file: &dyn Bytes, offset: u64) -> Error {
    Error::damaged("this encrypted file was changed or cut off")
        .with_path(file.path())
        .with_offset(offset)
}

/// The error for changing what is written once.
fn not_here(file: &dyn Bytes, offset: u64) -> Error {
    Error::usage("an encrypted file is written once, from front to back")
        .with_path(file.path())
        .with_offset(offset)
}

/// An error as the result of a write.
pub(super) fn as_io(error: Error) -> io::Error {
    let kind = error.io_kind().unwrap_or(io::ErrorKind::Other);
    io::Error::new(kind, error)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::error::ErrorKind;
    use crate::storage::{
        AtomicFile, Audience, File, Overwrite, ReadAt as _, StoreFolder, WriteAt as _,
        create_folder_for, refuse_part_of_store, remove, rename, spool_beside,
    };

    /// It hides nothing from anybody who looks twice, and is easily told apart.
    #[derive(Debug)]
    struct Toy(u8);

    impl ChunkSeal for Toy {
        fn seal(&self, n: u64, last: bool, chunk: &mut [u8]) -> Result<[u8; TAG]> {
            for byte in chunk.iter_mut() {
                *byte ^= self.0;
            }
            let hash = blake3::hash(&[&*chunk, &n.to_be_bytes()[..], &[last.into()]].concat());
            Ok(*hash.as_bytes().first_chunk().unwrap())
        }

        fn open<'a>(&self, n: u64, last: bool, stored: &'a mut [u8]) -> Option<&'a mut [u8]> {
            let (chunk, tag) = stored.split_at_mut(stored.len().checked_sub(TAG)?);
            let hash = blake3::hash(&[&*chunk, &n.to_be_bytes()[..], &[last.into()]].concat());
            for byte in chunk.iter_mut() {
                *byte ^= self.0;
            }
            (hash.as_bytes()[..TAG] == *tag).then_some(chunk)
        }
    }

    impl Seal for Toy {
        fn start(&self) -> Result<(Vec<u8>, Arc<dyn ChunkSeal>)> {
            Ok((b"toy".to_vec(), Arc::new(Self(self.0))))
        }

        fn open(&self, head: &[u8]) -> Result<(usize, Arc<dyn ChunkSeal>)> {
            match head {
                [b't', b'o', b'y', ..] => Ok((3, Arc::new(Self(self.0)))),
                _ => Err(Error::damaged("not a toy")),
            }
        }

        fn hide(&self, within: &str, name: &str) -> String {
            let start = format!("{}x", within.len());
            name.bytes().fold(start, |text, c| format!("{text}{c:02x}"))
        }

        fn reveal(&self, within: &str, hidden: &str) -> Option<String> {
            let name = hidden.strip_prefix(&format!("{}x", within.len()))?;
            let digits = |at| u8::from_str_radix(name.get(at..at + 2)?, 16).ok();
            let bytes: Option<Vec<u8>> = (0..name.len()).step_by(2).map(digits).collect();
            String::from_utf8(bytes?).ok()
        }
    }

    /// A store with a disk, and the right to change that.
    fn store() -> (tempfile::TempDir, PathBuf, StoreFolder) {
        let folder = tempfile::tempdir().unwrap();
        seal_store(folder.path(), Arc::new(Toy(0x5a)));
        let disk = folder.path().join("web");
        create_folder_for(&disk, &Audience::default()).unwrap();
        let hold = StoreFolder::hold(&disk).unwrap();
        (folder, disk, hold)
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len)
            .map(|n| (n / 251 % 256).try_into().unwrap())
            .collect()
    }

    fn write(path: &Path, bytes: &[u8]) {
        let file = AtomicFile::for_audience(path, Audience::default()).unwrap();
        file.file().write_all_at(bytes, 0).unwrap();
        let mut read = vec![0; bytes.len()];
        file.file().read_exact_at(&mut read, 0).unwrap();
        assert!(read == bytes, "it is read while it isn't complete");
        file.publish(Overwrite::Yes).unwrap();
    }

    #[test]
    fn what_is_written_is_read_in_any_piece_and_never_stored_as_it_is() {
        let (_folder, disk, _hold) = store();
        let path = disk.join("000001-a.vhddiff");
        let chunk = CHUNK;
        for len in [
            0,
            1,
            100,
            chunk - 1,
            chunk,
            chunk + 1,
            2 * chunk,
            20 * chunk + 7,
        ] {
            let all = bytes(len);
            write(&path, &all);
            let stored = fs::read(on_disk(&path)).unwrap();
            let chunks = len.div_ceil(chunk).max(1);
            assert_eq!(stored.len(), 3 + len + chunks * TAG);
            assert!(len < 99 || stored[3..102] != all[..99]);
            let file = File::open(&path).unwrap();
            assert_eq!(file.byte_len().unwrap(), len as u64);
            for (at, size) in [
                (0, len),
                (len / 3, len / 2),
                (len.saturating_sub(9), 9),
                (len / 2, 1),
            ] {
                let size = size.min(len - at);
                let mut read = vec![0; size];
                file.read_exact_at(&mut read, at as u64).unwrap();
                assert!(read == all[at..at + size], "{size} bytes at {at} of {len}");
            }
            let error = file.read_exact_at(&mut [0; 2], len as u64 - 1.min(len as u64));
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Damaged);
            let mut again = Vec::new();
            io::Read::read_to_end(&mut file.reader(), &mut again).unwrap();
            assert!(again == all);
        }
    }

    #[test]
    fn every_cut_and_every_change_is_damage_with_a_place() {
        let (_folder, disk, _hold) = store();
        let path = disk.join("000001-a.vhddiff");
        write(&path, &bytes(3 * CHUNK + 100));
        let place = on_disk(&path).into_owned();
        let whole = fs::read(&place).unwrap();
        let read = || {
            let file = File::open(&path)?;
            let mut all = vec![0; to_usize(file.byte_len()?)];
            file.read_exact_at(&mut all, 0)
        };
        let stored = to_usize(STORED);
        let ends = (0..4).flat_map(|n| [0, 1, 16, 17].map(|more| 3 + n * stored + more));
        for len in ends.chain([0, 2, whole.len() - 1]) {
            fs::write(&place, &whole[..len]).unwrap();
            let error = read().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{len}: {error}");
            assert_eq!(error.path(), Some(&*path));
        }
        fs::write(&place, [&whole[..], b"x"].concat()).unwrap();
        assert_eq!(read().unwrap_err().kind(), ErrorKind::Damaged);
        for at in [0, 3, 3 + stored - 1, 3 + stored, whole.len() - 1] {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            fs::write(&place, bad).unwrap();
            assert_eq!(read().unwrap_err().kind(), ErrorKind::Damaged, "{at}");
        }
        // Two chunks change places.
        let mut bad = whole.clone();
        let (one, two) = bad[3..].split_at_mut(stored);
        one.swap_with_slice(&mut two[..stored]);
        fs::write(&place, bad).unwrap();
        let error = read().unwrap_err().to_string();
        assert!(error.contains("changed or cut off"), "{error}");
    }

    #[test]
    fn a_file_is_written_once_from_front_to_back() {
        let (_folder, disk, _hold) = store();
        let path = disk.join("000001-a.vhddiff.part");
        write(&path, b"before");
        let file = File::open_writable(&path).unwrap();
        assert_eq!(file.goes_on_from(5), 0);
        assert_eq!(file.byte_len().unwrap(), 0);
        file.write_all_at(b"one", 0).unwrap();
        file.write_all_at(b"two", 100_000).unwrap();
        assert!(file.write_all_at(b"x", 1).is_err());
        assert!(file.set_len(5).is_err());
        file.set_len(200_000).unwrap();
        file.sync().unwrap();
        assert!(file.write_all_at(b"x", 200_000).is_err());
        let mut all = vec![1; 200_000];
        let read = File::open(&path).unwrap();
        read.read_exact_at(&mut all, 0).unwrap();
        assert_eq!(
            (&all[..3], &all[100_000..100_003]),
            (&b"one"[..], &b"two"[..])
        );
        assert!(all[3..100_000].iter().all(|byte| *byte == 0));
        assert!(read.write_all_at(b"x", 200_000).is_err());
        file.set_len(0).unwrap();
        file.write_all_at(b"again", 0).unwrap();
        file.sync().unwrap();
        assert_eq!(File::open(&path).unwrap().byte_len().unwrap(), 5);
    }

    #[test]
    fn names_lead_to_hidden_ones_and_back() {
        let (folder, disk, hold) = store();
        let names = [
            "000001-mon.vhddiff",
            "000001-mon.json",
            "000001-mon.vhddiff.new",
            "000002-tue.json.part",
            "000002-tue.vhddiff.damaged.2",
            "newest.windows",
            "deleting.json",
            "lock",
        ];
        for name in names {
            let place = on_disk(&disk.join(name)).into_owned();
            assert_eq!(on_disk(&place), place, "what is hidden isn't hidden again");
            let hidden = place.file_name().unwrap().to_str().unwrap();
            assert_eq!(name_in(&disk, hidden).as_deref(), Some(name));
            assert!(name == "lock" || hidden.ends_with(ENDING), "{hidden}");
            assert!(
                !hidden.contains("mon") && !hidden.contains("tue"),
                "{hidden}"
            );
            assert_eq!(
                hidden[..3],
                place.file_name().unwrap().to_str().unwrap()[..3]
            );
            write(&disk.join(name), name.as_bytes());
        }
        assert_eq!(name_in(&disk, "000001-mon.json"), None);
        assert_eq!(name_in(&disk, "000001-mon.json.age"), None);
        let hidden = on_disk(&disk)
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(name_in(folder.path(), &hidden).as_deref(), Some("web"));
        assert_eq!(name_in(folder.path(), "web"), None);
        assert!(!folder.path().join("web").exists());
        let (one, two) = (disk.join(names[0]), disk.join("000001-wed.vhddiff"));
        rename(&one, &two).unwrap();
        remove(&two).unwrap();
        assert!(!on_disk(&one).exists() && !on_disk(&two).exists());
        // Who doesn't hold the folder changes nothing in it, by either name.
        drop(hold);
        for name in names {
            let path = disk.join(name);
            assert!(refuse_part_of_store(&path).is_err(), "{name}");
            assert!(refuse_part_of_store(&on_disk(&path)).is_err(), "{name}");
        }
        for plain in ["vhdkit-store.json", "vhdkit-store.key.age", ".vhdkit-x.tmp"] {
            let path = folder.path().join(plain);
            assert_eq!(on_disk(&path), path);
        }
        unseal_store(folder.path());
        assert!(!is_sealed(folder.path()));
        assert_eq!(on_disk(&disk), disk);
    }

    #[test]
    fn a_file_without_a_name_is_encrypted_too() {
        let (_folder, disk, _hold) = store();
        let file = spool_beside(&disk.join("000001-a.vhddiff"), Path::new("spooled")).unwrap();
        assert!(file.is_sealed());
        file.write_all_at(b"what is in it", 0).unwrap();
        file.sync().unwrap();
        let mut stored = vec![0; to_usize(file.metadata().unwrap().len())];
        file.as_stored().read_exact_at(&mut stored, 0).unwrap();
        assert!(!stored.windows(4).any(|part| part == b"what"));
        // Also elsewhere, if what is in it comes from there; it is read before it is complete.
        let elsewhere = tempfile::tempdir().unwrap();
        let place = elsewhere.path().join("x");
        let plain = spool_beside(&place, &place).unwrap();
        assert!(!plain.is_sealed());
        let file = plain.sealed_like(&disk.join("000001-a.vhddiff"));
        let all = bytes(2 * CHUNK + 9);
        let mut out = file.appender();
        io::Write::write_all(&mut out, &all).unwrap();
        io::Write::flush(&mut out).unwrap();
        assert_eq!(file.byte_len().unwrap(), all.len() as u64);
        let mut read = vec![0; all.len()];
        file.another_handle().read_exact_at(&mut read, 0).unwrap();
        assert!(read == all);
        let mut stored = [0; 99];
        file.as_stored().read_exact_at(&mut stored, 3).unwrap();
        assert!(stored != all[..99]);
    }
}
