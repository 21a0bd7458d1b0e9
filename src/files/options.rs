//! How images and their parents are opened.

use std::path::PathBuf;

use super::{Format, FormatChoice};
use crate::storage::IoPolicy;

/// Options for [opening an image](super::open_image). By default: detect the format, open read-only and with a lock,
/// and fail if an interrupted apply is pending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct OpenOptions {
    /// The format, unless it is to be detected.
    pub format: Option<FormatChoice>,
    /// The name of the option that specifies the format, for hints.
    pub format_option: Option<&'static str>,
    /// Whether to open for writing as well.
    pub writable: bool,
    /// Whether to open without a lock. Otherwise readers share a lock, and a writer holds it exclusively.
    pub no_lock: bool,
    /// Whether to open despite an undo journal next to the image: for the code that works with it.
    pub ignore_journal: bool,
    /// Whether to read as much as possible of damaged VHDs, parents included; not for writing.
    pub salvage: bool,
    /// Where to look for the parents of a differencing VHD.
    pub parents: ParentOptions,
    /// How the image and its parents are read.
    pub io: IoPolicy,
    /// Whether to [settle](crate::storage::File::settle) the image and its parents, so that any later change shows and everything read
    /// belongs to one state: for reading all of an image. Data that other programs have written is synced first.
    pub settle: bool,
}

/// Where to look for parents besides the child's own folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParentOptions {
    /// Images from which each child gets the one with the right unique id.
    pub files: Vec<PathBuf>,
    /// Folders in which to look for the file names by which a child refers to its parent.
    pub folders: Vec<PathBuf>,
    /// Whether a child without a unique id for its parent may use a raw image, which can't be identified.
    pub allow_raw: bool,
    /// Whether to open parents without locks, for code that holds them itself.
    pub no_lock: bool,
    /// Whether to open the child without its parent, to inspect it and the data it stores itself.
    pub leave_out: bool,
}

/// The options for opening the parent of an image that is opened with `options`; a raw parent must be expected.
pub(super) fn parent_options(options: &OpenOptions, raw: bool) -> OpenOptions {
    let format = if raw {
        FormatChoice::Only(Format::Raw)
    } else {
        FormatChoice::AnyVhd
    };
    OpenOptions {
        format: Some(format),
        no_lock: options.parents.no_lock,
        salvage: options.salvage,
        parents: options.parents.clone(),
        io: options.io,
        settle: options.settle,
        ..OpenOptions::default()
    }
}
