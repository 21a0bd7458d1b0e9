//! Crashes and faults: what every writer leaves when the power fails, a call fails, or a device lies.
//!
//! ```console
//! $ cargo test --features fault-injection --test crash -- --nocapture
//! $ VHDKIT_CRASH_STATES=20000 cargo test --release --features fault-injection --test crash -- --nocapture
//! ```
//!
//! The variable sets the number of states examined for each epoch between two syncs; if there are fewer, all of them
//! are. `docs/durability.md` describes what is tested and how.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test"
)]

mod disk;
mod explore;
mod folders;
mod ground;
mod growth;
#[path = "../support/many.rs"]
mod many;
mod other_file_system;
mod passing;
mod planted;
mod recorder;
mod sealed;
mod turned;
mod twice;
mod write_behind;
mod writers;

use std::time::Instant;

use explore::{Tally, Writer};

/// States per epoch by default.
const STATES: usize = 256;

fn limit() -> usize {
    let told = std::env::var("VHDKIT_CRASH_STATES").ok();
    told.map_or(STATES, |told| told.parse().unwrap())
}

/// Runs all writers, prints a table, and fails on a loss.
fn table(what: &str, run: impl Fn(&Writer) -> Tally) {
    println!(
        "{what:<48} {:>6} {:>8} {:>8} {:>6} {:>6} {:>8} {:>6}",
        "calls", "states", "distinct", "old", "new", "between", "losses"
    );
    let only = std::env::var("VHDKIT_CRASH_ONLY").unwrap_or_default();
    let mut sum = Tally::default();
    for writer in writers::all() {
        if !writer.name.contains(&only) {
            continue;
        }
        let begun = Instant::now();
        let tally = run(writer);
        line(&writer.name, &tally, begun);
        for loss in tally.losses.iter().take(5) {
            println!("    {loss}");
        }
        sum.calls += tally.calls;
        sum.states += tally.states;
        sum.distinct += tally.distinct;
        sum.old += tally.old;
        sum.new += tally.new;
        sum.between += tally.between;
        sum.losses.extend(tally.losses);
    }
    line("all", &sum, Instant::now());
    assert!(sum.losses.is_empty(), "{} losses", sum.losses.len());
}

fn line(name: &str, tally: &Tally, begun: Instant) {
    println!(
        "{name:<48} {:>6} {:>8} {:>8} {:>6} {:>6} {:>8} {:>6}   {:.1} s",
        tally.calls,
        tally.states,
        tally.distinct,
        tally.old,
        tally.new,
        tally.between,
        tally.losses.len(),
        begun.elapsed().as_secs_f32()
    );
}

#[test]
fn a_crash_loses_nothing() {
    table("crash", |writer| writer.crash_everywhere(limit()));
}

#[test]
fn a_failed_call_loses_nothing() {
    table("failed call", Writer::fail_everywhere);
}
