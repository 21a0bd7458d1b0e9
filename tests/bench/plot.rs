//! Draws results as bars: one panel a case, one bar a contender, one colour for ours and one for the others.

use std::fmt::Write as _;

use serde_json::Value;

const WIDTH: u32 = 900;
const NAMES: u32 = 380;
const BAR: u32 = 16;
const STEP: u32 = 22;
const TITLE: u32 = 34;

/// The results in `json`, as [`super::table::json`] makes it, as an SVG picture.
pub(crate) fn svg(json: &Value) -> String {
    let mut body = String::new();
    let mut y = 10;
    for case in array(json, "cases") {
        panel(case, &mut y, &mut body);
    }
    let height = y + 10;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

fn panel(case: &Value, y: &mut u32, out: &mut String) {
    let contenders = array(case, "contenders");
    let seconds = |contender: &Value| contender["median_seconds"].as_f64().unwrap_or(0.0);
    let longest = contenders
        .iter()
        .map(seconds)
        .fold(f64::MIN_POSITIVE, f64::max);
    *y += TITLE;
    text(
        out,
        10,
        *y - 12,
        "bold",
        case["case"].as_str().unwrap_or_default(),
    );
    for contender in contenders {
        let name = contender["name"].as_str().unwrap_or_default();
        let ours = name.starts_with("vhd");
        let (taken, room) = (seconds(contender), f64::from(WIDTH - NAMES - 90));
        let length = (taken / longest * room).max(1.0);
        let fill = if ours { "#1f6fb4" } else { "#b9b9b9" };
        text(out, 20, *y + 12, "normal", name);
        let _ = writeln!(
            out,
            "<rect x=\"{NAMES}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{fill}\"/>\n\
             <text x=\"{:.1}\" y=\"{}\">{taken:.3} s</text>",
            f64::from(NAMES) + length + 6.0,
            *y + 12,
        );
        *y += STEP;
    }
}

fn text(out: &mut String, x: u32, y: u32, weight: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{y}\" font-weight=\"{weight}\">{text}</text>"
    );
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}
