//! Decides which snapshots are kept when a store is thinned out by rules.
//!
//! A period rule keeps the newest snapshot of each of the last N hours, days, weeks, months or years that have one;
//! periods without a snapshot don't count. Periods are in UTC, weeks as in ISO 8601 (from Monday).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{Span, Zoned};

use super::Time;
use crate::error::{Error, Result};

/// How many snapshots a rule keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Amount {
    /// This many.
    AtMost(u32),
    /// Every one.
    Unlimited,
}

/// A calendar-based length of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Within {
    years: u16,
    months: u16,
    weeks: u16,
    days: u16,
    hours: u16,
}

/// A tag that keeps a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRule {
    /// Its name.
    pub key: String,
    /// Its value; `None` for any.
    pub value: Option<String>,
}

/// The rules. A snapshot is kept if at least one of them keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The newest ones.
    pub last: Option<Amount>,
    /// The newest of each hour.
    pub hourly: Option<Amount>,
    /// The newest of each day.
    pub daily: Option<Amount>,
    /// The newest of each week.
    pub weekly: Option<Amount>,
    /// The newest of each month.
    pub monthly: Option<Amount>,
    /// The newest of each year.
    pub yearly: Option<Amount>,
    /// Those that are less than this older than the newest.
    pub within: Option<Within>,
    /// Those that have one of these tags.
    pub tags: Vec<TagRule>,
}

/// The properties of a snapshot that matter to the rules.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its time.
    pub time: Time,
    /// Its tags.
    pub tags: &'a BTreeMap<String, String>,
}

impl Policy {
    /// Returns whether there is a rule that keeps anything by itself.
    pub fn has_rules(&self) -> bool {
        let amounts = [
            self.last,
            self.hourly,
            self.daily,
            self.weekly,
            self.monthly,
            self.yearly,
        ];
        let keeps = |amount: &Option<Amount>| amount.is_some_and(|a| a != Amount::AtMost(0));
        amounts.iter().any(keeps) || self.within.is_some() || !self.tags.is_empty()
    }

