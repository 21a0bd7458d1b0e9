//! `vhd snapshot restore`: writes a point in time to an image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::args::{
    InPlaceWay, OutputFormat, SaidFormat, Windows, check_name_of_child, default_format, orphans,
    overwrite, windows_remark,
};
use super::far as stores_elsewhere;
use super::{
    Access, Context, Disk, DiskArgs, LockArgs, Outcome, Output, Parents, RateArgs, Result, Size,
    Time, managed, parse_latest, show,
};
use crate::cli::apply::say_how_in_place;
use crate::cli::args::cloud_remark;
use crate::cli::changes;
use crate::cli::context::refuse_files;
use crate::cli::convert::refuse_on_stdout;
use crate::cli::create::check_new_parent;
use crate::cli::gpt::say_gpt_of;
use crate::cli::message::Topic;
use crate::cli::{cloud, far, upload, upload_disk};
use crate::error::Error;
use crate::files::{
    self, Applied, Format, InPlace, OpenImage, Opened as _, Strategy, refuse_same_file,
};
use crate::image::{CopyOptions, Image as _, copy};
use crate::snapshot::{
    FarStore, PointImage, Restored, Work, check_content, open_beside, restore, restore_in_place,
    restore_in_place_claimed, restore_to_child,
};
use crate::storage::{Audience, refuse_part_of_store};
use crate::text::shown;

/// Write a snapshot to an image.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Every page is read once, from the newest diff that has it, however many there are. The image appears only when \
     its content digest is the one that the manifest says; with --force, an existing one is replaced only then. A \
     fixed VHD comes out byte for byte. To stdout the raw disk is written, and a wrong digest is found only at its \
     end: then the exit code is 3.\n\n\
     With --in-place an existing image is brought to the snapshot by writing only what differs, as vhd-apply does it: \
     on a clone or behind an undo journal, and read back before it counts. If its state stamp still says which \
     snapshot it holds, only what changed between the two is compared. What an interrupted restore left is taken back \
     first. The image keeps its format.\n\n\
     With -O differencing the new image stores only what differs from another one, its parent: best an earlier \
     snapshot, restored to a VHD. The parent must not be written to any more.\n\n",
    "Examples:\n",
    "  vhd snapshot restore --store /backup --disk web tue -o tuesday.vhd\n",
    "  vhd snapshot restore --store /backup web@tue -o disk.vhd --in-place\n",
    "  vhd snapshot restore --store /backup --disk web wed -o wed.vhd -O differencing --parent tuesday.vhd\n",
    "  vhd snapshot restore --store /backup --disk web --at 2026-11-20T12:00:00Z -o disk.raw\n",
    "  vhd snapshot restore --store /backup --disk web -o - | ssh far 'cat > disk.raw'\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) disk: DiskArgs,
    /// The snapshot, or DISK@SNAPSHOT [default: the newest].
    pub(super) snapshot: Option<String>,
    /// Newest snapshot at or before this time, as 2026-11-20, 2026-11-20T06:00 or "2d ago".
    #[arg(long, value_name = "TIME", value_parser = parse_latest, conflicts_with = "snapshot")]
    pub(super) at: Option<Time>,
    /// The image to create, or to change to the snapshot; azure:GROUP/NAME makes a new managed disk, - writes the raw disk to stdout.
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
    /// Its format [default: raw or VHD by its name, the kind of VHD like the original].
    #[arg(short = 'O', long, value_name = "FORMAT")]
    pub(super) output_format: Option<OutputFormat>,
    /// Replace the image completely if it exists; twice: even if other images have it as their parent. With --in-place:
    /// change it even if other images have it as theirs.
    #[arg(long, action = clap::ArgAction::Count)]
    pub(super) force: u8,
    /// Write it as a file without holes, as Windows and Hyper-V require: zeros are stored too.
    #[arg(long)]
    pub(super) dense: bool,
    /// If the image exists, write only what differs, in this way [default: auto].
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    pub(super) in_place: Option<InPlaceWay>,
    /// With --in-place: a list of what was written to the image since it held the snapshot, from another program. Only
    /// that is compared; the result is read back as a whole all the same. - is stdin.
    #[arg(long, value_name = "FILE", requires = "in_place")]
    pub(super) changes: Option<PathBuf>,
    /// With --changes: compare this part of the rest all the same, at random, and refuse a list that leaves something out.
    #[arg(long, value_name = "PERCENT", requires = "changes", value_parser = crate::cli::size::parse_percent)]
    pub(super) check_changes: Option<f64>,
    /// The parent of the differencing VHD to create.
    #[arg(long, value_name = "FILE", conflicts_with = "in_place")]
    pub(super) parent: Option<PathBuf>,
    /// Look in this folder for the parents of the parent, or of the image in place.
    #[arg(long, value_name = "DIR")]
    pub(super) parent_path: Vec<PathBuf>,
    /// Accept a raw image as the parent: nothing will show whether it is the right one.
    #[arg(long)]
    pub(super) raw_parent: bool,
    #[command(flatten)]
    pub(super) windows: Windows,
    /// Print a JSON summary.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) lock: LockArgs,
    #[command(flatten)]
    pub(super) rate: RateArgs,
}

