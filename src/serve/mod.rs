//! Images and points in time for other programs, without restoring them first: [`nbd`] over a socket, and files through
//! FUSE ([`fuse`]); and the interface of a cloud on a folder of this machine (`azure`).
//!
//! ```text
//! shelf     what is served, by name: an image, a point in time, the snapshots of a disk or of a store
//! faults    what couldn't be read: told once, and remembered for the end
//! nbd       a server of the NBD protocol, read-only
//! fuse      a read-only file system
//! azure     page blobs and managed disks as the cloud serves them, on stores
//! ```
//!
//! Everything that comes from a client is validated first; nothing that a client of the first two sends makes a server
//! change a file.

#[cfg(feature = "endpoint")]
pub mod azure;
mod faults;
pub mod fuse;
pub mod nbd;
mod shelf;

pub use faults::{Faults, Told};
pub use shelf::{PointEntry, Served, Shelf};
