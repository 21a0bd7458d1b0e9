//! Block devices as base and as output, on loop devices. This needs root; without it the test says that it skips.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::mounts::Loop;

const SIZE: usize = 4 << 20;

/// A device, a base and a target of `SIZE` bytes, and the diff between them.
struct Lab {
    folder: tempfile::TempDir,
    device: Loop,
    base: Vec<u8>,
    target: Vec<u8>,
}

fn bytes(seed: u8) -> Vec<u8> {
    let page = |n: usize| [seed.wrapping_add(n.to_be_bytes()[7]) | 1; 512];
    (0..SIZE / 512).flat_map(page).collect()
}

impl Lab {
    /// Returns `None` where there are no loop devices. The device is `more` bytes larger than the disk.
    fn new(more: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let base = bytes(1);
        let mut target = base.clone();
        for n in (0..SIZE / 4096).step_by(2) {
            let page = &mut target[n * 4096..][..512];
            page.fill(if n % 8 == 0 { 0 } else { 0xC3 });
        }
        let at = |name: &str| folder.path().join(name);
        fs::write(at("disk"), [&base[..], &vec![0x77; more]].concat()).unwrap();
        fs::write(at("base.raw"), &base).unwrap();
        fs::write(at("target.raw"), &target).unwrap();
        let device = Loop::attach(&at("disk"))?;
        let lab = Self {
            folder,
            device,
            base,
            target,
        };
        let [base, target, diff] = ["base.raw", "target.raw", "diff"].map(|name| lab.at(name));
        ok(&mut lab.command("vhd-diff", [&base, &target, "-o".as_ref(), &diff]));
        Some(lab)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command<const N: usize>(&self, program: &str, args: [&Path; N]) -> Command {
        let mut command = Command::new(binary(program));
        command
            .args(args)
            .env("VHDKIT_STATE_DIR", self.at("state/of devices"));
        command
    }

    fn journals(&self) -> usize {
        fs::read_dir(self.at("state/of devices")).map_or(0, Iterator::count)
    }

    fn content(&self) -> Vec<u8> {
        fs::read(self.device.path()).unwrap()
    }

    fn rewind(&self) {
        fs::write(self.device.path(), &self.base).unwrap();
    }
}

fn binary(name: &str) -> &str {
    match name {
        "vhd" => env!("CARGO_BIN_EXE_vhd"),
        "vhd-diff" => env!("CARGO_BIN_EXE_vhd-diff"),
        "vhd-apply" => env!("CARGO_BIN_EXE_vhd-apply"),
        _ => name,
    }
}

fn ends(command: &mut Command, code: i32) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{command:?}: {said}");
    said
}

fn ok(command: &mut Command) -> String {
    ends(command, 0)
}

#[test]
fn a_device_is_base_and_output() {
    let Some(lab) = Lab::new(8192) else { return };
    let device = lab.device.path();
    let (diff, new) = (lab.at("diff"), lab.at("new.raw"));
    // As the base of a new image, and in place: only the part of a larger device that the disk covers counts.
    for args in [
        vec![device, &diff, "-o".as_ref(), &new],
        vec![device, &diff],
    ] {
        let mut command = lab.command("vhd-apply", []);
        let said = ok(command.args(&args));
        assert!(said.contains("its last 8192 bytes"), "{said}");
    }
    assert!(fs::read(&new).unwrap() == lab.target);
    let content = lab.content();
    assert!(content[..SIZE] == lab.target && content[SIZE..] == vec![0x77; 8192]);
    assert_eq!(lab.journals(), 0);
    let said = ok(&mut lab.command("vhd-apply", [device, &diff]));
    assert!(said.contains("nothing was written"), "{said}");
    // As an output, a device is used as a whole.
    let base = lab.at("base.raw");
    let convert = ["convert".as_ref(), base.as_path(), device];
    ends(&mut lab.command("vhd", convert), 2);
    let said = ok(lab.command("vhd", convert).arg("--force"));
    assert!(said.contains("half written"), "{said}");
    let content = lab.content();
    assert!(content[..SIZE] == lab.base && content[SIZE..] == vec![0; 8192]);
    ok(&mut lab.command("vhd", ["info".as_ref(), device]));
    ends(&mut lab.command("vhd", ["hash".as_ref(), device, &base]), 0);
    ok(lab
        .command("vhd-apply", [&base, &diff])
        .args(["--force", "-o"])
        .arg(device));
    assert!(lab.content()[..SIZE] == lab.target);
}

/// This includes the footer, if the device is as long as the file would be.
#[test]
fn a_fixed_vhd_that_fills_its_device_comes_out_byte_for_byte() {
    let Some(lab) = Lab::new(512) else { return };
    let device = lab.device.path();
    let [base, target, diff] = ["base.vhd", "target.vhd", "fixed"].map(|name| lab.at(name));
    for (raw, vhd) in [("base.raw", &base), ("target.raw", &target)] {
        let mut convert = lab.command("vhd", ["convert".as_ref(), &lab.at(raw), vhd]);
        ok(convert.args(["-O", "fixed"]));
    }
    ok(&mut lab.command("vhd-diff", [&base, &target, "-o".as_ref(), &diff]));
    fs::write(device, fs::read(&base).unwrap()).unwrap();
    ok(&mut lab.command("vhd-apply", [device, &diff]));
    assert!(lab.content() == fs::read(&target).unwrap());
}

