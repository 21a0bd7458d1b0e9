//! Time stamps: seconds since the year 2000.

use std::fmt;

/// Unix time of 2000-01-01T00:00:00Z.
const EPOCH: i64 = 946_684_800;

/// Seconds since 2000-01-01T00:00:00Z, up to 2136-02-07 (specification, "Time Stamp"). Prints as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub u32);

impl Timestamp {
    /// The current time, or the nearest time that can be stored.
    pub fn now() -> Self {
        Self::from_unix(jiff::Timestamp::now().as_second())
    }

    /// Converts Unix time in seconds to the nearest time that can be stored.
    pub fn from_unix(seconds: i64) -> Self {
        let since = seconds.saturating_sub(EPOCH).clamp(0, i64::from(u32::MAX));
        Self(u32::try_from(since).unwrap_or(u32::MAX))
    }

    /// The intended time if the writer counted from 1970.
    #[must_use]
    pub fn since_1970(self) -> Self {
        Self::from_unix(i64::from(self.0))
    }

    /// Unix time in seconds.
    pub fn to_unix(self) -> i64 {
        EPOCH + i64::from(self.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.to_unix()) {
            Ok(time) => time.fmt(f),
            Err(_) => write!(f, "{} s after 2000-01-01", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_prints_as_rfc_3339() {
        assert_eq!(Timestamp(0).to_string(), "2000-01-01T00:00:00Z");
        assert_eq!(Timestamp(5_097_600).to_string(), "2000-02-29T00:00:00Z");
        assert_eq!(Timestamp(u32::MAX).to_string(), "2136-02-07T06:28:15Z");
    }

    #[test]
    fn times_out_of_reach_become_the_nearest() {
        assert_eq!(Timestamp::from_unix(0), Timestamp(0));
        assert_eq!(Timestamp::from_unix(i64::MAX), Timestamp(u32::MAX));
        assert_eq!(Timestamp::from_unix(946_684_801), Timestamp(1));
        assert_eq!(Timestamp(77).to_unix(), 946_684_877);
    }
}
