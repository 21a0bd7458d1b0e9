//! A device that is full in the middle.

use std::fs;

use crate::disk::{Random, memory, write_sparse};
use crate::mounts::Mounted;
use crate::scene::Scene;

const MIB: usize = 1 << 20;

/// Leaves about `bytes` free.
fn fill(mounted: &Mounted, bytes: u64) {
    let len = usize::try_from(mounted.free().saturating_sub(bytes)).unwrap();
    // The file system may need some of it for itself.
    let _ = fs::write(mounted.path().join("filler"), vec![1; len]);
}

fn make_room(mounted: &Mounted) {
    fs::remove_file(mounted.path().join("filler")).unwrap();
    mounted.free();
}

/// Commands that need more than there is, and the file that each makes or changes.
const LINES: [(&str, &str); 7] = [
    ("vhd-apply base.raw diff --in-place journal", "base.raw"),
    ("vhd-apply base.raw diff --in-place copy", "base.raw"),
    ("vhd-apply base.raw diff -o new", "new"),
    ("vhd-diff base.raw target.raw -o new", "new"),
    ("vhd convert base.raw new.vhd", "new.vhd"),
    (
        "vhd create new.vhd -O dynamic --size 1T --block-size 512K",
        "new.vhd",
    ),
    ("vhd merge child.vhd --raw-parent", "base.raw"),
];

#[test]
fn a_full_device_is_an_error_and_no_harm() {
    let Some(mounted) = Mounted::sized("ext4", 80 << 20, &memory()) else {
        return;
    };
    for (line, file) in LINES {
        let scene = Scene::at(&mounted.path());
        let child = line.contains("child");
        if child {
            scene.ends(
                0,
                "vhd-apply base.raw diff -o child.vhd -O differencing --raw-parent -q",
            );
        }
        let before = scene.names();
        fill(
            &mounted,
            if line.contains("create") {
                256 << 10
            } else {
                1 << 20
            },
        );
        let said = scene.ends(2, line);
        assert!(said.contains("No space left"), "{line}: {said}");
        assert_eq!(scene.names(), before, "{line}");
        scene.holds("base.raw", &scene.base);
        make_room(&mounted);
        if line.contains("create") {
            continue;
        }
        scene.ends(0, line);
        assert!(scene.path(file).exists(), "{line}");
        if file == "base.raw" {
            scene.holds(file, &scene.target);
        }
        if file == "new" && line.contains("apply") {
            scene.holds(file, &scene.target);
        }
    }
}

/// The way back fits, what is to be written doesn't: the base had holes there.
#[test]
fn a_device_full_behind_the_journal_leaves_both_ways_on() {
    let Some(mounted) = Mounted::sized("ext4", 80 << 20, &memory()) else {
        return;
    };
    for back in [true, false] {
        let base = vec![0; 16 * MIB];
        let mut target = base.clone();
        target[MIB..9 * MIB].copy_from_slice(&Random::new(3).bytes(8 * MIB));
        let scene = Scene::of(&mounted.path(), base, target);
        fill(&mounted, 2 << 20);
        let said = scene.ends(2, "vhd-apply base.raw diff --in-place journal");
        assert!(said.contains("No space left"), "{said}");
        assert!(said.contains("--rollback base.raw"), "{said}");
        scene.ends(5, "vhd hash base.raw");
        if back {
            // This needs no room.
            scene.ends(0, "vhd-apply --rollback base.raw");
            scene.holds("base.raw", &scene.base);
            scene.no_trace();
        } else {
            scene.ends(2, "vhd-apply base.raw diff");
        }
        make_room(&mounted);
        scene.ends(0, "vhd-apply base.raw diff");
        scene.holds("base.raw", &scene.target);
        scene.no_trace();
    }
}

#[test]
fn resizing_on_a_full_device_loses_nothing() {
    let Some(mounted) = Mounted::sized("ext4", 80 << 20, &memory()) else {
        return;
    };
    let folder = tempfile::tempdir_in(mounted.path()).unwrap();
    let bytes = Random::new(4).bytes(8 * MIB);
    write_sparse(&folder.path().join("disk.raw"), &bytes);
    let run = |code: i32, words: &[&str]| {
        let mut command = crate::disk::program("vhd");
        let output = command.args(words).current_dir(&folder).output().unwrap();
        crate::scene::ended(&output, code)
    };
    run(
        0,
        &["convert", "disk.raw", "disk.vhd", "--block-size", "512K"],
    );
    fill(&mounted, 0);
    // A BAT of 8 MiB.
    let said = run(2, &["resize", "disk.vhd", "--size", "1T"]);
    assert!(said.contains("No space left"), "{said}");
    run(0, &["check", "disk.vhd"]);
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("copy.raw");
    run(0, &["convert", "disk.vhd", copy.to_str().unwrap()]);
    assert!(fs::read(copy).unwrap() == bytes, "the content differs");
    make_room(&mounted);
    run(0, &["resize", "disk.vhd", "--size", "1T"]);
    run(0, &["check", "disk.vhd"]);
}
