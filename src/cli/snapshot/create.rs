//! `vhd snapshot create`: a new point in time.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::args::{InputFormat, SaidFormat};
use super::{
    Access, Context, Outcome, Parents, Reading, Result, Size, StoreArgs, Time, parse_time,
};
use super::{Output, show};
use crate::snapshot::{Created, Disk, Family, NewPoint, Work, add_diff, create};
use crate::storage::File;

/// Add a snapshot of a disk: the first becomes the base, later ones store what changed.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Only the new image is read: its windows are hashed and compared with the hashes of the newest snapshot, and what \
     is stored is read only where they differ. The disk may have grown, shrunk or changed its format. Snapshots are \
     added in the order of their times. A snapshot exists when its manifest stands; whatever an interrupted command \
     left is removed by the next one.\n\n\
     A disk that isn't the same one is refused when its source ids say so. A VHD's own unique id only warns: many \
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
    /// The disk; it is new if the store has none of that name.
    #[arg(long, value_name = "NAME")]
    disk: String,
    /// The name of the snapshot.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// The image whose content it is.
    #[arg(required_unless_present = "diff", conflicts_with = "diff")]
    image: Option<PathBuf>,
    /// Add a diff that was made elsewhere from the newest snapshot; - is stdin.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["full", "format"])]
    diff: Option<PathBuf>,
    /// The moment whose content it is, as 2026-11-20T06:00:00Z [default: now, or what the diff says].
    #[arg(long, value_parser = parse_time)]
    time: Option<Time>,
    /// The cloud's id of the disk that it is of (`SourceResourceId`).
    #[arg(long, value_name = "ID")]
    source_resource_id: Option<String>,
    /// The cloud's id of that very disk, another one if it is deleted and made again (`SourceUniqueId`).
    #[arg(long, value_name = "ID")]
    source_unique_id: Option<String>,
    /// Something to remember; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_tag)]
    tag: Vec<(String, String)>,
    /// Make a new base, which needs none of the earlier snapshots.
    #[arg(long)]
    full: bool,
    /// Format of the image [default: found out].
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<InputFormat>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    parents: Parents,
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
    };
    crate::snapshot::check_name(&new.name)?;
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
        disk = Disk::open(&args.store.store, &args.disk, Access::Create)?;
        let workers = context.workers()?;
        let progress = context.progress();
        let work = Work {
            workers: &workers,
            progress: &*progress,
        };
        create(&mut disk, &*image, &new, work)?
    };
    warn(args, &created, context);
    if args.json {
        let mut output = Output::text()?;
        output.json(&show::View::of(&disk, &created.manifest)?)?;
        output.finish()?;
        return Ok(Outcome::Done);
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
        let name = Path::new("(standard input)");
        return add_diff(disk, (&mut io::stdin().lock(), name), new, work);
    }
    let file = File::open(diff)?;
    file.lock_shared()?;
    crate::files::refuse_image(&file)?;
    add_diff(disk, (&mut file.reader(), diff), new, work)
}

fn warn(args: &Args, created: &Created, context: &Context) {
    let (disk, name) = (&args.disk, &created.manifest.name);
    if let Some([before, now]) = &created.other_unique_id {
        context.warn(format_args!(
            "{disk}@{name}: this VHD has another unique id ({now}) than the one before ({before}): make sure that it \
             is the same disk; --source-unique-id says it for certain"
        ));
    }
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
