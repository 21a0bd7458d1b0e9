//! `vhd convert` to a page blob.

use std::path::Path;

use super::args::cloud_remark;
use super::context::Context;
use super::convert::{Args, open_source, print_json, verify, whole_mebibytes};
use super::exit::Outcome;
use super::far;
use super::size::{self, Size};
use crate::blob::BlobName;
use crate::error::{Error, Result};
use crate::files::{Format, GptBackup, NewBlobImage, NewBlobImageOptions, Opened, plan_gpt};
use crate::image::{CopyOptions, content_digest};
use crate::parallel::Work;
use crate::text::shown;
use crate::vhd::{DiskType, Footer};

/// Returns whether the destination is a blob.
pub(super) fn is_wanted(args: &Args) -> bool {
    far::is_address(&args.destination)
}

/// Writes the disk of the source to the destination blob.
pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    refuse_options(args)?;
    let source = open_source(args, context)?;
    to_blob(args, &*source, context)
}

/// Fails for options that a blob can't have, or for a blob that is its own source.
fn refuse_options(args: &Args) -> Result<()> {
    let refuse = |what: &str, hint: &str| {
        Err(Error::usage(what.to_owned())
            .with_path(&args.destination)
            .with_hint(hint))
    };
    if args.source == args.destination {
        return refuse(
            "the output is the same blob as the input",
            "choose another name for the output",
        );
    }
    if args.dense {
        return refuse(
            "a page blob has no space that --dense could reserve",
            "omit --dense",
        );
    }
    format(args).map(drop)
}

/// A fixed VHD, as the service requires, unless specified otherwise by option or name.
fn format(args: &Args) -> Result<Format> {
    let asked = args.output_format.map(Into::into);
    match format_of(
        &args.destination,
        asked.or(args.azure.then_some(Format::Fixed)),
    )? {
        Format::Raw if args.azure => Err(Error::usage("with --azure a blob is a fixed VHD")
            .with_path(&args.destination)
            .with_found(Format::Raw)
            .with_hint("omit -O, or use -O fixed")),
        format => Ok(format),
    }
}

fn to_blob(args: &Args, source: &dyn Opened, context: &Context) -> Result<Outcome> {
    let format = format(args)?;
    size::block(args.block_size, format)?;
    let read = source.virtual_size();
    let size = if args.azure {
        whole_mebibytes(read)?
    } else {
        read
    };
    let mut identity = source.footer().cloned();
    if args.azure {
        identity = identity.map(Footer::measured_by_size);
    }
    let options = options_of(format, size, identity.as_ref(), args.force > 0);
    let (gpt, wanted) =
        plan_gpt(source, size, args.fix_gpt).map_err(|error| error.with_path(source.path()))?;
    let mut new = begin(&args.destination, &options, context)?;

    let workers = context.workers_reading(&[source])?;
    let progress = context.progress();
    progress.begin("uploading", read);
    let copying = CopyOptions {
        work: Work::new(&workers, &*progress),
        digest: true,
    };
    let digest = new.fill(source, copying)?;
    source.check_unchanged()?;
    if let Some(digest) = digest.filter(|_| args.verify) {
        new.image_mut().flush()?;
        progress.begin("verifying", read);
        let written = new.written(read);
        verify(
            &args.destination,
            digest,
            content_digest(&written, &workers, &*progress)?,
        )?;
    }
    // What is added to the disk isn't in its digest.
    let holds = digest.filter(|_| size == read && wanted.is_none());
    if let Some(wanted) = wanted {
        wanted.write(new.image_mut())?;
    }
    new.publish(holds)?;
    drop(progress);
    tell(
        args.destination.as_path(),
        (format, read, size),
        gpt,
        context,
    );
    print_json(args, (format, size), source, gpt)?;
    Ok(Outcome::Done)
}

/// Makes the blob that `destination` is the address of, or goes on with what was begun there.
pub(super) fn begin(
    destination: &Path,
    options: &NewBlobImageOptions,
    context: &Context,
) -> Result<NewBlobImage> {
    let name = BlobName::parse(destination.to_str().unwrap_or_default())?;
    let connector = far::connector()?;
    context.tell_access(name.shown())?;
    let new = NewBlobImage::create(&connector, &name, options)?;
    if new.is_resumed() {
        context.note(format_args!(
            "{}: resuming an interrupted upload: existing data is compared, and only differences are sent",
            shown(destination)
        ));
    }
    Ok(new)
}

/// A blob for a disk of this size: a fixed VHD with the identity of `like`, or a raw disk.
pub(super) fn options_of(
    format: Format,
    size: u64,
    like: Option<&Footer>,
    replace: bool,
) -> NewBlobImageOptions {
    let footer = Footer::for_disk(DiskType::Fixed, size, like);
    NewBlobImageOptions {
        virtual_size: size,
        footer: (format == Format::Fixed).then_some(footer),
        replace,
    }
}

/// The format of an image in a blob: what was asked for, else raw or a fixed VHD by the name of the blob.
pub(super) fn format_of(destination: &Path, asked: Option<Format>) -> Result<Format> {
    let named = destination
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("raw"));
    let default = if named { Format::Raw } else { Format::Fixed };
    let format = asked.unwrap_or(default);
    if matches!(format, Format::Fixed | Format::Raw) {
        return Ok(format);
    }
    Err(Error::usage("a page blob is a fixed VHD or a raw disk")
        .with_path(destination)
        .with_found(format)
        .with_hint("omit -O, or use -O fixed"))
}

/// Reports what was written, and its use.
fn tell(
    blob: &Path,
    (format, read, size): (Format, u64, u64),
    gpt: Option<GptBackup>,
    context: &Context,
) {
    context.note(format_args!(
        "{}: {format}, virtual size {}",
        shown(blob),
        Size(size)
    ));
    if size > read {
        context.note(format_args!(
            "{} of zeros were added at the end to make whole MiB",
            Size(size - read)
        ));
    }
    match gpt {
        Some(GptBackup::Moved) => {
            context.note("the backup of the partition table (GPT) was moved to the end of the disk");
        }
        Some(GptBackup::Elsewhere) => context.note(
            "the backup of the partition table (GPT) is not at the end of the disk: --fix-gpt, with --force, brings it there",
        ),
        Some(GptBackup::AtEnd) | None => {}
    }
    if let Some(remark) = cloud_remark(format, size) {
        context.note(remark);
    }
}
