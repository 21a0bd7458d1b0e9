//! `vhd diff`: shows what changed from one image to another.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{InputFormat, Io, Parents, SaidFormat, overwrite};
use super::change_report::{ChangeReport, ListFormat, Wanted};
use super::changes;
use super::context::{Context, Reading, refuse_files};
use super::exit::Outcome;
use super::output::Output;
use super::size::{Count, Size};
use crate::diff::{
    CompareOptions, Comparison, Compression, DiffOptions, WindowChange, Written, compare,
    compare_listed, write_diff, write_diff_listed, write_reversible_diff,
};
use crate::error::{Error, Result};
use crate::files::{Claim, EmptyDisk, ImageWindows, Opened, open_windows, same_file};
use crate::image::{ContentDigest, Image, Masked, NoneShared, SharedExtents};
use crate::page::{ChangeKind, PageList};
use crate::parallel::Work;
use crate::storage::{AtomicFile, Audience, IoPolicy};
use crate::text::shown;

/// The heading of the options about reading images.
const READING: &str = "Reading";

/// Show what changed from one image to another: list it, or write a diff.
///
/// Without -o the changed page ranges are listed, and the exit code tells whether there are any.
#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
#[command(after_help = concat!(
    "Images may be raw or VHDs of any type, of different sizes and formats: what counts is the virtual disk. \
     A page that became zero is a clear range, any other changed page a page range. What both images know to be \
     zero isn't read, nor what they share as clones on XFS or btrfs, unless the digests need it.\n\n",
    "Examples:\n",
    "  vhd-diff monday.vhd tuesday.vhd                        list the changed page ranges\n",
    "  vhd-diff monday.vhd tuesday.vhd --format xml           the same as a PageList\n",
    "  vhd-diff monday.vhd tuesday.vhd -o tuesday.vhddiff     write a diff\n",
    "  vhd-diff a.raw b.raw -o - | ssh far vhd-apply a.raw -  bring a remote copy up to date\n",
    "  vhd-diff /dev/null monday.vhd -o all.vhddiff           a complete disk, compressed: a diff from an empty one\n",
    "  vhd-diff a.raw b.raw -o ab.vhddiff --reversible        a diff that can be undone\n  \
         vhd-diff --from-child child.vhd -o child.vhddiff       what a child changed in its parent\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The image that the diff starts from.
    #[arg(required_unless_present = "from_child")]
    base: Option<PathBuf>,
    /// The image that the diff leads to.
    #[arg(required_unless_present = "from_child")]
    target: Option<PathBuf>,
    /// Compare a differencing VHD with its parent, reading only the pages that the child stores.
    #[arg(long, value_name = "CHILD", conflicts_with_all = ["base", "target", "base_format", "target_format"])]
    from_child: Option<PathBuf>,
    /// With --from-child: compute the content digests, which requires reading both disks completely.
    #[arg(long, requires = "from_child", conflicts_with = "no_digest")]
    digest: bool,
    /// The base's window hashes, as written by vhd hash --windows: then only the target is read, and the base only
    /// where they differ.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from_child", "reversible"], help_heading = READING)]
    base_digests: Option<PathBuf>,
    /// A list of the changed ranges that another program keeps: only those are compared, and everything else is taken to
    /// be equal; - is stdin.
    #[arg(long, value_name = "FILE", conflicts_with = "from_child", help_heading = READING)]
    changes: Option<PathBuf>,
    /// With --changes: compare this part of the rest all the same, at random, and refuse a list that leaves something out.
    #[arg(long, value_name = "PERCENT", requires = "changes", value_parser = super::size::parse_percent, help_heading = READING)]
    check_changes: Option<f64>,
    /// Write a diff to this file; - is stdout.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How to list the ranges; with -q and text, nothing is listed, and the exit code is the answer.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        conflicts_with = "output"
    )]
    format: ListFormat,
    /// Show which files own the changes, instead of the ranges: + created, - removed, M modified, R renamed.
    #[arg(long = "files", conflicts_with = "output")]
    by_file: bool,
    /// With --files: also list files of which only owner, permissions or times changed, as A.
    #[arg(long, requires = "by_file")]
    all: bool,
    /// How the diff stores data: none, zstd or zstd:LEVEL with a level from 1 to 19.
    #[arg(long, value_name = "HOW", default_value = "zstd", value_parser = parse_compression)]
    compress: Compression,
    /// Omit the content digests: faster, but apply can't be certain of the right base.
    #[arg(long)]
    no_digest: bool,
    /// Whether to read through the page cache.
    #[arg(long, value_name = "HOW", default_value = "auto", help_heading = READING)]
    io: Io,
    /// Also read data that both images share as clones of one another.
    #[arg(long, help_heading = READING)]
    no_clones: bool,
    /// Also read the holes of files, in case their file system is wrong about them.
    #[arg(long, help_heading = READING)]
    no_holes: bool,
    /// Also store the old data of every changed page, so that the diff can be undone: vhd-apply --reverse.
    #[arg(long, requires = "output")]
    reversible: bool,
    /// Replace the output if it exists.
    #[arg(long)]
    force: bool,
    /// Read as much as possible of damaged VHDs: what is lost reads as zeros.
    #[arg(long)]
    salvage: bool,
    /// Print a JSON summary of the diff written; without -o the same as --format json.
    #[arg(long)]
    json: bool,
    /// Format of the base [default: detected].
    #[arg(long, value_name = "FORMAT")]
    base_format: Option<InputFormat>,
    /// Format of the target [default: detected].
    #[arg(long, value_name = "FORMAT")]
    target_format: Option<InputFormat>,
    #[command(flatten)]
    parents: Parents,
}

