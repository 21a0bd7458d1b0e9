//! A week of a disk that QEMU writes, with QEMU's own record of what changed.

use std::fs;
use std::process::Stdio;

use crate::disk::{Random, TestFolder, program, run};

const SIZE: usize = 128 << 20;

/// A disk of 128 MiB: QEMU keeps its data in a plain file, and the bitmaps beside it.
struct Machine<'a>(&'a TestFolder);

impl Machine<'_> {
    fn new(lab: &TestFolder) -> Machine<'_> {
        run(program("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-o"])
            .arg("data_file=disk.raw,data_file_raw=on")
            .args(["disk.qcow2", "128M"])
            .current_dir(lab.path("")));
        Machine(lab)
    }

    fn writes(&self, commands: &[String]) {
        let mut qemu = program("qemu-io");
        qemu.args(["-f", "qcow2"]).current_dir(self.0.path(""));
        for command in commands {
            qemu.args(["-c", command]);
        }
        run(qemu.arg("disk.qcow2"));
    }

    fn bitmap(&self, how: &str, name: &str) {
        run(program("qemu-img")
            .args(["bitmap", how, "disk.qcow2", name])
            .current_dir(self.0.path("")));
    }

    /// What was written since the bitmap `name` was added, in JSON.
    fn changes(&self, name: &str) -> Vec<u8> {
        let map = format!("--map=qemu:dirty-bitmap:{name}");
        run(program("nbdinfo")
            .args(["--json", &map, "--", "[", "qemu-nbd", "-r", "-f", "qcow2"])
            .args(["-B", name, "disk.qcow2", "]"])
            .current_dir(self.0.path("")))
        .stdout
    }
}

/// Runs a command on the store, with `changes` on its stdin.
fn with_changes(lab: &TestFolder, args: &[&str], changes: &[u8]) -> serde_json::Value {
    fs::write(lab.path("list"), changes).unwrap();
    let mut command = program("vhd");
    command
        .args([
            "snapshot",
            args[0],
            "--json",
            "--store",
            "store",
            "--changes",
            "-",
        ])
        .args(&args[1..])
        .current_dir(lab.path(""))
        .stdin(Stdio::from(fs::File::open(lab.path("list")).unwrap()));
    serde_json::from_slice(&run(&mut command).stdout).unwrap()
}

#[test]
fn a_week_costs_what_the_bitmaps_of_qemu_say() {
    const DAYS: usize = 7;
    let lab = TestFolder::new();
    let machine = Machine::new(&lab);
    let mut random = Random::new(19);
    fs::write(lab.path("first"), random.bytes(SIZE)).unwrap();
    let first = format!("write -s {} 0 128M", lab.path("first").display());
    machine.writes(&[first]);
    let create = |name: &str| {
        run(program("vhd")
            .args([
                "snapshot", "create", "-q", "--init", "--store", "store", "--disk", "web", "--name",
            ])
            .args([name, "disk.raw"])
            .current_dir(lab.path("")))
    };
    create("day0");
    fs::copy(lab.path("disk.raw"), lab.path("day0")).unwrap();
    for day in 1..=DAYS {
        let (before, name) = (format!("day{}", day - 1), format!("day{day}"));
        machine.bitmap("--add", &before);
        let mut writes = Vec::new();
        for n in 0..3 {
            let at = random.below(SIZE - (256 << 10)) / 512 * 512;
            let len = 512 * (1 + random.below(500));
            writes.push(match n {
                0 => format!("write -z {at} {len}"),
                _ => format!("write -P {} {at} {len}", 1 + random.below(250)),
            });
        }
        machine.writes(&writes);
        let changes = machine.changes(&before);
        let made = with_changes(
            &lab,
            &[
                "create",
                "--disk",
                "web",
                "--name",
                &name,
                "--check-changes",
                "1%",
                "disk.raw",
            ],
            &changes,
        );
        // Each write is within two windows: of a MiB in the image, of four in the packed base. A hundredth of the rest
        // is compared as well.
        let read = made["bytes_read"].as_u64().unwrap();
        assert!(
            read < 64 << 20,
            "{read} bytes were read of two disks of 128 MiB: {made}"
        );
        fs::copy(lab.path("disk.raw"), lab.path(&name)).unwrap();
        machine.bitmap("--remove", &before);
    }
    let same = |what: &str, day: &str| {
        run(program("vhd-diff")
            .args(["-q", what, day])
            .current_dir(lab.path("")));
    };
    for day in 0..=DAYS {
        let day = format!("day{day}");
        same(&format!("store::web@{day}"), &day);
    }
    // Back by two days, by what was written since.
    machine.bitmap("--add", "day7");
    machine.writes(&["write -P 3 9M 64k".to_owned()]);
    let changes = machine.changes("day7");
    with_changes(
        &lab,
        &["restore", "day7", "--in-place", "-o", "disk.raw"],
        &changes,
    );
    same("disk.raw", "day7");
}
