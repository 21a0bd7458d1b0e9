//! `vhd snapshot stats`: what the snapshots take, for people and for monitoring.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::ValueEnum;
use serde::Serialize;

use super::failures::Failures;
use super::like::LikeView;
use super::stores::{StoreArgs, chosen};
use crate::cli::context::Context;
use crate::cli::document::ErrorView;
use crate::cli::exit::Outcome;
use crate::cli::output::Output;
use crate::cli::size::Short;
use crate::error::Result;
use crate::snapshot::{Disk, Manifest};

/// Print what the snapshots of a store take, and how old the newest are.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "STORED is the length of the files, DISKS the size of the virtual disks that they hold, RATIO how many times less is \
     stored. Only the manifests are read, and no lock is taken. --format node-exporter prints metrics for the textfile \
     collector of the Prometheus node exporter.\n\n",
    "Examples:\n",
    "  vhd snapshot stats --store /backup\n",
    "  vhd snapshot stats --store /backup --format node-exporter > /var/lib/node_exporter/vhdkit.prom\n\n",
    crate::cli::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Only this disk; may be given several times [default: all].
    #[arg(long, value_name = "NAME")]
    disk: Vec<String>,
    /// Also each snapshot by itself.
    #[arg(long)]
    points: bool,
    /// How to print it.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        conflicts_with = "json"
    )]
    format: Form,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A table.
    Text,
    /// Metrics for the textfile collector.
    NodeExporter,
}

#[derive(Serialize)]
struct View {
    file_size: u64,
    virtual_size: u64,
    disks: Vec<DiskView>,
}

#[derive(Serialize)]
struct DiskView {
    disk: String,
    /// Length of the files of all snapshots, in bytes.
    file_size: u64,
    /// The sizes of the virtual disks of all snapshots together.
    virtual_size: u64,
    ratio: Option<f64>,
    newest: Option<String>,
    newest_time: Option<String>,
    #[serde(skip)]
    newest_unix: Option<i64>,
    snapshots: Vec<PointView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
}

#[derive(Serialize)]
struct PointView {
    name: String,
    id: String,
    time: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    like: Option<LikeView>,
    file_size: u64,
    virtual_size: u64,
    ratio: Option<f64>,
    held: bool,
    tags: BTreeMap<String, String>,
}

/// How many times less is stored; nothing stored has no ratio.
fn ratio(virtual_size: u64, stored: u64) -> Option<f64> {
    // To a hundredth, from whole numbers.
    let hundredths = u128::from(virtual_size) * 100 / u128::from(stored.max(1));
    let hundredths = u32::try_from(hundredths).unwrap_or(u32::MAX);
    (stored > 0).then(|| f64::from(hundredths) / 100.0)
}

impl DiskView {
    fn of(disk: &Disk) -> Self {
        let points = disk.points();
        let sum = |of: fn(&Manifest) -> u64| points.iter().map(of).fold(0, u64::saturating_add);
        let (file_size, virtual_size) = (sum(|p| p.data.length), sum(|p| p.virtual_size));
        let view = |point: &Manifest| PointView {
            name: point.name.clone(),
            id: point.id.clone(),
            time: point.time.to_string(),
            kind: point.data.kind.name(),
            like: LikeView::of(point.like.as_ref()),
            file_size: point.data.length,
            virtual_size: point.virtual_size,
            ratio: ratio(point.virtual_size, point.data.length),
            held: point.is_held(),
            tags: point.tags.clone(),
        };
        let newest = disk.newest();
        Self {
            disk: disk.name().to_owned(),
            file_size,
            virtual_size,
            ratio: ratio(virtual_size, file_size),
            newest: newest.map(|point| point.name.clone()),
            newest_time: newest.map(|point| point.time.to_string()),
            newest_unix: newest.map(|point| point.time.to_unix()),
            snapshots: points.iter().map(view).collect(),
            error: None,
        }
    }

