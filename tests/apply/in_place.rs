//! Applying in place: the base becomes the target.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Stdio;

use vhdkit::files::Format;

use crate::lab::{FORMATS, Lab, MIB, SIZE, later, monday, noise, same, stderr};

const SIZES: [usize; 5] = [
    SIZE,
    SIZE + 5 * MIB + 512,
    SIZE + 512,
    4 * MIB + 512,
    SIZE - 512,
];

/// Raw images and fixed VHDs have only one encoding, so the bytes of the file must match exactly.
#[test]
fn raw_and_fixed_become_the_target_byte_for_byte() {
    for format in [Format::Raw, Format::Fixed] {
        for size in SIZES {
            let lab = Lab::new();
            let base = monday();
            lab.pair(format, &base, &later(&base, size, 10));
            lab.apply(&["base", "diff"]);
            same(
                &lab.read("base"),
                &lab.read("target"),
                &format!("{format} {size}"),
            );
            assert_eq!(lab.names(), ["base", "diff", "target"]);
        }
    }
}

#[test]
fn a_dynamic_disk_takes_over_content_and_identity() {
    for size in SIZES {
        let lab = Lab::new();
        let base = monday();
        let target = later(&base, size, 10);
        lab.pair(Format::Dynamic, &base, &target);
        lab.apply(&["base", "diff", "--verify"]);
        lab.holds("base", &target);
        let footer = |name: &str| lab.open(name).vhd().unwrap().footer().clone();
        assert_eq!(footer("base"), footer("target"), "{size}");
        assert_eq!(lab.names(), ["base", "diff", "target"]);
    }
}

/// A diff doesn't depend on how base and target were stored; the base keeps its format.
#[test]
fn diffs_go_onto_bases_of_any_format() {
    let (base, grown) = (monday(), later(&monday(), SIZE + MIB, 10));
    for made_from in FORMATS {
        let lab = Lab::new();
        lab.pair(made_from, &base, &grown);
        for format in FORMATS {
            lab.make("copy", format, &base);
            lab.apply(&["copy", "diff", "--verify", "--undo", "undo"]);
            lab.holds("copy", &grown);
            assert_eq!(lab.open("copy").format(), format);
            lab.apply(&["copy", "undo", "--verify"]);
            lab.holds("copy", &base);
            fs::remove_file(lab.path("undo")).unwrap();
        }
    }
}

#[test]
fn the_undo_diff_leads_back_to_the_last_byte() {
    for format in FORMATS {
        for size in SIZES {
            let lab = Lab::new();
            let base = monday();
            lab.pair(format, &base, &later(&base, size, 10));
            let before = lab.read("base");
            lab.apply(&["base", "diff", "--undo", "undo"]);
            lab.holds("base", &later(&base, size, 10));
            lab.apply(&["base", "undo"]);
            lab.holds("base", &base);
            if format != Format::Dynamic {
                same(&lab.read("base"), &before, &format!("{format} {size}"));
            }
            assert_eq!(lab.names(), ["base", "diff", "target", "undo"]);
        }
    }
}

#[test]
fn a_fixed_disk_with_an_old_footer_of_511_bytes() {
    for size in SIZES {
        let lab = Lab::new();
        let base = monday();
        let target = later(&base, size, 10);
        lab.pair(Format::Fixed, &base, &target);
        let mut bytes = lab.read("base");
        bytes.pop();
        lab.write("base", &bytes);
        lab.apply(&["base", "diff", "--undo", "undo"]);
        same(&lab.read("base"), &lab.read("target"), "511");
        lab.apply(&["base", "undo"]);
        // The footer is complete now.
        lab.holds("base", &base);
    }
}

