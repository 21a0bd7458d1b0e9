//! `check` and its repairs on files of every writer and with every kind of damage.
#![allow(
    clippy::print_stdout,
    reason = "the tables are worth reading: --nocapture"
)]
#![allow(clippy::too_many_lines, reason = "they are tables")]

mod chain;
mod documented;
mod genuine;
mod large;
mod random;
mod repairs;
mod salvage;
mod table;

use vhdkit::storage::Memory;
use vhdkit::vhd::{CheckOptions, Report, Timestamp, check};

/// The current time for the checks, in 2026: later time stamps are in the future.
const NOW: Timestamp = Timestamp(0x3200_0000);

/// Small blocks, for tests that touch everything: three blocks of 4 KiB and one of half that.
const TINY: crate::vhd_writers::Writer = crate::vhd_writers::Writer {
    creator: b"vhdk",
    size: 14 << 10,
    block_size: 4096,
    geometry: [0, 1, 4, 7],
    ..crate::vhd_writers::Writer::WINDOWS
};

fn options() -> CheckOptions<'static> {
    CheckOptions {
        now: NOW,
        ..CheckOptions::default()
    }
}

fn checked(file: Vec<u8>) -> Report {
    check(&Memory::new(file).named("child.vhd"), &options()).unwrap()
}

/// Returns `severity id field` of every finding.
fn lines(report: &Report) -> Vec<String> {
    let line = |finding: &vhdkit::vhd::Finding| {
        format!("{} {} {}", finding.severity(), finding.id(), finding.field)
    };
    let mut lines: Vec<String> = report.findings.iter().map(line).collect();
    lines.sort();
    lines
}
