//! Images as files: chains of VHDs, merging, resizing, clones, and random operations against a model.
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
#[path = "../support/kill.rs"]
mod kill;
#[path = "../support/mounts.rs"]
mod mounts;
#[path = "../support/recorder.rs"]
mod recorder;
#[path = "../support/vhd_builder.rs"]
mod vhd_builder;

mod chain_model;
mod chains;
mod clones;
mod merge;
mod model;
mod resize;
