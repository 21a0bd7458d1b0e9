//! Diffs: what they mean as laws, their bytes, diffs laid over a base or folded into one, and passes over far images.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::too_many_lines,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

#[path = "../support/checks.rs"]
mod checks;
#[path = "../support/counting.rs"]
mod counting;
#[path = "../support/diffs.rs"]
mod diffs;
#[path = "../support/disk.rs"]
mod disk;

mod diff_format;
mod far;
mod laws;
mod overlay;
mod squash;
mod windows;
