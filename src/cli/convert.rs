//! `vhd convert`: copies a virtual disk to another format.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{
    InputFormat, Io, MEBIBYTE, OutputFormat, Parents, SaidFormat, cloud_remark, default_format,
    overwrite, windows_remark,
};
use super::context::{Context, Reading, refuse_files};
use super::exit::Outcome;
use super::fetch;
use super::gpt::gpt_remark;
use super::message::{Topic, Warning};
use super::output::Output;
use super::size::{self, Size};
use crate::error::{Error, Result, quoted};
use crate::files::{
    self, Format, GptBackup, NewImage, NewImageOptions, OpenImage, Opened, plan_gpt,
    refuse_same_file,
};
use crate::image::{ContentDigest, CopyOptions, Image, Resized, content_digest, copy};
use crate::parallel::Work;

use crate::storage::{Audience, IoPolicy};
use crate::text::shown;
use crate::vhd::Footer;

/// The smallest managed disk that can be uploaded.
const SMALLEST_MANAGED_DISK: u64 = 20 << 20;

/// Copy a virtual disk into a new image of any format.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Zeros aren't written: a sparse image gives a sparse image, unless --dense is given. The size is kept exactly; with --azure \
     it is rounded up to a whole MiB. A VHD made from a VHD keeps its unique id and the other fields of its \
     footer. The destination appears complete or not at all. An interrupted download from a page blob is continued by \
     the same command.\n\n",
    "Examples:\n",
    "  vhd convert disk.raw disk.vhd                 a dynamic VHD\n",
    "  vhd convert disk.vhd disk.raw\n",
    "  vhd convert disk.raw upload.vhd --azure       a fixed VHD that the cloud accepts\n",
    "  vhd convert disk.raw up.vhd --azure --fix-gpt the same, with the backup of its GPT at its end\n",
    "  vhd convert disk.raw d.vhd --dense            a file without holes, for Windows and Hyper-V\n",
    "  vhd convert damaged.vhd saved.vhd --salvage   what is left of a damaged VHD\n",
    "  vhd convert disk.vhd - | gzip > disk.raw.gz   the raw disk through a pipe\n",
    "  vhd convert disk.vhd /dev/sdx -O raw --force  onto a device\n",
    "  vhd convert disk.vhd azure:prod/web           a new managed disk\n\n",
    super::args::exit_codes!(),
))]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Args {
    /// The image to read.
    pub(super) source: PathBuf,
    /// The image to create: a file, a block device, a page blob, or a managed disk, as azure:GROUP/NAME; - writes the raw disk to stdout.
    pub(super) destination: PathBuf,
    /// Format of the source [default: detected].
    #[arg(short, long, value_name = "FORMAT")]
    pub(super) format: Option<InputFormat>,
    /// Format of the destination [default: dynamic if it ends in .vhd or .avhd, else raw].
    #[arg(short = 'O', long, value_name = "FORMAT")]
    pub(super) output_format: Option<OutputFormat>,
    /// Create what a cloud accepts as an upload: a fixed VHD whose size is a whole number of MiB.
    #[arg(long)]
    pub(super) azure: bool,
    /// Bytes in a block of a dynamic VHD, a power of two [default: 2MiB].
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(super) block_size: Option<u64>,
    /// Replace the destination if it exists; twice: even if other images have it as their parent.
    #[arg(long, action = clap::ArgAction::Count)]
    pub(super) force: u8,
    /// Write a file without holes, as Windows and Hyper-V require: zeros are stored too.
    #[arg(long)]
    pub(super) dense: bool,
    /// Move the backup of the partition table (GPT) to the end of the disk, if it isn't there.
    #[arg(long)]
    pub(super) fix_gpt: bool,
    /// Read as much as possible of a damaged VHD: what is lost reads as zeros, and is listed.
    #[arg(long)]
    pub(super) salvage: bool,
    /// Whether to read and write through the page cache.
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub(super) io: Io,
    /// Read the destination back and compare it with the source.
    #[arg(long)]
    pub(super) verify: bool,
    /// Print a JSON summary.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) parents: Parents,
}

