//! Kills the real programs with SIGKILL, at random moments and at exact system calls, then goes on as a user would,
//! and compares what the images hold: nothing may ever be lost.
//!
//! ```text
//! cargo test --test faults kills                                                 a few kills of each writer
//! VHDKIT_KILLS=500 cargo test --release --test faults kills -- --nocapture       500 of each way to apply in place, a
//!                                                                         fifth of that of every other writer
//! ```
//!
//! On the file system of the temporary folder, and on those of ext4, XFS and btrfs that it isn't, on loop devices,
//! where they can be mounted;
//! where not, that is said. Even kills come at a random moment of the run, odd ones on the way into a system call
//! that was chosen at random among those that the run makes.
//!
//! Another test lets each kind of system call fail once, as a failing device or a full one would have it.

// The helpers of a test may end it as the test itself may.
mod failures;
mod job;
mod round;
mod store;
mod table;
mod writers;

use std::path::PathBuf;

use crate::disk::{Random, memory};
use crate::mounts::Mounted;
use table::{Row, Table};
use writers::Writer;

/// Kills of a way to apply in place when nothing else is asked for, and of every other writer.
const SHORT: [usize; 2] = [6, 3];

/// In a long run, every other writer gets one kill for so many of a way to apply in place.
const OTHERS: usize = 5;

#[test]
fn no_kill_loses_anything() {
    let asked = std::env::var("VHDKIT_KILLS").ok();
    let asked = asked.map(|text| {
        let number = text.parse::<usize>();
        number.unwrap_or_else(|_| panic!("VHDKIT_KILLS is no number: {text}"))
    });
    let only = std::env::var("VHDKIT_WRITER").unwrap_or_default();
    let places = places();
    let mut table = Table::begin();
    for writer in writers::all() {
        if !writer.name.contains(&only) {
            continue;
        }
        let kills = match asked {
            Some(kills) if writer.in_place => kills,
            Some(kills) => kills.div_ceil(OTHERS),
            None => SHORT[usize::from(!writer.in_place)],
        };
        let clones = |place: &&Place| !writer.clones || ["xfs", "btrfs"].contains(&place.name);
        let places: Vec<_> = places.iter().filter(clones).collect();
        kill(&writer, kills, &places, &mut table);
    }
    table.end();
}

/// Kills a writer so many times, evenly over the file systems, the first getting what is left over.
fn kill(writer: &Writer, kills: usize, places: &[&Place], table: &mut Table) {
    let mut random = Random::new(table.rows() as u64);
    let jobs = writer.jobs();
    let share = |n: usize| kills / places.len() + usize::from(n < kills % places.len());
    let shares: Vec<_> = (0..places.len())
        .map(|n| shares(share(n), jobs.len(), n))
        .collect();
    let mut rows: Vec<_> = places
        .iter()
        .map(|place| Row::new(writer.name, place.name))
        .collect();
    for (n, make) in jobs.iter().enumerate() {
        let shares: Vec<_> = shares.iter().map(|shares| shares[n]).collect();
        let Some(first) = shares.iter().position(|share| *share > 0) else {
            continue;
        };
        let job = make();
        // Those of one file system are much like those of the others.
        let points = round::trial_points(&job, &places[first].path());
        for ((place, share), row) in places.iter().zip(shares).zip(&mut rows) {
            if share > 0 {
                round::kills(&job, &points, &place.path(), share, &mut random, row);
            }
        }
    }
    for row in rows {
        table.add(row);
    }
}

/// Divides `kills` among `jobs`, beginning with another job in every turn.
fn shares(kills: usize, jobs: usize, turn: usize) -> Vec<usize> {
    let extra = |job: usize| usize::from((job + turn) % jobs < kills % jobs);
    (0..jobs).map(|job| kills / jobs + extra(job)).collect()
}

struct Place {
    name: &'static str,
    mount: Option<Mounted>,
}

impl Place {
    /// A folder on it.
    fn path(&self) -> PathBuf {
        match &self.mount {
            Some(mount) => mount.path(),
            None => std::env::temp_dir(),
        }
    }
}

fn places() -> Vec<Place> {
    let mounted = |name| {
        let mount = Some(Mounted::sized(name, 400 << 20, &memory())?);
        Some(Place { name, mount })
    };
    let places: Vec<_> = ["ext4", "xfs", "btrfs"]
        .into_iter()
        .filter_map(mounted)
        .collect();
    if places.is_empty() {
        let (name, mount) = ("temporary folder", None);
        return vec![Place { name, mount }];
    }
    places
}
