//! A disk as a picture: rows of cells, the partitions beside them, and what changed in colour. Memory is that of the
//! cells, whatever the size of the disk.

mod cells;
mod model;
mod rows;
mod svg;
mod term;

use std::ffi::OsStr;
use std::io::IsTerminal as _;
use std::os::unix::ffi::OsStrExt as _;

pub(super) use cells::Cells;
use model::{Band, Picture};
use rows::Points;
pub(super) use rows::Row;

use super::output::Output;
use super::size::{Count, Short};
use crate::diff::Comparison;
use crate::error::{Error, Result};
use crate::files::Opened;
use crate::image::{ExtentState, Image, whole};
use crate::inside::{FileChanges, Partition, PartitionChanges, partitions};
use crate::text::shown;

/// Cells in a row of an SVG, and rows at most.
const SVG: (usize, usize) = (128, 64);
/// Rows in a terminal at most, as letters; in colour a line has two.
const LINES: usize = 24;
/// Characters in a line where nobody says how wide the terminal is.
const COLUMNS: usize = 80;

/// Points in time in one picture at most.
pub(super) const MOST_POINTS: usize = 64;
/// Characters beside the cells of a row: a name before them, and what is said of it after them.
const BESIDE: usize = 40;

/// How to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Drawing {
    /// A picture that every browser shows.
    Svg,
    /// For a terminal: in colour, or as letters where colours aren't wanted.
    Term,
}

impl Drawing {
    /// The cells for a disk of `size` bytes, with what `image` holds noted in them.
    pub(super) fn cells(self, image: &dyn Image, size: u64) -> Result<Cells> {
        let (columns, rows) = match self {
            Self::Svg => SVG,
            Self::Term if in_colour() => (columns(), 2 * LINES),
            Self::Term => (columns(), LINES),
        };
        let mut cells = Cells::new(size, columns, rows);
        for extent in image.extents(whole(image)) {
            let extent = extent?;
            if extent.state == ExtentState::Data {
                cells.data(extent.range);
            }
        }
        Ok(cells)
    }

    /// Cells in one row for a disk of `size` bytes.
    pub(super) fn row(self, size: u64) -> Cells {
        let columns = match self {
            Self::Svg => SVG.0,
            Self::Term => columns().saturating_sub(BESIDE).max(16),
        };
        Cells::new(size, columns, 1)
    }

    /// Prints states of one disk, oldest first, a row for each; `size` is that of the largest.
    pub(super) fn points(
        self,
        (title, below): (&str, &str),
        size: u64,
        rows: &[Row],
        output: &mut Output,
    ) -> Result<()> {
        let picture = Points {
            title,
            below,
            size,
            columns: rows
                .iter()
                .map(|row| row.cells.first_row().count())
                .max()
                .unwrap_or(0),
            rows,
        };
        self.write(|| picture.svg(), |colour| picture.term(colour), output)
    }

    /// Prints a disk: where it holds data.
    pub(super) fn disk(self, image: &dyn Opened, output: &mut Output) -> Result<()> {
        let cells = self.cells(image, image.virtual_size())?;
        let bytes: u64 = cells.filled().map(|(_, [data, ..])| data).sum();
        let size = Short(image.virtual_size());
        self.print(
            &Picture {
                title: shown(image.path()).to_string(),
                below: format!("{} of {size} may hold data", Short(bytes)),
                cells,
                bands: bands(image),
                files: Vec::new(),
                changes: false,
            },
            output,
        )
    }

    /// Prints what changed from `base` to `target`, with the files that own it if those are known.
    pub(super) fn changes(
        self,
        [base, target]: [&dyn Opened; 2],
        cells: Cells,
        comparison: &Comparison,
        files: Option<&FileChanges>,
        output: &mut Output,
    ) -> Result<()> {
        let below = if comparison.is_same() {
            format!("no difference, {}", Short(target.virtual_size()))
        } else {
            let parts = [
                (comparison.update_bytes, "updated"),
                (comparison.clear_bytes, "cleared"),
            ];
            let parts = parts.iter().filter(|(bytes, _)| *bytes > 0);
            let parts = parts.map(|(bytes, what)| format!("{} {what}", Short(*bytes)));
            format!(
                "{}: {}, of {}",
                Count(comparison.ranges, "range"),
                parts.collect::<Vec<_>>().join(" and "),
                Short(target.virtual_size())
            )
        };
        let bands = match files {
            Some(files) => files.partitions.iter().map(Band::with_changes).collect(),
            None => bands(target),
        };
        self.print(
            &Picture {
                title: format!("{} → {}", shown(base.path()), shown(target.path())),
                below,
                cells,
                bands,
                files: files.map(most_changed).unwrap_or_default(),
                changes: true,
            },
            output,
        )
    }

