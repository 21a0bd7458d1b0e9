//! `vhd snapshot repair`: rebuilds damaged files.

use std::path::PathBuf;

use serde::Serialize;

use super::super::args::SaidFormat;
use super::verify::FindingView;
use super::{
    Access, Context, Count, Disk, DiskArgs, Error, LockArgs, Outcome, Output, Parents, Patience,
    Reading, Result, open_for,
};
use crate::cli::names;
use crate::cli::role::Role;
use crate::error::ErrorKind;
use crate::snapshot::{
    RepairSources, RepairedDisk, Work, repair, set_aside_intent, take_back_damaged,
};

/// Rebuild what is damaged, from the remaining files, other stores, or source images.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "All data of the disk is read, as by verify --read-data, and what is damaged is rebuilt: window hashes from the data; a manifest from its own bytes if one of them is wrong, from another store, or from its data and the diff \
     after it (then without its tags); a base or a diff from another store or from the image that the snapshot was \
     taken from. An image is used only if its content digest is that of the snapshot. It is read from, never changed; \
     STORE::DISK@SNAPSHOT is one, too.\n\n\
     Damaged files are kept, with .damaged after their names; nothing looks at them, and they may be removed. Exit code 1 means that something is still wrong. --drop gives up what can't be rebuilt, and sets its files aside in the same way: a damaged snapshot and those that are made of it, but not what is before it, nor what comes after it from \
     the first one on that is known elsewhere.\n\n",
    "Examples:\n",
    "  vhd snapshot repair --store /backup --disk web --dry-run\n",
    "  vhd snapshot repair --store /backup --disk web --from /mnt/second\n",
    "  vhd snapshot repair --store /backup --disk web --image mon=monday.vhd\n",
    "  vhd snapshot repair --store /backup --disk web --drop\n",
    "  vhd snapshot repair --store /backup --disk web --take-back\n\n",
    super::args::exit_codes!(),
))]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub(super) struct Args {
    #[command(flatten)]
    disk: DiskArgs,
    /// Another store that has the disk under the same name; may be given several times.
    #[arg(long, value_name = "STORE")]
    from: Vec<PathBuf>,
    /// An image with the content of a snapshot; may be given several times.
    #[arg(long, value_name = "SNAPSHOT=FILE", value_parser = parse_image)]
    image: Vec<(String, PathBuf)>,
    /// Give up what can't be repaired.
    #[arg(long)]
    drop: bool,
    /// Give the files that were set aside their names again; overwrite nothing.
    #[arg(long, conflicts_with_all = ["drop", "from", "image"])]
    take_back: bool,
    /// Report what would be done; change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lock: LockArgs,
    #[command(flatten)]
    parents: Parents,
}

fn parse_image(text: &str) -> Result<(String, PathBuf)> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            let file = PathBuf::from(file);
            names::admit(Role::Image, &file)?;
            Ok((name.to_owned(), file))
        }
        _ => Err(
            Error::usage(format!("this isn't SNAPSHOT=FILE: {text}")).with_hint(
                "specify the snapshot and the image with its content, as in mon=monday.vhd",
            ),
        ),
    }
}

#[derive(Serialize)]
struct View {
    dry_run: bool,
    disk: String,
    sound: bool,
    repaired: Vec<MendedView>,
    dropped: Vec<String>,
    not_used: Vec<String>,
    findings: Vec<FindingView>,
}

#[derive(Serialize)]
struct MendedView {
    file: String,
    how: String,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let access = if args.dry_run {
        Access::Read
    } else {
        Access::Write
    };
    let patience = args.lock.patience(context);
    let workers = context.workers()?;
    let progress = context.progress();
    let work = Work {
        workers: &workers,
        progress: &*progress,
    };
    if args.take_back {
        drop(progress);
        return take_back(args, access, &patience);
    }
    let put_aside = if args.dry_run {
        None
    } else {
        let (name, _) = args.disk.meant([])?;
        patience.wait_for(|| set_aside_intent(&args.disk.store.store, &name, work))?
    };
    let (mut disk, _) = open_for(&args.disk, access, [], &patience)?;
    let means = means(args, disk.name(), context)?;
    for (name, _) in &means.images {
        // A wrong name would only be ignored; one whose manifest is damaged isn't known yet.
        if disk.damaged().is_empty() {
            disk.find(name)?;
        }
    }
    let mut repaired = repair(&mut disk, &means, work)?;
    let unread = repaired.unread.take();
    drop(progress);
    if let Some(what) = put_aside {
        context.note(format_args!("{}: {what}", disk.name()));
    }
    let view = view(args, &disk, repaired);
    let nothing_to_say = context.quiet() && view.sound && view.repaired.is_empty();
    if args.json || args.dry_run || !nothing_to_say {
        let mut output = Output::text()?;
        if args.json {
            output.json(&view)?;
        } else {
            text(&view, &mut output)?;
        }
        output.finish()?;
    }
    match unread {
        _ if view.sound => Ok(Outcome::Done),
        // Whether that could be repaired is unknown.
        Some(error) => Err(error),
        None => Ok(Outcome::No),
    }
}

