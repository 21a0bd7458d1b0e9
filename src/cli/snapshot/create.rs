//! `vhd snapshot create`: adds a new point in time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{InputFormat, SaidFormat};
use super::{
    Access, Context, Outcome, Output, Parents, Reading, Result, Size, StoreArgs, Time, disks,
    parse_time, show,
};
use crate::cli::stdin::{self, Expected, STDIN};
use crate::diff::Compression;
use crate::error::{Error, quoted};
use crate::snapshot::{
    BaseForm, Created, Disk, Doubt, Family, NewPoint, STORE_VERSION, Work, add_diff, create,
    store_version,
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
    "  vhd snapshot create --disk web --name mon monday.vhd\n",
    "  vhd snapshot create --store /backup --disk web --name tue --diff tuesday.vhddiff\n",
    "  vhd-diff mon.vhd tue.vhd -o - | ssh far vhd snapshot create --disk web --name tue --diff -\n",
    "  vhd snapshot create --disk web --name w47 disk.vhd --tag keep=yes --time 2026-11-20T06:00:00Z\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// The disk; it is created if the store has none of that name.
    #[arg(long, value_name = "NAME")]
    disk: String,
    /// The name of the snapshot.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Image to add.
    #[arg(required_unless_present = "diff", conflicts_with = "diff")]
    image: Option<PathBuf>,
    /// Add a diff from the newest snapshot that was created elsewhere; - is stdin.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["full", "format"])]
    diff: Option<PathBuf>,
    /// Point in time that the image shows, as 2026-11-20T06:00:00Z [default: now, or the time in the diff].
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    time: Option<Time>,
    /// The cloud's id of its disk (`SourceResourceId`).
    #[arg(long, value_name = "ID")]
    source_resource_id: Option<String>,
    /// The cloud's id of that disk instance, which changes if the disk is deleted and created again (`SourceUniqueId`).
    #[arg(long, value_name = "ID")]
    source_unique_id: Option<String>,
    /// A tag to store with it; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_tag)]
    tag: Vec<(String, String)>,
    /// Create a new base, which doesn't depend on any earlier snapshot.
    #[arg(long)]
    full: bool,
    /// How data is packed: none, zstd or zstd:1 to zstd:19 [default: zstd:3 for a base, zstd:1 for what changed].
    #[arg(long, value_name = "HOW", conflicts_with = "diff", value_parser = parse_compression)]
    compress: Option<Compression>,
    /// Format of the image [default: detected].
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<InputFormat>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    parents: Parents,
}

fn parse_compression(text: &str) -> Result<Compression, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

fn parse_tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a tag is KEY=VALUE".to_owned()),
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let new = NewPoint {
        name: args.name.clone(),
        time: args.time,
        family: Family {
            source_resource_id: args.source_resource_id.clone(),
            source_unique_id: args.source_unique_id.clone(),
        },
        tags: args.tag.iter().cloned().collect::<BTreeMap<_, _>>(),
        full: args.full,
        // A store of the first version stays what older programs read.
        base: if store_version(&args.store.store)? == Some(STORE_VERSION) {
            BaseForm::Packed
        } else {
            BaseForm::Image
        },
        compression: args.compress,
        made_from: Audience::default(),
    };
    crate::snapshot::check_name(&new.name)?;
    let found = Found::at(&args.store.store, &args.disk)?;
    let mut disk;
    let created = if let Some(diff) = &args.diff {
        disk = Disk::open(&args.store.store, &args.disk, Access::Write)?;
        from_diff(&mut disk, diff, &new, context)?
    } else {
        let image = args.image.as_deref().unwrap_or(Path::new(""));
        let image = context.open_source(
            image,
            SaidFormat::by("-f", args.format),
            &args.parents,
            Reading::default(),
        )?;
        let audience = Audience::of(image.files())?;
        disk = Disk::open_for(&args.store.store, &args.disk, Access::Create, &audience)?;
        let workers = context.workers_reading(&[&*image])?;
        let progress = context.progress();
        let work = Work {
            workers: &workers,
            progress: &*progress,
        };
        let created = create(&mut disk, &*image, &new, work);
        drop(progress);
        match created {
            Ok(created) => created,
            Err(error) => {
                disk.discard_if_empty();
                return Err(error);
            }
        }
    };
    let warnings = warnings(args, &created);
    for (n, warning) in warnings.iter().enumerate() {
        let hint = (n + 1 == warnings.len()).then(|| way_back(args, &disk, &created));
        context.warn_always(warning, hint.as_deref());
    }
    if args.json {
        let mut output = Output::text()?;
        output.json(&View {
            point: show::View::of(&disk, &created.manifest)?,
            new_store: found == Found::Nothing,
            new_disk: found != Found::Disk,
            warnings,
        })?;
        output.finish()?;
    }
    match found {
        Found::Nothing => context.note(format_args!(
            "{}: a new store, with {} as its first disk",
            shown(&args.store.store),
            args.disk
        )),
        Found::Store => context.note(format_args!(
            "{}: {} is a new disk in this store",
            shown(&args.store.store),
            args.disk
        )),
        Found::Disk => {}
    }
    say(args, &created, context);
    Ok(Outcome::Done)
}