    /// The reasons for keeping each of `points`, oldest first; without any, it is deleted. The newest is always kept.
    pub fn decide(&self, points: &[Candidate<'_>]) -> Vec<Vec<String>> {
        let times: Vec<Zoned> = points.iter().map(|point| point.time.in_utc()).collect();
        let mut reasons = vec![Vec::new(); points.len()];
        if let Some(newest) = reasons.last_mut() {
            newest.push("newest".to_owned());
        }
        let mut left = Left(self.last);
        for why in reasons.iter_mut().rev() {
            if !left.take() {
                break;
            }
            why.push("last".to_owned());
        }
        for (amount, name, period) in self.periods() {
            let (mut left, mut last) = (Left(amount), None);
            for (time, why) in times.iter().zip(&mut reasons).rev() {
                let this = period(time);
                if last.as_ref() == Some(&this) {
                    continue;
                }
                if !left.take() {
                    break;
                }
                why.push(format!("{name} {this}"));
                last = Some(this);
            }
        }
        self.by_themselves(points, &times, &mut reasons);
        reasons
    }

    #[allow(clippy::type_complexity, reason = "a table")]
    fn periods(&self) -> [(Option<Amount>, &'static str, fn(&Zoned) -> String); 5] {
        [
            (self.hourly, "hourly", |t| {
                format!("{}T{:02}", t.date(), t.hour())
            }),
            (self.daily, "daily", |t| t.date().to_string()),
            (self.weekly, "weekly", |t| {
                let week = t.date().iso_week_date();
                format!("{:04}-W{:02}", week.year(), week.week())
            }),
            (self.monthly, "monthly", |t| {
                format!("{:04}-{:02}", t.year(), t.month())
            }),
            (self.yearly, "yearly", |t| format!("{:04}", t.year())),
        ]
    }

    /// The rules that consider one snapshot at a time.
    fn by_themselves(
        &self,
        points: &[Candidate<'_>],
        times: &[Zoned],
        reasons: &mut [Vec<String>],
    ) {
        let limit = self.within.zip(times.last());
        // A limit before the earliest possible time includes everything.
        let limit = limit.map(|(within, newest)| newest.checked_sub(within.span()).ok());
        for ((point, time), why) in points.iter().zip(times).zip(reasons) {
            if limit
                .as_ref()
                .is_some_and(|limit| limit.as_ref().is_none_or(|limit| time > limit))
            {
                why.push(format!("within {}", self.within.unwrap_or_default()));
            }
            for rule in &self.tags {
                let Some(value) = point.tags.get(&rule.key) else {
                    continue;
                };
                match &rule.value {
                    None => why.push(format!("tag {}", rule.key)),
                    Some(wanted) if wanted == value => {
                        why.push(format!("tag {}={wanted}", rule.key));
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

/// How many a rule may still keep.
struct Left(Option<Amount>);

impl Left {
    fn take(&mut self) -> bool {
        match &mut self.0 {
            None | Some(Amount::AtMost(0)) => false,
            Some(Amount::AtMost(left)) => {
                *left -= 1;
                true
            }
            Some(Amount::Unlimited) => true,
        }
    }
}

impl Time {
    fn in_utc(self) -> Zoned {
        self.timestamp().to_zoned(TimeZone::UTC)
    }
}

impl FromStr for Amount {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "unlimited" {
            return Ok(Self::Unlimited);
        }
        text.parse().map(Self::AtMost).map_err(|_| {
            Error::usage("this is not a number")
                .with_found(format_args!("\"{text}\""))
                .with_expected("a whole number, or unlimited")
        })
    }
}

impl FromStr for TagRule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text, None),
        };
        if key.is_empty() {
            return Err(Error::usage("this is not a tag")
                .with_found(format_args!("\"{text}\""))
                .with_expected("KEY or KEY=VALUE"));
        }
        Ok(Self {
            key: key.to_owned(),
            value,
        })
    }
}

impl Within {
    fn span(self) -> Span {
        // Each part is far below the limits of a span.
        Span::new()
            .years(self.years)
            .months(self.months)
            .weeks(self.weeks)
            .days(self.days)
            .hours(self.hours)
    }

    fn parts(&mut self) -> [(char, &mut u16); 5] {
        [
            ('y', &mut self.years),
            ('m', &mut self.months),
            ('w', &mut self.weeks),
            ('d', &mut self.days),
            ('h', &mut self.hours),
        ]
    }
}

/// The maximum number of years, months and so on: no snapshot is older than that.
const MOST: u16 = 9999;

impl FromStr for Within {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage("this is not a length of time")
                .with_found(format_args!("\"{text}\""))
                .with_expected("years, months, weeks, days and hours such as 30d, 2w, 6m or 1y6m, each number up to 9999")
        };
        let mut within = Self::default();
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, unit) = rest.split_at(digits);
            let number: u16 = number.parse().map_err(|_| wrong())?;
            let mut unit = unit.chars();
            let letter = unit.next().ok_or_else(wrong)?;
            let mut parts = within.parts().into_iter();
            let part = parts.find(|(name, _)| *name == letter);
            let (_, part) = part.filter(|(_, part)| **part == 0).ok_or_else(wrong)?;
            if number == 0 || number > MOST {
                return Err(wrong());
            }
            *part = number;
            rest = unit.as_str();
        }
        if within == Self::default() {
            return Err(wrong());
        }
        Ok(within)
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = *self;
        for (name, number) in parts.parts() {
            if *number > 0 {
                write!(f, "{number}{name}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The positions of those times that are kept.
    fn kept(policy: &Policy, times: &[Time]) -> Vec<usize> {
        let tags = BTreeMap::new();
        let points: Vec<_> = times
            .iter()
            .map(|time| Candidate {
                time: *time,
                tags: &tags,
            })
            .collect();
        let reasons = policy.decide(&points);
        (0..times.len())
            .filter(|n| !reasons[*n].is_empty())
            .collect()
    }

    fn times(texts: &[&str]) -> Vec<Time> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[allow(clippy::unnecessary_wraps, reason = "a rule that is there")]
    fn amount(n: u32) -> Option<Amount> {
        Some(Amount::AtMost(n))
    }

    #[test]
    fn the_newest_of_each_period_and_only_periods_that_have_one() {
        let all = times(&[
            "2024-12-29T12:00:00Z", // 0: Sunday, 2024-W52
            "2024-12-30T00:00:00Z", // 1: Monday, 2025-W01
            "2025-01-05T23:59:59Z", // 2: Sunday, 2025-W01
            "2025-01-06T00:00:00Z", // 3: Monday, 2025-W02
            "2025-03-01T10:00:00Z", // 4
            "2025-03-01T10:59:59Z", // 5
            "2025-03-01T11:00:00Z", // 6
        ]);
        let with = |set: fn(&mut Policy)| {
            let mut policy = Policy::default();
            set(&mut policy);
            kept(&policy, &all)
        };
        assert_eq!(with(|p| p.last = amount(2)), [5, 6]);
        assert_eq!(with(|p| p.hourly = amount(3)), [3, 5, 6]);
        assert_eq!(with(|p| p.daily = amount(3)), [2, 3, 6]);
        assert_eq!(with(|p| p.weekly = amount(3)), [2, 3, 6]);
        assert_eq!(with(|p| p.weekly = Some(Amount::Unlimited)), [0, 2, 3, 6]);
        assert_eq!(with(|p| p.monthly = amount(2)), [3, 6]);
        assert_eq!(with(|p| p.yearly = amount(9)), [1, 6]);
        assert_eq!(with(|p| p.within = "1h".parse().ok()), [5, 6]);
        assert_eq!(with(|p| p.within = "2m".parse().ok()), [2, 3, 4, 5, 6]);
        assert_eq!(
            with(|p| p.within = "9999y".parse().ok()),
            [0, 1, 2, 3, 4, 5, 6]
        );
        assert_eq!(with(|_| {}), [6]);
    }

    #[test]
    fn all_reasons_are_given() {
        let tags = [
            BTreeMap::from([("keep".to_owned(), "yes".to_owned())]),
            BTreeMap::new(),
        ];
        let times = times(&["2026-11-01T00:00:00Z", "2026-11-30T00:00:00Z"]);
        let points: Vec<_> = times
            .iter()
            .zip(&tags)
            .map(|(time, tags)| Candidate { time: *time, tags })
            .collect();
        let policy = Policy {
            last: amount(1),
            daily: amount(2),
            within: "29d".parse().ok(),
            tags: ["keep", "keep=yes", "keep=no", "other"]
                .map(|tag| tag.parse().unwrap())
                .to_vec(),
            ..Policy::default()
        };
        let reasons = policy.decide(&points);
        assert_eq!(reasons[0], ["daily 2026-11-01", "tag keep", "tag keep=yes"]);
        assert_eq!(
            reasons[1],
            ["newest", "last", "daily 2026-11-30", "within 29d"]
        );
    }

    #[test]
    fn lengths_of_time_are_read_and_printed() {
        for text in ["30d", "2w", "6m", "1y6m", "1y2m3w4d5h", "9999y"] {
            assert_eq!(text.parse::<Within>().unwrap().to_string(), text);
        }
        assert_eq!("6m1y".parse::<Within>().unwrap().to_string(), "1y6m");
        for text in [
            "", "d", "30", "0d", "1d2d", "-1d", "1 d", "10000y", "70000d", "1M", "1ü",
        ] {
            assert!(text.parse::<Within>().is_err(), "{text}");
        }
    }

    fn any_amount() -> impl Strategy<Value = Option<Amount>> {
        prop_oneof![
            3 => Just(None),
            6 => (0_u32..8).prop_map(|n| Some(Amount::AtMost(n))),
            1 => Just(Some(Amount::Unlimited)),
        ]
    }

    fn any_policy() -> impl Strategy<Value = Policy> {
        let within = prop_oneof![
            Just(None),
            (1_u16..60, 0_usize..5).prop_map(|(n, unit)| {
                let mut within = Within::default();
                *within.parts()[unit].1 = n;
                Some(within)
            })
        ];
        (prop::array::uniform6(any_amount()), within).prop_map(|(amounts, within)| {
            let [last, hourly, daily, weekly, monthly, yearly] = amounts;
            Policy {
                last,
                hourly,
                daily,
                weekly,
                monthly,
                yearly,
                within,
                tags: Vec::new(),
            }
        })
    }

    fn any_times() -> impl Strategy<Value = Vec<Time>> {
        // Steps from zero to months, so that all periods occur, some of them empty.
        let step = prop_oneof![0_i64..7200, 0_i64..200_000, 0_i64..6_000_000];
        prop::collection::vec(step, 0..60).prop_map(|steps| {
            let mut now = 1_700_000_000;
            steps
                .into_iter()
                .map(|step| {
                    now += step;
                    Time::from_unix(now)
                })
                .collect()
        })
    }

    fn more(amount: Option<Amount>) -> Option<Amount> {
        match amount {
            Some(Amount::AtMost(n)) => Some(Amount::AtMost(n + 1)),
            None | Some(Amount::Unlimited) => amount,
        }
    }

    proptest! {
        #[test]
        fn what_was_kept_is_kept_again(policy in any_policy(), times in any_times()) {
            let once = kept(&policy, &times);
            let left: Vec<Time> = once.iter().map(|n| times[*n]).collect();
            prop_assert_eq!(kept(&policy, &left).len(), left.len());
        }

        #[test]
        fn a_larger_number_keeps_no_less(policy in any_policy(), times in any_times(), which in 0_usize..6) {
            let mut larger = policy.clone();
            let rules = [
                &mut larger.last, &mut larger.hourly, &mut larger.daily,
                &mut larger.weekly, &mut larger.monthly, &mut larger.yearly,
            ];
            for (n, rule) in rules.into_iter().enumerate() {
                if n == which {
                    *rule = more(*rule);
                }
            }
            let (few, many) = (kept(&policy, &times), kept(&larger, &times));
            prop_assert!(few.iter().all(|n| many.contains(n)));
        }

        /// Compares the days with a plain statement of the intended rule.
        #[test]
        fn the_last_days_that_have_one_keep_their_newest(times in any_times(), n in 1_u32..9) {
            let day = |time: &Time| time.to_unix().div_euclid(86_400);
            let newest_of: BTreeMap<i64, usize> =
                times.iter().enumerate().map(|(at, time)| (day(time), at)).collect();
            let expected: Vec<usize> = newest_of.values().rev().take(n as usize).rev().copied().collect();
            let policy = Policy { daily: amount(n), ..Policy::default() };
            prop_assert_eq!(kept(&policy, &times), expected);
        }

        #[test]
        fn the_newest_stays(policy in any_policy(), times in any_times()) {
            prop_assert_eq!(kept(&policy, &times).last().copied(), times.len().checked_sub(1));
        }
    }
}
