//! `vhd snapshot tag` and `vhd snapshot hold`: what is remembered of a snapshot.

use std::collections::BTreeMap;

use serde::Serialize;

use super::far;
use super::locking::{LockArgs, open_for};
use super::stores::DiskArgs;
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::output::Output;
use crate::error::{Error, Result};
use crate::snapshot::{Access, HOLD, Manifest, change_tags};

/// Change the tags of snapshots.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Tags are what vhd snapshot prune --keep-tag looks at.\n\n",
    "Examples:\n",
    "  vhd snapshot tag --store /backup --disk web mon --set keep=yes\n",
    "  vhd snapshot tag --store /backup web@mon tue --remove keep --set why=release\n\n",
    crate::cli::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(flatten)]
    disk: DiskArgs,
    /// The snapshots, or DISK@SNAPSHOT.
    #[arg(required = true)]
    snapshots: Vec<String>,
    /// Give them this tag, in place of one of the same key; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_tag)]
    set: Vec<(String, String)>,
    /// Take the tag of this key from them; may be given several times.
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lock: LockArgs,
}

/// Keep snapshots from being deleted and pruned, or let them go again.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "No rule prunes a snapshot that is held, and vhd snapshot delete refuses it unless --release-hold is given. The hold \
     is the tag \"hold\", and is copied with the snapshot.\n\n",
    "Examples:\n",
    "  vhd snapshot hold --store /backup --disk web mon --reason \"before the migration\"\n",
    "  vhd snapshot hold --store /backup --disk web mon --release\n\n",
    crate::cli::args::exit_codes!(),
))]
pub(super) struct HoldArgs {
    #[command(flatten)]
    disk: DiskArgs,
    /// The snapshots, or DISK@SNAPSHOT.
    #[arg(required = true)]
    snapshots: Vec<String>,
    /// Why; it is shown when somebody wants to delete it.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        conflicts_with = "release",
        hide_default_value = true
    )]
    reason: String,
    /// Let them go again.
    #[arg(long)]
    release: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lock: LockArgs,
}

/// Reads a tag.
pub(crate) fn parse_tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a tag is KEY=VALUE".to_owned()),
    }
}

/// The output of `--json`.
#[derive(Serialize)]
struct View {
    disk: String,
    snapshots: Vec<PointView>,
}

#[derive(Serialize)]
struct PointView {
    name: String,
    id: String,
    tags: BTreeMap<String, String>,
}

/// Changes of tags, and the snapshots that get them.
struct Change<'a> {
    disk: &'a DiskArgs,
    snapshots: &'a [String],
    set: BTreeMap<String, String>,
    remove: Vec<String>,
    lock: &'a LockArgs,
}

impl Change<'_> {
    fn make(&self, context: &Context) -> Result<(String, Vec<Manifest>)> {
        let patience = self.lock.patience(context);
        let (mut disk, names) = open_for(self.disk, Access::Write, self.snapshots, &patience)?;
        // A name that is wrong changes nothing of the others.
        for name in &names {
            disk.find(name)?;
        }
        let points = names
            .iter()
            .map(|name| change_tags(&mut disk, name, &self.set, &self.remove));
        let points = points.collect::<Result<_>>()?;
        Ok((disk.name().to_owned(), points))
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let set: BTreeMap<_, _> = args.set.iter().cloned().collect();
    if let Some(both) = args.remove.iter().find(|key| set.contains_key(*key)) {
        return Err(Error::usage("a tag can't be set and removed at once").with_found(both));
    }
    if let Some(store) = far::store(&args.disk.store.store, context)? {
        let named = (args.disk.disk.as_deref(), args.snapshots.as_slice());
        let patience = args.lock.patience(context);
        let how = (args.json, &patience, context);
        return far::tag(&*store, named, (&set, &args.remove), how);
    }
    let change = Change {
        disk: &args.disk,
        snapshots: &args.snapshots,
        set,
        remove: args.remove.clone(),
        lock: &args.lock,
    };
    let (disk, points) = change.make(context)?;
    for point in points.iter().filter(|_| !args.json) {
        let tags: Vec<String> = {
            let tags = point.tags.iter();
            tags.map(|(key, value)| format!("{key}={value}")).collect()
        };
        let tags = if tags.is_empty() {
            "no tags".to_owned()
        } else {
            tags.join(", ")
        };
        context.note(format_args!("{disk}@{}: {tags}", point.name));
    }
    print(args.json, disk, points)
}

pub(super) fn hold(args: &HoldArgs, context: &Context) -> Result<Outcome> {
    let hold = || BTreeMap::from([(HOLD.to_owned(), args.reason.clone())]);
    if let Some(store) = far::store(&args.disk.store.store, context)? {
        let named = (args.disk.disk.as_deref(), args.snapshots.as_slice());
        let (set, remove) = if args.release {
            (BTreeMap::new(), vec![HOLD.to_owned()])
        } else {
            (hold(), Vec::new())
        };
        let patience = args.lock.patience(context);
        let how = (args.json, &patience, context);
        return far::tag(&*store, named, (&set, &remove), how);
    }
    let change = Change {
        disk: &args.disk,
        snapshots: &args.snapshots,
        set: if args.release {
            BTreeMap::new()
        } else {
            hold()
        },
        remove: args.release.then(|| HOLD.to_owned()).into_iter().collect(),
        lock: &args.lock,
    };
    let (disk, points) = change.make(context)?;
    for point in points.iter().filter(|_| !args.json) {
        let now = if point.is_held() { "held" } else { "not held" };
        context.note(format_args!("{disk}@{}: {now}", point.name));
    }
    print(args.json, disk, points)
}

fn print(json: bool, disk: String, points: Vec<Manifest>) -> Result<Outcome> {
    if json {
        let view = |point: Manifest| PointView {
            name: point.name,
            id: point.id,
            tags: point.tags,
        };
        let mut output = Output::text()?;
        output.json(&View {
            disk,
            snapshots: points.into_iter().map(view).collect(),
        })?;
        output.finish()?;
    }
    Ok(Outcome::Done)
}
