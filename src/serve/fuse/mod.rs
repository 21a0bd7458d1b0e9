//! A read-only file system for what is on a [`Shelf`]: the images as files.
//!
//! ```text
//! of an image:  disk.raw  disk.vhd  p1.raw  p2.raw ...
//! of a disk:    SNAPSHOT.raw ...
//! of a store:   DISK/SNAPSHOT.raw ...
//! ```
//!
//! The protocol of the Linux kernel, spoken by hand over `/dev/fuse`: a few fixed structures, in the order of bytes of
//! the machine.

mod content;
mod partitions;
mod session;
mod tree;
mod wire;

pub use partitions::partitions;
pub use session::{Session, SessionOptions};

use super::{Faults, PointEntry, Served, Shelf};
