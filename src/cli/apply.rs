//! `vhd apply`: turns a base into the target of its diffs.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::ValueEnum;
use serde::Serialize;

use super::args::{
    InPlaceWay, InputFormat, OutputFormat, Parents, SaidFormat, Windows, default_format, orphans,
    overwrite, windows_remark,
};
use super::context::{Context, Reading, refuse_files};
use super::convert::refuse_on_stdout;
use super::create::check_new_parent;
use super::exit::Outcome;
use super::gpt::say_gpt_of;
use super::message::{Topic, Warning};
use super::output::{Output as Stdout, STDOUT};
use super::size::Size;
use super::squash::{not_reversible, open_diffs};
use super::upload::format_of as format_in_blob;
use super::{cloud, far, far_apply};
use crate::diff::{BaseCheck, Chain, DiffFile, MAGIC};
use crate::error::{Error, Result, quoted};
use crate::files::{
    Applied, ApplyOptions, BaseChecked, BlobApplied, BlobApply, EmptyDisk, Format, InPlace, Opened,
    Orphans, Output, Strategy, apply_in_place, apply_to_child, apply_to_image, apply_to_pipe,
    beginning_of, check_output, format_of_result, refuse_foreign, refuse_pending, refuse_same_file,
    roll_back, same_file,
};
use crate::image::{ContentDigest, Image as _};
use crate::parallel::{Work, Workers};
use crate::progress::Progress;
use crate::storage::Audience;
use crate::text::shown;

/// Turn a base into the target of a diff, in place or as a new image.
///
/// Without -o the base itself becomes the target: as a clone that replaces it if the file system supports clones,
/// otherwise with an undo journal, so that it is always the old or the new point in time, or one command away from
/// either.
#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
#[command(after_help = concat!(
    "Several diffs are applied in order, each page written once. Nothing is written before all diffs are verified, \
     follow one another, and the base is known to be the one they were made from. Diffs that the base holds already \
     are left out.\n\n\
     The content of the result is recorded in an extended attribute of its file, its state stamp: as long as nothing writes to the file, the next apply needn't read all of it. vhd info shows the stamp, vhd hash --stamp sets one.\n\n",
    "Examples:\n",
    "  vhd-apply monday.vhd tuesday.vhddiff -o tuesday.vhd      create a new image\n",
    "  vhd-apply disk.vhd tuesday.vhddiff wednesday.vhddiff     bring a copy up to date in place\n",
    "  vhd-diff a.raw b.raw -o - | vhd-apply copy.raw -         through a pipe\n",
    "  vhd-apply disk.vhd tuesday.vhddiff --undo back.vhddiff   keep a diff to undo it\n",
    "  vhd-apply --reverse disk.vhd wednesday.vhddiff           undo a reversible diff\n",
    "  vhd-apply /dev/null all.vhddiff -o disk.vhd              a disk from a diff based on an empty one\n",
    "  vhd-apply --rollback disk.vhd                            undo an interrupted apply\n",
    "  vhd-apply @web tue.vhddiff --blob-snapshot tue           a page blob, and a snapshot of it\n  \
         vhd-apply base.vhd d -o child.vhd -O differencing        store only the changes, on top of the base\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    /// The image to change into the target.
    base: PathBuf,
    /// The diffs, in order; - is stdin.
    #[arg(value_name = "DIFF", required_unless_present = "rollback")]
    diffs: Vec<PathBuf>,
    /// Write a new image instead of changing the base; - writes the raw disk to stdout.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["undo", "rollback"])]
    output: Option<PathBuf>,
    /// Go back: turn the target of reversible diffs into their base. Several are given newest first, in the order in
    /// which they are undone.
    #[arg(long, conflicts_with = "rollback")]
    reverse: bool,
    /// Format of the new image [default: raw or VHD by its name, the kind of VHD like the target].
    #[arg(short = 'O', long, value_name = "FORMAT", requires = "output")]
    output_format: Option<OutputFormat>,
    /// With -o: replace the output if it exists; twice: even if other images have it as their parent. In place: change
    /// the base even if other images have it as theirs.
    #[arg(long, action = clap::ArgAction::Count, conflicts_with = "rollback")]
    force: u8,
    #[command(flatten)]
    windows: Windows,
    /// Keep a diff that undoes the apply in this file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rollback", "dry_run"])]
    undo: Option<PathBuf>,
    /// Undo an interrupted apply.
    #[arg(long, conflicts_with_all = ["diffs", "dry_run"])]
    rollback: bool,
    /// Of a page blob: take a snapshot of the result, which gets this name.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["output", "rollback", "dry_run"])]
    blob_snapshot: Option<String>,
    /// How to check that the base is the right one.
    #[arg(long, value_name = "HOW", default_value = "auto")]
    base_check: Check,
    /// How the base is changed in place.
    #[arg(long, value_name = "HOW", default_value = "auto", conflicts_with_all = ["output", "rollback"])]
    in_place: InPlaceWay,
    /// Check everything and report what would be done, but write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Read the result back and compare its content digest.
    #[arg(long)]
    verify: bool,
    /// Write the result as a file without holes, as Windows and Hyper-V require: zeros are stored too.
    #[arg(long, conflicts_with = "rollback")]
    dense: bool,
    /// Format of the base [default: detected].
    #[arg(short = 'f', long, value_name = "FORMAT")]
    base_format: Option<InputFormat>,
    /// Print a JSON summary.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    parents: Parents,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Check {
    /// Like full, or by the window hashes that vhd hash --stamp keeps next to it, plus the data under the changed
    /// pages.
    Auto,
    /// By a valid state stamp alone, if there is one; the digest of the result is then taken from the diff.
    Stamp,
    /// Read all of it and compare its content digest.
    Full,
    /// Read only the data under the changed pages.
    Touched,
}

