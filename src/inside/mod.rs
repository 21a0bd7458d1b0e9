//! The contents of disks: partitions, file systems, and the files that own changed bytes.
//!
//! Everything is read through an [`Image`](crate::image::Image), so a point in time of a store works like a file.
//! Nothing is mounted, and nothing is written. Metadata of a file system is trusted only as far as it is consistent: a
//! wrong number is an error for whatever needed it, and the rest is still read.
//!
//! Unknown structures are reported as not read, never guessed.

mod changed;
mod changes;
mod ext;
mod fat;
mod files;
mod model;
mod ntfs;
mod partitions;
mod ranges;
mod read;
mod tar;
mod walk;

pub use changed::{FileChange, FileChangeKind};
pub use changes::{Area, FileChanges, PartitionChanges, file_changes};
pub use files::{Contents, Files, contents};
pub use model::{Entry, Node, NodeId, NodeKind, Run, Stored};
pub use partitions::{Partition, PartitionTable, partitions};
pub use ranges::ChangedBytes;
pub use tar::{TarSummary, tar};
