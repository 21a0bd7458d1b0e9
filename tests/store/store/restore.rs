//! `vhd snapshot restore` onto an image that is there, and as a child of another one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::thread::sleep;
use std::time::Duration;

use crate::disk::{assert_same, changed, content, disk};
use crate::store::lab::Lab;

/// Snapshots of a disk that changes, grows and shrinks.
fn history(lab: &Lab) -> Vec<(String, Vec<u8>)> {
    let mut bytes = disk(11, 5 << 20);
    let mut all = Vec::new();
    for n in 0..4_u64 {
        match n {
            2 => bytes.resize((7 << 20) + 1536, 7),
            3 => bytes.truncate(3 << 20),
            _ => {}
        }
        let name = format!("s{n}");
        lab.0.file("disk.raw", &bytes);
        lab.add(&name, "disk.raw");
        all.push((name, bytes.clone()));
        bytes = changed(n, &bytes);
    }
    all
}

/// What the image `name` holds.
fn held(lab: &Lab, name: &str) -> Vec<u8> {
    let args = ["convert", name, "held.raw", "-O", "raw", "--force", "-q"];
    lab.run("vhd", &args);
    content(lab.path("held.raw"))
}

/// Bytes that lead from one image to another, as `vhd-diff` counts them.
fn between(lab: &Lab, from: &str, to: &str) -> String {
    let output = lab
        .command("vhd-diff", &[from, to, "--format", "json"])
        .output()
        .unwrap();
    let view: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let [updated, cleared] = ["update_bytes", "clear_bytes"].map(|name| view[name].to_string());
    let text = |bytes: &str| format!("{bytes} bytes");
    format!("{} | {}", text(&updated), text(&cleared))
}

/// The same of a note: `… 12 bytes (…) updated and 3 bytes …`.
fn told(said: &str) -> String {
    let (_, numbers) = said.rsplit_once(" in place, ").unwrap();
    let [updated, cleared] = [0, 1].map(|n| {
        let part = numbers.split(" and ").nth(n).unwrap();
        part.split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    });
    format!("{updated} | {cleared}")
}

/// From any point to any other, on every format, in every way, with and without a stamp: only what differs is written.
#[test]
fn only_what_differs_is_written_in_place() {
    let lab = Lab::new();
    let all = history(&lab);
    for (name, bytes) in &all {
        lab.0.file(&format!("{name}.raw"), bytes);
    }
    let ways = ["--in-place", "--in-place=copy", "--in-place=journal"];
    let mut n = 0;
    for (i, (from, _)) in all.iter().enumerate() {
        for (j, (to, bytes)) in all.iter().enumerate() {
            for (k, format) in ["raw", "fixed", "dynamic"].into_iter().enumerate() {
                if (i + j + k) % 2 == 1 {
                    continue;
                }
                let image = if format == "raw" { "x.raw" } else { "x.vhd" };
                lab.good(&["restore", from, "-o", image, "-O", format, "--force"]);
                let stamped = n % 4 < 2;
                if !stamped {
                    let path = lab.path(image);
                    fs::copy(&path, lab.path("copy")).unwrap();
                    fs::rename(lab.path("copy"), &path).unwrap();
                }
                n += 1;
                let inode = fs::metadata(lab.path(image)).unwrap().ino();
                let way = ways[n % 3];
                let said = lab.good(&["restore", to, "-o", image, way, "-v"]);
                let what = format!("{from} {to} {format} {way} {said}");
                assert_eq!(
                    said.contains("according to its state stamp"),
                    stamped,
                    "{what}"
                );
                assert_same(&held(&lab, image), bytes, &what);
                let info = lab.run("vhd", &["info", image, "--json"]);
                let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
                assert_eq!(info["format"], format, "{what}");
                let kept = fs::metadata(lab.path(image)).unwrap().ino() == inode;
                if from == to {
                    assert!(kept && said.contains(", nothing was written"), "{what}");
                    continue;
                }
                assert_eq!(
                    kept,
                    way != "--in-place=copy" && !said.contains("clone"),
                    "{what}"
                );
                let [a, b] = [from, to].map(|name| format!("{name}.raw"));
                assert_eq!(told(&said), between(&lab, &a, &b), "{what}");
                // It is stamped again.
                let again = lab.good(&["restore", to, "-o", image, way, "-v"]);
                assert!(again.contains("according to its state stamp"), "{again}");
            }
        }
    }
    // The fixed VHD that was taken comes out byte for byte, whatever was there.
    let bytes = changed(9, &all[3].1);
    let fixed = lab.image("fixed", &bytes, "fixed");
    lab.add("fixed", &fixed);
    lab.good(&["restore", "s2", "-o", "x.vhd", "-O", "fixed", "--force"]);
    lab.good(&["restore", "fixed", "-o", "x.vhd", "--in-place"]);
    assert_same(
        &content(lab.path("x.vhd")),
        &content(lab.path(&fixed)),
        "fixed",
    );
    // An image that has nothing to do with the disk; one that isn't there.
    lab.0.file("other.raw", &disk(77, 1 << 20));
    lab.good(&["restore", "s1", "-o", "other.raw", "--in-place"]);
    assert_same(&content(lab.path("other.raw")), &all[1].1, "other");
    lab.good(&["restore", "s1", "-o", "new.raw", "--in-place"]);
    assert_same(&content(lab.path("new.raw")), &all[1].1, "new");
}

