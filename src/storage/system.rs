//! The calls that read and change what is stored: bytes, lengths and names, and the syncs that make them last.
//!
//! All calls that change something are here and nowhere else, so that whoever asks what this program does to a disk
//! has one file to read, and a test has one place to stand: with the feature `fault-injection`, each asks the
//! observer of its `path` first.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::renameat;
use rustix::fs::{
    FallocateFlags, XattrFlags, fallocate, fdatasync, fremovexattr, fsetxattr, ioctl_ficlone,
};
use rustix::io::Errno;
use tempfile::TempPath;

#[cfg(feature = "fault-injection")]
use super::fault::{Call, observed};

/// Makes a call, and in tests asks first.
#[cfg(feature = "fault-injection")]
macro_rules! ask {
    ($path:expr, $call:expr, $act:expr) => {
        observed($path, &$call, || $act, || Some(()))
    };
    ($path:expr, $call:expr, $act:expr, no pretending) => {
        observed($path, &$call, || $act, || None)
    };
}

/// Makes a call.
#[cfg(not(feature = "fault-injection"))]
macro_rules! ask {
    ($path:expr, $call:expr, $act:expr $(, no pretending)?) => {{
        let _ = $path;
        $act
    }};
}

/// Bytes that this process has read of files, and written to them, through the calls here.
static READ: AtomicU64 = AtomicU64::new(0);
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Bytes that this process has read of files so far.
pub fn bytes_read() -> u64 {
    READ.load(Ordering::Relaxed)
}

/// Bytes that this process has written to files so far. A hole that was made counts nothing.
pub fn bytes_written() -> u64 {
    WRITTEN.load(Ordering::Relaxed)
}

fn count(counter: &AtomicU64, len: usize) {
    counter.fetch_add(len as u64, Ordering::Relaxed);
}

/// Fills `buf` from `offset`.
pub(super) fn read_exact_at(
    file: &fs::File,
    path: &Path,
    buf: &mut [u8],
    offset: u64,
) -> io::Result<()> {
    #[cfg(feature = "fault-injection")]
    let len = buf.len();
    ask!(
        path,
        Call::Read { offset, len },
        file.read_exact_at(buf, offset),
        no pretending
    )?;
    count(&READ, buf.len());
    Ok(())
}

/// Reads what there is at `offset`, at most as much as fits.
pub(super) fn read_at(
    file: &fs::File,
    path: &Path,
    buf: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    #[cfg(feature = "fault-injection")]
    let len = buf.len();
    let read = ask!(
        path,
        Call::Read { offset, len },
        file.read_at(buf, offset),
        no pretending
    )?;
    count(&READ, read);
    Ok(read)
}

/// Writes all of `bytes` at `offset`.
pub(super) fn write_all_at(
    file: &fs::File,
    path: &Path,
    bytes: &[u8],
    offset: u64,
) -> io::Result<()> {
    ask!(
        path,
        Call::Write {
            file,
            offset,
            bytes
        },
        file.write_all_at(bytes, offset)
    )?;
    count(&WRITTEN, bytes.len());
    Ok(())
}

/// Cuts or extends a file to `len` bytes.
pub(super) fn set_len(file: &fs::File, path: &Path, len: u64) -> io::Result<()> {
    ask!(path, Call::SetLen { file, len }, file.set_len(len))
}

/// Makes a hole of `range`, which isn't empty, and keeps the length. Not every file system can.
pub(super) fn punch(file: &fs::File, path: &Path, range: Range<u64>) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let (start, len) = (range.start, range.end.saturating_sub(range.start));
    ask!(
        path,
        Call::Punch { file, range },
        Ok(fallocate(file.as_fd(), flags, start, len)?)
    )
}

/// Makes `range`, which isn't empty, read as zeros and keeps its space, and the length. Not every file system can.
pub(super) fn zero(file: &fs::File, path: &Path, range: Range<u64>) -> io::Result<()> {
    let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    let (start, len) = (range.start, range.end.saturating_sub(range.start));
    ask!(
        path,
        Call::Punch { file, range },
        Ok(fallocate(file.as_fd(), flags, start, len)?)
    )
}

/// Reserves the space of `range`, which isn't empty, and keeps the length and what the file reads as.
pub(super) fn allocate(file: &fs::File, path: &Path, range: Range<u64>) -> io::Result<()> {
    let flags = FallocateFlags::KEEP_SIZE;
    let (start, len) = (range.start, range.end.saturating_sub(range.start));
    ask!(
        path,
        Call::Allocate { file },
        Ok(fallocate(file.as_fd(), flags, start, len)?)
    )
}

/// Brings a file's bytes and length to stable storage.
pub(super) fn sync(file: &fs::File, path: &Path) -> io::Result<()> {
    // fsync, not fdatasync: a grown file's new length must be there too.
    ask!(path, Call::Sync { file }, file.sync_all())
}

/// Brings a file's bytes on their way, while more is written; [`sync`] has to follow.
pub(super) fn sync_behind(file: &fs::File, path: &Path) -> io::Result<()> {
    ask!(path, Call::Sync { file }, file.sync_data())
}

