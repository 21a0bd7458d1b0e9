//! `vhd files`: the files in an image, without mounting it.

mod find;
mod get;
mod list;
mod place;

use clap::Subcommand;

use super::context::Context;
use super::exit::Outcome;
use crate::error::Result;
use find::{Find, find};
use get::{Get, get};
use list::{Ls, ls};

/// List, find and copy files in an image or a point in time, without mounting it.
///
/// WHAT is an image or a point in time of a store, then :NUMBER for a partition if the path is in several, then the
/// path.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true, after_help = concat!(
    "Nothing is mounted or written, and no privileges are needed except to read the image. Journals are read, so that a \
     snapshot of a running machine shows its newest state. What is read: ext2, ext3, ext4, NTFS, FAT12, FAT16 and FAT32, in \
     MBR and GPT partitions or on the whole disk.\n\n",
    "Examples:\n",
    "  vhd files ls disk.vhd                               the partitions\n",
    "  vhd files ls disk.vhd/etc\n",
    "  vhd files get /backup::web@tue:2/etc/fstab          to stdout\n",
    "  vhd files get disk.vhd/home/ann -o ann.tar          a whole folder\n",
    "  vhd files find disk.vhd/etc --name '*.conf'\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(subcommand)]
    command: FilesCommand,
}

#[derive(Debug, Subcommand)]
enum FilesCommand {
    /// List a folder, or the partitions of a disk.
    #[command(after_help = concat!(
        "Examples:\n  vhd files ls disk.vhd\n  vhd files ls disk.vhd:2/etc\n\n",
        super::args::exit_codes!(),
    ))]
    Ls(Ls),
    /// Copy a file to stdout or to a file; a folder as a tar archive.
    #[command(after_help = concat!(
        "Examples:\n  vhd files get disk.vhd/etc/fstab\n  vhd files get disk.vhd/home/ann | tar x\n\n",
        super::args::exit_codes!(),
    ))]
    Get(Get),
    /// List all paths in a folder and the folders in it.
    #[command(after_help = concat!(
        "Examples:\n  vhd files find disk.vhd/etc --name '*.conf'\n\n",
        super::args::exit_codes!(),
    ))]
    Find(Find),
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    match &args.command {
        FilesCommand::Ls(args) => ls(args, context),
        FilesCommand::Get(args) => get(args, context),
        FilesCommand::Find(args) => find(args, context),
    }
}
