//! `vhd snapshot create`: adds a new point in time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{InputFormat, SaidFormat};
use super::like::parse_like;
use super::tag::parse_tag;
use super::told::in_the_future;
use super::{
    Access, Context, Failures, LockArgs, Outcome, Output, Parents, Patience, RateArgs, Reading,
    Result, Size, StoreArgs, Time, disks, far, managed, name_of, parse_time, show,
};
use crate::cli::changes::{self, random};
use crate::cli::document::ErrorView;
use crate::cli::message::{Topic, Warning};
use crate::cli::names;
use crate::cli::role::Role;
use crate::cli::stdin::{self, Expected, STDIN};
use crate::diff::Compression;
use crate::error::{Error, quoted};
use crate::files::Claim;
use crate::snapshot::{
    Created, Disk, Doubt, Family, FarStore, NewPoint, OtherPoint, STORE_VERSION, Work, add_diff,
    create, init_if_none, propose,
};
use crate::storage::{Audience, File};
use crate::text::shown;

/// Add a snapshot of a disk: the first becomes the base, later ones store what changed.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Only the new image is read: its windows are hashed and compared with the hashes of the newest snapshot, and what \
     is stored is read only where they differ. The disk may have grown, shrunk or changed its format. Snapshots are \
     added in the order of their times. A snapshot exists once its manifest does; whatever an interrupted command left is removed by the next one.\n\n\
     Another disk is refused if its source ids show that it is another. A VHD's own unique id only warns: many \
     tools give every copy a new one.\n\n",
    "Examples:\n",
    "  vhd snapshot create --disk web web.vhd\n",
    "  vhd snapshot create --disk web web.vhd --also db=db.vhd --lock-timeout 1h\n",
    "  vhd snapshot create --disk web2 --like web@mon web2.vhd\n",
    "  vhd snapshot create --disk web --name mon monday.vhd\n",
    "  vhd snapshot create --store /backup --disk web --name tue --diff tuesday.vhddiff\n",
    "  vhd-diff mon.vhd tue.vhd -o - | ssh far vhd snapshot create --disk web --name tue --diff -\n",
    "  vhd snapshot create --disk web --name w47 disk.vhd --tag keep=yes --time 2026-11-20T06:00:00Z\n\n",
    super::args::exit_codes!(),
))]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// The disk; it is created if the store has none of that name.
    #[arg(long, value_name = "NAME")]
    pub(super) disk: Option<String>,
    /// The name of the snapshot [default: its time, as 20261120T060000Z].
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Image to add.
    #[arg(conflicts_with = "diff")]
    pub(super) image: Option<PathBuf>,
    /// Add a snapshot of another disk too, with the same name, time and tags; may be given several times.
    #[arg(long, value_name = "DISK=IMAGE", value_parser = parse_also)]
    pub(super) also: Vec<(String, PathBuf)>,
    /// Add a diff from the newest snapshot that was created elsewhere; - is stdin.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["full", "format", "also"])]
    pub(super) diff: Option<PathBuf>,
    /// Point in time that the image shows, as 2026-11-20, 2026-11-20T06:00 or "2h ago" [default: now, or the time in the diff].
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) time: Option<Time>,
    /// The cloud's id of its disk (`SourceResourceId`).
    #[arg(long, value_name = "ID")]
    pub(super) source_resource_id: Option<String>,
    /// The cloud's id of that disk instance, which changes if the disk is deleted and created again (`SourceUniqueId`).
    #[arg(long, value_name = "ID")]
    pub(super) source_unique_id: Option<String>,
    /// A tag to store with it; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_tag)]
    pub(super) tag: Vec<(String, String)>,
    /// A list of the ranges that changed since the newest snapshot, from another program: only those are read; - is stdin.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["full", "diff", "also"])]
    pub(super) changes: Option<PathBuf>,
    /// With --changes: compare this part of the rest all the same, at random, and refuse a list that leaves something out.
    #[arg(long, value_name = "PERCENT", requires = "changes", value_parser = crate::cli::size::parse_percent)]
    pub(super) check_changes: Option<f64>,
    /// Create a new base, which doesn't depend on any earlier snapshot; of a managed disk: a regular snapshot.
    #[arg(long)]
    pub(super) full: bool,
    /// A new disk: store only what differs from this snapshot of another disk, DISK@SNAPSHOT, or DISK for its newest.
    #[arg(long, value_name = "DISK@SNAPSHOT", value_parser = parse_like, conflicts_with_all = ["full", "diff", "changes", "existing"])]
    pub(super) like: Option<OtherPoint>,
    /// Of a managed disk: the kind of storage of the snapshot, as `Standard_ZRS`.
    #[arg(long, value_name = "SKU")]
    pub(super) sku: Option<String>,
    /// How data is packed: none, zstd or zstd:1 to zstd:19 [default: zstd:3 for a base, zstd:1 for what changed].
    #[arg(long, value_name = "HOW", conflicts_with = "diff", value_parser = parse_compression)]
    pub(super) compress: Option<Compression>,
    /// Make the folder a store first if it isn't one, as vhd snapshot init does.
    #[arg(long, conflicts_with_all = ["existing", "diff"])]
    pub(super) init: bool,
    /// Only add to a disk that the store has already.
    #[arg(long)]
    pub(super) existing: bool,
    /// Format of the image [default: detected].
    #[arg(short, long, value_name = "FORMAT")]
    pub(super) format: Option<InputFormat>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) lock: LockArgs,
    #[command(flatten)]
    pub(super) rate: RateArgs,
    #[command(flatten)]
    pub(super) parents: Parents,
}

