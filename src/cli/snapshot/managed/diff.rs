//! Lists the changes between two snapshots of a managed disk.

use std::path::Path;

use super::super::diff::{Args, Summary};
use super::super::{Context, Count, Outcome, Output, Result, Size};
use super::Managed;
use crate::cli::args::overwrite;
use crate::cli::change_report::{ChangeReport, Wanted};
use crate::cli::diff::Side;
use crate::diff::{CompareOptions, DiffOptions, WindowChange, compare, write_diff};
use crate::error::Error;
use crate::files::{BlobImage, Opened};
use crate::image::{ContentDigest, Image as _, NoneShared};
use crate::snapshot::Work;
use crate::storage::{AtomicFile, Audience, refuse_part_of_store};
use crate::text::shown;

pub(in super::super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let managed = Managed::open(&args.disk.store.store, context)?;
    let open = |name: &str| BlobImage::open(managed.read(managed.find(Some(name))?)?, None, None);
    let (base, target) = (open(&args.from)?, open(&args.to)?);
    let images: [&dyn Opened; 2] = [&base, &target];
    let workers = context.workers_reading(&images)?;
    match args.output.as_deref() {
        None => {
            let wanted = Wanted {
                format: args.format,
                json: args.json,
                by_file: args.by_file,
                all: args.all,
            };
            let mut report = ChangeReport::begin(wanted, images, context)?;
            let progress = context.progress();
            progress.begin("comparing", base.virtual_size().max(target.virtual_size()));
            let known = target.shared_with(&base);
            let options = CompareOptions {
                work: Work::new(&workers, &*progress),
                digests: false,
                payload: false,
                equal: known.as_deref().unwrap_or(&NoneShared),
            };
            let sink = |change: WindowChange| report.push(&change);
            let comparison = compare(&base, &target, options, Ok, sink)?;
            drop(progress);
            report.end(images, &comparison, context)?;
            Ok(if comparison.is_same() {
                Outcome::Done
            } else {
                Outcome::No
            })
        }
        Some(path) if path == Path::new("-") => Err(Error::usage(
            "the diff of two snapshots of a managed disk is written to a file",
        )
        .with_hint("name a file with -o")),
        Some(path) => {
            let progress = context.progress();
            let work = Work::new(&workers, &*progress);
            to_file(args, path, [&base, &target], (work, context))
        }
    }
}

fn to_file(
    args: &Args,
    path: &Path,
    [base, target]: [&BlobImage; 2],
    (work, context): (Work<'_>, &Context),
) -> Result<Outcome> {
    refuse_part_of_store(path)?;
    let file = AtomicFile::begin(path, overwrite(args.force), Audience::default())?;
    let known = target.shared_with(base);
    work.progress
        .begin("comparing", base.virtual_size().max(target.virtual_size()));
    let options = DiffOptions {
        work,
        compression: args.compress,
        digests: true,
        equal: known.as_deref().unwrap_or(&NoneShared),
        confirm: &|| {
            base.check_unchanged()?;
            target.check_unchanged()
        },
    };
    let out = file.file().appender();
    let written = write_diff(
        (base, base.side()),
        (target, target.side()),
        out,
        path,
        options,
    )?;
    let (changes, len, identity) = (
        written.comparison,
        written.len,
        ContentDigest(written.digest),
    );
    drop(written);
    file.publish(overwrite(args.force))?;
    if args.json {
        let mut output = Output::text()?;
        output.json(&Summary {
            diff: path.to_string_lossy().into_owned(),
            identity: identity.to_string(),
            same: changes.is_same(),
            reversible: false,
            range_count: changes.ranges,
            update_bytes: changes.update_bytes,
            clear_bytes: changes.clear_bytes,
            file_size: len,
            base: Side::new(base, changes.base_digest),
            target: Side::new(target, changes.target_digest),
        })?;
        output.finish()?;
    }
    context.note(format_args!(
        "{}: {}, {} updated and {} cleared, in {}",
        shown(&path),
        Count(changes.ranges, "range"),
        Size(changes.update_bytes),
        Size(changes.clear_bytes),
        Size(len)
    ));
    Ok(Outcome::Done)
}
