//! Stores on file systems that are full or read-only: reading always goes on, and nothing is lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::disk::{Random, TestFolder, assert_same, content, memory, program};
use crate::mounts::Mounted;

const MIB: usize = 1 << 20;

/// A store on a small file system, and what its snapshots hold.
struct Small {
    mounted: Mounted,
    outside: TestFolder,
    states: Vec<(char, Vec<u8>)>,
}

impl Small {
    /// Three snapshots of a disk; each later one has 3 MiB of new data.
    fn new(kind: &'static str) -> Option<Self> {
        let mounted = Mounted::sized(kind, 40 << 20, &memory())?;
        let outside = TestFolder::new();
        let mut random = Random::new(9);
        let mut bytes = random.bytes(6 * MIB);
        let mut states = Vec::new();
        for name in ['a', 'b', 'c'] {
            states.push((name, bytes.clone()));
            let at = random.below(3 * MIB / 512) * 512;
            bytes[at..at + 3 * MIB].copy_from_slice(&random.bytes(3 * MIB));
            // What it leaves is a hole, so that a base brought forward needs room.
            bytes[5 * MIB..].fill(if name == 'a' { 0 } else { 7 });
        }
        let small = Self {
            mounted,
            outside,
            states,
        };
        let store = small.store();
        small.good(&[
            "init",
            "-q",
            "--store-version",
            "1",
            store.to_str().unwrap(),
        ]);
        for (name, bytes) in &small.states {
            let image = small.outside.file("image", bytes);
            let image = image.to_str().unwrap();
            let name = name.to_string();
            small.good(&["create", "-q", "--disk", "web", "--name", &name, image]);
        }
        Some(small)
    }

    fn store(&self) -> PathBuf {
        self.mounted.path().join("store")
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = program("vhd");
        command.arg("snapshot").args(args);
        command.current_dir(self.outside.path("."));
        command.env("VHDKIT_STORE", self.store()).output().unwrap()
    }

    fn good(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        said
    }

    /// Every reading command does its work, and each snapshot of `needed` is there and holds what it did. Others may be.
    fn reads(&self, needed: &str) -> String {
        self.good(&["verify", "--read-data"]);
        let listed: serde_json::Value = serde_json::from_str(&{
            let output = self.run(&["list", "--json", "-q"]);
            assert!(output.status.success());
            String::from_utf8(output.stdout).unwrap()
        })
        .unwrap();
        let points = listed["disks"][0]["snapshots"].as_array().unwrap();
        let names: String = points.iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert!(needed.chars().all(|name| names.contains(name)), "{names}");
        for (name, bytes) in self.states.iter().filter(|(name, _)| names.contains(*name)) {
            let name = name.to_string();
            self.good(&["restore", &name, "-o", "restored", "--force"]);
            assert_same(&content(self.outside.path("restored")), bytes, &name);
            self.good(&["show", &name]);
            self.good(&["hash", &name]);
        }
        let (first, last) = (&names[..1], &names[names.len() - 1..]);
        self.good(&["diff", first, last, "-o", "diff", "--force"]);
        let copied = self.outside.path("copied");
        let _ = fs::remove_dir_all(&copied);
        // Files are copied as they are: not in the middle of a change to the base, which is told as that.
        for args in [
            &["copy", "--init", "--to", copied.to_str().unwrap()][..],
            &["send", "-q"],
        ] {
            let output = self.run(args);
            let said = String::from_utf8_lossy(&output.stderr);
            let told =
                output.status.code() == Some(5) && said.contains("interrupted while it changed");
            assert!(output.status.success() || told, "{args:?}: {said}");
        }
        names
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store().join("web")).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Leaves `free` bytes, about.
    fn fill(&self, free: u64) -> PathBuf {
        use std::io::Write as _;
        let path = self.mounted.path().join("filler");
        let mut file = fs::File::create(&path).unwrap();
        let piece = [1; 4096];
        while file.write_all(&piece).is_ok() {}
        let _ = file.sync_all();
        let len = file.metadata().unwrap().len();
        file.set_len(len.saturating_sub(free)).unwrap();
        file.sync_all().unwrap();
        path
    }
}

fn no_leftovers(files: &[String]) {
    let stray = |file: &&String| {
        [".new", ".tmp", ".part", "journal", "deleting"]
            .iter()
            .any(|part| file.contains(part))
    };
    assert_eq!(files.iter().find(stray), None, "{files:?}");
}