#[test]
fn what_must_not_be_changed_in_place_is_refused() {
    let lab = Lab::new();
    let all = history(&lab);
    lab.good(&["restore", "s0", "-o", "x.raw"]);
    let said = lab.ends(2, &["restore", "s1", "-o", "x.raw"]);
    assert!(
        said.contains("--in-place") && said.contains("--force"),
        "{said}"
    );
    let said = lab.ends(
        2,
        &["restore", "s1", "-o", "x.raw", "--in-place", "-O", "fixed"],
    );
    assert!(said.contains("keeps its format"), "{said}");
    assert_same(&content(lab.path("x.raw")), &all[0].1, "untouched");
    // In place, --force goes on although other images have this one as their parent.
    lab.good(&["restore", "s1", "-o", "x.raw", "--in-place", "--force"]);
    assert_same(&content(lab.path("x.raw")), &all[1].1, "in place");
    let files = lab.files();
    for file in ["000001-s0.vhd", "000003-s2.vhddiff", "000004-s3.json"] {
        let path = format!("store/web/{file}");
        for how in ["--in-place", "--force"] {
            let said = lab.ends(2, &["restore", "s1", "-o", &path, how]);
            assert!(said.contains("part of a store"), "{said}");
        }
    }
    assert_eq!(lab.files(), files);
    lab.good(&["diff", "s0", "s1", "-o", "d.vhddiff"]);
    let diff = content(lab.path("d.vhddiff"));
    lab.ends(3, &["restore", "s1", "-o", "d.vhddiff", "--in-place"]);
    assert_same(&content(lab.path("d.vhddiff")), &diff, "a diff");
    lab.good(&["verify", "--read-data"]);
}

/// Killed at any moment, the image is the old one, the new one, or one command away from both.
#[test]
fn an_interrupted_restore_is_taken_back_and_made_again() {
    let lab = Lab::new();
    let all = history(&lab);
    let (mut killed, mut between) = (0, 0);
    for round in 0..30 {
        let delay = Duration::from_micros(300) * u32::try_from(round % 20).unwrap();
        lab.good(&["restore", "s0", "-o", "x.raw", "--force"]);
        let mut child = lab
            .command("vhd", &["snapshot", "restore", "s2", "-o", "x.raw", "-q"])
            .arg("--in-place=journal")
            .spawn()
            .unwrap();
        // Some are killed before there is a journal, most at a moment while it stands, some after.
        if round % 6 == 0 {
            sleep(delay * 5);
        } else {
            let journal = lab.path("x.raw.undo-journal");
            while !journal.exists() && child.try_wait().unwrap().is_none() {
                sleep(Duration::from_micros(50));
            }
            sleep(delay);
        }
        let _ = child.kill();
        killed += u32::from(!child.wait().unwrap().success());
        if lab.path("x.raw.undo-journal").exists() {
            between += 1;
            let said = lab.command("vhd", &["info", "x.raw"]).output().unwrap();
            assert_eq!(said.status.code(), Some(5));
            let said = String::from_utf8(said.stderr).unwrap();
            assert!(said.contains("vhd snapshot restore, again"), "{said}");
            if round % 2 == 0 {
                lab.run("vhd-apply", &["--rollback", "x.raw"]);
                assert_same(&content(lab.path("x.raw")), &all[0].1, "taken back");
            }
        } else {
            let found = content(lab.path("x.raw"));
            assert!(found == all[0].1 || found == all[2].1, "{round}");
        }
        let to = [0, 2, 3][round % 3];
        lab.good(&["restore", &all[to].0, "-o", "x.raw", "--in-place"]);
        assert_same(&content(lab.path("x.raw")), &all[to].1, "made again");
        assert!(!lab.path("x.raw.undo-journal").exists());
    }
    assert!(
        killed > 5 && between > 0,
        "{killed} killed, {between} between"
    );
}