impl From<Check> for BaseCheck {
    fn from(check: Check) -> Self {
        match check {
            Check::Auto => Self::Stamped,
            Check::Stamp => Self::Trusted,
            Check::Full => Self::Full,
            Check::Touched => Self::Touched,
        }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let workers = workers(args, context)?;
    let progress = context.progress();
    let parents = args.parents.options();
    let options = ApplyOptions {
        work: Work::new(&workers, &*progress),
        check: args.base_check.into(),
        verify: args.verify,
        parents: &parents,
    };
    if args.rollback {
        let digest = take_back(args, options, context)?;
        drop(progress);
        let digest = digest.map_or_else(String::new, |digest| format!(", content digest {digest}"));
        context.note(format_args!(
            "{}: holds the old point in time again{digest}",
            shown(&args.base)
        ));
        return if args.json {
            print(args, None, None)
        } else {
            Ok(Outcome::Done)
        };
    }
    refuse_misplaced(args)?;
    far_apply::check_point(args.blob_snapshot.as_deref(), &args.base)?;
    refuse_base_as_diff(args)?;
    // Kept until progress is no longer shown.
    let warnings = Mutex::new(Vec::new());
    let warn = |warning: &Error| {
        let mut warnings = warnings.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.push(Warning::of(warning));
    };
    if let (Some(output), None) = (&args.output, args.output_format)
        && !far::is_address(output)
    {
        default_format(output)?;
    }
    let (mut made, mut blob) = (None, None);
    let applied = match &args.output {
        Some(output) if !args.dry_run => {
            to_new(args, output, options, context).map(|(applied, format)| {
                made = Some(format);
                applied
            })
        }
        None if cloud::is_name(&args.base) => Err(Error::usage(
            "a managed disk can't be changed in place: it has no snapshot to go back to",
        )
        .with_path(&args.base)
        .with_hint("make a new image with -o")),
        None if far::is_address(&args.base) => {
            let done = to_blob(args, &warn, options, context);
            done.map(|done| blob.insert(done).applied.clone())
        }
        output => {
            if let Some(output) = output.as_ref().filter(|output| is_file(output)) {
                refuse_same_file(output, &inputs(args))?;
                check_output(output, overwrite(args.force))?;
                refuse_pending(&args.base)?;
            }
            super::store_path::refuse_point(&args.base)?;
            EmptyDisk::refuse(&args.base, "name the new image with -o")?;
            super::signals::writes(&args.base);
            if args.base_format.is_none() {
                refuse_foreign(&args.base, Some("-f"))?;
            }
            let chain = chain(args, &args.base, options.work.progress)?;
            let how = InPlace {
                format: args.base_format.map(Into::into),
                strategy: args.in_place.strategy(),
                undo: args.undo.as_deref(),
                dry_run: args.dry_run,
                dense: args.dense,
                orphans: match output {
                    // The base isn't changed.
                    Some(_) => Orphans::Allow,
                    None => orphans(args.force),
                },
                warn: Some(&warn),
            };
            apply_in_place(&args.base, chain, how, options)
        }
    };
    drop(progress);
    for warning in warnings
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        context.warn_of(&warning);
    }
    let applied = applied?;
    say(args, &applied, made, context);
    say_gpt(args, &applied, context);
    if let Some(blob) = &blob {
        far_apply::say(&args.base, blob, context);
    }
    if args.json {
        print(args, Some(&applied), blob.and_then(|blob| blob.snapshot))
    } else {
        Ok(Outcome::Done)
    }
}