#[test]
#[ignore = "mounts file systems: needs root"]
fn deletions_without_room_close_nothing() {
    const LEVELS: [u64; 16] = [
        0, 4, 8, 16, 32, 64, 128, 512, 1024, 2048, 3072, 3500, 4096, 5000, 6500, 8192,
    ];
    const COMMANDS: [&[&str]; 4] = [
        &["delete", "a"],
        &["delete", "b"],
        &["delete", "c"],
        &["prune", "--keep-last", "1"],
    ];
    // Smaller ones of btrfs aren't to be had.
    for kind in ["ext4", "tmpfs"] {
        let ends = Mutex::new(BTreeMap::new());
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            // More than there are processors: each mostly waits.
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        let Some(free) = LEVELS.get(n / COMMANDS.len()) else {
                            return;
                        };
                        let command = COMMANDS[n % COMMANDS.len()];
                        let Some(end) = deletion(kind, *free, command) else {
                            return;
                        };
                        *ends.lock().unwrap().entry(end).or_insert(0) += 1;
                    }
                });
            }
        });
        let ends = ends.into_inner().unwrap();
        println!("{kind}: {ends:?}");
        let many = |end| ends.get(end).is_some_and(|count| *count > 5);
        assert!(ends.is_empty() || many("done") && many("refused and taken back"));
    }
}

/// Runs a command that deletes, with so many KiB free, and says how it ended; `None` where nothing can be mounted.
fn deletion(kind: &'static str, free: u64, command: &[&str]) -> Option<&'static str> {
    let small = Small::new(kind)?;
    let filler = small.fill(free << 10);
    let output = small.run(command);
    let kept = match command[1] {
        "a" => "bc",
        "b" => "ac",
        "c" => "ab",
        _ => "c",
    };
    let names = small.reads(kept);
    let end = match (output.status.code(), names.len() > kept.len()) {
        (Some(0), false) => "done",
        (Some(2), true) => "refused and taken back",
        (Some(2), false) => "to be finished",
        other => panic!("{kind}, {free} KiB, {command:?}: {other:?}"),
    };
    fs::remove_file(filler).unwrap();
    // With room the next command finishes, or does what was refused.
    let image = small.outside.file("image", &small.states[0].1);
    let image = image.to_str().unwrap();
    small.good(&["create", "--disk", "web", "--name", "d", image]);
    no_leftovers(&small.files());
    small.reads(kept);
    Some(end)
}

#[test]
#[ignore = "mounts file systems: needs root"]
fn a_read_only_store_is_read_whatever_was_left_in_it() {
    let Some(small) = Small::new("ext4") else {
        return;
    };
    let web = small.store().join("web");
    let rename = |from: &str, to: &str| fs::rename(web.join(from), web.join(to)).unwrap();
    for lock in [true, false] {
        rename("000003-c.vhddiff", "000003-c.vhddiff.new");
        fs::write(web.join("000004-d.vhddiff.new"), b"half").unwrap();
        fs::write(web.join(".vhdkit-x.tmp"), b"half").unwrap();
        if !lock {
            let _ = fs::remove_file(web.join("lock"));
        }
        small.mounted.remount("ro");
        small.reads("abc");
        let refused = small.run(&["delete", "c"]);
        assert_eq!(refused.status.code(), Some(2));
        small.mounted.remount("rw");
        small.good(&["repair"]);
        no_leftovers(&small.files());
    }
    // A deletion that was killed while the base was being brought forward.
    let mut between = 0;
    for round in 0..12 {
        let Some(small) = Small::new("ext4") else {
            return;
        };
        let mut child = program("vhd");
        child.args(["snapshot", "delete", "-q", "a"]);
        let mut child = child.env("VHDKIT_STORE", small.store()).spawn().unwrap();
        let web = small.store().join("web");
        let journal = web.join("000001-a.vhd.undo-journal");
        while !journal.exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
        std::thread::sleep(std::time::Duration::from_micros(300 * round));
        let _ = child.kill();
        child.wait().unwrap();
        between += u32::from(is_there(&journal));
        small.mounted.remount("ro");
        small.reads("bc");
        small.mounted.remount("rw");
        small.good(&["repair"]);
        no_leftovers(&small.files());
        small.reads("bc");
    }
    assert!(between > 0, "none was killed in the middle");
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
