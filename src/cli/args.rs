//! Options that commands share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{ArgAction, ValueEnum, value_parser};

use super::size::Size;
use crate::error::{Error, Result};
use crate::files::{ChildOf, Format, OpenImage, Orphans, ParentOptions, Strategy, WindowsFolder};
use crate::storage::{Caching, Overwrite};
use crate::vhd::MAX_DYNAMIC_SIZE;

/// The description of exit codes at the end of every help text.
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

// Options of every command. (A doc comment would become the description of each program.)
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Common options")]
pub(super) struct Common {
    /// Threads that read, compare, hash and pack [default: one per processor; two for images that mostly aren't in the
    /// page cache].
    #[arg(long, global = true, value_name = "N", value_parser = value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// When to show progress on stderr; `auto`: if stderr is a terminal.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub progress: When,
    /// Folder for the undo journals of block devices, the same for every command [default: the value of
    /// `VHDKIT_STATE_DIR`, else /var/lib/vhdkit].
    #[arg(long, global = true, value_name = "DIR")]
    pub journal_dir: Option<PathBuf>,
    /// Of page blobs: send and receive no more than this in a second, as 20M.
    #[arg(long, global = true, value_name = "SIZE", value_parser = super::size::parse_rate, hide_short_help = true)]
    pub limit_rate: Option<u64>,
    /// Of page blobs: requests under way at once [default: 16].
    #[arg(long, global = true, value_name = "N", value_parser = value_parser!(u16).range(1..=256), hide_short_help = true)]
    pub jobs: Option<u16>,
    #[command(flatten)]
    pub keys: KeyArgs,
    /// Print nothing on success, except for warnings.
    #[arg(short, long, global = true, action = ArgAction::SetTrue, overrides_with = "quiet")]
    pub quiet: bool,
    /// Report details on stderr, including the time taken.
    #[arg(short, long, global = true, action = ArgAction::SetTrue, conflicts_with = "quiet", overrides_with = "verbose")]
    pub verbose: bool,
}

// What opens encrypted stores, for every command.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct KeyArgs {
    /// Of an encrypted store: the file with its passphrase [default: the file that `VHDKIT_PASSPHRASE_FILE` names; else
    /// it is asked for on the terminal]. Several are tried one by one.
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub passphrase_file: Vec<PathBuf>,
    /// Of an encrypted store: the file with its key, or with its recovery key [default: the file that `VHDKIT_KEY_FILE`
    /// names]. Several are tried one by one.
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub key_file: Vec<PathBuf>,
}

/// When something is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum When {
    Auto,
    Always,
    Never,
}

// Where to look for the parents of differencing VHDs, for every command that reads images.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Parents of differencing VHDs")]
pub(super) struct Parents {
    /// The parent, or another image of a longer chain; without it, a parent is looked for only in the folder of its
    /// child and below.
    #[arg(long = "parent", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Look for parents in this folder too, by their file names.
    #[arg(long = "parent-path", value_name = "DIR")]
    pub folders: Vec<PathBuf>,
    /// Read a child that contains no unique id for its parent on top of a raw image: nothing shows whether it is the
    /// right one.
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

/// The format of an input image, for `-f`.
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

/// The format of an input image as the user specified it, if at all, and the name of the option.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SaidFormat {
    pub(super) option: Option<&'static str>,
    pub(super) format: Option<InputFormat>,
}

impl SaidFormat {
    /// The value that the user gave for `option`, if any.
    pub(super) const fn by(option: &'static str, format: Option<InputFormat>) -> Self {
        Self {
            option: Some(option),
            format,
        }
    }

    /// There is no such option.
    pub(super) const NEVER: Self = Self {
        option: None,
        format: None,
    };
}

/// How images are read and written, for `--io`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Io {
    /// Read data that isn't in the page cache directly from the device, and write large pieces directly to it; neither
    /// stays in the cache.
    Auto,
    /// Through the page cache.
    Buffered,
    /// Directly from and to the device, whatever the page cache has, if both sides support it.
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

