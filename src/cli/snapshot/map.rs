//! `vhd snapshot map`: where each point in time of a disk changed it, a row for each.

use serde::Serialize;

use super::{Context, Count, Disk, DiskArgs, Outcome, Output, Result, Short, far, managed};
use crate::cli::picture::{Cells, Drawing, MOST_POINTS, Row};
use crate::files::Opened as _;
use crate::image::{ExtentState, Image as _, whole};
use crate::page::ChangeKind;
use crate::snapshot::{Manifest, open_beside};
use crate::text::shown;

/// Show where each snapshot of a disk changed it, a row for each.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "A base shows where it holds data, every other snapshot what it changed since the one before: the indexes of the \
     diffs are read, not the data. A picture has the newest 64 snapshots; --json has all, each with the parts of the disk \
     (cells) in which something is.\n\n",
    "Examples:\n",
    "  vhd snapshot map --store /backup --disk web\n",
    "  vhd snapshot map --store /backup --disk web --format svg > web.svg\n\n",
    super::args::exit_codes!(),
))]
pub(super) struct Args {
    #[command(flatten)]
    disk: DiskArgs,
    /// How to draw it.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "term",
        conflicts_with = "json"
    )]
    format: Drawing,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct View<'a> {
    disk: &'a str,
    virtual_size: u64,
    cell_size: u64,
    snapshots: Vec<PointView>,
}

#[derive(Serialize)]
struct PointView {
    name: String,
    id: String,
    time: String,
    kind: &'static str,
    virtual_size: u64,
    data_bytes: Option<u64>,
    update_bytes: Option<u64>,
    clear_bytes: Option<u64>,
    cells: Vec<CellView>,
}

#[derive(Serialize)]
struct CellView {
    start: u64,
    data_bytes: u64,
    update_bytes: u64,
    clear_bytes: u64,
}

/// A point in time, and where it changed the disk.
struct Mapped {
    manifest: Manifest,
    cells: Cells,
    data: u64,
    updated: u64,
    cleared: u64,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let store = &args.disk.store.store;
    if managed::is_wanted(store) || far::store(store, context)?.is_some() {
        return Err(crate::error::Error::usage(
            "a map can only be drawn of a disk in a folder, whose diffs show what changed",
        )
        .with_path(store)
        .with_hint("compare two snapshots with vhd snapshot diff; or copy the disk to a folder, with vhd snapshot copy"));
    }
    let (name, _) = args.disk.meant(None)?;
    let (_disk, mapped) = open_beside(store, &name, |disk| {
        let most = if args.json { usize::MAX } else { MOST_POINTS };
        let skipped = disk.points().len().saturating_sub(most);
        let largest = disk
            .points()
            .iter()
            .skip(skipped)
            .map(|point| point.virtual_size);
        let size = largest.max().unwrap_or(0);
        let points = disk.points().iter().skip(skipped);
        let mapped = points
            .map(|point| map(disk, point, args.format.row(size)))
            .collect::<Result<Vec<_>>>()?;
        Ok(((mapped, size, skipped), true))
    })?;
    let (mapped, size, skipped) = mapped;
    let mut output = Output::text()?;
    if args.json {
        output.json(&View {
            disk: &name,
            virtual_size: size,
            cell_size: args.format.row(size).each(),
            snapshots: mapped.into_iter().map(PointView::from).collect(),
        })?;
    } else {
        let count = mapped.len() + skipped;
        let below = match skipped {
            0 => format!("{}, {}", Count(count as u64, "snapshot"), Short(size)),
            _ => format!(
                "the newest {} of {count} snapshots, {}",
                mapped.len(),
                Short(size)
            ),
        };
        let rows: Vec<Row> = mapped.into_iter().map(Row::from).collect();
        let title = shown(&name).to_string();
        args.format
            .points((&title, &below), size, &rows, &mut output)?;
    }
    output.finish()?;
    Ok(Outcome::Done)
}

fn map(disk: &Disk, point: &Manifest, mut cells: Cells) -> Result<Mapped> {
    let image = disk.image(point)?;
    let (mut data, mut updated, mut cleared) = (0_u64, 0_u64, 0_u64);
    if point.is_base() && point.like.is_none() {
        for extent in image.extents(whole(&image)) {
            let extent = extent?;
            if extent.state == ExtentState::Data {
                data = data.saturating_add(extent.range.len());
                cells.data(extent.range);
            }
        }
    } else if let Some(diff) = image.diffs().last() {
        for change in diff.changes() {
            let change = change?;
            let sum = match change.kind {
                ChangeKind::Update => &mut updated,
                ChangeKind::Clear => &mut cleared,
            };
            *sum = sum.saturating_add(change.range.len());
            cells.change(change);
        }
    }
    image.check_unchanged()?;
    Ok(Mapped {
        manifest: point.clone(),
        cells,
        data,
        updated,
        cleared,
    })
}

impl From<Mapped> for Row {
    fn from(mapped: Mapped) -> Self {
        let parts = [
            (mapped.data, "data"),
            (mapped.updated, "updated"),
            (mapped.cleared, "cleared"),
        ];
        let parts = parts.iter().filter(|(bytes, _)| *bytes > 0);
        let parts: Vec<String> = parts
            .map(|(bytes, what)| format!("{} {what}", Short(*bytes)))
            .collect();
        Self {
            name: shown(&mapped.manifest.name).to_string(),
            note: if parts.is_empty() {
                "nothing".to_owned()
            } else {
                parts.join(", ")
            },
            cells: mapped.cells,
        }
    }
}

impl From<Mapped> for PointView {
    fn from(mapped: Mapped) -> Self {
        let is_base = mapped.manifest.is_base() && mapped.manifest.like.is_none();
        let of_diff = |bytes: u64| (!is_base).then_some(bytes);
        Self {
            kind: mapped.manifest.data.kind.name(),
            time: mapped.manifest.time.to_string(),
            virtual_size: mapped.manifest.virtual_size,
            data_bytes: is_base.then_some(mapped.data),
            update_bytes: of_diff(mapped.updated),
            clear_bytes: of_diff(mapped.cleared),
            cells: mapped
                .cells
                .filled()
                .map(
                    |(start, [data_bytes, update_bytes, clear_bytes])| CellView {
                        start,
                        data_bytes,
                        update_bytes,
                        clear_bytes,
                    },
                )
                .collect(),
            name: mapped.manifest.name,
            id: mapped.manifest.id,
        }
    }
}
