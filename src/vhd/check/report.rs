//! What a check found, and what it learned of the file on the way.

use std::ops::Range;
use std::path::PathBuf;

use super::batmap::Batmap;
use super::candidate::FooterCandidate;
use super::finding::{Finding, Unlisted};
use super::footers::Footers;
use super::rules::Severity;
use crate::error::{Error, Result, quoted};
use crate::vhd::{DiskType, DynamicHeader};

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
    /// The findings, in the order in which a file is looked at; of each rule at most [`LISTED`](super::LISTED).
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
    pub(in crate::vhd) facts: Facts,
}

impl Report {
    /// The first of the errors, as what keeps the file from being read, with the number of the others.
    pub fn refuse_errors(&self) -> Result<()> {
        if self.kind == Kind::Raw {
            return Err(no_vhd(&self.facts.footers));
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
            1 => error.with_hint(format!(
                "1 more error: vhd check {file} lists all; {advice}"
            )),
            more => error.with_hint(format!(
                "{more} more errors: vhd check {file} lists all; {advice}"
            )),
        })
    }

    /// What whoever reads the file is told: errors, what is repairable, and the warnings that bear on what is read. Of
    /// each rule one finding.
    pub(in crate::vhd) fn told(&self) -> Vec<Error> {
        let mut told = std::collections::BTreeSet::new();
        let findings = self.findings.iter();
        let findings =
            findings.filter(|finding| finding.rule.is_told() && told.insert(finding.id()));
        findings
            .map(|finding| finding.to_error(&self.file))
            .collect()
    }

    /// Whether the rule `id` is broken.
    pub(in crate::vhd) fn found(&self, id: &str) -> bool {
        self.findings.iter().any(|finding| finding.id() == id)
    }

    /// Whether there are neither errors nor repairable faults, nor data that is left out.
    pub fn is_clean(&self) -> bool {
        let faults = || self.findings.iter().any(|finding| finding.rule.is_fault());
        self.errors == 0 && self.repairable == 0 && !faults()
    }

    /// What to do about the first error.
    pub(in crate::vhd) fn first_advice(&self) -> Option<String> {
        let errors = &mut self.findings.iter();
        let first = errors.find(|finding| finding.severity() == Severity::Error)?;
        Some(first.advice(&self.file))
    }
}

/// What the check learned of the file.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(in crate::vhd) struct Facts {
    pub(in crate::vhd) footers: Footers,
    /// Where the last structure ends, if all of them were found.
    pub(in crate::vhd) used_end: Option<u64>,
    pub(in crate::vhd) batmap: Option<Batmap>,
    /// The header and where it lies, if the BAT can be looked at.
    pub(in crate::vhd) header: Option<(DynamicHeader, u64)>,
    /// Whether the header is where the footer in force says, with its cookie and the right checksum.
    pub(in crate::vhd) has_header: bool,
    /// Whether it can't be told which type the disk has.
    pub(in crate::vhd) doubts_type: bool,
    /// Whether there is data between the end of a fixed disk and its footer.
    pub(in crate::vhd) slack_has_data: bool,
    /// Whether something else is where the last block goes on after the end of the disk.
    pub(in crate::vhd) shares_tail: bool,
    pub(in crate::vhd) lost: Lost,
    /// Whether the file breaks a rule of the format, whatever a service wants of it.
    pub(in crate::vhd) has_errors: bool,
}

/// What of the virtual disk can't be read.
#[derive(Debug, Default)]
pub(in crate::vhd) struct Lost {
    /// Blocks that are where none can be, or whose bitmap can't be believed and tells what is the parent's.
    pub(in crate::vhd) blocks: Vec<u64>,
    /// Ranges of the virtual disk in other blocks: under something else, or past the end of the file.
    pub(in crate::vhd) ranges: Vec<Range<u64>>,
    /// Blocks whose bitmap is under something else; all that they hold is taken for stored.
    pub(in crate::vhd) bitmaps: Vec<u64>,
    /// Whether there are more than are remembered.
    pub(in crate::vhd) more: bool,
}

impl Lost {
    /// So many are remembered.
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

/// The error for what nothing speaks for being a VHD.
pub(in crate::vhd) fn no_vhd(footers: &Footers) -> Error {
    let error = Error::damaged("there is no VHD footer")
        .with_hint("if it was cut off, copy it again; if it is a raw image, read it as one");
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