/// The bytes between the disk and its footer must not become part of a disk that grows.
#[test]
fn a_fixed_disk_with_slack_before_its_footer() {
    for size in SIZES {
        for slack in [512, 4096, 7 * MIB] {
            let lab = Lab::new();
            let base = monday();
            let target = later(&base, size, 10);
            lab.pair(Format::Fixed, &base, &target);
            let mut bytes = lab.read("base");
            let footer = bytes.split_off(SIZE);
            bytes.extend(noise(3, slack));
            bytes.extend(&footer);
            lab.write("base", &bytes);
            if size != SIZE {
                // They would be lost, so the apply is refused and nothing is touched.
                lab.refused(2, "vhd-apply", &["base", "diff", "--undo", "undo"]);
                bytes[SIZE..SIZE + slack].fill(0);
                lab.write("base", &bytes);
            }
            lab.apply(&["base", "diff", "--undo", "undo"]);
            if size == SIZE {
                let found = lab.read("base");
                same(
                    &found[SIZE..SIZE + slack],
                    &bytes[SIZE..SIZE + slack],
                    "slack",
                );
                same(&found[..SIZE], &target, "disk");
                lab.apply(&["base", "undo"]);
                same(&lab.read("base"), &bytes, "undone");
            } else {
                same(&lab.read("base"), &lab.read("target"), "target");
                lab.apply(&["base", "undo"]);
                lab.holds("base", &base);
            }
        }
    }
}

#[test]
fn what_is_applied_already_is_not_written_again() {
    for format in FORMATS {
        let lab = Lab::new();
        let days = [
            monday(),
            later(&monday(), SIZE, 10),
            later(&monday(), SIZE + MIB, 30),
            later(&monday(), SIZE, 50),
        ];
        for (n, day) in days.iter().enumerate() {
            lab.make(&format!("day{n}"), format, day);
        }
        for n in 0..3 {
            let (from, to) = (format!("day{n}"), format!("day{}", n + 1));
            lab.diff(&from, &to, &format!("diff{n}"), &[]);
        }
        let all = ["diff0", "diff1", "diff2"];
        lab.copy("day0", "base");
        for (n, day) in days.iter().enumerate().skip(1) {
            let said = lab.apply(&[&["base"], &all[..n]].concat());
            if n > 1 {
                assert!(
                    said.contains(&format!("{} of {n} diffs were applied already", n - 1)),
                    "{said}"
                );
            }
            lab.holds("base", day);
            for chain in [&all[..n], &all[n - 1..n]] {
                for check in ["full", "touched"] {
                    let args = [&["base", "--base-check", check], chain].concat();
                    let said = lab.refused(0, "vhd-apply", &args);
                    assert!(
                        said.contains("already"),
                        "{format} {chain:?} {check} {said}"
                    );
                }
            }
        }
        // The whole chain in one go; a chain that returns to its start is finished once it was applied.
        lab.apply(&["day0", "diff0", "diff1", "diff2", "--verify"]);
        lab.holds("day0", &days[3]);
    }
}

#[test]
fn summaries_are_of_the_whole_chain() {
    for format in FORMATS {
        let lab = Lab::new();
        let days = [
            monday(),
            later(&monday(), SIZE, 10),
            later(&monday(), SIZE + MIB, 30),
        ];
        for (n, day) in days.iter().enumerate() {
            lab.make(&format!("day{n}"), format, day);
        }
        lab.diff("day0", "day1", "diff0", &[]);
        lab.diff("day1", "day2", "diff1", &[]);
        let dry = lab.json(
            "vhd-apply",
            &["day1", "diff0", "diff1", "--json", "--dry-run"],
        );
        assert_eq!(dry["outcome"], "would_apply");
        let done = lab.json(
            "vhd-apply",
            &["day1", "diff0", "diff1", "--json", "--verify"],
        );
        assert_eq!(done["outcome"], "applied");
        for summary in [&dry, &done] {
            assert_eq!(summary["image"], "day1", "{format}");
            assert_eq!(summary["diffs"], 2, "{format}");
            assert_eq!(summary["already_applied"], 1, "{format}");
            assert_eq!(summary["base_check"], "full");
            assert_eq!(summary["virtual_size"], SIZE + MIB);
            assert_eq!(summary["update_bytes"], dry["update_bytes"], "{format}");
            assert_eq!(summary["clear_bytes"], dry["clear_bytes"], "{format}");
        }
        assert_eq!(done["verified"], true, "{format}");
        let again = lab.json("vhd-apply", &["day1", "diff0", "diff1", "--json"]);
        assert_eq!(again["outcome"], "already_applied");
        assert_eq!(again["already_applied"], 2);
        assert_eq!(again["content_digest"], done["content_digest"]);
    }
}

