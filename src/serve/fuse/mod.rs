//! A read-only file system with the images on a [`Shelf`] as files.
//!
//! ```text
//! of an image:  disk.raw  disk.vhd  p1.raw  p2.raw ...
//! of a disk:    SNAPSHOT.raw ...
//! of a store:   DISK/SNAPSHOT.raw ...
//! ```
//!
//! The Linux kernel's protocol is implemented directly on top of `/dev/fuse`: a few fixed structures in the machine's
//! byte order.

mod content;
mod session;
mod tree;
mod wire;

pub use session::{Session, SessionOptions};

use super::{Faults, PointEntry, Served, Shelf};