/// The output of `--json`.
#[derive(Serialize)]
struct View {
    image: String,
    format: &'static str,
    virtual_size: u64,
    source: SourceView,
    gpt_backup: Option<&'static str>,
    verified: bool,
}

#[derive(Serialize)]
struct SourceView {
    image: String,
    format: &'static str,
    virtual_size: u64,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    refuse_same_file(&args.destination, &[&args.source])?;
    if args.output_format.is_none() {
        default_format(&args.destination)?;
    }
    let source = open_source(args, context)?;
    if args.destination == Path::new("-") {
        return to_stdout(args, &*source, context);
    }
    refuse_files(&args.destination, &*source)?;
    let options = destination(args, &*source)?;
    let (gpt, wanted) = plan_gpt(&*source, options.virtual_size, args.fix_gpt)
        .map_err(|error| error.with_path(source.path()))?;
    let from = source.fetched_from();
    let mut new = fetch::begin(&args.destination, &options, from.as_ref(), context)?;
    new.written(args.io.into());
    context.note_device(&args.destination);
    transfer(args, context, &*source, &mut new)?;
    if let Some(wanted) = wanted {
        wanted.write(new.image_mut())?;
    }
    let progress = context.progress();
    new.complete(&*progress)?;
    drop(progress);
    new.publish()?;
    context.note(format_args!(
        "{}: {}, virtual size {}",
        shown(&args.destination),
        options.format,
        Size(options.virtual_size)
    ));
    let read = source.virtual_size();
    if options.virtual_size > read {
        let added = options.virtual_size - read;
        context.note(format_args!(
            "{} of zeros were added at the end to make whole MiB",
            Size(added)
        ));
    }
    match gpt {
        Some(GptBackup::Moved) => {
            context
                .note("the backup of the partition table (GPT) was moved to the end of the disk");
        }
        Some(GptBackup::Elsewhere) => {
            context.note(gpt_remark(&args.destination, options.virtual_size, false));
        }
        None if args.fix_gpt => context
            .note("there is no partition table (GPT) on this disk, so --fix-gpt had nothing to do"),
        Some(GptBackup::AtEnd) | None => {}
    }
    if args.azure && options.virtual_size < SMALLEST_MANAGED_DISK {
        context.note(
            "a managed disk must have at least 20 MiB; this one can be uploaded as a page blob only",
        );
    }
    if let Some(remark) =
        windows_remark(options.format, options.virtual_size).filter(|_| !args.azure)
    {
        context.warn(Topic::TooLargeForWindows, remark);
    }
    if let Some(remark) = cloud_remark(options.format, options.virtual_size) {
        context.detail(remark);
    }
    print_json(args, (options.format, options.virtual_size), &*source, gpt)?;
    Ok(Outcome::Done)
}

/// Opens the source, and reports doubts about it.
pub(super) fn open_source(args: &Args, context: &Context) -> Result<Box<dyn Opened>> {
    let source = context.open_source(
        &args.source,
        SaidFormat::by("-f", args.format),
        &args.parents,
        Reading {
            salvage: args.salvage,
            io: IoPolicy {
                caching: args.io.into(),
                ..IoPolicy::default()
            },
        },
    )?;
    if let Some(image) = source.as_file() {
        look_inside(args, image, context)?;
    }
    Ok(source)
}

/// Prints the summary if requested.
pub(super) fn print_json(
    args: &Args,
    (format, virtual_size): (Format, u64),
    source: &dyn Opened,
    gpt: Option<GptBackup>,
) -> Result<()> {
    if !args.json {
        return Ok(());
    }
    let mut output = Output::text()?;
    output.json(&View {
        image: args.destination.to_string_lossy().into_owned(),
        format: format.name(),
        virtual_size,
        source: SourceView {
            image: source.path().to_string_lossy().into_owned(),
            format: source.format().name(),
            virtual_size: source.virtual_size(),
        },
        gpt_backup: gpt.map(GptBackup::name),
        verified: args.verify,
    })?;
    output.finish()
}

