//! File formats: structures field by field, images of every kind against a contract, damaged ones, findings of fuzzing,
//! and other programs' readers and writers.
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
#[path = "../support/disk.rs"]
mod disk;
#[path = "../support/recorder.rs"]
mod recorder;
#[allow(
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "shared with the fuzz programs, where a panic is how a promise is found broken"
)]
#[path = "../fuzz/targets/mod.rs"]
mod targets;
#[path = "../support/vhd_builder.rs"]
mod vhd_builder;
#[path = "../support/vhd_writers.rs"]
mod vhd_writers;

mod conformance;
mod corpus;
mod interop;
mod malformed;
mod structures;
