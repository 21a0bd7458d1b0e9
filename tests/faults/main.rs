//! Kills, failing calls, full disks and races, on the real programs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::too_many_lines,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

#[path = "../support/disk.rs"]
mod disk;
#[path = "../support/kill.rs"]
mod kill;
#[path = "../support/mounts.rs"]
mod mounts;

mod kills;
mod loss;
