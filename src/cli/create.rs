//! `vhd create`: creates an empty image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ArgAction;

use serde::Serialize;

use super::args::{
    OutputFormat, Parents, SaidFormat, Windows, check_name_of_child, cloud_remark, default_format,
    overwrite, windows_remark,
};
use super::context::{Context, refuse_files};
use super::exit::Outcome;
use super::message::Topic;
use super::output::Output;
use super::size::{self, Size};
use crate::error::{Error, Result};
use crate::files::{Format, NewImage, NewImageOptions, OpenImage, finds_parent};
use crate::image::Image;
use crate::storage::Audience;
use crate::text::shown;
use crate::vhd::VhdImage;

/// Create an empty image, or a child of another image.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "The disk reads as zeros and takes no more space than its metadata. The file appears complete or not at all. With \
     --parent it is a differencing VHD: it reads like its parent, and stores what is written to it. The parent must \
     not be written to any more.\n\n",
    "Examples:\n",
    "  vhd create disk.vhd --size 10G\n",
    "  vhd create disk.vhd --size 10G -O fixed       what a cloud accepts as an upload\n",
    "  vhd create disk.vhd --size 1T --block-size 512K\n\
     \x20 vhd create child.vhd --parent disk.vhd\n  \
     vhd create child.avhd --parent disk.vhd --windows-dir 'D:\\vms'\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The image to create.
    #[arg(value_name = "IMAGE")]
    path: PathBuf,
    /// Size of the virtual disk: 512, 4K, 2MiB, 1G; a multiple of 512 [default with --parent: the parent's].
    #[arg(short, long, value_name = "SIZE", value_parser = size::parse, required_unless_present = "parent")]
    size: Option<u64>,
    /// Format of the image [default: dynamic if IMAGE ends in .vhd or .avhd, else raw].
    #[arg(short = 'O', long, value_name = "FORMAT")]
    output_format: Option<OutputFormat>,
    /// Create a differencing VHD with this parent.
    #[arg(long, value_name = "FILE")]
    parent: Option<PathBuf>,
    /// Look in this folder for the parent's own parents.
    #[arg(long, value_name = "DIR", requires = "parent")]
    parent_path: Vec<PathBuf>,
    /// Accept a raw image as the parent: nothing will show whether it is the right one.
    #[arg(long, requires = "parent")]
    raw_parent: bool,
    /// Bytes in a block of a VHD that has them, a power of two [default: the parent's, or 2MiB].
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    block_size: Option<u64>,
    /// Replace the file if it exists; twice: even if other images have it as their parent.
    #[arg(long, action = ArgAction::Count)]
    force: u8,
    #[command(flatten)]
    windows: Windows,
    /// Write a file without holes, as Windows and Hyper-V require: zeros are stored too.
    #[arg(long)]
    dense: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The output of `--json`.
#[derive(Serialize)]
struct View {
    image: String,
    format: &'static str,
    virtual_size: u64,
    block_size: Option<u32>,
    parent: Option<String>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let parent = parent(args, context)?;
    let format = match (args.output_format, &parent) {
        (None, None) => default_format(&args.path)?,
        (Some(format), None) => format.into(),
        (None, Some(_)) => {
            check_name_of_child(&args.path)?;
            Format::Differencing
        }
        (Some(OutputFormat::Differencing), Some(_)) => Format::Differencing,
        (Some(format), Some(_)) => {
            return Err(Error::usage("only a differencing VHD has a parent")
                .with_found(format_args!("-O {}", Format::from(format)))
                .with_hint("omit -O"));
        }
    };
    let own_blocks = |image: &Arc<OpenImage>| image.vhd()?.header().map(|header| header.block_size);
    let inherited = parent.as_ref().and_then(own_blocks);
    let same_size = parent.as_ref().map_or(0, Image::virtual_size);
    let size = args.size.unwrap_or(same_size);
    let made_from: Vec<_> = parent
        .iter()
        .flat_map(|parent| parent.chain().map(OpenImage::path))
        .map(Path::to_path_buf)
        .collect();
    if parent.is_none() {
        args.windows.refuse_without_parent()?;
    }
    let options = NewImageOptions {
        format,
        virtual_size: size,
        block_size: size::block(args.block_size, format)?.or(inherited),
        identity: None,
        parent: parent.map(|parent| args.windows.child_of(parent)),
        overwrite: overwrite(args.force),
        made_from: Audience::of(made_from)?,
        dense: args.dense,
    };
    let mut new = NewImage::create(&args.path, &options)?;
    let progress = context.progress();
    new.complete(&*progress)?;
    drop(progress);
    new.publish()?;
    context.note(format_args!(
        "{}: {format}, virtual size {}",
        shown(&args.path),
        Size(size)
    ));
    if let Some(remark) = windows_remark(format, size) {
        context.warn(Topic::TooLargeForWindows, remark);
    }
    if let Some(remark) = cloud_remark(format, size) {
        context.detail(remark);
    }
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            image: args.path.to_string_lossy().into_owned(),
            format: format.name(),
            virtual_size: size,
            block_size: options.block_size,
            parent: args
                .parent
                .as_ref()
                .map(|path| path.to_string_lossy().into_owned()),
        })?;
        output.finish()?;
    }
    Ok(Outcome::Done)
}

fn parent(args: &Args, context: &Context) -> Result<Option<Arc<OpenImage>>> {
    let Some(path) = &args.parent else {
        return Ok(None);
    };
    let parents = Parents {
        files: Vec::new(),
        folders: args.parent_path.clone(),
        raw_parent: args.raw_parent,
    };
    let parent = context.open(path, SaidFormat::NEVER, &parents)?;
    refuse_files(&args.path, &parent)?;
    check_new_parent(&parent, &args.path, args.raw_parent, context)?;
    Ok(Some(Arc::new(parent)))
}

/// Refuses a raw parent unless allowed, and reports what reading the child at `child` will require.
pub(super) fn check_new_parent(
    parent: &OpenImage,
    child: &Path,
    raw_allowed: bool,
    context: &Context,
) -> Result<()> {
    if parent.vhd().map(VhdImage::footer).is_none() && !raw_allowed {
        return Err(Error::usage(
            "a child can't name a raw image as its parent: nothing would show whether it is read over the right one",
        )
        .with_path(parent.path())
        .with_found(parent.format())
        .with_expected("a VHD")
        .with_hint("convert it to a VHD first, or give --raw-parent, now and whenever the child is read"));
    }
    if !finds_parent(child, parent.path())? {
        context.note(format_args!(
            "the parent {} is not in the folder of the child or below: to read the child, give --parent or \
             --parent-path",
            shown(parent.path())
        ));
    }
    Ok(())
}
