//! The work of a command grows linearly with the number of snapshots, not quadratically: counted in calls, because
//! times depend on the machine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vhdkit::Result;
use vhdkit::files::{Format, Output};
use vhdkit::progress::Silent;
use vhdkit::snapshot::{
    Access, Disk, Future, Policy, ReadData, RepairSources, STORE_VERSION, Span, TagRule, Work,
    copy_disk, decide, init, prune, receive, repair, restore, send, verify,
};
use vhdkit::storage::fault::{Answer, Call, Observer, watch};
use vhdkit::storage::{Audience, Overwrite};

use crate::explore::Scratch;
use crate::ground::WORKERS;
use crate::many::many;
use crate::recorder::Files;

#[derive(Default)]
struct Counts(AtomicUsize);

impl Observer for Counts {
    fn before(&self, _path: &Path, call: &Call<'_>) -> Answer {
        self.0.fetch_add(1, Ordering::Relaxed);
        match call {
            Call::Sync { .. } | Call::SyncFolder => Answer::Pretend,
            _ => Answer::Proceed,
        }
    }

    fn after(&self, _path: &Path, _call: &Call<'_>) {}
}

fn work() -> Work<'static> {
    Work {
        workers: &WORKERS,
        progress: &Silent,
    }
}

type Command = (&'static str, fn(&Path) -> Result<()>);

const COMMANDS: [Command; 9] = [
    ("list", |store| {
        Disk::open(store, "web", Access::Read).map(drop)
    }),
    ("verify", |store| {
        let mut disk = Disk::open(store, "web", Access::Read)?;
        let found = verify(&mut disk, ReadData::Nothing, work())?;
        found
            .into_findings()
            .map(|found| assert!(found.is_empty(), "{found:?}"))
    }),
    ("verify --read-data", |store| {
        let mut disk = Disk::open(store, "web", Access::Read)?;
        let found = verify(&mut disk, ReadData::All, work())?;
        found
            .into_findings()
            .map(|found| assert!(found.is_empty(), "{found:?}"))
    }),
    ("repair", |store| {
        let mut disk = Disk::open(store, "web", Access::Write)?;
        let repaired = repair(&mut disk, &RepairSources::default(), work())?;
        assert!(repaired.left.is_empty());
        Ok(())
    }),
    ("restore", |store| {
        let disk = Disk::open(store, "web", Access::Read)?;
        let path = store.join("restored");
        let output = Output {
            path: &path,
            format: Format::Raw,
            overwrite: Overwrite::Yes,
            dense: false,
            made_from: &Audience::default(),
        };
        let newest = disk.newest().unwrap();
        restore(&disk.image(newest)?, output, work())
    }),
    ("copy", |store| {
        let copied = copy_disk((store, &store.join("copied")), "web", work());
        copied.error.map_or(Ok(()), Err)
    }),
    ("send and receive", |store| {
        let mut stream = Vec::new();
        let mut disk = Disk::open(store, "web", Access::Read)?;
        let name = Path::new("stream");
        send(&mut disk, Span::default(), (&mut stream, name), work())?;
        let to = store.join("received");
        let received = receive(&to, None, (&stream[..], name), Future::Refused, work());
        received.error.map_or(Ok(()), Err)
    }),
    ("prune every other", |store| {
        let mut disk = Disk::open(store, "web", Access::Write)?;
        let policy = Policy {
            tags: vec!["keep".parse::<TagRule>()?],
            ..Policy::default()
        };
        let decisions = decide(&mut disk, &policy)?;
        prune(&mut disk, &decisions, work()).map(drop)
    }),
    ("prune all but one", |store| {
        let mut disk = Disk::open(store, "web", Access::Write)?;
        let policy = Policy {
            last: Some("1".parse()?),
            ..Policy::default()
        };
        let decisions = decide(&mut disk, &policy)?;
        prune(&mut disk, &decisions, work()).map(drop)
    }),
];

#[test]
fn twice_the_snapshots_are_twice_the_calls() {
    let scratch = Scratch::new();
    let counts = [60, 120].map(|count| {
        let folder = scratch.folder(&Files::new());
        let store = folder.path().join("store");
        many(&store, "web", count, &WORKERS);
        for other in ["copied", "received"] {
            init(&store.join(other), STORE_VERSION).unwrap();
        }
        COMMANDS.map(|(name, command)| {
            let counts = Arc::new(Counts::default());
            let watch = watch(&store, Arc::clone(&counts) as _);
            command(&store).unwrap_or_else(|e| panic!("{name}: {e:?}"));
            drop(watch);
            counts.0.load(Ordering::Relaxed)
        })
    });
    for (n, (name, _)) in COMMANDS.iter().enumerate() {
        let [few, many] = [counts[0][n], counts[1][n]];
        println!("{name}: {few} calls for 60 snapshots, {many} for 120");
        assert!(many * 10 < few * 23, "{name}: {few}, then {many}");
    }
}
