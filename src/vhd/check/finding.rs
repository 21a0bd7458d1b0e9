//! What a check finds, and how findings are kept so that memory doesn't follow their number.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::advice::Advice;
use super::rules::{Rule, Severity};
use crate::error::Error;

/// One fault: which rule is broken, where, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule, with its stable id, severity, meaning and advice.
    pub rule: &'static Rule,
    /// The field: `file_size`, `footer.<field>`, `footer_copy.<field>`, `header.<field>`,
    /// `header.parent_locator[i].<field>`, `bat[i]`, `bat.padding`, `bitmap[i]`, `batmap` or `chain`.
    pub field: String,
    /// Where it stands in the file, in bytes.
    pub offset: u64,
    /// What stands there.
    pub found: String,
    /// What should stand there.
    pub expected: String,
    advice: Advice,
}

impl Finding {
    /// The stable id of the rule.
    pub fn id(&self) -> &'static str {
        self.rule.id
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.rule.severity
    }

    /// What to do about it in the image at `file`, without a final stop. The commands in it can be pasted into a shell.
    pub fn advice(&self, file: &Path) -> String {
        self.advice.text(file)
    }

    /// Whether its advice is this template.
    pub(super) fn advises(&self, template: &'static str) -> bool {
        self.advice == Advice::Template(template)
    }

    /// Gives advice that fits this finding better than the rule's.
    pub(super) fn advise(&mut self, advice: Advice) {
        self.advice = advice;
    }

    /// The finding as what keeps the image at `file` from being read, or as a warning to whoever reads it.
    pub fn to_error(&self, file: &Path) -> Error {
        let error = Error::new(self.rule.kind(), self.rule.message);
        error
            .with_field(self.field.clone())
            .with_offset(self.offset)
            .with_found(&self.found)
            .with_expected(&self.expected)
            .with_hint(self.advice(file))
    }
}

/// So many findings of one rule are kept; the others are only counted.
pub const LISTED: u64 = 1000;

/// Findings of one rule that were counted and not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unlisted {
    /// The rule.
    pub rule: &'static Rule,
    /// How many more there are.
    pub count: u64,
}

/// Findings as they come.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    counts: BTreeMap<&'static str, (&'static Rule, u64)>,
}

impl Findings {
    /// Adds a finding, or counts it if there are enough of its rule.
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
                advice: Advice::Template(rule.advice),
            });
        }
    }

    /// As [`add`](Self::add), with advice of its own.
    pub(super) fn add_advising(
        &mut self,
        rule: &'static Rule,
        field: impl fmt::Display,
        offset: u64,
        (found, expected): (impl fmt::Display, impl fmt::Display),
        advice: Advice,
    ) {
        let before = self.list.len();
        self.add(rule, field, offset, found, expected);
        if let Some(added) = self.list.get_mut(before) {
            added.advise(advice);
        }
    }

    /// Gives the findings of these rules this advice.
    pub(super) fn advise_those_of(&mut self, those: &[&'static Rule], advice: &Advice) {
        let list = self.list.iter_mut();
        for finding in list.filter(|finding| those.contains(&finding.rule)) {
            finding.advise(advice.clone());
        }
    }

    /// Whether any of these rules is broken.
    pub(super) fn has_any(&self, those: &[&'static Rule]) -> bool {
        those.iter().any(|rule| self.counts.contains_key(rule.id))
    }

    /// Counts `more` findings of a rule of which enough are listed.
    pub(super) fn count(&mut self, rule: &'static Rule, more: u64) {
        let (_, count) = self.counts.entry(rule.id).or_insert((rule, 0));
        *count = count.saturating_add(more);
    }

    /// How many findings of this severity there are, the unlisted among them.
    pub(super) fn total(&self, severity: Severity) -> u64 {
        let of = self
            .counts
            .values()
            .filter(|(rule, _)| rule.severity == severity);
        of.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// The findings that were kept, and how many weren't.
    pub(super) fn finish(self) -> (Vec<Finding>, Vec<Unlisted>) {
        let unlisted = self.counts.values().filter_map(|(rule, count)| {
            let count = count.checked_sub(LISTED).filter(|more| *more > 0)?;
            Some(Unlisted { rule, count })
        });
        let unlisted = unlisted.collect();
        (self.list, unlisted)
    }
}
