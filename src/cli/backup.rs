//! `vhd backup`: a managed disk in one command, for a nightly job.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::context::Context;
use super::exit::Outcome;
use super::output::Output;
use super::rate::RateArgs;
use super::size::{Count, parse_percent};
use super::snapshot::managed::Managed;
use super::snapshot::managed::copy::{Done, Job};
use super::snapshot::managed::create::{Taken, take};
use super::snapshot::managed::follow::follow;
use super::snapshot::managed::prune::deletable;
use super::snapshot::prune::Rules;
use super::snapshot::tag::parse_tag;
use crate::cloud::Resource;
use crate::error::{Error, Result, quoted};
use crate::snapshot::{Access, Disk, Work, decide, prune};

/// The tag of snapshots that this command took, and the only ones that it deletes.
const TAG: (&str, &str) = ("vhdkit", "backup");

/// Take a snapshot of a managed disk, bring it to a store, and thin out both.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "An incremental snapshot is taken in the cloud; when it is complete, every snapshot that the store lacks is brought to \
     it, in the order of creation, each by what the service lists as changed since the one before. Then the store is \
     thinned out by the rules, if any are given, and of the snapshots in the cloud that this command took, those go that \
     --keep-snapshots doesn't keep. Never deleted are the newest one, one that the store doesn't hold yet, one that is in \
     use, and one that somebody else took.\n\n\
     After an error or an interruption, the same command goes on: it takes another snapshot, and brings both.\n\n",
    "Examples:\n",
    "  vhd backup azure:prod/web --to /backup --init\n",
    "  vhd backup azure:prod/web --to /backup --keep-daily 14 --keep-weekly 8 --keep-snapshots 3\n",
    "  vhd backup azure:prod/web --to /backup --dry-run\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The managed disk: azure:GROUP/DISK, or its resource id.
    #[arg(value_name = "DISK")]
    source: PathBuf,
    /// The store, a folder or a container.
    #[arg(long, value_name = "STORE")]
    to: PathBuf,
    /// Make the folder a store first if it isn't one, as vhd snapshot init does.
    #[arg(long)]
    init: bool,
    /// The name of the disk in the store [default: that of the managed disk].
    #[arg(long, value_name = "NAME")]
    disk: Option<String>,
    /// The name of the snapshot [default: that of the disk and the time].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The kind of storage of the snapshot, as `Standard_ZRS`.
    #[arg(long, value_name = "SKU")]
    sku: Option<String>,
    /// A tag of the snapshot; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_tag)]
    tag: Vec<(String, String)>,
    /// Of the snapshots in the cloud that this command took, keep the newest N [default: all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    keep_snapshots: Option<u16>,
    /// Compare this part of what the service doesn't list as changed all the same, at random.
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    check_changes: Option<f64>,
    /// Take no snapshot, copy and delete nothing: print what would be copied.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    rate: RateArgs,
    #[command(flatten)]
    rules: Rules,
}

#[derive(Serialize)]
struct View {
    disk: String,
    dry_run: bool,
    /// The snapshot that was taken.
    snapshot: Option<String>,
    copied: Vec<String>,
    /// Points that the rules deleted from the store.
    pruned_count: usize,
    /// Snapshots that were deleted in the cloud.
    deleted_snapshots: Vec<String>,
}

struct Name(String);

