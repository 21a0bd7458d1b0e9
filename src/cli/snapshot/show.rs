//! `vhd snapshot show`: prints all information about a point in time.

use std::collections::BTreeMap;

use serde::Serialize;

use super::like::LikeView;
use super::{
    Context, Count, Disk, DiskArgs, Manifest, Outcome, Output, Result, Size, Time, being_written,
    far, managed, parse_latest,
};
use crate::files::Opened as _;
use crate::snapshot::PointImage;

/// Print all information about a snapshot.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "The used size of a snapshot is what it takes on its own; that of its chain is what would be needed to restore it \
     if nothing else were there. The size is always that of the whole disk.\n\n",
    "Examples:\n",
    "  vhd snapshot show --store /backup --disk web tue\n",
    "  vhd snapshot show --store /backup --disk web --json | jq -r .content_digest\n\n",
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
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if managed::is_wanted(&args.disk.store.store) {
        return managed::show::run(args, context);
    }
    if let Some(store) = far::store(&args.disk.store.store, context)? {
        let wanted = (args.disk.disk.as_deref(), args.snapshot.as_ref(), args.at);
        return far::show(&*store, wanted, args.json);
    }
    let (name, names) = args.disk.meant(&args.snapshot)?;
    let disk = Disk::look(&args.disk.store.store, &name)?;
    if let Some(note) = being_written(&disk) {
        context.note(note);
    }
    let point = choose(&disk, names.first().copied(), args.at)?;
    print(&View::of(&disk, point)?, args.json)
}

/// The snapshot that the user selected.
pub(super) fn choose<'a>(
    disk: &'a Disk,
    name: Option<&str>,
    at: Option<Time>,
) -> Result<&'a Manifest> {
    match (name, at, disk.newest()) {
        (Some(name), _, _) => match disk.copying() {
            Some(part) if part.name == name => Ok(part),
            _ => disk.find(name),
        },
        (None, Some(time), _) => disk.at(time),
        (None, None, Some(newest)) => Ok(newest),
        (None, None, None) => disk.find("newest"),
    }
}

/// Prints the information about a point in time that was opened as an image.
pub(crate) fn print_point(point: &PointImage, json: bool) -> Result<Outcome> {
    let chain = (point.chain_length(), point.chain_used_size());
    let name = point.path().to_string_lossy().into_owned();
    let view = View::new(name, chain, point.manifest());
    print(&view, json)
}

/// A snapshot, for display. Sizes are in bytes.
#[derive(Debug, Serialize)]
pub(super) struct View {
    point: String,
    name: String,
    sequence: u32,
    id: String,
    parent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    like: Option<LikeView>,
    time: String,
    source_resource_id: Option<String>,
    source_unique_id: Option<String>,
    state: &'static str,
    completion_percent: u8,
    virtual_size: u64,
    used_size: u64,
    chain_used_size: u64,
    chain_length: usize,
    content_digest: String,
    source: Origin,
    data: Data,
    tags: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Origin {
    name: Option<String>,
    format: String,
    unique_id: Option<String>,
}

#[derive(Debug, Serialize)]
struct Data {
    kind: &'static str,
    file: String,
    file_size: u64,
    identity: Option<String>,
}

impl View {
    pub(super) fn of(disk: &Disk, point: &Manifest) -> Result<Self> {
        let name = disk.label(point).to_string_lossy().into_owned();
        let mut view = Self::new(name, disk.chain_sizes(point)?, point);
        if let (Some(like), Some(now)) = (&mut view.like, disk.begins_as()) {
            like.call(&now);
        }
        Ok(view)
    }

    fn new(name: String, (chain_length, chain_used_size): (usize, u64), point: &Manifest) -> Self {
        Self {
            point: name,
            name: point.name.clone(),
            sequence: point.sequence,
            id: point.id.clone(),
            parent: point.parent.clone(),
            like: LikeView::of(point.like.as_ref()),
            time: point.time.to_string(),
            source_resource_id: point.family.source_resource_id.clone(),
            source_unique_id: point.family.source_unique_id.clone(),
            state: point.state.name(),
            completion_percent: point.completion_percent,
            virtual_size: point.virtual_size,
            used_size: point.used_size,
            chain_used_size,
            chain_length,
            content_digest: point.content_digest.to_string(),
            source: Origin {
                name: point.source.name.clone(),
                format: point.source.format.clone(),
                unique_id: point.source.unique_id.clone(),
            },
            data: Data {
                kind: point.data.kind.name(),
                file: point.data.file.clone(),
                file_size: point.data.length,
                identity: point.data.identity.map(|identity| identity.to_string()),
            },
            tags: point.tags.clone(),
        }
    }
}

fn print(view: &View, json: bool) -> Result<Outcome> {
    let mut output = Output::text()?;
    if json {
        output.json(view)?;
    } else {
        text(view, &mut output)?;
    }
    output.finish()?;
    Ok(Outcome::Done)
}

fn text(view: &View, output: &mut Output) -> Result<()> {
    let mut line = |name: &str, value: &str| output.line(format_args!("{name:<18} {value}"));
    line("point in time", &view.point)?;
    line("time", &view.time)?;
    line(
        "state",
        &format!("{}, {} %", view.state, view.completion_percent),
    )?;
    line("virtual size", &Size(view.virtual_size).to_string())?;
    line("used size", &Size(view.used_size).to_string())?;
    line(
        "with its chain",
        &format!(
            "{} in {}",
            Size(view.chain_used_size),
            Count(view.chain_length as u64, "file")
        ),
    )?;
    line("content digest", &view.content_digest)?;
    let optional = [
        ("source resource", &view.source_resource_id),
        ("source unique id", &view.source_unique_id),
        ("taken from", &view.source.name),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            line(name, value)?;
        }
    }
    line("format", &view.source.format)?;
    if let Some(id) = &view.source.unique_id {
        line("unique id", id)?;
    }
    line("file", &format!("{} ({})", view.data.file, view.data.kind))?;
    if let Some(like) = &view.like {
        line("like", &like.to_string())?;
    }
    if let Some(identity) = &view.data.identity {
        line("identity", identity)?;
    }
    line("id", &view.id)?;
    for (key, value) in &view.tags {
        line("tag", &format!("{key}={value}"))?;
    }
    Ok(())
}
