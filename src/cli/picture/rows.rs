//! Pictures of several states of one disk: a row for each, from the beginning of the disk to its end.

use std::fmt::{self, Write as _};

use super::cells::{Cells, Shade};
use super::svg::{CLASSES, STYLE, Text, legend, shorten};
use super::term::{colour, letter};
use crate::cli::size::Short;

/// Pixels of a cell, across and down, and of the gap below a row.
const WIDE: usize = 6;
const HIGH: usize = 12;
const GAP: usize = 4;
/// Where the cells begin, and the room on their right.
const LEFT: usize = 190;
const TOP: usize = 86;
const RIGHT: usize = 250;
/// Characters of a name, and of what is said of it.
const LONGEST: usize = 24;
/// Marks on the axis, besides the one at its beginning.
const MARKS: u64 = 4;

/// A state of the disk.
#[derive(Debug)]
pub(crate) struct Row {
    /// What it is called.
    pub(crate) name: String,
    /// What is said of it, after the cells.
    pub(crate) note: String,
    /// One row of cells, as many as in all others.
    pub(crate) cells: Cells,
}

/// All states, oldest first.
#[derive(Debug)]
pub(super) struct Points<'a> {
    pub(super) title: &'a str,
    pub(super) below: &'a str,
    /// Bytes of the largest state.
    pub(super) size: u64,
    pub(super) columns: usize,
    pub(super) rows: &'a [Row],
}

impl Points<'_> {
    /// Lines for a terminal.
    pub(super) fn term(&self, in_colour: bool) -> Vec<String> {
        let mut lines = vec![self.title.to_owned(), self.below.to_owned(), String::new()];
        let names = self.rows.iter().map(|row| row.name.chars().count());
        let wide = names.max().unwrap_or(0).min(LONGEST);
        let end = Short(self.size).to_string();
        let across = self.columns.saturating_sub(end.len() + 1);
        lines.push(format!("{:wide$}  0{:across$}{end}", "", ""));
        for row in self.rows {
            let name = shorten(&row.name, LONGEST);
            let cells: String = if in_colour {
                row.cells.first_row().map(painted).collect()
            } else {
                row.cells.first_row().map(letter).collect()
            };
            let end = if in_colour { "\x1b[0m" } else { "" };
            let missing = self.columns.saturating_sub(row.cells.first_row().count());
            let line = format!("{name:wide$} [{cells}{end}{:missing$}] {}", "", row.note);
            lines.push(line.trim_end().to_owned());
        }
        lines.push(String::new());
        let each = self.rows.first().map_or(0, |row| row.cells.each());
        lines.push(format!(
            "{}; a cell is {}",
            if in_colour {
                "grey: data, yellow to red: updated from a little to most, blue: cleared"
            } else {
                ". data, - + * # updated from a little to most, o cleared"
            },
            Short(each)
        ));
        lines
    }

    /// An SVG.
    pub(super) fn svg(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        let across = self.columns * WIDE;
        let step = HIGH + GAP;
        let (width, height) = (LEFT + across + RIGHT, TOP + self.rows.len() * step + 44);
        let (title, below) = (shorten(self.title, 90), shorten(self.below, 120));
        let (title, below) = (Text(&title), Text(&below));
        write!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n{STYLE}\n\
             <title>{title}</title>\n<text class=\"t\" x=\"24\" y=\"28\">{title}</text>\n<text class=\"s\" x=\"24\" y=\"50\">{below}</text>\n"
        )?;
        for n in 0..=MARKS {
            let at = u128::from(self.size) * u128::from(n) / u128::from(MARKS);
            let at = u64::try_from(at).unwrap_or(self.size);
            let anchor = match n {
                0 => "start",
                MARKS => "end",
                _ => "middle",
            };
            writeln!(
                out,
                "<text class=\"n\" x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
                LEFT + self.pixels(at),
                TOP - 8,
                Short(at)
            )?;
        }
        for (n, row) in self.rows.iter().enumerate() {
            let y = TOP + n * step;
            writeln!(
                out,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><text class=\"n\" x=\"{}\" y=\"{}\">{}</text>\
                 <rect class=\"g\" x=\"{LEFT}\" y=\"{y}\" width=\"{}\" height=\"{HIGH}\"/>",
                LEFT - 12,
                y + 10,
                Text(&shorten(&row.name, LONGEST)),
                LEFT + across + 12,
                y + 10,
                Text(&shorten(&row.note, 2 * LONGEST)),
                row.cells.first_row().count() * WIDE
            )?;
        }
        for (class, shade, _) in CLASSES {
            let mut path = String::new();
            for (n, row) in self.rows.iter().enumerate() {
                for run in row.cells.first_runs() {
                    if run.shade == shade {
                        let (x, y) = (LEFT + run.at * WIDE, TOP + n * step + HIGH / 2);
                        write!(path, "M{x} {y}h{}", run.len * WIDE)?;
                    }
                }
            }
            if !path.is_empty() {
                writeln!(
                    out,
                    "<path class=\"{class}\" style=\"stroke-width:{HIGH}\" d=\"{path}\"/>"
                )?;
            }
        }
        let y = height - 18;
        let x = legend(&mut out, (LEFT, y), true)?;
        let each = self.rows.first().map_or(0, |row| row.cells.each());
        writeln!(
            out,
            "<text class=\"n\" x=\"{x}\" y=\"{}\">a cell is {}</text>\n</svg>",
            y + 4,
            Short(each)
        )?;
        Ok(out)
    }

    /// Pixels from the beginning of the cells to the byte `at`.
    fn pixels(&self, at: u64) -> usize {
        let each = self.rows.first().map_or(1, |row| row.cells.each()).max(1);
        let pixels = u128::from(at) * WIDE as u128 / u128::from(each);
        usize::try_from(pixels).map_or(self.columns * WIDE, |found| found.min(self.columns * WIDE))
    }
}

