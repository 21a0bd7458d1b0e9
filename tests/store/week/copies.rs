//! The copy to the second store, killed five times on the way.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::disk::{Random, assert_same, command, content, run};
use crate::store::lab::{Lab, ends};

/// What tells whether a file was touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl State {
    pub(crate) fn of(path: &Path) -> Self {
        let found = fs::metadata(path).unwrap();
        Self {
            inode: found.ino(),
            length: found.len(),
            changed: (found.mtime(), found.mtime_nsec()),
        }
    }
}

/// Bytes up to which an interrupted copy may have to go back.
const PIECE: u64 = 1 << 20;

/// Copies the store to `second`. The first five copies are killed at random places, two in the base and three in the
/// diffs; the sixth one ends.
pub(crate) fn interrupted_five_times(lab: &Lab) {
    let all = data(&lab.path("store/web"));
    let total: u64 = all.values().map(|state| state.length).sum();
    let base = all.iter().find(|(name, _)| ends(name, "vhd")).unwrap().1;
    let (half, quarter) = (base.length / 2, (total - base.length) / 4);
    let behind = |n| (base.length + quarter * n, quarter);
    let mut random = Random::new(5);
    let (mut at, mut kills) = (0, Vec::new());
    for (from, len) in [(0, half), (half, half), behind(0), behind(1), behind(2)] {
        let complete = complete(lab);
        let goal = from + 1 + random.next() % len;
        let mut running = lab.command(
            "vhd",
            // Slow enough to be stopped on the way, whatever else the machine does.
            &[
                "snapshot",
                "copy",
                "--init",
                "--to",
                "second",
                "-q",
                "--limit-rate",
                "20M",
            ],
        );
        let running = running.stderr(Stdio::inherit()).spawn().unwrap();
        at = kill_at(lab, running, at, goal);
        assert!(at < total, "killed too late, at {at} of {total}");
        assert_untouched(lab, &complete);
        assert_under_way(lab);
        kills.push(at * 100 / total);
    }
    println!("copies killed at {kills:?} % of {total} bytes");

    let complete = complete(lab);
    assert!(!complete.is_empty());
    let copied = lab.json(&["copy", "--init", "--to", "second"]);
    let bytes = copied["disks"][0]["copied_bytes"].as_u64().unwrap();
    assert!(
        bytes <= total - at + PIECE,
        "{bytes} copied, of {total} there were {at}"
    );
    assert_untouched(lab, &complete);
    let far = data(&lab.path("second/web"));
    assert_eq!(
        far.keys().collect::<Vec<_>>(),
        all.keys().collect::<Vec<_>>()
    );
    for name in all.keys() {
        let [here, there] = ["store/web", "second/web"].map(|disk| lab.path(disk).join(name));
        assert_same(&content(there), &content(here), name);
    }
}

/// Stops the copy again and again to see how far it has come, and kills it while it is stopped at `goal` or behind it.
/// It goes on from `start`. Gives the bytes that are there.
fn kill_at(lab: &Lab, mut running: Child, start: u64, goal: u64) -> u64 {
    let pid = running.id().to_string();
    loop {
        run(&mut command!("kill", "-STOP", &pid));
        if let Some(status) = running.try_wait().unwrap() {
            panic!(
                "the copy ended before it was killed ({status}), but should have been stopped at {goal}"
            );
        }
        let at = progress(lab);
        assert!(
            at + PIECE > start,
            "the copy began anew: {at} bytes are there, {start} were"
        );
        if at >= goal {
            running.kill().unwrap();
            running.wait().unwrap();
            // Being stopped takes a moment.
            return progress(lab);
        }
        run(&mut command!("kill", "-CONT", &pid));
    }
}

/// Bytes of snapshots in the second store, complete or not.
fn progress(lab: &Lab) -> u64 {
    let folder = lab.path("second/web");
    if !folder.exists() {
        return 0;
    }
    data(&folder).values().map(|state| state.length).sum()
}

/// The files with the data of snapshots, also of those that are on their way.
fn data(folder: &Path) -> BTreeMap<String, State> {
    let names = fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let is_data = |name: &String| {
        let name = name.strip_suffix(".part").unwrap_or(name);
        ends(name, "vhd") || ends(name, "vhddiff")
    };
    // A copy that runs may have renamed it since.
    let state = |name: String| {
        let path = folder.join(&name);
        path.exists().then(|| (name, State::of(&path)))
    };
    names.filter(is_data).filter_map(state).collect()
}

/// What is complete in the second store: its data, and how it is.
fn complete(lab: &Lab) -> BTreeMap<String, State> {
    let folder = lab.path("second/web");
    if !folder.exists() {
        return BTreeMap::new();
    }
    let mut files = data(&folder);
    files.retain(|name, _| {
        let manifest = Path::new(name).with_extension("json");
        folder.join(manifest).exists()
    });
    files
}

fn assert_untouched(lab: &Lab, complete: &BTreeMap<String, State>) {
    for (name, before) in complete {
        let now = State::of(&lab.path("second/web").join(name));
        assert_eq!(&now, before, "{name} was complete, and was touched");
    }
}

/// The commands see the same: complete snapshots, then one at most that is on its way.
fn assert_under_way(lab: &Lab) {
    let listed = lab.json(&["list", "--store", "second", "--disk", "web"]);
    let points = listed["disks"][0]["snapshots"].as_array().unwrap();
    assert!(points.len() <= 8);
    let usable = points.iter().filter(|point| {
        let percent = point["completion_percent"].as_u64().unwrap();
        assert_eq!(point["state"] == "complete", percent == 100);
        percent == 100
    });
    assert!(usable.count() + 1 >= points.len() && !points.is_empty());
}
