//! Diffs: their laws, their bytes, overlays and squashing, and passes over remote images.
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
