//! Applying diffs to real files with the real programs: in place and to new images, interrupted and rolled back, and
//! everything that must be refused without leaving a trace.

// Helpers of a test may panic just like the test itself.
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
