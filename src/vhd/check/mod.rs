//! Checks a VHD and reports all of its problems, not just the first.
//!
//! The checker works on the bytes of the file, not on an open image, so its results don't depend on opening. Its time
//! is proportional to the size of the BAT and of the stored data; its memory is bounded.

mod advice;
mod azure;
mod bat;
mod batmap;
mod batmap_rules;
mod bitmap;
mod candidate;
mod chain;
mod checker;
mod displaced;
mod fields;
mod finding;
mod footer_rules;
mod footers;
mod header;
mod last_advice;
mod locators;
mod lookup;
mod overlap;
mod proof;
mod raw;
mod report;
mod rules;
mod scan;
mod slack;
mod table;

pub(super) use footers::{Footers, Place, Why};
pub(super) use report::{Facts, no_vhd};

pub use advice::Advice;

pub use checker::CheckOptions;
pub use finding::{Finding, LISTED, Unlisted};
pub use lookup::{ChainLookup, ChainState, FoundParent, Trouble};
pub use raw::is_optical_image;
pub use report::{Kind, Report};
pub use rules::{RULES, Rule, Severity};

use checker::{Checker, Depth};
use finding::Findings;
use report::Lost;

use super::DiskType;
use crate::error::Result;
use crate::storage::ReadAt;

/// Checks the VHD in `storage`.
///
/// # Errors
///
/// Fails only if the file can't be read, or the work was cancelled. Problems of the file are reported as [`Finding`]s.
pub fn check(storage: &dyn ReadAt, options: &CheckOptions<'_>) -> Result<Report> {
    look(storage, options, Depth::Whole)
}

/// Checks what reading relies on: everything in the file itself that can be an error or repairable. Parents are checked
/// when they are opened, and only the bitmap of a truncated block is read.
///
/// Up to 64 parents are opened recursively while the report of each is kept, so neither the report nor this function's
/// work is on the stack.
#[inline(never)]
pub(super) fn judge(storage: &dyn ReadAt, disk_type: Option<DiskType>) -> Result<Box<Report>> {
    let options = CheckOptions {
        disk_type,
        ..CheckOptions::default()
    };
    look(storage, &options, Depth::Structures).map(Box::new)
}

fn look(storage: &dyn ReadAt, options: &CheckOptions<'_>, depth: Depth) -> Result<Report> {
    let mut checker = Checker {
        storage,
        options,
        depth,
        findings: Findings::default(),
        lost: Lost::default(),
        shares_tail: false,
        bitmaps: 0,
    };
    let (kind, mut facts) = checker.run().map_err(|e| e.with_path(storage.name()))?;
    let total = |severity| checker.findings.total(severity);
    let (errors, repairable, warnings) = (
        total(Severity::Error),
        total(Severity::Repairable),
        total(Severity::Warning),
    );
    facts.lost = checker.lost;
    let (findings, unlisted) = checker.findings.finish();
    let mut report = Report {
        kind,
        findings,
        unlisted,
        errors,
        repairable,
        warnings,
        file: storage.name().to_path_buf(),
        bitmaps: checker.bitmaps,
        facts,
    };
    last_advice::advise(&mut report);
    Ok(report)
}
