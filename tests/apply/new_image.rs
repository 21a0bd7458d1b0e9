//! Applying to a new image, which leaves the base as it is.

use std::fs;
use std::os::unix::fs::symlink;

use vhdkit::files::Format;

use crate::lab::{FORMATS, Lab, MIB, SIZE, later, monday, noise, same};
use crate::mounts::Mounted;

#[test]
fn every_format_from_every_format() {
    let (base, target) = (monday(), later(&monday(), SIZE + MIB, 10));
    for from in FORMATS {
        let lab = Lab::new();
        lab.pair(from, &base, &target);
        let before = lab.read("base");
        for to in FORMATS {
            lab.apply(&[
                "base",
                "diff",
                "-o",
                "new",
                "-O",
                to.name(),
                "--verify",
                "--force",
            ]);
            lab.holds("new", &target);
            assert_eq!(lab.open("new").format(), to);
            if from == to && to != Format::Dynamic {
                same(&lab.read("new"), &lab.read("target"), "byte for byte");
            }
            same(&lab.read("base"), &before, "base");
        }
        assert_eq!(lab.names(), ["base", "diff", "new", "target"]);
    }
}

#[test]
fn the_format_goes_by_the_name_and_then_by_the_target() {
    for (base, target, name, expected) in [
        (Format::Raw, Format::Raw, "new.img", Format::Raw),
        (Format::Raw, Format::Raw, "new.vhd", Format::Dynamic),
        (Format::Dynamic, Format::Fixed, "new.VHD", Format::Fixed),
        (Format::Fixed, Format::Dynamic, "new.vhd", Format::Dynamic),
        (Format::Fixed, Format::Raw, "new.vhd", Format::Fixed),
        (Format::Fixed, Format::Fixed, "new", Format::Raw),
    ] {
        let lab = Lab::new();
        lab.make("base", base, &monday());
        lab.make("target", target, &later(&monday(), SIZE, 10));
        lab.diff("base", "target", "diff", &[]);
        lab.apply(&["base", "diff", "-o", name]);
        assert_eq!(lab.open(name).format(), expected, "{base} {target} {name}");
    }
}

#[test]
fn no_output_replaces_what_it_should_not() {
    let lab = Lab::new();
    lab.pair(Format::Fixed, &monday(), &later(&monday(), SIZE, 10));
    fs::hard_link(lab.path("base"), lab.path("hard")).unwrap();
    symlink("base", lab.path("soft")).unwrap();
    fs::hard_link(lab.path("diff"), lab.path("hard-diff")).unwrap();
    lab.write("other", b"precious");
    fs::create_dir(lab.path("folder")).unwrap();
    for output in [
        "base",
        "./base",
        "hard",
        "soft",
        "diff",
        "hard-diff",
        "folder",
        "no/folder",
    ] {
        for more in [&["-o", output][..], &["-o", output, "--force"]] {
            let args = [&["base", "diff"], more].concat();
            lab.refused(2, "vhd-apply", &args);
            lab.refused(2, "vhd-apply", &[&args[..], &["--dry-run"]].concat());
            if !output.contains("diff") {
                lab.refused(2, "vhd-diff", &[&["base", "target"], more].concat());
            }
        }
    }
    lab.refused(
        2,
        "vhd-diff",
        &["base", "target", "-o", "target", "--force"],
    );
    for dry in [&[][..], &["--dry-run"]] {
        let said = lab.refused(
            2,
            "vhd-apply",
            &[&["base", "diff", "-o", "other"], dry].concat(),
        );
        assert!(said.contains("--force"), "{said}");
    }
    lab.refused(
        0,
        "vhd-apply",
        &["base", "diff", "-o", "other", "--force", "--dry-run"],
    );
    lab.apply(&["base", "diff", "-o", "other", "--force"]);
    lab.refused(2, "vhd-diff", &["base", "target", "-o", "other"]);
}

#[test]
fn a_wrong_base_makes_no_image() {
    let lab = Lab::new();
    lab.pair(Format::Raw, &monday(), &later(&monday(), SIZE, 10));
    let mut other = monday();
    other[7 * MIB] = 1;
    lab.write("base", &other);
    lab.refused(4, "vhd-apply", &["base", "diff", "-o", "new"]);
    // The digest shows that the result is not the target, even though the base wasn't checked.
    lab.refused(
        3,
        "vhd-apply",
        &["base", "diff", "-o", "new", "--base-check", "touched"],
    );
}

