//! `vhd snapshot delete`: deletes a point in time and preserves all others.

use std::collections::HashSet;

use serde::Serialize;

use super::{Access, Context, DiskArgs, LockArgs, Outcome, Output, Result, far, managed, open_for};
use crate::error::Error;
use crate::snapshot::{Deleted, Disk, Manifest, Work, delete_held, refuse_held};

/// Delete snapshots; all others keep their content.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "The diff of a snapshot between others is folded into the next one, and so is a base; one that is an image (stores \
     of version 1) is changed in place, behind an undo journal. A snapshot as which another disk begins isn't deleted \
     until that is a disk by itself (vhd snapshot rebase --full). A deletion that was \
     interrupted is finished by the next command on the disk. A snapshot that is held (vhd snapshot hold) is deleted only \
     with --release-hold.\n\n",
    "Examples:\n",
    "  vhd snapshot delete --store /backup --disk web mon\n",
    "  vhd snapshot delete --store /backup --disk web mon tue --dry-run\n",
    "  vhd snapshot delete --store /backup --disk web mon --last\n\n",
    super::args::exit_codes!(),
))]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) disk: DiskArgs,
    /// The snapshots, or DISK@SNAPSHOT.
    #[arg(required = true)]
    pub(super) snapshots: Vec<String>,
    /// Delete it even if it is the only one: nothing will be left of the disk.
    #[arg(long)]
    pub(super) last: bool,
    /// Delete them even if they are held.
    #[arg(long)]
    pub(super) release_hold: bool,
    /// Say what would be deleted; delete nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) lock: LockArgs,
}

/// The output of `--json`; of several snapshots, that of the first one and then of each.
#[derive(Serialize)]
struct View<'a> {
    dry_run: bool,
    disk: &'a str,
    snapshot: &'a str,
    outcome: &'static str,
    next: Option<&'a str>,
    deleted: &'a [PointView],
}

#[derive(Serialize)]
struct PointView {
    snapshot: String,
    /// `removed`, `folded`, `rolled`, or with --dry-run `would_be_deleted`.
    outcome: &'static str,
    next: Option<String>,
}

impl PointView {
    fn new(name: &str, deleted: Deleted) -> Self {
        let (outcome, next) = match deleted {
            Deleted::Alone => ("removed", None),
            Deleted::Folded { next } => ("folded", Some(next)),
            Deleted::Rolled { next } => ("rolled", Some(next)),
        };
        Self {
            snapshot: name.to_owned(),
            outcome,
            next,
        }
    }

    fn say(&self, disk: &str, context: &Context) {
        let name = &self.snapshot;
        context.note(match (self.outcome, &self.next) {
            ("folded", Some(next)) => {
                format!("{disk}@{name}: deleted; what changed in it is part of {next} now")
            }
            ("rolled", Some(next)) => format!("{disk}@{name}: deleted; the base is {next} now"),
            ("removed", _) => format!("{disk}@{name}: deleted"),
            _ => format!("{disk}@{name}: would be deleted"),
        });
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if managed::is_wanted(&args.disk.store.store) {
        return managed::delete::run(args, context);
    }
    if let Some(store) = far::store(&args.disk.store.store, context)? {
        let how = far::Delete {
            last: args.last,
            release_hold: args.release_hold,
            dry_run: args.dry_run,
            json: args.json,
        };
        let named = (args.disk.disk.as_deref(), args.snapshots.as_slice());
        let patience = args.lock.patience(context);
        return far::delete(&*store, named, how, (&patience, context));
    }
    let patience = args.lock.patience(context);
    let (mut disk, mut names) = if args.dry_run {
        let (name, names) = args.disk.meant(&args.snapshots)?;
        (Disk::look(&args.disk.store.store, &name)?, names)
    } else {
        open_for(&args.disk, Access::Write, &args.snapshots, &patience)?
    };
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(*name));
    check(args, &disk, &names)?;
    let mut done = Vec::new();
    for name in &names {
        let view = if args.dry_run {
            PointView {
                snapshot: (*name).to_owned(),
                outcome: "would_be_deleted",
                next: None,
            }
        } else {
            let workers = context.workers()?;
            let progress = context.progress();
            let work = Work {
                workers: &workers,
                progress: &*progress,
            };
            PointView::new(name, delete_held(&mut disk, name, args.last, work)?)
        };
        view.say(disk.name(), context);
        done.push(view);
    }
    if let (true, Some(first)) = (args.json, done.first()) {
        let mut output = Output::text()?;
        output.json(&View {
            dry_run: args.dry_run,
            disk: disk.name(),
            snapshot: &first.snapshot,
            outcome: first.outcome,
            next: first.next.as_deref(),
            deleted: &done,
        })?;
        output.finish()?;
    }
    Ok(Outcome::Done)
}

/// An error if one of the snapshots can't be deleted, before any of them is.
fn check(args: &Args, disk: &Disk, names: &[&str]) -> Result<()> {
    let is_part = |name: &str| disk.copying().is_some_and(|part| part.name == name);
    for name in names.iter().filter(|name| !is_part(name)) {
        let point = disk.find(name)?;
        if !args.release_hold {
            refuse_held(disk, point).map_err(|error| {
                error.override_hint("use --release-hold to delete it all the same")
            })?;
        }
    }
    let named = |point: &&Manifest| names.contains(&point.name.as_str());
    let gone: Vec<&Manifest> = disk.points().iter().filter(named).collect();
    disk.refuse_stood_on(&gone)?;
    let left = disk.points().iter();
    let left = left.filter(|point| !names.contains(&point.name.as_str()));
    if left.count() == 0 && !args.last && !disk.points().is_empty() {
        let what = if names.len() == 1 {
            "this is the last snapshot of the disk"
        } else {
            "these are all snapshots of the disk"
        };
        return Err(Error::usage(what)
            .with_path(disk.folder())
            .with_found(names.join(", "))
            .with_hint("use --last to delete it too; nothing will be left of the disk"));
    }
    Ok(())
}
