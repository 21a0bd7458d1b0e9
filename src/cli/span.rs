//! Lengths of time as people write them: `90s`, `10m`, `26h`, `2d`, `1h30m`.

use std::time::Duration;

/// Longer than any clock runs; what is said stays far from any overflow.
const LONGEST: u64 = 1_000_000 * 86400;

/// Reads a length of time: numbers with s, m (minutes), h, d or w, the greater units first.
pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "\"{text}\" is not a length of time: expected one such as 90s, 10m, 26h, 2d, 1w or 1h30m"
        )
    };
    let (mut rest, mut sum, mut last) = (text, 0_u64, u64::MAX);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = after.chars().next().ok_or_else(wrong)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            'w' => 7 * 86400,
            _ => return Err(wrong()),
        };
        if seconds >= last {
            return Err(wrong());
        }
        last = seconds;
        rest = after.get(unit.len_utf8()..).ok_or_else(wrong)?;
        let part = number.checked_mul(seconds).ok_or_else(wrong)?;
        sum = sum.checked_add(part).ok_or_else(wrong)?;
    }
    if text.is_empty() || sum > LONGEST {
        return Err(wrong());
    }
    Ok(Duration::from_secs(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_or_refused() {
        let seconds = |text| parse_span(text).map(|span| span.as_secs());
        for (text, expected) in [
            ("0s", 0),
            ("90s", 90),
            ("10m", 600),
            ("26h", 93600),
            ("1h30m", 5400),
            ("1w2d", 9 * 86400),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for wrong in [
            "",
            "5",
            "h",
            "5x",
            "-5m",
            "5 m",
            "1m1h",
            "1m1m",
            "1.5h",
            "5µ",
            "99999999999999999999s",
            "99999999999w",
        ] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