/// The output of `--json`.
#[derive(Serialize)]
struct View {
    disk: String,
    snapshot: String,
    image: String,
    format: Option<&'static str>,
    outcome: &'static str,
    virtual_size: u64,
    content_digest: String,
    strategy: Option<&'static str>,
    update_bytes: Option<u64>,
    clear_bytes: Option<u64>,
}

/// Prints the result; `applied` describes what was written if it wasn't everything.
fn print(
    args: &Args,
    (disk, point): (&str, &PointImage),
    (format, outcome): (Option<Format>, &'static str),
    applied: Option<&Applied>,
) -> Result<()> {
    if !args.json {
        return Ok(());
    }
    let manifest = point.manifest();
    let mut output = Output::text()?;
    output.json(&View {
        disk: disk.to_owned(),
        snapshot: manifest.name.clone(),
        image: args.output.to_string_lossy().into_owned(),
        format: format.map(Format::name),
        outcome,
        virtual_size: point.virtual_size(),
        content_digest: manifest.content_digest.to_string(),
        strategy: applied
            .and_then(|applied| applied.strategy)
            .map(Strategy::name),
        update_bytes: applied.map(|applied| applied.updated),
        clear_bytes: applied.map(|applied| applied.cleared),
    })?;
    output.finish()
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if managed::is_wanted(&args.disk.store.store) {
        return managed::restore::run(args, context);
    }
    if let Some(store) = stores_elsewhere::store(&args.disk.store.store, context)? {
        return from_far(args, &*store, context);
    }
    from_folder(args, context)
}

/// Restores a point in time of a store in a folder.
fn from_folder(args: &Args, context: &Context) -> Result<Outcome> {
    let (disk, point) = open(args, context)?;
    let workers = context.workers()?;
    let progress = args.rate.limit(context.progress());
    let work = Work {
        workers: &workers,
        progress: &*progress,
    };
    if args.output == Path::new("-") {
        for (option, given) in [
            ("--json", args.json),
            ("--parent", args.parent.is_some()),
            ("--in-place", args.in_place.is_some()),
        ] {
            refuse_on_stdout(option, given)?;
        }
        to_stdout(args, &point, work)?;
        drop(progress);
        context.note_disk_sent(point.path(), point.virtual_size());
        return Ok(Outcome::Done);
    }
    if cloud::is_name(&args.output) {
        drop(progress);
        return to_disk(args, (disk.name(), &point), context);
    }
    if far::is_address(&args.output) {
        drop(progress);
        return to_blob(args, (disk.name(), &point), context);
    }
    refuse_part_of_store(&args.output)?;
    refuse_same_file(&args.output, &point.files())?;
    let format = format(args, &point)?;
    refuse_existing(args)?;
    if let Some(way) = args.in_place
        && args.output.exists()
    {
        let restored = in_place(args, way, (&disk, &point), work)?;
        drop(progress);
        say_in_place(args, &point, &restored, context);
        let outcome = match restored.applied {
            Some(_) => "updated",
            None => "already_there",
        };
        print(
            args,
            (disk.name(), &point),
            (None, outcome),
            restored.applied.as_ref(),
        )?;
        return Ok(Outcome::Done);
    }
    let made_from = Audience::of(point.files())?;
    let output = files::Output {
        path: &args.output,
        format,
        overwrite: overwrite(args.force),
        made_from: &made_from,
        dense: args.dense,
    };
    if let Some(parent) = &args.parent {
        let parent = open_parent(args, parent, context)?;
        let child_of = args.windows.child_of(Arc::clone(&parent));
        let applied = restore_to_child(&disk, &point, child_of, output, work)?;
        drop(progress);
        context.note(format_args!(
            "{}: {} as {format}, {} updated and {} cleared over {}, virtual size {}",
            shown(&args.output),
            shown(point.path()),
            Size(applied.updated),
            Size(applied.cleared),
            shown(parent.path()),
            Size(point.virtual_size())
        ));
        print(
            args,
            (disk.name(), &point),
            (Some(format), "restored"),
            Some(&applied),
        )?;
        return Ok(Outcome::Done);
    }
    args.windows.refuse_without_parent()?;
    restore(&point, output, work)?;
    drop(progress);
    if let Some(remark) = windows_remark(format, point.virtual_size()) {
        context.warn(Topic::TooLargeForWindows, remark);
    }
    context.note(format_args!(
        "{}: {} as {format}, virtual size {}",
        shown(&args.output),
        shown(point.path()),
        Size(point.virtual_size())
    ));
    print(
        args,
        (disk.name(), &point),
        (Some(format), "restored"),
        None,
    )?;
    Ok(Outcome::Done)
}

/// Restores from a store that isn't a folder.
fn from_far(args: &Args, store: &dyn FarStore, context: &Context) -> Result<Outcome> {
    if args.output != Path::new("-") && !cloud::is_far(&args.output) {
        refuse_existing(args)?;
    }
    let how = stores_elsewhere::Restore {
        disk: args.disk.disk.as_deref(),
        snapshot: args.snapshot.as_ref(),
        at: args.at,
        output: &args.output,
        format: args.output_format,
        overwrite: overwrite(args.force),
        dense: args.dense,
        json: args.json,
        rate: args.rate,
    };
    stores_elsewhere::restore(store, &how, context)
}

/// Opens the point, and the disk that is to be kept as long as it is read.
fn open(args: &Args, context: &Context) -> Result<(Disk, PointImage)> {
    let (name, names) = args.disk.meant(&args.snapshot)?;
    let open = |disk: &mut Disk| {
        let mut point = disk.image(show::choose(disk, names.first().copied(), args.at)?)?;
        let held = point.hold_files()?;
        Ok((point, held))
    };
    let patience = args.lock.patience(context);
    let store = &args.disk.store.store;
    // These read other snapshots of the disk, too.
    if args.in_place.is_some() || args.parent.is_some() {
        let mut disk = patience.wait_for(|| Disk::open(store, &name, Access::Read))?;
        let (point, _) = open(&mut disk)?;
        return Ok((disk, point));
    }
    // Where not all files can be held, the disk has the lock.
    patience.wait_for(|| open_beside(store, &name, open))
}

/// An error if the output is there, and nothing is said of that.
fn refuse_existing(args: &Args) -> Result<()> {
    if args.changes.is_some() && !args.output.exists() {
        return Err(Error::usage(
            "a list of changes is for an image that exists: there is none here",
        )
        .with_path(&args.output)
        .with_hint("name the image that held the snapshot, or omit --changes"));
    }
    if args.force == 0 && args.in_place.is_none() && args.output.exists() {
        return Err(Error::usage("the file already exists")
            .with_path(&args.output)
            .with_hint("choose another name; or write only the differences to it with --in-place, or replace it with --force"));
    }
    Ok(())
}

/// The format of a new image.
fn format(args: &Args, point: &PointImage) -> Result<Format> {
    match (args.output_format.map(Format::from), &args.parent) {
        (None, Some(_)) => {
            check_name_of_child(&args.output)?;
            Ok(Format::Differencing)
        }
        (Some(Format::Differencing), Some(_)) => Ok(Format::Differencing),
        (Some(format), Some(_)) => Err(Error::usage("only a differencing VHD has a parent")
            .with_found(format_args!("-O {format}"))
            .with_hint("omit -O")),
        (Some(Format::Differencing), None) if args.in_place.is_none() => Err(Error::usage(
            "a differencing VHD needs a parent, which an image of its own must be",
        )
        .with_found("-O differencing")
        .with_expected("--parent FILE")
        .with_hint("restore an earlier snapshot to a VHD first, and name that")),
        (Some(format), None) => Ok(format),
        // An existing image keeps its format, whatever its name.
        (None, None) if args.in_place.is_some() && args.output.exists() => Ok(Format::Raw),
        (None, None) => Ok(match (default_format(&args.output)?, point.format()) {
            (Format::Dynamic, Format::Fixed) => Format::Fixed,
            (by_name, _) => by_name,
        }),
    }
}

fn parents(args: &Args) -> Parents {
    Parents {
        files: Vec::new(),
        folders: args.parent_path.clone(),
        raw_parent: args.raw_parent,
    }
}

fn open_parent(args: &Args, path: &Path, context: &Context) -> Result<Arc<OpenImage>> {
    refuse_part_of_store(path)?;
    let parent = context.open(path, SaidFormat::NEVER, &parents(args))?;
    refuse_files(&args.output, &parent)?;
    check_new_parent(&parent, &args.output, args.raw_parent, context)?;
    Ok(Arc::new(parent))
}

fn in_place(
    args: &Args,
    way: InPlaceWay,
    (disk, point): (&Disk, &PointImage),
    work: Work<'_>,
) -> Result<Restored> {
    files::refuse_foreign(&args.output, None)?;
    let image = (args.output.as_path(), args.output_format.map(Format::from));
    let how = InPlace {
        strategy: way.strategy(),
        dense: args.dense,
        orphans: orphans(args.force),
        ..InPlace::default()
    };
    let parents = parents(args).options();
    match &args.changes {
        Some(list) => {
            let claim = changes::claim(list, args.check_changes)?;
            let claim = (&claim, changes::random());
            restore_in_place_claimed(point, image, (how, &parents), claim, work)
        }
        None => restore_in_place(disk, point, image, (how, &parents), work),
    }
}

fn say_in_place(args: &Args, point: &PointImage, restored: &Restored, context: &Context) {
    let (path, point) = (shown(&args.output), shown(point.path()));
    if let Some(from) = &restored.from {
        context.detail(format_args!(
            "{path}: holds {from} according to its state stamp, so only the changes between the two were compared"
        ));
    }
    let Some(applied) = &restored.applied else {
        context.note(format_args!(
            "{path}: already holds {point}, nothing was written"
        ));
        return;
    };
    say_how_in_place(&args.output, applied, context);
    context.note(format_args!(
        "{path}: {point} in place, {} updated and {} cleared, virtual size {}",
        Size(applied.updated),
        Size(applied.cleared),
        Size(applied.target_size)
    ));
    say_gpt_of(&args.output, parents(args).options(), context);
}

/// Writes the point to a new page blob.
fn to_blob(args: &Args, (disk, point): (&str, &PointImage), context: &Context) -> Result<Outcome> {
    let given = [
        ("--dense", args.dense),
        ("--in-place", args.in_place.is_some()),
        ("--parent", args.parent.is_some()),
    ];
    if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
        return Err(Error::usage("a page blob is not made in this way")
            .with_path(&args.output)
            .with_found(option)
            .with_hint(format!("omit {option}")));
    }
    args.windows.refuse_without_parent()?;
    let format = upload::format_of(&args.output, args.output_format.map(Into::into))?;
    let size = point.virtual_size();
    let options = upload::options_of(format, size, point.footer(), args.force > 0);
    let mut new = upload::begin(&args.output, &options, context)?;
    let workers = context.workers_far()?;
    let progress = context.progress();
    progress.begin("restoring", size);
    let copying = CopyOptions {
        work: Work::new(&workers, &*progress),
        digest: true,
    };
    let found = new.fill(point, copying)?;
    if let Some(found) = found {
        check_content(point, found)?;
    }
    point.check_unchanged()?;
    new.publish(found)?;
    drop(progress);
    if let Some(remark) = cloud_remark(format, size) {
        context.note(remark);
    }
    context.note(format_args!(
        "{}: {} as {format}, virtual size {}",
        shown(&args.output),
        shown(point.path()),
        Size(size)
    ));
    print(args, (disk, point), (Some(format), "restored"), None)?;
    Ok(Outcome::Done)
}

