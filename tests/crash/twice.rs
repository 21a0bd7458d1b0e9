//! Crashes during the recovery from a crash: the recovery is itself interrupted at every point.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use vhdkit::Result;
use vhdkit::files::roll_back;
use vhdkit::storage::fault::watch;

use crate::disk::{States, states};
use crate::explore::{Run, Tally, Writer};
use crate::ground::apply_options;
use crate::line;
use crate::recorder::Recorder;
use crate::writers;

/// States per epoch, for each of the two crashes.
const STATES: usize = 24;

impl Writer {
    /// Crashes twice: from every state that a crash leaves, each of the `ways` to continue is itself interrupted
    /// everywhere.
    fn crash_twice(&self, ways: &[Run], limit: usize) -> Tally {
        let scratch = self.scratch();
        let log = self.record(&scratch);
        let mut found = States::default();
        states(&log, limit, &mut found);
        let mut tally = Tally {
            calls: log.events.len(),
            ..Tally::default()
        };
        for once in std::mem::take(&mut found.distinct) {
            for (n, way) in ways.iter().enumerate() {
                let folder = scratch.folder(&once.files);
                let recorder = Arc::new(Recorder::new(folder.path(), None, self.clones));
                let watch = watch(folder.path(), Arc::clone(&recorder) as _);
                // Where there is nothing to go on with, it says so.
                let _ = way(folder.path());
                drop(watch);
                let log = recorder.log();
                tally.calls += log.events.len();
                let before = found.distinct.len();
                states(&log, limit, &mut found);
                for twice in &mut found.distinct[before..] {
                    twice.when = format!("{}; then in way {n}, {}", once.when, twice.when);
                }
            }
        }
        (tally.states, tally.distinct) = (found.all, found.distinct.len());
        self.judge_states(&found.distinct, &scratch, usize::MAX, Mutex::new(tally))
    }
}

fn back(at: &Path) -> Result<()> {
    roll_back(&at.join("base"), apply_options()).map(drop)
}

#[test]
fn a_crash_on_the_way_on_loses_nothing() {
    let mut losses = Vec::new();
    println!("after a second crash");
    for (name, returns) in [
        ("apply in place: raw, two pages", true),
        ("apply in place: fixed, two pages", true),
        ("apply in place: dynamic, two pages", true),
        ("apply in place: differencing, two pages", true),
        ("apply in place: fixed, growing by a page", true),
        ("apply in place, --undo, journal: raw", true),
        ("apply in place, --undo, clone: raw", false),
        ("merge: into fixed", true),
        ("repair: footer damaged", false),
        ("store: create", false),
        ("store: delete, the base", false),
        ("store: delete, in the middle", false),
        ("store: prune, the base and one between", false),
        ("store: copy, what is new", false),
        ("store: receive, what is new", false),
        ("store: repair, a base", false),
    ] {
        let writer = writers::find(name);
        let begun = Instant::now();
        let mut ways: Vec<Run> = vec![Box::new(|at| (writer.run)(at))];
        if returns {
            ways.push(Box::new(back));
        }
        let tally = writer.crash_twice(&ways, STATES);
        line(name, &tally, begun);
        losses.extend(
            tally
                .losses
                .into_iter()
                .map(|loss| format!("{name}: {loss}")),
        );
    }
    assert!(losses.is_empty(), "{} losses: {losses:#?}", losses.len());
}
