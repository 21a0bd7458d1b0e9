//! `vhd snapshot verify`: checks whether everything is present and correct.

use std::time::Duration;

use serde::Serialize;

use super::{
    Context, Count, Disk, Outcome, Output, RateArgs, Result, StoreArgs, Time, WriterView,
    being_written, chosen, far, unfinished,
};
use crate::cli::document::ErrorView;
use crate::cli::message::Topic;
use crate::cli::span::parse_span;
use crate::snapshot::{Finding, Marker, ReadData, Verified, Work, verify_beside};

/// Find what is damaged in a store, where, and which snapshots it affects.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Without an option this reads manifests, the structures of the bases, the ends of the diffs and how all hang \
     together, but no data. --read-data reads every byte: the digest of each diff, the content digest of each base, and \
     each window of the newest snapshot. Exit code 1 means that something is wrong. What can't be read (no permission, \
     a failing device, a lock) is not damage: the rest is looked at, and the exit code says why, 2 or 5. A disk is verified \
     without its lock, also while another command changes it: it waits for nobody, and nobody waits for it.\n\n",
    "Examples:\n",
    "  vhd snapshot verify --store /backup\n",
    "  vhd snapshot verify --store /backup --disk web --read-data\n",
    "  vhd snapshot verify --store /backup --read-data-subset 10%      every night a tenth\n",
    "  vhd snapshot verify --store /backup --read-data --limit-rate 50M\n",
    "  vhd snapshot verify --store /backup --max-age 26h -q            for a monitor: silent if all is well\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Only this disk; may be given several times [default: all].
    #[arg(long, value_name = "NAME")]
    disk: Vec<String>,
    /// Read all data.
    #[arg(long)]
    read_data: bool,
    /// Read about this part of the data, a different one each time.
    #[arg(long, value_name = "N%", value_parser = parse_percent, conflicts_with = "read_data")]
    read_data_subset: Option<u8>,
    /// Find fault with a disk whose newest snapshot is older than this, as 26h.
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    max_age: Option<Duration>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    rate: RateArgs,
}

fn parse_percent(text: &str) -> Result<u8, String> {
    let number = text
        .strip_suffix('%')
        .and_then(|number| number.parse().ok());
    let number = number.filter(|percent| (1..=100).contains(percent));
    number.ok_or_else(|| "a part is 1% to 100%, with the sign: 50%".to_owned())
}

#[derive(Serialize)]
struct View {
    sound: bool,
    read_data: String,
    disks: Vec<DiskView>,
}

