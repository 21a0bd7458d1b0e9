//! VHD files and page-range diffs: a disk is copied once, and from then on only what changed travels.

pub mod diff;
pub mod error;
pub mod files;
pub mod image;
pub mod page;
pub mod parallel;
pub mod progress;
pub mod storage;
pub mod vhd;

#[cfg(feature = "cli")]
pub mod cli;

pub use error::{Error, ErrorKind, Result};
