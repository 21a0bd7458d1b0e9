//! `vhd snapshot rename`: gives a snapshot another name.

use serde::Serialize;

use super::locking::{LockArgs, open_for};
use super::stores::DiskArgs;
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::output::Output;
use crate::error::Result;
use crate::snapshot::{Access, Work, rename_point};

/// Give a snapshot another name.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Its files get the new name, too; its id, by which copies know it, stays. A copy that has it already keeps the old \
     name.\n\n",
    "Examples:\n",
    "  vhd snapshot rename --store /backup --disk web mon before-upgrade\n",
    "  vhd snapshot rename --store /backup web@mon before-upgrade\n\n",
    crate::cli::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(flatten)]
    disk: DiskArgs,
    /// The snapshot, or DISK@SNAPSHOT.
    snapshot: String,
    /// Its new name.
    #[arg(value_name = "NAME")]
    new: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lock: LockArgs,
}

/// What `--json` prints.
#[derive(Serialize)]
struct View<'a> {
    disk: &'a str,
    old_name: &'a str,
    name: &'a str,
    id: &'a str,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let patience = args.lock.patience(context);
    let (mut disk, names) = open_for(&args.disk, Access::Write, [&args.snapshot], &patience)?;
    let before = names.first().copied().unwrap_or(&args.snapshot);
    let workers = context.workers()?;
    let progress = context.progress();
    let work = Work {
        workers: &workers,
        progress: &*progress,
    };
    let point = rename_point(&mut disk, before, &args.new, work)?;
    drop(progress);
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            disk: disk.name(),
            old_name: before,
            name: &point.name,
            id: &point.id,
        })?;
        output.finish()?;
    } else {
        let disk = disk.name();
        context.note(format_args!("{disk}@{before}: {disk}@{} now", point.name));
    }
    Ok(Outcome::Done)
}