#[test]
fn a_dry_run_changes_nothing_and_needs_only_to_read() {
    for format in FORMATS {
        let lab = Lab::new();
        lab.pair(format, &monday(), &later(&monday(), SIZE + MIB, 10));
        // Hold the base open as a reader would.
        let reader = fs::File::open(lab.path("base")).unwrap();
        reader.lock_shared().unwrap();
        let said = lab.refused(0, "vhd-apply", &["base", "diff", "--dry-run"]);
        assert!(said.contains("fits"), "{said}");
        lab.refused(5, "vhd-apply", &["base", "diff"]);
        reader.unlock().unwrap();
        lab.apply(&["base", "diff"]);
    }
}

#[test]
fn a_base_that_differs_elsewhere_passes_only_when_told() {
    let lab = Lab::new();
    let (base, target) = (monday(), later(&monday(), SIZE, 10));
    lab.pair(Format::Raw, &base, &target);
    let mut other = base.clone();
    other[7 * MIB] = 1;
    lab.write("base", &other);
    let said = lab.refused(4, "vhd-apply", &["base", "diff"]);
    assert!(said.contains("content digest"), "{said}");
    let touched = ["base", "diff", "--base-check", "touched"];
    let said = lab.apply(&[&touched[..], &["--undo", "undo"]].concat());
    assert!(
        said.contains("checked only under the changed pages"),
        "{said}"
    );
    let mut expected = target;
    expected[7 * MIB] = 1;
    lab.holds("base", &expected);
    // The undo diff records what was really in the base.
    lab.apply(&["base", "undo"]);
    lab.holds("base", &other);
    // A change under a changed page is noticed by every base check.
    other[0] ^= 1;
    lab.write("base", &other);
    let said = lab.refused(4, "vhd-apply", &touched);
    assert!(said.contains("offset 0"), "{said}");
    // The result differs from the target when it is read back: this is reported, and rolled back on request.
    other[0] ^= 1;
    lab.write("base", &other);
    let said = lab.ends(3, "vhd-apply", &[&touched[..], &["--verify"]].concat());
    assert!(said.contains("--rollback"), "{said}");
    lab.apply(&["base", "--rollback"]);
    same(&lab.read("base"), &other, "rolled back");
}

#[test]
fn diffs_without_digests() {
    for format in FORMATS {
        let lab = Lab::new();
        let days = [
            monday(),
            later(&monday(), SIZE, 10),
            later(&monday(), SIZE - MIB, 30),
        ];
        for (n, day) in days.iter().enumerate() {
            lab.make(&format!("day{n}"), format, day);
        }
        lab.diff("day0", "day1", "diff0", &["--no-digest"]);
        lab.diff("day1", "day2", "diff1", &["--no-digest"]);
        lab.refused(4, "vhd-apply", &["day0", "diff1"]);
        lab.apply(&["day0", "diff0", "diff1", "--verify", "--undo", "undo"]);
        lab.holds("day0", &days[2]);
        lab.refused(0, "vhd-apply", &["day0", "diff0", "diff1"]);
        lab.apply(&["day0", "undo"]);
        lab.holds("day0", &days[0]);
    }
}

