//! Checking a VHD: all of its faults, never only the first.
//!
//! The checker looks at the bytes of the file, not through an open image, so nothing it finds depends on opening.
//! Its time follows the size of the BAT and of the stored data, its memory is bounded.

mod advice;
mod azure;
mod bat;
mod batmap;
mod bitmap;
mod chain;
mod displaced;
mod fields;
mod finding;
mod footers;
mod header;
mod locators;
mod overlap;
mod proof;
mod raw;
mod rules;
mod slack;

pub(super) use footers::{Footers, Place, Seen, Why};

pub(crate) use advice::filled;

use advice::Advice;
use batmap::Batmap;

pub use chain::{ChainLookup, ChainState, FoundParent, Trouble};
pub use finding::{Finding, LISTED, Severity, Unlisted};
pub use raw::is_optical_image;
pub use rules::{RULES, Rule};

use super::{DiskType, DynamicHeader, Footer, RepairPlan, Timestamp, salvage};
use std::ops::Range;
use std::path::PathBuf;

use crate::error::{Error, Result, quoted};
use crate::progress::{Progress, Silent};
use crate::storage::ReadAt;
use finding::Findings;

/// What to check, and with whose help.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "it borrows traits")]
pub struct CheckOptions<'a> {
    /// Whether to apply the rules of Azure for uploads too.
    pub azure: bool,
    /// Finds the parents of differencing disks; without it, only what the file itself says is checked.
    pub chain: Option<&'a dyn ChainLookup>,
    /// The type that the file is said to have: it beats the footer's where the disk can be read so.
    pub disk_type: Option<DiskType>,
    /// The time by which a time stamp is in the future.
    pub now: Timestamp,
    /// Hears how far the check is.
    pub progress: &'a dyn Progress,
}

impl Default for CheckOptions<'_> {
    fn default() -> Self {
        Self {
            azure: false,
            chain: None,
            disk_type: None,
            now: Timestamp::now(),
            progress: &Silent,
        }
    }
}

/// What kind of file was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A VHD of this type, as far as its footers can be believed.
    Vhd(DiskType),
    /// Nothing of a VHD: if it is an image at all, its bytes are the virtual disk.
    Raw,
}

/// What a check found.
#[derive(Debug)]
pub struct Report {
    /// What the file is.
    pub kind: Kind,
    /// The findings, in the order in which a file is looked at; of each rule at most [`LISTED`].
    pub findings: Vec<Finding>,
    /// Of which rules there are more.
    pub unlisted: Vec<Unlisted>,
    /// Number of errors, the unlisted among them.
    pub errors: u64,
    /// Number of repairable faults.
    pub repairable: u64,
    /// Number of warnings.
    pub warnings: u64,
    /// The file, as its messages and advice name it.
    pub file: PathBuf,
    /// Number of blocks whose bitmaps were looked at.
    pub bitmaps: u64,
    /// What a repair goes by.
    pub(super) facts: Facts,
}

impl Report {
    /// The first of the errors, as what keeps the file from being read, with the number of the others.
    pub fn refuse_errors(&self) -> Result<()> {
        if self.kind == Kind::Raw {
            return Err(super::open::no_vhd(&self.facts.footers));
        }
        let errors = &mut self.findings.iter();
        let Some(first) = errors.find(|finding| finding.severity() == Severity::Error) else {
            return Ok(());
        };
        let error = first.to_error(&self.file);
        let advice = first.advice(&self.file);
        let file = quoted(&self.file);
        Err(match self.errors.saturating_sub(1) {
            0 => error,
            1 => error.hint(format!(
                "1 more error: vhd check {file} lists all; {advice}"
            )),
            more => error.hint(format!(
                "{more} more errors: vhd check {file} lists all; {advice}"
            )),
        })
    }

    /// What whoever reads the file is told: errors, what is repairable, and the warnings that bear on what is read. Of
    /// each rule one finding.
    pub(super) fn told(&self) -> Vec<Error> {
        let mut told = std::collections::BTreeSet::new();
        let findings = self.findings.iter();
        let findings =
            findings.filter(|finding| finding.rule.is_told() && told.insert(finding.id()));
        findings
            .map(|finding| finding.to_error(&self.file))
            .collect()
    }