/// Writes the point to a new managed disk.
fn to_disk(args: &Args, (disk, point): (&str, &PointImage), context: &Context) -> Result<Outcome> {
    upload_disk::refuse(
        &args.output,
        args.output_format,
        &[
            ("--dense", args.dense),
            ("--in-place", args.in_place.is_some()),
            ("--parent", args.parent.is_some()),
            ("--force", args.force > 0),
        ],
    )?;
    args.windows.refuse_without_parent()?;
    let upload = upload_disk::Upload {
        output: &args.output,
        doing: "restoring",
        fix_gpt: false,
        verify: false,
    };
    let size = upload.run(point, |digest| check_content(point, digest), context)?;
    context.note(format_args!(
        "{}: {} as a managed disk, virtual size {}",
        shown(&args.output),
        shown(point.path()),
        Size(size)
    ));
    print(args, (disk, point), (Some(Format::Fixed), "restored"), None)?;
    Ok(Outcome::Done)
}

fn to_stdout(args: &Args, point: &PointImage, work: Work<'_>) -> Result<()> {
    let mut out = Output::disk(args.output_format, point.virtual_size())?;
    work.progress.begin("restoring", point.virtual_size());
    let options = CopyOptions { work, digest: true };
    let digest = copy(point, &mut out, options)?;
    out.finish()?;
    point.check_unchanged()?;
    digest.map_or(Ok(()), |digest| check_content(point, digest))
}
