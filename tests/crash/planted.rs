//! Deliberate faults: each must be caught, or these tests prove nothing.
//!
//! A program that omits a sync or changes the order of its steps differs from ours in just these requests to the
//! disk, so such a fault is planted into the log of a real run.

use vhdkit::diff::BaseCheck;
use vhdkit::files::ApplyOptions;

use crate::explore::Writer;
use crate::ground::apply_options;
use crate::recorder::{Event, Log};
use crate::writers::{self, SIZE, monday, tuesday};

/// States per epoch when each sync is omitted: a missing sync shows early.
const STATES: usize = 64;

/// The faults of a program.
#[derive(Clone, Copy)]
enum Plant {
    /// Never syncs this file.
    Unsynced(&'static str),
    /// Omits one sync of this file.
    WithoutSync(&'static str, usize),
    /// Syncs this file only after renaming it to its final name.
    NamedFirst(&'static str),
    /// Doesn't sync the folder when this file gets its name.
    NameUnsynced(&'static str),
    /// Never gives this file its name.
    Nameless(&'static str),
    /// Removes the first file before the last sync of the other.
    GoesEarly(&'static str, &'static str),
    /// Doesn't sync the folder at the very end.
    EndUnsynced,
}

const BASE: &str = "base";
const JOURNAL: &str = "base.undo-journal";
const MERGE: &str = "base.merge-diff";
const SAVED: &str = "base.before-repair";
/// The base that the second snapshot gets.
const FOLDED_BASE: &str = "000002-tue.vhddiff.new";
const NEW_DIFF: &str = "000003-wed.vhddiff.new";
const MANIFEST: &str = "000003-wed.json";
const INTENT: &str = "deleting.json";

/// The faults, a description of each, and the writers that they are planted into.
const FAULTS: &[(&str, Plant, &[&str])] = &[
    (
        "the base isn't synced",
        Plant::Unsynced(BASE),
        &[
            "apply in place: raw",
            "apply in place: fixed, growing",
            "apply in place: dynamic",
            "finish: raw to 56320",
            "roll back: raw from 56320",
            "merge: into dynamic",
            "resize: raw to 56320",
            "resize: fixed to 18432",
            "resize: dynamic to 18432",
        ],
    ),
    (
        "new blocks aren't synced before the table names them",
        Plant::WithoutSync(BASE, 0),
        &["apply in place: dynamic", "apply in place: differencing"],
    ),
    (
        "a longer table isn't synced before the header names it",
        Plant::WithoutSync(BASE, 2),
        &["resize: dynamic to 3145728"],
    ),
    (
        "the journal isn't synced",
        Plant::Unsynced(JOURNAL),
        &["apply in place: raw", "merge: into fixed"],
    ),
    (
        "the journal is published before its sync",
        Plant::NamedFirst(JOURNAL),
        &["apply in place: raw", "apply in place: dynamic"],
    ),
    (
        "the journal's name isn't synced",
        Plant::NameUnsynced(JOURNAL),
        &["apply in place: raw", "apply in place: fixed"],
    ),
    (
        "no journal is written",
        Plant::Nameless(JOURNAL),
        &[
            "apply in place: raw",
            "apply in place: dynamic",
            "merge: into fixed",
        ],
    ),
    (
        "the journal goes before the base's sync",
        Plant::GoesEarly(JOURNAL, BASE),
        &[
            "apply in place: raw",
            "apply in place: dynamic",
            "roll back: raw from 56320",
        ],
    ),
    (
        "the journal goes, but not for good",
        Plant::EndUnsynced,
        &[
            "apply in place: raw",
            "finish: raw to 56320",
            "roll back: raw from 56320",
        ],
    ),
    (
        "the merge diff goes before the merge is done",
        Plant::GoesEarly(MERGE, BASE),
        &["merge: into fixed"],
    ),
    (
        "the merge diff isn't synced",
        Plant::Unsynced(MERGE),
        &["merge: into fixed"],
    ),
    (
        "the undo diff's name isn't synced",
        Plant::NameUnsynced("undo"),
        &[
            "apply in place, --undo, journal: raw",
            "apply in place, --undo, clone: raw",
        ],
    ),
    (
        "a new file isn't synced",
        Plant::Unsynced("new"),
        &["apply to new: raw", "create: dynamic", "apply to child"],
    ),
    (
        "a new file is published before its sync",
        Plant::NamedFirst("new"),
        &["apply to new: dynamic", "convert: to fixed, replacing"],
    ),
    (
        "a diff is published before its sync",
        Plant::NamedFirst("diff"),
        &["diff"],
    ),
    (
        "a new file's name isn't synced",
        Plant::NameUnsynced("new"),
        &["create: dynamic", "convert: to raw, replacing"],
    ),
    (
        "the bytes that a repair replaces aren't synced",
        Plant::Unsynced(SAVED),
        &["repair: footer damaged"],
    ),
    (
        "their file's name isn't synced",
        Plant::NameUnsynced(SAVED),
        &["repair: footer damaged"],
    ),
    (
        "the data of a snapshot isn't synced",
        Plant::Unsynced(NEW_DIFF),
        &[
            "store: create",
            "store: create --diff",
            "store: delete, in the middle",
        ],
    ),
    (
        "the data of a folded base isn't synced",
        Plant::Unsynced(FOLDED_BASE),
        &["store: delete, the base"],
    ),
    (
        "the name of a snapshot's data isn't synced before its manifest",
        Plant::NameUnsynced(NEW_DIFF),
        &["store: create"],
    ),
    (
        "a manifest isn't synced",
        Plant::Unsynced(MANIFEST),
        &["store: create", "store: copy, all", "store: receive, all"],
    ),
    (
        "a manifest is published before its sync",
        Plant::NamedFirst(MANIFEST),
        &["store: create", "store: copy, what is new"],
    ),
    (
        "a manifest's name isn't synced",
        Plant::NameUnsynced(MANIFEST),
        &["store: create"],
    ),
    (
        "what arrived isn't synced",
        Plant::Unsynced("000003-wed.vhddiff"),
        &["store: copy, all", "store: receive, what is new"],
    ),
    (
        "nothing says what a deletion shall do",
        Plant::Nameless(INTENT),
        &[
            "store: delete, the base",
            "store: delete, in the middle",
            "store: delete, the newest",
            "store: prune, three in a row",
        ],
    ),
    (
        "what a deletion shall do isn't synced",
        Plant::Unsynced(INTENT),
        &["store: delete, the base", "store: delete, in the middle"],
    ),
    (
        "the name of what a deletion shall do isn't synced",
        Plant::NameUnsynced(INTENT),
        &["store: delete, the base", "store: delete, in the middle"],
    ),
    (
        "what a deletion shall do goes before the last sync of a base",
        Plant::GoesEarly(INTENT, "000001-mon.vhd"),
        &["store of version 1: delete, the base"],
    ),
];

impl Plant {
    /// Turns a log into that of the faulty program.
    fn plant(self, log: &mut Log) {
        match self {
            Self::Unsynced(name) => no_sync(log, name),
            Self::WithoutSync(name, n) => without_sync(log, name, n),
            Self::NamedFirst(name) => named_first(log, name),
            Self::NameUnsynced(name) => {
                let at = named(log, name) + 1;
                assert!(matches!(log.events.remove(at), Event::SyncFolder));
            }
            Self::Nameless(name) => nameless(log, name),
            Self::GoesEarly(name, other) => goes_early(log, name, other),
            Self::EndUnsynced => {
                // Holes that are made of zeros when all is done.
                while matches!(log.events.last(), Some(Event::Zero(..))) {
                    log.events.pop();
                }
                assert!(matches!(log.events.pop(), Some(Event::SyncFolder)));
            }
        }
    }
}

/// Omits all syncs of a file.
fn no_sync(log: &mut Log, name: &str) {
    let files = log.called(name);
    log.events
        .retain(|event| !matches!(event, Event::Sync(id) if files.contains(id)));
}

/// Omits one sync of a file.
fn without_sync(log: &mut Log, name: &str, n: usize) {
    let files = log.called(name);
    let is_sync = |event: &Event| matches!(event, Event::Sync(id) if files.contains(id));
    let mut syncs = (0..).zip(&log.events).filter(|(_, event)| is_sync(event));
    let at = syncs.nth(n).unwrap().0;
    log.events.remove(at);
}

/// Returns where a file gets its name.
fn named(log: &Log, name: &str) -> usize {
    let is_name = |event: &Event| matches!(event, Event::Rename(_, to) if to == name);
    log.events.iter().position(is_name).unwrap()
}

/// Syncs a file only after it has its name.
fn named_first(log: &mut Log, name: &str) {
    let files = log.called(name);
    no_sync(log, name);
    let at = named(log, name);
    assert!(matches!(log.events[at + 1], Event::SyncFolder));
    log.events.insert(at + 2, Event::Sync(files[0]));
}

/// Leaves a file without its name.
fn nameless(log: &mut Log, name: &str) {
    log.events.retain(|event| match event {
        Event::Rename(_, to) => to != name,
        Event::Remove(gone) => gone != name,
        _ => true,
    });
}

/// Removes a file before the last sync of another that has something to sync.
fn goes_early(log: &mut Log, name: &str, other: &str) {
    let goes = |event: &Event| matches!(event, Event::Remove(gone) if gone == name);
    let at = log.events.iter().position(goes).unwrap();
    let gone: Vec<Event> = log.events.drain(at..at + 2).collect();
    let others = log.called(other);
    let is_write = |event: &Event| match event {
        Event::Write(id, _, _) | Event::Zero(id, _) | Event::SetLen(id, _) => others.contains(id),
        _ => false,
    };
    let is_sync = |event: &Event| matches!(event, Event::Sync(id) if others.contains(id));
    // Holes that are made of zeros when all is done need no sync.
    let last = log.events[..at].iter().rposition(is_sync).unwrap();
    let write = log.events[..last].iter().rposition(is_write).unwrap();
    let sync = write + log.events[write..at].iter().position(is_sync).unwrap();
    log.events.splice(sync..sync, gone);
}

/// Returns the first loss that a fault causes.
fn caught(writer: &Writer, plant: Plant) -> Option<String> {
    let scratch = writer.scratch();
    let mut log = writer.record(&scratch);
    plant.plant(&mut log);
    let tally = writer.judge_log(&log, crate::limit(), &scratch, 1);
    tally.losses.into_iter().next()
}

#[test]
fn every_planted_fault_is_caught() {
    let mut missed = Vec::new();
    for (fault, plant, names) in FAULTS {
        for name in *names {
            let loss = caught(writers::find(name), *plant);
            println!("{fault} ({name}): {}", loss.as_deref().unwrap_or("MISSED"));
            missed.extend(loss.is_none().then_some((fault, name)));
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn a_failed_sync_that_is_called_success_is_caught() {
    let writer = writers::find("apply in place: raw");
    let scratch = writer.scratch();
    let log = writer.record(&scratch);
    for (n, event) in log.events.iter().enumerate() {
        let Event::Sync(id) = event else { continue };
        let mut log = log.clone();
        // A second attempt succeeds, and proves nothing.
        log.events.insert(n, Event::FailedSync(*id));
        let tally = writer.judge_log(&log, crate::limit(), &scratch, 1);
        println!("sync {n} failed and done again: {:?}", tally.losses.first());
        assert!(!tally.losses.is_empty());
    }
}

#[test]
fn a_digest_that_is_not_looked_at_is_caught() {
    assert_eq!(writers::wrong_base(apply_options()).refuses(), Ok(()));
    let blind = ApplyOptions {
        check: BaseCheck::Touched,
        verify: false,
        ..apply_options()
    };
    let loss = writers::wrong_base(blind).refuses().unwrap_err();
    println!("the base's digest isn't looked at: {loss}");
    let mut trusting = writers::apply_writer(
        "apply in place, nothing read back",
        vhdkit::files::Format::Raw,
        [monday(), tuesday(SIZE)],
        ApplyOptions {
            verify: false,
            ..apply_options()
        },
    );
    trusting.verifies = true;
    let losses = trusting.fail_everywhere().losses;
    println!("the result's digest isn't looked at: {:?}", losses.first());
    assert!(!losses.is_empty());
}

/// Omits each sync alone. Not every one is needed: a journal compensates for some, another sync follows others. But no
/// writer can do without all of them.
#[test]
fn no_writer_can_do_without_syncs() {
    let (mut needed, mut all) = (0, 0);
    for writer in writers::all() {
        let scratch = writer.scratch();
        let log = writer.record(&scratch);
        let (mut here, mut without) = (0, Vec::new());
        for (n, event) in log.events.iter().enumerate() {
            if !matches!(event, Event::Sync(_) | Event::SyncFolder) {
                continue;
            }
            let mut log = log.clone();
            log.events.remove(n);
            let tally = writer.judge_log(&log, STATES, &scratch, 1);
            if tally.losses.is_empty() {
                without.push(n);
            } else {
                here += 1;
            }
        }
        all += here + without.len();
        needed += here;
        println!(
            "{}: {here} syncs are needed; nothing is lost without one of {without:?}",
            writer.name
        );
        let is_sync = |event: &Event| matches!(event, Event::Sync(_) | Event::SyncFolder);
        let mut never = log.clone();
        never.events.retain(|event| !is_sync(event));
        let losses = writer.judge_log(&never, STATES, &scratch, 1).losses;
        assert!(!losses.is_empty(), "{}", writer.name);
    }
    println!("{needed} of {all} syncs are needed");
}