/// Makes sure that a later change of a file moves its times: whoever is writing has ended, and what is in memory is on
/// the device, so that a store into a mapping of the file has to ask the file system first. For who reads it, this is
/// part of reading.
pub(super) fn settle(file: &fs::File, path: &Path) -> io::Result<()> {
    ask!(
        path,
        Call::Read { offset: 0, len: 0 },
        {
            // There is no such attribute. To find that out, the system waits for the lock of those who write, whose
            // time is that of their beginning.
            let _ = fremovexattr(file, "user.vhdkit.none");
            match fdatasync(file) {
                // What has nothing in memory that could be written.
                Ok(())
                | Err(Errno::INVAL | Errno::ROFS | Errno::BADF | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
                Err(e) => Err(e.into()),
            }
        },
        no pretending
    )
}

/// Gives a file to another owner and group.
pub(super) fn set_owner(file: &fs::File, path: &Path, user: u32, group: u32) -> io::Result<()> {
    ask!(
        path,
        Call::Attributes { file },
        fchown(file, Some(user), Some(group))
    )
}

/// Sets who may read and write a file.
pub(super) fn set_permissions(
    file: &fs::File,
    path: &Path,
    permissions: fs::Permissions,
) -> io::Result<()> {
    ask!(
        path,
        Call::Attributes { file },
        file.set_permissions(permissions)
    )
}

/// Sets the time of the last change of a file.
pub(super) fn set_modified(
    file: &fs::File,
    path: &Path,
    time: std::time::SystemTime,
) -> io::Result<()> {
    ask!(path, Call::Attributes { file }, file.set_modified(time))
}

/// Sets an extended attribute.
pub(super) fn set_attribute(
    file: &fs::File,
    path: &Path,
    name: &[u8],
    value: &[u8],
) -> io::Result<()> {
    ask!(
        path,
        Call::Attributes { file },
        fsetxattr(file, name, value, XattrFlags::empty()).map_err(io::Error::from)
    )
}

/// Removes an extended attribute.
pub(super) fn remove_attribute(file: &fs::File, path: &Path, name: &[u8]) -> io::Result<()> {
    ask!(
        path,
        Call::Attributes { file },
        fremovexattr(file, name).map_err(io::Error::from)
    )
}

/// Makes an empty file a clone of another.
pub(super) fn clone(to: &fs::File, path: &Path, from: &fs::File) -> io::Result<()> {
    ask!(
        path,
        Call::Clone { file: to, from },
        ioctl_ficlone(to, from).map_err(io::Error::from)
    )
}

/// Creates a file that wasn't there, with what the umask leaves of the permissions `mode`.
pub(super) fn create_new(path: &Path, mode: u32) -> io::Result<fs::File> {
    ask!(
        path,
        Call::Create,
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path),
        no pretending
    )
}

/// Creates a file without a name, which is gone when closed.
pub(super) fn create_nameless(folder: &Path) -> io::Result<fs::File> {
    ask!(
        folder,
        Call::CreateNameless,
        tempfile::tempfile_in(folder),
        no pretending
    )
}

/// Gives the file at `from` the name `to`, and takes that from whatever has it.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    ask!(
        from,
        Call::Rename { to, replaces: true },
        fs::rename(from, to)
    )
}

/// The same for two names in one folder, which was opened before: its path may lead elsewhere by now.
pub(super) fn rename_in(folder: &fs::File, from: &Path, to: &Path) -> io::Result<()> {
    ask!(
        from,
        Call::Rename { to, replaces: true },
        Ok(renameat(folder, name_of(from)?, folder, name_of(to)?)?)
    )
}

/// The last part of a path.
pub(super) fn name_of(path: &Path) -> io::Result<&OsStr> {
    path.file_name()
        .ok_or_else(|| io::ErrorKind::InvalidFilename.into())
}

/// The same, but an error of kind [`AlreadyExists`](io::ErrorKind::AlreadyExists) if the name is taken.
pub(super) fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    ask!(
        from,
        Call::Rename {
            to,
            replaces: false
        },
        TempPath::try_from_path(from)?
            .persist_noclobber(to)
            .map_err(|failed| {
                // Whoever called still owns the file.
                let _ = failed.path.keep();
                failed.error
            })
    )
}

/// Makes a folder, and those above it, with what the umask leaves of the permissions `mode`.
pub(super) fn create_folder(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
}

/// Opens a file to read and write; an empty one is made if there is none.
pub(super) fn open_or_create(path: &Path) -> io::Result<fs::File> {
    let options = || {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true);
        options
    };
    match options().open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => ask!(
            path,
            Call::Create,
            options().create(true).truncate(false).open(path),
            no pretending
        ),
        opened => opened,
    }
}

/// Removes a name.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    ask!(path, Call::Remove, fs::remove_file(path))
}

/// Removes an empty folder.
pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    ask!(path, Call::Remove, fs::remove_dir(path))
}

/// Makes what happened to the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    ask!(
        folder,
        Call::SyncFolder,
        fs::File::open(folder).and_then(|folder| folder.sync_all())
    )
}
