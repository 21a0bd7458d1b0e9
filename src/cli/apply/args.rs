//! The options of `vhd apply`.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::cli::args::{InPlaceWay, InputFormat, OutputFormat, Parents, SaidFormat, Windows};
use crate::cli::far;
use crate::cli::output::STDOUT;
use crate::diff::BaseCheck;
use crate::error::Result;
use crate::storage::Audience;

/// Turn a base into the target of a diff, in place or as a new image.
///
/// Without -o the base itself becomes the target: as a clone that replaces it if the file system supports clones,
/// otherwise with an undo journal, so that it is always the old or the new point in time, or one command away from
/// either.
#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
#[command(after_help = concat!(
    "Several diffs are applied in order, each page written once. Nothing is written before all diffs are verified, \
     follow one another, and the base is known to be the one they were made from. Diffs that the base holds already \
     are left out.\n\n\
     The content of the result is recorded in an extended attribute of its file, its state stamp: as long as nothing writes to the file, the next apply needn't read all of it. vhd info shows the stamp, vhd hash --stamp sets one.\n\n",
    "Examples:\n",
    "  vhd-apply monday.vhd tuesday.vhddiff -o tuesday.vhd      create a new image\n",
    "  vhd-apply disk.vhd tuesday.vhddiff wednesday.vhddiff     bring a copy up to date in place\n",
    "  vhd-diff a.raw b.raw -o - | vhd-apply copy.raw -         through a pipe\n",
    "  vhd-apply disk.vhd tuesday.vhddiff --undo back.vhddiff   keep a diff to undo it\n",
    "  vhd-apply --reverse disk.vhd wednesday.vhddiff           undo a reversible diff\n",
    "  vhd-apply /dev/null all.vhddiff -o disk.vhd              a disk from a diff based on an empty one\n",
    "  vhd-apply --rollback disk.vhd                            undo an interrupted apply\n",
    "  vhd-apply @web tue.vhddiff --blob-snapshot tue           a page blob, and a snapshot of it\n  \
         vhd-apply base.vhd d -o child.vhd -O differencing        store only the changes, on top of the base\n\n",
    crate::cli::args::exit_codes!(),
))]
pub(crate) struct Args {
    /// The image to change into the target.
    pub(super) base: PathBuf,
    /// The diffs, in order; - is stdin.
    #[arg(value_name = "DIFF", required_unless_present = "rollback")]
    pub(super) diffs: Vec<PathBuf>,
    /// Write a new image instead of changing the base; - writes the raw disk to stdout.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["undo", "rollback"])]
    pub(super) output: Option<PathBuf>,
    /// Go back: turn the target of reversible diffs into their base. Several are given newest first, in the order in
    /// which they are undone.
    #[arg(long, conflicts_with = "rollback")]
    pub(super) reverse: bool,
    /// Format of the new image [default: raw or VHD by its name, the kind of VHD like the target].
    #[arg(short = 'O', long, value_name = "FORMAT", requires = "output")]
    pub(super) output_format: Option<OutputFormat>,
    /// With -o: replace the output if it exists; twice: even if other images have it as their parent. In place: change
    /// the base even if other images have it as theirs.
    #[arg(long, action = clap::ArgAction::Count, conflicts_with = "rollback")]
    pub(super) force: u8,
    #[command(flatten)]
    pub(super) windows: Windows,
    /// Keep a diff that undoes the apply in this file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rollback", "dry_run"])]
    pub(super) undo: Option<PathBuf>,
    /// Undo an interrupted apply.
    #[arg(long, conflicts_with_all = ["diffs", "dry_run"])]
    pub(super) rollback: bool,
    /// Of a page blob: take a snapshot of the result, which gets this name.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["output", "rollback", "dry_run"])]
    pub(super) blob_snapshot: Option<String>,
    /// How to check that the base is the right one.
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub(super) base_check: Check,
    /// How the base is changed in place.
    #[arg(long, value_name = "HOW", default_value = "auto", conflicts_with_all = ["output", "rollback"])]
    pub(super) in_place: InPlaceWay,
    /// Check everything and report what would be done, but write nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Read the result back and compare its content digest.
    #[arg(long)]
    pub(super) verify: bool,
    /// Write the result as a file without holes, as Windows and Hyper-V require: zeros are stored too.
    #[arg(long, conflicts_with = "rollback")]
    pub(super) dense: bool,
    /// Format of the base [default: detected].
    #[arg(short = 'f', long, value_name = "FORMAT")]
    pub(super) base_format: Option<InputFormat>,
    /// Print a JSON summary.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) parents: Parents,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Check {
    /// Like full, or by the window hashes that vhd hash --stamp keeps next to it, plus the data under the changed
    /// pages.
    Auto,
    /// By a valid state stamp alone, if there is one; the digest of the result is then taken from the diff.
    Stamp,
    /// Read all of it and compare its content digest.
    Full,
    /// Read only the data under the changed pages.
    Touched,
}

impl From<Check> for BaseCheck {
    fn from(check: Check) -> Self {
        match check {
            Check::Auto => Self::Stamped,
            Check::Stamp => Self::Trusted,
            Check::Full => Self::Full,
            Check::Touched => Self::Touched,
        }
    }
}

/// The format of the base as the user specified it.
pub(super) fn said(args: &Args) -> SaidFormat {
    SaidFormat::by("-f", args.base_format)
}

pub(super) fn inputs(args: &Args) -> Vec<&Path> {
    let diffs = args.diffs.iter().map(PathBuf::as_path);
    diffs.chain([args.base.as_path()]).collect()
}

/// Who may read all the diffs; the origin of one from stdin is unknown.
pub(super) fn diffs_audience(args: &Args) -> Result<Audience> {
    Audience::of(args.diffs.iter().filter(|path| *path != Path::new("-")))
}

pub(super) fn is_stdout(output: &Path) -> bool {
    output == Path::new("-")
}

/// Whether an output is a file: neither stdout nor a page blob.
pub(super) fn is_file(output: &Path) -> bool {
    !is_stdout(output) && !far::is_address(output)
}

/// The name of the result.
pub(super) fn result(args: &Args) -> &Path {
    match &args.output {
        Some(output) if is_stdout(output) => Path::new(STDOUT),
        Some(output) => output,
        None => &args.base,
    }
}
