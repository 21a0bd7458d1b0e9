//! `vhd create`: an empty image.

use std::path::PathBuf;

use super::args::OutputFormat;
use super::args::{cloud_remark, default_format, overwrite};
use super::context::Context;
use super::exit::Outcome;
use super::size::{self, Size};
use crate::error::Result;
use crate::files::{NewImage, NewImageOptions};

/// Make an empty image.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "The disk reads as zeros and takes no more space than its metadata. The file appears whole or not at all.\n\n",
    "Examples:\n",
    "  vhd create disk.vhd --size 10G\n",
    "  vhd create disk.vhd --size 10G -O fixed       what a cloud takes as an upload\n",
    "  vhd create disk.vhd --size 1T --block-size 512K\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The image to make.
    path: PathBuf,
    /// Size of the virtual disk: 512, 4K, 2MiB, 1G; a multiple of 512.
    #[arg(short, long, value_name = "SIZE", value_parser = size::parse)]
    size: u64,
    /// Format of the image [default: dynamic if PATH ends in .vhd, else raw].
    #[arg(short = 'O', long, value_name = "FORMAT")]
    output_format: Option<OutputFormat>,
    /// Bytes in a block of a dynamic VHD, a power of two [default: 2MiB].
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    block_size: Option<u64>,
    /// Replace the file if it exists.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let format = args
        .output_format
        .map_or_else(|| default_format(&args.path), Into::into);
    let options = NewImageOptions {
        format,
        virtual_size: args.size,
        block_size: size::block(args.block_size, format)?,
        identity: None,
        overwrite: overwrite(args.force),
    };
    NewImage::create(&args.path, &options)?.publish()?;
    context.note(format_args!(
        "{}: {format}, virtual size {}",
        args.path.display(),
        Size(args.size)
    ));
    if let Some(remark) = cloud_remark(format, args.size) {
        context.note(remark);
    }
    Ok(Outcome::Done)
}
