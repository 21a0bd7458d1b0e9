//! Copying from a folder to a container, back, and between two containers.

use std::path::Path;

use serde::Serialize;

use super::{chosen, store};
use crate::cli::context::Context;
use crate::cli::document::ErrorView;
use crate::cli::exit::Outcome;
use crate::cli::output::Output;
use crate::cli::rate::RateArgs;
use crate::cli::size::{Count, Size};
use crate::cli::snapshot::copy::planned_text;
use crate::cli::snapshot::locking::Patience;
use crate::error::{Error, Result};
use crate::snapshot::{
    FarCopied, FarEnd, FarStore, FarWanted, Work, copy_across, copy_in, copy_out, would_copy_far,
};

#[derive(Serialize)]
struct View {
    dry_run: bool,
    disks: Vec<DiskView>,
}

#[derive(Serialize)]
struct DiskView {
    disk: String,
    newest: Option<String>,
    copied_bytes: u64,
    copied: Vec<PointView>,
    error: Option<ErrorView>,
}

#[derive(Serialize)]
struct PointView {
    name: String,
    copied_bytes: u64,
    resumed: bool,
}

impl From<&FarCopied> for DiskView {
    fn from(copied: &FarCopied) -> Self {
        Self {
            disk: copied.disk.clone(),
            newest: copied.newest.clone(),
            copied_bytes: bytes(copied),
            copied: copied
                .points
                .iter()
                .map(|point| PointView {
                    name: point.name.clone(),
                    copied_bytes: point.bytes,
                    resumed: point.resumed,
                })
                .collect(),
            error: copied.error.as_ref().map(ErrorView::from),
        }
    }
}

fn bytes(copied: &FarCopied) -> u64 {
    let all = copied.points.iter().map(|point| point.bytes);
    all.fold(0, u64::saturating_add)
}

/// Copies the snapshots that `to` lacks from `from`; at least one of them isn't a folder.
pub(in crate::cli::snapshot) fn copy(
    (from, to): (&Path, &Path),
    (only, json, rate): (&[String], bool, RateArgs),
    dry_run: bool,
    (patience, context): (&Patience<'_>, &Context),
) -> Result<Outcome> {
    if from == to {
        return Err(Error::usage("a store can't be copied to itself")
            .with_path(to)
            .with_hint("name another store with --to"));
    }
    let (source, target) = (store(from, context)?, store(to, context)?);
    let names = match &source {
        None => super::super::chosen(from, only)?,
        Some(source) => {
            let disks = chosen(&**source, only)?;
            disks.into_iter().map(|disk| disk.name).collect()
        }
    };
    if dry_run {
        return would_copy(
            (end(source.as_deref(), from), end(target.as_deref(), to)),
            &names,
            json,
            context,
        );
    }
    let workers = context.workers_far()?;
    let mut all = Vec::new();
    for name in names {
        let progress = rate.limit(context.progress());
        let work = Work {
            workers: &workers,
            progress: &*progress,
        };
        let once = || match (&source, &target) {
            (Some(source), Some(target)) => copy_across(&**source, &**target, &name, work),
            (Some(source), None) => copy_out(&**source, to, &name, work),
            (None, Some(target)) => copy_in(from, &**target, &name, work),
            (None, None) => FarCopied::default(),
        };
        let mut copied = once();
        while copied
            .error
            .as_ref()
            .is_some_and(|error| patience.waits(error))
        {
            copied.go_on(once());
        }
        copied.error = copied.error.take().map(|error| patience.with_advice(error));
        progress.check()?;
        drop(progress);
        say(&copied, context);
        all.push(copied);
    }
    if json {
        let mut output = Output::text()?;
        output.json(&View {
            dry_run: false,
            disks: all.iter().map(DiskView::from).collect(),
        })?;
        output.finish()?;
    }
    // All are reported; the first one determines the exit code.
    let mut errors = all.into_iter().filter_map(|copied| copied.error);
    let first = errors.next();
    for error in errors {
        context.report(&error);
    }
    first.map_or(Ok(Outcome::Done), Err)
}

/// An end of the copy: the store on the service, else the folder.
fn end<'a>(store: Option<&'a dyn FarStore>, folder: &'a Path) -> FarEnd<'a> {
    store.map_or(FarEnd::Folder(folder), FarEnd::Service)
}

/// Says what a copy would bring, and copies nothing.
fn would_copy(
    (from, to): (FarEnd<'_>, FarEnd<'_>),
    names: &[String],
    json: bool,
    context: &Context,
) -> Result<Outcome> {
    let (mut views, mut first) = (Vec::new(), None);
    for disk in names {
        let planned = would_copy_far(from, to, disk);
        let points = planned.as_deref().unwrap_or(&[]);
        let sum = |sum: u64, point: &FarWanted| sum.saturating_add(point.bytes);
        let bytes = points.iter().fold(0, sum);
        if planned.is_ok() {
            let names: Vec<_> = points.iter().map(|point| point.name.as_str()).collect();
            context.note(planned_text(disk, &names, ("at most", bytes)));
        }
        views.push(DiskView {
            disk: disk.clone(),
            newest: points.last().map(|point| point.name.clone()),
            copied_bytes: bytes,
            copied: points
                .iter()
                .map(|point| PointView {
                    name: point.name.clone(),
                    copied_bytes: point.bytes,
                    resumed: false,
                })
                .collect(),
            error: planned.as_ref().err().map(ErrorView::from),
        });
        if let Err(error) = planned {
            match first {
                None => first = Some(error),
                Some(_) => context.report(&error),
            }
        }
    }
    if json {
        let mut output = Output::text()?;
        output.json(&View {
            dry_run: true,
            disks: views,
        })?;
        output.finish()?;
    }
    first.map_or(Ok(Outcome::Done), Err)
}

fn say(copied: &FarCopied, context: &Context) {
    let disk = &copied.disk;
    let newest = match &copied.newest {
        Some(newest) => format!("the newest is {newest}"),
        None => "there is no snapshot".to_owned(),
    };
    if copied.is_new && !copied.points.is_empty() {
        context.note(format_args!("{disk}: a new disk there"));
    }
    for point in copied.points.iter().filter(|point| point.resumed) {
        context.note(format_args!(
            "{disk}@{}: went on with what was interrupted",
            point.name
        ));
    }
    let count = copied.points.len() as u64;
    if count > 0 {
        context.note(format_args!(
            "{disk}: {} copied, {}; {newest}",
            Count(count, "snapshot"),
            Size(bytes(copied)),
        ));
    } else if copied.error.is_none() {
        context.note(format_args!("{disk}: nothing to copy; {newest}"));
    }
}
