//! A picture as SVG: no scripts, no fonts of its own, the same bytes each time, less than 200 KB.

use std::fmt::{self, Display, Write as _};

use super::cells::{Run, Shade};
use super::model::{Band, Picture};
use crate::cli::size::Short;

/// Pixels of a cell, across and down.
const WIDE: usize = 6;
const HIGH: usize = 10;
/// Where the cells begin: left of them are offsets and the partitions, above them the title.
const LEFT: usize = 96;
const TOP: usize = 72;
/// The column of names on the right.
const NAMES: usize = 330;
/// Characters of a name there.
const LONGEST: usize = 40;
/// Tooltips for single stretches; in a picture with more of them the rows have them.
const MOST_TOOLTIPS: usize = 500;
/// Partitions and files that are named.
const MOST_NAMED: usize = 10;

pub(super) const STYLE: &str = "<style>\
    svg{background:#fff;font:12px system-ui,sans-serif}\
    text{fill:#333}.t{font-size:16px}.t,.h{font-weight:600}.s,.n{fill:#666}.n{font-size:11px}.g{fill:#f4f4f1}\
    path,.l{stroke-width:9;fill:none}.d{stroke:#c2c7cc}.c{stroke:#3182bd}\
    .u1{stroke:#fdc086}.u2{stroke:#fd8d3c}.u3{stroke:#e6550d}.u4{stroke:#a63603}\
    .b0{fill:#7b8794}.b1{fill:#b8c1ca}.o{fill:transparent}.o:hover{fill:#0002}\
    @media(prefers-color-scheme:dark){svg{background:#16181c}text{fill:#ddd}.s,.n{fill:#9aa0a6}.g{fill:#24272c}\
    .d{stroke:#5a616a}.c{stroke:#4c9fd8}.u1{stroke:#7a4a1e}.u2{stroke:#c2641a}.u3{stroke:#f28230}.u4{stroke:#ffc285}\
    .o:hover{fill:#fff3}}</style>";

/// Classes of shades in the style, in the order of drawing, with what the legend calls them.
pub(super) const CLASSES: [(&str, Shade, &str); 6] = [
    ("d", Shade::Data, "data"),
    ("u1", Shade::Updated(1), "updated: a little"),
    ("u2", Shade::Updated(2), "some"),
    ("u3", Shade::Updated(3), "much"),
    ("u4", Shade::Updated(4), "most"),
    ("c", Shade::Cleared, "cleared"),
];

/// Text for SVG: what would end it is escaped, what XML can't hold is replaced.
pub(super) struct Text<'a>(pub(super) &'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\0'..='\x1F' | '\x7F'..='\u{9F}' | '\u{FFFE}' | '\u{FFFF}' => f.write_char('\u{FFFD}'),
            c => f.write_char(c),
        })
    }
}

/// The end of a name that is too long: the last parts of a path tell more than the first.
pub(super) fn shorten(name: &str, most: usize) -> String {
    let len = name.chars().count();
    if len <= most {
        return name.to_owned();
    }
    let rest: String = name.chars().skip(len + 1 - most).collect();
    format!("…{rest}")
}

/// Draws what the shades mean from the place `(x, y)` on, of data alone or of `changes` too. Returns where it ends.
pub(super) fn legend(
    out: &mut String,
    (mut x, y): (usize, usize),
    changes: bool,
) -> Result<usize, fmt::Error> {
    let used = CLASSES
        .iter()
        .filter(|(_, shade, _)| changes || *shade == Shade::Data);
    for (class, _, name) in used {
        writeln!(
            out,
            "<path class=\"{class}\" d=\"M{x} {y}h12\"/><text class=\"n\" x=\"{}\" y=\"{}\">{name}</text>",
            x + 17,
            y + 4
        )?;
        x += 34 + name.len() * 6;
    }
    Ok(x)
}