/// The format of an output image, for `-O`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// The bytes of the file are the virtual disk.
    Raw,
    /// A VHD that stores the whole disk, followed by a footer.
    Fixed,
    /// A VHD that stores only the blocks that were written; vhd and vpc are the same.
    #[value(aliases = ["vhd", "vpc"])]
    Dynamic,
    /// A VHD that stores only the differences to another image, its parent.
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

/// How an image is changed in place, for `--in-place`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum InPlaceWay {
    /// By a clone if the file system supports it and no attribute of the file is lost, otherwise with an undo journal.
    Auto,
    /// Change a clone of the base, which then replaces it.
    Clone,
    /// Write the base itself, with an undo journal next to it.
    Journal,
    /// Change a full copy of the base, which then replaces it.
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

/// The format implied by the name of a new image.
pub(super) fn default_format(path: &Path) -> Result<Format> {
    Format::by_name(path).map_err(|error| {
        error.override_hint(
            "name it .vhd for a VHD or .raw for a raw disk, or choose its format with -O",
        )
    })
}

/// Fails if the name of the child to be created at `path` is that of something else.
pub(super) fn check_name_of_child(path: &Path) -> Result<()> {
    if default_format(path)? != Format::Raw || path.extension().is_none() {
        return Ok(());
    }
    Err(
        Error::usage("a child is a VHD, but this is not the name of one")
            .with_path(path)
            .with_hint("name it .vhd or .avhd, or use -O differencing"),
    )
}

/// The meaning of `--force`: once to replace a file, twice even one that other images have as their parent.
pub(super) fn overwrite(force: impl Into<u8>) -> Overwrite {
    match force.into() {
        0 => Overwrite::No,
        1 => Overwrite::Yes,
        _ => Overwrite::EvenAParent,
    }
}

/// The meaning of `--force` if an image is changed in place.
pub(super) const fn orphans(force: u8) -> Orphans {
    if force > 0 {
        Orphans::Allow
    } else {
        Orphans::Refuse
    }
}

// Windows paths for new children.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Windows {
    /// Windows path of the folder of a new differencing VHD, as in 'D:\vms': it then also records its parent's absolute
    /// path there.
    #[arg(long, value_name = "DIR")]
    windows_dir: Option<WindowsFolder>,
}

impl Windows {
    /// Describes the parent of a new child.
    pub(super) fn child_of(&self, parent: Arc<OpenImage>) -> ChildOf {
        ChildOf {
            image: parent,
            windows_folder: self.windows_dir.clone(),
        }
    }

    /// Fails if the option is given for an image without a parent.
    pub(super) fn refuse_without_parent(&self) -> Result<()> {
        if self.windows_dir.is_none() {
            return Ok(());
        }
        Err(
            Error::usage("--windows-dir is for differencing VHDs: other images have no parent")
                .with_hint("omit it, or make a differencing VHD"),
        )
    }
}

/// Returns why the system that the format comes from can't open a VHD of this size, if so.
pub(super) fn windows_remark(format: Format, virtual_size: u64) -> Option<String> {
    let too_large = format != Format::Raw && virtual_size > MAX_DYNAMIC_SIZE;
    too_large.then(|| {
        format!(
            "Windows and Hyper-V don't open a VHD above 2040 GiB: this one has {}",
            Size(virtual_size)
        )
    })
}

/// Returns why the cloud refuses to upload a VHD of this size, if so. Raw images aren't meant to be uploaded.
pub(super) fn cloud_remark(format: Format, virtual_size: u64) -> Option<String> {
    if format == Format::Raw || virtual_size.is_multiple_of(MEBIBYTE) {
        return None;
    }
    let whole = virtual_size.checked_next_multiple_of(MEBIBYTE)?;
    Some(format!(
        "Azure accepts only whole MiB and would refuse {virtual_size} bytes; the next accepted size is {whole}: \
         vhd convert --azure creates it"
    ))
}
