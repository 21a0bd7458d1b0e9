//! `vhd snapshot receive`: receives snapshots from a stream.

use std::path::Path;

use serde::Serialize;

use super::{
    Context, Count, LockArgs, Manifest, Outcome, Output, RateArgs, Result, StoreArgs,
    check_disk_name, disks, say_what_is_unusual,
};
use crate::cli::output::STDOUT;
use crate::cli::stdin::{self, Expected, STDIN};
use crate::snapshot::{
    Future, Received, STORE_VERSION, Standing, Work, init_if_none, receive_when_free,
    write_standing,
};
use crate::storage::Audience;

/// Receive snapshots from vhd snapshot send on stdin.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Each snapshot is read back and compared with its digest before it counts. Snapshots that the store already has are skipped. \
     If the stream is cut off or damaged, the snapshots that came completely before that are kept, and the message says how to continue.\n\n\
     --status prints point:ID:DIGEST, or point:none if the disk has no snapshot yet. The sender continues from exactly there.\n\n",
    "Examples:\n",
    "  vhd snapshot receive --store /b --disk web --status\n",
    "  vhd snapshot send --store /backup --disk web | ssh far vhd snapshot receive --store /b\n",
    "  zstd -dc web.vhdsnap.zst | vhd snapshot receive --store /b --disk web2\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// The disk to add the snapshots to [default: the name of the disk they come from].
    #[arg(long, value_name = "NAME")]
    disk: Option<String>,
    /// Make the folder a store first if it isn't one, as vhd snapshot init does.
    #[arg(long)]
    init: bool,
    #[command(flatten)]
    asked: StatusArgs,
    /// Accept snapshots whose time is more than a day ahead of the clock here.
    #[arg(long)]
    accept_future: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lock: LockArgs,
    #[command(flatten)]
    rate: RateArgs,
}

// To learn where the disk stands, instead of receiving.
#[derive(Debug, clap::Args)]
struct StatusArgs {
    /// Receive nothing: print what identifies the newest snapshot of the disk, for vhd snapshot send --after.
    #[arg(long, requires = "disk", conflicts_with_all = ["init", "accept_future", "limit_rate"])]
    status: bool,
    /// Write it with its window hashes, for vhd snapshot send --after-status.
    #[arg(long, requires = "status", conflicts_with = "json")]
    windows: bool,
}

#[derive(Serialize)]
struct View<'a> {
    disk: &'a str,
    newest: Option<&'a str>,
    point: String,
    received: Vec<PointView<'a>>,
    skipped: u32,
}

/// What `--status --json` prints.
#[derive(Serialize)]
struct StatusView<'a> {
    disk: &'a str,
    newest: Option<&'a str>,
    point: String,
    received: [PointView<'a>; 0],
    skipped: u32,
}

#[derive(Serialize)]
struct PointView<'a> {
    name: &'a str,
    id: &'a str,
}

impl<'a> From<&'a Received> for View<'a> {
    fn from(received: &'a Received) -> Self {
        let view = |point: &'a Manifest| PointView {
            name: &point.name,
            id: &point.id,
        };
        Self {
            disk: &received.disk,
            newest: received.newest.as_ref().map(|point| point.name.as_str()),
            point: Standing::of(received.newest.as_ref()).to_string(),
            received: received.points.iter().map(view).collect(),
            skipped: received.skipped,
        }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if let Some(name) = &args.disk {
        check_disk_name(name)?;
    }
    let store = args.store.store.as_path();
    if let (true, Some(disk)) = (args.asked.status, &args.disk) {
        return status(args, disk, context);
    }
    let stdin = stdin::open(Expected::Stream)?;
    if args.init {
        init_if_none(store, STORE_VERSION, &Audience::nobody_else())?;
    }
    disks(store)?;
    let workers = context.workers()?;
    let progress = args.rate.limit(context.progress());
    let work = Work {
        workers: &workers,
        progress: &*progress,
    };
    let input = (stdin, Path::new(STDIN));
    let future = if args.accept_future {
        Future::Accepted
    } else {
        Future::Refused
    };
    let patience = args.lock.patience(context);
    let mut received = receive_when_free(
        store,
        args.disk.as_deref(),
        input,
        (future, &|error| patience.waits(error)),
        work,
    );
    drop(progress);
    received.error = received
        .error
        .take()
        .map(|error| patience.with_advice(error));
    say_what_is_unusual(
        (store, &received.disk),
        received.is_new && !received.points.is_empty(),
        received.newest.as_ref(),
        context,
    );
    if args.json {
        let mut output = Output::text()?;
        output.json(&View::from(&received))?;
        output.finish()?;
    } else if !received.points.is_empty() || received.error.is_none() {
        say(&received, context);
    }
    received.error.map_or(Ok(Outcome::Done), Err)
}

/// Prints where the disk stands.
fn status(args: &Args, disk: &str, context: &Context) -> Result<Outcome> {
    let store = args.store.store.as_path();
    if args.asked.windows {
        let output = Output::binary()?;
        let workers = context.workers()?;
        let progress = context.progress();
        let work = Work {
            workers: &workers,
            progress: &*progress,
        };
        let place = (store, disk);
        write_standing(place, (output, Path::new(STDOUT)), work)?;
        return Ok(Outcome::Done);
    }
    let (standing, newest) = args
        .lock
        .patience(context)
        .wait_for(|| Standing::find(store, disk))?;
    let mut output = Output::text()?;
    if args.json {
        output.json(&StatusView {
            disk,
            newest: newest.as_deref(),
            point: standing.to_string(),
            received: [],
            skipped: 0,
        })?;
    } else {
        output.line(standing)?;
    }
    output.finish()?;
    Ok(Outcome::Done)
}

fn say(received: &Received, context: &Context) {
    let newest = received.newest.as_ref();
    let newest = newest.map_or_else(
        || "there is no snapshot".to_owned(),
        |newest| format!("the newest is {}", newest.name),
    );
    let count = Count(received.points.len() as u64, "snapshot");
    let skipped = match received.skipped {
        0 => String::new(),
        n => format!(", {n} skipped that were there"),
    };
    context.note(format_args!(
        "{}: {count} received{skipped}; {newest}",
        received.disk
    ));
}
