//! Stores of points in time, as the commands make them, leave them, and find them again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers")]

#[path = "../support/disk.rs"]
#[allow(unused_macros, unused_imports, reason = "commands are made by the lab")]
mod disk;

mod crash;
mod damage;
mod lab;
mod points;
mod refusals;
mod words;