#[test]
fn a_link_stays_a_link() {
    for format in FORMATS {
        for size in [SIZE, SIZE + MIB] {
            let lab = Lab::new();
            lab.pair(format, &monday(), &later(&monday(), size, 10));
            fs::create_dir(lab.path("far")).unwrap();
            fs::rename(lab.path("base"), lab.path("far/base")).unwrap();
            symlink("far/base", lab.path("link")).unwrap();
            lab.apply(&["link", "diff"]);
            assert!(fs::symlink_metadata(lab.path("link")).unwrap().is_symlink());
            lab.holds("far/base", &later(&monday(), size, 10));
            assert_eq!(fs::read_dir(lab.path("far")).unwrap().count(), 1);
        }
    }
}

#[test]
fn permissions_and_owner_stay() {
    for format in FORMATS {
        for size in [SIZE, SIZE + MIB] {
            let lab = Lab::new();
            lab.pair(format, &monday(), &later(&monday(), size, 10));
            let path = lab.path("base");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            // Only root can give files away; for others there is nothing to preserve.
            let _ = std::os::unix::fs::chown(&path, Some(1234), Some(2345));
            let before = fs::metadata(&path).unwrap();
            lab.apply(&["base", "diff", "--undo", "undo"]);
            // The undo diff holds data of the base, so nobody else may read it.
            for name in ["base", "undo"] {
                let after = fs::metadata(lab.path(name)).unwrap();
                assert_eq!(after.mode(), before.mode(), "{format} {name}");
                assert_eq!(
                    (after.uid(), after.gid()),
                    (before.uid(), before.gid()),
                    "{format} {name}"
                );
            }
        }
    }
}

#[test]
fn a_dynamic_disk_that_is_made_anew_keeps_its_block_size() {
    let lab = Lab::new();
    lab.good(
        "vhd",
        &[
            "create",
            "base",
            "-O",
            "dynamic",
            "--size",
            "8M",
            "--block-size",
            "512K",
            "-q",
        ],
    );
    lab.make("target", Format::Dynamic, &later(&monday(), SIZE, 10));
    lab.diff("base", "target", "diff", &[]);
    lab.apply(&["base", "diff"]);
    lab.holds("base", &later(&monday(), SIZE, 10));
    assert_eq!(
        lab.json("vhd", &["info", "base", "--json"])["blocks"]["block_size"],
        512 << 10
    );
}

#[test]
fn through_a_pipe() {
    for format in FORMATS {
        let lab = Lab::new();
        let target = later(&monday(), SIZE + MIB, 10);
        lab.pair(format, &monday(), &target);
        let diff = lab
            .command("vhd-diff", &["base", "target", "-o", "-"])
            .output()
            .unwrap();
        assert_eq!(diff.status.code(), Some(0), "{}", stderr(&diff));
        same(&diff.stdout, &lab.read("diff"), "stdout and file");
        let mut child = lab
            .command("vhd-apply", &["base", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&diff.stdout).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        lab.holds("base", &target);
        assert_eq!(lab.names(), ["base", "diff", "target"]);
    }
}

#[test]
fn names_in_any_script() {
    let lab = Lab::new();
    let (base, target) = (monday(), later(&monday(), SIZE, 10));
    lab.make("диск один.vhd", Format::Fixed, &base);
    lab.make("火曜日.vhd", Format::Fixed, &target);
    lab.diff("диск один.vhd", "火曜日.vhd", "Δ 'quoted'.vhddiff", &[]);
    lab.apply(&["диск один.vhd", "Δ 'quoted'.vhddiff", "--undo", "zurück"]);
    same(&lab.read("диск один.vhd"), &lab.read("火曜日.vhd"), "file");
    let shown = lab.json("vhd", &["show", "Δ 'quoted'.vhddiff", "--json"]);
    assert_eq!(shown["base"]["name"], "диск один.vhd");
    assert_eq!(shown["target"]["name"], "火曜日.vhd");
}
