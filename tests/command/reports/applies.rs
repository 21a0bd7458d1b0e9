//! Applying: what may pass for unchanged, what a diff promises, full devices, and other users of the machine.

use std::fs;
use std::os::unix::fs::FileExt as _;

use crate::disk::Random;
use crate::mounts::Mounted;
use crate::reports::lab::{Case, Lab, tell};

const MIB: usize = 1 << 20;

/// Larger than what is read whatever its stamp says.
const LARGE: usize = 12 * MIB;

/// A page that no diff of these stories touches.
const ELSEWHERE: usize = 7 * MIB;

#[test]
fn applying() {
    tell("Applying", CASES);
}

/// Ways in which ordinary programs change a file, as Python has them: `f` is open, `m` is mapped and has a dirty page.
const WRITERS: [(&str, &str); 6] = [
    ("a store into a page that was dirty", "m[at] ^= 255"),
    ("a store into a page that was clean", "m[at + 65536] ^= 255"),
    ("a write", "os.pwrite(f.fileno(), b'x', at)"),
    (
        "a direct write",
        "d = os.open('base.raw', os.O_RDWR | os.O_DIRECT); b = mmap.mmap(-1, 4096); os.pwrite(d, b, at)",
    ),
    (
        "a cut and back",
        "os.truncate('base.raw', at); os.truncate('base.raw', len(m))",
    ),
    (
        "a hole",
        "subprocess.run(['fallocate', '-p', '-o', str(at), '-l', '4096', 'base.raw'], check=True)",
    ),
];