    fn print(self, picture: &Picture, output: &mut Output) -> Result<()> {
        self.write(|| picture.svg(), |colour| picture.term(colour), output)
    }

    fn write(
        self,
        svg: impl FnOnce() -> std::result::Result<String, std::fmt::Error>,
        term: impl FnOnce(bool) -> Vec<String>,
        output: &mut Output,
    ) -> Result<()> {
        match self {
            Self::Svg => {
                let svg = svg().map_err(|_| Error::internal("a string can't be written to"))?;
                output.bytes(svg.as_bytes())
            }
            Self::Term => {
                let lines = term(in_colour());
                lines.iter().try_for_each(|line| output.line(line))
            }
        }
    }
}

impl Band {
    fn new(partition: &Partition, name: String) -> Self {
        Self {
            range: partition.range(),
            name,
            mark: match partition.number {
                n @ 1..10 => char::from_digit(n, 10).unwrap_or('+'),
                _ => '+',
            },
        }
    }

    fn with_changes(changes: &PartitionChanges) -> Self {
        let partition = &changes.partition;
        let label = if changes.label.is_empty() {
            &partition.name
        } else {
            &changes.label
        };
        let name = format!(
            "{}, {}, {}: {}",
            named(partition, label),
            changes.file_system,
            Short(partition.len),
            if changes.changed_bytes == 0 {
                "no change".to_owned()
            } else {
                format!("{} changed", Short(changes.changed_bytes))
            }
        );
        Self::new(partition, name)
    }
}

fn named(partition: &Partition, label: &str) -> String {
    let number = match partition.number {
        0 => "disk".to_owned(),
        n => format!("partition {n}"),
    };
    if label.is_empty() {
        number
    } else {
        format!("{number} \"{}\"", shown(label))
    }
}

/// The partitions of a disk. One whose table can't be read is drawn without: the picture is about the disk.
fn bands(image: &dyn Image) -> Vec<Band> {
    let Ok(table) = partitions(image) else {
        return Vec::new();
    };
    let parts = table.partitions.iter().filter(|part| part.number > 0);
    let band = |part: &Partition| {
        let name = format!("{}, {}", named(part, &part.name), Short(part.len));
        Band::new(part, name)
    };
    parts.map(band).collect()
}

fn most_changed(changes: &FileChanges) -> Vec<(u64, String)> {
    let entries = changes.partitions.iter().flat_map(|part| &part.entries);
    let mut files: Vec<(u64, String)> = entries
        .filter(|entry| entry.changed_bytes > 0)
        .map(|entry| {
            let path = shown(OsStr::from_bytes(&entry.path)).to_string();
            (entry.changed_bytes, path)
        })
        .collect();
    files.sort_by(|(a, left), (b, right)| b.cmp(a).then_with(|| left.cmp(right)));
    files
}

/// Whether stdout is a terminal whose user hasn't asked for no colours.
fn in_colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty())
}

/// Cells that fit into a line.
fn columns() -> usize {
    let told = std::env::var("COLUMNS").ok().and_then(|n| n.parse().ok());
    let wide = told.or_else(|| {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
        Some(usize::from(size.ws_col))
    });
    let wide = wide.filter(|n| *n > 0).unwrap_or(COLUMNS);
    wide.saturating_sub(cells::MARGIN).clamp(16, 256)
}

/// Bytes of the larger of two disks: what one of them cuts off is drawn too.
pub(super) fn larger(images: [&dyn Opened; 2]) -> u64 {
    let [base, target] = images.map(Image::virtual_size);
    base.max(target)
}
