//! Restores a snapshot of a managed disk to a new image.

use serde::Serialize;

use super::super::restore::Args;
use super::super::{Context, Outcome, Output, Result, Size};
use super::Managed;
use crate::cli::args::{default_format, overwrite};
use crate::cli::{cloud, upload_disk};
use crate::cloud::Resource;
use crate::error::Error;
use crate::files::{self, BlobImage, Format};
use crate::image::Image as _;
use crate::snapshot::{Work, write_image};
use crate::storage::{Audience, refuse_part_of_store};
use crate::text::shown;

#[derive(Serialize)]
struct View {
    disk: String,
    snapshot: String,
    image: String,
    format: &'static str,
    outcome: &'static str,
    virtual_size: u64,
}

/// Lets the service create a disk from the snapshot: nothing is read.
fn to_disk(
    args: &Args,
    (managed, found): (&Managed, &Resource),
    context: &Context,
) -> Result<Outcome> {
    upload_disk::refuse(
        &args.output,
        args.output_format,
        &[("--dense", args.dense), ("--force", args.force > 0)],
    )?;
    let name = cloud::name(&args.output)?;
    let made = managed.cloud.create_disk_from(&name, found)?;
    let size = made.size.or(found.size).unwrap_or(0);
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            disk: managed.name.clone(),
            snapshot: found.name.clone(),
            image: args.output.to_string_lossy().into_owned(),
            format: Format::Fixed.name(),
            outcome: "restored",
            virtual_size: size,
        })?;
        output.finish()?;
    }
    context.note(format_args!(
        "{}: a managed disk from {}@{}, in {}, virtual size {}",
        shown(&args.output),
        managed.name,
        found.name,
        made.location,
        Size(size)
    ));
    Ok(Outcome::Done)
}

pub(in super::super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if args.output == std::path::Path::new("-") || crate::cli::far::is_address(&args.output) {
        return Err(Error::usage("a snapshot of a managed disk is restored to a file")
            .with_path(&args.output)
            .with_hint("name a file with -o; vhd convert writes the snapshot to a pipe or to a page blob"));
    }
    let managed = Managed::open(&args.disk.store.store, context)?;
    let found = managed.find(args.snapshot.as_deref())?;
    if cloud::is_name(&args.output) {
        return to_disk(args, (&managed, found), context);
    }
    refuse_part_of_store(&args.output)?;
    let image = BlobImage::open(managed.read(found)?, None, None)?;
    let format = match args.output_format.map(Format::from) {
        Some(Format::Differencing) => {
            return Err(Error::usage(
                "a snapshot of a managed disk is not restored to a differencing VHD",
            )
            .with_hint("omit -O"));
        }
        Some(format) => format,
        None => match default_format(&args.output)? {
            Format::Dynamic => Format::Fixed,
            other => other,
        },
    };
    let output = files::Output {
        path: &args.output,
        format,
        overwrite: overwrite(args.force),
        made_from: &Audience::default(),
        dense: args.dense,
    };
    let workers = context.workers_far()?;
    let progress = args.rate.limit(context.progress());
    write_image(&image, None, output, Work::new(&workers, &*progress))?;
    drop(progress);
    let size = image.virtual_size();
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            disk: managed.name.clone(),
            snapshot: found.name.clone(),
            image: args.output.to_string_lossy().into_owned(),
            format: format.name(),
            outcome: "restored",
            virtual_size: size,
        })?;
        output.finish()?;
    }
    context.note(format_args!(
        "{}: {}@{} as {format}, virtual size {}",
        shown(&args.output),
        managed.name,
        found.name,
        Size(size)
    ));
    Ok(Outcome::Done)
}