impl Args {
    fn reading(&self) -> Reading {
        Reading {
            salvage: self.salvage,
            io: IoPolicy {
                caching: self.io.into(),
                ignore_holes: self.no_holes,
            },
        }
    }
}

pub(super) fn parse_compression(text: &str) -> Result<Compression, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if let Some(path) = &args.from_child {
        let reading = args.reading();
        let child = context.open_with(path, SaidFormat::NEVER, &args.parents, reading)?;
        let (Some(vhd), Some(parent)) = (child.vhd(), child.parent()) else {
            return Err(Error::usage("this image has no parent to compare it with")
                .with_path(path)
                .with_found(child.format())
                .with_expected("a differencing VHD")
                .with_hint("name both images: vhd-diff BASE TARGET"));
        };
        let views = [&**parent, &child].map(|image| Masked::new(image, vhd));
        let [base, target] = &views;
        // The part that a smaller child cuts off its parent isn't stored in the child, but belongs to the way back.
        let cut = args.reversible && parent.virtual_size() > child.virtual_size();
        let views: Option<[&dyn Image; 2]> = (!args.digest && !cut).then_some([base, target]);
        return diff(args, &Pair::new(&**parent, &child, views), context);
    }
    let (Some(base), Some(target)) = (&args.base, &args.target) else {
        return Err(Error::usage("two images are needed"));
    };
    if same_file(base, target)? {
        return Err(Error::usage("base and target are one and the same file")
            .with_path(target)
            .with_hint("name two images; an image can't differ from itself"));
    }
    let base_format = SaidFormat::by("--base-format", args.base_format);
    let target_format = SaidFormat::by("--target-format", args.target_format);
    EmptyDisk::refuse(target, "name the image that the diff leads to")?;
    let open = |path, format| context.open_source(path, format, &args.parents, args.reading());
    let (base, target) = if EmptyDisk::is_named(base) {
        let target = open(target, target_format)?;
        let empty: Box<dyn Opened> = Box::new(EmptyDisk::new(target.virtual_size()));
        (empty, target)
    } else {
        (open(base, base_format)?, open(target, target_format)?)
    };
    let mut pair = Pair::new(&*base, &*target, None);
    if let Some(path) = &args.base_digests {
        let image = base.as_file().ok_or_else(|| {
            Error::usage("a list of window hashes is for an image in a file")
                .with_path(path)
                .with_hint("omit --base-digests")
        })?;
        pair.list = Some(open_windows(path, image)?);
    }
    if let Some(path) = &args.changes {
        let claim = changes::claim(path, args.check_changes)?;
        let workers = context.workers_reading(&[pair.base, pair.target])?;
        let progress = context.progress();
        let images = (pair.base as &dyn Image, pair.target as &dyn Image);
        let checked = claim.check(
            images.0,
            images.1,
            changes::random(),
            (&workers, &*progress),
        );
        drop(progress);
        let checked = checked.map_err(|error| error.with_path(path))?;
        if args.check_changes.is_some() {
            context.detail(format_args!(
                "{}: {} of what it leaves out were compared, and are equal",
                shown(path),
                Size(checked)
            ));
        }
        pair.claim = Some(claim);
    }
    diff(args, &pair, context)
}

