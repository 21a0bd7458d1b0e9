//! `vhd resize`: changes the size of an image.

use std::path::PathBuf;

use serde::Serialize;

use super::args::{InputFormat, Parents, cloud_remark, orphans, windows_remark};
use super::context::Context;
use super::exit::Outcome;
use super::gpt::gpt_remark;
use super::message::Topic;
use super::output::Output;
use super::size::{self, Size};
use crate::error::Result;
use crate::files::{Format, GptBackup, OpenOptions, ResizeOptions, Resized, resize};
use crate::text::shown;

/// Change the size of an image, in place.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "The new part reads as zeros. To shrink a disk, the removed part must be zero, or --allow-data-loss be given; shrink \
     the partitions and file systems on it first. If the command is killed, the image has the old or the new size and \
     holds what it held. A VHD keeps its unique id. An image that others in its folder, or in that of --parent-path, have as \
     their parent keeps its size, unless --force is given; one that was resized alone can be given their size again.\n\n",
    "Examples:\n",
    "  vhd resize disk.vhd --size 20G\n",
    "  vhd resize disk.vhd --size 20G --fix-gpt    and move the backup of its GPT to the new end\n",
    "  vhd resize disk.vhd --size 8G --dry-run     is there data after the first 8 GiB?\n\n",
    super::args::exit_codes!(),
))]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Args {
    /// The image: raw, or a VHD of any type.
    image: PathBuf,
    /// Size of the virtual disk: 512, 4K, 2MiB, 1G; a multiple of 512.
    #[arg(short, long, value_name = "SIZE", value_parser = size::parse)]
    size: u64,
    /// Shrink the disk even if the removed part holds data.
    #[arg(long)]
    allow_data_loss: bool,
    /// Resize it even if other images have it as their parent: they can't be read then, or read wrong data.
    #[arg(long, action = clap::ArgAction::Count)]
    force: u8,
    /// Check everything and report what would be done, but write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Write the result as a file without holes, as Windows and Hyper-V require: zeros are stored too.
    #[arg(long)]
    dense: bool,
    /// Move the backup of the partition table (GPT) to the new end of the disk.
    #[arg(long)]
    fix_gpt: bool,
    /// Format of the image [default: detected].
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<InputFormat>,
    /// Print a JSON summary.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    parents: Parents,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let progress = context.progress();
    let open = OpenOptions {
        format: args.format.map(Into::into),
        format_option: Some("-f"),
        parents: args.parents.options(),
        ..OpenOptions::default()
    };
    let options = ResizeOptions {
        virtual_size: args.size,
        allow_data_loss: args.allow_data_loss,
        dry_run: args.dry_run,
        dense: args.dense,
        fix_gpt: args.fix_gpt,
        orphans: orphans(args.force),
        progress: &*progress,
    };
    if !args.dry_run {
        super::signals::writes(&args.image);
    }
    let resized = resize(&args.image, &open, options)?;
    drop(progress);
    say(args, resized, context);
    if args.json {
        print(args, resized)?;
    }
    Ok(Outcome::Done)
}

fn say(args: &Args, resized: Resized, context: &Context) {
    let path = shown(&args.image);
    let (old, new) = (resized.old_size, resized.virtual_size);
    say_gpt(args, resized, context);
    if old == new && resized.gpt == Some(GptBackup::Moved) {
        return;
    }
    if old == new {
        context.note(format_args!(
            "{path}: already has that size, nothing was written"
        ));
        return;
    }
    let would = if args.dry_run { "would have" } else { "has" };
    context.note(format_args!(
        "{path}: {would} a virtual size of {}, before {}",
        Size(new),
        Size(old)
    ));
    if resized.lost_data {
        let was = if args.dry_run { "would be" } else { "was" };
        context.note(format_args!("data after the new end {was} removed"));
    }
    if !args.dry_run
        && new < old
        && matches!(resized.format, Format::Dynamic | Format::Differencing)
    {
        let is = if args.dense {
            "is filled with zeros"
        } else {
            "is a hole in the file"
        };
        context.note(format_args!(
            "the space of the removed blocks {is} now, or was freed; vhd convert makes a file without it"
        ));
    }
    if let Some(remark) = windows_remark(resized.format, new) {
        context.warn(Topic::TooLargeForWindows, remark);
    }
    if let Some(remark) = cloud_remark(resized.format, new) {
        context.detail(remark);
    }
}

fn say_gpt(args: &Args, resized: Resized, context: &Context) {
    let path = shown(&args.image);
    match resized.gpt {
        Some(GptBackup::Moved) if args.dry_run => context.note(format_args!(
            "{path}: the backup of the partition table (GPT) would be moved to the end of the disk"
        )),
        Some(GptBackup::Moved) => context.note(format_args!(
            "{path}: the backup of the partition table (GPT) is at the end of the disk now"
        )),
        Some(GptBackup::Elsewhere) => {
            context.note(gpt_remark(&args.image, resized.virtual_size, args.dry_run));
        }
        None if args.fix_gpt => context.note(format_args!(
            "{path}: there is no partition table (GPT) on this disk, so --fix-gpt had nothing to do"
        )),
        Some(GptBackup::AtEnd) | None => {}
    }
}

#[derive(Serialize)]
struct Summary {
    image: String,
    outcome: &'static str,
    format: &'static str,
    old_virtual_size: u64,
    virtual_size: u64,
    data_lost: bool,
    /// The location of the GPT's backup: `at_end`, `moved` there, or `elsewhere`.
    gpt_backup: Option<&'static str>,
}

fn print(args: &Args, resized: Resized) -> Result<()> {
    let mut output = Output::text()?;
    output.json(&Summary {
        image: args.image.to_string_lossy().into_owned(),
        outcome: match (resized.old_size == resized.virtual_size, args.dry_run) {
            (true, _) => "same",
            (false, true) => "would_resize",
            (false, false) => "resized",
        },
        format: resized.format.name(),
        old_virtual_size: resized.old_size,
        virtual_size: resized.virtual_size,
        data_lost: resized.lost_data,
        gpt_backup: resized.gpt.map(GptBackup::name),
    })?;
    output.finish()
}
