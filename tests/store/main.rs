//! Stores of points in time, as the commands make them, leave them, and find them again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers")]

#[path = "../support/disk.rs"]
mod disk;

#[path = "../support/many.rs"]
mod many;
#[path = "../support/mounts.rs"]
mod mounts;

mod copies;
mod crash;
mod damage;
mod family;
mod lab;
mod points;
mod prune;
mod readers;
mod refusals;
mod repair;
mod restore;
mod room;
mod scale;
mod streams;
mod words;