/// More threads where they mostly wait for a service.
fn workers(args: &Args, context: &Context) -> Result<Workers> {
    if cloud::is_far(&args.base) || args.output.as_deref().is_some_and(far::is_address) {
        context.workers_far()
    } else {
        context.workers()
    }
}

/// Takes back what was interrupted; gives the digest of what the base holds then, if it is known.
fn take_back(
    args: &Args,
    options: ApplyOptions<'_>,
    context: &Context,
) -> Result<Option<ContentDigest>> {
    super::signals::writes(&args.base);
    if far::is_address(&args.base) {
        far_apply::roll_back(&args.base, options, context)
    } else {
        roll_back(&args.base, options)
    }
}

fn refuse_base_as_diff(args: &Args) -> Result<()> {
    for diff in &args.diffs {
        if same_file(&args.base, diff)? {
            return Err(
                Error::usage("the base and a diff are one and the same file")
                    .with_path(diff)
                    .with_hint("vhd-apply takes the base image first, then the diffs"),
            );
        }
    }
    Ok(())
}

/// Changes the page blob that the base is.
fn to_blob(
    args: &Args,
    warn: &(dyn Fn(&Error) + Sync),
    options: ApplyOptions<'_>,
    context: &Context,
) -> Result<BlobApplied> {
    far_apply::refuse_options(
        &args.base,
        &[
            ("--undo", args.undo.is_some()),
            ("--in-place", args.in_place.strategy().is_some()),
            ("--dense", args.dense),
        ],
    )?;
    super::signals::writes(&args.base);
    let chain = chain(args, &nowhere(), options.work.progress)?;
    let how = BlobApply {
        format: args.base_format.map(Into::into),
        format_option: Some("-f"),
        dry_run: args.dry_run,
        snapshot: args.blob_snapshot.as_deref(),
        warn: Some(warn),
    };
    far_apply::in_place(&args.base, &chain, how, options, context)
}

/// Where diffs from a pipe are kept if there is no file that they could lie beside.
fn nowhere() -> PathBuf {
    std::env::temp_dir().join("diff")
}

/// Whether an output is a file: neither stdout nor a page blob.
fn is_file(output: &Path) -> bool {
    !is_stdout(output) && !far::is_address(output)
}