#[test]
fn what_is_applied_already_is_copied() {
    let lab = Lab::new();
    lab.pair(Format::Fixed, &monday(), &later(&monday(), SIZE + MIB, 10));
    for check in ["full", "touched"] {
        lab.apply(&[
            "target",
            "diff",
            "-o",
            "new.vhd",
            "--base-check",
            check,
            "--force",
        ]);
        same(&lab.read("new.vhd"), &lab.read("target"), check);
    }
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let lab = Lab::new();
    lab.pair(Format::Raw, &monday(), &later(&monday(), SIZE, 10));
    let before = lab.files();
    for script in [
        "ulimit -f 1000; exec \"$0\" base diff -o new",
        "ulimit -f 1000; exec \"$0\" base diff -o new.vhd",
        "ulimit -f 8; exec \"$0\" base diff",
        "ulimit -f 8; exec \"$0\" base - < diff",
        "ulimit -f 8; exec \"$0\" base diff --undo undo",
    ] {
        let said = lab.ends(2, "sh", &["-c", script, env!("CARGO_BIN_EXE_vhd-apply")]);
        // In place that is known before anything is written.
        let foreseen = said.contains("a limit of this process") && !script.contains("-o new");
        assert!(foreseen || said.contains("File too large"), "{said}");
        assert!(lab.files() == before, "{script}: {:?}", lab.names());
    }
    let script = "ulimit -f 8; exec \"$0\" base target -o new";
    lab.ends(2, "sh", &["-c", script, env!("CARGO_BIN_EXE_vhd-diff")]);
    assert!(lab.files() == before, "{:?}", lab.names());
}

/// With a stamped base on a file system with clones, only the changed pages are left to write.
#[test]
fn from_a_stamped_base_it_is_a_clone_where_there_are_clones() {
    for mounted in Mounted::all(&["xfs", "btrfs"]) {
        for format in FORMATS {
            let lab = Lab::at(&mounted.path());
            let what = format!("{} {format}", mounted.kind());
            let (base, target) = (monday(), later(&monday(), SIZE, 10));
            lab.pair(format, &base, &target);
            let before = lab.read("base");
            let make = |more: &[&str]| {
                let args = ["base", "diff", "-o", "new", "-O", format.name(), "--force"];
                let done = lab.json("vhd-apply", &[&args, more, &["--json", "-q"]].concat());
                lab.holds("new", &target);
                same(&lab.read("base"), &before, &what);
                // Its content is known: computed from all of the base or from its window hashes, or read back.
                let trusted = more.contains(&"stamp") && !lab.path("base.windows").exists();
                assert_eq!(done["stamped"], !trusted, "{what} {more:?}");
                done["strategy"].clone()
            };
            assert!(make(&[]).is_null(), "{what}: without a stamp all is read");
            lab.good("vhd", &["hash", "--stamp", "base", "-q"]);
            assert_eq!(make(&[]), "clone", "{what}");
            fs::remove_file(lab.path("base.windows")).unwrap();
            assert_eq!(make(&[]), "clone", "{what}: all of the base was read");
            assert_eq!(make(&["--base-check", "stamp"]), "clone", "{what}");
            assert_eq!(make(&["--verify"]), "clone", "{what}");
            assert!(make(&["--base-check", "full"]).is_null(), "{what}");
            if format == Format::Fixed {
                same(&lab.read("new"), &lab.read("target"), &what);
            }
            // The two files are independent apart from the blocks that they share.
            lab.apply(&["new", "diff", "--in-place", "journal"]);
            fs::write(lab.path("new"), b"gone").unwrap();
            same(&lab.read("base"), &before, &what);
            assert_eq!(lab.names(), ["base", "diff", "new", "target"], "{what}");
        }
    }
}

#[test]
fn a_clone_takes_only_the_room_of_what_changed() {
    for mounted in Mounted::all(&["xfs", "btrfs"]) {
        let lab = Lab::at(&mounted.path());
        let mut disk = noise(1, 64 * MIB);
        lab.write("base", &disk);
        disk[8 * MIB..8 * MIB + 4096].fill(9);
        disk[16 * MIB..24 * MIB].fill(0);
        lab.write("target", &disk);
        lab.diff("base", "target", "diff", &[]);
        lab.good("vhd", &["hash", "--stamp", "base", "-q"]);
        let before = mounted.free();
        lab.apply(&["base", "diff", "-o", "new", "-O", "raw"]);
        let used = before.saturating_sub(mounted.free());
        assert!(used < 4 << 20, "{}: {used} bytes", mounted.kind());
        lab.holds("new", &disk);
    }
}

/// Where a clone wouldn't do, the new image is written as usual, and the usual refusals apply.
#[test]
fn no_clone_is_made_of_what_differs_in_more_than_pages() {
    for mounted in Mounted::all(&["xfs"]) {
        let lab = Lab::at(&mounted.path());
        let larger = later(&monday(), SIZE + MIB, 10);
        lab.pair(Format::Raw, &monday(), &larger);
        lab.good("vhd", &["hash", "--stamp", "base", "-q"]);
        let args = ["base", "diff", "-o", "new", "--force", "--json", "-q"];
        for (format, why) in [("raw", "another size"), ("fixed", "another format")] {
            let done = lab.json("vhd-apply", &[&args[..], &["-O", format]].concat());
            assert!(done["strategy"].is_null(), "{why}");
            lab.holds("new", &larger);
        }
        // A stamp that names a disk other than the diff's base.
        lab.make("other", Format::Raw, &larger[..SIZE]);
        lab.good("vhd", &["hash", "--stamp", "other", "-q"]);
        lab.refused(4, "vhd-apply", &["other", "diff", "-o", "newer"]);
    }
}