impl Picture {
    /// Draws it.
    pub(super) fn svg(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        let rows = self.cells.rows().count();
        let across = self.cells.columns() * WIDE;
        let names = self.names();
        let height = TOP + (rows * HIGH).max(names.len() * 16 + 8) + 48;
        let width = LEFT + across + 24 + NAMES;
        write!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n{STYLE}\n"
        )?;
        let title = shorten(&self.title, 3 * LONGEST);
        let below = shorten(&self.below, 3 * LONGEST);
        let (title, below) = (Text(&title), Text(&below));
        write!(
            out,
            "<title>{title}</title>\n<text class=\"t\" x=\"{LEFT}\" y=\"28\">{title}</text>\n<text class=\"s\" x=\"{LEFT}\" y=\"50\">{below}</text>\n"
        )?;
        self.svg_grid(&mut out)?;
        self.svg_runs(&mut out)?;
        self.svg_bands(&mut out)?;
        self.svg_tooltips(&mut out)?;
        let x = LEFT + across + 24;
        for (n, name) in names.iter().enumerate() {
            let y = TOP + 10 + n * 16;
            let class = if name.is_head {
                " class=\"h\""
            } else {
                " class=\"n\""
            };
            let text = Text(&name.text);
            match &name.amount {
                None => writeln!(out, "<text{class} x=\"{x}\" y=\"{y}\">{text}</text>")?,
                Some(amount) => writeln!(
                    out,
                    "<text{class} x=\"{}\" y=\"{y}\" text-anchor=\"end\">{}</text><text{class} x=\"{}\" y=\"{y}\">{text}</text>",
                    x + 62,
                    Text(amount),
                    x + 70
                )?,
            }
        }
        self.svg_legend(&mut out, height - 18)?;
        out.push_str("</svg>\n");
        Ok(out)
    }

    /// The ground on which the cells are, and offsets beside every fourth row.
    fn svg_grid(&self, out: &mut String) -> fmt::Result {
        for (n, (start, row)) in self.cells.rows().enumerate() {
            let y = TOP + n * HIGH;
            let wide = row.len() * WIDE;
            writeln!(
                out,
                "<rect class=\"g\" x=\"{LEFT}\" y=\"{y}\" width=\"{wide}\" height=\"{}\"/>",
                HIGH - 1
            )?;
            if n % 4 == 0 {
                writeln!(
                    out,
                    "<text class=\"n\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                    LEFT - 18,
                    y + 9,
                    Short(start)
                )?;
            }
        }
        Ok(())
    }

    /// One path for each shade, of strokes as long as the runs.
    fn svg_runs(&self, out: &mut String) -> fmt::Result {
        for (class, shade, _) in CLASSES {
            let mut path = String::new();
            for (n, (_, row)) in self.cells.rows().enumerate() {
                let twice = 2 * (TOP + n * HIGH) + HIGH - 1;
                let runs = self.cells.runs(row);
                for run in runs.iter().filter(|run| run.shade == shade) {
                    let x = LEFT + run.at * WIDE;
                    write!(path, "M{x} {}.5h{}", twice / 2, run.len * WIDE)?;
                }
            }
            if !path.is_empty() {
                writeln!(out, "<path class=\"{class}\" d=\"{path}\"/>")?;
            }
        }
        Ok(())
    }

    /// The partitions, as a bar beside the rows.
    fn svg_bands(&self, out: &mut String) -> fmt::Result {
        let pixel = |at: u64| {
            let pixels = u128::from(at) * HIGH as u128 / u128::from(self.cells.row_len().max(1));
            TOP + usize::try_from(pixels).unwrap_or(usize::MAX - TOP)
        };
        for (n, band) in self.bands.iter().enumerate() {
            let (from, to) = (pixel(band.range.start), pixel(band.range.end));
            writeln!(
                out,
                "<rect class=\"b{}\" x=\"{}\" y=\"{from}\" width=\"8\" height=\"{}\"><title>{}</title></rect>",
                n % 2,
                LEFT - 12,
                to.saturating_sub(from).max(2),
                Text(&shorten(&band.name, 2 * LONGEST))
            )?;
        }
        Ok(())
    }

    /// Tooltips: for each stretch that changed, or for each row.
    fn svg_tooltips(&self, out: &mut String) -> fmt::Result {
        let changed = |run: &Run| matches!(run.shade, Shade::Updated(_) | Shade::Cleared);
        let rows = || self.cells.rows().enumerate();
        let all = rows().flat_map(|(_, (_, row))| self.cells.runs(row));
        let single = all.filter(changed).count() <= MOST_TOOLTIPS;
        for (n, (start, row)) in rows() {
            let mut stretches: Vec<(usize, usize)> = Vec::new();
            for run in self.cells.runs(row).iter().filter(|run| changed(run)) {
                match stretches.last_mut() {
                    Some((at, len)) if *at + *len == run.at => *len += run.len,
                    _ => stretches.push((run.at, run.len)),
                }
            }
            if !single && !stretches.is_empty() {
                stretches = vec![(0, row.len())];
            }
            for (at, len) in stretches {
                let cells = row.iter().skip(at).take(len);
                let bytes: u64 = cells.map(|cell| cell.changed()).sum();
                let from = start + at as u64 * self.cells.each();
                let to = from + len as u64 * self.cells.each();
                writeln!(
                    out,
                    "<rect class=\"o\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{} of {} changed, from {} to {}</title></rect>",
                    LEFT + at * WIDE,
                    TOP + n * HIGH,
                    len * WIDE,
                    HIGH - 1,
                    Short(bytes),
                    Short(to - from),
                    Short(from),
                    Short(to)
                )?;
            }
        }
        Ok(())
    }

    fn svg_legend(&self, out: &mut String, y: usize) -> fmt::Result {
        let x = legend(out, (LEFT, y), self.changes)?;
        writeln!(
            out,
            "<text class=\"n\" x=\"{x}\" y=\"{}\">a cell is {}, a row {}</text>",
            y + 4,
            Short(self.cells.each()),
            Short(self.cells.row_len())
        )
    }

    /// The lines on the right.
    fn names(&self) -> Vec<Name> {
        let mut names = Vec::new();
        let mut part = |head: &str, all: usize, lines: Vec<Name>| {
            if lines.is_empty() {
                return;
            }
            if !names.is_empty() {
                names.push(Name::head(""));
            }
            names.push(Name::head(head));
            let more = all.saturating_sub(lines.len());
            names.extend(lines);
            if more > 0 {
                names.push(Name::line(&format!("and {more} more")));
            }
        };
        let line = |band: &Band| Name::line(&band.name);
        let bands = self.bands.iter().take(MOST_NAMED).map(line).collect();
        part("Partitions", self.bands.len(), bands);
        let line = |(bytes, path): &(u64, String)| Name {
            text: shorten(path, LONGEST),
            amount: Some(Short(*bytes).to_string()),
            is_head: false,
        };
        let files = self.files.iter().take(MOST_NAMED).map(line).collect();
        part("Files that changed most", self.files.len(), files);
        names
    }
}

