//! The calls that change what is stored: bytes, lengths and names, and the syncs that make them last.
//!
//! All of them are here and nowhere else, so that whoever asks what this program does to a disk has one file to
//! read, and a test has one place to stand.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;

use rustix::fs::{FallocateFlags, XattrFlags, fallocate, fremovexattr, fsetxattr, ioctl_ficlone};
use tempfile::TempPath;

/// Writes all of `buf` at `offset`.
pub(super) fn write_all_at(file: &fs::File, buf: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(buf, offset)
}

/// Cuts or extends a file to `len` bytes.
pub(super) fn set_len(file: &fs::File, len: u64) -> io::Result<()> {
    file.set_len(len)
}

/// Makes a hole of `range`, which isn't empty, and keeps the length. Not every file system can.
pub(super) fn punch(file: &fs::File, range: Range<u64>) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let len = range.end.saturating_sub(range.start);
    Ok(fallocate(file.as_fd(), flags, range.start, len)?)
}

/// Brings a file's bytes and length to stable storage.
pub(super) fn sync(file: &fs::File) -> io::Result<()> {
    // fsync, not fdatasync: a grown file's new length must be there too.
    file.sync_all()
}

/// Brings a file's bytes on their way, while more is written; [`sync`] has to follow.
pub(super) fn sync_behind(file: &fs::File) -> io::Result<()> {
    file.sync_data()
}

/// Gives a file to another owner and group.
pub(super) fn set_owner(file: &fs::File, user: u32, group: u32) -> io::Result<()> {
    fchown(file, Some(user), Some(group))
}

/// Sets who may read and write a file.
pub(super) fn set_permissions(file: &fs::File, permissions: fs::Permissions) -> io::Result<()> {
    file.set_permissions(permissions)
}

/// Sets an extended attribute.
pub(super) fn set_attribute(file: &fs::File, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
    fsetxattr(file, name, value, XattrFlags::empty())
}

/// Removes an extended attribute.
pub(super) fn remove_attribute(file: &fs::File, name: &[u8]) -> rustix::io::Result<()> {
    fremovexattr(file, name)
}

/// Makes an empty file a clone of another.
pub(super) fn clone(to: &fs::File, from: &fs::File) -> rustix::io::Result<()> {
    ioctl_ficlone(to, from)
}

/// Creates a file that wasn't there, with what the umask leaves of the permissions `mode`.
pub(super) fn create_new(path: &Path, mode: u32) -> io::Result<fs::File> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
}

/// Creates a file without a name, which is gone when closed.
pub(super) fn create_nameless(folder: &Path) -> io::Result<fs::File> {
    tempfile::tempfile_in(folder)
}

/// Gives the file at `from` the name `to`, and takes that from whatever has it.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// The same, but an error of kind [`AlreadyExists`](io::ErrorKind::AlreadyExists) if the name is taken.
pub(super) fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    let from = TempPath::try_from_path(from)?;
    from.persist_noclobber(to).map_err(|failed| {
        // Whoever called still owns the file.
        let _ = failed.path.keep();
        failed.error
    })
}

/// Removes a name.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// Makes what happened to the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder).and_then(|folder| folder.sync_all())
}
