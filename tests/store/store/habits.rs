//! What people are used to from other backup programs.

use std::fs;
use std::path::Path;

use crate::disk::{Random, changed, content, disk, run, run_to};
use crate::store::lab::{Lab, ends};

const SIZE: usize = 2 << 20;

fn two(lab: &Lab) {
    let bytes = disk(5, SIZE);
    lab.image("a", &bytes, "raw");
    lab.image("b", &changed(1, &bytes), "raw");
}

/// The nightly script of the documents, as it is there.
#[test]
fn the_nightly_script_runs_silently_and_says_what_is_wrong() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/cli.md")).unwrap();
    let (_, after) = text.split_once("## A nightly script\n\n```sh\n").unwrap();
    let (script, _) = after.split_once("```").unwrap();
    assert_eq!(script.lines().count(), 4);
    let lab = Lab::new();
    two(&lab);
    lab.good(&["init", "second"]);
    let second = lab.path("second");
    let script = script
        .replace("/mnt/second", second.to_str().unwrap())
        .replace("web.vhd", "\"$1\"")
        .replace("--disk web \"$1\"", "--disk web --time \"$2\" \"$1\"");
    let bin = Path::new(env!("CARGO_BIN_EXE_vhd")).parent().unwrap();
    let night = |image: &str, time: &str, code: i32| {
        let mut command = lab.command("vhd", &[]);
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", &script, "night", image, time])
            .current_dir(command.get_current_dir().unwrap())
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .env("VHDKIT_STORE", lab.path("store"));
        command.arg("--help");
        let output = run_to(&mut shell, code);
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap())
    };
    for (n, time) in ["9d ago", "8d ago", "2d ago"].into_iter().enumerate() {
        let [out, err] = night(["a.raw", "b.raw"][n % 2], time, 1);
        assert!(out.contains("web: the newest snapshot, 2"), "{out}");
        assert!(out.contains("more than 26 h 0 min"), "{out}");
        assert_eq!(err, "");
    }
    for time in ["2h ago", "1h ago", "now"] {
        assert_eq!(night("a.raw", time, 0), ["", ""], "{time}");
    }
    let [_, err] = night("none.raw", "now", 2);
    assert!(err.contains("none.raw"), "{err}");
}

#[test]
fn names_times_and_several_disks() {
    let lab = Lab::new();
    two(&lab);
    let said = lab.good(&["create", "--disk", "web", "--time", "2026-01-17", "a.raw"]);
    assert!(said.contains("web@20260117T000000Z: base"), "{said}");
    lab.ends(
        2,
        &["create", "--disk", "web", "--time", "2026-01-17", "b.raw"],
    );
    let said = lab.ends(
        2,
        &[
            "create",
            "--disk",
            "web",
            "b.raw",
            "--also",
            "db=a.raw",
            "--also",
            "x=none.raw",
            "--tag",
            "k=v",
        ],
    );
    assert!(
        said.contains("db@20") && said.contains("none.raw"),
        "{said}"
    );
    let listed = lab.json(&["list"]);
    let newest: Vec<_> = ["web", "db"]
        .iter()
        .map(|name| {
            let disks = listed["disks"].as_array().unwrap();
            let disk = disks.iter().find(|disk| disk["disk"] == *name).unwrap();
            let point = disk["snapshots"].as_array().unwrap().last().unwrap();
            (point["name"].clone(), point["time"].clone())
        })
        .collect();
    assert_eq!(newest[0], newest[1]);
    let shown = lab.json(&["show", "--disk", "db"]);
    assert_eq!(shown["tags"]["k"], "v");
    let shown = lab.json(&["show", "--disk", "web", "--at", "2026-01-17"]);
    assert_eq!(shown["name"], "20260117T000000Z");
    let shown = lab.json(&["show", "--disk", "web", "--at", "now"]);
    assert_eq!(shown["name"], newest[0].0);
    lab.ends(2, &["show", "--disk", "web", "--at", "tomorrow"]);
    lab.ends(
        2,
        &["create", "--disk", "web", "a.raw", "--also", "web=b.raw"],
    );
}