/// A base that is damaged where a page is to be taken from is found, and the image isn't left with it.
#[test]
fn damage_in_the_store_does_not_pass() {
    let lab = Lab::new();
    let all = history(&lab);
    // A page that s1 changed: going back to s0 takes it from the base.
    let (old, new) = (&all[0].1, &all[1].1);
    let base = lab.file(".vhd");
    let mut bytes = content(&base);
    let at = (0..new.len().min(old.len()) / 512).find_map(|n| {
        let [old, new] = [old, new].map(|disk| &disk[n * 512..][..512]);
        let pages = bytes.chunks(512).enumerate();
        let mut same = pages.filter(|(_, page)| *page == old).map(|(at, _)| at);
        let only = same.next().filter(|_| same.next().is_none());
        only.filter(|_| old != new)
    });
    bytes[at.unwrap() * 512 + 5] ^= 1;
    fs::write(&base, bytes).unwrap();
    for way in ["--in-place=journal", "--in-place=copy"] {
        for stamped in [true, false] {
            lab.0.file("x.raw", new);
            if stamped {
                lab.run("vhd", &["hash", "x.raw", "--stamp"]);
            }
            let said = lab.ends(3, &["restore", "s0", "-o", "x.raw", way]);
            if lab.path("x.raw.undo-journal").exists() {
                assert!(stamped, "{said}");
                lab.run("vhd-apply", &["--rollback", "x.raw"]);
            }
            assert_same(&content(lab.path("x.raw")), new, way);
        }
    }
}

#[test]
fn a_child_stores_what_differs_from_its_parent() {
    let lab = Lab::new();
    let all = history(&lab);
    for (from, held_by_parent) in &all {
        // Twice: it may be the parent of the children of the round before.
        lab.good(&["restore", from, "-o", "parent.vhd", "--force", "--force"]);
        for (to, bytes) in &all {
            for stamped in [true, false] {
                if !stamped {
                    fs::copy(lab.path("parent.vhd"), lab.path("copy")).unwrap();
                    fs::rename(lab.path("copy"), lab.path("parent.vhd")).unwrap();
                }
                let child = ["restore", to, "-o", "child.vhd", "--force"];
                let over = ["-O", "differencing", "--parent", "parent.vhd"];
                let args = [&child[..], &over].concat();
                if bytes.len() < held_by_parent.len() {
                    let said = lab.ends(2, &args);
                    assert!(said.contains("can't be smaller than its parent"), "{said}");
                    continue;
                }
                lab.good(&args);
                let info = lab.run("vhd", &["info", "child.vhd", "--json"]);
                let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
                assert_eq!(info["format"], "differencing");
                assert_same(&held(&lab, "child.vhd"), bytes, &format!("{from} {to}"));
                lab.run("vhd", &["check", "child.vhd"]);
                if from == to {
                    let len = fs::metadata(lab.path("child.vhd")).unwrap().len();
                    assert!(len < 8192, "{len}");
                }
            }
        }
    }
    // In place a child stays one.
    lab.good(&["restore", "s2", "-o", "child.vhd", "--in-place"]);
    assert_same(&held(&lab, "child.vhd"), &all[2].1, "in place");
    for (args, why) in [
        (&["-O", "differencing"][..], "expected --parent FILE"),
        (
            &["-O", "raw", "--parent", "parent.vhd"],
            "only a differencing VHD has a parent",
        ),
        (&["--parent", "store/web/000001-s0.vhd"], "part of a store"),
        (&["--parent", "disk.raw"], "--raw-parent"),
    ] {
        let said = lab.ends(2, &[&["restore", "s1", "-o", "no.vhd"][..], args].concat());
        assert!(said.contains(why), "{said}");
        assert!(!lab.path("no.vhd").exists());
    }
    let raw = [
        "restore",
        "s1",
        "-o",
        "r.vhd",
        "--parent",
        "disk.raw",
        "--raw-parent",
    ];
    lab.good(&raw);
    lab.run("vhd", &["convert", "r.vhd", "r.raw", "--raw-parent"]);
    assert_same(&content(lab.path("r.raw")), &all[1].1, "over a raw parent");
}
