//! Input that doesn't match or is incomplete is refused, and nothing is touched.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use vhdkit::ErrorKind;
use vhdkit::diff::DiffFile;
use vhdkit::files::Format;
use vhdkit::progress::Silent;
use vhdkit::storage::Memory;

use crate::lab::{Lab, MIB, SIZE, later, monday, stderr};

/// Creates a base, a target and the diff, all small.
fn small(lab: &Lab) {
    let base = [1; 8192];
    let mut target = [1; 8192];
    target[512..1024].fill(2);
    target[4096..4608].fill(0);
    lab.pair(Format::Raw, &base, &target);
}

#[test]
fn each_cut_and_each_changed_byte_is_found() {
    let lab = Lab::new();
    small(&lab);
    let diff = lab.read("diff");
    let open = |bytes: Vec<u8>| DiffFile::open(Memory::new(bytes), &Silent);
    open(diff.clone()).unwrap();
    for at in 0..diff.len() {
        let error = open(diff[..at].to_vec()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "cut at {at}: {error}");
        for flip in [1, 0x80, 0xFF] {
            let mut bad = diff.clone();
            bad[at] ^= flip;
            let error = open(bad).unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported),
                "byte {at}: {error}"
            );
        }
    }
    let mut long = diff.clone();
    long.push(0);
    open(long).unwrap_err();
}

#[test]
fn a_damaged_diff_leaves_the_base_alone() {
    let lab = Lab::new();
    small(&lab);
    let diff = lab.read("diff");
    for at in (0..diff.len()).step_by(diff.len() / 12) {
        let mut bad = diff.clone();
        bad[at] ^= 4;
        for bytes in [&bad[..], &diff[..at]] {
            lab.write("bad", bytes);
            let said = lab.refused(3, "vhd-apply", &["base", "bad"]);
            assert!(said.contains("bad: "), "{said}");
            lab.refused(3, "vhd-apply", &["base", "bad", "-o", "new"]);
            lab.refused(3, "vhd-apply", &["base", "diff", "bad"]);
            lab.refused(3, "vhd", &["show", "bad"]);
        }
    }
}

#[test]
fn a_pipe_that_breaks_off_is_no_diff() {
    let lab = Lab::new();
    small(&lab);
    let diff = lab.read("diff");
    for len in [0, 7, diff.len() / 2, diff.len() - 1] {
        for more in [&[][..], &["-o", "new"]] {
            let before = lab.files();
            let args = [&["base", "-"], more].concat();
            let mut child = lab
                .command("vhd-apply", &args)
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(&diff[..len]).unwrap();
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(3), "{len}: {}", stderr(&output));
            assert!(lab.files() == before, "{len}");
        }
    }
}

#[test]
fn chains_must_be_whole_and_in_order() {
    for more in [&[][..], &["--no-digest"]] {
        let lab = Lab::new();
        for n in 0..4 {
            let size = SIZE + n * MIB;
            lab.make(
                &format!("day{n}"),
                Format::Raw,
                &later(&monday(), size, 7 * n as u64),
            );
        }
        for n in 0..3 {
            let (from, to) = (format!("day{n}"), format!("day{}", n + 1));
            lab.diff(&from, &to, &format!("diff{n}"), more);
        }
        for chain in [
            &["diff1", "diff0"][..],
            &["diff0", "diff2"],
            &["diff0", "diff0"],
            &["diff0", "diff1", "diff1"],
            &["diff1"],
            &["diff1", "diff2"],
        ] {
            lab.refused(4, "vhd-apply", &[&["day0"], chain].concat());
            lab.refused(4, "vhd-apply", &[&["day0", "-o", "new"], chain].concat());
        }
        lab.refused(4, "vhd-apply", &["day3", "diff1"]);
        lab.refused(2, "vhd-apply", &["day0", "-", "-"]);
    }
}

#[test]
fn a_base_that_somebody_has_is_left_alone() {
    let lab = Lab::new();
    small(&lab);
    let other = fs::File::options()
        .write(true)
        .open(lab.path("base"))
        .unwrap();
    other.lock().unwrap();
    for args in [
        &["base", "diff"][..],
        &["base", "diff", "--dry-run"],
        &["base", "diff", "-o", "new"],
        &["base", "--rollback"],
    ] {
        let said = lab.refused(5, "vhd-apply", args);
        assert!(said.contains("\n  hint: "), "{said}");
    }
    lab.refused(5, "vhd-diff", &["base", "target"]);
}

#[test]
fn bad_places_for_the_undo_diff_are_refused_before_anything_is_written() {
    for (format, size) in [
        (Format::Raw, SIZE),
        (Format::Dynamic, SIZE),
        (Format::Dynamic, SIZE + MIB),
    ] {
        let lab = Lab::new();
        lab.pair(format, &monday(), &later(&monday(), size, 10));
        lab.write("taken", b"precious");
        for undo in [
            "taken",
            "base",
            "diff",
            "no/folder",
            "base.undo-journal",
            "./base.undo-journal",
        ] {
            lab.refused(2, "vhd-apply", &["base", "diff", "--undo", undo]);
        }
    }
}

#[test]
fn what_is_no_image_or_no_diff() {
    let lab = Lab::new();
    small(&lab);
    lab.make("disk.vhd", Format::Fixed, &[1; 8192]);
    lab.write("text", b"hello");
    lab.write("empty", b"");
    fs::create_dir(lab.path("folder")).unwrap();
    for (code, args) in [
        (2, &["diff", "diff"][..]),
        (2, &["base", "disk.vhd"]),
        (3, &["base", "target"]),
        (3, &["base", "text"]),
        (3, &["base", "empty"]),
        (3, &["empty", "diff"]),
        (2, &["folder", "diff"]),
        (2, &["base", "folder"]),
        (2, &["missing", "diff"]),
        (2, &["base", "missing"]),
        (2, &["base"]),
        (2, &["base", "--rollback"]),
        (2, &["base", "diff", "--rollback"]),
        (2, &["base", "diff", "--base-check", "none"]),
        (2, &["base", "diff", "-O", "raw"]),
        (3, &["base", "diff", "-f", "fixed"]),
        (2, &["disk.vhd", "diff", "-f", "dynamic"]),
    ] {
        lab.refused(code, "vhd-apply", args);
    }
}
