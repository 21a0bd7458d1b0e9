//! What changes a store of points in time.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use crate::disk::{Random, program, run, write_sparse};
use crate::kills::job::{Job, command, files_in, words};
use crate::kills::round::{State, ends};
use crate::kills::writers::{Make, each};

/// The folder of the store.
pub(crate) const STORE: &str = "store/";

const MIB: usize = 1 << 20;

/// A disk at five times.
static DISKS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut random = Random::new(7);
    let mut disk = random.bytes(3 * MIB);
    disk.resize(5 * MIB, 0);
    let mut disks = vec![disk.clone()];
    for day in 1..5 {
        for _ in 0..12 {
            let at = random.below(disk.len() / 512 - 64) * 512;
            let len = 512 * (1 + random.below(64));
            let bytes = random.bytes(len);
            disk[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        disk[(day * 700) << 10..][..256 << 10].fill(0);
        disks.push(disk.clone());
    }
    disks
});

/// The snapshots that a store has before and after: their names and content digests, as it lists them.
#[derive(Debug, Default)]
pub(crate) struct Store {
    old: Vec<Point>,
    new: Vec<Point>,
}

type Point = [String; 2];

impl Store {
    /// Which of its snapshots are there. An error if one is gone that should be, or reads as something else.
    pub(crate) fn state(&self, folder: &Path) -> Result<State, String> {
        let found = listed(folder)?;
        let line = "vhd snapshot verify --store store --read-data -q";
        ends(command(&words(line), folder), 0)?;
        if found == self.new {
            return Ok(State::New);
        }
        if found == self.old {
            return Ok(State::Old);
        }
        let stay = self.old.iter().filter(|point| self.new.contains(point));
        let known = |point: &Point| self.old.contains(point) || self.new.contains(point);
        let lost = stay.clone().any(|point| !found.contains(point));
        if lost || !found.iter().all(known) {
            return Err(format!("it has {found:?}"));
        }
        Ok(State::Between)
    }

    /// All is as it shall be, another snapshot can be made, and nothing is left.
    pub(crate) fn ends_well(&self, folder: &Path) -> Result<(), String> {
        match self.state(folder)? {
            State::New => {}
            state => return Err(format!("afterwards it is {state:?}")),
        }
        let line = "vhd snapshot create --init --store store --disk web --name last last.raw -q";
        ends(command(&words(line), folder), 0)?;
        let stray = [".vhdkit-", ".new", ".part", "deleting", "journal"];
        for (name, _) in files_in(&folder.join(STORE)) {
            if stray.iter().any(|part| name.contains(part)) {
                return Err(format!("{name} is left"));
            }
        }
        Ok(())
    }
}

/// The snapshots that `vhd snapshot list` knows.
fn listed(folder: &Path) -> Result<Vec<Point>, String> {
    let output = command(&words("vhd snapshot list --store store --json"), folder)
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let complete = |point: &&serde_json::Value| point["state"] == "complete";
    let points = found["disks"][0]["snapshots"].as_array();
    let points = points.into_iter().flatten().filter(complete);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    Ok(points
        .map(|point| [text(&point["name"]), text(&point["content_digest"])])
        .collect())
}

fn add(job: &Job, store: &str, n: usize) {
    write_sparse(&job.seed.path("image.raw"), &DISKS[n]);
    let line =
        format!("vhd snapshot create --init --store {store} --disk web --name s{n} image.raw -q");
    let line = if n == 2 {
        line + " --tag keep=yes"
    } else {
        line
    };
    run(&mut command(&words(&line), &job.seed.path("")));
    fs::remove_file(job.seed.path("image.raw")).unwrap();
}

/// A job of `line` on a store of this version and of so many snapshots, once `prepare` has laid out the rest.
fn job(line: &str, version: u32, count: usize, prepare: impl FnOnce(&Job)) -> Job {
    let name = format!("{line} (version {version})");
    fill(Job::new(&name, line, ""), version, count, prepare)
}

