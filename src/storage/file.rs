//! Files and block devices of the operating system.

use std::fs::{self, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind as IoKind};
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{OFlags, SeekFrom, fcntl_setfl, seek};

use super::direct::{DirectReads, DirectWrites};
use super::held::Held;
use super::hole_cache::Runs;
use super::lockable::Lockable;
use super::sealed::{Bytes, Sealed, as_io, on_disk};
use super::system::without_umask;
use super::writeback::WriteBehind;
use super::{Caching, IoPolicy, ReadAt, WriteAt, system};
use crate::error::{Error, ErrorKind, Result};
use crate::page::to_usize;

/// Where holes aren't possible, zeros are written in pieces of this many bytes.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// An open file or block device together with its path.
#[derive(Debug)]
pub struct File {
    pub(super) inner: Arc<Lockable>,
    path: PathBuf,
    block_device: bool,
    /// For a part of a device: its length.
    part: Option<u64>,
    policy: IoPolicy,
    runs: Runs,
    direct: Option<Arc<DirectReads>>,
    direct_writes: Option<Arc<DirectWrites>>,
    behind: Option<Arc<WriteBehind>>,
    /// Whether zeroed ranges stay allocated.
    pub(super) keeps_space: bool,
    /// The zeroed ranges that stay allocated until [`give_back`](Self::give_back).
    pub(super) held: Option<Arc<Held>>,
    /// How it is encrypted.
    sealed: Option<Arc<Sealed>>,
}

/// Identity, size and times of a file, by which changes are detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(m: &Metadata) -> Self {
        Self {
            device: m.dev(),
            inode: m.ino(),
            len: m.len(),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
        }
    }
}

impl Stamp {
    /// Length of [`to_bytes`](Self::to_bytes).
    pub const LEN: usize = 48;

    /// Returns inode, length and times as bytes, each number as 8 bytes, big-endian. The device is left out, since its
    /// number may change on a restart.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let numbers = [
            self.inode.to_be_bytes(),
            self.len.to_be_bytes(),
            self.modified.0.to_be_bytes(),
            self.modified.1.to_be_bytes(),
            self.changed.0.to_be_bytes(),
            self.changed.1.to_be_bytes(),
        ];
        for (place, number) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *place = number;
        }
        bytes
    }

    /// Length of the file in bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file is empty.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The inode number.
    pub const fn inode(&self) -> u64 {
        self.inode
    }

    /// The modification time, in seconds and nanoseconds since 1970.
    pub const fn modified(&self) -> (i64, i64) {
        self.modified
    }

    /// The time of the last change of contents or metadata (ctime), which programs can't set.
    pub const fn changed(&self) -> (i64, i64) {
        self.changed
    }

    /// A stamp of which only the identity is known.
    pub(super) const fn identity(device: u64, inode: u64) -> Self {
        Self {
            device,
            inode,
            len: 0,
            modified: (0, 0),
            changed: (0, 0),
        }
    }

    /// Returns whether both stamps are of one file with the same contents, regardless of its names.
    pub fn same_content(&self, other: &Self) -> bool {
        self.same_file(other) && (self.len, self.modified) == (other.len, other.modified)
    }

    /// Returns whether both stamps are of the same file, regardless of its state.
    pub fn same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

fn is_folder(path: &Path) -> Error {
    Error::usage("this is a folder, not a file")
        .with_path(path)
        .with_hint("name a file in it")
}