impl From<Done> for Name {
    fn from(done: Done) -> Self {
        Self(match done {
            Done::Needed(step, _) => step.name,
            Done::Made(_, _, point) => point.name,
        })
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if !super::cloud::is_name(&args.source) {
        return Err(Error::usage("this is not the name of a managed disk")
            .with_path(&args.source)
            .with_expected("azure:GROUP/DISK, or a resource id")
            .with_hint("an image is added to a store with vhd snapshot create"));
    }
    let mut managed = Managed::open(&args.source, context)?;
    let name = args.disk.clone().unwrap_or_else(|| managed.name.clone());
    let job = Job {
        to: &args.to,
        init: args.init,
        name: &name,
        check: args.check_changes,
        rate: args.rate,
        dry_run: args.dry_run,
    };
    // Refused before anything is made in the cloud.
    if super::far::is_address(&args.to) && args.rules.policy().has_rules() {
        return Err(Error::usage("a container isn't thinned out by this command")
            .with_path(&args.to)
            .with_hint(format!(
                "omit the rules, and run this afterwards, with them: vhd snapshot prune --store {}",
                quoted(&args.to)
            )));
    }
    job.check(&managed, context)?;
    let mut view = View {
        disk: name.clone(),
        dry_run: args.dry_run,
        snapshot: None,
        copied: Vec::new(),
        pruned_count: 0,
        deleted_snapshots: Vec::new(),
    };
    if args.dry_run {
        context.note(format_args!(
            "{name}: a snapshot would be taken, and copied after these"
        ));
        if managed.family.snapshots.is_empty() {
            return finish(args, &view, None);
        }
    } else {
        // Each night would leave another snapshot that nothing can be copied to.
        job.target(context)?.check_ready()?;
        let mut tags: BTreeMap<String, String> = args.tag.iter().cloned().collect();
        tags.insert(TAG.0.to_owned(), TAG.1.to_owned());
        let new = Taken {
            name: args.name.as_deref(),
            incremental: true,
            sku: args.sku.as_deref(),
            tags: &tags,
        };
        let taken = take(&managed, &new)?;
        context.note(format_args!("{name}: snapshot {} taken", taken.name));
        view.snapshot = Some(taken.id.clone());
        wait(&managed, taken, context)?;
        managed = Managed::open(&args.source, context)?;
    }
    let (copied, error) = job.run::<Name>(&managed, context)?;
    view.copied = copied.into_iter().map(|name| name.0).collect();
    if error.is_some() || args.dry_run {
        return finish(args, &view, error);
    }
    // A prune that fails leaves more than is wanted, and never less.
    let result = thin_out(args, (&managed, &job), &mut view, context);
    finish(args, &view, result.err())
}

fn finish(args: &Args, view: &View, error: Option<Error>) -> Result<Outcome> {
    if args.json {
        let mut output = Output::text()?;
        output.json(view)?;
        output.finish()?;
    }
    error.map_or(Ok(Outcome::Done), Err)
}

/// Waits until the snapshot can be read.
fn wait(managed: &Managed, snapshot: Resource, context: &Context) -> Result<()> {
    let name = snapshot.name.clone();
    follow(&managed.cloud, snapshot, |percent| {
        context.note(format_args!("{name}: {percent:.0} % complete in the cloud"));
    })
    .map(drop)
}

fn thin_out(
    args: &Args,
    (managed, job): (&Managed, &Job<'_>),
    view: &mut View,
    context: &Context,
) -> Result<()> {
    let name = job.name;
    let policy = args.rules.policy();
    if policy.has_rules() {
        let mut disk = Disk::open(&args.to, name, Access::Write)?;
        let decisions = decide(&mut disk, &policy)?;
        let (workers, progress) = (context.workers()?, context.progress());
        let pruned = prune(&mut disk, &decisions, Work::new(&workers, &*progress))?;
        drop(progress);
        view.pruned_count = pruned.deleted;
        context.note(format_args!(
            "{name}: {} deleted from the store, {} kept",
            Count(pruned.deleted as u64, "snapshot"),
            disk.points().len()
        ));
    }
    let Some(keep) = args.keep_snapshots else {
        return Ok(());
    };
    let held = job.target(context)?.points()?;
    let ours = |one: &Resource| one.tags.get(TAG.0).map(String::as_str) == Some(TAG.1);
    for one in deletable(managed, &held, keep.into(), ours) {
        managed.cloud.delete(one)?;
        view.deleted_snapshots.push(one.id.clone());
    }
    if !view.deleted_snapshots.is_empty() {
        context.note(format_args!(
            "{name}: {} deleted in the cloud",
            Count(view.deleted_snapshots.len() as u64, "snapshot")
        ));
    }
    Ok(())
}
