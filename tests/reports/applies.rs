//! Applying: what may pass for unchanged, what a diff promises, full devices, and other users of the machine.

use std::fs;
use std::os::unix::fs::FileExt as _;

use crate::disk::Random;
use crate::lab::{Case, Lab, tell};

const MIB: usize = 1 << 20;

/// Larger than what is read whatever its stamp says.
const LARGE: usize = 12 * MIB;

/// A page that no diff of these stories touches.
const ELSEWHERE: usize = 7 * MIB;

#[test]
fn applying() {
    tell("Applying", CASES);
}

const CASES: &[Case] = &[
    Case {
        name: "A store into a mapping after the stamp",
        before: "accepted, wrong image, 0",
        now: "the stamp is stale, 4",
        run: |lab| {
            disks(lab, LARGE);
            mapped(lab, "vhd hash --stamp base.raw");
            lab.shell("vhd-apply base.raw d.vhddiff").code(4);
            lab.shell("vhd-apply base.raw d.vhddiff -o new.raw").code(4);
            assert!(!lab.exists("new.raw"));
        },
    },
    Case {
        name: "A store into a mapping after the list of window hashes",
        before: "a changed page is missing from the diff, 0",
        now: "the list is of another state, 2",
        run: |lab| {
            disks(lab, LARGE);
            mapped(lab, "vhd hash --windows list base.raw");
            lab.shell("vhd-diff --base-digests list base.raw target.raw")
                .code(2)
                .says("another state");
        },
    },
    Case {
        name: "Stores into a mapping all through vhd hash --stamp",
        before: "0, a valid stamp with a wrong digest",
        now: "2, changed while it was read; no valid stamp",
        run: |lab| {
            disks(lab, LARGE);
            let script = "import mmap, subprocess, sys
f = open('base.raw', 'r+b'); m = mmap.mmap(f.fileno(), 0); m[0] = m[0]
p = subprocess.Popen(['vhd', 'hash', '--stamp', 'base.raw'])
n = 0
while p.poll() is None:
    for at in range(0, len(m), 1 << 20): m[at] = n & 255
    n += 1
sys.exit(p.returncode)";
            fs::write(lab.path("script.py"), script).unwrap();
            python(lab, "script.py")
                .code(2)
                .says("changed by another program");
            assert!(!valid(lab, "base.raw"));
        },
    },
    Case {
        name: "Written, stamped, written: 20 rounds without a pause",
        before: "a race on older kernels",
        now: "each later write makes the stamp stale",
        run: |lab| {
            disks(lab, LARGE);
            for n in 0..20_u8 {
                write(lab, "base.raw", n);
                lab.shell("vhd hash --stamp base.raw -q").code(0);
                write(lab, "base.raw", n + 1);
                assert!(!valid(lab, "base.raw"), "round {n}");
            }
        },
    },
    Case {
        name: "Applied, written, applied: 10 rounds without a pause",
        before: "a race on older kernels",
        now: "4 each time",
        run: |lab| {
            disks(lab, LARGE);
            for way in ["journal", "copy"].repeat(5) {
                lab.shell("cp base.raw w.raw").code(0);
                lab.shell(&format!("vhd-apply w.raw d.vhddiff -q --in-place {way}"))
                    .code(0);
                assert!(valid(lab, "w.raw"));
                write(lab, "w.raw", 99);
                lab.shell("vhd-apply w.raw d2.vhddiff -q").code(4);
            }
        },
    },
    Case {
        name: "A time of modification in the future",
        before: "stamped; a later write could leave the same time",
        now: "no stamp, no list, and how to go on",
        run: |lab| {
            disks(lab, LARGE);
            lab.shell("touch -d 2090-01-01 base.raw").code(0);
            lab.shell("vhd hash --stamp base.raw").code(3);
            lab.shell("vhd hash --windows list base.raw")
                .code(2)
                .says("touch base.raw");
            lab.shell("touch base.raw && vhd hash --windows list base.raw")
                .code(0);
        },
    },
    Case {
        name: "A diff with a wrong digest of its target, in place, each way",
        before: "0, stamped with the wrong digest",
        now: "3, the old image, no stamp, no journal",
        run: |lab| {
            disks(lab, LARGE);
            lie(lab, "d.vhddiff", "lie.vhddiff");
            let old = lab.read("base.raw");
            for way in ["journal", "copy", "auto"] {
                lab.shell(&format!("vhd-apply base.raw lie.vhddiff --in-place {way}"))
                    .code(3)
                    .says("not the target of the diff");
                assert!(lab.read("base.raw") == old && !valid(lab, "base.raw"));
                assert!(!lab.exists("base.raw.undo-journal"));
            }
            lab.shell("vhd-apply base.raw lie.vhddiff --undo undo")
                .code(3);
            lab.shell("vhd-apply base.raw lie.vhddiff --dry-run")
                .code(3);
            lab.shell("vhd-apply base.raw lie.vhddiff -o new.raw")
                .code(3);
            lab.shell("vhd convert base.raw b.vhd && vhd create child.vhd --parent b.vhd && vhd-apply child.vhd lie.vhddiff")
                .code(3);
            assert!(!lab.exists("undo") && !lab.exists("new.raw"));
        },
    },
    Case {
        name: "The same, to a base that is known by its stamp",
        before: "0, stamped with the wrong digest",
        now: "up to 8 MiB 3; larger 0, but no stamp, and the next apply reads",
        run: |lab| {
            disks(lab, 4 * MIB);
            lie(lab, "d.vhddiff", "lie.vhddiff");
            lab.shell("vhd hash --stamp base.raw && vhd-apply base.raw lie.vhddiff")
                .code(3);
            let lab = &Lab::new();
            disks(lab, LARGE);
            lie(lab, "d.vhddiff", "lie.vhddiff");
            lab.shell("vhd hash --stamp base.raw && vhd-apply base.raw lie.vhddiff --verify")
                .code(3);
            lab.shell("vhd-apply --rollback base.raw; vhd hash --stamp base.raw")
                .code(0);
            lab.shell("vhd-apply base.raw lie.vhddiff -v")
                .code(0)
                .says("digest");
            assert!(!valid(lab, "base.raw"));
            lie(lab, "d2.vhddiff", "lie2.vhddiff");
            lab.shell("vhd-apply base.raw lie2.vhddiff").code(3);
            lab.shell("vhd-apply base.raw d2.vhddiff").code(0);
            assert!(valid(lab, "base.raw"));
        },
    },
    Case {
        name: "--base-check full with a diff that has no digests",
        before: "0 with a note that -q silences",
        now: "2: it can't be done",
        run: |lab| {
            disks(lab, LARGE);
            lab.shell("vhd-diff --no-digest base.raw target.raw -o blind.vhddiff")
                .code(0);
            let old = lab.read("base.raw");
            for more in ["", "-o new.raw", "--dry-run"] {
                lab.shell(&format!(
                    "vhd-apply -q base.raw blind.vhddiff --base-check full {more}"
                ))
                .code(2)
                .says("--no-digest");
            }
            assert!(lab.read("base.raw") == old && !lab.exists("new.raw"));
            lab.shell("vhd-apply base.raw blind.vhddiff").code(0);
            assert!(lab.read("base.raw") == lab.read("target.raw"));
        },
    },
    Case {
        name: "A long write under way while the image is stamped",
        before: "its time is that of its beginning: reasoned, not seen",
        now: "waited for, or noticed: never a valid stamp with a wrong digest",
        run: |lab| {
            disks(lab, 64 * MIB);
            let script = "import os, subprocess, threading
fd = os.open('base.raw', os.O_RDWR); data = os.urandom(64 << 20)
t = threading.Thread(target=lambda: [os.pwrite(fd, data, 0) for _ in range(3)]); t.start()
for _ in range(6): subprocess.run(['vhd', 'hash', '--stamp', 'base.raw'], capture_output=True)
t.join()";
            fs::write(lab.path("script.py"), script).unwrap();
            python(lab, "script.py").code(0);
            right_or_none(lab, "base.raw");
        },
    },
];

