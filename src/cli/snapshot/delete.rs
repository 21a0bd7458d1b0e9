//! `vhd snapshot delete`: deletes a point in time and preserves all others.

use serde::Serialize;

use super::{Access, Context, DiskArgs, Outcome, Output, Result};
use crate::snapshot::{Deleted, Work, delete};

/// Delete a snapshot; all others keep their content.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "The diff of a snapshot between others is folded into the next one. When the base is deleted, the next diff is \
     applied to it in place, behind an undo journal, and it becomes the base of the next snapshot. A deletion that was \
     interrupted is finished by the next command on the disk.\n\n",
    "Examples:\n",
    "  vhd snapshot delete --store /backup --disk web mon\n",
    "  vhd snapshot delete --store /backup --disk web mon --last\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(flatten)]
    disk: DiskArgs,
    /// The snapshot, or DISK@SNAPSHOT.
    snapshot: String,
    /// Delete it even if it is the only one: nothing will be left of the disk.
    #[arg(long)]
    last: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct View<'a> {
    disk: &'a str,
    snapshot: &'a str,
    outcome: &'static str,
    next: Option<&'a str>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let (mut disk, names) = args.disk.open_for(Access::Write, [&args.snapshot])?;
    let name = names.first().copied().unwrap_or_default();
    let workers = context.workers()?;
    let progress = context.progress();
    let work = Work {
        workers: &workers,
        progress: &*progress,
    };
    let deleted = delete(&mut disk, name, args.last, work)?;
    drop(progress);
    let disk = disk.name();
    if args.json {
        let (outcome, next) = match &deleted {
            Deleted::Alone => ("removed", None),
            Deleted::Folded { next } => ("folded", Some(next.as_str())),
            Deleted::Rolled { next } => ("rolled", Some(next.as_str())),
        };
        let mut output = Output::text()?;
        output.json(&View {
            disk,
            snapshot: name,
            outcome,
            next,
        })?;
        output.finish()?;
    }
    context.note(match deleted {
        Deleted::Alone => format!("{disk}@{name}: deleted"),
        Deleted::Folded { next } => {
            format!("{disk}@{name}: deleted; what changed in it is part of {next} now")
        }
        Deleted::Rolled { next } => format!("{disk}@{name}: deleted; the base is {next} now"),
    });
    Ok(Outcome::Done)
}
