//! `vhd snapshot copy`: brings another store up to date.

use std::fs;
use std::path::{Path, PathBuf};

use clap::value_parser;
use serde::Serialize;

use super::{
    Context, Count, Error, LockArgs, Manifest, Outcome, Output, RateArgs, Result, Size, StoreArgs,
    chosen, disks, far, managed, say_what_is_unusual,
};
use crate::cli::document::ErrorView;
use crate::cli::remote::{Remote, on};
use crate::cli::role::Role;
use crate::error::quoted;
use crate::remedy::{Choice, Remedy, Step};
use crate::snapshot::{
    Copied, STORE_VERSION, Work, copy_disks, init_if_none, is_encrypted, store_version, would_copy,
};
use crate::storage::Audience;

/// Bring another store up to date: copy the snapshots that it lacks.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Of each disk, the snapshots after the newest one of the target are copied in the order of their creation, the \
     base first. Each is read back and compared with its digest before it counts. An interrupted copy resumes where it stopped: until then list and show report how much of the snapshot is there, and nothing can use it. \
     Meanwhile the source can be read but not changed, and so can the target.\n\n\
     If the source doesn't have the newest snapshot of the target, or another one under the same number, the two have \
     diverged: nothing of that disk is copied (exit code 4), and the other disks are. Of the older snapshots the \
     target may keep fewer than the source, or more. A disk that begins as a snapshot of another one is copied after that; \
     the target must have it.\n\n\
     With --managed the service copies the snapshots of a managed disk to a resource group, one after the other. Each needs \
     its source until it is complete: delete and prune keep that. If this command is interrupted, the copy under way goes \
     on in the cloud, and the same command follows it.\n\n",
    "Examples:\n",
    "  vhd snapshot copy --store /backup --to /mnt/shelf --init\n",
    "  vhd snapshot copy --store /backup --to /mnt/shelf --disk web --disk db\n",
    "  vhd snapshot copy --store /backup --to /mnt/shelf --jobs 8 --json | jq '.disks[].copied_bytes'\n",
    "  vhd snapshot copy --managed --store azure:prod/web --to azure:dr --region westus\n\n",
    super::args::exit_codes!(),
))]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// The store to copy to, a folder or a container; with --managed a resource group, azure:GROUP.
    #[arg(long, value_name = "STORE")]
    pub(super) to: PathBuf,
    /// Of a managed disk: let the service copy the snapshots to a resource group, and wait until they are complete.
    #[arg(long)]
    pub(super) managed: bool,
    /// With --managed: the region of the copies, as westus [default: that of the resource group].
    #[arg(long, value_name = "REGION", requires = "managed")]
    pub(super) region: Option<String>,
    /// Make the target a store first if it isn't one, of the version of the source.
    #[arg(long)]
    pub(super) init: bool,
    /// Only this disk; may be given several times [default: all].
    #[arg(long, value_name = "NAME")]
    pub(super) disk: Vec<String>,
    /// Say what would be copied; copy nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Copy from an encrypted store to one that isn't: what is copied isn't encrypted any more.
    #[arg(long)]
    pub(super) unencrypted: bool,
    /// Of a managed disk: compare this part of what the service doesn't list as changed all the same, at random.
    #[arg(long, value_name = "PERCENT", value_parser = crate::cli::size::parse_percent)]
    pub(super) check_changes: Option<f64>,
    /// Number of disks that are copied at a time.
    #[arg(long, value_name = "N", default_value = "4", value_parser = value_parser!(u16).range(1..=256))]
    pub(super) jobs: u16,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) lock: LockArgs,
    #[command(flatten)]
    pub(super) rate: RateArgs,
}

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
    id: String,
    copied_bytes: u64,
}

impl From<&Copied> for DiskView {
    fn from(copied: &Copied) -> Self {
        Self {
            disk: copied.disk.clone(),
            newest: name(copied.newest.as_ref()),
            copied_bytes: bytes(copied),
            copied: copied
                .points
                .iter()
                .map(|point| PointView {
                    name: point.manifest.name.clone(),
                    id: point.manifest.id.clone(),
                    copied_bytes: point.bytes,
                })
                .collect(),
            error: copied.error.as_ref().map(ErrorView::from),
        }
    }
}