/// A disk, one with a page changed, and one with that page changed again; diffs between them.
fn disks(lab: &Lab, size: usize) {
    let mut disk = Random::new(1).bytes(size);
    for (n, name) in ["base.raw", "target.raw", "third.raw"].iter().enumerate() {
        disk[4096..4608].copy_from_slice(&Random::new(n as u64 + 2).bytes(512));
        lab.file(name, &disk);
    }
    lab.shell("vhd-diff -q base.raw target.raw -o d.vhddiff")
        .code(0);
    lab.shell("vhd-diff -q target.raw third.raw -o d2.vhddiff")
        .code(0);
}

/// Changes a byte of the image, with a plain write.
fn write(lab: &Lab, name: &str, byte: u8) {
    let file = fs::File::options()
        .write(true)
        .open(lab.path(name))
        .unwrap();
    file.write_all_at(&[byte], ELSEWHERE as u64).unwrap();
}

/// Whether the image has a valid state stamp.
fn valid(lab: &Lab, name: &str) -> bool {
    let info = lab.shell(&format!("vhd info --json {name}")).code(0).out;
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    info["state_stamp"]["valid"] == true
}

/// A valid stamp must name what the image holds.
fn right_or_none(lab: &Lab, name: &str) {
    if valid(lab, name) {
        let digest = lab.shell(&format!("vhd hash {name}")).code(0).out;
        lab.shell(&format!("vhd info --json {name}"))
            .says(&digest[..64]);
    }
}

fn python(lab: &Lab, script: &str) -> crate::lab::Ended {
    let python = crate::disk::program("python");
    let python = python.get_program().to_str().unwrap();
    lab.shell(&format!("{python} {script}"))
}

/// Has a program map the image, make a page dirty, run `command`, and store into the same page once more.
fn mapped(lab: &Lab, command: &str) {
    let script = format!(
        "import mmap, os, subprocess
f = open('base.raw', 'r+b'); m = mmap.mmap(f.fileno(), 0); at = {ELSEWHERE}
m[at] = m[at]
subprocess.run('{command}'.split(), check=True)
before = os.stat('base.raw'); m[at] ^= 255; after = os.stat('base.raw')
assert before.st_mtime_ns != after.st_mtime_ns"
    );
    fs::write(lab.path("script.py"), script).unwrap();
    python(lab, "script.py").code(0);
}

/// Gives a diff another digest of its target, with everything else right.
fn lie(lab: &Lab, honest: &str, name: &str) {
    let target = if honest == "d.vhddiff" {
        "target.raw"
    } else {
        "third.raw"
    };
    let digest = hex(&lab.shell(&format!("vhd hash {target}")).code(0).out[..64]);
    let mut bytes = lab.read(honest);
    let at = bytes
        .windows(32)
        .rposition(|window| window == digest)
        .unwrap();
    bytes[at..at + 32].fill(7);
    let end = bytes.len() - 40;
    let hash = *blake3::hash(&bytes[..end]).as_bytes();
    bytes[end..end + 32].copy_from_slice(&hash);
    fs::write(lab.path(name), bytes).unwrap();
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}
