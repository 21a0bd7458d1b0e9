//! `vhd snapshot rebase`: changes what the first snapshot of a disk is stored as.

use serde::Serialize;

use super::like::{LikeView, parse_like};
use super::locking::{LockArgs, open_for};
use super::stores::DiskArgs;
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::output::Output;
use crate::cli::size::Size;
use crate::error::{Error, Result};
use crate::snapshot::{Access, OtherPoint, Work, rebase_disk};

/// Store the first snapshot of a disk as what differs from another disk's, or as all of the disk.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "All snapshots keep their content. With --like, the first one stores what differs from that snapshot of another disk, \
     which can't be deleted or pruned from then on. With --full, it becomes a base that depends on no other disk. The \
     new file is complete, and compared with the digest of its snapshot, before it takes the place of the old one; there \
     must be room for both.\n\n",
    "Examples:\n",
    "  vhd snapshot rebase --store /backup --disk web2 --like web@mon\n",
    "  vhd snapshot rebase --store /backup --disk web2 --full\n\n",
    crate::cli::args::exit_codes!(),
))]
#[command(group = clap::ArgGroup::new("how").required(true).args(["like", "full"]))]
pub(super) struct Args {
    #[command(flatten)]
    disk: DiskArgs,
    /// The snapshot of another disk of the store, or that disk, for its newest.
    #[arg(long, value_name = "DISK@SNAPSHOT", value_parser = parse_like)]
    like: Option<OtherPoint>,
    /// As all of the disk: a base.
    #[arg(long)]
    full: bool,
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
    snapshot: &'a str,
    like: Option<LikeView>,
    changed: bool,
    old_used_size: u64,
    used_size: u64,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let store = &args.disk.store.store;
    if crate::cli::far::is_address(store) {
        return Err(
            Error::usage("only in a folder do disks begin as snapshots of other disks")
                .with_path(store)
                .with_hint("name the folder of a store"),
        );
    }
    let patience = args.lock.patience(context);
    let (mut disk, _) = open_for(&args.disk, Access::Write, None, &patience)?;
    let workers = context.workers()?;
    let progress = context.progress();
    let work = Work {
        workers: &workers,
        progress: &*progress,
    };
    let done = patience.wait_for(|| rebase_disk(&mut disk, args.like.as_ref(), work))?;
    drop(progress);
    let point = &done.point;
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            disk: disk.name(),
            snapshot: &point.name,
            like: LikeView::of(point.like.as_ref()),
            changed: !done.unchanged,
            old_used_size: done.used_before,
            used_size: point.used_size,
        })?;
        output.finish()?;
        return Ok(Outcome::Done);
    }
    let name = format!("{}@{}", disk.name(), point.name);
    let kind = match &point.like {
        Some(like) => format!("like {like}"),
        None => "a base".to_owned(),
    };
    context.note(if done.unchanged {
        format!("{name}: {kind} already")
    } else {
        format!(
            "{name}: {kind} now, {} before, {} now",
            Size(done.used_before),
            Size(point.used_size)
        )
    });
    Ok(Outcome::Done)
}