fn name(point: Option<&Manifest>) -> Option<String> {
    point.map(|point| point.name.clone())
}

fn bytes(copied: &Copied) -> u64 {
    let all = copied.points.iter().map(|point| point.bytes);
    all.fold(0, u64::saturating_add)
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let (from, to) = (args.store.store.as_path(), args.to.as_path());
    if args.managed {
        return managed::copies::run(args, context);
    }
    if crate::cli::cloud::is_group(to) {
        return Err(managed::copies::not_a_store(args));
    }
    if managed::is_wanted(from) {
        return managed::copy::run(args, context);
    }
    if [from, to].into_iter().any(crate::cli::far::is_address) {
        if args.dry_run && !crate::cli::far::is_address(to) {
            expect_target(args)?;
        }
        if !crate::cli::far::is_address(from) {
            refuse_unencrypted(from, args.unencrypted)?;
        }
        if args.init && !args.dry_run && !crate::cli::far::is_address(to) {
            init_if_none(to, STORE_VERSION, &Audience::default())?;
        }
        let how = (args.disk.as_slice(), args.json, args.rate);
        let patience = args.lock.patience(context);
        return far::copy((from, to), how, args.dry_run, (&patience, context));
    }
    refuse_remote(args)?;
    refuse_same(from, to)?;
    let names = chosen(from, &args.disk)?;
    if args.dry_run {
        return dry_run(args, &names, context);
    }
    prepare((from, to), args)?;
    let workers = context.workers()?;
    let progress = args.rate.limit(context.progress());
    let work = Work {
        workers: &workers,
        progress: &*progress,
    };
    let mut all = copy_disks((from, to), &names, args.jobs.into(), work);
    drop(progress);
    let patience = args.lock.patience(context);
    for copied in &mut all {
        while copied
            .error
            .as_ref()
            .is_some_and(|error| patience.waits(error))
        {
            let progress = args.rate.limit(context.progress());
            let work = Work {
                workers: &workers,
                progress: &*progress,
            };
            let names = std::slice::from_ref(&copied.disk);
            let again = copy_disks((from, to), names, 1, work).pop();
            drop(progress);
            if let Some(again) = again {
                copied.go_on(again);
            }
        }
        copied.error = copied.error.take().map(|error| patience.with_advice(error));
    }
    for copied in &all {
        say_what_is_unusual(
            (to, &copied.disk),
            copied.is_new && !copied.points.is_empty(),
            copied.points.last().and(copied.newest.as_ref()),
            context,
        );
    }
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            dry_run: false,
            disks: all.iter().map(DiskView::from).collect(),
        })?;
        output.finish()?;
    }
    for copied in &all {
        say(copied, context);
    }
    // All are reported; the first one determines the exit code.
    let mut errors = all.into_iter().filter_map(|copied| copied.error);
    let first = errors.next();
    for error in errors {
        context.report(&error);
    }
    first.map_or(Ok(Outcome::Done), Err)
}

/// Fails if the target isn't a store, and wouldn't be made one.
fn expect_target(args: &Args) -> Result<()> {
    if !args.init || store_version(&args.to)?.is_some() {
        disks(&args.to)?;
    }
    Ok(())
}

/// Makes the target a store where that is wanted, and looks whether it may have what is copied.
fn prepare((from, to): (&Path, &Path), args: &Args) -> Result<()> {
    if args.init && store_version(to)?.is_none() {
        refuse_unencrypted(from, args.unencrypted)?;
        let version = store_version(from)?.unwrap_or(STORE_VERSION);
        init_if_none(to, version.min(STORE_VERSION), &Audience::of([from])?)?;
    }
    disks(to)?;
    if is_encrypted(to)? {
        return Ok(());
    }
    refuse_unencrypted(from, args.unencrypted)
}

