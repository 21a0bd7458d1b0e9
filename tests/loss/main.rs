//! The other ways to lose data: a full device, signals, changes under our feet, two commands at once, odd places, and
//! diffs and bases that aren't what they should be.
//!
//! `tests/kills` has kills and failing calls.

// The helpers of a test may end it as the test itself may.
#![allow(clippy::unwrap_used, clippy::panic)]

mod damage;
#[path = "../support/disk.rs"]
mod disk;
mod full;
#[path = "../support/kill.rs"]
mod kill;
#[path = "../support/mounts.rs"]
mod mounts;
mod places;
mod races;
mod scene;
mod signals;
