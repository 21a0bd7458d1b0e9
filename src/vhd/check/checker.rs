//! The state of a check, and the order of its steps.

use super::candidate::FooterCandidate;
use super::finding::Findings;
use super::footers::{Footers, Place};
use super::lookup::ChainLookup;
use super::report::{Facts, Kind, Lost};
use super::rules::{self, Severity};
use crate::error::Result;
use crate::progress::{Progress, Silent};
use crate::storage::ReadAt;
use crate::vhd::{DiskType, FOOTER_SIZE, Footer, Timestamp};

/// Options for a check.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "it borrows traits")]
pub struct CheckOptions<'a> {
    /// Whether to apply Azure's rules for uploads as well.
    pub azure: bool,
    /// Finds the parents of differencing disks. Without it, only the file itself is checked.
    pub chain: Option<&'a dyn ChainLookup>,
    /// The type given by the user. It takes precedence over the footer's if the disk can be read as that type.
    pub disk_type: Option<DiskType>,
    /// The current time, after which time stamps are in the future.
    pub now: Timestamp,
    /// Receives progress.
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

/// How thorough a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Everything.
    Whole,
    /// Everything except bitmaps, data and parents.
    Structures,
}

/// The state of a check.
pub(super) struct Checker<'a> {
    pub(super) storage: &'a dyn ReadAt,
    pub(super) options: &'a CheckOptions<'a>,
    pub(super) depth: Depth,
    pub(super) findings: Findings,
    pub(super) lost: Lost,
    pub(super) shares_tail: bool,
    pub(super) bitmaps: u64,
}

impl Checker<'_> {
    pub(super) fn run(&mut self) -> Result<(Kind, Facts)> {
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
            // Consequences for a fixed disk needn't be reported.
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

    /// Checks a fixed disk: its data, then the footer. Returns whether there is data between the two.
    fn fixed(&mut self, footers: &Footers, seen: &FooterCandidate) -> Result<bool> {
        if footers.in_force == Some(Place::Displaced) {
            self.behind_footer(footers);
        }
        let (have, need) = (footers.data_end(), seen.footer.current_size);
        let found = format_args!("{} bytes", footers.file_len);
        let Some(whole) = need.checked_add(FOOTER_SIZE as u64) else {
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

    /// Checks a dynamic or differencing disk: header, BAT, blocks.
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
