//! Restores a snapshot to a file, a pipe, or a new blob.

use std::cell::Cell;
use std::path::Path;

use serde::Serialize;

use super::{choose, meant};
use crate::cli::args::{OutputFormat, cloud_remark};
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::output::Output;
use crate::cli::rate::RateArgs;
use crate::cli::size::Size;
use crate::cli::{cloud, far, fetch, upload, upload_disk};
use crate::error::{Error, Result};
use crate::files::{FetchedFrom, Format, NewImageOptions, Opened};
use crate::image::{ContentDigest, CopyOptions, copy};
use crate::parallel::Work;
use crate::snapshot::{FarDisk, FarPoint, FarStore, Time, check_far_content};
use crate::storage::{Audience, Overwrite, refuse_part_of_store};
use crate::text::shown;

/// The snapshot to restore, and the destination.
pub(in crate::cli::snapshot) struct Restore<'a> {
    pub(in crate::cli::snapshot) disk: Option<&'a str>,
    pub(in crate::cli::snapshot) snapshot: Option<&'a String>,
    pub(in crate::cli::snapshot) at: Option<Time>,
    pub(in crate::cli::snapshot) output: &'a Path,
    pub(in crate::cli::snapshot) format: Option<OutputFormat>,
    pub(in crate::cli::snapshot) overwrite: Overwrite,
    pub(in crate::cli::snapshot) dense: bool,
    pub(in crate::cli::snapshot) json: bool,
    pub(in crate::cli::snapshot) rate: RateArgs,
}

#[derive(Serialize)]
struct View {
    disk: String,
    snapshot: String,
    image: String,
    format: &'static str,
    outcome: &'static str,
    virtual_size: u64,
    content_digest: Option<String>,
}

/// Restores a snapshot as an image.
pub(in crate::cli::snapshot) fn restore(
    store: &dyn FarStore,
    how: &Restore<'_>,
    context: &Context,
) -> Result<Outcome> {
    let (disk, names) = meant(store, how.disk, how.snapshot)?;
    let point = choose(store, &disk, names.first().copied(), how.at)?;
    let image = store.image(&disk, point)?;
    let check = |found: Option<ContentDigest>| {
        found.map_or(Ok(()), |found| check_far_content(&*image, point, found))
    };
    let (format, found) = if how.output == Path::new("-") {
        let found = to_stdout(&*image, how, context)?;
        check(found)?;
        context.note_disk_sent(image.path(), image.virtual_size());
        return Ok(Outcome::Done);
    } else if cloud::is_name(how.output) {
        to_disk(&*image, how, check, context)?
    } else if far::is_address(how.output) {
        to_blob(&*image, how, check, context)?
    } else {
        let from = fetched_from(store, &disk, point, &*image);
        to_file((&*image, from.as_ref()), how, check, context)?
    };
    if point.digest().is_none() {
        context.note("nothing is recorded of what this snapshot should hold: it was written as the service has it");
    }
    context.note(format_args!(
        "{}: {} as {format}, virtual size {}",
        shown(how.output),
        shown(image.path()),
        Size(image.virtual_size())
    ));
    if how.json {
        let mut output = Output::text()?;
        output.json(&View {
            disk: disk.name.clone(),
            snapshot: point.name.clone(),
            image: how.output.to_string_lossy().into_owned(),
            format: format.name(),
            outcome: "restored",
            virtual_size: image.virtual_size(),
            content_digest: found.map(|digest| digest.to_string()),
        })?;
        output.finish()?;
    }
    Ok(Outcome::Done)
}

fn to_stdout(
    image: &dyn Opened,
    how: &Restore<'_>,
    context: &Context,
) -> Result<Option<ContentDigest>> {
    if how.json {
        return Err(
            Error::usage("the disk and JSON can't both go to stdout").with_hint("omit --json")
        );
    }
    let size = image.virtual_size();
    let mut out = Output::disk(how.format, size)?;
    let workers = context.workers_reading(&[image])?;
    let progress = how.rate.limit(context.progress());
    progress.begin("restoring", size);
    let copying = CopyOptions {
        work: Work::new(&workers, &*progress),
        digest: true,
    };
    let found = copy(image, &mut out, copying)?;
    out.finish()?;
    image.check_unchanged()?;
    Ok(found)
}