    /// Whether the rule `id` is broken.
    pub(super) fn found(&self, id: &str) -> bool {
        self.findings.iter().any(|finding| finding.id() == id)
    }

    /// Whether there are neither errors nor repairable faults, nor data that is left out.
    pub fn is_clean(&self) -> bool {
        let faults = || self.findings.iter().any(|finding| finding.rule.is_fault());
        self.errors == 0 && self.repairable == 0 && !faults()
    }

    /// What to do about the first error.
    pub(super) fn first_advice(&self) -> Option<String> {
        let errors = &mut self.findings.iter();
        let first = errors.find(|finding| finding.severity() == Severity::Error)?;
        Some(first.advice(&self.file))
    }

    /// Gives findings the advice that works on this file, where that isn't the rule's.
    fn advise(&mut self) {
        let plan = RepairPlan::new(self);
        let left = salvage::left_of(&self.facts).is_ok();
        for finding in &mut self.findings {
            let rule = finding.rule;
            let is_repaired = plan.repairs(rule.id);
            let advice = match (rule.may_be_repaired() && !is_repaired, left) {
                (true, true) => rules::NOT_REPAIRED,
                (true, false) => rules::NEITHER,
                (false, false) if finding.advises(rules::COPY_AGAIN) => rules::COPY_ONLY,
                _ if !finding.advises(rules::AZURE) => continue,
                // What else is wrong comes first.
                _ if !plan.is_empty() => rules::AZURE_AFTER_REPAIR,
                (_, true) if self.facts.has_errors || self.facts.slack_has_data => {
                    rules::AZURE_SALVAGE
                }
                (_, false) if self.facts.has_errors => rules::COPY_ONLY,
                _ => continue,
            };
            finding.advise(Advice::Template(advice));
        }
    }
}

/// What the check learned of the file.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Facts {
    pub(super) footers: Footers,
    /// Where the last structure ends, if all of them were found.
    pub(super) used_end: Option<u64>,
    pub(super) batmap: Option<Batmap>,
    /// The header and where it lies, if the BAT can be looked at.
    pub(super) header: Option<(DynamicHeader, u64)>,
    /// Whether the header is where the footer in force says, with its cookie and the right checksum.
    pub(super) has_header: bool,
    /// Whether it can't be told which type the disk has.
    pub(super) doubts_type: bool,
    /// Whether there is data between the end of a fixed disk and its footer.
    pub(super) slack_has_data: bool,
    /// Whether something else is where the last block goes on after the end of the disk.
    pub(super) shares_tail: bool,
    pub(super) lost: Lost,
    /// Whether the file breaks a rule of the format, whatever a service wants of it.
    pub(super) has_errors: bool,
}

/// What of the virtual disk can't be read.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Blocks that are where none can be, or whose bitmap can't be believed and tells what is the parent's.
    pub(super) blocks: Vec<u64>,
    /// Ranges of the virtual disk in other blocks: under something else, or past the end of the file.
    pub(super) ranges: Vec<Range<u64>>,
    /// Blocks whose bitmap is under something else; all that they hold is taken for stored.
    pub(super) bitmaps: Vec<u64>,
    /// Whether there are more than are remembered.
    pub(super) more: bool,
}

impl Lost {
    /// So many are remembered.
    const MOST: usize = 1 << 18;

    fn add_block(&mut self, block: u64) {
        if self.blocks.len() < Self::MOST {
            self.blocks.push(block);
        } else {
            self.more = true;
        }
    }

    fn add_range(&mut self, range: Range<u64>) {
        if self.ranges.len() < Self::MOST {
            self.ranges.push(range);
        } else {
            self.more = true;
        }
    }

    fn add_bitmap(&mut self, block: u64) {
        if self.bitmaps.len() < Self::MOST {
            self.bitmaps.push(block);
        } else {
            self.more = true;
        }
    }
}

/// Checks the VHD in `storage`.
///
/// # Errors
///
/// Only when the file can't be read, or the work was cancelled: a fault of the file is a [`Finding`].
pub fn check(storage: &dyn ReadAt, options: &CheckOptions<'_>) -> Result<Report> {
    look(storage, options, Depth::Whole)
}

