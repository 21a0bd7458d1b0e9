//! Advice that depends on all findings.

use super::advice::Advised;
use super::report::Report;
use super::rules;
use crate::vhd::{RepairPlan, salvage};

/// Replaces the rules' advice where something else works for this file.
pub(super) fn advise(report: &mut Report) {
    let plan = RepairPlan::new(report);
    let left = salvage::salvage(&report.facts).is_ok();
    for finding in &mut report.findings {
        let rule = finding.rule;
        let is_repaired = plan.repairs(rule.id);
        let advice = match (rule.may_be_repaired() && !is_repaired, left) {
            (true, true) => rules::NOT_REPAIRED,
            (true, false) => rules::NEITHER,
            (false, false) if finding.advises(rules::COPY_AGAIN) => rules::COPY_ONLY,
            _ if !finding.advises(rules::AZURE) => continue,
            // Other problems come first.
            _ if !plan.is_empty() => rules::AZURE_AFTER_REPAIR,
            (_, true) if report.facts.has_errors || report.facts.slack_has_data => {
                rules::AZURE_SALVAGE
            }
            (_, false) if report.facts.has_errors => rules::COPY_ONLY,
            _ => continue,
        };
        finding.advise(Advised::Kind(advice));
    }
}
