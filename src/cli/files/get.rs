//! `vhd files get`: copies a file or a folder out of an image.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::list::{Item, item};
use super::place::{Place, open, place};
use crate::cli::args::{Parents, overwrite};
use crate::cli::context::{Context, refuse_files};
use crate::cli::exit::Outcome;
use crate::cli::message::Topic;
use crate::cli::output::Output;
use crate::error::{Error, Result};
use crate::inside::{NodeKind, tar};
use crate::storage::{AtomicFile, Audience};
use crate::text::shown;

#[derive(Debug, clap::Args)]
pub(super) struct Get {
    /// Image, partition and path.
    what: OsString,
    /// Write to this file; - is stdout. The modification time of a file is preserved.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Replace the output if it exists.
    #[arg(long)]
    force: bool,
    /// Print a JSON summary; the content goes to a file then.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    parents: Parents,
}

/// Counts of the copied files.
#[derive(Serialize)]
pub(super) struct Got {
    image: String,
    partition: u32,
    output: String,
    entry: Item,
}

pub(super) fn get(args: &Get, context: &Context) -> Result<Outcome> {
    if args.json && args.output == Path::new("-") {
        return Err(
            Error::usage("the content and the JSON summary can't both go to stdout")
                .with_hint("write the content to a file with -o FILE"),
        );
    }
    let (named, image) = open(Path::new(&args.what), &args.parents, context)?;
    let place = place(&named, &*image)?;
    if args.output == Path::new("-") {
        let mut output = if place.node.kind == NodeKind::Folder {
            Output::binary()?
        } else {
            Output::text()?
        };
        let whole = write(&place, &mut output, context)?;
        output.finish()?;
        image.check_unchanged()?;
        return whole;
    }
    refuse_files(&args.output, &*image)?;
    let overwrite = overwrite(args.force);
    let file = AtomicFile::begin(&args.output, overwrite, Audience::of(image.files())?)?;
    let whole = {
        let mut out = std::io::BufWriter::with_capacity(1 << 20, file.file().appender());
        let whole = write(&place, &mut out, context)?;
        std::io::Write::flush(&mut out)
            .map_err(|error| Error::io("cannot write", error).with_path(&args.output))?;
        whole
    };
    if place.node.kind != NodeKind::Folder {
        file.file().set_modified(place.node.modified)?;
    }
    image.check_unchanged()?;
    file.publish(overwrite)?;
    if args.json {
        let mut output = Output::text()?;
        output.json(&Got {
            image: named.image.to_string_lossy().into_owned(),
            partition: place.partition.number,
            output: args.output.to_string_lossy().into_owned(),
            entry: item(&place.files, &place.node, &place.path),
        })?;
        output.finish()?;
        return whole;
    }
    context.note(format_args!(
        "{}: {}",
        shown(&args.output),
        shown(OsStr::from_bytes(&place.path))
    ));
    whole
}

/// Writes a file, or a folder as tar. The inner result tells whether all of it was read.
pub(super) fn write(
    place: &Place<'_>,
    out: &mut dyn std::io::Write,
    context: &Context,
) -> Result<Result<Outcome>> {
    if place.node.kind == NodeKind::Folder {
        let name = place
            .path
            .split(|byte| *byte == b'/')
            .rfind(|part| !part.is_empty())
            .unwrap_or(b".");
        let summary = tar(&place.files, &place.node, name, out)?;
        for (path, why) in &summary.left_out {
            context.warn(
                Topic::LeftOut,
                format_args!("{}: left out: {why}", shown(OsStr::from_bytes(path))),
            );
        }
        return Ok(if summary.left_out.is_empty() {
            Ok(Outcome::Done)
        } else {
            Err(
                Error::unsupported("not all of the folder is in the archive")
                    .with_found(format_args!("{} left out", summary.left_out.len())),
            )
        });
    }
    if place.node.kind == NodeKind::Other {
        return Err(Error::usage("a device, a pipe or a socket has no content")
            .with_path(OsStr::from_bytes(&place.path)));
    }
    place.files.read(&place.node, |bytes| {
        out.write_all(bytes)
            .map_err(|error| Error::io("cannot write", error))
    })?;
    Ok(Ok(Outcome::Done))
}