#[derive(Serialize)]
struct DiskView {
    disk: String,
    snapshot_count: usize,
    /// The snapshot that is being copied into the disk, or whose copy was interrupted: it isn't checked.
    copying: Option<String>,
    /// The command that is changing the disk, if one is.
    writer: Option<WriterView>,
    findings: Vec<FindingView>,
    /// Why the disk couldn't be checked completely, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
    /// Why the newest snapshot is too old, with --max-age.
    #[serde(skip_serializing_if = "Option::is_none")]
    too_old: Option<String>,
    /// How many files couldn't be read.
    #[serde(skip_serializing_if = "is_zero")]
    unread_count: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// The most errors that are reported individually.
const REPORTED: usize = 20;

/// A problem, for display.
#[derive(Serialize)]
pub(super) struct FindingView {
    id: &'static str,
    message: String,
    file: Option<String>,
    offset: Option<u64>,
    hint: Option<String>,
    pub(super) affected: Vec<String>,
}

impl FindingView {
    pub(super) fn print(&self, output: &mut Output) -> Result<()> {
        output.line(&self.message)?;
        if let Some(hint) = &self.hint {
            output.line(format_args!("  hint: {hint}"))?;
        }
        let affected = if self.affected.is_empty() {
            "no snapshot".to_owned()
        } else {
            self.affected.join(", ")
        };
        output.line(format_args!("  affects: {affected}"))
    }
}

impl From<Finding> for FindingView {
    fn from(finding: Finding) -> Self {
        let error = &finding.error;
        Self {
            id: error.id(),
            message: error.to_string(),
            file: error.path().map(|path| path.to_string_lossy().into_owned()),
            offset: error.offset(),
            hint: crate::cli::remedy::hint(error),
            affected: finding.affected,
        }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if let Some(store) = far::store(&args.store.store, context)? {
        let look = far::Look {
            read_data: args.read_data,
            json: args.json,
            rate: args.rate,
        };
        return far::verify(&*store, &args.disk, look, context);
    }
    let names = chosen(&args.store.store, &args.disk)?;
    let read = match (args.read_data, args.read_data_subset) {
        (true, _) => ReadData::All,
        (false, Some(percent)) => ReadData::Percent(percent),
        (false, None) => ReadData::Nothing,
    };
    let workers = context.workers()?;
    let (mut all, mut errors) = (Vec::with_capacity(names.len()), Vec::new());
    let mut notes = Vec::new();
    for name in names {
        let progress = args.rate.limit(context.progress());
        let work = Work {
            workers: &workers,
            progress: &*progress,
        };
        // One that is locked or unreadable doesn't prevent checking the others.
        let looked = look(args, &name, read, work, &mut notes).unwrap_or_else(|error| Looked {
            found: Verified {
                findings: Vec::new(),
                unread: vec![error],
            },
            ..Looked::default()
        });
        let found = looked.found;
        all.push(DiskView {
            disk: name,
            snapshot_count: looked.snapshots,
            copying: looked.copying,
            writer: looked.writer,
            findings: found.findings.into_iter().map(Into::into).collect(),
            too_old: looked.too_old,
            error: found.unread.first().map(ErrorView::from),
            unread_count: found.unread.len(),
        });
        errors.extend(found.unread);
        progress.check()?;
    }
    for note in notes {
        context.note(note);
    }
    // It belongs to no disk.
    errors.extend(Marker::read(&args.store.store).err());
    let view = View {
        sound: errors.is_empty()
            && all.iter().all(|disk| {
                disk.findings.is_empty() && disk.error.is_none() && disk.too_old.is_none()
            }),
        read_data: match read {
            ReadData::Nothing => "none".to_owned(),
            ReadData::Percent(percent) => format!("{percent}%"),
            ReadData::All => "all".to_owned(),
        },
        disks: all,
    };
    if args.json || !context.quiet() || !view.sound {
        let mut output = Output::text()?;
        if args.json {
            output.json(&view)?;
        } else {
            text(&view, context.quiet(), &mut output)?;
        }
        output.finish()?;
    }
    // All are reported; the first one determines the exit code.
    let more = errors.len().saturating_sub(REPORTED);
    let mut errors = errors.into_iter();
    let first = errors.next();
    for error in errors.take(REPORTED - 1) {
        context.report(&error);
    }
    if more > 0 {
        context.warn(
            Topic::MoreUnread,
            format_args!("{} more couldn't be read", Count(more as u64, "file")),
        );
    }
    match first {
        Some(error) => Err(error),
        None if view.sound => Ok(Outcome::Done),
        None => Ok(Outcome::No),
    }
}

/// What was seen of a disk.
#[derive(Default)]
struct Looked {
    found: Verified,
    snapshots: usize,
    copying: Option<String>,
    writer: Option<WriterView>,
    too_old: Option<String>,
}

fn look(
    args: &Args,
    name: &str,
    read: ReadData,
    work: Work<'_>,
    notes: &mut Vec<String>,
) -> Result<Looked> {
    let (disk, found) = verify_beside(&args.store.store, name, read, work)?;
    notes.extend(unfinished(&disk));
    notes.extend(being_written(&disk));
    let too_old = args.max_age.and_then(|most| too_old(&disk, most));
    Ok(Looked {
        found,
        snapshots: disk.points().len(),
        copying: disk.copying().map(|point| point.name.clone()),
        writer: WriterView::of(&disk),
        too_old,
    })
}

/// Why the newest snapshot that can be used is too old, if it is.
fn too_old(disk: &Disk, most: Duration) -> Option<String> {
    let Some(newest) = disk.newest() else {
        return Some("there is no snapshot".to_owned());
    };
    let age = Time::now().to_unix().saturating_sub(newest.time.to_unix());
    let most = i64::try_from(most.as_secs()).unwrap_or(i64::MAX);
    (age > most).then(|| {
        format!(
            "the newest snapshot, {}, is {} h {} min old, more than {} h {} min",
            newest.name,
            age / 3600,
            age % 3600 / 60,
            most / 3600,
            most % 3600 / 60
        )
    })
}

fn text(view: &View, quiet: bool, output: &mut Output) -> Result<()> {
    for disk in &view.disks {
        for finding in &disk.findings {
            finding.print(output)?;
        }
        if let Some(why) = &disk.too_old {
            output.line(format_args!("{}: {why}", disk.disk))?;
        }
        if quiet && disk.error.is_none() && disk.findings.is_empty() {
            continue;
        }
        let count = Count(disk.snapshot_count as u64, "snapshot");
        let faults = disk.findings.len() as u64;
        let looked = match view.read_data.as_str() {
            "none" => "structure only, data not read (--read-data reads it)".to_owned(),
            "all" => "all data read".to_owned(),
            part => format!("structure and {part} of the data read"),
        };
        let verdict = match (faults, &disk.error) {
            (0, None) => "no problems".to_owned(),
            (0, Some(_)) => "not verified".to_owned(),
            (_, None) => Count(faults, "problem").to_string(),
            (_, Some(_)) => format!("{}, and not all could be read", Count(faults, "problem")),
        };
        if disk.error.is_some() && disk.snapshot_count == 0 && faults == 0 {
            // Nothing of it was checked.
            output.line(format_args!("{}: not verified", disk.disk))?;
            continue;
        }
        let copying = disk.copying.as_ref().map_or_else(String::new, |name| {
            format!("; {name}, whose copy isn't complete, was not looked at")
        });
        if disk.snapshot_count == 0 && faults == 0 {
            output.line(format_args!(
                "{}: there is no snapshot, so nothing was verified{copying}",
                disk.disk
            ))?;
            continue;
        }
        output.line(format_args!(
            "{}: {count}, {looked}: {verdict}{copying}",
            disk.disk
        ))?;
    }
    Ok(())
}