#[derive(Serialize)]
struct TakenBackView {
    dry_run: bool,
    disk: String,
    taken_back: Vec<String>,
    left: Vec<LeftView>,
}

#[derive(Serialize)]
struct LeftView {
    file: String,
    why: String,
}

fn take_back(args: &Args, access: Access, patience: &Patience<'_>) -> Result<Outcome> {
    let (mut disk, _) = open_for(&args.disk, access, [], patience)?;
    let taken = take_back_damaged(&mut disk, args.dry_run)?;
    let view = TakenBackView {
        dry_run: args.dry_run,
        disk: disk.name().to_owned(),
        taken_back: taken.files,
        left: taken
            .left
            .into_iter()
            .map(|(file, why)| LeftView { file, why })
            .collect(),
    };
    let mut output = Output::text()?;
    if args.json {
        output.json(&view)?;
    } else {
        let would = if view.dry_run { "would be " } else { "" };
        for file in &view.taken_back {
            output.line(format_args!("{file}: {would}taken back"))?;
        }
        for left in &view.left {
            output.line(format_args!("{}: left aside: {}", left.file, left.why))?;
        }
        let files = Count(view.taken_back.len() as u64, "file");
        output.line(format_args!("{}: {files} {would}taken back", view.disk))?;
    }
    output.finish()?;
    Ok(if view.left.is_empty() {
        Outcome::Done
    } else {
        Outcome::No
    })
}

fn means(args: &Args, name: &str, context: &Context) -> Result<RepairSources> {
    let mut means = RepairSources {
        drop: args.drop,
        dry_run: args.dry_run,
        ..RepairSources::default()
    };
    for store in &args.from {
        let opened = Disk::open(store, name, Access::Read);
        let opened = opened.map_err(|error| match error.kind() {
            ErrorKind::Locked => {
                error.override_hint("use another store with --from than with --store")
            }
            _ => error,
        });
        means.stores.push(opened?);
    }
    for (snapshot, path) in &args.image {
        let image =
            context.open_source(path, SaidFormat::NEVER, &args.parents, Reading::default())?;
        means.images.push((snapshot.clone(), image));
    }
    Ok(means)
}

fn view(args: &Args, disk: &Disk, repaired: RepairedDisk) -> View {
    let mended = repaired.mended.into_iter();
    View {
        dry_run: args.dry_run,
        disk: disk.name().to_owned(),
        sound: repaired.left.is_empty(),
        repaired: mended
            .map(|mended| MendedView {
                file: mended.file,
                how: mended.how,
            })
            .collect(),
        dropped: repaired.dropped,
        not_used: repaired.refused.iter().map(Error::to_string).collect(),
        findings: repaired.left.into_iter().map(Into::into).collect(),
    }
}

fn text(view: &View, output: &mut Output) -> Result<()> {
    let would = if view.dry_run { "would be " } else { "" };
    for mended in &view.repaired {
        let (file, how) = (&mended.file, &mended.how);
        output.line(format_args!("{file}: {would}rebuilt: {how}"))?;
    }
    for error in &view.not_used {
        output.line(format_args!("not used: {error}"))?;
    }
    for name in &view.dropped {
        output.line(format_args!("{}@{name}: {would}given up", view.disk))?;
    }
    for finding in &view.findings {
        finding.print(output)?;
    }
    let lost: Vec<&str> = {
        let all = view.findings.iter().flat_map(|finding| &finding.affected);
        all.map(String::as_str).collect()
    };
    if !lost.is_empty() {
        output.line(
            "hint: --from STORE and --image SNAPSHOT=FILE specify what it can be rebuilt from; --drop gives it up",
        )?;
    }
    let files = Count(view.repaired.len() as u64, "file");
    let faults = view.findings.len() as u64;
    let verdict = if faults == 0 {
        "no problems".to_owned()
    } else {
        Count(faults, "problem").to_string()
    };
    let after = if view.dry_run { "then" } else { "now" };
    output.line(format_args!(
        "{}: {files} {would}rebuilt; {after}: {verdict}",
        view.disk
    ))
}