#[test]
fn what_does_not_fit_a_device_leaves_it_as_it_is() {
    let Some(lab) = Lab::new(0) else { return };
    let device = lab.device.path();
    let before = lab.content();
    let (large, diff) = (lab.at("large.raw"), lab.at("grows"));
    fs::write(&large, bytes(9).repeat(2)).unwrap();
    ok(&mut lab.command(
        "vhd-diff",
        [&lab.at("base.raw"), &large, "-o".as_ref(), &diff],
    ));
    let said = ends(&mut lab.command("vhd-apply", [device, &diff]), 2);
    assert!(said.contains("from 4194304 to 8388608 bytes"), "{said}");
    let said = ends(
        lab.command("vhd", ["convert".as_ref(), &large, device])
            .arg("--force"),
        2,
    );
    assert!(
        said.contains("too small") && said.contains("at least 8388608"),
        "{said}"
    );
    assert!(lab.content() == before);
    // A dynamic VHD may grow.
    ok(lab
        .command("vhd", ["create".as_ref(), &lab.at("d.vhd")])
        .args(["--size", "4M"]));
    let vhd = fs::read(lab.at("d.vhd")).unwrap();
    fs::write(device, [&vhd[..], &vec![0; SIZE - vhd.len()]].concat()).unwrap();
    let zeros = lab.at("zeros.raw");
    fs::write(&zeros, vec![0; SIZE]).unwrap();
    ok(&mut lab.command(
        "vhd-diff",
        [&zeros, &lab.at("base.raw"), "-o".as_ref(), &lab.at("z")],
    ));
    let said = ends(&mut lab.command("vhd-apply", [device, &lab.at("z")]), 2);
    assert!(said.contains("never grows"), "{said}");
}

#[test]
fn a_device_that_is_mounted_is_refused() {
    let Some(lab) = Lab::new(60 << 20) else {
        return;
    };
    let device = lab.device.path();
    let (disk, place) = (lab.at("disk"), lab.at("mounted"));
    let run = |name: &str, args: &[&Path]| Command::new(name).args(args).output().unwrap().status;
    assert!(run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), device]).success());
    fs::create_dir(&place).unwrap();
    if !run("mount", &[device, &place]).success() {
        println!("NOT TESTED with a mounted device");
        return;
    }
    let (before, base) = (fs::read(&disk).unwrap(), lab.at("base.raw"));
    let convert = [
        "convert".as_ref(),
        base.as_path(),
        device,
        "--force".as_ref(),
    ];
    let said = lab.command("vhd", convert).output().unwrap();
    let after = fs::read(&disk).unwrap();
    assert!(run("umount", &[&place]).success());
    assert_eq!(said.status.code(), Some(5), "{said:?}");
    assert!(
        String::from_utf8_lossy(&said.stderr).contains("unmount"),
        "{said:?}"
    );
    assert!(before == after);
}

/// Kills the apply at regular intervals among the calls of each kind, then finishes it or rolls it back.
#[test]
fn a_killed_apply_to_a_device_is_finished_or_taken_back() {
    let Some(lab) = Lab::new(512) else { return };
    let (mut kills, mut between) = (0, 0);
    for (call, step) in [("pwrite64", 31), ("fallocate", 31), ("fsync", 1)] {
        let mut n = 1;
        loop {
            let ends = [true, false].map(|finish| killed_at(&lab, call, n, finish));
            kills += ends.iter().filter(|(killed, _)| *killed).count();
            between += ends.iter().filter(|(_, between)| *between).count();
            if !ends.iter().any(|(killed, _)| *killed) {
                break;
            }
            n += step;
        }
    }
    println!("{kills} kills, {between} of them between two points in time, 0 losses");
    assert!(
        kills > 20 && between > 5,
        "{kills} kills, {between} between"
    );
}

/// Kills an apply at its `n`-th `call` and recovers. Returns whether it was killed, and whether the device then held
/// neither the base nor the target.
fn killed_at(lab: &Lab, call: &str, n: usize, finish: bool) -> (bool, bool) {
    let (device, diff) = (lab.device.path(), lab.at("diff"));
    lab.rewind();
    let mut strace = lab.command("strace", []);
    strace
        .args(["-f", "-o", "/dev/null", "-e"])
        .arg(format!("inject={call}:signal=SIGKILL:when={n}"))
        .arg(binary("vhd-apply"))
        .args([device, &diff])
        .args(["--threads", "1"]);
    let ended = strace
        .output()
        .unwrap_or_else(|e| panic!("strace, which tests/run installs: {e}"));
    let killed = ended.status.signal() == Some(9) || ended.status.code() == Some(137);
    assert!(killed || ended.status.success(), "{ended:?}");

    let found = lab.content();
    let between = found[..SIZE] != lab.base && found[..SIZE] != lab.target;
    let looked = lab
        .command("vhd", ["hash".as_ref(), device])
        .output()
        .unwrap();
    let pending = looked.status.code() == Some(5);
    let said = String::from_utf8_lossy(&looked.stderr);
    assert!(pending || !between, "{call} {n}: {said}");
    assert!(!pending || said.contains("--journal-dir '"), "{said}");
    let expected = if pending && !finish {
        ok(lab.command("vhd-apply", [device]).arg("--rollback"));
        &lab.base
    } else {
        ok(&mut lab.command("vhd-apply", [device, &diff]));
        &lab.target
    };
    let found = lab.content();
    assert!(
        found[..SIZE] == *expected && found[SIZE..] == [0x77; 512],
        "{call} {n}"
    );
    assert_eq!(lab.journals(), 0, "{call} {n}");
    (killed, between)
}