impl File {
    /// Opens a file for reading.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::with(path.as_ref(), OpenOptions::new().read(true), "cannot open")
    }

    /// Opens a file for reading and writing.
    pub fn open_writable(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if fs::metadata(on_disk(path)).is_ok_and(|m| m.file_type().is_block_device()) {
            // Refuses a device that is mounted or otherwise in use.
            options.custom_flags(OFlags::EXCL.bits().cast_signed());
        }
        Self::with(path, &options, "cannot open for writing").map(Self::sealed_anew)
    }

    /// As [`open_writable`](Self::open_writable), but creates an empty file if there is none.
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = system::open_or_create(&on_disk(path))
            .map_err(|e| Error::io("cannot open", e).with_path(path))?;
        Self::from_std(file, path).map(Self::sealed_anew)
    }

    fn with(path: &Path, options: &OpenOptions, doing: &str) -> Result<Self> {
        let place = on_disk(path);
        let opened = refuse_streams(path).and_then(|()| {
            open_without_waiting(&place, options).map_err(|e| match e.kind() {
                IoKind::ResourceBusy => Error::new(ErrorKind::Locked, "the device is in use")
                    .with_path(path)
                    .with_hint("unmount it and stop any other programs that use it, then run the command again"),
                IoKind::IsADirectory => is_folder(path),
                _ => Error::io(doing, e).with_path(path),
            })
        });
        Self::from_std(opened?, path)
    }

    /// Wraps an open file, called `path` in messages. Refuses pipes, terminals and folders.
    pub fn from_std(file: fs::File, path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let kind = file
            .metadata()
            .map_err(|e| Error::io("cannot look at", e).with_path(&path))?
            .file_type();
        if kind.is_dir() {
            return Err(is_folder(&path));
        }
        if !kind.is_file() && !kind.is_block_device() {
            return Err(not_at_offsets(&path));
        }
        Ok(Self {
            sealed: Sealed::of(&path, false),
            runs: Runs::new(&file),
            inner: Arc::new(Lockable::new(file)),
            path,
            block_device: kind.is_block_device(),
            part: None,
            policy: IoPolicy::default(),
            direct: None,
            direct_writes: None,
            behind: None,
            keeps_space: false,
            held: None,
        })
    }

    /// As it is to be written: encrypted from its first byte on, if the files in its folder are.
    pub(super) fn sealed_anew(self) -> Self {
        let sealed = Sealed::of(&self.path, true);
        Self { sealed, ..self }
    }

    /// A new file to be written as one at `like` would be: encrypted from its first byte on, if that is in an encrypted
    /// store. For files without a name, whose contents come from there.
    #[must_use]
    pub fn sealed_like(self, like: &Path) -> Self {
        let sealed = Sealed::of(like, true);
        Self { sealed, ..self }
    }

    /// The file as it is stored, encrypted or not.
    #[must_use]
    pub fn as_stored(self) -> Self {
        Self {
            sealed: None,
            ..self
        }
    }

    /// Returns whether it is stored encrypted.
    pub fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// The offset from which a file that is the same as another one up to `same` can be written on: an encrypted one is
    /// written from the beginning.
    pub fn goes_on_from(&self, same: u64) -> u64 {
        if self.is_sealed() { 0 } else { same }
    }

    /// Completes what is written, if it is encrypted.
    pub(super) fn end_sealed(&self) -> Result<()> {
        let sealed = self.sealed.as_ref();
        sealed.map_or(Ok(()), |sealed| sealed.end(self))
    }

    /// Sets how the file is read.
    #[must_use]
    pub fn with_policy(mut self, policy: IoPolicy) -> Self {
        self.policy = policy;
        if self.is_sealed() {
            return self;
        }
        let direct = |cold_only| DirectReads::new(&self.inner, cold_only).map(Arc::new);
        self.direct = match policy.caching {
            Caching::Buffered => None,
            Caching::Auto => direct(true),
            Caching::Direct => direct(false),
        };
        self
    }

    /// Another handle to the same open file, with the same lock.
    #[must_use]
    pub fn another_handle(&self) -> Self {
        Self {
            runs: Runs::new(&self.inner),
            inner: Arc::clone(&self.inner),
            path: self.path.clone(),
            block_device: self.block_device,
            part: self.part,
            policy: self.policy,
            direct: self.direct.clone(),
            direct_writes: self.direct_writes.clone(),
            behind: self.behind.clone(),
            keeps_space: self.keeps_space,
            held: self.held.clone(),
            sealed: self.sealed.clone(),
        }
    }

    /// Another handle to the same open device that covers only its first `len` bytes.
    #[must_use]
    pub fn part_of_device(&self, len: u64) -> Self {
        Self {
            part: self.block_device.then_some(len),
            ..self.another_handle()
        }
    }

    /// Starts write-back early, and writes large buffers past the page cache: for new files.
    pub(super) fn write_behind(&mut self) {
        self.direct_writes = DirectWrites::new(&self.inner).map(Arc::new);
        self.behind = WriteBehind::start(&self.inner, &self.path).map(Arc::new);
    }

    /// Returns whether most reads will have to wait for the device, judged by probing the page cache in a few places.
    pub fn is_mostly_cold(&self) -> bool {
        const PLACES: u64 = 16;
        let Some(direct) = &self.direct else {
            return false;
        };
        let len = self.byte_len().unwrap_or(0);
        let places = (0..PLACES).filter_map(|n| {
            let data = self.data_range(len / PLACES * n..len).ok().flatten();
            data.map(|data| data.start)
        });
        let (cold, warm): (Vec<u64>, Vec<u64>) = places.partition(|at| direct.is_cold(*at));
        cold.len() > warm.len()
    }

    /// Makes all writes go through the page cache, by whichever handle.
    pub fn write_through_cache(&self) {
        if let Some(direct) = &self.direct_writes {
            direct.refuse();
        }
    }

    /// The underlying standard library file.
    pub(super) fn as_std(&self) -> &fs::File {
        &self.inner
    }

    /// Writes past the page cache where that is better, else through it.
    pub(super) fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if let Some(sealed) = &self.sealed {
            return sealed.write(self, buf, offset).map_err(as_io);
        }
        if let Some(held) = &self.held {
            held.forget(&(offset..offset.saturating_add(buf.len() as u64)));
        }
        let direct = self.direct_writes.as_ref();
        let done = direct.map_or(Ok(0), |direct| direct.write(&self.path, buf, offset))?;
        let rest = buf.get(done..).ok_or(io::ErrorKind::WriteZero)?;
        if rest.is_empty() && done > 0 {
            return Ok(());
        }
        self.write_through(rest, offset.saturating_add(done as u64))
    }

    /// Writes through the page cache.
    pub(super) fn write_through(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if let Some(sealed) = &self.sealed {
            return sealed.write(self, buf, offset).map_err(as_io);
        }
        Bytes::write_stored(self, buf, offset)
    }

    /// The path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether this is a block device, which has a fixed length and can't be replaced by renaming.
    pub fn is_block_device(&self) -> bool {
        self.block_device
    }

    /// Returns the current identity, size and times.
    pub fn stamp(&self) -> Result<Stamp> {
        Ok(Stamp::from(&self.metadata()?))
    }

    /// Fails with [`Changed`](ErrorKind::Changed) if the file no longer has the state of `stamp`.
    pub fn check_unchanged(&self, stamp: &Stamp) -> Result<()> {
        if self.stamp()? == *stamp {
            return Ok(());
        }
        Err(self.changed())
    }

    /// As [`check_unchanged`](Self::check_unchanged), for a file that may have been renamed, replaced or removed since:
    /// only the contents of the opened file must be the same.
    pub fn check_content_unchanged(&self, stamp: &Stamp) -> Result<()> {
        let now = self.stamp()?;
        // Renaming or removing the file moves its ctime, which would otherwise reveal changes that don't show in the
        // mtime.
        if now == *stamp || (now.same_content(stamp) && !self.is_at_its_path()?) {
            return Ok(());
        }
        Err(self.changed())
    }

    /// The error for a file that changes while it is being read.
    pub(super) fn changed(&self) -> Error {
        Error::new(
            ErrorKind::Changed,
            "the file was changed by another program while it was being read",
        )
        .with_path(&self.path)
        .with_hint("stop what writes to it, or take a snapshot of it, and run the command again")
    }

    /// Returns owner, permissions and other metadata.
    pub fn metadata(&self) -> Result<Metadata> {
        self.inner
            .metadata()
            .map_err(|e| Error::io("cannot look at", e).with_path(&self.path))
    }

    /// Sets the permissions of this file to those of `other`, which it is about to replace.
    pub fn take_permissions_of(&self, other: &Self) -> Result<()> {
        self.take_owner_of(other)?;
        system::set_permissions(&self.inner, &self.path, other.metadata()?.permissions())
            .map_err(|e| Error::io("cannot set the permissions of", e).with_path(&self.path))
    }

    /// Removes the permissions that the umask takes from new files.
    pub fn apply_umask(&self) -> Result<()> {
        let found = self.metadata()?.mode() & 0o7777;
        let mode = without_umask(found);
        if mode == found {
            return Ok(());
        }
        system::set_permissions(&self.inner, &self.path, Permissions::from_mode(mode))
            .map_err(|e| Error::io("cannot set the permissions of", e).with_path(&self.path))
    }

    /// Gives this file the owner and group of `other`, as far as that is allowed: only the superuser may give files
    /// away.
    pub(super) fn take_owner_of(&self, other: &Self) -> Result<()> {
        let (theirs, ours) = (other.metadata()?, self.metadata()?);
        if (ours.uid(), ours.gid()) != (theirs.uid(), theirs.gid()) {
            let _ = system::set_owner(&self.inner, &self.path, theirs.uid(), theirs.gid());
        }
        Ok(())
    }

    /// Writes zeros, without making a hole.
    pub(super) fn write_zeros_in(&self, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let piece = to_usize(range.end - at).min(ZEROS.len());
            self.write_all_at(&ZEROS[..piece], at)?;
            at += piece as u64;
        }
        Ok(())
    }

    fn failed(&self, doing: &str, offset: u64, error: impl Into<io::Error>) -> Error {
        Error::io(doing, error.into())
            .with_path(&self.path)
            .with_offset(offset)
    }
}

