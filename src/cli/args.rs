//! Options that commands share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{ArgAction, ValueEnum, value_parser};

use super::size::Size;
use crate::error::{Error, Result};
use crate::files::{ChildOf, Format, OpenImage, Orphans, ParentOptions, Strategy, WindowsFolder};
use crate::storage::{Caching, Overwrite};
use crate::vhd::MAX_DYNAMIC_SIZE;

/// The lines about exit codes at the end of every help text.
macro_rules! exit_codes {
    () => {
        "Exit codes:\n  \
           0    done; or: the same\n  \
           1    the answer is no: images differ, faults were found\n  \
           2    usage or I/O trouble\n  \
           3    the input is damaged, or of a kind that is not read\n  \
           4    the diff does not fit this base\n  \
           5    locked, or an interrupted apply is in the way\n  \
           130  interrupted (143 terminated, 129 hung up)"
    };
}
pub(super) use exit_codes;

// Options of every command. (A comment for the documentation would become the description of each program.)
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Common options")]
pub(super) struct Common {
    /// Threads that read, compare, hash and pack [default: one per processor; two for images that mostly aren't in the
    /// page cache].
    #[arg(long, global = true, value_name = "N", value_parser = value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// When to show progress on stderr; `auto` is: when stderr is a terminal.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub progress: When,
    /// Where the undo journals of block devices are, the same for every command; without it, what the environment
    /// has in `VHDKIT_STATE_DIR`, else /var/lib/vhdkit.
    #[arg(long, global = true, value_name = "DIR")]
    pub journal_dir: Option<PathBuf>,
    /// Print nothing when all is well, but warnings and errors.
    #[arg(short, long, global = true, action = ArgAction::SetTrue, overrides_with = "quiet")]
    pub quiet: bool,
    /// Report details on stderr, and how long it took.
    #[arg(short, long, global = true, action = ArgAction::SetTrue, conflicts_with = "quiet", overrides_with = "verbose")]
    pub verbose: bool,
}

/// When something is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum When {
    Auto,
    Always,
    Never,
}

// Where the parents of differencing VHDs are, for every command that reads images.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Parents of differencing VHDs")]
pub(super) struct Parents {
    /// The parent, or one more image of a longer chain; without it, a parent is looked for only in the folder of its
    /// child and below.
    #[arg(long = "parent", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Look for parents in this folder too, by their file names.
    #[arg(long = "parent-path", value_name = "DIR")]
    pub folders: Vec<PathBuf>,
    /// Read a child that names no unique id over a raw image: nothing tells if it is the right one.
    #[arg(long)]
    pub raw_parent: bool,
}

impl Parents {
    pub(super) fn options(&self) -> ParentOptions {
        ParentOptions {
            files: self.files.clone(),
            folders: self.folders.clone(),
            allow_raw: self.raw_parent,
            no_lock: false,
            leave_out: false,
        }
    }
}

/// The format of an image to read, as `-f` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum InputFormat {
    /// The bytes of the file are the virtual disk.
    Raw,
    /// A VHD of any type.
    #[value(alias = "vpc")]
    Vhd,
    /// A fixed VHD.
    Fixed,
    /// A dynamic VHD.
    Dynamic,
    /// A differencing VHD.
    Differencing,
}

impl From<InputFormat> for crate::files::FormatChoice {
    fn from(format: InputFormat) -> Self {
        match format {
            InputFormat::Raw => Self::Only(Format::Raw),
            InputFormat::Vhd => Self::AnyVhd,
            InputFormat::Fixed => Self::Only(Format::Fixed),
            InputFormat::Dynamic => Self::Only(Format::Dynamic),
            InputFormat::Differencing => Self::Only(Format::Differencing),
        }
    }
}

/// The format of an image to read, as the user said it or not, and the option to say it by.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SaidFormat {
    pub(super) option: Option<&'static str>,
    pub(super) format: Option<InputFormat>,
}

impl SaidFormat {
    /// What the user gave by `option`, if anything.
    pub(super) const fn by(option: &'static str, format: Option<InputFormat>) -> Self {
        Self {
            option: Some(option),
            format,
        }
    }

    /// There is no option for it.
    pub(super) const NEVER: Self = Self {
        option: None,
        format: None,
    };
}

/// How images are read and written, as `--io` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Io {
    /// Directly from the device what the page cache doesn't have, and directly to it what is written in large pieces;
    /// neither is left in the cache.
    Auto,
    /// Through the page cache.
    Buffered,
    /// Directly from the device and to it, whatever the page cache has, where both can.
    Direct,
}

impl From<Io> for Caching {
    fn from(io: Io) -> Self {
        match io {
            Io::Auto => Self::Auto,
            Io::Buffered => Self::Buffered,
            Io::Direct => Self::Direct,
        }
    }
}

