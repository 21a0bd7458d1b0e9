//! Findings, stored in bounded memory however many there are.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::advice::{Advice, Advised};
use super::rules::{Rule, Severity};
use crate::error::{Error, Reason};
use crate::remedy::Remedy;

/// One problem: which rule is broken, where, and by which value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule, with its stable id, severity, message and advice.
    pub rule: &'static Rule,
    /// The field: `file_size`, `footer.<field>`, `footer_copy.<field>`, `header.<field>`,
    /// `header.parent_locator[i].<field>`, `bat[i]`, `bat.padding`, `bitmap[i]`, `batmap` or `chain`.
    pub field: String,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// The value found.
    pub found: String,
    /// The value expected.
    pub expected: String,
    advised: Advised,
}

impl Finding {
    /// The stable id of the rule.
    pub fn id(&self) -> &'static str {
        self.rule.id
    }

    /// The severity.
    pub fn severity(&self) -> Severity {
        self.rule.severity
    }

    /// Returns the advice for the image at `file`.
    pub fn remedy(&self, file: &Path) -> Remedy {
        self.advised.remedy(file)
    }

    /// Returns whether this is its advice.
    pub(super) fn advises(&self, advice: Advice) -> bool {
        self.advised == Advised::Kind(advice)
    }

    /// Replaces the rule's advice by one that fits this finding better.
    pub(super) fn advise(&mut self, advised: Advised) {
        self.advised = advised;
    }

    /// Converts the finding into the error that prevents reading the image at `file`, or into a warning for its reader.
    pub fn to_error(&self, file: &Path) -> Error {
        let error = Error::new(self.rule.kind(), self.rule.message);
        error
            .with_reason(Reason::Finding(self.id()))
            .with_field(self.field.clone())
            .with_offset(self.offset)
            .with_found(&self.found)
            .with_expected(&self.expected)
            .with_remedy(self.remedy(file))
    }
}

/// The most findings per rule that are kept; any others are only counted.
pub const LISTED: u64 = 1000;

/// The number of findings of one rule that were not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unlisted {
    /// The rule.
    pub rule: &'static Rule,
    /// How many there are.
    pub count: u64,
}

/// Collects findings.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    counts: BTreeMap<&'static str, (&'static Rule, u64)>,
}

impl Findings {
    /// Adds a finding, or only counts it if there are enough for its rule.
    pub(super) fn add(
        &mut self,
        rule: &'static Rule,
        field: impl fmt::Display,
        offset: u64,
        found: impl fmt::Display,
        expected: impl fmt::Display,
    ) {
        let (_, count) = self.counts.entry(rule.id).or_insert((rule, 0));
        *count = count.saturating_add(1);
        if *count <= LISTED {
            self.list.push(Finding {
                rule,
                field: field.to_string(),
                offset,
                found: found.to_string(),
                expected: expected.to_string(),
                advised: Advised::Kind(rule.advice),
            });
        }
    }

    /// As [`add`](Self::add), with its own advice.
    pub(super) fn add_advising(
        &mut self,
        rule: &'static Rule,
        field: impl fmt::Display,
        offset: u64,
        (found, expected): (impl fmt::Display, impl fmt::Display),
        advised: Advised,
    ) {
        let before = self.list.len();
        self.add(rule, field, offset, found, expected);
        if let Some(added) = self.list.get_mut(before) {
            added.advise(advised);
        }
    }

    /// Sets the advice of all findings of these rules.
    pub(super) fn advise_those_of(&mut self, those: &[&'static Rule], advice: Advice) {
        let list = self.list.iter_mut();
        for finding in list.filter(|finding| those.contains(&finding.rule)) {
            finding.advise(Advised::Kind(advice));
        }
    }

    /// Returns whether any of these rules is broken.
    pub(super) fn has_any(&self, those: &[&'static Rule]) -> bool {
        those.iter().any(|rule| self.counts.contains_key(rule.id))
    }

    /// Counts `more` findings of a rule that has enough in the list.
    pub(super) fn count(&mut self, rule: &'static Rule, more: u64) {
        let (_, count) = self.counts.entry(rule.id).or_insert((rule, 0));
        *count = count.saturating_add(more);
    }

    /// The number of findings with this severity, including unlisted ones.
    pub(super) fn total(&self, severity: Severity) -> u64 {
        let of = self
            .counts
            .values()
            .filter(|(rule, _)| rule.severity == severity);
        of.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// The findings that were kept, and the number of those that weren't.
    pub(super) fn finish(self) -> (Vec<Finding>, Vec<Unlisted>) {
        let unlisted = self.counts.values().filter_map(|(rule, count)| {
            let count = count.checked_sub(LISTED).filter(|more| *more > 0)?;
            Some(Unlisted { rule, count })
        });
        let unlisted = unlisted.collect();
        (self.list, unlisted)
    }
}
