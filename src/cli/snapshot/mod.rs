//! `vhd snapshot`: points in time in a store. One file per command.

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
use failures::Failures;
use locking::{LockArgs, Patience, open_for};
use stores::{DiskArgs, StoreArgs, chosen, disks_there};
use told::{WriterView, being_written, report_damaged, say_what_is_unusual, unfinished, used};

mod copy;
mod create;
mod delete;
mod diff;
mod failures;
mod family;
mod far;
mod hash;
mod init;
mod like;
mod list;
mod locking;
pub(super) mod managed;
mod map;
mod passphrase;
pub(super) mod prune;
mod rebase;
mod receive;
mod rename;
mod repair;
mod restore;
mod send;
mod show;
mod stats;
mod stores;
pub(super) mod tag;
mod told;
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
    Map(map::Args),
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
    Rename(rename::Args),
    Rebase(rebase::Args),
    Verify(verify::Args),
    Repair(repair::Args),
    Upgrade(upgrade::Args),
    Passphrase(passphrase::Args),
    Family(family::Args),
}

impl Command {
    /// Whether it reads or writes whole disks, so that it matters how long it took.
    const fn moves_disks(&self) -> bool {
        matches!(
            self,
            Self::Create(_)
                | Self::Restore(_)
                | Self::Copy(_)
                | Self::Send(_)
                | Self::Receive(_)
                | Self::Verify(_)
        )
    }

    /// The note about this command that others see while it holds a lock.
    const fn words(&self) -> &'static str {
        match self {
            Self::Init(_) => "vhd snapshot init",
            Self::Create(_) => "vhd snapshot create",
            Self::List(_) => "vhd snapshot list",
            Self::Show(_) => "vhd snapshot show",
            Self::Stats(_) => "vhd snapshot stats",
            Self::Tag(_) => "vhd snapshot tag",
            Self::Hold(_) => "vhd snapshot hold",
            Self::Rename(_) => "vhd snapshot rename",
            Self::Rebase(_) => "vhd snapshot rebase",
            Self::Diff(_) => "vhd snapshot diff",
            Self::Map(_) => "vhd snapshot map",
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
            Self::Passphrase(_) => "vhd snapshot passphrase",
            Self::Family(_) => "vhd snapshot family",
        }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    call_this_command(args.command.words());
    if args.command.moves_disks() {
        context.tell_long_time();
    }
    match &args.command {
        Command::Init(args) => init::run(args, context),
        Command::Create(args) => create::run(args, context),
        Command::List(args) => list::run(args, context),
        Command::Show(args) => show::run(args, context),
        Command::Stats(args) => stats::run(args, context),
        Command::Tag(args) => tag::run(args, context),
        Command::Hold(args) => tag::hold(args, context),
        Command::Rename(args) => rename::run(args, context),
        Command::Rebase(args) => rebase::run(args, context),
        Command::Diff(args) => diff::run(args, context),
        Command::Map(args) => map::run(args, context),
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
        Command::Passphrase(args) => passphrase::run(args, context),
        Command::Family(args) => family::run(args, context),
    }
}