/// Reports the location of the GPT's backup in a resulting file, if it isn't at the end.
fn say_gpt(args: &Args, applied: &Applied, context: &Context) {
    let written = args.output.is_some() || applied.already < applied.diffs;
    let path = args.output.as_ref().unwrap_or(&args.base);
    if written && !args.dry_run && is_file(path) {
        say_gpt_of(path, args.parents.options(), context);
    }
}

/// Refuses images in place of diffs and vice versa, with a hint what was probably meant.
fn refuse_misplaced(args: &Args) -> Result<()> {
    let is_diff = |path: &Path| {
        let mut start = [0; MAGIC.len()];
        let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
        read.is_ok() && start == MAGIC
    };
    if let [diff] = args.diffs.as_slice()
        && args.base.is_file()
        && diff.is_file()
        && is_diff(&args.base)
        && !is_diff(diff)
    {
        return Err(Error::unsupported("this is a diff, where the base belongs")
            .with_path(&args.base)
            .with_hint(format!(
                "vhd-apply takes the base image first, then its diffs: vhd-apply {} {}; to see what this one changes: vhd \
                 show {}",
                quoted(diff),
                quoted(&args.base),
                quoted(&args.base)
            )));
    }
    if let (Some(last), None, true) = (args.diffs.last(), &args.output, args.diffs.len() > 1)
        && last != Path::new("-")
        && std::fs::symlink_metadata(last).is_err()
    {
        return Err(Error::usage("there is no such diff")
            .with_path(last)
            .with_hint(format!(
                "if that is the image to create, use -o {}",
                quoted(last)
            )));
    }
    Ok(())
}

fn chain(args: &Args, beside: &Path, progress: &dyn Progress) -> Result<Chain> {
    let diffs = open_diffs(&args.diffs, beside, progress)?;
    if !args.reverse {
        return check_possible(args, Chain::new(diffs)?);
    }
    let hint = "apply the diff that --undo kept; create diffs with vhd-diff --reversible to be able to undo them";
    let back = |diff: &DiffFile| diff.reversed().ok_or_else(|| not_reversible(diff, hint));
    let chain = Chain::new(diffs.iter().map(back).collect::<Result<_>>()?)?;
    check_possible(args, chain)
}

/// Fails if a full check is requested, but the diffs don't contain the base's digest.
fn check_possible(args: &Args, chain: Chain) -> Result<Chain> {
    if args.base_check != Check::Full || chain.base_digest().is_some() {
        return Ok(chain);
    }
    let name = chain.first().map_or(Path::new("-"), DiffFile::name);
    Err(
        Error::usage("the base can't be checked in full: this diff has no content digests")
            .with_path(name)
            .with_hint(
                "create the diff again, without --no-digest; or use --base-check touched, which reads only the data under the \
                 changed pages",
            ),
    )
}

/// The format of the base as the user specified it.
fn said(args: &Args) -> SaidFormat {
    SaidFormat::by("-f", args.base_format)
}

fn inputs(args: &Args) -> Vec<&Path> {
    let diffs = args.diffs.iter().map(PathBuf::as_path);
    diffs.chain([args.base.as_path()]).collect()
}

/// Who may read all the diffs; the origin of one from stdin is unknown.
fn diffs_audience(args: &Args) -> Result<Audience> {
    Audience::of(args.diffs.iter().filter(|path| *path != Path::new("-")))
}

