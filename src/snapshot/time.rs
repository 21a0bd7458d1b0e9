//! The time of a snapshot, in the format of people and the cloud.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A point in time, formatted and parsed as RFC 3339: `2026-11-20T06:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(jiff::Timestamp);

impl Time {
    /// The current time, to the second.
    pub fn now() -> Self {
        Self::from_unix(jiff::Timestamp::now().as_second())
    }

    /// Converts Unix time in seconds, or returns the nearest time that can be represented.
    pub fn from_unix(seconds: i64) -> Self {
        let (first, last) = (
            jiff::Timestamp::MIN.as_second(),
            jiff::Timestamp::MAX.as_second(),
        );
        let time = jiff::Timestamp::from_second(seconds.clamp(first, last));
        Self(time.unwrap_or_default())
    }

    /// Unix time in seconds.
    pub fn to_unix(self) -> i64 {
        self.0.as_second()
    }

    /// Returns whether it is more than a minute in the future by the clock here.
    pub fn is_ahead(self) -> bool {
        self.to_unix() > Self::now().to_unix().saturating_add(60)
    }

    pub(super) fn timestamp(self) -> jiff::Timestamp {
        self.0
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Time {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Self).map_err(|_| {
            Error::usage("this is not a time")
                .with_found(format_args!("\"{text}\""))
                .with_expected("a time such as 2026-11-20T06:00:00Z or 2026-11-20T07:00:00+01:00")
        })
    }
}