/// Opens a file or a block device without ever blocking: if a pipe replaces the file meanwhile, nobody may ever open
/// its other end.
fn open_without_waiting(path: &Path, options: &OpenOptions) -> io::Result<fs::File> {
    let kind = fs::metadata(path).map(|found| found.file_type());
    if kind.as_ref().is_ok_and(FileTypeExt::is_block_device) {
        return options.open(path);
    }
    let mut at_once = options.clone();
    at_once.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    match at_once.open(path) {
        // Another program holds a lease on the file, which the kernel asks it to release.
        Err(e) if e.kind() == IoKind::WouldBlock && kind.is_ok_and(|kind| kind.is_file()) => {
            options.open(path)
        }
        Ok(file) => {
            fcntl_setfl(&file, OFlags::empty())?;
            Ok(file)
        }
        Err(e) => Err(e),
    }
}

/// Fails, without opening it, if `path` can't be read at offsets.
fn refuse_streams(path: &Path) -> Result<()> {
    let is_stream =
        |kind: fs::FileType| kind.is_fifo() || kind.is_socket() || kind.is_char_device();
    if fs::metadata(on_disk(path)).is_ok_and(|found| is_stream(found.file_type())) {
        return Err(not_at_offsets(path));
    }
    Ok(())
}

fn not_at_offsets(path: &Path) -> Error {
    Error::usage("this can't be read at offsets: it is a pipe, a socket or a character device")
        .with_path(path)
        .with_hint("copy it into a file first")
}

