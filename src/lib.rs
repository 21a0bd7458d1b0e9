//! VHD files and page-range diffs: a disk is copied once, and from then on only what changed travels.
//!
//! vhdkit reads and writes raw images, fixed and dynamic VHDs, finds the 512-byte pages that differ between two
//! images, carries them in a checked file or pipe, and rebuilds any point in time from a base and its diffs. The
//! commands `vhd`, `vhd-diff` and `vhd-apply` are made of this library.
//!
//! # The main job
//!
//! ```
//! use vhdkit::diff::{BaseCheck, Chain, Compression, DiffFile, DiffOptions, Layers, Side, write_diff};
//! use vhdkit::image::{NothingKnown, RawImage};
//! use vhdkit::parallel::Workers;
//! use vhdkit::progress::Silent;
//! use vhdkit::storage::Memory;
//!
//! # fn main() -> vhdkit::Result<()> {
//! // Two snapshots of a disk; files and VHDs are opened with `files::open_image`.
//! let monday = RawImage::open(Memory::new(vec![0; 1 << 20]))?;
//! let mut changed = vec![0; 1 << 20];
//! changed[4096..8192].fill(7);
//! let tuesday = RawImage::open(Memory::new(changed))?;
//!
//! // What changed, as bytes that could be a file or a pipe.
//! let workers = Workers::new(None)?;
//! let options = DiffOptions {
//!     workers: &workers,
//!     progress: &Silent,
//!     compression: Compression::default(),
//!     digests: true,
//!     equal: &NothingKnown,
//!     confirm: &|| Ok(()),
//! };
//! let written = write_diff(
//!     (&monday, Side::default()),
//!     (&tuesday, Side::default()),
//!     Vec::new(),
//!     "tuesday.vhddiff",
//!     options,
//! )?;
//! assert_eq!(written.comparison.update_bytes, 4096);
//!
//! // Far away: verify the diff, lay it over the base, write the result.
//! let diff = DiffFile::open(Memory::new(written.out), &Silent)?;
//! let chain = Chain::new(vec![diff])?;
//! let mut restored = RawImage::open(Memory::new(vec![0; 1 << 20]))?;
//! let layers = Layers::new(&monday, &chain, &workers, &Silent);
//! let (rebuilt, _) = layers.rebuild(&mut restored, BaseCheck::Full)?;
//! assert_eq!(rebuilt.base_digest, chain.base_digest());
//! assert_eq!(Some(rebuilt.target_digest), chain.target_digest());
//! assert_eq!(restored.storage().to_vec(), tuesday.storage().to_vec());
//! # Ok(())
//! # }
//! ```
//!
//! # Layers
//!
//! A module uses only those above it:
//!
//! ```text
//! text  error  page  progress  parallel
//!                                    what everything is said in, and the one pipeline
//! storage                            bytes at offsets
//! image                              virtual disks, whatever stores them
//! vhd  diff                          the VHD format; comparing, diffs, applying (neither knows the other)
//! files                              images and diffs as files
//! snapshot                           stores of points in time (feature `store`, part of `cli`)
//! cli                                the commands (feature `cli`, on by default)
//! ```
//!
//! # Input that can't be trusted
//!
//! Every image and every diff may be hostile. None can make this crate panic, loop without end, or take memory on
//! its word; [`Error`] says what is wrong with which field at which offset of which file, and what to do.

pub mod diff;
pub mod error;
pub mod files;
pub mod image;
pub mod page;
pub mod parallel;
pub mod progress;
#[cfg(feature = "store")]
pub mod snapshot;
pub mod storage;
pub mod text;
pub mod vhd;

#[cfg(feature = "cli")]
pub mod cli;

pub use error::{Error, ErrorKind, Result};
