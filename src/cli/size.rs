//! Parsing and formatting sizes.

use std::fmt;

use crate::error::{Error, Result};
use crate::files::Format;

/// Suffixes by increasing power of 1024.
const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// Parses `512`, `4K`, `2MiB`, `1G`: a whole number and a binary unit, of which `iB` is optional and case doesn't
/// matter.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    if let Some(more) = text.strip_prefix('+') {
        return Err(format!(
            "a size is the total size of the disk: use {more} for that, without a sign"
        ));
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = match number.parse() {
        Ok(number) => number,
        Err(_) if digits > 0 => return Err("the number is too large".into()),
        Err(_) => {
            return Err("a size is a whole number and a unit, as in 512, 4K, 2MiB or 1G".into());
        }
    };
    let unit = unit.trim_start();
    let power = UNITS
        .iter()
        .position(|name| {
            unit.eq_ignore_ascii_case(name)
                || (unit.len() == 1 && unit.eq_ignore_ascii_case(&name[..1]))
        })
        .or_else(|| unit.is_empty().then_some(0));
    let Some(power) = power else {
        return Err(if unit.starts_with('.') || unit.starts_with(',') {
            "a size is a whole number: use 1536M for one and a half G".into()
        } else {
            let letter = unit.chars().next().unwrap_or('G').to_ascii_uppercase();
            let example = if "KMGTP".contains(letter) {
                letter
            } else {
                'G'
            };
            format!(
                "unknown unit \"{unit}\": use K, M, G, T or P (or KiB to PiB), each 1024 times the previous one, as in \
                 {number}{example}"
            )
        });
    };
    u32::try_from(power)
        .ok()
        .and_then(|power| 1024_u64.checked_pow(power))
        .and_then(|factor| number.checked_mul(factor))
        .ok_or_else(|| "the number is too large".into())
}

/// Reads bytes in a second: a size, with or without `/s`.
pub(super) fn parse_rate(text: &str) -> Result<u64, String> {
    match parse(text.strip_suffix("/s").unwrap_or(text))? {
        0 => Err("a rate is more than 0".into()),
        rate => Ok(rate),
    }
}

/// Reads a part of the whole: `1%`, `0.5%`.
pub(super) fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err("a part is more than 0% and at most 100%, as in 1%".into()),
    }
}

/// The block size as an option of `format`, which must be one with blocks.
pub(super) fn block(size: Option<u64>, format: Format) -> Result<Option<u32>> {
    match size {
        None => Ok(None),
        Some(_) if !matches!(format, Format::Dynamic | Format::Differencing) => Err(Error::usage(
            "only a dynamic or differencing VHD has blocks",
        )
        .with_found(format_args!("--block-size for {format}"))
        .with_hint("omit --block-size, or use -O dynamic")),
        Some(size) => u32::try_from(size).map(Some).map_err(|_| {
            Error::usage("the block size is too large")
                .with_found(format_args!("{size} bytes"))
                .with_hint("2MiB is supported by every reader of VHD files")
        }),
    }
}

/// Displays bytes and, from one kibibyte on, the nearest binary unit: `1073741824 bytes (1 GiB)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 byte"),
            0..1024 => write!(f, "{} bytes", self.0),
            _ => write!(f, "{} bytes ({})", self.0, Short(self.0)),
        }
    }
}

/// Displays only the nearest binary unit: `1.5 GiB`. At most two decimal places, rounded down, so that an incomplete
/// amount never looks complete.
#[derive(Debug, Clone, Copy)]
pub(super) struct Short(pub u64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let power = (self.0.max(1).ilog2() / 10).min(5);
        let unit = 1_u64 << (10 * power);
        let hundredths = u128::from(self.0 % unit) * 100 / u128::from(unit);
        write!(f, "{}", self.0 / unit)?;
        if hundredths > 0 {
            let digits = format!("{hundredths:02}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        let name = UNITS.get(power as usize).copied().unwrap_or_default();
        write!(f, " {name}")
    }
}

/// Displays a count of something whose plural ends in s.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count<'a>(pub(super) u64, pub(super) &'a str);

impl fmt::Display for Count<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ending = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} {}{ending}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_common_spelling() {
        let cases = [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("4K", 4096),
            ("4k", 4096),
            ("2MiB", 2 << 20),
            ("2 mib", 2 << 20),
            ("1G", 1 << 30),
            ("2040G", 2040 << 30),
            ("1T", 1 << 40),
            ("8191P", 8191 << 50),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn rates_and_parts_are_read_and_nonsense_is_not() {
        assert_eq!(
            (parse_rate("20M"), parse_rate("1K/s")),
            (Ok(20 << 20), Ok(1024))
        );
        assert_eq!(
            (parse_percent("1%"), parse_percent("100")),
            (Ok(0.01), Ok(1.0))
        );
        for text in ["0", "-1%", "101%", "x", "", "%", "NaN", "inf"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
        assert!(parse_rate("0").is_err() && parse_rate("fast").is_err());
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "K",
            "-1",
            "1.5G",
            "1KB",
            "1X",
            "16384P",
            "18446744073709551616",
            "1é",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_printed_in_bytes_and_binary_units() {
        let cases = [
            (0, "0 bytes"),
            (1, "1 byte"),
            (512, "512 bytes"),
            (1024, "1024 bytes (1 KiB)"),
            (1536, "1536 bytes (1.5 KiB)"),
            ((1 << 30) - 1, "1073741823 bytes (1023.99 MiB)"),
            (u64::MAX, "18446744073709551615 bytes (16383.99 PiB)"),
        ];
        for (bytes, text) in cases {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