fn to_new(
    args: &Args,
    output: &Path,
    options: ApplyOptions<'_>,
    context: &Context,
) -> Result<(Applied, Format)> {
    if is_stdout(output) {
        return to_stdout(args, options, context).map(|applied| (applied, Format::Raw));
    }
    if far::is_address(output) {
        return to_new_blob(args, output, options, context);
    }
    refuse_same_file(output, &inputs(args))?;
    // Checked before the diffs are read.
    check_output(output, overwrite(args.force))?;
    let base = &args.base;
    if super::store_path::is_point(base) || cloud::is_far(base) || EmptyDisk::is_named(base) {
        return from_point(args, output, options, context);
    }
    let base = context.open(&args.base, said(args), &args.parents)?;
    refuse_files(output, &base)?;
    let chain = chain(args, output, options.work.progress)?;
    let whole = base.virtual_size();
    let base = Arc::new(beginning_of(base, chain.base_size())?);
    let behind = whole - base.virtual_size();
    let format = output_format(args, output, &*base, &chain)?;
    let made_from = diffs_audience(args)?;
    let out = Output {
        path: output,
        format,
        overwrite: overwrite(args.force),
        made_from: &made_from,
        dense: args.dense,
    };
    if format == Format::Differencing {
        check_new_parent(&base, output, args.parents.raw_parent, context)?;
        let parent = args.windows.child_of(base);
        return Ok((apply_to_child(parent, chain, out, options)?, format));
    }
    args.windows.refuse_without_parent()?;
    context.note_device(output);
    let applied = apply_to_image(&*base, &chain, out, options)?;
    Ok((Applied { behind, ..applied }, format))
}

fn is_stdout(output: &Path) -> bool {
    output == Path::new("-")
}

/// Writes the resulting raw disk to stdout.
fn to_stdout(args: &Args, options: ApplyOptions<'_>, context: &Context) -> Result<Applied> {
    refuse_on_stdout("--json", args.json)?;
    refuse_on_stdout("--verify", args.verify)?;
    Stdout::disk(args.output_format, 0)?;
    let reading = Reading::default();
    // There is no output file in whose folder to create it.
    let (base, chain) = open_base(args, &nowhere(), reading, options.work.progress, context)?;
    let mut out = Stdout::disk(args.output_format, chain.target_size())?;
    let applied = apply_to_pipe(&*base, &chain, (&mut out, Path::new(STDOUT)), options)?;
    out.finish()?;
    Ok(applied)
}

/// Opens the diffs, and a base that needn't be a file. An empty disk gets the size that the diffs require.
fn open_base(
    args: &Args,
    beside: &Path,
    reading: Reading,
    progress: &dyn Progress,
    context: &Context,
) -> Result<(Box<dyn Opened>, Chain)> {
    if EmptyDisk::is_named(&args.base) {
        let chain = chain(args, beside, progress)?;
        return Ok((Box::new(EmptyDisk::new(chain.base_size())), chain));
    }
    let base = context.open_source(&args.base, said(args), &args.parents, reading)?;
    Ok((base, chain(args, beside, progress)?))
}

/// As [`apply`] for a base that is a point in time of a store, or an empty disk.
fn from_point(
    args: &Args,
    output: &Path,
    options: ApplyOptions<'_>,
    context: &Context,
) -> Result<(Applied, Format)> {
    let reading = Reading::default();
    let (base, chain) = open_base(args, output, reading, options.work.progress, context)?;
    refuse_files(output, &*base)?;
    let format = output_format(args, output, &*base, &chain)?;
    if format == Format::Differencing {
        EmptyDisk::refuse(&args.base, "create a VHD of another format from it")?;
        let (what, hint) = if cloud::is_far(&args.base) {
            (
                "a page blob can't be the parent of a differencing VHD",
                "make a VHD of it first, with vhd convert",
            )
        } else {
            (
                "a point in time of a store can't be the parent of a differencing VHD",
                "restore it to a VHD first, with vhd snapshot restore",
            )
        };
        return Err(Error::usage(what).with_path(&args.base).with_hint(hint));
    }
    let made_from = diffs_audience(args)?;
    let out = Output {
        path: output,
        format,
        overwrite: overwrite(args.force),
        made_from: &made_from,
        dense: args.dense,
    };
    Ok((apply_to_image(&*base, &chain, out, options)?, format))
}

