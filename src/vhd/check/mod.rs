//! Checking a VHD: all of its faults, never only the first.
//!
//! The checker looks at the bytes of the file, not through an open image, so nothing it finds depends on opening.
//! Its time follows the size of the BAT and of the stored data, its memory is bounded.

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
mod rules;

pub(super) use footers::{Footers, Place, Seen};

use batmap::Batmap;

pub use chain::{ChainLookup, ChainState, FoundParent};
pub use finding::{Finding, LISTED, Severity, Unlisted};
pub use rules::{RULES, Rule};

use super::{DiskType, DynamicHeader, Footer, Timestamp};
use crate::error::Result;
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
        let error = first.to_error();
        let advice = first.rule.advice;
        Err(match self.errors.saturating_sub(1) {
            0 => error,
            1 => error.hint(format!("1 more error: vhd check lists all; {advice}")),
            more => error.hint(format!("{more} more errors: vhd check lists all; {advice}")),
        })
    }

    /// The findings that whoever reads the file is told: errors, what is repairable, and the warnings that bear on
    /// what is read. Of each rule one.
    pub(super) fn told(&self) -> impl Iterator<Item = &Finding> {
        let mut told = std::collections::BTreeSet::new();
        let findings = self.findings.iter();
        findings.filter(move |finding| finding.rule.is_told() && told.insert(finding.id()))
    }

    /// Whether the rule `id` is broken.
    pub(super) fn found(&self, id: &str) -> bool {
        self.findings.iter().any(|finding| finding.id() == id)
    }

    /// Whether there are neither errors nor repairable faults.
    pub fn is_clean(&self) -> bool {
        self.errors == 0 && self.repairable == 0
    }
}

/// What the check learned of the file.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) footers: Footers,
    /// Where the last structure ends, if all of them were found.
    pub(super) used_end: Option<u64>,
    pub(super) batmap: Option<Batmap>,
    /// The header and where it lies, if the BAT can be looked at.
    pub(super) header: Option<(DynamicHeader, u64)>,
    pub(super) lost: Lost,
    /// Whether the file breaks a rule of the format, whatever a service wants of it.
    pub(super) has_errors: bool,
}

/// Blocks that can't be read.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Those that lie where no block can lie, or over another one.
    pub(super) blocks: Vec<u64>,
    /// Those whose end is missing, each with its place in the file.
    pub(super) cut: Vec<(u64, u64)>,
    /// Whether there are more than are remembered.
    pub(super) more: bool,
}

impl Lost {
    /// So many are remembered.
    const MOST: usize = 1 << 18;

    fn add(&mut self, block: u64) {
        if self.blocks.len() < Self::MOST {
            self.blocks.push(block);
        } else {
            self.more = true;
        }
    }

    fn add_cut(&mut self, block: u64, at: u64) {
        if self.cut.len() < Self::MOST {
            self.cut.push((block, at));
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
pub(super) fn judge(storage: &dyn ReadAt) -> Result<Report> {
    look(storage, &CheckOptions::default(), Depth::Structures)
}

fn look(storage: &dyn ReadAt, options: &CheckOptions<'_>, depth: Depth) -> Result<Report> {
    let mut checker = Checker {
        storage,
        options,
        depth,
        findings: Findings::default(),
        lost: Lost::default(),
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
    Ok(Report {
        kind,
        findings,
        unlisted,
        errors,
        repairable,
        warnings,
        facts,
    })
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
}

impl Checker<'_> {
    fn run(&mut self) -> Result<(Kind, Facts)> {
        let footers = Footers::read(self.storage)?;
        let mut facts = Facts {
            footers,
            used_end: None,
            batmap: None,
            header: None,
            lost: Lost::default(),
            has_errors: false,
        };
        if !facts.footers.is_vhd {
            self.raw(facts.footers.file_len);
            return Ok((Kind::Raw, facts));
        }
        self.footers(&facts.footers);
        let Some(believed) = facts.footers.believed().cloned() else {
            facts.has_errors = true;
            return Ok((Kind::Vhd(DiskType::Other(0)), facts));
        };
        let footer = &believed.footer;
        self.footer_fields(&believed, facts.footers.name_of(&believed));
        if footer.disk_type == DiskType::Fixed {
            self.fixed(&facts.footers, footer);
        } else if footer.disk_type.is_sparse() {
            self.sparse(footer, &mut facts)?;
        }
        facts.has_errors = self.findings.total(Severity::Error) > 0;
        if self.options.azure {
            self.azure(&believed, facts.footers.file_len);
        }
        Ok((Kind::Vhd(footer.disk_type), facts))
    }

    fn raw(&mut self, len: u64) {
        if len == 0 {
            let rule = &rules::FILE_EMPTY;
            self.findings
                .add(rule, "file_size", 0, "0 bytes", "an image");
        } else if !len.is_multiple_of(super::SECTOR_SIZE) {
            let found = format_args!("{len} bytes");
            self.findings.add(
                &rules::RAW_SIZE,
                "file_size",
                0,
                found,
                "a multiple of 512, or a VHD",
            );
        }
    }

    /// A fixed disk: its bytes, then the footer.
    fn fixed(&mut self, footers: &Footers, footer: &Footer) {
        if footers.in_force == Some(Place::Displaced) {
            self.behind_footer(footers);
        }
        let (have, need) = (footers.data_end(), footer.current_size);
        let found = format_args!("{} bytes", footers.file_len);
        let Some(whole) = need.checked_add(super::FOOTER_SIZE as u64) else {
            return;
        };
        let expected = format_args!("{whole} bytes");
        if have < need {
            let rule = &rules::FIXED_CUT_OFF;
            self.findings
                .add(rule, "file_size", footers.file_len, found, expected);
        } else if have > need {
            self.findings
                .add(&rules::FIXED_SLACK, "file_size", need, found, expected);
        }
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
            facts.used_end = self.bat(&table, &ranges, facts.batmap.as_mut())?;
        }
        self.trailing(facts)
    }
}