fn parse_compression(text: &str) -> Result<Compression, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

fn parse_also(text: &str) -> Result<(String, PathBuf)> {
    match text.split_once('=') {
        Some((disk, image)) if !disk.is_empty() && !image.is_empty() => {
            let image = PathBuf::from(image);
            names::admit(Role::Image, &image)?;
            Ok((disk.to_owned(), image))
        }
        _ => Err(Error::usage(format!("this isn't DISK=IMAGE: {text}"))
            .with_hint("name the disk and its image, as in db=db.vhd")),
    }
}

/// Where the content of a snapshot comes from.
#[derive(Debug, Clone, Copy)]
enum Content<'a> {
    Image(&'a Path),
    Diff(&'a Path),
}

/// The list of changes from `--changes`.
fn claim(args: &Args) -> Result<Option<(Claim, u64)>> {
    let Some(path) = &args.changes else {
        return Ok(None);
    };
    Ok(Some((changes::claim(path, args.check_changes)?, random())))
}

/// The disk of the store that the snapshot is of; fails if it or the image isn't named.
fn named(args: &Args) -> Result<&str> {
    let disk = args.disk.as_deref().ok_or_else(|| {
        Error::usage("no disk is named")
            .with_path(&args.store.store)
            .with_expected("--disk NAME")
            .with_hint("name the disk of the store that the snapshot is of; it is created if there is none of that name")
    })?;
    if args.image.is_none() && args.diff.is_none() {
        return Err(Error::usage("no image is named")
            .with_expected("IMAGE, or --diff FILE")
            .with_hint("name the image whose content the snapshot keeps"));
    }
    Ok(disk)
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if managed::is_wanted(&args.store.store) {
        return managed::create::run(args, context);
    }
    let disk = named(args)?;
    if let Some(store) = far::store(&args.store.store, context)? {
        return to_far(args, disk, &*store, context);
    }
    // Of several disks, all have the same moment.
    let now = (!args.also.is_empty()).then(Time::now);
    let time = args.time.or(now);
    let name = args.name.clone();
    let new = NewPoint {
        name: name.unwrap_or_else(|| name_of(time.unwrap_or_else(Time::now))),
        time,
        family: Family {
            source_resource_id: args.source_resource_id.clone(),
            source_unique_id: args.source_unique_id.clone(),
        },
        tags: args.tag.iter().cloned().collect::<BTreeMap<_, _>>(),
        full: args.full,
        like: args.like.clone(),
        base: None,
        compression: args.compress,
        claim: claim(args)?,
        made_from: Audience::default(),
        expected: None,
    };
    crate::snapshot::check_name(&new.name)?;
    let mut all = vec![disk];
    for (disk, _) in &args.also {
        crate::snapshot::check_disk_name(disk)?;
        if all.contains(&disk.as_str()) {
            return Err(Error::usage("a disk is named twice").with_found(disk));
        }
        all.push(disk);
    }
    crate::snapshot::check_disk_name(disk)?;
    let image = args.image.as_deref().unwrap_or(Path::new(""));
    let from = args
        .diff
        .as_deref()
        .map_or(Content::Image(image), Content::Diff);
    let patience = args.lock.patience(context);
    let store = args.store.store.as_path();
    let told = (context, &patience);
    let first = add(args, (store, disk), from, &new, told);
    if args.also.is_empty() {
        let view = first?;
        if args.json {
            let mut output = Output::text()?;
            output.json(&view)?;
            output.finish()?;
        }
        return Ok(Outcome::Done);
    }
    let new = NewPoint {
        // These are of the first disk.
        family: Family::default(),
        ..new
    };
    let mut failures = Failures::default();
    let mut views = Vec::new();
    let mut take = |disk: &str, added: Result<View>| match added {
        Ok(view) => views.push(OfMany {
            disk: disk.to_owned(),
            created: Some(view),
            error: None,
        }),
        Err(error) => {
            views.push(OfMany {
                disk: disk.to_owned(),
                created: None,
                error: Some(ErrorView::from(&error)),
            });
            failures.0.push(error);
        }
    };
    take(disk, first);
    // One that can't be added doesn't keep the others from being.
    for (disk, image) in &args.also {
        let from = Content::Image(image);
        take(disk, add(args, (store, disk), from, &new, told));
    }
    if args.json {
        let mut output = Output::text()?;
        output.json(&Many { disks: views })?;
        output.finish()?;
    }
    failures.end(context)?;
    Ok(Outcome::Done)
}

/// Adds a snapshot to a store that isn't a folder.
fn to_far(args: &Args, disk: &str, store: &dyn FarStore, context: &Context) -> Result<Outcome> {
    let Some(image) = args.image.as_deref() else {
        return Err(Error::usage("no image is named"));
    };
    let format = SaidFormat::by("-f", args.format);
    let image = context.open_source(image, format, &args.parents, Reading::default())?;
    let time = args.time.unwrap_or_else(Time::now);
    let name = args.name.clone().unwrap_or_else(|| name_of(time));
    let family = Family {
        source_resource_id: args.source_resource_id.clone(),
        source_unique_id: args.source_unique_id.clone(),
    };
    let tags = args.tag.iter().cloned().collect();
    let claim = claim(args)?;
    let new = far::New {
        disk,
        name: &name,
        time,
        family: &family,
        tags: &tags,
        claim: claim.as_ref(),
        existing: args.existing,
        json: args.json,
        rate: args.rate,
    };
    let patience = args.lock.patience(context);
    patience.wait_for(|| far::create(store, &new, &*image, context))
}

/// Adds one snapshot, and says so.
fn add(
    args: &Args,
    (store, name): (&Path, &str),
    from: Content<'_>,
    new: &NewPoint,
    (context, patience): (&Context, &Patience<'_>),
) -> Result<View> {
    let has_disk = |disks: Vec<String>| disks.iter().any(|known| known == name);
    // Before the image is looked at. A store is made only for one that can be opened.
    let mut new_disk = args.init || !has_disk(disks(store)?);
    let mut new_store = false;
    if args.existing && new_disk {
        return Err(Error::usage("there is no such disk in the store")
            .with_path(store)
            .with_found(format_args!("\"{name}\""))
            .with_expected("an existing disk, because of --existing")
            .with_hint("check that the store is the right one and is mounted, and how the disk is spelled; without --existing, a new disk is begun"));
    }
    let mut disk;
    let created = match from {
        Content::Diff(diff) => {
            disk = patience.wait_for(|| Disk::open(store, name, Access::Write))?;
            from_diff(&mut disk, diff, new, (context, args.rate))?
        }
        Content::Image(image) => {
            let format = SaidFormat::by("-f", args.format);
            let image = patience.wait_for(|| {
                context.open_source(image, format, &args.parents, Reading::default())
            })?;
            let audience = Audience::of(image.files())?;
            if args.init {
                new_store = init_if_none(store, STORE_VERSION, &audience)?;
                new_disk = !has_disk(disks(store)?);
            }
            disk = patience.wait_for(|| Disk::open_for(store, name, Access::Create, &audience))?;
            let workers = context.workers_reading(&[&*image])?;
            let progress = args.rate.limit(context.progress());
            let work = Work {
                workers: &workers,
                progress: &*progress,
            };
            let created = patience.wait_for(|| create(&mut disk, &*image, new, work));
            drop(progress);
            match created {
                Ok(created) => created,
                Err(error) => {
                    disk.discard_if_empty();
                    return Err(error);
                }
            }
        }
    };
    let mut warnings = warnings(&disk, &created);
    if let Some(last) = warnings.last_mut() {
        last.hint = Some(way_back(&disk, &created));
    }
    for warning in &warnings {
        context.warn_of(warning);
    }
    if new_store {
        context.note(format_args!(
            "{}: a new store, with {name} as its first disk",
            shown(store)
        ));
    } else if new_disk {
        context.note(format_args!(
            "{}: {name} is a new disk in this store",
            shown(store)
        ));
    }
    say(name, &created, context);
    if !context.quiet() {
        say_what_is_like_it(&disk, &created, context);
    }
    Ok(View {
        point: show::View::of(&disk, &created.manifest)?,
        new_store,
        new_disk,
        warnings,
    })
}

fn from_diff(
    disk: &mut Disk,
    diff: &Path,
    new: &NewPoint,
    (context, rate): (&Context, RateArgs),
) -> Result<Created> {
    let workers = context.workers()?;
    let progress = rate.limit(context.progress());
    let work = Work {
        workers: &workers,
        progress: &*progress,
    };
    if diff == Path::new("-") {
        let mut stream = stdin::open(Expected::Diff)?;
        return add_diff(disk, (&mut stream, Path::new(STDIN)), new, work).map_err(stdin::of_pipe);
    }
    let file = File::open(diff)?;
    file.lock_shared()?;
    crate::files::refuse_image(&file)?;
    let new = NewPoint {
        made_from: Audience::of_file(&file)?,
        ..new.clone()
    };
    add_diff(disk, (&mut file.reader(), diff), &new, work)
}

/// A new snapshot, for display.
#[derive(Debug, Serialize)]
struct View {
    #[serde(flatten)]
    point: show::View,
    /// Whether the disk, and the store, were created for it.
    new_disk: bool,
    new_store: bool,
    warnings: Vec<Warning>,
}

/// Snapshots of several disks as they are shown.
#[derive(Debug, Serialize)]
struct Many {
    disks: Vec<OfMany>,
}

#[derive(Debug, Serialize)]
struct OfMany {
    disk: String,
    created: Option<View>,
    error: Option<ErrorView>,
}

/// Possible mistakes. They are reported even with `-q`, since otherwise they would be noticed too late.
fn warnings(disk: &Disk, created: &Created) -> Vec<Warning> {
    let name = format!("{}@{}", disk.name(), created.manifest.name);
    let mut all = Vec::new();
    if let Some([before, now]) = &created.other_unique_id {
        all.push(Warning::new(Topic::UniqueIdChanged, format_args!(
            "{name}: this VHD has a different unique id ({now}) than the previous one ({before}): make sure that it is the same disk; --source-unique-id makes it certain"
        )));
    }
    if created.manifest.time.is_ahead() {
        let at = (disk.name(), created.manifest.name.as_str());
        let text = in_the_future(at, created.manifest.time);
        all.push(Warning::new(Topic::TimeInFuture, text));
    }
    all.extend(created.doubts.iter().map(|doubt| {
        let (topic, what) = match doubt {
            Doubt::Size([before, now]) => (
                Topic::SizeChanged,
                format!(
                    "the disk was {} before and is {} now",
                    Size(*before),
                    Size(*now)
                ),
            ),
            Doubt::Format([before, now]) => (
                Topic::FormatChanged,
                format!("the image was {before} before and is {now} now"),
            ),
            Doubt::Data([before, now]) => (
                Topic::LessData,
                format!("only {now} MiB of the disk hold data now; it was {before} MiB before"),
            ),
        };
        Warning::new(topic, format_args!("{name}: {what}"))
    }));
    all
}

/// How to undo a mistake.
fn way_back(disk: &Disk, created: &Created) -> String {
    let alone = if disk.points().len() == 1 {
        " --last"
    } else {
        ""
    };
    format!(
        "if that is not intended, delete it again: vhd snapshot delete --store {} --disk {}{alone} {}",
        quoted(disk.store()),
        quoted(disk.name()),
        quoted(&created.manifest.name)
    )
}

/// Says which other disk the first snapshot of a disk is much like. A store that can't tell is none the worse.
fn say_what_is_like_it(disk: &Disk, created: &Created, context: &Context) {
    let manifest = &created.manifest;
    if disk.points().len() > 1 || !manifest.is_packed() || manifest.like.is_some() {
        return;
    }
    if let Ok(Some(proposal)) = propose(disk) {
        context.note(format_args!(
            "{}@{}: {} of the {} MiB that hold data are as in {}; to store only what differs: vhd snapshot rebase --store {} --disk {} --like {}",
            disk.name(),
            manifest.name,
            proposal.same,
            proposal.of,
            proposal.like,
            quoted(disk.store()),
            quoted(disk.name()),
            quoted(proposal.like.to_string()),
        ));
    }
}

fn say(disk: &str, created: &Created, context: &Context) {
    let manifest = &created.manifest;
    let name = &manifest.name;
    let size = Size(manifest.virtual_size);
    let used = Size(manifest.used_size);
    if let Some(like) = &manifest.like {
        context.note(format_args!(
            "{disk}@{name}: like {like}, {} updated and {} cleared, virtual size {size}, in {used}",
            Size(created.updated),
            Size(created.cleared)
        ));
    } else if manifest.is_base() {
        context.note(format_args!(
            "{disk}@{name}: base, virtual size {size}, in {used}"
        ));
    } else {
        context.note(format_args!(
            "{disk}@{name}: {} updated and {} cleared, virtual size {size}, in {used}",
            Size(created.updated),
            Size(created.cleared)
        ));
    }
}