/// Fails if the store at `from` is encrypted, and its copy wouldn't be, unless that is wanted.
fn refuse_unencrypted(from: &Path, wanted: bool) -> Result<()> {
    if wanted || !is_encrypted(from)? {
        return Ok(());
    }
    Err(
        Error::usage("this store is encrypted, and its copy wouldn't be")
            .with_path(from)
            .with_remedy(
                Remedy::new("copy to an encrypted store, which is made by ")
                    .text("vhd snapshot init --encrypt, or ")
                    .named("use ")
                    .step(Step::Choose(Choice::Unencrypted), "allow it"),
            ),
    )
}

/// What a copy of a disk would bring: snapshots of these names, and so many bytes.
pub(super) fn planned_text(disk: &str, names: &[&str], (how, bytes): (&str, u64)) -> String {
    let size = Size(bytes);
    match names {
        [] => format!("{disk}: nothing to copy"),
        [one] => format!("{disk}: would copy {one}, {how} {size}"),
        [oldest, .., newest] => {
            let count = Count(names.len() as u64, "snapshot");
            format!("{disk}: would copy {count}, {how} {size}: {oldest} to {newest}")
        }
    }
}

/// Says what a copy would bring, as far as manifests tell; changes nothing.
fn dry_run(args: &Args, names: &[String], context: &Context) -> Result<Outcome> {
    let (from, to) = (args.store.store.as_path(), args.to.as_path());
    expect_target(args)?;
    let mut views = Vec::new();
    let mut first = None;
    for disk in names {
        let planned = would_copy((from, to), disk, names);
        let points = planned.as_deref().unwrap_or(&[]);
        let views_of_points: Vec<PointView> = points
            .iter()
            .map(|point| PointView {
                name: point.name.clone(),
                id: point.id.clone(),
                copied_bytes: point.data.length,
            })
            .collect();
        let bytes = points
            .iter()
            .fold(0, |sum: u64, point| sum.saturating_add(point.data.length));
        if planned.is_ok() {
            let names: Vec<_> = points.iter().map(|point| point.name.as_str()).collect();
            context.note(planned_text(disk, &names, ("about", bytes)));
        }
        views.push(DiskView {
            disk: disk.clone(),
            newest: points.last().map(|point| point.name.clone()),
            copied_bytes: bytes,
            copied: views_of_points,
            error: planned.as_ref().err().map(ErrorView::from),
        });
        if let Err(error) = planned {
            match first {
                None => first = Some(error),
                Some(_) => context.report(&error),
            }
        }
    }
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            dry_run: true,
            disks: views,
        })?;
        output.finish()?;
    }
    first.map_or(Ok(Outcome::Done), Err)
}

/// Refuses an address on another machine, and explains how to send.
fn refuse_remote(args: &Args) -> Result<()> {
    let Some(remote) = Remote::of(&args.to) else {
        return Ok(());
    };
    let error = remote.refusal(Role::Store, &args.to);
    let Remote::Host { host, path } = remote else {
        return Err(error);
    };
    let names = if args.disk.is_empty() {
        disks(&args.store.store).unwrap_or_default()
    } else {
        args.disk.clone()
    };
    let receive = on(
        &host,
        &format!("vhd snapshot receive --store {}", quoted(&path)),
    );
    let store = quoted(&args.store.store);
    let send = |name: &String| {
        let disk = quoted(name);
        format!("vhd snapshot send --store {store} --disk {disk} | {receive}")
    };
    let lines: Vec<String> = names.iter().take(3).map(send).collect();
    if lines.is_empty() {
        return Err(error);
    }
    let here = quoted(Path::new(".").join(&args.to));
    Err(error.override_hint(format!(
        "send it: {}; {here} is a folder of that name",
        lines.join("; ")
    )))
}

fn refuse_same(from: &Path, to: &Path) -> Result<()> {
    match (fs::canonicalize(from), fs::canonicalize(to)) {
        (Ok(from), Ok(to)) if from == to => Err(Error::usage("a store can't be copied to itself")
            .with_path(to)
            .with_hint("name another folder with --to")),
        _ => Ok(()),
    }
}

fn say(copied: &Copied, context: &Context) {
    let disk = &copied.disk;
    let newest = copied.newest.as_ref();
    let newest = newest.map_or_else(
        || "there is no snapshot".to_owned(),
        |newest| format!("the newest is {}", newest.name),
    );
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