/// The two images, and which parts of them are compared.
struct Pair<'a> {
    base: &'a dyn Opened,
    target: &'a dyn Opened,
    compared: [&'a dyn Image; 2],
    /// Whether all of both is compared.
    whole: bool,
    /// The window hashes of the base.
    list: Option<ImageWindows>,
    /// The list of changes from `--changes`.
    claim: Option<Claim>,
}

impl<'a> Pair<'a> {
    fn new(
        base: &'a dyn Opened,
        target: &'a dyn Opened,
        views: Option<[&'a dyn Image; 2]>,
    ) -> Self {
        Self {
            base,
            target,
            compared: views.unwrap_or([base, target]),
            whole: views.is_none(),
            list: None,
            claim: None,
        }
    }

    fn larger(&self) -> u64 {
        self.base.virtual_size().max(self.target.virtual_size())
    }

    /// Knowledge about the two images that spares reading them.
    fn known(&self, args: &Args, context: &Context) -> Box<dyn SharedExtents + '_> {
        if let Some(claim) = &self.claim {
            return claim.shared(self.base, self.target);
        }
        let trusted = self.whole && !args.no_clones;
        let known = trusted
            .then(|| self.target.shared_with(self.base))
            .flatten();
        if let Some(reason) = self.target.why_nothing_is_shared() {
            context.note(format_args!(
                "the service doesn't list what changed, so both are read and compared: {reason}"
            ));
        }
        known.unwrap_or_else(|| Box::new(NoneShared))
    }

    fn check_unchanged(&self) -> Result<()> {
        self.base.check_unchanged()?;
        self.target.check_unchanged()
    }
}

fn diff(args: &Args, pair: &Pair<'_>, context: &Context) -> Result<Outcome> {
    match &args.output {
        None => list(args, pair, context),
        Some(path) if path == Path::new("-") => {
            if args.json {
                return Err(
                    Error::usage("the diff and the JSON summary can't both go to stdout")
                        .with_hint("write the diff to a file with -o FILE"),
                );
            }
            let name = Path::new("(standard output)");
            let written = write(args, pair, Output::binary()?, name, context)?;
            tell_known(&written.comparison, context);
            written.out.finish()?;
            Ok(Outcome::Done)
        }
        Some(path) => {
            refuse_files(path, pair.base)?;
            refuse_files(path, pair.target)?;
            to_file(args, pair, path, context)?;
            Ok(Outcome::Done)
        }
    }
}

fn tell_known(comparison: &Comparison, context: &Context) {
    context.detail(format_args!(
        "{} not compared: shared by both images",
        Size(comparison.known_bytes)
    ));
}

fn list(args: &Args, pair: &Pair<'_>, context: &Context) -> Result<Outcome> {
    let images = [pair.base, pair.target];
    let wanted = Wanted {
        format: args.format,
        json: args.json,
        by_file: args.by_file,
        all: args.all,
    };
    if let Some(list) = told(args, pair) {
        context.note(
            "this is the service's list of what was written, also where that was the same as before; other formats compare",
        );
        return list_told(wanted, images, list, context);
    }
    let mut report = ChangeReport::begin(wanted, images, context)?;
    let workers = context.workers_reading(&[pair.base, pair.target])?;
    let progress = context.progress();
    progress.begin("comparing", pair.larger());
    let options = CompareOptions {
        work: Work::new(&workers, &*progress),
        digests: false,
        payload: false,
        equal: &*pair.known(args, context),
    };
    let [base, target] = pair.compared;
    let sink = |change: WindowChange| report.push(&change);
    let comparison = match &pair.list {
        Some(list) => compare_listed(list, (base, target), options, Ok, sink, |_, _| Ok(()))?,
        None => compare(base, target, options, Ok, sink)?,
    };
    tell_known(&comparison, context);
    pair.check_unchanged()?;
    drop(progress);
    report.end(images, &comparison, context)?;
    Ok(if comparison.is_same() {
        Outcome::Done
    } else {
        Outcome::No
    })
}

/// The list of a service, where a list in its form is wanted and it has one.
fn told(args: &Args, pair: &Pair<'_>) -> Option<PageList> {
    let plain = args.format == ListFormat::Xml && !args.by_file && pair.whole;
    if !plain || args.no_clones || pair.list.is_some() || pair.claim.is_some() {
        return None;
    }
    pair.target.told_changes(pair.base)
}