#[test]
fn what_is_held_stays_until_somebody_says_otherwise() {
    let lab = Lab::new();
    two(&lab);
    for (name, image) in [
        ("a", "a.raw"),
        ("b", "b.raw"),
        ("c", "a.raw"),
        ("d", "b.raw"),
    ] {
        lab.add(name, image);
    }
    lab.good(&["hold", "b", "--reason", "before the migration"]);
    lab.good(&["tag", "a", "web@c", "--set", "k=v", "--set", "l=w"]);
    lab.good(&["tag", "c", "--remove", "l"]);
    assert_eq!(
        lab.json(&["show", "c"])["tags"],
        serde_json::json!({"k": "v"})
    );
    lab.ends(2, &["tag", "c", "none", "--set", "x=y"]);
    assert_eq!(
        lab.json(&["show", "c"])["tags"],
        serde_json::json!({"k": "v"})
    );
    let said = lab.ends(2, &["delete", "a", "b"]);
    assert!(
        said.contains("before the migration") && said.contains("--release-hold"),
        "{said}"
    );
    assert_eq!(
        lab.json(&["list"])["disks"][0]["snapshots"]
            .as_array()
            .unwrap()
            .len(),
        4
    );
    let said = lab.good(&["prune", "--keep-last", "1"]);
    assert!(said.contains("keep    held"), "{said}");
    let names = || -> Vec<String> {
        let listed = lab.json(&["list"]);
        let points = listed["disks"][0]["snapshots"].as_array().unwrap().clone();
        points
            .iter()
            .map(|p| p["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(), ["b", "d"]);
    let said = lab.good(&["delete", "b", "--release-hold", "--dry-run"]);
    assert!(said.contains("web@b: would be deleted"), "{said}");
    assert_eq!(names(), ["b", "d"]);
    let said = lab.ends(2, &["delete", "b", "d", "--release-hold"]);
    assert!(
        said.contains("all snapshots") && said.contains("--last"),
        "{said}"
    );
    lab.good(&["hold", "b", "--release"]);
    lab.good(&["delete", "b"]);
    lab.good(&["delete", "d", "--last", "-q"]);
}

#[test]
fn what_a_store_takes_is_told_to_people_and_to_monitors() {
    let lab = Lab::new();
    two(&lab);
    lab.add("a", "a.raw");
    lab.add("b", "b.raw");
    let said = lab.json(&["stats"]);
    let files = fs::read_dir(lab.path("store/web")).unwrap();
    let stored: u64 = files
        .map(|entry| entry.unwrap())
        .filter(|entry| {
            let name = entry.file_name().into_string().unwrap();
            ends(&name, "vhd") || ends(&name, "vhddiff")
        })
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert_eq!(said["file_size"], stored);
    assert_eq!(said["virtual_size"], 2 * SIZE);
    assert_eq!(said["disks"][0]["newest"], "b");
    let said = lab.good(&["stats", "--points"]);
    assert!(said.contains("web@b") && said.contains("\nall "), "{said}");
    let said = lab.good(&["stats", "--format", "node-exporter"]);
    assert!(
        said.contains("vhdkit_disk_snapshots{disk=\"web\"} 2\n"),
        "{said}"
    );
    assert!(
        said.contains(&format!(
            "vhdkit_disk_stored_bytes{{disk=\"web\"}} {stored}\n"
        )),
        "{said}"
    );
    let begun = std::time::Instant::now();
    run(&mut lab.command(
        "vhd",
        &[
            "snapshot",
            "restore",
            "b",
            "-o",
            "slow.raw",
            "--limit-rate",
            "4M",
            "-q",
        ],
    ));
    assert!(begun.elapsed().as_millis() >= 400);
}

#[test]
fn a_snapshot_gets_another_name() {
    for version in ["1", "2"] {
        let lab = Lab::empty();
        lab.good(&["init", "--store-version", version, "store"]);
        two(&lab);
        for name in ["a", "b"] {
            lab.add(name, &format!("{name}.raw"));
        }
        lab.good(&["copy", "--init", "--to", "far"]);
        let id = |name: &str| lab.json(&["show", name])["id"].clone();
        let before = id("a");
        // Its name is free again, and what is made of it stays what it is.
        lab.good(&["rename", "web@a", "first"]);
        assert_eq!(id("first"), before);
        lab.good(&["verify", "--read-data"]);
        let bytes = [content(lab.path("a.raw")), content(lab.path("b.raw"))];
        lab.assert_restores("first", &bytes[0]);
        lab.assert_restores("b", &bytes[1]);
        assert!(lab.files().iter().all(|file| !file.contains("-a.")));
        let said = lab.ends(2, &["rename", "first", "b"]);
        assert!(said.contains("another snapshot is called so"), "{said}");
        lab.ends(2, &["rename", "first", "../x"]);
        let said = lab.ends(2, &["rename", "a", "x"]);
        assert!(said.contains("no such snapshot"), "{said}");
        // Copies go on.
        lab.good(&["rename", "b", "second"]);
        lab.add("c", "a.raw");
        lab.good(&["copy", "--to", "far"]);
        lab.good(&["verify", "--read-data", "--store", "far"]);
        lab.good(&["delete", "first"]);
        lab.assert_restores("second", &bytes[1]);
        lab.good(&["verify", "--read-data"]);
    }
}

#[test]
fn verifying_keeps_to_a_rate_and_long_work_says_how_long_it_took() {
    let lab = Lab::packed();
    lab.0.file("disk.raw", &Random::new(1).bytes(1 << 20));
    lab.add("a", "disk.raw");
    let begun = std::time::Instant::now();
    let said = lab.good(&["verify", "--read-data", "--limit-rate", "100K"]);
    assert!(begun.elapsed().as_secs() >= 10);
    assert!(said.contains("took ") && said.contains("KiB/s"), "{said}");
}
