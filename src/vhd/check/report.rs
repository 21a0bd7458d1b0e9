//! The result of a check, and the facts it established about the file.

use std::ops::Range;
use std::path::PathBuf;

use super::batmap::Batmap;
use super::candidate::FooterCandidate;
use super::finding::{Finding, Unlisted};
use super::footers::Footers;
use super::rules::Severity;
use crate::error::{Error, Result};
use crate::remedy::{Act, Remedy, Step};
use crate::vhd::{DiskType, DynamicHeader};

/// The kind of file that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A VHD of this type, as far as its footers can be trusted.
    Vhd(DiskType),
    /// No trace of a VHD: if it is an image at all, it is a raw one.
    Raw,
}

/// The result of a check.
#[derive(Debug)]
pub struct Report {
    /// The kind of the file.
    pub kind: Kind,
    /// The findings, in the order of the checks; at most [`LISTED`](super::LISTED) per rule.
    pub findings: Vec<Finding>,
    /// The rules with further findings.
    pub unlisted: Vec<Unlisted>,
    /// Number of errors, including unlisted ones.
    pub errors: u64,
    /// Number of repairable faults.
    pub repairable: u64,
    /// Number of warnings.
    pub warnings: u64,
    /// The file, as its messages and advice call it.
    pub file: PathBuf,
    /// Number of blocks whose bitmaps were checked.
    pub bitmaps: u64,
    /// The facts on which a repair is based.
    pub(in crate::vhd) facts: Facts,
}

impl Report {
    /// Fails with the first error, as the reason why the file can't be read, and the number of other errors.
    pub fn refuse_errors(&self) -> Result<()> {
        if self.kind == Kind::Raw {
            return Err(no_vhd(&self.facts.footers));
        }
        let errors = &mut self.findings.iter();
        let Some(first) = errors.find(|finding| finding.severity() == Severity::Error) else {
            return Ok(());
        };
        let error = first.to_error(&self.file);
        let more = match self.errors.saturating_sub(1) {
            0 => return Err(error),
            1 => "1 more error: ".to_owned(),
            more => format!("{more} more errors: "),
        };
        let check = Step::Do(Act::Check, self.file.clone());
        let all = Remedy::new(more)
            .step(check, "a check")
            .text(" lists all; ");
        Err(error.override_remedy(all.then(first.remedy(&self.file))))
    }

    /// The findings to report to whoever reads the file: errors, repairable problems, and the warnings that affect what
    /// is read. One finding per rule.
    pub(in crate::vhd) fn told(&self) -> Vec<Error> {
        let mut told = std::collections::BTreeSet::new();
        let findings = self.findings.iter();
        let findings =
            findings.filter(|finding| finding.rule.is_told() && told.insert(finding.id()));
        findings
            .map(|finding| finding.to_error(&self.file))
            .collect()
    }

    /// Returns whether the rule `id` is broken.
    pub(in crate::vhd) fn found(&self, id: &str) -> bool {
        self.findings.iter().any(|finding| finding.id() == id)
    }

    /// Returns whether there are neither errors nor repairable problems, nor data that would be left out.
    pub fn is_clean(&self) -> bool {
        let faults = || self.findings.iter().any(|finding| finding.rule.is_fault());
        self.errors == 0 && self.repairable == 0 && !faults()
    }

    /// The remedy for the first error.
    pub(in crate::vhd) fn first_remedy(&self) -> Option<Remedy> {
        let errors = &mut self.findings.iter();
        let first = errors.find(|finding| finding.severity() == Severity::Error)?;
        Some(first.remedy(&self.file))
    }
}

/// The facts that the check established about the file.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(in crate::vhd) struct Facts {
    pub(in crate::vhd) footers: Footers,
    /// The end of the last structure, if all of them were found.
    pub(in crate::vhd) used_end: Option<u64>,
    pub(in crate::vhd) batmap: Option<Batmap>,
    /// The header and its offset, if the BAT can be checked.
    pub(in crate::vhd) header: Option<(DynamicHeader, u64)>,
    /// Whether the header is at the offset in the footer, with a correct cookie and checksum.
    pub(in crate::vhd) has_header: bool,
    /// Whether the type of the disk is uncertain.
    pub(in crate::vhd) doubts_type: bool,
    /// Whether there is data between the end of a fixed disk and its footer.
    pub(in crate::vhd) slack_has_data: bool,
    /// Whether the last block's part after the end of the disk is used by something else.
    pub(in crate::vhd) shares_tail: bool,
    pub(in crate::vhd) lost: Lost,
    /// Whether the file violates the format, regardless of a service's requirements.
    pub(in crate::vhd) has_errors: bool,
}

/// The parts of the virtual disk that can't be read.
#[derive(Debug, Default)]
pub(in crate::vhd) struct Lost {
    /// Blocks with an impossible location, or with an untrustworthy bitmap that distinguishes own pages from the
    /// parent's.
    pub(in crate::vhd) blocks: Vec<u64>,
    /// Ranges of the virtual disk in other blocks: overlapped, or past the end of the file.
    pub(in crate::vhd) ranges: Vec<Range<u64>>,
    /// Blocks whose bitmap is overlapped; all their pages are assumed to be stored.
    pub(in crate::vhd) bitmaps: Vec<u64>,
    /// Whether there are more than are remembered.
    pub(in crate::vhd) more: bool,
}

impl Lost {
    /// The most ranges that are remembered.
    const MOST: usize = 1 << 18;

    pub(in crate::vhd) fn add_block(&mut self, block: u64) {
        if self.blocks.len() < Self::MOST {
            self.blocks.push(block);
        } else {
            self.more = true;
        }
    }

    pub(in crate::vhd) fn add_range(&mut self, range: Range<u64>) {
        if self.ranges.len() < Self::MOST {
            self.ranges.push(range);
        } else {
            self.more = true;
        }
    }

    pub(in crate::vhd) fn add_bitmap(&mut self, block: u64) {
        if self.bitmaps.len() < Self::MOST {
            self.bitmaps.push(block);
        } else {
            self.more = true;
        }
    }
}

/// The error for a file without any sign of being a VHD.
pub(in crate::vhd) fn no_vhd(footers: &Footers) -> Error {
    let error = Error::damaged("there is no VHD footer")
        .with_hint("if it was truncated, copy it again; if it is a raw image, read it as one");
    match &footers.trailing {
        Some(FooterCandidate { footer, at, .. }) => error
            .with_field("footer.cookie")
            .with_offset(*at)
            .with_found(format_args!("\"{}\"", footer.cookie.escape_ascii()))
            .with_expected("\"conectix\""),
        None => error
            .with_field("file_size")
            .with_offset(0)
            .with_found(format_args!("{} bytes", footers.file_len))
            .with_expected("at least 1024 bytes"),
    }
}
