//! `vhd snapshot`: points in time in a store. One file per command.

use std::path::Path;

use clap::Subcommand;

use super::args::{self, Parents};
use super::context::{Context, Reading};
use super::exit::Outcome;
use super::output::Output;
use super::rate::RateArgs;
use super::size::{Count, Short, Size};
use super::when::{name_of, parse_latest, parse_time};
use crate::error::{Error, Result};
use crate::snapshot::{Access, Disk, Manifest, Time, call_this_command, check_disk_name, disks};
use crate::text::shown;
use failures::Failures;
use locking::{LockArgs, Patience, open_for};
use stores::{DiskArgs, StoreArgs, chosen, disks_there};

mod copy;
mod create;
mod delete;
mod diff;
mod failures;
mod family;
mod hash;
mod init;
mod list;
mod locking;
mod prune;
mod receive;
mod repair;
mod restore;
mod send;
mod show;
mod stats;
mod stores;
mod tag;
mod upgrade;
mod verify;

pub(super) use show::print_point;

/// Keep points in time of disks in a store: each new one takes only the space of its changes.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "A store is a folder with one folder for each disk: a base image, one diff for each later snapshot, and a JSON \
     manifest for each. It can be read without this program (docs/store-format.md). Every command that reads an image \
     takes a point in time as STORE::DISK@SNAPSHOT, and its newest as STORE::DISK.\n\n",
    "Examples:\n",
    "  export VHDKIT_STORE=/backup\n",
    "  vhd snapshot init /backup\n",
    "  vhd snapshot create --disk web --name mon monday.vhd\n",
    "  vhd snapshot create --disk web --name tue tuesday.vhd\n",
    "  vhd snapshot list\n",
    "  vhd snapshot diff mon tue\n",
    "  vhd snapshot restore tue -o restored.vhd\n",
    "  vhd snapshot copy --to /elsewhere\n",
    "  vhd snapshot delete mon\n",
    "  vhd snapshot prune --keep-daily 7 --keep-weekly 4 --dry-run\n",
    "  vhd snapshot verify --read-data\n",
    "  vhd snapshot repair --from /mnt/second\n",
    "  az snapshot list -o json | vhd snapshot family - --disk web\n",
    "  vhd-diff /backup::web@mon friday.vhd\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Create(create::Args),
    #[command(alias = "ls")]
    List(list::Args),
    Show(show::Args),
    Stats(stats::Args),
    Diff(diff::Args),
    Restore(restore::Args),
    Hash(hash::Args),
    Copy(copy::Args),
    Send(send::Args),
    Receive(receive::Args),
    #[command(alias = "rm")]
    Delete(delete::Args),
    Prune(prune::Args),
    Tag(tag::Args),
    Hold(tag::HoldArgs),
    Verify(verify::Args),
    Repair(repair::Args),
    Upgrade(upgrade::Args),
    Family(family::Args),
}

impl Command {
    /// What another command is told of this one while it has a lock.
    const fn words(&self) -> &'static str {
        match self {
            Self::Init(_) => "vhd snapshot init",
            Self::Create(_) => "vhd snapshot create",
            Self::List(_) => "vhd snapshot list",
            Self::Show(_) => "vhd snapshot show",
            Self::Stats(_) => "vhd snapshot stats",
            Self::Tag(_) => "vhd snapshot tag",
            Self::Hold(_) => "vhd snapshot hold",
            Self::Diff(_) => "vhd snapshot diff",
            Self::Restore(_) => "vhd snapshot restore",
            Self::Hash(_) => "vhd snapshot hash",
            Self::Copy(_) => "vhd snapshot copy",
            Self::Send(_) => "vhd snapshot send",
            Self::Receive(_) => "vhd snapshot receive",
            Self::Delete(_) => "vhd snapshot delete",
            Self::Prune(_) => "vhd snapshot prune",
            Self::Verify(_) => "vhd snapshot verify",
            Self::Repair(_) => "vhd snapshot repair",
            Self::Upgrade(_) => "vhd snapshot upgrade",
            Self::Family(_) => "vhd snapshot family",
        }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    call_this_command(args.command.words());
    match &args.command {
        Command::Init(args) => init::run(args, context),
        Command::Create(args) => create::run(args, context),
        Command::List(args) => list::run(args, context),
        Command::Show(args) => show::run(args, context),
        Command::Stats(args) => stats::run(args, context),
        Command::Tag(args) => tag::run(args, context),
        Command::Hold(args) => tag::hold(args, context),
        Command::Diff(args) => diff::run(args, context),
        Command::Restore(args) => restore::run(args, context),
        Command::Hash(args) => hash::run(args, context),
        Command::Copy(args) => copy::run(args, context),
        Command::Send(args) => send::run(args, context),
        Command::Receive(args) => receive::run(args, context),
        Command::Delete(args) => delete::run(args, context),
        Command::Prune(args) => prune::run(args, context),
        Command::Verify(args) => verify::run(args, context),
        Command::Upgrade(args) => upgrade::run(args, context),
        Command::Repair(args) => repair::run(args, context),
        Command::Family(args) => family::run(args, context),
    }
}

/// Bytes that the snapshots take together.
fn used(points: &[&Manifest]) -> u64 {
    points
        .iter()
        .fold(0, |sum, point| sum.saturating_add(point.used_size))
}

/// Reports problems with manifests that can't be read. Returns whether there are any.
fn report_damaged(disk: &mut Disk, context: &Context) -> bool {
    let damaged = disk.take_damaged();
    for error in &damaged {
        context.report(error);
    }
    !damaged.is_empty()
}

/// A note about a disk on which a deletion was interrupted.
fn unfinished(disk: &Disk) -> Option<String> {
    let going = disk.interrupted_deletion();
    let names: Vec<&str> = going.iter().map(|point| point.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "{}: deleting {} was interrupted; the next command that changes the disk finishes it",
            disk.name(),
            names.join(", ")
        )
    })
}

/// What is worth saying of a disk that another command was changing when it was read.
fn being_written(disk: &Disk) -> Option<String> {
    let writer = disk.writer()?;
    let by = writer.holder.as_ref();
    let by = by.map_or_else(|| "another command".to_owned(), ToString::to_string);
    Some(format!("{}: is being written by {by}", disk.name()))
}

/// A command that was changing a disk when it was read, as it is shown.
#[derive(Debug, serde::Serialize)]
struct WriterView {
    command: Option<String>,
    process: Option<u32>,
    host: Option<String>,
    since: Option<String>,
}

impl WriterView {
    fn of(disk: &Disk) -> Option<Self> {
        let holder = disk.writer()?.holder.as_ref();
        Some(Self {
            command: holder.map(|holder| holder.command.clone()),
            process: holder.map(|holder| holder.process),
            host: holder.map(|holder| holder.host.clone()),
            since: holder.map(|holder| holder.since.to_string()),
        })
    }
}

/// Reports possible mistakes about snapshots from elsewhere: a new disk, or a time in the future.
fn say_what_is_unusual(
    (store, disk): (&Path, &str),
    is_new: bool,
    newest: Option<&Manifest>,
    context: &Context,
) {
    if is_new {
        context.note(format_args!(
            "{}: {disk} is a new disk in this store",
            shown(store)
        ));
    }
    if let Some(newest) = newest.filter(|newest| newest.time.is_ahead()) {
        context.warn_always(
            format_args!(
                "{disk}@{}: its time, {}, is in the future: until then no current snapshot can be added",
                newest.name, newest.time
            ),
            None,
        );
    }
}
