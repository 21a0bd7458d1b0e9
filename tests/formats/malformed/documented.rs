//! docs/check.md lists exactly the existing rules, and the table of malformed inputs breaks most of them.

use std::collections::BTreeSet;
use std::path::Path;

use vhdkit::vhd::RULES;

#[test]
fn every_rule_is_documented_word_for_word() {
    let text = include_str!("../../../docs/check.md");
    // Repairs come further down in the document, each for several rules.
    let rules = text.split("\n## Repair").next().unwrap_or(text);
    let rows = rules.lines().filter(|line| line.starts_with("| `"));
    let documented: BTreeSet<String> = rows
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let id = cells.next()?.trim_matches('`');
            let severity = cells.next()?;
            let (message, advice) = (cells.nth(1)?, cells.next()?);
            Some(format!("{id} {severity}: {message}: {advice}"))
        })
        .collect();
    let rules: BTreeSet<String> = RULES
        .iter()
        .map(|rule| {
            let advice = vhdkit::cli::said(&rule.advice.remedy(Path::new("IMAGE")));
            let advice = advice
                .replace("IMAGE-new.vhd", "NEW.vhd")
                .replace("IMAGE-new.raw", "NEW.raw");
            format!("{} {}: {}: {advice}", rule.id, rule.severity, rule.message)
        })
        .collect();
    let missing: Vec<_> = rules.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&rules).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "missing {missing:?}, unknown {unknown:?}"
    );
}

#[test]
fn ids_are_unique_and_every_rule_says_what_to_do() {
    let ids: BTreeSet<&str> = RULES.iter().map(|rule| rule.id).collect();
    assert_eq!(ids.len(), RULES.len());
    for rule in RULES {
        // As an embedder shows it.
        let advice = rule.advice.remedy(Path::new("IMAGE")).to_string();
        assert!(
            !rule.message.ends_with('.') && !advice.ends_with('.'),
            "{}",
            rule.id
        );
        assert!(!advice.is_empty());
        assert!(!advice.contains("  ") && !advice.contains(" ,"), "{advice}");
    }
}
