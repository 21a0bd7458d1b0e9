//! Lists the changes between two snapshots.

use std::path::Path;

use super::{choose, meant};
use crate::cli::change_report::{ChangeReport, ListFormat, Wanted};
use crate::cli::context::Context;
use crate::cli::diff::list_told;
use crate::cli::exit::Outcome;
use crate::cli::output::Output;
use crate::cli::size::{Count, Size};
use crate::diff::{
    CompareOptions, Compression, DiffOptions, Written, compare, write_diff, write_diff_known,
};
use crate::error::Result;
use crate::files::Opened;
use crate::image::{ContentDigest, Image, NoneShared};
use crate::parallel::Work;
use crate::snapshot::FarStore;
use crate::storage::{AtomicFile, Audience, Overwrite, refuse_part_of_store};
use crate::text::shown;

/// The requested output.
pub(in crate::cli::snapshot) struct Wish<'a> {
    pub(in crate::cli::snapshot) disk: Option<&'a str>,
    pub(in crate::cli::snapshot) ends: [&'a String; 2],
    pub(in crate::cli::snapshot) output: Option<&'a Path>,
    pub(in crate::cli::snapshot) wanted: Wanted,
    pub(in crate::cli::snapshot) compression: Compression,
    pub(in crate::cli::snapshot) overwrite: Overwrite,
}

/// Lists the changes, or writes a diff.
pub(in crate::cli::snapshot) fn diff(
    store: &dyn FarStore,
    wish: &Wish<'_>,
    context: &Context,
) -> Result<Outcome> {
    let (disk, names) = meant(store, wish.disk, wish.ends)?;
    let ends = [0, 1].map(|n| choose(store, &disk, names.get(n).copied(), None));
    let [from, to] = ends;
    let (from, to) = (from?, to?);
    let (base, target) = (store.image(&disk, from)?, store.image(&disk, to)?);
    let images: [&dyn Opened; 2] = [&*base, &*target];
    if wish.output.is_none()
        && wish.wanted.format == ListFormat::Xml
        && !wish.wanted.by_file
        && let Some(list) = target.told_changes(&*base)
    {
        return list_told(wish.wanted, images, list, context);
    }
    let known = target.shared_with(&*base);
    if let Some(reason) = target.why_nothing_is_shared() {
        context.note(format_args!(
            "the service doesn't list what changed, so both are read and compared: {reason}"
        ));
    }
    let known = known.unwrap_or_else(|| Box::new(NoneShared));
    let workers = context.workers_reading(&images)?;
    let Some(path) = wish.output else {
        let mut report = ChangeReport::begin(wish.wanted, images, context)?;
        let progress = context.progress();
        progress.begin("comparing", base.virtual_size().max(target.virtual_size()));
        let options = CompareOptions {
            work: Work::new(&workers, &*progress),
            digests: false,
            payload: false,
            equal: &*known,
        };
        let sink = |change| report.push(&change);
        let comparison = compare(&*base, &*target, options, Ok, sink)?;
        drop(progress);
        report.end(images, &comparison, context)?;
        let same = comparison.is_same();
        return Ok(if same { Outcome::Done } else { Outcome::No });
    };
    let digests = [from.digest(), to.digest()];
    let progress = context.progress();
    progress.begin("comparing", base.virtual_size().max(target.virtual_size()));
    let options = DiffOptions {
        work: Work::new(&workers, &*progress),
        compression: wish.compression,
        digests: true,
        equal: &*known,
        confirm: &|| Ok(()),
    };
    if path == Path::new("-") {
        let out = Output::binary()?;
        let written = write(
            images,
            digests,
            (out, Path::new("(standard output)")),
            options,
        )?;
        written.out.finish()?;
        return Ok(Outcome::Done);
    }
    refuse_part_of_store(path)?;
    let file = AtomicFile::begin(path, wish.overwrite, Audience::default())?;
    let out = file.file().appender();
    let written = write(images, digests, (out, path), options)?;
    let (comparison, len) = (written.comparison, written.len);
    drop(written);
    file.publish(wish.overwrite)?;
    drop(progress);
    context.note(format_args!(
        "{}: {}, {} updated and {} cleared, in {}",
        shown(path),
        Count(comparison.ranges, "range"),
        Size(comparison.update_bytes),
        Size(comparison.clear_bytes),
        Size(len)
    ));
    Ok(Outcome::Done)
}

/// Writes the diff. If digests of both snapshots are recorded, they are used, so that only the changes are read.
fn write<W: std::io::Write>(
    [base, target]: [&dyn Opened; 2],
    digests: [Option<ContentDigest>; 2],
    (out, name): (W, &Path),
    options: DiffOptions<'_>,
) -> Result<Written<W>> {
    let (base, target) = (
        (base as &dyn Image, base.side()),
        (target as &dyn Image, target.side()),
    );
    if digests.iter().all(Option::is_some) {
        return write_diff_known(base, target, digests, out, name, options);
    }
    write_diff(base, target, out, name, options)
}