/// The format of an image to write, as `-O` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// The bytes of the file are the virtual disk.
    Raw,
    /// A VHD that stores the whole disk, with a footer behind it.
    Fixed,
    /// A VHD that stores only the blocks that were written; vhd and vpc are the same.
    #[value(aliases = ["vhd", "vpc"])]
    Dynamic,
    /// A VHD that stores only what differs from another image, its parent.
    Differencing,
}

impl From<OutputFormat> for Format {
    fn from(format: OutputFormat) -> Self {
        match format {
            OutputFormat::Raw => Self::Raw,
            OutputFormat::Fixed => Self::Fixed,
            OutputFormat::Dynamic => Self::Dynamic,
            OutputFormat::Differencing => Self::Differencing,
        }
    }
}

/// How an image is changed in place, as `--in-place` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum InPlaceWay {
    /// On a clone where the file system can make one and nothing of the file is lost, else by the undo journal.
    Auto,
    /// Change a clone of the base, which then takes its place.
    Clone,
    /// Write the base itself, with an undo journal beside it.
    Journal,
    /// Change a full copy of the base, which then takes its place.
    Copy,
}

impl InPlaceWay {
    pub(super) fn strategy(self) -> Option<Strategy> {
        match self {
            Self::Auto => None,
            Self::Clone => Some(Strategy::Clone),
            Self::Journal => Some(Strategy::Journal),
            Self::Copy => Some(Strategy::Copy),
        }
    }
}

/// Bytes in a mebibyte.
pub(super) const MEBIBYTE: u64 = 1 << 20;

/// The format that the name of a new image stands for.
pub(super) fn default_format(path: &Path) -> Result<Format> {
    Format::by_name(path).map_err(|error| {
        error.with_hint(
            "name it .vhd for a VHD or .raw for a raw disk, or choose its format with -O",
        )
    })
}

/// An error if the child that is to be made at `path` would have the name of something else.
pub(super) fn check_name_of_child(path: &Path) -> Result<()> {
    if default_format(path)? != Format::Raw || path.extension().is_none() {
        return Ok(());
    }
    Err(
        Error::usage("a child is a VHD, and this is not the name of one")
            .with_path(path)
            .with_hint("name it .vhd or .avhd, or use -O differencing"),
    )
}

/// What `--force` allows: once to replace a file, twice even if that is an image which others have as their parent.
pub(super) fn overwrite(force: impl Into<u8>) -> Overwrite {
    match force.into() {
        0 => Overwrite::No,
        1 => Overwrite::Yes,
        _ => Overwrite::EvenAParent,
    }
}

/// What `--force` allows where an image is changed in place.
pub(super) const fn orphans(force: u8) -> Orphans {
    if force > 0 {
        Orphans::Allow
    } else {
        Orphans::Refuse
    }
}

// What a new child is told of Windows.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Windows {
    /// What the folder of a new differencing VHD is called on Windows, as in 'D:\vms': it then names its parent's absolute
    /// path there too.
    #[arg(long, value_name = "DIR")]
    windows_dir: Option<WindowsFolder>,
}

impl Windows {
    /// The parent of a new child.
    pub(super) fn child_of(&self, parent: Arc<OpenImage>) -> ChildOf {
        ChildOf {
            image: parent,
            windows_folder: self.windows_dir.clone(),
        }
    }

    /// An error if the folder was named and what is made has no parent.
    pub(super) fn refuse_without_parent(&self) -> Result<()> {
        if self.windows_dir.is_none() {
            return Ok(());
        }
        Err(Error::usage(
            "--windows-dir is for differencing VHDs: other images have no parent to name",
        )
        .with_hint("omit it, or make a differencing VHD"))
    }
}

/// What keeps a VHD of this size from being opened by the system that the format comes from, if anything does.
pub(super) fn windows_remark(format: Format, virtual_size: u64) -> Option<String> {
    let too_large = format != Format::Raw && virtual_size > MAX_DYNAMIC_SIZE;
    too_large.then(|| {
        format!(
            "Windows and Hyper-V don't open a VHD above 2040 GiB: this one has {}",
            Size(virtual_size)
        )
    })
}

/// What keeps a VHD of this size from being accepted as an upload by the cloud, if anything does. Raw images
/// aren't meant to be uploaded.
pub(super) fn cloud_remark(format: Format, virtual_size: u64) -> Option<String> {
    if format == Format::Raw || virtual_size.is_multiple_of(MEBIBYTE) {
        return None;
    }
    let whole = virtual_size.checked_next_multiple_of(MEBIBYTE)?;
    Some(format!(
        "Azure accepts only whole MiB and would refuse {virtual_size} bytes; the next size it takes is {whole}: \
         vhd convert --azure makes it"
    ))
}
