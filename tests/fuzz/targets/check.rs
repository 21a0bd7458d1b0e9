//! The checker on any file: it never fails, what it finds no errors in opens, and nothing else; a repair leaves the
//! content as it was and nothing to repair.

use vhdkit::Result;
use vhdkit::image::Image;
use vhdkit::storage::Memory;
use vhdkit::vhd::{
    CheckOptions, DiskType, Kind, RepairPlan, Report, Severity, Timestamp, VhdImage, check,
};

use super::diff::ok;
use super::image_sealed::seal;
use super::input::Input;

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.u8();
    let mut file = input.0.to_vec();
    seal(flags, &mut file);
    let report = look(&file, false);
    assert!(look(&file, true).errors >= report.errors);
    let content = content(&file);
    let found = || {
        let findings = report.findings.iter();
        findings
            .map(|finding| format!("{} {}", finding.id(), finding.field))
            .collect::<Vec<_>>()
    };
    if let Kind::Vhd(DiskType::Fixed | DiskType::Dynamic) = report.kind {
        assert_eq!(
            content.is_ok(),
            report.errors == 0,
            "{:?}, and it reads as {:?}",
            found(),
            content.as_ref().map(|_| ())
        );
    }
    repair(&file, &report, content.as_ref().ok());
}

fn look(file: &[u8], azure: bool) -> Report {
    let storage = Memory::new(file.to_vec());
    let options = CheckOptions {
        azure,
        now: Timestamp(800_000_000),
        ..CheckOptions::default()
    };
    let report = ok(check(&storage, &options));
    let mut counts = [0_u64; 3];
    for finding in &report.findings {
        assert!(!finding.field.is_empty() && !finding.id().is_empty());
        counts[match finding.severity() {
            Severity::Error => 0,
            Severity::Repairable => 1,
            Severity::Warning => 2,
        }] += 1;
    }
    let totals = [report.errors, report.repairable, report.warnings];
    assert!(
        counts
            .iter()
            .zip(totals)
            .all(|(listed, all)| *listed <= all)
    );
    assert!(!report.unlisted.is_empty() || counts == totals);
    report
}

/// What a small file reads as: the size of the disk and up to its first MiB. An error if it can't be read.
fn content(file: &[u8]) -> Result<(u64, Vec<u8>)> {
    let image = VhdImage::open(Memory::new(file.to_vec()))?;
    let size = image.virtual_size();
    let mut bytes = vec![0xEE; size.min(1 << 20) as usize];
    image.read_exact_at(&mut bytes, 0)?;
    Ok((size, bytes))
}

fn repair(file: &[u8], report: &Report, before: Option<&(u64, Vec<u8>)>) {
    let plan = RepairPlan::new(report);
    let kept = plan.old_ranges();
    assert!(kept.iter().all(|range| range.end <= file.len() as u64));
    if plan.is_empty() {
        assert!(report.errors > 0 || report.repairable == 0);
        return;
    }
    let storage = Memory::new(file.to_vec());
    ok(plan.apply(&storage));
    let mended = storage.into_vec();
    assert_eq!(mended.len() as u64, plan.new_len());
    let unchanged = |at: &usize| !kept.iter().any(|range| range.contains(&(*at as u64)));
    for at in (0..file.len()).filter(unchanged) {
        // Zeros at the end come back with the length.
        let now = mended.get(at).copied().unwrap_or(0);
        assert_eq!(Some(&now), file.get(at), "changed, but not kept");
    }
    let after = look(&mended, false);
    assert!(
        after.errors <= report.errors,
        "before: {:#?}, {:?}, after: {:#?}",
        report.findings,
        plan.mends(),
        after.findings
    );
    if report.errors == 0 {
        // A warning may stay that data is left out.
        assert!(after.errors + after.repairable == 0, "{:?}", after.findings);
        let differencing = after.kind == Kind::Vhd(DiskType::Differencing);
        assert!(differencing || content(&mended).is_ok());
    }
    if before.is_some() {
        assert!(
            content(&mended).ok().as_ref() == before,
            "the repair changed the content"
        );
    }
}
