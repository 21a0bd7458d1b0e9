//! Repairs without loss: the writes after which a check finds nothing more to repair.
//!
//! Only data with proof is written, and only where no part of the virtual disk can be:
//!
//! - at the start of the file, a footer's copy, if the footer's dynamic disk header is there with its cookie and
//!   checksum: the first sector of a fixed disk belongs to the guest;
//! - at the end, a footer over a damaged one or after everything else, if no block claims that place;
//! - an empty map of full blocks over a wrong one, if there are no errors and nothing else is there;
//! - the type in the footer of a fixed disk, over that footer.
//!
//! Only data after an intact footer is truncated. Every step may be interrupted and repeated, and none touches the last
//! good footer, except for the one about the type: a fixed disk has no other footer, and the step is a single sector.

use std::ops::Range;

use super::check::{Place, Report};
use super::{FOOTER_SIZE, Footer, SECTOR_SIZE};
use crate::error::Result;
use crate::storage::WriteAt;

const FOOTER_LEN: u64 = FOOTER_SIZE as u64;

/// The rule about zeros after the footer.
const ZEROS_BEHIND: &str = "trailing-zeros";

/// One repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// The id of the rule that it satisfies; `footer-short` for a footer of 511 bytes, which breaks none.
    pub id: &'static str,
    /// A description of the fix, for display.
    pub what: String,
    writes: Vec<(u64, Vec<u8>)>,
    new_len: Option<u64>,
}

/// The repairs of a file, in the order in which they are performed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RepairPlan {
    mends: Vec<Fix>,
    file_len: u64,
}

impl RepairPlan {
    /// Plans the repairs that the findings of `report` allow.
    pub fn new(report: &Report) -> Self {
        let mends = [
            trailing(report),
            label(report),
            copy(report),
            batmap(report),
        ];
        Self {
            mends: mends.into_iter().flatten().collect(),
            file_len: report.facts.footers.file_len,
        }
    }

    /// The repairs, in the order in which they are performed.
    pub fn mends(&self) -> &[Fix] {
        &self.mends
    }

    /// Returns whether they satisfy the rule `id`.
    pub(super) fn repairs(&self, id: &str) -> bool {
        let mut mends = self.mends.iter();
        mends.clone().any(|mend| mend.id == id)
            || is_of_batmap(id) && mends.any(|mend| is_of_batmap(mend.id))
    }

    /// Returns whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.mends.is_empty()
    }

    /// Length of the file before the repair.
    pub fn old_len(&self) -> u64 {
        self.file_len
    }

    /// Length of the file after the repair.
    pub fn new_len(&self) -> u64 {
        self.mends.iter().fold(self.file_len, |len, mend| {
            let written = mend
                .writes
                .iter()
                .map(|(at, bytes)| at + bytes.len() as u64);
            mend.new_len.unwrap_or_else(|| written.fold(len, u64::max))
        })
    }

    /// The ranges of the current file that are overwritten or truncated, which must be saved to undo the repair. Zeros
    /// at the end are restored with the length.
    pub fn old_ranges(&self) -> Vec<Range<u64>> {
        let writes = self.mends.iter().flat_map(|mend| {
            let cut = mend.new_len.filter(|_| mend.id != ZEROS_BEHIND);
            let cut = cut.map(|len| len..self.file_len);
            let writes = mend.writes.iter();
            let writes = writes.map(|(at, bytes)| *at..at.saturating_add(bytes.len() as u64));
            writes.chain(cut)
        });
        let kept = writes.map(|range| range.start..range.end.min(self.file_len));
        kept.filter(|range| range.start < range.end).collect()
    }

    /// Performs the repairs, each on stable storage before the next.
    pub fn apply<S: WriteAt + ?Sized>(&self, storage: &S) -> Result<()> {
        for mend in &self.mends {
            for (at, bytes) in &mend.writes {
                storage.write_all_at(bytes, *at)?;
                storage.sync()?;
            }
            if let Some(len) = mend.new_len {
                storage.set_len(len)?;
                storage.sync()?;
            }
        }
        Ok(())
    }
}

/// The rules that are satisfied once the map of full blocks is empty.
const OF_BATMAP: [&str; 2] = ["batmap-stale", "batmap-bad"];

fn is_of_batmap(id: &str) -> bool {
    OF_BATMAP.contains(&id)
}

/// Returns whether a block claims the place of a footer: it may hold data.
fn is_claimed(report: &Report) -> bool {
    ["bat-over-footer", "bat-past-end", "block-cut-off"]
        .iter()
        .any(|id| report.found(id))
}

