//! The calls that read and change files: bytes, lengths and names, and the syncs that make changes durable.
//!
//! All calls that change something are in this file, so that there is one place to audit and one place for tests to
//! intercept: with the feature `fault-injection`, each call asks the observer of its `path` first.

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
    FallocateFlags, OFlags, XattrFlags, fallocate, fdatasync, fremovexattr, fsetxattr,
    ioctl_ficlone,
};
use rustix::io::Errno;
use tempfile::TempPath;

#[cfg(feature = "fault-injection")]
use super::fault::{Call, observed};

/// Makes a call after asking the observer.
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

/// Bytes that this process has read from files, and written to them, through the functions here.
static READ: AtomicU64 = AtomicU64::new(0);
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Returns the number of bytes that this process has read from files so far.
pub fn bytes_read() -> u64 {
    READ.load(Ordering::Relaxed)
}

/// Returns the number of bytes that this process has written to files so far. Holes don't count.
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

/// Reads as much as there is at `offset`, at most a full buffer.
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

/// Truncates or extends a file to `len` bytes.
pub(super) fn set_len(file: &fs::File, path: &Path, len: u64) -> io::Result<()> {
    ask!(path, Call::SetLen { file, len }, file.set_len(len))
}

/// Punches a hole at `range`, which isn't empty; the length doesn't change. Not every file system supports it.
pub(super) fn punch(file: &fs::File, path: &Path, range: Range<u64>) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let (start, len) = (range.start, range.end.saturating_sub(range.start));
    ask!(
        path,
        Call::Punch { file, range },
        Ok(fallocate(file.as_fd(), flags, start, len)?)
    )
}

/// Zeroes `range`, which isn't empty, and keeps it allocated; the length doesn't change. Not every file system supports
/// it.
pub(super) fn zero(file: &fs::File, path: &Path, range: Range<u64>) -> io::Result<()> {
    let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    let (start, len) = (range.start, range.end.saturating_sub(range.start));
    ask!(
        path,
        Call::Punch { file, range },
        Ok(fallocate(file.as_fd(), flags, start, len)?)
    )
}

/// Reserves space for `range`, which isn't empty; length and contents don't change.
pub(super) fn allocate(file: &fs::File, path: &Path, range: Range<u64>) -> io::Result<()> {
    let flags = FallocateFlags::KEEP_SIZE;
    let (start, len) = (range.start, range.end.saturating_sub(range.start));
    ask!(
        path,
        Call::Allocate { file },
        Ok(fallocate(file.as_fd(), flags, start, len)?)
    )
}

/// Syncs a file's bytes and length.
pub(super) fn sync(file: &fs::File, path: &Path) -> io::Result<()> {
    // fsync, not fdatasync: the new length of an extended file must be durable too.
    ask!(path, Call::Sync { file }, file.sync_all())
}

/// Starts writing a file's bytes back while more are being written. [`sync`] has to follow.
pub(super) fn sync_behind(file: &fs::File, path: &Path) -> io::Result<()> {
    ask!(path, Call::Sync { file }, file.sync_data())
}

/// Makes sure that a later change of a file moves its times: pending writers have finished, and dirty pages are on the
/// device, so that a store into a mapping of the file faults into the file system first. From a reader's point of view,
/// this is part of reading.
pub(super) fn settle(file: &fs::File, path: &Path) -> io::Result<()> {
    ask!(
        path,
        Call::Read { offset: 0, len: 0 },
        {
            // The attribute doesn't exist. To find that out, the kernel waits for the inode lock, which a writer holds
            // whose times are those of its beginning.
            let _ = fremovexattr(file, "user.vhdkit.none");
            match fdatasync(file) {
                // A kind of file that has nothing to write back.
                Ok(())
                | Err(Errno::INVAL | Errno::ROFS | Errno::BADF | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
                Err(e) => Err(e.into()),
            }
        },
        no pretending
    )
}

/// Changes a file's owner and group.
pub(super) fn set_owner(file: &fs::File, path: &Path, user: u32, group: u32) -> io::Result<()> {
    ask!(
        path,
        Call::Attributes { file },
        fchown(file, Some(user), Some(group))
    )
}

/// Sets a file's permissions.
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

/// Sets a file's modification time.
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

/// Creates a file that doesn't exist yet, with the permissions `mode` minus the umask.
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

/// Creates a file without a name, which disappears when it is closed.
pub(super) fn create_nameless(folder: &Path) -> io::Result<fs::File> {
    ask!(
        folder,
        Call::CreateNameless,
        tempfile::tempfile_in(folder),
        no pretending
    )
}

/// Renames a file, replacing any file at `to`.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    ask!(
        from,
        Call::Rename { to, replaces: true },
        fs::rename(from, to)
    )
}

/// As [`rename`], within a folder that was opened before: its path may lead elsewhere by now.
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

/// As [`rename`], but fails with [`AlreadyExists`](io::ErrorKind::AlreadyExists) if `to` exists.
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
                // The caller still owns the file.
                let _ = failed.path.keep();
                failed.error
            })
    )
}

/// Creates a folder and its parents with the permissions `mode` minus the umask.
pub(super) fn create_folder(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
}

/// Opens a file for reading and writing, and creates an empty one if there is none.
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

/// Opens a file for reading and writing, and creates an empty one that nobody else can open if there is none. A symbolic
/// link isn't followed, and nothing is waited for.
pub(super) fn open_or_create_private(path: &Path) -> io::Result<fs::File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options.custom_flags(flags.bits().cast_signed());
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => ask!(
            path,
            Call::Create,
            options.create(true).truncate(false).open(path),
            no pretending
        ),
        opened => opened,
    }
}

/// Removes a file name.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    ask!(path, Call::Remove, fs::remove_file(path))
}

/// Removes an empty folder.
pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    ask!(path, Call::Remove, fs::remove_dir(path))
}

/// Syncs a folder, which makes changes to the names in it durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    ask!(
        folder,
        Call::SyncFolder,
        fs::File::open(folder).and_then(|folder| folder.sync_all())
    )
}

/// Applies the umask to `mode`. If the umask can't be determined, nobody else gets access.
pub(super) fn without_umask(mode: u32) -> u32 {
    // Reading the umask with `umask(2)` would set it, for all threads.
    let status = fs::read_to_string("/proc/self/status").ok();
    let line = status
        .as_deref()
        .and_then(|status| status.lines().find_map(|line| line.strip_prefix("Umask:")));
    let umask = line.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok());
    mode & !umask.unwrap_or(0o77)
}