/// What times prove, on file systems made for it.
#[test]
#[ignore = "needs root and loop devices"]
fn file_systems() {
    println!("| file system | times in | stamps and lists | later changes that were noticed |");
    println!("| --- | --- | --- | --- |");
    for mounted in Mounted::all(&["ext4", "ext3", "xfs", "btrfs", "tmpfs", "ramfs"]) {
        let what = mounted.kind();
        let lab = &Lab::within(&mounted.path());
        disks(lab, LARGE);
        let stamps = !["tmpfs", "ramfs"].contains(&what);
        if !stamps {
            lab.shell("vhd hash --stamp base.raw").code(3);
            lab.shell("vhd hash --windows list base.raw")
                .code(2)
                .says("in memory");
            lab.shell("vhd-apply base.raw d.vhddiff").code(0);
            assert!(!valid(lab, "base.raw"), "{what}");
            assert!(!lab.exists("base.raw.windows"), "{what}");
            println!("| {what} | nanoseconds | none | |");
            continue;
        }
        for (writer, code) in WRITERS {
            for list in [false, true] {
                lab.shell("cp target.raw base.raw; rm -f list").code(0);
                let command = if list { "--windows list" } else { "--stamp" };
                let script = format!(
                    "import mmap, os, subprocess
f = open('base.raw', 'r+b'); m = mmap.mmap(f.fileno(), 0); at = {ELSEWHERE}
m[at] = m[at]
subprocess.run('vhd hash {command} base.raw'.split(), check=True)
{code}"
                );
                fs::write(lab.path("script.py"), script).unwrap();
                python(lab, "script.py").code(0);
                if list {
                    lab.shell("vhd-diff --base-digests list base.raw third.raw")
                        .code(2);
                } else {
                    assert!(!valid(lab, "base.raw"), "{what}: {writer}");
                    lab.shell("vhd-apply base.raw d2.vhddiff").code(4);
                }
            }
        }
        // At the beginning of a second.
        lab.shell("cp target.raw base.raw; sleep 0.$((1000000000 - 10#$(date +%N)))")
            .code(0);
        write(lab, "base.raw", 1);
        lab.shell("vhd hash --stamp base.raw").code(0);
        write(lab, "base.raw", 2);
        assert!(!valid(lab, "base.raw"), "{what}: within a second");
        lab.shell("cp target.raw base.raw && vhd-apply base.raw d2.vhddiff")
            .code(0);
        assert!(valid(lab, "base.raw"), "{what}: after an apply");
        write(lab, "base.raw", 2);
        assert!(!valid(lab, "base.raw"), "{what}: after an apply");
        // By ext3 with inodes of 128 bytes, as it is made here.
        let step = if what == "ext3" {
            "seconds"
        } else {
            "nanoseconds"
        };
        let tried = 2 * WRITERS.len() + 2;
        println!("| {what} | {step} | yes | {tried} of {tried} |");
    }
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
        now: "2, changed while it was read; never a valid stamp with a wrong digest",
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
            // The writer may get no turn in between, on a busy machine; then what was stamped is right.
            let noticed = (0..20).any(|_| {
                let ended = python(lab, "script.py");
                right_or_none(lab, "base.raw");
                ended.code == 2 && ended.err.contains("changed by another program")
            });
            assert!(noticed);
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
        now: "3, computed from the window hashes, or from all of it; the old image",
        run: |_| {
            for size in [4 * MIB, LARGE] {
                let lab = &Lab::new();
                disks(lab, size);
                lie(lab, "d.vhddiff", "lie.vhddiff");
                lie(lab, "d2.vhddiff", "lie2.vhddiff");
                let old = lab.read("base.raw");
                for prepare in ["true", "rm base.raw.windows"] {
                    lab.shell(&format!("vhd hash --stamp base.raw && {prepare}"))
                        .code(0);
                    for more in ["", "--verify", "--undo undo", "-o new.raw", "--dry-run"] {
                        lab.shell(&format!("vhd-apply base.raw lie.vhddiff {more}"))
                            .code(3);
                        assert!(lab.read("base.raw") == old && valid(lab, "base.raw"));
                        assert!(!lab.exists("undo") && !lab.exists("new.raw"));
                    }
                    lab.shell("vhd-apply base.raw d.vhddiff lie2.vhddiff")
                        .code(3);
                    assert!(lab.read("base.raw") == old);
                }
            }
        },
    },
    Case {
        name: "A diff taken at its word, because that was asked for",
        before: "0, stamped with the wrong digest",
        now: "0, never stamped; the next apply reads",
        run: |lab| {
            disks(lab, LARGE);
            lie(lab, "d.vhddiff", "lie.vhddiff");
            lab.shell("vhd hash --stamp base.raw && rm base.raw.windows")
                .code(0);
            lab.shell("vhd-apply base.raw lie.vhddiff -v --base-check stamp")
                .code(0)
                .says("only taken from the diff");
            assert!(!valid(lab, "base.raw"));
            lie(lab, "d2.vhddiff", "lie2.vhddiff");
            lab.shell("vhd-apply base.raw lie2.vhddiff").code(3);
            lab.shell("vhd-apply base.raw d2.vhddiff").code(0);
            assert!(valid(lab, "base.raw"));
        },
    },
    Case {
        name: "A list of window hashes that another user put beside the image",
        before: "there were none",
        now: "not believed, not replaced",
        run: |lab| {
            disks(lab, LARGE);
            lab.shell("vhd hash --stamp target.raw && mv target.raw.windows base.raw.windows")
                .code(0);
            if lab.shell("chown 65534 base.raw.windows").code != 0 {
                lab.shell("chmod 666 base.raw.windows").code(0);
            }
            let planted = lab.read("base.raw.windows");
            lab.shell("vhd-apply base.raw d.vhddiff").code(0);
            lab.shell("vhd hash --stamp base.raw").code(0);
            assert!(lab.read("base.raw.windows") == planted);
            assert!(lab.read("base.raw") == lab.read("target.raw"));
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
        name: "In place to a size that no file can have here",
        before: "marked, though nothing was changed: 5 from then on",
        now: "2, nothing is marked",
        run: |lab| {
            disks(lab, LARGE);
            let size = 3_u64 << 30;
            lab.shell(&format!(
                "cp base.raw large.raw; truncate -s {size} large.raw"
            ))
            .code(0);
            lab.shell("vhd-diff -q base.raw large.raw -o grow.vhddiff")
                .code(0);
            let old = lab.read("base.raw");
            lab.shell(
                "trap '' XFSZ; ulimit -f 20480; vhd-apply base.raw grow.vhddiff --in-place journal",
            )
            .code(2)
            .says("nothing was changed");
            assert!(!lab.exists("base.raw.undo-journal") && lab.read("base.raw") == old);
            lab.shell("vhd-apply base.raw grow.vhddiff --in-place journal")
                .code(0);
        },
    },
    Case {
        name: "An undo journal that another user put beside the image",
        before: "5 for everybody; the rollback writes what it says",
        now: "not believed; who would write says whose it is and how to go on",
        run: |lab| {
            disks(lab, LARGE);
            let old = lab.read("base.raw");
            lab.shell("vhd-diff -q target.raw base.raw -o base.raw.undo-journal")
                .code(0);
            if lab.shell("chown 65534 base.raw.undo-journal").code != 0 {
                // Only root gives files away; others see it by its permissions.
                lab.shell("chmod 666 base.raw.undo-journal").code(0);
            }
            lab.shell("vhd hash base.raw && vhd info base.raw").code(0);
            for line in [
                "vhd-apply --rollback base.raw",
                "vhd-apply base.raw d.vhddiff --in-place journal",
                "vhd-apply base.raw d.vhddiff",
            ] {
                let said = lab.shell(line).code(2).says("isn't trusted");
                assert!(lab.read("base.raw") == old, "{line}");
                assert!(said.err.contains("rm "), "{}", said.err);
            }
            lab.shell("rm base.raw.undo-journal; ln -s d.vhddiff base.raw.undo-journal")
                .code(0);
            lab.shell("vhd-apply --rollback base.raw")
                .code(2)
                .says("not a plain file");
            // As the hint says.
            lab.shell("rm base.raw.undo-journal && vhd-apply base.raw d.vhddiff")
                .code(0);
        },
    },
    Case {
        name: "Saved bytes of a repair that somebody else put there",
        before: "written into the image",
        now: "not believed: 2, and the image is as it was",
        run: |lab| {
            lab.shell("vhd create -q x.vhd --size 4M && printf garbage >> x.vhd && vhd check -q --repair x.vhd")
                .code(0);
            let repaired = lab.read("x.vhd");
            lab.shell("cp x.vhd.before-repair mine; cp mine open; chmod 666 open; ln -s mine link; cp mine theirs; chown 65534 theirs || chmod 606 theirs")
                .code(0);
            for (saved, who) in [
                ("open", "others may write"),
                ("link", "not a plain file"),
                ("theirs", ""),
            ] {
                lab.shell(&format!("vhd check --take-back {saved} x.vhd"))
                    .code(2)
                    .says("aren't trusted")
                    .says(who)
                    .says("nothing was changed");
                assert!(lab.read("x.vhd") == repaired, "{saved}");
            }
            // As the hint says.
            lab.shell("cp theirs copy && chmod 600 copy && vhd check --take-back copy x.vhd")
                .code(0);
            assert!(lab.read("x.vhd").ends_with(b"garbage"));
        },
    },
    Case {
        name: "In place beyond a limit of the shell (ulimit -f), below 2 GiB",
        before: "found out while the image was written: 5 from then on",
        now: "2, nothing is marked, and nothing is changed",
        run: |lab| {
            disks(lab, LARGE);
            let mut larger = lab.read("base.raw");
            larger.resize(3 * LARGE, 7);
            lab.file("large.raw", &larger);
            larger.truncate(LARGE);
            larger[..LARGE / 2].fill(0);
            lab.file("empty.raw", &larger);
            lab.shell(
                "vhd-diff -q base.raw large.raw -o grow; vhd-diff -q empty.raw target.raw -o fill
                for n in base large empty target; do vhd convert -q -O fixed $n.raw $n.vhd; done
                vhd convert -q -O dynamic empty.raw empty-d.vhd
                vhd create -q child.vhd --parent empty.vhd && vhd-apply -q child.vhd fill",
            )
            .code(0);
            let kib = LARGE / 1024;
            for (image, limit, command) in [
                (
                    "base.raw",
                    kib + 1,
                    "vhd-apply base.raw grow --in-place journal",
                ),
                (
                    "base.raw",
                    kib - 1,
                    "vhd-apply base.raw d.vhddiff --in-place journal",
                ),
                (
                    "base.vhd",
                    kib + 1,
                    "vhd-apply base.vhd grow --in-place journal",
                ),
                (
                    "base.vhd",
                    kib,
                    "vhd-apply base.vhd d.vhddiff --in-place journal",
                ),
                (
                    "empty-d.vhd",
                    kib * 2 / 3,
                    "vhd-apply empty-d.vhd fill --in-place journal",
                ),
                ("base.raw", kib + 1, "vhd resize base.raw --size 100M"),
                ("base.vhd", kib + 1, "vhd resize base.vhd --size 100M"),
                ("empty.vhd", kib, "vhd merge child.vhd"),
            ] {
                let before = lab.read(image);
                for trap in ["", "trap '' XFSZ; "] {
                    lab.shell(&format!("{trap}ulimit -f {limit}; {command}"))
                        .code(2)
                        .says("nothing was changed")
                        .says("ulimit -f")
                        .omits("between two points");
                    assert!(lab.read(image) == before, "{command}");
                    assert!(!lab.exists(&format!("{image}.undo-journal")), "{command}");
                    lab.shell(&format!("vhd hash {image}")).code(0);
                }
            }
            // With the limit lifted, and with one that suffices.
            lab.shell(&format!(
                "(ulimit -f {}; vhd-apply -q empty-d.vhd fill --in-place journal) && vhd-apply -q base.raw grow --in-place journal && vhd merge -q child.vhd",
                kib * 3 / 2
            ))
            .code(0);
        },
    },
    Case {
        name: "A link that is turned while the image is replaced by its copy",
        before: "the file it led to meanwhile was replaced, 15 of 100",
        now: "only the file that was opened is ever replaced",
        run: |lab| {
            disks(lab, LARGE);
            let script = "import os, subprocess, threading, time
base = open('base.raw', 'rb').read(); target = open('target.raw', 'rb').read()
stop = False
def turn():
    n = 0
    while not stop:
        n ^= 1
        os.symlink('precious' if n else 'good.raw', 'l'); os.rename('l', 'x.raw'); time.sleep(0.0004)
for n in range(40):
    open('good.raw', 'wb').write(base); open('precious', 'w').write('precious')
    stop = False; t = threading.Thread(target=turn); t.start()
    while not os.path.lexists('x.raw'): pass
    if n % 2: args = ['vhd-apply', 'x.raw', 'd.vhddiff', '--in-place', 'copy', '-q']
    else: args = ['vhd-apply', 'base.raw', 'd.vhddiff', '-o', 'x.raw', '-O', 'raw', '--force', '-q']
    p = subprocess.run(args, capture_output=True)
    stop = True; t.join()
    # To be made anew is what somebody named; in place only a disk that was the base.
    if n % 2: assert open('precious').read() == 'precious', (n, p)
    good = open('good.raw', 'rb').read()
    assert good in (base, target), n";
            fs::write(lab.path("script.py"), script).unwrap();
            python(lab, "script.py").code(0);
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

fn python(lab: &Lab, script: &str) -> crate::reports::lab::Ended {
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
