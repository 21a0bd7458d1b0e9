//! VHD files and page-range diffs: copy a disk once; after that, send only what changed.
//!
//! vhdkit reads and writes raw images and fixed, dynamic and differencing VHDs, finds the 512-byte pages that differ between two
//! images, writes them to a checksummed file or pipe, and rebuilds any point in time from a base and its diffs. The
//! commands `vhd`, `vhd-diff` and `vhd-apply` are built on this library.
//!
//! # The main job
//!
//! ```no_run
//! # fn main() -> vhdkit::Result<()> {
//! let (monday, tuesday) = (vhdkit::open("monday.vhd")?, vhdkit::open("tuesday.vhd")?);
//! vhdkit::diff(&*monday, &*tuesday).write("tuesday.vhddiff")?;
//!
//! // Where there is a copy of Monday's image: all is checked before anything is written.
//! vhdkit::apply("copy.vhd").diff("tuesday.vhddiff").in_place()?;
//! # Ok(())
//! # }
//! ```
//!
//! `docs/library.md` has complete examples: a store in a backup tool, and a file read from a partition of a point in
//! time.
//!
//! # Layers
//!
//! A module uses only the ones above it:
//!
//! ```text
//! text  remedy  error  page  progress  parallel
//!                                    texts, errors, ranges, progress, and the one pipeline
//! storage                            bytes at offsets
//! age                                the age format, for encrypted stores (feature `store`)
//! image                              virtual disks, independent of how they are stored
//! vhd  diff                          the VHD format; comparing, diffs, applying (neither knows the other)
//! inside                             partitions and file systems of a virtual disk
//! blob                               page blobs of a storage service (feature `azure`, part of `cli`)
//! cloud                              managed disks and snapshots, by the resource manager (feature `azure`)
//! files                              images and diffs as files
//! snapshot                           stores of points in time (feature `store`, part of `cli`)
//! serve                              points in time for other programs (feature `store`), the cloud's interface on a
//!                                    folder (feature `endpoint`, part of `cli`)
//! api                                the high-level interface: the main jobs with defaults
//! cli                                the commands (feature `cli`, on by default)
//! ```
//!
//! # Untrusted input
//!
//! Every image and every diff may be hostile. None can make this crate panic, loop forever, or allocate memory based on
//! an unchecked field. An [`Error`] contains the field, the offset and the file, and what to do.
//!
//! # As a dependency
//!
//! Libraries want `default-features = false`, with `features = ["store"]` for points in time; the default feature `cli`
//! is for the programs. The crate follows semantic versioning: until 1.0, only a new minor version may change the
//! interface incompatibly or raise the minimum Rust version, which is 1.89. Unix only; only Linux is tested.

#[cfg(feature = "store")]
pub mod age;
pub mod api;
#[cfg(feature = "azure")]
pub mod blob;
#[cfg(feature = "azure")]
pub mod cloud;
pub mod diff;
pub mod error;
pub mod files;
pub mod image;
pub mod inside;
pub mod page;
pub mod parallel;
pub mod progress;
pub mod remedy;
#[cfg(feature = "store")]
pub mod serve;
#[cfg(feature = "store")]
pub mod snapshot;
pub mod storage;
pub mod text;
pub mod vhd;

#[cfg(feature = "cli")]
pub mod cli;

#[cfg(feature = "store")]
pub use api::Store;
pub use api::{Apply, Diff, Opener};
pub use error::{Error, ErrorKind, Result};

/// Opens an image by name, for reading: a file, a block device, or `STORE::DISK@SNAPSHOT`. See [`Opener`] for options.
pub fn open(name: impl AsRef<std::path::Path>) -> Result<Box<dyn files::Opened>> {
    Opener::new().open(name)
}

/// Compares two images, and lists the changes or writes them as a diff.
pub fn diff<'a>(base: &'a dyn files::Opened, target: &'a dyn files::Opened) -> Diff<'a> {
    Diff::new(base, target)
}

/// Applies diffs to the image called `base`, in place or to a new image.
pub fn apply<'a>(base: impl Into<std::path::PathBuf>) -> Apply<'a> {
    Apply::new(base)
}

/// The examples in `docs/library.md`, compiled and run with the tests.
#[cfg(all(doctest, feature = "store"))]
#[doc = include_str!("../docs/library.md")]
struct LibraryExamples;
