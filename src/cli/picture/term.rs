//! A picture for a terminal: half blocks in colour, or letters.

use super::cells::{Cell, Shade};
use super::model::Picture;
use crate::cli::size::Short;

/// The colour of a shade among the 256 of terminals; none where the background shows.
pub(super) const fn colour(shade: Shade) -> Option<u8> {
    match shade {
        Shade::Zero => None,
        Shade::Data => Some(245),
        Shade::Cleared => Some(33),
        Shade::Updated(1) => Some(222),
        Shade::Updated(2) => Some(214),
        Shade::Updated(3) => Some(208),
        Shade::Updated(_) => Some(196),
    }
}

pub(super) const fn letter(shade: Shade) -> char {
    match shade {
        Shade::Zero => ' ',
        Shade::Data => '.',
        Shade::Cleared => 'o',
        Shade::Updated(1) => '-',
        Shade::Updated(2) => '+',
        Shade::Updated(3) => '*',
        Shade::Updated(_) => '#',
    }
}

impl Picture {
    /// The lines: of one row each as letters, of two each in colour.
    pub(super) fn term(&self, in_colour: bool) -> Vec<String> {
        let mut lines = vec![self.title.clone(), self.below.clone(), String::new()];
        let rows: Vec<(u64, &[Cell])> = self.cells.rows().collect();
        for (n, pair) in rows.chunks(if in_colour { 2 } else { 1 }).enumerate() {
            let Some((start, upper)) = pair.first() else {
                continue;
            };
            let lower = pair.get(1).map_or(&[][..], |(_, cells)| cells);
            let offset = if n % 4 == 0 {
                Short(*start).to_string()
            } else {
                String::new()
            };
            let mark = self.mark(*start);
            let line = if in_colour {
                self.coloured(upper, lower)
            } else {
                upper
                    .iter()
                    .map(|cell| letter(self.cells.shade(*cell)))
                    .collect()
            };
            lines.push(format!("{offset:>10} {mark} {line}").trim_end().to_owned());
        }
        lines.push(String::new());
        let cell = format!(
            "a cell is {}, a line {}",
            Short(self.cells.each()),
            Short(self.cells.row_len() * if in_colour { 2 } else { 1 })
        );
        let legend = match (in_colour, self.changes) {
            (false, false) => format!(". data; {cell}"),
            (false, true) => {
                format!(". data, - + * # updated from a little to most, o cleared; {cell}")
            }
            (true, changes) => {
                let shades = [
                    (Shade::Data, "data"),
                    (Shade::Updated(1), "updated, from a little"),
                    (Shade::Updated(4), "to most"),
                    (Shade::Cleared, "cleared"),
                ];
                let shades = shades
                    .iter()
                    .filter(|(shade, _)| changes || *shade == Shade::Data);
                let shades = shades.map(|(shade, name)| {
                    format!(
                        "\x1b[38;5;{}m█\x1b[0m {name}",
                        colour(*shade).unwrap_or(245)
                    )
                });
                format!("{}; {cell}", shades.collect::<Vec<_>>().join(", "))
            }
        };
        lines.push(legend);
        lines.extend(
            self.bands
                .iter()
                .map(|band| format!("{}: {}", band.mark, band.name)),
        );
        let files = self.files.iter().take(10);
        lines.extend(
            files.map(|(bytes, path)| format!("{:>12}  {path}", Short(*bytes).to_string())),
        );
        lines
    }

    /// The partition in which a row begins, as one character.
    fn mark(&self, at: u64) -> char {
        let band = self.bands.iter().find(|band| band.range.contains(&at));
        band.map_or(' ', |band| band.mark)
    }

    /// Two rows in one line: half blocks, whose colour is that of the upper row, on that of the lower.
    fn coloured(&self, upper: &[Cell], lower: &[Cell]) -> String {
        let mut line = String::new();
        let mut last = None;
        for (n, cell) in upper.iter().enumerate() {
            let above = colour(self.cells.shade(*cell));
            let below = lower
                .get(n)
                .and_then(|cell| colour(self.cells.shade(*cell)));
            let (block, front, back) = match (above, below) {
                (None, None) => (' ', None, None),
                (Some(above), None) => ('▀', Some(above), None),
                (None, Some(below)) => ('▄', Some(below), None),
                (Some(above), Some(below)) => ('▀', Some(above), Some(below)),
            };
            if last != Some((front, back)) {
                line.push_str("\x1b[0m");
                line.extend(front.iter().map(|n| format!("\x1b[38;5;{n}m")));
                line.extend(back.iter().map(|n| format!("\x1b[48;5;{n}m")));
                last = Some((front, back));
            }
            line.push(block);
        }
        line + "\x1b[0m"
    }
}