fn init(job: &Job, store: &str, version: u32) {
    let how = if version == 3 {
        "--encrypt".to_owned()
    } else {
        format!("--store-version {version}")
    };
    let line = format!("vhd snapshot init {how} {store} -q");
    run(&mut command(&words(&line), &job.seed.path("")));
}

fn fill(mut job: Job, version: u32, count: usize, prepare: impl FnOnce(&Job)) -> Job {
    init(&job, "store", version);
    for n in 0..count {
        add(&job, "store", n);
    }
    prepare(&job);
    write_sparse(&job.seed.path("last.raw"), &DISKS[1]);
    let mut store = Store {
        old: listed(&job.seed.path("")).unwrap(),
        ..Store::default()
    };
    let trial = job.lay_out(&crate::disk::memory());
    run(&mut job.command(trial.path()));
    store.new = listed(trial.path()).unwrap();
    for [name, _] in &store.new {
        let line = format!("vhd snapshot restore --store store {name} -o restored.raw --force -q");
        run(&mut command(&words(&line), trial.path()));
        let n: usize = name[1..].parse().unwrap();
        assert!(fs::read(trial.path().join("restored.raw")).unwrap() == DISKS[n]);
    }
    job.store = Some(store);
    job
}

/// With each version of stores; those of version 3 are encrypted.
fn versions<T: Copy>(case: T) -> [(T, u32); 3] {
    [(case, 2), (case, 1), (case, 3)]
}

pub(crate) fn create() -> Vec<Make> {
    let line = "vhd snapshot create --store store --disk web --name s2 -q";
    let whats = ["image.raw", "--full image.raw", "--diff diff"];
    each(
        whats.into_iter().flat_map(versions),
        move |(what, version)| {
            job(&format!("{line} {what}"), version, 2, |job| {
                write_sparse(&job.seed.path("image.raw"), &DISKS[2]);
                if what.contains("diff") {
                    write_sparse(&job.seed.path("before.raw"), &DISKS[1]);
                    let line = "vhd-diff before.raw image.raw -o diff -q";
                    run(&mut command(&words(line), &job.seed.path("")));
                }
            })
        },
    )
}

pub(crate) fn delete() -> Vec<Make> {
    let names = ["s0", "s1", "s2"].into_iter().flat_map(versions);
    each(names, |(name, version)| {
        job(
            &format!("vhd snapshot delete --store store {name} -q"),
            version,
            3,
            |_| {},
        )
    })
}

pub(crate) fn prune() -> Vec<Make> {
    let rules = ["--keep-last 1 --keep-tag keep", "--keep-last 2"];
    each(rules.into_iter().flat_map(versions), |(rules, version)| {
        job(
            &format!("vhd snapshot prune --store store {rules} -q"),
            version,
            5,
            |_| {},
        )
    })
}

/// Lays out another store, of which this one has the first snapshot.
fn other(job: &Job, version: u32) {
    init(job, "other", version);
    add(job, "other", 0);
    let line = "vhd snapshot copy --init --store other --to store -q";
    run(&mut command(&words(line), &job.seed.path("")));
    for n in 1..3 {
        add(job, "other", n);
    }
}

pub(crate) fn copy() -> Vec<Make> {
    each(versions(()), |((), version)| {
        let line = "vhd snapshot copy --init --store other --to store -q";
        job(line, version, 0, |job| other(job, version))
    })
}

pub(crate) fn receive() -> Vec<Make> {
    each(versions(()), |((), version)| {
        // The shell becomes the program.
        let vhd = program("vhd").get_program().to_str().unwrap().to_owned();
        let line = format!("exec {vhd} snapshot receive --init --store store -q < stream");
        let mut job = Job::new("vhd snapshot receive", "", "");
        job.words = vec!["sh".to_owned(), "-c".to_owned(), line];
        fill(job, version, 0, |job| {
            other(job, version);
            let line = "vhd snapshot send --store other -q";
            let sent = run(&mut command(&words(line), &job.seed.path("")));
            fs::write(job.seed.path("stream"), sent.stdout).unwrap();
        })
    })
}