impl Bytes for File {
    fn path(&self) -> &Path {
        &self.path
    }

    fn stored_len(&self) -> Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_stored(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        system::read_exact_at(&self.inner, &self.path, buf, offset)
    }

    fn write_stored(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        system::write_all_at(&self.inner, &self.path, buf, offset)?;
        if let Some(behind) = &self.behind {
            behind.wrote(buf.len() as u64);
        }
        Ok(())
    }

    fn set_stored_len(&self, len: u64) -> io::Result<()> {
        system::set_len(&self.inner, &self.path, len)
    }
}

impl ReadAt for File {
    fn name(&self) -> &Path {
        &self.path
    }

    fn byte_len(&self) -> Result<u64> {
        if self.block_device {
            // The metadata of a device has no length; seeking returns it. Reads are positioned, so the file position
            // doesn't matter.
            let len = seek(self.as_std(), SeekFrom::End(0))
                .map_err(|e| self.failed("cannot find the length of", 0, e))?;
            return Ok(self.part.map_or(len, |part| part.min(len)));
        }
        if let Some(sealed) = &self.sealed {
            return sealed.len(self);
        }
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if let Some(sealed) = &self.sealed {
            return sealed.read(self, buf, offset);
        }
        if self
            .direct
            .as_ref()
            .is_some_and(|direct| direct.read(buf, offset))
        {
            return Ok(());
        }
        system::read_exact_at(&self.inner, &self.path, buf, offset).map_err(|e| {
            if e.kind() == IoKind::UnexpectedEof {
                let len = self.byte_len().unwrap_or(0);
                return Error::damaged("the file is too short")
                    .with_path(&self.path)
                    .with_offset(offset)
                    .with_found(format_args!("{len} bytes"))
                    .with_expected(format_args!("at least {} bytes", offset.saturating_add(buf.len() as u64)))
                    .with_hint("the file was truncated or is still being copied: copy it again from its source");
            }
            self.failed("cannot read", offset, e)
                .with_hint("the device may be failing: copy what can be read to another one, and check its log")
        })
    }

