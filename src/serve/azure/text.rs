//! Text formats of the protocol: percent-encoding, XML, times, random ids.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

use crate::blob::times;

/// Decodes percent-encoded `text`; in a query a plus sign is a space.
pub(super) fn percent_decoded(text: &str, plus: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            b'+' if plus => out.push(b' '),
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

/// `text` as the value of a query.
pub(super) fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// `text` within XML.
pub(super) fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    Timestamp::now().as_second()
}

/// Formats a time for a header; an impossible one becomes the earliest.
pub(super) fn http_time(seconds: i64) -> String {
    times::to_header(seconds).unwrap_or_else(|| "Thu, 01 Jan 1970 00:00:00 GMT".to_owned())
}

/// As JSON has it.
pub(super) fn iso_time(seconds: i64) -> String {
    Timestamp::from_second(seconds)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .strftime("%Y-%m-%dT%H:%M:%S+00:00")
        .to_string()
}

/// The current time for the name of a snapshot, in units of 100 ns since 1970.
pub(super) fn ticks() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since.map_or(0, |since| since.as_nanos());
    u64::try_from(nanos / 100).unwrap_or(u64::MAX)
}

/// The name of the snapshot with that time: `2026-11-28T06:05:59.5994100Z`.
pub(super) fn snapshot_time(ticks: u64) -> String {
    let seconds = i64::try_from(ticks / 10_000_000).unwrap_or(i64::MAX);
    let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    format!(
        "{}.{:07}Z",
        time.strftime("%Y-%m-%dT%H:%M:%S"),
        ticks % 10_000_000
    )
}

/// A random UUID.
pub(super) fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_encoded_and_decoded() {
        assert_eq!(percent_decoded("a%2Fb+c", true).as_deref(), Some("a/b c"));
        assert_eq!(percent_decoded("a+c", false).as_deref(), Some("a+c"));
        assert_eq!(percent_decoded("%", true), None);
        assert_eq!(percent_decoded("%ff", true), None);
        assert_eq!(percent_encoded("a/b+c=ä"), "a%2Fb%2Bc%3D%C3%A4");
        assert_eq!(xml("<a&\"b\">\u{1}"), "&lt;a&amp;&quot;b&quot;&gt;");
        assert_eq!(
            snapshot_time(17_958_464_375_994_100),
            "2026-11-28T06:13:57.5994100Z"
        );
        assert_eq!(
            times::from_header(&http_time(1_795_846_437)),
            Some(1_795_846_437)
        );
        assert_eq!(
            times::from_signature(&iso_time(1_795_846_437)[..19]),
            Some(1_795_846_437)
        );
    }
}