/// Applies the diffs into a new page blob.
fn to_new_blob(
    args: &Args,
    output: &Path,
    options: ApplyOptions<'_>,
    context: &Context,
) -> Result<(Applied, Format)> {
    far_apply::refuse_options(output, &[("--dense", args.dense)])?;
    args.windows.refuse_without_parent()?;
    if args.base == output {
        return Err(Error::usage("the output is the same blob as the base")
            .with_path(output)
            .with_hint("omit -o to change it, or choose another name"));
    }
    let format = format_in_blob(output, args.output_format.map(Into::into))?;
    let (base, chain) = open_base(
        args,
        &nowhere(),
        Reading::default(),
        options.work.progress,
        context,
    )?;
    let base: &dyn Opened = &*base;
    let new = (output, format, args.force > 0);
    Ok((
        far_apply::to_new(base, &chain, new, options, context)?,
        format,
    ))
}

/// The requested format, otherwise the one implied by name, target and base.
fn output_format(args: &Args, output: &Path, base: &dyn Opened, chain: &Chain) -> Result<Format> {
    if let Some(format) = args.output_format {
        return Ok(format.into());
    }
    default_format(output)?;
    format_of_result(output, base, chain)
}

/// Reports that a check couldn't be thorough: as a warning, unless the user asked for that.
fn say_doubt(args: &Args, context: &Context, doubt: &str) {
    if args.base_check == Check::Touched {
        context.note(doubt);
    } else {
        context.warn(Topic::BasePartlyChecked, doubt);
    }
}

/// The name of the result.
fn result(args: &Args) -> &Path {
    match &args.output {
        Some(output) if is_stdout(output) => Path::new(STDOUT),
        Some(output) => output,
        None => &args.base,
    }
}

fn say(args: &Args, applied: &Applied, made: Option<Format>, context: &Context) {
    let path = shown(result(args));
    let new = args.output.is_some();
    say_how(args, applied, context);
    match (applied.checked, applied.already < applied.diffs) {
        (BaseChecked::Full | BaseChecked::Stamp, _) | (_, false) => {}
        (BaseChecked::Touched, _) => say_doubt(
            args,
            context,
            "the base was checked only under the changed pages: the rest of it wasn't verified",
        ),
        (BaseChecked::Partly, _) => say_doubt(
            args,
            context,
            "the diff doesn't fully describe its base, so it isn't certain that this is the right base",
        ),
    }
    if applied.already == applied.diffs && !new {
        context.note(format_args!(
            "{path}: already holds the target, nothing was written"
        ));
        return;
    }
    if applied.already > 0 {
        context.note(format_args!(
            "{} of {} diffs were applied already",
            applied.already, applied.diffs
        ));
    }
    let what = match (args.dry_run, applied.finished_interrupted) {
        (true, true) => "an interrupted apply would be finished",
        (true, false) => "fits; would be written",
        (false, true) => "the interrupted apply is finished",
        (false, false) => "done",
    };
    let verified = if applied.verified { ", verified" } else { "" };
    let format = made.map_or_else(String::new, |format| format!("{format}, "));
    if let Some(remark) = made.and_then(|format| windows_remark(format, applied.target_size)) {
        context.warn(Topic::TooLargeForWindows, remark);
    }
    context.note(format_args!(
        "{path}: {what}: {format}{} updated, {} cleared, virtual size {}{verified}",
        Size(applied.updated),
        Size(applied.cleared),
        Size(applied.target_size),
    ));
}

