//! Moments as people write them: `2026-11-17`, `2026-11-17T06:00`, `2026-11-17T06:00:00+01:00`, `2d ago`, `now`. Without an
//! offset they are UTC.

use super::span::parse_span;
use crate::snapshot::Time;

/// Reads a moment; a day alone is its beginning.
pub(super) fn parse_time(text: &str) -> Result<Time, String> {
    read(text, "00:00:00")
}

/// Reads a moment up to which something counts; a day alone is its end.
pub(super) fn parse_latest(text: &str) -> Result<Time, String> {
    read(text, "23:59:59")
}

fn read(text: &str, of_day: &str) -> Result<Time, String> {
    let text = text.trim();
    if text == "now" {
        return Ok(Time::now());
    }
    if let Some(span) = text.strip_suffix("ago") {
        let span = parse_span(span.trim_end())?;
        let seconds = i64::try_from(span.as_secs()).map_err(|error| error.to_string())?;
        return Ok(Time::from_unix(
            Time::now().to_unix().saturating_sub(seconds),
        ));
    }
    let (date, rest) = match text.split_once(['T', 't', ' ']) {
        Some((date, rest)) => (date, rest.trim_start()),
        None => (text, of_day),
    };
    // Hours and minutes, perhaps seconds, perhaps an offset.
    let clock = rest.trim_end_matches(['Z', 'z']);
    let (clock, offset) = match clock.rfind(['+', '-']) {
        Some(at) if clock.len() == rest.len() => clock.split_at(at),
        _ => (clock, "Z"),
    };
    let seconds = if clock.matches(':').count() == 1 {
        ":00"
    } else {
        ""
    };
    format!("{date}T{clock}{seconds}{offset}")
        .parse()
        .map_err(|_| {
            format!(
                "\"{text}\" is not a time: expected one such as 2026-11-17, 2026-11-17T06:00, 2026-11-17T06:00:00+01:00, \"2d ago\" or now; without an offset it is UTC"
            )
        })
}

/// The name of a snapshot that was given none: its time, as `20261117T060000Z`.
pub(super) fn name_of(time: Time) -> String {
    let text = time.to_string();
    let whole = text.split('.').next().unwrap_or(&text);
    let mut name: String = whole.chars().filter(char::is_ascii_alphanumeric).collect();
    if !name.ends_with('Z') {
        name.push('Z');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_write_them() {
        for (text, expected) in [
            ("2026-11-17", "2026-11-17T00:00:00Z"),
            ("2026-11-17T06", "2026-11-17T06:00:00Z"),
            ("2026-11-17T06:00", "2026-11-17T06:00:00Z"),
            ("2026-11-17 06:00", "2026-11-17T06:00:00Z"),
            ("2026-11-17T06:00Z", "2026-11-17T06:00:00Z"),
            ("2026-11-17T06:00:01", "2026-11-17T06:00:01Z"),
            ("2026-11-17T06:00:00Z", "2026-11-17T06:00:00Z"),
            ("2026-11-17T06:00:00+01:00", "2026-11-17T05:00:00Z"),
            ("2026-11-17T06:00-05:00", "2026-11-17T11:00:00Z"),
        ] {
            assert_eq!(parse_time(text).unwrap().to_string(), expected, "{text}");
        }
        let end = parse_latest("2026-11-17").unwrap();
        assert_eq!(end.to_string(), "2026-11-17T23:59:59Z");
        let now = Time::now().to_unix();
        let ago = now - parse_time("2d ago").unwrap().to_unix();
        assert!((2 * 86400 - 5..=2 * 86400 + 5).contains(&ago), "{ago}");
        for wrong in [
            "",
            "x",
            "2026",
            "2026-13-01",
            "2026-11-17T",
            "2026-11-17T25:00",
            "ago",
            "2x ago",
            "2026-11-17T06:00:00+99:00",
            "tomorrow",
        ] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
        let time = parse_time("2026-11-17T06:00").unwrap();
        assert_eq!(name_of(time), "20261117T060000Z");
    }
}