    fn failed(disk: String, error: &crate::error::Error) -> Self {
        Self {
            disk,
            file_size: 0,
            virtual_size: 0,
            ratio: None,
            newest: None,
            newest_time: None,
            newest_unix: None,
            snapshots: Vec::new(),
            error: Some(ErrorView::from(error)),
        }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let store = &args.store.store;
    let (mut disks, mut failures) = (Vec::new(), Failures::default());
    for name in chosen(store, &args.disk)? {
        let looked = Disk::look(store, &name);
        let looked = looked.and_then(|mut disk| match disk.take_damaged().pop() {
            // A sum without it would be wrong.
            Some(error) => Err(error),
            None => Ok(disk),
        });
        match looked {
            Ok(disk) => disks.push(DiskView::of(&disk)),
            Err(error) => {
                disks.push(DiskView::failed(name, &error));
                failures.0.push(error);
            }
        }
    }
    let sum = |of: fn(&DiskView) -> u64| disks.iter().map(of).fold(0, u64::saturating_add);
    let view = View {
        file_size: sum(|disk| disk.file_size),
        virtual_size: sum(|disk| disk.virtual_size),
        disks,
    };
    let mut output = Output::text()?;
    match args.format {
        _ if args.json => output.json(&view)?,
        Form::Text => text(&view, args.points, &mut output)?,
        Form::NodeExporter => output.bytes(metrics(&view).as_bytes())?,
    }
    output.finish()?;
    failures.end(context)?;
    Ok(Outcome::Done)
}

fn text(view: &View, points: bool, output: &mut Output) -> Result<()> {
    let mut rows =
        vec![["DISK", "SNAPSHOTS", "STORED", "DISKS", "RATIO", "NEWEST"].map(str::to_owned)];
    let shown = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |r| format!("{r:.2}"));
    let sizes = |stored, size| [Short(stored).to_string(), Short(size).to_string()];
    for disk in view.disks.iter().filter(|disk| disk.error.is_none()) {
        let [stored, size] = sizes(disk.file_size, disk.virtual_size);
        let newest = disk.newest_time.clone().unwrap_or_else(|| "-".to_owned());
        let count = disk.snapshots.len().to_string();
        rows.push([
            disk.disk.clone(),
            count,
            stored,
            size,
            shown(disk.ratio),
            newest,
        ]);
        for point in disk.snapshots.iter().filter(|_| points) {
            let [stored, size] = sizes(point.file_size, point.virtual_size);
            let name = format!("{}@{}", disk.disk, point.name);
            let kind = point
                .like
                .as_ref()
                .map_or(point.kind, |_| "like")
                .to_owned();
            let like = point.like.as_ref().map(|like| format!("  like {like}"));
            rows.push([
                name,
                kind,
                stored,
                size,
                shown(point.ratio),
                point.time.clone() + &like.unwrap_or_default(),
            ]);
        }
    }
    let [stored, size] = sizes(view.file_size, view.virtual_size);
    let count: usize = view.disks.iter().map(|disk| disk.snapshots.len()).sum();
    let all = shown(ratio(view.virtual_size, view.file_size));
    rows.push([
        "all".to_owned(),
        count.to_string(),
        stored,
        size,
        all,
        String::new(),
    ]);
    let first = rows.iter().map(|row| row[0].len()).fold(0, usize::max);
    for [disk, count, stored, size, ratio, newest] in rows {
        let line =
            format!("{disk:<first$}  {count:>9}  {stored:>10}  {size:>10}  {ratio:>8}  {newest}");
        output.line(line.trim_end())?;
    }
    Ok(())
}

/// Metrics in the text format of Prometheus. Names of disks need no quoting.
fn metrics(view: &View) -> String {
    type Value = fn(&DiskView) -> Option<String>;
    let all: [(&str, &str, Value); 5] = [
        ("readable", "Whether the disk could be read.", |disk| {
            Some(u8::from(disk.error.is_none()).to_string())
        }),
        ("snapshots", "Snapshots of the disk.", |disk| {
            disk.error
                .is_none()
                .then(|| disk.snapshots.len().to_string())
        }),
        (
            "stored_bytes",
            "Length of all files of the snapshots.",
            |disk| disk.error.is_none().then(|| disk.file_size.to_string()),
        ),
        (
            "virtual_bytes",
            "Sizes of the disks of all snapshots.",
            |disk| disk.error.is_none().then(|| disk.virtual_size.to_string()),
        ),
        (
            "newest_time_seconds",
            "Time of the newest snapshot, Unix time.",
            |disk| disk.newest_unix.map(|time| time.to_string()),
        ),
    ];
    let mut text = String::new();
    for (name, help, value) in all {
        // Writing to a string can't fail.
        let _ = writeln!(text, "# HELP vhdkit_disk_{name} {help}");
        let _ = writeln!(text, "# TYPE vhdkit_disk_{name} gauge");
        for disk in &view.disks {
            if let Some(value) = value(disk) {
                let _ = writeln!(text, "vhdkit_disk_{name}{{disk=\"{}\"}} {value}", disk.disk);
            }
        }
    }
    text
}