/// Reports details with -v, and attributes that were lost.
fn say_how(args: &Args, applied: &Applied, context: &Context) {
    let path = shown(result(args));
    if applied.checked == BaseChecked::Stamp {
        let by = if far::is_address(&args.base) {
            "a snapshot that says what it holds, and since which nothing was written"
        } else {
            "its state stamp or its window hashes"
        };
        context.detail(format_args!(
            "{}: identified by {by}, so it wasn't read completely",
            shown(&args.base)
        ));
    }
    if let (Some(output), Some(_)) = (&args.output, applied.strategy) {
        context.detail(format_args!(
            "{}: created as a clone of {}, with which it shares unchanged data",
            shown(&output),
            shown(&args.base)
        ));
    } else {
        say_how_in_place(&args.base, applied, context);
    }
    let written = applied.already < applied.diffs && !args.dry_run;
    let file = is_file(args.output.as_ref().unwrap_or(&args.base));
    if file && (written || args.output.is_some() && !args.dry_run) {
        let unread = applied.checked == BaseChecked::Stamp && !applied.verified;
        context.detail(match (applied.stamped, unread) {
            (true, _) => format!("{path}: stamped with its state"),
            (false, false) => format!("{path}: not stamped with its state"),
            (false, true) => format!(
                "{path}: not stamped with its state, since its digest is only taken from the diff; to read and stamp \
                 it: vhd hash --stamp {}",
                quoted(args.output.as_ref().unwrap_or(&args.base))
            ),
        });
    }
}

/// Reports how an image was changed in place, and what was left or lost.
pub(super) fn say_how_in_place(image: &Path, applied: &Applied, context: &Context) {
    let image = shown(&image);
    if let Some(strategy) = applied.strategy {
        let how = match strategy {
            Strategy::Clone => "changed by replacing it with a clone",
            Strategy::Copy => "changed by replacing it with a copy",
            Strategy::Journal => "changed directly, with an undo journal",
        };
        context.detail(format_args!("{image}: {how}"));
    }
    if applied.behind > 0 {
        context.note(format_args!(
            "{image}: the device is larger: its last {} were neither read nor changed",
            Size(applied.behind)
        ));
    }
    for lost in &applied.lost {
        context.warn(
            Topic::MetadataLost,
            format_args!("{image}: the new file couldn't be given {lost}"),
        );
    }
}

#[derive(Serialize)]
struct Summary<'a> {
    image: String,
    outcome: &'a str,
    #[serde(flatten)]
    applied: Option<Details>,
    /// The time of the blob snapshot that was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    blob_snapshot: Option<String>,
}

#[derive(Serialize)]
struct Details {
    diffs: usize,
    already_applied: usize,
    base_check: &'static str,
    /// How the base was changed in place, or `clone` for a new image that began as one; otherwise `null`.
    strategy: Option<&'static str>,
    /// Whether the result has a state stamp.
    stamped: bool,
    virtual_size: u64,
    content_digest: Option<String>,
    update_bytes: u64,
    clear_bytes: u64,
    verified: bool,
}

fn print(args: &Args, applied: Option<&Applied>, blob_snapshot: Option<String>) -> Result<Outcome> {
    let outcome = match applied {
        None => "rolled_back",
        Some(applied) if applied.already == applied.diffs => "already_applied",
        Some(_) if args.dry_run => "would_apply",
        Some(applied) if applied.finished_interrupted => "finished",
        Some(_) => "applied",
    };
    let details = applied.map(|applied| Details {
        diffs: applied.diffs,
        already_applied: applied.already,
        base_check: match applied.checked {
            BaseChecked::Full => "full",
            BaseChecked::Touched => "touched",
            BaseChecked::Partly => "partly",
            BaseChecked::Stamp => "stamp",
        },
        strategy: applied.strategy.map(Strategy::name),
        stamped: applied.stamped,
        virtual_size: applied.target_size,
        content_digest: applied.target_digest.map(|digest| digest.to_string()),
        update_bytes: applied.updated,
        clear_bytes: applied.cleared,
        verified: applied.verified,
    });
    let image = args
        .output
        .as_ref()
        .unwrap_or(&args.base)
        .to_string_lossy()
        .into_owned();
    let mut output = Stdout::text()?;
    output.json(&Summary {
        image,
        outcome,
        applied: details,
        blob_snapshot,
    })?;
    output.finish()?;
    Ok(Outcome::Done)
}
