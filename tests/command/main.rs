//! The programs: help and messages, the README, cases from the field, hostile input, and comparisons with other tools.
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
#[path = "../support/json_tables.rs"]
mod json_tables;
#[path = "../support/many.rs"]
mod many;
#[path = "../support/mounts.rs"]
mod mounts;
#[path = "../diffs/diff_format/sections.rs"]
mod sections;
#[path = "../support/vhd_builder.rs"]
mod vhd_builder;
#[path = "../support/vhd_writers.rs"]
mod vhd_writers;

mod cli;
mod hostile;
mod json;
mod readme;
mod reports;
mod safety;
