//! Images and points in time for other programs: what those programs see, and what a hostile client can't do.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's helpers"
)]

#[path = "../support/disk.rs"]
mod disk;
#[path = "../store/store/lab.rs"]
#[allow(dead_code, reason = "of another test program")]
mod lab;

mod client;
mod hostile;
mod mounts;
mod nbd;
mod rude;