/// Prints a list without reading what is listed.
pub(super) fn list_told(
    wanted: Wanted,
    images: [&dyn Opened; 2],
    list: PageList,
    context: &Context,
) -> Result<Outcome> {
    let comparison = Comparison {
        ranges: list.len() as u64,
        update_bytes: list.bytes(ChangeKind::Update),
        clear_bytes: list.bytes(ChangeKind::Clear),
        resized: images[0].virtual_size() != images[1].virtual_size(),
        ..Comparison::default()
    };
    let mut report = ChangeReport::begin(wanted, images, context)?;
    report.push(&WindowChange {
        changes: list,
        ..WindowChange::default()
    })?;
    report.end(images, &comparison, context)?;
    let same = comparison.is_same();
    Ok(if same { Outcome::Done } else { Outcome::No })
}

fn write<W: Write>(
    args: &Args,
    pair: &Pair<'_>,
    out: W,
    name: &Path,
    context: &Context,
) -> Result<Written<W>> {
    let workers = context.workers_reading(&[pair.base, pair.target])?;
    let progress = context.progress();
    progress.begin("comparing", pair.larger());
    let options = DiffOptions {
        work: Work::new(&workers, &*progress),
        compression: args.compress,
        digests: pair.whole && !args.no_digest,
        equal: &*pair.known(args, context),
        confirm: &|| pair.check_unchanged(),
    };
    let [base, target] = pair.compared;
    let (base, target) = ((base, pair.base.side()), (target, pair.target.side()));
    match &pair.list {
        Some(list) => {
            let out = (out, name.to_path_buf());
            write_diff_listed(list, base, target, out, options, |_, _| Ok(()))
        }
        None if args.reversible => write_reversible_diff(base, target, out, name, options),
        None => write_diff(base, target, out, name, options),
    }
}

fn to_file(args: &Args, pair: &Pair<'_>, path: &Path, context: &Context) -> Result<()> {
    let overwrite = overwrite(args.force);
    let files = [pair.base.files(), pair.target.files()].concat();
    let file = AtomicFile::begin(path, overwrite, Audience::of(files)?)?;
    let out = file.file().appender();
    let written = write(args, pair, out, path, context)?;
    let summary = Summary::new(path, pair, &written);
    tell_known(&written.comparison, context);
    drop(written);
    file.publish(overwrite)?;
    if args.json {
        let mut output = Output::text()?;
        output.json(&summary)?;
        output.finish()?;
    }
    context.note(format_args!(
        "{}: {}, {} updated and {} cleared{}, in {}",
        shown(&path),
        Count(summary.range_count, "range"),
        Size(summary.update_bytes),
        Size(summary.clear_bytes),
        if summary.reversible {
            ", reversible"
        } else {
            ""
        },
        Size(summary.file_size)
    ));
    Ok(())
}

#[derive(Serialize)]
struct Summary {
    diff: String,
    identity: String,
    same: bool,
    reversible: bool,
    range_count: u64,
    update_bytes: u64,
    clear_bytes: u64,
    file_size: u64,
    base: Side,
    target: Side,
}

/// One of the images that were compared.
#[derive(Serialize)]
pub(super) struct Side {
    image: String,
    format: &'static str,
    virtual_size: u64,
    content_digest: Option<String>,
}

impl Side {
    pub(super) fn new(image: &dyn Opened, digest: Option<ContentDigest>) -> Self {
        Self {
            image: image.path().to_string_lossy().into_owned(),
            format: image.format().name(),
            virtual_size: image.virtual_size(),
            content_digest: digest.map(|digest| digest.to_string()),
        }
    }
}

impl Summary {
    fn new<W>(path: &Path, pair: &Pair<'_>, written: &Written<W>) -> Self {
        let Comparison {
            base_digest,
            target_digest,
            ..
        } = written.comparison;
        Self {
            diff: path.to_string_lossy().into_owned(),
            identity: ContentDigest(written.digest).to_string(),
            same: written.comparison.is_same(),
            reversible: written.trailer.way_back.is_some(),
            range_count: written.comparison.ranges,
            update_bytes: written.trailer.update_bytes,
            clear_bytes: written.trailer.clear_bytes,
            file_size: written.len,
            base: Side::new(pair.base, base_digest),
            target: Side::new(pair.target, target_digest),
        }
    }
}