fn from_diff(disk: &mut Disk, diff: &Path, new: &NewPoint, context: &Context) -> Result<Created> {
    let workers = context.workers()?;
    let progress = context.progress();
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

/// What existed before the snapshot was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// No store, or an empty folder.
    Nothing,
    /// A store, without this disk.
    Store,
    /// The disk.
    Disk,
}

impl Found {
    fn at(store: &Path, disk: &str) -> Result<Self> {
        let known = match disks(store) {
            Ok(known) => known,
            Err(error) if error.io_kind() == Some(std::io::ErrorKind::NotFound) => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(if known.iter().any(|name| name == disk) {
            Self::Disk
        } else if known.is_empty() {
            Self::Nothing
        } else {
            Self::Store
        })
    }
}

/// A new snapshot, for display.
#[derive(Debug, Serialize)]
struct View {
    #[serde(flatten)]
    point: show::View,
    /// Whether the disk, and the store, were created for it.
    new_disk: bool,
    new_store: bool,
    warnings: Vec<String>,
}

/// Possible mistakes. They are reported even with `-q`, since otherwise they would be noticed too late.
fn warnings(args: &Args, created: &Created) -> Vec<String> {
    let name = format!("{}@{}", args.disk, created.manifest.name);
    let mut all = Vec::new();
    if let Some([before, now]) = &created.other_unique_id {
        all.push(format!(
            "{name}: this VHD has a different unique id ({now}) than the previous one ({before}): make sure that it is the same disk; --source-unique-id makes it certain"
        ));
    }
    if created.manifest.time.is_ahead() {
        all.push(format!(
            "{name}: its time, {}, is in the future: until then no current snapshot can be added",
            created.manifest.time
        ));
    }
    all.extend(created.doubts.iter().map(|doubt| {
        let what = match doubt {
            Doubt::Size([before, now]) => format!(
                "the disk was {} before and is {} now",
                Size(*before),
                Size(*now)
            ),
            Doubt::Format([before, now]) => {
                format!("the image was {before} before and is {now} now")
            }
            Doubt::Data([before, now]) => {
                format!("only {now} MiB of the disk hold data now, of {before} MiB before")
            }
        };
        format!("{name}: {what}")
    }));
    all
}

/// How to undo a mistake.
fn way_back(args: &Args, disk: &Disk, created: &Created) -> String {
    let alone = if disk.points().len() == 1 {
        " --last"
    } else {
        ""
    };
    format!(
        "if that is not intended, delete it again: vhd snapshot delete --store {} --disk {}{alone} {}",
        quoted(&args.store.store),
        quoted(&args.disk),
        quoted(&created.manifest.name)
    )
}

fn say(args: &Args, created: &Created, context: &Context) {
    let manifest = &created.manifest;
    let (disk, name) = (&args.disk, &manifest.name);
    let size = Size(manifest.virtual_size);
    let used = Size(manifest.used_size);
    if manifest.is_base() {
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
