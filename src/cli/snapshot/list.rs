//! `vhd snapshot list`: the points in time of one disk or all.

use serde::Serialize;

use super::{
    Context, Count, Disk, Failures, Manifest, Outcome, Output, Result, Short, StoreArgs,
    WriterView, being_written, disks_there, far, managed, report_damaged, unfinished, used,
};
use crate::cli::document::ErrorView;
use crate::snapshot::OtherPoint;

/// List the snapshots of all disks, or of one, the oldest first.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "USED is the space that a snapshot takes by itself: a base the whole disk without its zeros, a later one its changes, the first of a \
     disk that begins like a snapshot of another disk what differs from that. A \
     manifest that can't be read is reported, and the exit code is 1. A snapshot that is being copied into the store has a percentage; it can't be used until it is complete.\n\n\
     A disk is listed as it is even while another command changes it, and that is reported. A disk that can't be read \
     doesn't prevent the others from being listed.\n\n",
    "Examples:\n",
    "  vhd snapshot list --store /backup\n",
    "  vhd snapshot list --store /backup --disk web --json | jq -r '.disks[].snapshots[].name'\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// Only this disk.
    #[arg(long, value_name = "NAME")]
    pub(super) disk: Option<String>,
    /// Of a managed disk: don't ask what changed since the snapshot before, for which access to each is granted.
    #[arg(long)]
    pub(super) no_changes: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize)]
struct Listing {
    disks: Vec<DiskView>,
}

#[derive(Serialize)]
struct DiskView {
    disk: String,
    used_size: u64,
    /// The command that is changing the disk, if one is.
    writer: Option<WriterView>,
    snapshots: Vec<PointView>,
    /// Why the disk can't be listed, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
}

#[derive(Serialize)]
struct PointView {
    name: String,
    id: String,
    parent: Option<String>,
    time: String,
    kind: &'static str,
    /// What the disk begins as, for its first snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    like: Option<LikeView>,
    state: &'static str,
    completion_percent: u8,
    virtual_size: u64,
    used_size: u64,
    content_digest: String,
}

#[derive(Serialize)]
struct LikeView {
    disk: String,
    snapshot: Option<String>,
}

impl LikeView {
    fn of(disk: &Disk, point: &Manifest) -> Option<Self> {
        point.like.as_ref()?;
        let OtherPoint { disk, snapshot } = disk.begins_as()?;
        Some(Self { disk, snapshot })
    }
}

impl PointView {
    fn new(disk: &Disk, point: &Manifest) -> Self {
        Self {
            like: LikeView::of(disk, point),
            name: point.name.clone(),
            id: point.id.clone(),
            parent: point.parent.clone(),
            time: point.time.to_string(),
            kind: point.data.kind.name(),
            state: point.state.name(),
            completion_percent: point.completion_percent,
            virtual_size: point.virtual_size,
            used_size: point.used_size,
            content_digest: point.content_digest.to_string(),
        }
    }

    fn state(&self) -> String {
        match self.completion_percent {
            100 => self.state.to_owned(),
            percent => format!("{} {percent} %", self.state),
        }
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if managed::is_wanted(&args.store.store) {
        return managed::list::run(args, context);
    }
    if let Some(store) = far::store(&args.store.store, context)? {
        return far::list(&*store, args.disk.as_ref(), args.json, context);
    }
    let names = match &args.disk {
        Some(name) => vec![name.clone()],
        None => disks_there(&args.store.store)?,
    };
    let mut all = Vec::with_capacity(names.len());
    let (mut damaged, mut failures) = (false, Failures::default());
    for name in names {
        let mut disk = match Disk::look(&args.store.store, &name) {
            Ok(disk) => disk,
            Err(error) => {
                all.push(DiskView {
                    disk: name,
                    used_size: 0,
                    writer: None,
                    snapshots: Vec::new(),
                    error: Some(ErrorView::from(&error)),
                });
                failures.0.push(error);
                continue;
            }
        };
        damaged |= report_damaged(&mut disk, context);
        if let Some(note) = unfinished(&disk) {
            context.note(note);
        }
        if let Some(note) = being_written(&disk) {
            context.note(note);
        }
        let points: Vec<&Manifest> = disk.points().iter().chain(disk.copying()).collect();
        all.push(DiskView {
            disk: name,
            used_size: used(&points),
            writer: WriterView::of(&disk),
            error: None,
            snapshots: points
                .iter()
                .map(|point| PointView::new(&disk, point))
                .collect(),
        });
    }
    let mut output = Output::text()?;
    if args.json {
        output.json(&Listing { disks: all })?;
    } else if all.iter().any(|disk| disk.error.is_none()) {
        text(&all, &mut output)?;
    }
    output.finish()?;
    failures.end(context)?;
    Ok(if damaged { Outcome::No } else { Outcome::Done })
}

fn text(all: &[DiskView], output: &mut Output) -> Result<()> {
    let points = || {
        all.iter()
            .flat_map(|disk| disk.snapshots.iter().map(move |p| (disk, p)))
    };
    let width =
        |head: &str, lengths: &mut dyn Iterator<Item = usize>| lengths.fold(head.len(), usize::max);
    let disk_width = width("DISK", &mut all.iter().map(|disk| disk.disk.len()));
    let name_width = width("NAME", &mut points().map(|(_, point)| point.name.len()));
    let time_width = width("TIME", &mut points().map(|(_, point)| point.time.len()));
    let state_width = width("STATE     ", &mut points().map(|(_, p)| p.state().len()));
    let heads = ["DISK", "NAME", "TIME", "KIND", "STATE", "SIZE", "USED"];
    let mut row = |[disk, name, time, kind, state, size, used]: [&str; 7], like: &str| {
        output.line(format_args!(
            "{disk:<disk_width$}  {name:<name_width$}  {time:<time_width$}  {kind:<4}  {state:<state_width$}  {size:>10}  {used:>10}{like}"
        ))
    };
    row(heads, "")?;
    for (disk, point) in points() {
        let (size, used) = (Short(point.virtual_size), Short(point.used_size));
        let like = point.like.as_ref().map(|like| {
            let snapshot = like.snapshot.as_deref().unwrap_or_default();
            format!("  like {}@{snapshot}", like.disk)
        });
        let cells = [
            &disk.disk,
            &point.name,
            &point.time,
            point.kind,
            &point.state(),
            &size.to_string(),
            &used.to_string(),
        ];
        row(cells, &like.unwrap_or_default())?;
    }
    let count = points().count() as u64;
    let read = all.iter().filter(|disk| disk.error.is_none()).count();
    let used = all
        .iter()
        .fold(0_u64, |sum, disk| sum.saturating_add(disk.used_size));
    let written: Vec<&str> = {
        let written = all.iter().filter(|disk| disk.writer.is_some());
        written.map(|disk| disk.disk.as_str()).collect()
    };
    let written = if written.is_empty() {
        String::new()
    } else {
        format!("; being written: {}", written.join(", "))
    };
    output.line(format_args!(
        "{} of {}: {} used{written}",
        Count(count, "snapshot"),
        Count(read as u64, "disk"),
        Short(used)
    ))
}
