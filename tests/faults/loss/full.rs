//! A device that is full in the middle.

use std::fs;

use crate::disk::{Random, memory, write_sparse};
use crate::loss::scene::Scene;
use crate::mounts::Mounted;

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

/// The way back fits, what is to be written doesn't: the base had holes there. That is found out first.
#[test]
fn a_device_that_is_too_full_is_found_out_before_the_image_is_marked() {
    let Some(mounted) = Mounted::sized("ext4", 80 << 20, &memory()) else {
        return;
    };
    let base = vec![0; 16 * MIB];
    let mut target = base.clone();
    target[MIB..9 * MIB].copy_from_slice(&Random::new(3).bytes(8 * MIB));
    let scene = Scene::of(&mounted.path(), base, target);
    fill(&mounted, 2 << 20);
    let before = mounted.free();
    let said = scene.ends(2, "vhd-apply base.raw diff --in-place journal");
    assert!(said.contains("nothing was changed"), "{said}");
    scene.holds("base.raw", &scene.base);
    assert!(
        mounted.free() + (64 << 10) >= before,
        "what was reserved is free again"
    );
    make_room(&mounted);
    scene.ends(0, "vhd-apply base.raw diff");
    scene.holds("base.raw", &scene.target);
    scene.no_trace();
}

/// At every level of free space: the old image, or the new one, or both ways on, of which the way back needs no space.
#[test]
fn the_way_back_needs_no_space() {
    let Some(mounted) = Mounted::sized("ext4", 80 << 20, &memory()) else {
        return;
    };
    let mut marked = 0;
    for format in ["raw", "vhd"] {
        for level in 0..12_u64 {
            // Much is cleared before much is written where there was nothing.
            let mut base = Random::new(level).bytes(16 * MIB);
            base[8 * MIB..].fill(0);
            let mut target = base.clone();
            target[..4 * MIB].fill(0);
            target[8 * MIB..14 * MIB].copy_from_slice(&Random::new(3).bytes(6 * MIB));
            target[15 * MIB..15 * MIB + 512].fill(1);
            let scene = Scene::of(&mounted.path(), base, target);
            scene.ends(0, "vhd convert base.raw base.vhd --block-size 512K");
            let image = format!("base.{format}");
            let digest = scene.hash(&image);
            fill(&mounted, (4 << 20) + level * (640 << 10));
            let line = format!("vhd-apply {image} diff --in-place journal -q");
            let done = scene.command(&line).output().unwrap().status.code();
            if done == Some(0) {
                assert_eq!(scene.hash(&image), scene.hash("target.raw"));
            } else {
                if scene.path(&format!("{image}.undo-journal")).exists() {
                    marked += 1;
                    // Whatever became free goes to somebody else.
                    let _ = fs::write(mounted.path().join("more"), vec![1; 64 * MIB]);
                    scene.ends(0, &format!("vhd-apply --rollback {image}"));
                    fs::remove_file(mounted.path().join("more")).unwrap();
                }
                assert_eq!(scene.hash(&image), digest, "{format} {level}");
            }
            make_room(&mounted);
            scene.ends(0, &format!("vhd-apply {image} diff -q"));
            assert_eq!(scene.hash(&image), scene.hash("target.raw"));
        }
    }
    assert!(marked > 0, "the device was never full in the middle");
}

/// As [above](a_device_that_is_too_full_is_found_out_before_the_image_is_marked), but where it can't be found out first:
/// a dynamic VHD grows as it is written.
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
        scene.ends(0, "vhd convert base.raw base.vhd");
        let names = scene.names();
        fill(&mounted, 2 << 20);
        let said = scene.ends(2, "vhd-apply base.vhd diff --in-place journal");
        assert!(said.contains("No space left"), "{said}");
        assert!(said.contains("--rollback base.vhd"), "{said}");
        scene.ends(5, "vhd hash base.vhd");
        if back {
            // This needs no room.
            scene.ends(0, "vhd-apply --rollback base.vhd");
            assert_eq!(scene.hash("base.vhd"), scene.hash("base.raw"));
            assert_eq!(scene.names(), names);
        } else {
            scene.ends(2, "vhd-apply base.vhd diff");
        }
        make_room(&mounted);
        scene.ends(0, "vhd-apply base.vhd diff");
        assert_eq!(scene.hash("base.vhd"), scene.hash("target.raw"));
        assert_eq!(scene.names(), names);
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
        crate::loss::scene::ended(&output, code)
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
