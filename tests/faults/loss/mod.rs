//! The other ways to lose data: a full device, signals, changes under our feet, two commands at once, odd places, and
//! diffs and bases that aren't what they should be.
//!
//! `tests/faults/kills` has kills and failing calls.

// The helpers of a test may end it as the test itself may.
mod damage;
mod full;
mod places;
mod races;
mod scene;
mod signals;