/// Repairs the end of the file.
fn trailing(report: &Report) -> Option<Fix> {
    let footers = &report.facts.footers;
    let sound = !report.facts.has_errors;
    let mend = |id, what, writes, new_len| Fix {
        id,
        what,
        writes,
        new_len,
    };
    if let Some(displaced) = footers.displaced.as_ref().filter(|_| sound) {
        let end = displaced.at.saturating_add(FOOTER_LEN);
        let id = ["trailing-garbage", ZEROS_BEHIND];
        let id = id.into_iter().find(|id| report.found(id))?;
        let what = format!(
            "remove the {} bytes after the footer",
            footers.file_len.saturating_sub(end)
        );
        return Some(mend(id, what, Vec::new(), Some(end)));
    }
    let trailing = footers.trailing.as_ref();
    match footers.in_force? {
        Place::Trailing => {
            let short = trailing.filter(|seen| seen.is_short && label(report).is_none())?;
            let what = "extend the footer to 512 bytes".into();
            let at = short.at.saturating_add(FOOTER_LEN - 1);
            Some(mend("footer-short", what, vec![(at, vec![0])], None))
        }
        Place::Displaced => None,
        Place::Copy => {
            let bytes = footers.copy.as_ref()?.footer.encode().to_vec();
            let free = report.facts.has_header && !is_claimed(report);
            if let Some(trailing) = trailing.filter(|seen| seen.is_meant()) {
                let ids = ["footer-damaged", "footer-overruled"];
                let id = ids.into_iter().find(|id| free && report.found(id))?;
                let what = format!("rewrite the footer at {} from its copy", trailing.at);
                return Some(mend(id, what, vec![(trailing.at, bytes)], None));
            }
            let used_end = report.facts.used_end.filter(|_| sound)?;
            let at = if footers.file_len <= used_end.saturating_add(FOOTER_LEN) {
                used_end
            } else {
                // Data after the last block may be of use to somebody.
                footers.file_len.checked_next_multiple_of(SECTOR_SIZE)?
            };
            let id = ["footer-cut-off", "footer-damaged"];
            let id = id.into_iter().find(|id| report.found(id))?;
            let what = format!("rewrite the footer at {at} from its copy");
            Some(mend(id, what, vec![(at, bytes)], None))
        }
    }
}

/// Repairs the type in the only footer of a fixed disk.
fn label(report: &Report) -> Option<Fix> {
    let is_wrong = report.found("type-label") && !report.facts.has_errors;
    let seen = report
        .facts
        .footers
        .believed_as_taken()
        .filter(|_| is_wrong)?;
    Some(Fix {
        id: "type-label",
        what: format!(
            "write the type {} into the footer at {}",
            seen.footer.disk_type, seen.at
        ),
        writes: vec![(seen.at, seen.footer.encode().to_vec())],
        new_len: None,
    })
}

/// Repairs the copy of the footer.
fn copy(report: &Report) -> Option<Fix> {
    let footers = &report.facts.footers;
    let trailing = match footers.in_force? {
        Place::Trailing => footers.trailing.as_ref()?,
        // If there are other problems, what was found before the end may not be a footer of this disk.
        Place::Displaced if report.facts.has_errors => return None,
        Place::Displaced => footers.displaced.as_ref()?,
        Place::Copy => return None,
    };
    // Without a valid header the disk may be a fixed one, whose first sector belongs to the guest.
    if !report.facts.has_header || is_claimed(report) {
        return None;
    }
    // If there are other problems, an intact copy may be the correct one.
    let differs = !report.facts.has_errors && report.found("footer-copy-differs");
    let id = if report.found("footer-copy-damaged") {
        "footer-copy-damaged"
    } else if differs {
        "footer-copy-differs"
    } else {
        return None;
    };
    Some(Fix {
        id,
        what: "rewrite the footer's copy at 0 from the trailing footer".into(),
        writes: vec![(0, Footer::encode(&trailing.footer).to_vec())],
        new_len: None,
    })
}

/// Repairs the map of full blocks.
fn batmap(report: &Report) -> Option<Fix> {
    let id = OF_BATMAP.into_iter().find(|id| report.found(id))?;
    if report.facts.has_errors {
        return None;
    }
    let writes = report.facts.batmap.as_ref()?.emptied()?;
    Some(Fix {
        id,
        what: "empty the map of full blocks".into(),
        writes: writes.into(),
        new_len: None,
    })
}
