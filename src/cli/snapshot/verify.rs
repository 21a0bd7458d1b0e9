//! `vhd snapshot verify`: whether everything is there and right.

use serde::Serialize;

use super::{
    Access, Context, Count, Disk, Outcome, Output, Result, SCHEMA_VERSION, StoreArgs, disks,
};
use crate::snapshot::{Finding, ReadData, Work, verify};

/// Find what is damaged in a store, where, and which snapshots it affects.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Without an option this reads manifests, the structures of the bases, the ends of the diffs and how all hang \
     together, which takes no time. --read-data reads every byte: the digest of each diff, the content digest of each \
     base, and each window of the newest snapshot. Exit code 1 means that something is wrong.\n\n",
    "Examples:\n",
    "  vhd snapshot verify --store /backup\n",
    "  vhd snapshot verify --store /backup --disk web --read-data\n",
    "  vhd snapshot verify --store /backup --read-data-subset 10%      every night a tenth\n\n",
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
    /// Read about so much of the data, other parts each time.
    #[arg(long, value_name = "N%", value_parser = parse_percent, conflicts_with = "read_data")]
    read_data_subset: Option<u8>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn parse_percent(text: &str) -> Result<u8, String> {
    let number = text
        .strip_suffix('%')
        .and_then(|number| number.parse().ok());
    let number = number.filter(|percent| (1..=100).contains(percent));
    number.ok_or_else(|| "a part is 1% to 100%".to_owned())
}

#[derive(Serialize)]
struct View {
    schema_version: u32,
    sound: bool,
    read_data: String,
    disks: Vec<DiskView>,
}

#[derive(Serialize)]
struct DiskView {
    disk: String,
    snapshots: usize,
    findings: Vec<FindingView>,
    /// Why the disk couldn't be looked at, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Something that is wrong, as it is shown.
#[derive(Serialize)]
pub(super) struct FindingView {
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
            message: error.to_string(),
            file: error.file().map(|path| path.to_string_lossy().into_owned()),
            offset: error.at(),
            hint: error.remedy().map(str::to_owned),
            affected: finding.affected,
        }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let mut names = args.disk.clone();
    if names.is_empty() {
        names = disks(&args.store.store)?;
    }
    names.sort_unstable();
    names.dedup();
    let read = match (args.read_data, args.read_data_subset) {
        (true, _) => ReadData::All,
        (false, Some(percent)) => ReadData::Percent(percent),
        (false, None) => ReadData::Nothing,
    };
    let workers = context.workers()?;
    let (mut all, mut errors) = (Vec::with_capacity(names.len()), Vec::new());
    for name in names {
        let progress = context.progress();
        let work = Work {
            workers: &workers,
            progress: &*progress,
        };
        let found = Disk::open(&args.store.store, &name, Access::Read)
            .and_then(|mut disk| Ok((verify(&mut disk, read, work)?, disk.points().len())));
        // One that is locked, or can't be read, doesn't keep the others from being looked at.
        let error = found.as_ref().err().map(ToString::to_string);
        let (findings, snapshots) = found.unwrap_or_else(|error| {
            errors.push(error);
            Default::default()
        });
        all.push(DiskView {
            disk: name,
            snapshots,
            findings: findings.into_iter().map(Into::into).collect(),
            error,
        });
        progress.check()?;
    }
    let view = View {
        schema_version: SCHEMA_VERSION,
        sound: all
            .iter()
            .all(|disk| disk.findings.is_empty() && disk.error.is_none()),
        read_data: match read {
            ReadData::Nothing => "none".to_owned(),
            ReadData::Percent(percent) => format!("{percent}%"),
            ReadData::All => "all".to_owned(),
        },
        disks: all,
    };
    let mut output = Output::text()?;
    if args.json {
        output.json(&view)?;
    } else {
        text(&view, &mut output)?;
    }
    output.finish()?;
    // All are told; the first one says how the command ends.
    let mut errors = errors.into_iter();
    let first = errors.next();
    for error in errors {
        context.report(&error);
    }
    match first {
        Some(error) => Err(error),
        None if view.sound => Ok(Outcome::Done),
        None => Ok(Outcome::No),
    }
}

fn text(view: &View, output: &mut Output) -> Result<()> {
    for disk in &view.disks {
        for finding in &disk.findings {
            finding.print(output)?;
        }
        if disk.error.is_some() {
            continue;
        }
        let count = Count(disk.snapshots as u64, "snapshot");
        let faults = disk.findings.len() as u64;
        let verdict = if faults == 0 {
            "nothing is wrong".to_owned()
        } else {
            Count(faults, "fault").to_string()
        };
        output.line(format_args!(
            "{}: {count}, data read: {}: {verdict}",
            disk.disk, view.read_data
        ))?;
    }
    Ok(())
}
