//! Inside of disks: partitions, file systems, and the files that own changed bytes.
//!
//! Everything is read through an [`Image`](crate::image::Image), so a point in time of a store works as a file does. Nothing is mounted, and
//! nothing is written. What a file system says about itself is believed only as far as it fits: a wrong number is an
//! error for what needed it, and the rest is still read.
//!
//! What isn't known is said to be not read, and never guessed.

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
