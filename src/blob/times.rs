//! Times in the service's formats.

use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// The current time in seconds since 1970, by this machine's clock.
pub(crate) fn now() -> i64 {
    Timestamp::now().as_second()
}

/// Formats a time for a header: `Sat, 28 Nov 2026 06:13:57 GMT`.
pub(crate) fn to_header(seconds: i64) -> Option<String> {
    let printer = rfc2822::DateTimePrinter::new();
    let time = Timestamp::from_second(seconds).ok()?;
    printer.timestamp_to_rfc9110_string(&time).ok()
}

/// Parses a time in a header.
pub(crate) fn from_header(text: &str) -> Option<i64> {
    Some(rfc2822::parse(text.trim()).ok()?.timestamp().as_second())
}

/// Parses a time in a signature's parameter: a date, or a date and a UTC time.
pub(crate) fn from_signature(text: &str) -> Option<i64> {
    let text = text.trim_end_matches('Z');
    let whole = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{text}:00Z"),
        _ => format!("{text}Z"),
    };
    Some(whole.parse::<Timestamp>().ok()?.as_second())
}

/// Formats a time for people: `2026-11-28 06:13:57 UTC`.
pub(super) fn shown(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(
        |_| seconds.to_string(),
        |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        let seconds = 1_795_846_437;
        let header = "Sat, 28 Nov 2026 06:13:57 GMT";
        assert_eq!(to_header(seconds).as_deref(), Some(header));
        assert_eq!(from_header(header), Some(seconds));
        assert_eq!(from_header("tomorrow"), None);
        assert_eq!(shown(seconds), "2026-11-28 06:13:57 UTC");
        for text in ["2026-11-28T06:13:57Z", "2026-11-28T06:13:57.0000000Z"] {
            assert_eq!(from_signature(text), Some(seconds), "{text}");
        }
        assert_eq!(from_signature("2026-11-28T06:13Z"), Some(seconds - 57));
        assert_eq!(
            from_signature("2026-11-28"),
            Some(seconds - 57 - 6 * 3600 - 13 * 60)
        );
        assert_eq!(from_signature("soon"), None);
    }
}
