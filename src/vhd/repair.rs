//! Repairs without loss: what to write so that a check finds nothing to repair.
//!
//! Only what proves itself is written, and only where nothing of the virtual disk can be:
//!
//! - at the start of the file, a footer's copy, if the dynamic disk header that the footer points at is there with
//!   its cookie and checksum: the first sector of a fixed disk is the guest's;
//! - at the end, a footer over a damaged one or after everything else, if no block says that it is there;
//! - a map of full blocks that says nothing over one that is wrong, if there are no errors and nothing else is there;
//! - the type in the footer of a fixed disk, over that footer.
//!
//! What is cut off comes after an intact footer. Every step may be interrupted and done again, and none touches the
//! last good footer but the one about the type: a fixed disk has no other footer, and the step is a single sector.

use std::ops::Range;

use super::check::{Place, Report};
use super::{FOOTER_SIZE, Footer, SECTOR_SIZE};
use crate::error::Result;
use crate::storage::WriteAt;

const FOOTER_LEN: u64 = FOOTER_SIZE as u64;

/// The rule about zeros behind the footer.
const ZEROS_BEHIND: &str = "trailing-zeros";

/// One repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// The id of the rule that is kept after it; `footer-short` for a footer of 511 bytes, which breaks none.
    pub id: &'static str,
    /// What is done, for people.
    pub what: String,
    writes: Vec<(u64, Vec<u8>)>,
    new_len: Option<u64>,
}

/// The repairs of a file, in the order in which they are done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RepairPlan {
    mends: Vec<Fix>,
    file_len: u64,
}

impl RepairPlan {
    /// The repairs that the findings of `report` allow.
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

    /// The repairs, in the order in which they are done.
    pub fn mends(&self) -> &[Fix] {
        &self.mends
    }

    /// Whether the rule `id` is kept after them.
    pub(super) fn repairs(&self, id: &str) -> bool {
        let mut mends = self.mends.iter();
        mends.clone().any(|mend| mend.id == id)
            || is_of_batmap(id) && mends.any(|mend| is_of_batmap(mend.id))
    }

    /// Whether there is nothing to do.
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

    /// The ranges of the file as it is whose bytes are overwritten or cut off: what must be kept to go back. Zeros at the
    /// end come back with the length.
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

    /// Does the repairs, each brought to stable storage before the next.
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

/// The rules that are kept once the map of full blocks is empty.
const OF_BATMAP: [&str; 2] = ["batmap-stale", "batmap-bad"];

fn is_of_batmap(id: &str) -> bool {
    OF_BATMAP.contains(&id)
}

/// Whether a block says that it is where a footer is: that may be what somebody keeps in the block.
fn is_claimed(report: &Report) -> bool {
    ["bat-over-footer", "bat-past-end", "block-cut-off"]
        .iter()
        .any(|id| report.found(id))
}

/// The end of the file.
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
            "cut off the {} bytes after the footer",
            footers.file_len.saturating_sub(end)
        );
        return Some(mend(id, what, Vec::new(), Some(end)));
    }
    let trailing = footers.trailing.as_ref();
    match footers.in_force? {
        Place::Trailing => {
            let short = trailing.filter(|seen| seen.is_short && label(report).is_none())?;
            let what = "fill the footer up to 512 bytes".into();
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
                let what = format!("write the footer at {} anew from its copy", trailing.at);
                return Some(mend(id, what, vec![(trailing.at, bytes)], None));
            }
            let used_end = report.facts.used_end.filter(|_| sound)?;
            let at = if footers.file_len <= used_end.saturating_add(FOOTER_LEN) {
                used_end
            } else {
                // What stands behind the last block may be of use to somebody.
                footers.file_len.checked_next_multiple_of(SECTOR_SIZE)?
            };
            let id = ["footer-cut-off", "footer-damaged"];
            let id = id.into_iter().find(|id| report.found(id))?;
            let what = format!("write the footer at {at} anew from its copy");
            Some(mend(id, what, vec![(at, bytes)], None))
        }
    }
}

/// The type in the only footer of a fixed disk.
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

/// The copy of the footer.
fn copy(report: &Report) -> Option<Fix> {
    let footers = &report.facts.footers;
    let trailing = match footers.in_force? {
        Place::Trailing => footers.trailing.as_ref()?,
        // With other faults beside it, what was found before the end may be no footer of this disk.
        Place::Displaced if report.facts.has_errors => return None,
        Place::Displaced => footers.displaced.as_ref()?,
        Place::Copy => return None,
    };
    // Without a header that proves itself the disk may be a fixed one, whose first sector is the guest's.
    if !report.facts.has_header || is_claimed(report) {
        return None;
    }
    // Where other things are wrong, an intact copy may be the one that is right.
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
        what: "write the footer's copy at 0 anew from the trailing footer".into(),
        writes: vec![(0, Footer::encode(&trailing.footer).to_vec())],
        new_len: None,
    })
}

/// The map of full blocks.
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
