//! Bytes at offsets: where images and diffs are stored.
//!
//! [`ReadAt`] and [`WriteAt`] are all that the formats know of the outside world. [`File`] is a file or block device of
//! the operating system, and [`Memory`] a byte vector with the same behaviour. [`AtomicFile`] creates new files that
//! appear complete or not at all. Nothing outside of this module changes a file system.

use std::ops::Range;
use std::path::Path;

use crate::error::Result;
use crate::parallel::IoHints;

mod atomic;
mod attributes;
mod audience;
mod clone;
mod dense;
mod direct;
mod directory;
#[cfg(feature = "fault-injection")]
pub mod fault;
mod file;
mod free;
mod handles;
mod held;
mod holding;
mod hole_cache;
mod kept;
mod limits;
mod lockable;
mod locks;
mod memory;
mod mounts;
mod moves;
mod paths;
mod physical;
mod policy;
mod sealed;
mod space;
mod stale;
mod stored;
mod stored_names;
mod stream;
mod system;
mod temporary;
mod times;
mod writeback;

pub use atomic::{AtomicFile, spool_beside};
pub use audience::{Audience, own_user};
pub use directory::{
    check_unchanged_at, create_folder, create_folder_for, is_endless_link, remove, remove_folder,
    remove_if_there, sync_folder_of,
};
pub use file::{File, Stamp};
pub use free::free_name;
pub use handles::{Handles, PooledFile, allow_many_files, room_for_files};
pub use holding::{clear_holder, host_name, is_running_here, read_holder, write_holder};
pub use kept::open_kept;
pub use locks::{Access, FolderLock};
pub use memory::Memory;
pub use mounts::{
    FuseDevice, Mounted, is_dead_mount, mount_place, mounted_at, own_ids, unmount_at,
};
pub use moves::rename;
pub use paths::beside;
pub use physical::{FileSystemId, PhysicalExtent, SharedPhysical};
pub use policy::{Caching, IoPolicy, Overwrite};
pub use sealed::{ChunkSeal, Seal, is_sealed, name_in, on_disk, seal_store, unseal_store};
pub use stale::remove_leftovers;
pub use stored::{StoreFolder, is_beside_stored, refuse_part_of_store};
pub use stored_names::{DAMAGED, NEW, ONCE, PART, split_stored_name};
pub use stream::{Appender, Reader};
pub use system::{bytes_read, bytes_written};
pub use temporary::remove_all as remove_temporary_files;

/// Reads bytes at offsets. Methods may be called from many threads at once; errors name the file and the offset.
pub trait ReadAt: Send + Sync {
    /// The name of this storage in messages: the path of a file.
    fn name(&self) -> &Path;

    /// Returns the current length in bytes.
    fn byte_len(&self) -> Result<u64>;

    /// Fills `buf` from `offset`. Fails with [`Damaged`](crate::error::ErrorKind::Damaged) if the storage ends within
    /// `buf`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Returns the first run within `within` that holds stored bytes, or `None` if all of it is a hole and reads as
    /// zeros. Returning all of `within` is always correct.
    fn data_range(&self, within: Range<u64>) -> Result<Option<Range<u64>>> {
        Ok((!within.is_empty()).then_some(within))
    }

    /// Hints for efficient reading.
    fn io(&self) -> IoHints {
        IoHints::LOCAL
    }
}

/// Writes bytes at offsets.
pub trait WriteAt: ReadAt {
    /// Writes all of `buf` at `offset`, extending the storage if necessary.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()>;

    /// Truncates the storage, or extends it with zeros, to `len` bytes.
    fn set_len(&self, len: u64) -> Result<()>;

    /// Makes `range`, which lies within the storage, read as zeros: as a hole where possible, else by writing zeros.
    fn write_zeros_at(&self, range: Range<u64>) -> Result<()>;

    /// Returns when everything written so far has reached stable storage. A failure is final: what was written since
    /// the last success may be lost, and a second call proves nothing.
    fn sync(&self) -> Result<()>;
}

impl<S: ReadAt + ?Sized> ReadAt for &S {
    fn name(&self) -> &Path {
        (**self).name()
    }

    fn byte_len(&self) -> Result<u64> {
        (**self).byte_len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        (**self).read_exact_at(buf, offset)
    }

    fn data_range(&self, within: Range<u64>) -> Result<Option<Range<u64>>> {
        (**self).data_range(within)
    }

    fn io(&self) -> IoHints {
        (**self).io()
    }
}

impl<S: WriteAt + ?Sized> WriteAt for &S {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        (**self).write_all_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        (**self).set_len(len)
    }

    fn write_zeros_at(&self, range: Range<u64>) -> Result<()> {
        (**self).write_zeros_at(range)
    }

    fn sync(&self) -> Result<()> {
        (**self).sync()
    }
}