/// Reports how to extract a VHD from a VHD. For an upload it is refused, and so is a raw image with a footer before its
/// end, unless the source's format was specified.
fn look_inside(args: &Args, image: &OpenImage, context: &Context) -> Result<()> {
    let refused = args.azure && args.format.is_none();
    if let Some(inside) = files::vhd_inside(image) {
        if refused {
            return Err(inside);
        }
        context.warn_of(&Warning::of(&inside));
    }
    if refused && image.has_footer_inside() {
        let file = quoted(image.path());
        return Err(Error::unsupported(
            "the upload would contain the footer of a VHD as data of its disk",
        )
        .with_path(image.path())
        .with_hint(format!(
            "remove the data after the footer first: vhd check --repair {file}"
        )));
    }
    Ok(())
}

/// Writes the raw disk to stdout.
fn to_stdout(args: &Args, source: &dyn Opened, context: &Context) -> Result<Outcome> {
    refuse_on_stdout("--json", args.json)?;
    refuse_on_stdout("--azure", args.azure)?;
    refuse_on_stdout("--verify", args.verify)?;
    let mut out = Output::disk(args.output_format, source.virtual_size())?;
    size::block(args.block_size, Format::Raw)?;
    let workers = context.workers_reading(&[source])?;
    let progress = context.progress();
    progress.begin("converting", source.virtual_size());
    let options = CopyOptions {
        work: Work::new(&workers, &*progress),
        digest: false,
    };
    copy(source, &mut out, options)?;
    out.finish()?;
    source.check_unchanged()?;
    drop(progress);
    context.note_disk_sent(source.path(), source.virtual_size());
    Ok(Outcome::Done)
}

/// Fails for an option that can't be used with stdout.
pub(super) fn refuse_on_stdout(option: &str, given: bool) -> Result<()> {
    if !given {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{option} can't be used with the raw disk on stdout"
    ))
    .with_hint("name a file instead of -, or omit the option"))
}

/// The options for the destination.
fn destination(args: &Args, source: &dyn Opened) -> Result<NewImageOptions> {
    let mut virtual_size = source.virtual_size();
    let mut format = match args.output_format {
        Some(format) => format.into(),
        None => default_format(&args.destination)?,
    };
    if args.azure {
        if args
            .output_format
            .is_some_and(|format| format != OutputFormat::Fixed)
        {
            return Err(Error::usage("--azure creates a fixed VHD")
                .with_found(format_args!("-O {format}"))
                .with_hint("omit -O"));
        }
        format = Format::Fixed;
        virtual_size = whole_mebibytes(virtual_size)?;
    }
    let mut identity = source.footer().cloned();
    if args.azure {
        identity = identity.map(Footer::measured_by_size);
    }
    Ok(NewImageOptions {
        format,
        virtual_size,
        block_size: size::block(args.block_size, format)?,
        identity,
        parent: None,
        overwrite: overwrite(args.force),
        made_from: Audience::of(source.files())?,
        dense: args.dense,
    })
}

/// The size that Azure accepts for a disk of `size` bytes.
pub(super) fn whole_mebibytes(size: u64) -> Result<u64> {
    size.checked_next_multiple_of(MEBIBYTE)
        .ok_or_else(|| Error::usage("the size can't be rounded up to a whole MiB"))
}

fn transfer(args: &Args, context: &Context, image: &dyn Opened, new: &mut NewImage) -> Result<()> {
    let workers = context.workers_reading(&[image])?;
    let progress = context.progress();
    progress.begin("converting", image.virtual_size());
    let options = CopyOptions {
        work: Work::new(&workers, &*progress),
        digest: args.verify,
    };
    let digest = fetch::fill((&args.destination, new), image, options, context)?;
    image.check_unchanged()?;
    if let Some(digest) = digest.filter(|_| args.verify) {
        new.image_mut().flush()?;
        progress.begin("verifying", image.virtual_size());
        let written = Resized::new(new.image(), image.virtual_size());
        verify(
            &args.destination,
            digest,
            content_digest(&written, &workers, &*progress)?,
        )?;
    }
    Ok(())
}

pub(super) fn verify(
    destination: &Path,
    read: ContentDigest,
    written: ContentDigest,
) -> Result<()> {
    if read == written {
        return Ok(());
    }
    Err(
        Error::damaged("the data read back differs from the data written")
            .with_path(destination)
            .with_field("content digest")
            .with_found(written)
            .with_expected(read)
            .with_hint("the device or the memory may be failing: check both before trying again"),
    )
}