/// A cell in colour.
fn painted(shade: Shade) -> String {
    match colour(shade) {
        Some(colour) => format!("\x1b[38;5;{colour}m█"),
        None => " ".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{Change, ChangeKind, PageRange};

    fn rows(count: usize, size: u64) -> Vec<Row> {
        (0..count)
            .map(|n| {
                let mut cells = Cells::new(size, 128, 1);
                let each = cells.each();
                for at in 0..size / each {
                    let kind = if (at + n as u64).is_multiple_of(2) {
                        ChangeKind::Update
                    } else {
                        ChangeKind::Clear
                    };
                    let range = PageRange::covering(at * each, at * each + 512 * (1 + at % 3));
                    cells.change(Change { range, kind });
                }
                Row {
                    name: format!("<{n}>&\u{1b}]0;"),
                    note: "1 KiB".to_owned(),
                    cells,
                }
            })
            .collect()
    }

    #[test]
    fn the_largest_picture_is_well_formed_and_small() {
        let size = 1 << 40;
        let rows = rows(super::super::MOST_POINTS, size);
        let picture = Points {
            title: "</title><a>",
            below: "\u{0}",
            size,
            columns: 128,
            rows: &rows,
        };
        let svg = picture.svg().unwrap();
        assert!(svg.len() < 200 << 10, "{}", svg.len());
        let mut reader = quick_xml::Reader::from_str(&svg);
        loop {
            if matches!(reader.read_event().unwrap(), quick_xml::events::Event::Eof) {
                break;
            }
        }
        assert_eq!(svg, picture.svg().unwrap());
    }

    #[test]
    fn lines_are_of_one_width_and_never_raw() {
        let size = 100 * 512;
        let rows = rows(3, size);
        let picture = Points {
            title: "t",
            below: "b",
            size,
            columns: rows[0].cells.first_row().count(),
            rows: &rows,
        };
        let lines = picture.term(false);
        let ends: Vec<_> = lines.iter().filter_map(|line| line.find(']')).collect();
        assert!(ends.len() >= 3, "{lines:?}");
    }
}