/// Checks what reading relies on: everything that can be an error or repairable in this file itself. Parents are
/// left to whoever opens them, and of the bitmaps only that of a block that isn't all there is read.
///
/// Parents are opened within each other, up to 64 of them, while the report of each is kept: so neither it nor the work on
/// it is on the stack.
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
    let (kind, mut facts) = checker.run().map_err(|e| e.path(storage.name()))?;
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
    report.advise();
    Ok(report)
}

/// How far a check looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// At everything.
    Whole,
    /// Not into bitmaps and data, and not at parents.
    Structures,
}

/// The state of a check.
struct Checker<'a> {
    storage: &'a dyn ReadAt,
    options: &'a CheckOptions<'a>,
    depth: Depth,
    findings: Findings,
    lost: Lost,
    shares_tail: bool,
    bitmaps: u64,
}

impl Checker<'_> {
    fn run(&mut self) -> Result<(Kind, Facts)> {
        let footers = Footers::read(self.storage, self.options.disk_type)?;
        let mut facts = Facts {
            footers,
            used_end: None,
            batmap: None,
            header: None,
            has_header: false,
            doubts_type: false,
            slack_has_data: false,
            shares_tail: false,
            lost: Lost::default(),
            has_errors: false,
        };
        if !facts.footers.is_vhd {
            self.raw(facts.footers.file_len)?;
            return Ok((Kind::Raw, facts));
        }
        self.footers(&facts.footers);
        let name = facts
            .footers
            .believed()
            .map(|seen| facts.footers.name_of(seen));
        let Some((believed, name)) = facts.footers.believed_as_taken().zip(name) else {
            facts.has_errors = true;
            return Ok((Kind::Vhd(DiskType::Other(0)), facts));
        };
        let footer = &believed.footer;
        self.footer_fields(&believed, name);
        self.windows(&believed);
        facts.doubts_type = self.doubts_type(&facts.footers)?;
        if facts.doubts_type && !footer.disk_type.is_sparse() {
            // What it would mean for a fixed disk needn't be said.
        } else if footer.disk_type == DiskType::Fixed {
            facts.slack_has_data = self.fixed(&facts.footers, &believed)?;
        } else if footer.disk_type.is_sparse() {
            self.sparse(footer, &mut facts)?;
        }
        facts.has_errors = self.findings.total(Severity::Error) > 0;
        if self.options.azure {
            self.azure(&believed, &facts);
        }
        if self.depth == Depth::Whole && !facts.has_errors {
            self.inside(&believed);
        }
        Ok((Kind::Vhd(footer.disk_type), facts))
    }

    /// A fixed disk: its bytes, then the footer. Says whether there is data between the two.
    fn fixed(&mut self, footers: &Footers, seen: &Seen) -> Result<bool> {
        if footers.in_force == Some(Place::Displaced) {
            self.behind_footer(footers);
        }
        let (have, need) = (footers.data_end(), seen.footer.current_size);
        let found = format_args!("{} bytes", footers.file_len);
        let Some(whole) = need.checked_add(super::FOOTER_SIZE as u64) else {
            return Ok(false);
        };
        let expected = format_args!("{whole} bytes");
        if have < need {
            let rule = &rules::FIXED_CUT_OFF;
            self.findings
                .add(rule, "file_size", footers.file_len, found, expected);
        } else if have > need {
            return self.slack(need..have, &seen.footer);
        }
        Ok(false)
    }

    /// A dynamic or differencing disk: header, BAT, blocks.
    fn sparse(&mut self, footer: &Footer, facts: &mut Facts) -> Result<()> {
        if let Some(table) = self.header(footer, &facts.footers)? {
            facts.header = Some((table.header.clone(), table.header_at));
            let ranges = if footer.disk_type == DiskType::Differencing {
                self.parent(footer, &table)?
            } else {
                Vec::new()
            };
            facts.batmap = self.batmap(footer, &table)?;
            facts.has_header = table.is_proven;
            facts.used_end = self.bat(&table, &ranges, facts.batmap.as_mut())?;
            facts.shares_tail = self.shares_tail;
        }
        self.trailing(facts)
    }
}
