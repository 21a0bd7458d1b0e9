//! Applying diffs to real files with the real programs: in place and anew, interrupted and taken back, and
//! everything that must be refused without a trace.

// The helpers of a test may end it as the test itself may.
#![allow(clippy::unwrap_used, clippy::panic)]

mod devices;
mod in_place;
mod lab;
#[path = "../support/mounts.rs"]
mod mounts;
mod new_image;
mod recovery;
mod refusals;
mod stamps;
mod strategies;
