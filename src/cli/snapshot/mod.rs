//! `vhd snapshot`: points in time in a store. One file per command.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::args::{self, Parents};
use super::context::{Context, Reading};
use super::exit::Outcome;
use super::output::Output;
use super::size::{Count, Short, Size};
use super::store_path::STORE_VARIABLE;
use crate::error::{Error, Result, quoted};
use crate::snapshot::{Access, Disk, Manifest, Time, check_disk_name, disks};
use crate::text::shown;

mod copy;
mod create;
mod delete;
mod diff;
mod family;
mod hash;
mod init;
mod list;
mod prune;
mod receive;
mod repair;
mod restore;
mod send;
mod show;
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
    Diff(diff::Args),
    Restore(restore::Args),
    Hash(hash::Args),
    Copy(copy::Args),
    Send(send::Args),
    Receive(receive::Args),
    #[command(alias = "rm")]
    Delete(delete::Args),
    Prune(prune::Args),
    Verify(verify::Args),
    Repair(repair::Args),
    Family(family::Args),
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    match &args.command {
        Command::Init(args) => init::run(args, context),
        Command::Create(args) => create::run(args, context),
        Command::List(args) => list::run(args, context),
        Command::Show(args) => show::run(args),
        Command::Diff(args) => diff::run(args, context),
        Command::Restore(args) => restore::run(args, context),
        Command::Hash(args) => hash::run(args, context),
        Command::Copy(args) => copy::run(args, context),
        Command::Send(args) => send::run(args, context),
        Command::Receive(args) => receive::run(args, context),
        Command::Delete(args) => delete::run(args, context),
        Command::Prune(args) => prune::run(args, context),
        Command::Verify(args) => verify::run(args, context),
        Command::Repair(args) => repair::run(args, context),
        Command::Family(args) => family::run(args, context),
    }
}

// The store. (A doc comment would become the description of each command.)
#[derive(Debug, Clone, clap::Args)]
struct StoreArgs {
    /// The folder of the store.
    #[arg(long, value_name = "DIR", env = STORE_VARIABLE, hide_env_values = true)]
    store: PathBuf,
}

// The disk of a store.
#[derive(Debug, Clone, clap::Args)]
struct DiskArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The disk [default: the only one in the store].
    #[arg(long, value_name = "NAME")]
    disk: Option<String>,
}

impl DiskArgs {
    fn open(&self, access: Access) -> Result<Disk> {
        Disk::open(&self.store.store, &self.name()?, access)
    }

    /// Opens the disk of these snapshots, each given as SNAPSHOT or DISK@SNAPSHOT. Returns their names.
    fn open_for<'a>(
        &self,
        access: Access,
        snapshots: impl IntoIterator<Item = &'a String>,
    ) -> Result<(Disk, Vec<&'a str>)> {
        let mut meant = self.disk.clone();
        let mut names = Vec::new();
        for snapshot in snapshots {
            refuse_address(snapshot)?;
            let Some((disk, name)) = snapshot.split_once('@') else {
                names.push(snapshot.as_str());
                continue;
            };
            let disk = disk.to_owned();
            let before = meant.get_or_insert_with(|| disk.clone());
            if *before != disk {
                return Err(Error::usage("these are snapshots of two disks")
                    .with_found(format_args!("{before} and {disk}"))
                    .with_expected("one disk, named with --disk or before an @"));
            }
            names.push(name);
        }
        let this = Self {
            disk: meant,
            ..self.clone()
        };
        Ok((this.open(access)?, names))
    }

    fn name(&self) -> Result<String> {
        let store = &self.store.store;
        if let Some(name) = &self.disk {
            return Ok(name.clone());
        }
        let names = disks_there(store)?;
        if let [name] = names.as_slice() {
            return Ok(name.clone());
        }
        let some = names.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        let Some(first) = names.first() else {
            return Err(Error::usage("there is no disk in this store")
                .with_path(store)
                .with_hint("is the right folder named, and mounted? vhd snapshot create makes the first snapshot of a disk"));
        };
        Err(
            Error::usage("the store has several disks, and none is specified")
                .with_path(store)
                .with_found(format_args!(
                    "{}: {some}",
                    Count(names.len() as u64, "disk")
                ))
                .with_expected("--disk NAME, or DISK@SNAPSHOT")
                .with_hint(format!("specify one of them: --disk {first}")),
        )
    }
}

/// Refuses an address: here a snapshot is specified within its store.
fn refuse_address(snapshot: &str) -> Result<()> {
    let Some((store, point)) = snapshot.rsplit_once("::") else {
        return Ok(());
    };
    let named = if store.is_empty() {
        String::new()
    } else {
        format!("--store {} ", quoted(store))
    };
    Err(
        Error::usage("here the store is specified separately from the snapshot")
            .with_found(snapshot)
            .with_hint(format!("write {named}{}", quoted(point))),
    )
}

/// The disks of a store, of which there must be at least one: an empty folder isn't a store, and is usually the mount
/// point of a disk that isn't mounted.
fn disks_there(store: &Path) -> Result<Vec<String>> {
    let names = disks(store)?;
    if names.is_empty() {
        return Err(
            Error::usage("there is nothing here: there is no disk in this store")
                .with_path(store)
                .with_hint(
                    "is the disk with the store mounted? vhd snapshot create makes a new store",
                ),
        );
    }
    Ok(names)
}

/// Parses a time in the form in which it is printed.
fn parse_time(text: &str) -> Result<Time, String> {
    text.parse().map_err(|error: Error| error.to_string())
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
