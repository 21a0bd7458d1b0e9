//! Verifies snapshots.

use serde::Serialize;

use super::chosen;
use crate::cli::context::Context;
use crate::cli::document::ErrorView;
use crate::cli::exit::Outcome;
use crate::cli::output::Output;
use crate::cli::rate::RateArgs;
use crate::cli::size::Count;
use crate::error::{Error, ErrorKind, Result};
use crate::snapshot::{FarDisk, FarStore, Work, verify_far};

/// The scope of the verification.
#[derive(Clone, Copy)]
pub(in crate::cli::snapshot) struct Look {
    /// Whether to read all data; otherwise each snapshot is only opened.
    pub(in crate::cli::snapshot) read_data: bool,
    pub(in crate::cli::snapshot) json: bool,
    pub(in crate::cli::snapshot) rate: RateArgs,
}

#[derive(Serialize)]
struct View {
    sound: bool,
    read_data: &'static str,
    disks: Vec<DiskView>,
}

#[derive(Serialize)]
struct DiskView {
    disk: String,
    snapshot_count: usize,
    /// The number of those whose content matches its recorded digest.
    right_count: usize,
    /// The number of those that were read and don't have a recorded digest.
    unknown_count: usize,
    unfinished: Option<&'static str>,
    findings: Vec<Finding>,
    error: Option<ErrorView>,
}

#[derive(Serialize)]
struct Finding {
    id: &'static str,
    snapshot: String,
    message: String,
}

/// Verifies the snapshots of some disks or all.
pub(in crate::cli::snapshot) fn verify(
    store: &dyn FarStore,
    only: &[String],
    look: Look,
    context: &Context,
) -> Result<Outcome> {
    let (mut views, mut errors) = (Vec::new(), Vec::new());
    for disk in chosen(store, only)? {
        views.push(verify_disk(store, &disk, look, &mut errors, context)?);
    }
    let view = View {
        sound: views
            .iter()
            .all(|disk| disk.findings.is_empty() && disk.error.is_none()),
        read_data: if look.read_data { "all" } else { "none" },
        disks: views,
    };
    if look.json || !context.quiet() || !view.sound {
        let mut output = Output::text()?;
        if look.json {
            output.json(&view)?;
        } else {
            text(&view, &mut output)?;
        }
        output.finish()?;
    }
    let mut errors = errors.into_iter();
    match errors.next() {
        Some(error) => {
            errors.for_each(|error| context.report(&error));
            Err(error)
        }
        None if view.sound => Ok(Outcome::Done),
        None => Ok(Outcome::No),
    }
}

fn verify_disk(
    store: &dyn FarStore,
    disk: &FarDisk,
    look: Look,
    errors: &mut Vec<Error>,
    context: &Context,
) -> Result<DiskView> {
    let mut view = DiskView {
        disk: disk.name.clone(),
        snapshot_count: disk.points.len(),
        right_count: 0,
        unknown_count: 0,
        unfinished: disk.unfinished,
        findings: Vec::new(),
        error: None,
    };
    let workers = context.workers_far()?;
    for point in &disk.points {
        let progress = look.rate.limit(context.progress());
        let work = Work {
            workers: &workers,
            progress: &*progress,
        };
        let found = if look.read_data {
            verify_far(store, disk, point, work)
        } else {
            store.image(disk, point).map(|_| false)
        };
        progress.check()?;
        match found {
            Ok(true) => view.right_count += 1,
            Ok(false) => view.unknown_count += 1,
            // An incomplete snapshot can't be restored either.
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Pending) => {
                view.findings.push(Finding {
                    id: error.id(),
                    snapshot: point.name.clone(),
                    message: error.to_string(),
                });
            }
            Err(error) => {
                view.error.get_or_insert_with(|| ErrorView::from(&error));
                errors.push(error);
            }
        }
    }
    Ok(view)
}

fn text(view: &View, output: &mut Output) -> Result<()> {
    for disk in &view.disks {
        for finding in &disk.findings {
            output.line(format_args!(
                "{}@{}: {}",
                disk.disk, finding.snapshot, finding.message
            ))?;
        }
        let count = Count(disk.snapshot_count as u64, "snapshot");
        let looked = match (view.read_data, disk.unknown_count) {
            ("none", _) => "opened, data not read (--read-data reads it)".to_owned(),
            (_, 0) => "all data read and compared with the digests".to_owned(),
            (_, unknown) => format!(
                "all data read; nothing is recorded of what {unknown} should hold, the others were compared with their digests"
            ),
        };
        let verdict = match (disk.findings.len() as u64, &disk.error) {
            (0, None) => "no problems".to_owned(),
            (0, Some(_)) => "not all could be read".to_owned(),
            (n, None) => Count(n, "problem").to_string(),
            (n, Some(_)) => format!("{}, and not all could be read", Count(n, "problem")),
        };
        if disk.snapshot_count == 0 && disk.error.is_none() {
            output.line(format_args!(
                "{}: there is no snapshot, so nothing was verified",
                disk.disk
            ))?;
        } else {
            output.line(format_args!("{}: {count}, {looked}: {verdict}", disk.disk))?;
        }
        if let Some(what) = disk.unfinished {
            output.line(format_args!("{}: its blob is {what}", disk.disk))?;
        }
    }
    Ok(())
}
