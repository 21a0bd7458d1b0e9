//! `vhd snapshot diff`: shows what changed between two points in time.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::change_report::{ChangeReport, ListFormat, Wanted};
use super::super::diff::{Side, parse_compression};
use super::args::overwrite;
use super::{Context, Count, DiskArgs, LockArgs, Outcome, Output, Result, Size, far, managed};
use crate::diff::Compression;
use crate::error::Error;
use crate::files::{Opened, refuse_same_file};
use crate::image::{ContentDigest, Image as _};
use crate::snapshot::{Between, Disk, Work, open_beside};
use crate::storage::{AtomicFile, Audience};
use crate::text::shown;

/// Show what changed between any two snapshots of a disk: list it, or write a diff.
///
/// Without -o the changed page ranges are listed, and the exit code tells whether there are any.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Only pages that some diff between the two touches are read. The first may be the newer one: then the diff leads \
     back.\n\n",
    "Examples:\n",
    "  vhd snapshot diff --store /backup --disk web mon wed\n",
    "  vhd snapshot diff --store /backup --disk web mon wed -o wed.vhddiff\n",
    "  vhd snapshot diff --store /backup --disk web wed mon -o back.vhddiff\n\n",
    super::args::exit_codes!(),
))]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) disk: DiskArgs,
    /// The snapshot that the diff starts from, or DISK@SNAPSHOT.
    pub(super) from: String,
    /// The snapshot that the diff leads to.
    pub(super) to: String,
    /// Write a diff to this file; - is stdout.
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// How to list the ranges.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        conflicts_with = "output"
    )]
    pub(super) format: ListFormat,
    /// Show which files own the changes, instead of the ranges: + created, - removed, M modified, R renamed.
    #[arg(long = "files", conflicts_with = "output")]
    pub(super) by_file: bool,
    /// With --files: also list files of which only owner, permissions or times changed, as A.
    #[arg(long, requires = "by_file")]
    pub(super) all: bool,
    /// How the diff stores data: none, zstd or zstd:LEVEL with a level from 1 to 19.
    #[arg(long, value_name = "HOW", default_value = "zstd", value_parser = parse_compression)]
    pub(super) compress: Compression,
    /// Replace the output if it exists.
    #[arg(long)]
    pub(super) force: bool,
    /// Print a JSON summary of the diff written; without -o the same as --format json.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) lock: LockArgs,
}

/// The output of `--json` about a diff that was written.
#[derive(Serialize)]
pub(super) struct Summary {
    pub(super) diff: String,
    pub(super) identity: String,
    pub(super) same: bool,
    pub(super) reversible: bool,
    pub(super) range_count: u64,
    pub(super) update_bytes: u64,
    pub(super) clear_bytes: u64,
    pub(super) file_size: u64,
    pub(super) base: Side,
    pub(super) target: Side,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if managed::is_wanted(&args.disk.store.store) {
        return managed::diff::run(args, context);
    }
    let ends = [&args.from, &args.to];
    if let Some(store) = far::store(&args.disk.store.store, context)? {
        if args.json && args.output.is_some() {
            let hint = "omit --json; vhd show --json shows what is in the diff";
            far::refuse(&args.disk.store.store, "--json with -o", hint)?;
        }
        let wish = far::Wish {
            disk: args.disk.disk.as_deref(),
            ends,
            output: args.output.as_deref(),
            wanted: wanted(args),
            compression: args.compress,
            overwrite: overwrite(args.force),
        };
        return far::diff(&*store, &wish, context);
    }
    let (name, names) = args.disk.meant(ends)?;
    let open = |disk: &mut Disk| {
        let find = |n: usize| disk.find(names.get(n).copied().unwrap_or_default());
        let mut between = Between::open(disk, find(0)?, find(1)?)?;
        let held = between.hold_files()?;
        Ok((between, held))
    };
    let patience = args.lock.patience(context);
    // The disk is kept: where not all files can be held, it has the lock.
    let (_disk, between) =
        patience.wait_for(|| open_beside(&args.disk.store.store, &name, open))?;
    let larger = between
        .from()
        .virtual_size()
        .max(between.to().virtual_size());
    let workers = context.workers()?;
    let progress = context.progress();
    progress.begin("comparing", larger);
    let work = Work {
        workers: &workers,
        progress: &*progress,
    };
    match &args.output {
        None => list(args, &between, work, context),
        Some(path) if path == Path::new("-") => {
            if args.json {
                return Err(
                    Error::usage("the diff and the JSON summary can't both go to stdout")
                        .with_hint("write the diff to a file with -o FILE"),
                );
            }
            let name = Path::new("(standard output)");
            let written = between.write(Output::binary()?, name, args.compress, work)?;
            written.out.finish()?;
            Ok(Outcome::Done)
        }
        Some(path) => {
            let files = [between.from().files(), between.to().files()].concat();
            refuse_same_file(path, &files)?;
            let file = AtomicFile::begin(path, overwrite(args.force), Audience::of(files)?)?;
            let out = file.file().appender();
            let written = between.write(out, path, args.compress, work)?;
            let (comparison, len) = (written.comparison, written.len);
            let (identity, reversible) = (
                ContentDigest(written.digest),
                written.trailer.way_back.is_some(),
            );
            drop(written);
            file.publish(overwrite(args.force))?;
            drop(progress);
            if args.json {
                let mut output = Output::text()?;
                output.json(&Summary {
                    diff: path.to_string_lossy().into_owned(),
                    identity: identity.to_string(),
                    same: comparison.is_same(),
                    reversible,
                    range_count: comparison.ranges,
                    update_bytes: comparison.update_bytes,
                    clear_bytes: comparison.clear_bytes,
                    file_size: len,
                    base: Side::new(between.from(), comparison.base_digest),
                    target: Side::new(between.to(), comparison.target_digest),
                })?;
                output.finish()?;
            }
            context.note(format_args!(
                "{}: {}, {} updated and {} cleared, in {}",
                shown(&path),
                Count(comparison.ranges, "range"),
                Size(comparison.update_bytes),
                Size(comparison.clear_bytes),
                Size(len)
            ));
            Ok(Outcome::Done)
        }
    }
}

fn wanted(args: &Args) -> Wanted {
    Wanted {
        format: args.format,
        json: args.json,
        by_file: args.by_file,
        all: args.all,
    }
}

/// Lists the ranges, or the files that own them.
fn list(args: &Args, between: &Between, work: Work<'_>, context: &Context) -> Result<Outcome> {
    let images: [&dyn Opened; 2] = [between.from(), between.to()];
    let mut report = ChangeReport::begin(wanted(args), images, context)?;
    let comparison = between.changes(work, |change| report.push(&change))?;
    between.from().check_unchanged()?;
    between.to().check_unchanged()?;
    report.end(images, &comparison, context)?;
    let same = comparison.is_same();
    Ok(if same { Outcome::Done } else { Outcome::No })
}