    fn data_range(&self, within: Range<u64>) -> Result<Option<Range<u64>>> {
        if within.is_empty() {
            return Ok(None);
        }
        if self.policy.ignore_holes || self.is_sealed() {
            return Ok(Some(within));
        }
        self.runs
            .first_within(&self.inner, &within)
            .map_err(|e| self.failed("cannot find the data in", within.start, e))
    }
}

impl WriteAt for File {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        if let Some(sealed) = &self.sealed {
            return sealed.write(self, buf, offset);
        }
        self.write_at(buf, offset)
            .map_err(|e| self.failed("cannot write", offset, e))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        if self.block_device {
            let have = self.byte_len()?;
            if len <= have {
                return Ok(());
            }
            return Err(Error::new(ErrorKind::Io, "the device is too small")
                .with_path(&self.path)
                .with_found(format_args!("{have} bytes"))
                .with_expected(format_args!("at least {len} bytes"))
                .with_hint("use a larger device"));
        }
        if let Some(sealed) = &self.sealed {
            return sealed.set_len(self, len);
        }
        Bytes::set_stored_len(self, len)
            .map_err(|e| self.failed("cannot set the length of", len, e))
    }

    fn write_zeros_at(&self, range: Range<u64>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        if let (Some(held), false) = (&self.held, self.keeps_space) {
            return self.zero_held(held, range);
        }
        if self.is_sealed() {
            return self.write_zeros_in(range);
        }
        let made = if self.keeps_space {
            system::zero(&self.inner, &self.path, range.clone())
        } else {
            system::punch(&self.inner, &self.path, range.clone())
        };
        if made.is_ok() {
            return Ok(());
        }
        self.write_zeros_in(range)
    }

    fn sync(&self) -> Result<()> {
        self.end_sealed()?;
        let behind = self
            .behind
            .as_ref()
            .map_or(Ok(()), |behind| behind.finish());
        behind.and_then(|()| system::sync(&self.inner, &self.path)).map_err(|e| {
            Error::io("cannot bring to stable storage", e)
                .with_path(&self.path)
                .with_hint("what was just written may be lost: check the device and its log before trying again")
        })
    }
}
