//! Shows results: aligned for people, JSON for machines.

use serde_json::{Value, json};

use super::run::{CaseResult, ContenderResult};

/// Prints the table of a case. Ratios are times over that of the first line.
pub(crate) fn print(case: &CaseResult) {
    let width = case.contenders.iter().map(|c| c.name.len()).max();
    let width = width.unwrap_or(0).max(case.name.len());
    println!(
        "\n{:width$}  {:>9}  {:>6}  {:>7}  {:>8}  {:>10}",
        case.name, "seconds", "ratio", "CPU s", "peak MiB", "stored MiB"
    );
    let first = case
        .contenders
        .first()
        .map_or(1.0, ContenderResult::seconds);
    for contender in &case.contenders {
        let stored = contender.stored.map_or(String::new(), |bytes| {
            let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
            format!("{:.1}", f64::from(kib) / 1024.0)
        });
        println!(
            "{:width$}  {:>9.3}  {:>6.2}  {:>7.2}  {:>8.1}  {stored:>10}",
            contender.name,
            contender.seconds(),
            contender.seconds() / first,
            contender.cpu(),
            contender.peak() / f64::from(1 << 20),
        );
    }
}

/// Prints every target beside what was measured.
pub(crate) fn print_targets(cases: &[CaseResult]) {
    let rounds = cases.iter().flat_map(|case| &case.contenders);
    let few = rounds.map(|c| c.samples.len()).min().unwrap_or(0) < 3;
    let note = if few {
        " (too few rounds to judge by)"
    } else {
        ""
    };
    println!("\ntargets{note}");
    for verdict in cases.iter().flat_map(CaseResult::verdicts) {
        println!(
            "  {:6}  {:>7.2}  {}",
            if verdict.met { "met" } else { "MISSED" },
            verdict.measured,
            verdict.text
        );
    }
}

/// All results as one object. Sizes are in bytes, times in seconds.
pub(crate) fn json(size: u64, cases: &[CaseResult]) -> Value {
    let case = |case: &CaseResult| {
        let contenders = case.contenders.iter().map(|contender| {
            json!({
                "name": contender.name,
                "median_seconds": contender.seconds(),
                "median_cpu_seconds": contender.cpu(),
                "peak_bytes": contender.peak(),
                "stored_bytes": contender.stored,
                "seconds": contender.samples.iter().map(|s| s.seconds).collect::<Vec<_>>(),
            })
        });
        let targets = case.verdicts().map(|verdict| {
            json!({
                "target": verdict.text,
                "limit": verdict.limit,
                "measured": verdict.measured,
                "met": verdict.met,
            })
        });
        json!({
            "case": case.name,
            "contenders": contenders.collect::<Vec<_>>(),
            "targets": targets.collect::<Vec<_>>(),
        })
    };
    json!({
        "schema_version": 1,
        "image_bytes": size,
        "cases": cases.iter().map(case).collect::<Vec<_>>(),
    })
}