/// A line on the right.
struct Name {
    text: String,
    amount: Option<String>,
    is_head: bool,
}

impl Name {
    fn head(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            amount: None,
            is_head: true,
        }
    }

    fn line(text: &str) -> Self {
        Self {
            text: shorten(text, LONGEST + 14),
            amount: None,
            is_head: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cells::Cells;
    use super::*;
    use crate::page::{Change, ChangeKind, PAGE_SIZE, PageRange};

    #[test]
    fn text_can_not_end_its_element() {
        let text = Text("a<b>&\"\u{1b}[0m").to_string();
        assert_eq!(text, "a&lt;b&gt;&amp;&quot;\u{FFFD}[0m");
    }

    /// A picture in which no two neighbouring cells look the same, with names that would break it.
    fn worst() -> Picture {
        let mut cells = Cells::new(1 << 40, 128, 64);
        let each = cells.each();
        for n in 0..(1 << 40) / each {
            let kind = if n % 2 == 0 {
                ChangeKind::Update
            } else {
                ChangeKind::Clear
            };
            let end = n * each + if n % 4 == 0 { each } else { PAGE_SIZE };
            let range = PageRange::new(n * each, end).unwrap();
            cells.change(Change { range, kind });
        }
        let name = "</title><script>&\u{1b}]0;\"".repeat(9);
        Picture {
            title: name.clone(),
            below: name.clone(),
            cells,
            bands: (0..200)
                .map(|n: u64| Band {
                    range: n << 32..(n + 1) << 32,
                    name: name.clone(),
                    mark: '+',
                })
                .collect(),
            files: vec![(1 << 30, name); 100],
            changes: true,
        }
    }

    #[test]
    fn the_worst_picture_is_small_well_formed_and_the_same_each_time() {
        let svg = worst().svg().unwrap();
        assert!(svg.len() < 200_000, "{} bytes", svg.len());
        assert_eq!(svg, worst().svg().unwrap());
        let mut reader = quick_xml::Reader::from_str(&svg);
        let mut elements = 0;
        loop {
            match reader.read_event().unwrap() {
                quick_xml::events::Event::Start(tag) => {
                    assert_ne!(tag.name().as_ref(), "script");
                    elements += 1;
                }
                quick_xml::events::Event::Eof => break,
                _ => {}
            }
        }
        assert!(elements > 64, "{elements} elements");
    }

    #[test]
    fn of_long_names_the_end_is_kept() {
        assert_eq!(shorten("/usr/share/doc/file", 9), "…doc/file");
        assert_eq!(shorten("short", 5), "short");
    }
}
