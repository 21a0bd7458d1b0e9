//! Stores of points in time: their commands, random operations against a model, and a week of a real disk.
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
#[path = "../support/many.rs"]
mod many;
#[path = "../support/mounts.rs"]
mod mounts;
#[allow(dead_code, reason = "others need the rest")]
#[path = "../diffs/diff_format/sections.rs"]
mod sections;

mod bitmaps;
mod converge;
mod likes;
mod store;
mod store_model;
mod week;
