//! Checks the space between the end of a fixed disk and its footer, which no reader uses but which may not be empty.

use std::ops::Range;

use super::candidate::FooterCandidate;
use super::checker::{Checker, Depth};
use super::rules;
use crate::error::Result;
use crate::page::{is_zero, to_usize};
use crate::vhd::{FOOTER_SIZE, Footer, SECTOR_SIZE};

/// The most bytes of data that are checked when an image is only opened.
const LOOKED_AT: u64 = 256 << 20;

/// Bytes that are read at a time.
const PIECE: u64 = 1 << 20;

/// The data that was found.
#[derive(Default)]
struct Data {
    /// Offsets of the first and the last nonzero page.
    pages: Option<(u64, u64)>,
    count: u64,
    /// The position at which the search stopped early.
    stopped: Option<u64>,
}

impl Checker<'_> {
    /// Checks `slack`, the space between the disk of `footer` and its footer. Returns whether there is data in it.
    pub(super) fn slack(&mut self, slack: Range<u64>, footer: &Footer) -> Result<bool> {
        let mut rest = slack.clone();
        let old = self.is_old_footer(&slack, footer)?;
        if old {
            rest.start += FOOTER_SIZE as u64;
        }
        let data = self.data_in(rest)?;
        let len = slack.end - slack.start;
        let expected = format_args!("{} bytes before the footer", slack.start);
        if let Some((first, last)) = data.pages {
            let count = data.count;
            let found = match self.depth {
                Depth::Whole => format!(
                    "{len} more bytes, in them {count} pages of 512 bytes with data, from {first} to {}",
                    last + SECTOR_SIZE
                ),
                Depth::Structures => format!("{len} more bytes, with data from {first} on"),
            };
            let rule = &rules::FIXED_SLACK_DATA;
            self.findings.add(rule, "file_size", first, found, expected);
            return Ok(true);
        }
        let of = match data.stopped {
            Some(stopped) => {
                format!("zeros up to {stopped}, where the look ended: a check looks at all")
            }
            None if old => "zeros, and an older footer of the same disk".to_owned(),
            None => "all zeros".to_owned(),
        };
        let found = format_args!("{len} more bytes, {of}");
        let rule = &rules::FIXED_SLACK;
        self.findings
            .add(rule, "file_size", slack.start, found, expected);
        Ok(false)
    }

    /// Returns whether the slack begins with a footer of the same disk, as it does while a disk is being enlarged.
    fn is_old_footer(&self, slack: &Range<u64>, footer: &Footer) -> Result<bool> {
        let mut bytes = [0; FOOTER_SIZE];
        if slack.end - slack.start < FOOTER_SIZE as u64 {
            return Ok(false);
        }
        self.storage.read_exact_at(&mut bytes, slack.start)?;
        let seen = FooterCandidate::new(&bytes, slack.start, false);
        Ok(seen.intact
            && seen.footer.unique_id == footer.unique_id
            && seen.footer.current_size == slack.start)
    }

    /// Finds the pages with data in `range`. When an image is only opened, the first one suffices.
    fn data_in(&self, range: Range<u64>) -> Result<Data> {
        let mut data = Data::default();
        let (mut at, mut read) = (range.start, 0);
        let mut bytes = Vec::new();
        while at < range.end {
            self.options.progress.check()?;
            let Some(stored) = self.storage.data_range(at..range.end)? else {
                break;
            };
            let len = (stored.end - stored.start).min(PIECE);
            if self.depth == Depth::Structures && read >= LOOKED_AT {
                data.stopped = Some(stored.start);
                break;
            }
            bytes.resize(to_usize(len), 0);
            self.storage.read_exact_at(&mut bytes, stored.start)?;
            read += len;
            at = stored.start + len.max(1);
            if is_zero(&bytes) {
                continue;
            }
            let pages = (stored.start..).step_by(FOOTER_SIZE);
            for (place, _) in pages
                .zip(bytes.chunks(FOOTER_SIZE))
                .filter(|(_, page)| !is_zero(page))
            {
                let first = data.pages.map_or(place, |(first, _)| first);
                data.pages = Some((first, place));
                data.count += 1;
            }
            if self.depth == Depth::Structures {
                break;
            }
        }
        Ok(data)
    }
}