type Written = (Format, Option<ContentDigest>);

/// Writes the point to a new managed disk.
fn to_disk(
    image: &dyn Opened,
    how: &Restore<'_>,
    check: impl Fn(Option<ContentDigest>) -> Result<()>,
    context: &Context,
) -> Result<Written> {
    upload_disk::refuse(
        how.output,
        how.format,
        &[
            ("--dense", how.dense),
            ("--force", how.overwrite == Overwrite::Yes),
        ],
    )?;
    let upload = upload_disk::Upload {
        output: how.output,
        doing: "restoring",
        fix_gpt: false,
        verify: false,
    };
    let found = Cell::new(None);
    let keep = |digest| {
        found.set(Some(digest));
        check(Some(digest))
    };
    upload.run(image, keep, context)?;
    Ok((Format::Fixed, found.get()))
}

fn to_blob(
    image: &dyn Opened,
    how: &Restore<'_>,
    check: impl Fn(Option<ContentDigest>) -> Result<()>,
    context: &Context,
) -> Result<Written> {
    if how.dense {
        return Err(
            Error::usage("a page blob has no space that --dense could reserve")
                .with_path(how.output)
                .with_hint("omit --dense"),
        );
    }
    let size = image.virtual_size();
    let format = upload::format_of(how.output, how.format.map(Into::into))?;
    let replace = how.overwrite == Overwrite::Yes;
    let options = upload::options_of(format, size, image.footer(), replace);
    let mut new = upload::begin(how.output, &options, context)?;
    let workers = context.workers_far()?;
    let progress = context.progress();
    progress.begin("restoring", size);
    let copying = CopyOptions {
        work: Work::new(&workers, &*progress),
        digest: true,
    };
    let found = new.fill(image, copying)?;
    check(found)?;
    image.check_unchanged()?;
    new.publish(found)?;
    drop(progress);
    if let Some(remark) = cloud_remark(format, size) {
        context.note(remark);
    }
    Ok((format, found))
}

/// What identifies a snapshot that is fetched. The address of a managed disk's snapshot is another one with each access.
fn fetched_from(
    store: &dyn FarStore,
    disk: &FarDisk,
    point: &FarPoint,
    image: &dyn Opened,
) -> Option<FetchedFrom> {
    let is_managed = image
        .as_blob()
        .is_some_and(|blob| blob.store().is_managed_disk());
    if !is_managed {
        return image.fetched_from();
    }
    Some(FetchedFrom {
        source: format!("{}::{}@{}", shown(store.shown()), disk.key, point.key),
        version: point.time_text(),
    })
}

fn to_file(
    (image, from): (&dyn Opened, Option<&FetchedFrom>),
    how: &Restore<'_>,
    check: impl Fn(Option<ContentDigest>) -> Result<()>,
    context: &Context,
) -> Result<Written> {
    refuse_part_of_store(how.output)?;
    let format = match how.format {
        Some(format) => format.into(),
        None => match Format::by_name(how.output)? {
            Format::Raw => Format::Raw,
            _ => Format::Fixed,
        },
    };
    let size = image.virtual_size();
    let options = NewImageOptions {
        format,
        virtual_size: size,
        block_size: None,
        identity: image.footer().cloned(),
        parent: None,
        overwrite: how.overwrite,
        made_from: Audience::default(),
        dense: how.dense,
    };
    let mut new = fetch::begin(how.output, &options, from, context)?;
    let workers = context.workers_reading(&[image])?;
    let progress = how.rate.limit(context.progress());
    progress.begin("restoring", size);
    let copying = CopyOptions {
        work: Work::new(&workers, &*progress),
        digest: true,
    };
    let found = fetch::fill((how.output, &mut new), image, copying, context)?;
    if let Err(error) = check(found) {
        new.discard();
        return Err(error);
    }
    image.check_unchanged()?;
    new.complete(&*progress)?;
    match found {
        Some(digest) => drop(new.publish_stamped(digest)?),
        None => new.publish()?,
    }
    Ok((format, found))
}
