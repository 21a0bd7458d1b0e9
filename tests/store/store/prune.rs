//! `vhd snapshot prune`: what the rules keep stays what it is, the rest goes, and an interrupted prune goes on.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::disk::{changed, content, disk};
use crate::store::lab::Lab;

/// One snapshot a day, called by its day of November, the last one with a tag; `bases` are new bases.
fn daily(days: &[u64], bases: &[u64]) -> (Lab, Vec<(String, Vec<u8>)>) {
    let lab = Lab::new();
    let mut bytes = disk(5, 3 << 20);
    let mut all = Vec::new();
    for day in days {
        bytes = changed(*day, &bytes);
        if day % 5 == 0 {
            bytes.resize(bytes.len() + (1 << 20), 0);
        }
        lab.0.file("disk.raw", &bytes);
        let (name, time) = (format!("d{day:02}"), format!("2026-11-{day:02}T06:00:00Z"));
        let args = [
            "create", "--disk", "web", "--name", &name, "disk.raw", "--time", &time,
        ];
        let full: &[&str] = if bases.contains(day) {
            &["--full"]
        } else {
            &[]
        };
        lab.good(&[&args[..], full].concat());
        all.push((name, bytes.clone()));
    }
    (lab, all)
}

fn names(lab: &Lab) -> Vec<String> {
    let listed = lab.json(&["list"]);
    let listed = listed["disks"][0]["snapshots"].as_array().unwrap();
    listed
        .iter()
        .map(|point| point["name"].as_str().unwrap().to_owned())
        .collect()
}

/// These are left, each as it was, and nothing is wrong.
fn assert_left(lab: &Lab, all: &[(String, Vec<u8>)], expected: &[&str]) {
    assert_eq!(names(lab), expected);
    for (name, bytes) in all.iter().filter(|(name, _)| expected.contains(&&**name)) {
        lab.assert_restores(name, bytes);
    }
    lab.good(&["verify", "--read-data"]);
}

#[test]
fn what_is_kept_stays_what_it_is() {
    let days: Vec<u64> = (1..=14).collect();
    // 2026-11-01 is a Sunday, so weeks end on the 1st, 8th and 15th.
    let (lab, all) = daily(&days, &[9]);
    let rules = ["prune", "--keep-daily", "3", "--keep-weekly", "3"];
    let files = lab.files();
    let dry = lab.good(&[&rules[..], &["--dry-run"]].concat());
    assert!(
        dry.contains("web@d08  2026-11-08T06:00:00Z  keep    weekly 2026-W45\n"),
        "{dry}"
    );
    assert!(
        dry.contains("web@d07  2026-11-07T06:00:00Z  delete\n"),
        "{dry}"
    );
    assert!(
        dry.contains("keep    newest, daily 2026-11-14, weekly 2026-W46\n"),
        "{dry}"
    );
    assert!(
        dry.ends_with("web: 5 would be kept, 9 snapshots would be deleted\n"),
        "{dry}"
    );
    assert_eq!(lab.files(), files);
    let view = lab.json(&rules);
    assert_eq!(
        (
            &view["disks"][0]["kept_count"],
            &view["disks"][0]["deleted_count"]
        ),
        (&5.into(), &9.into())
    );
    assert_eq!(
        view["disks"][0]["snapshots"][0]["reasons"][0],
        "weekly 2026-W44"
    );
    assert_left(&lab, &all, &["d01", "d08", "d12", "d13", "d14"]);
    // Once more: nothing is left to do.
    let files = lab.files();
    let again = lab.good(&rules);
    assert!(
        again.contains("web: 5 kept, 0 snapshots deleted"),
        "{again}"
    );
    assert_eq!(lab.files(), files);
    // The base goes, and it becomes that of the next that stays.
    lab.good(&["prune", "--keep-within", "2d"]);
    assert_left(&lab, &all, &["d13", "d14"]);
    assert_eq!(lab.files()[1], "000013-d13.vhd");
    lab.good(&["prune", "--keep-last", "1"]);
    assert_left(&lab, &all, &["d14"]);
}

/// A run of neighbours is folded at once: only the diff after it is written again, as squashing makes it.
#[test]
fn only_what_lies_behind_a_run_is_written_again() {
    let (lab, all) = daily(&[1, 8, 9, 10, 11, 12], &[]);
    let files = ["-d01.vhd", "-d08.vhddiff"];
    let state = || {
        files.map(|file| {
            (
                content(lab.file(file)),
                fs::metadata(lab.file(file)).unwrap().modified().unwrap(),
            )
        })
    };
    let before = state();
    // What squashing the diffs of the run by hand gives.
    let run = ["-d09", "-d10", "-d11", "-d12"].map(|end| lab.file(&format!("{end}.vhddiff")));
    let mut squash: Vec<&str> = vec!["squash"];
    squash.extend(run.iter().map(|file| file.to_str().unwrap()));
    squash.extend(["-o", "expected"]);
    let squashed = lab.run("vhd", &squash);
    assert!(squashed.status.success(), "{squashed:?}");
    lab.good(&["prune", "--keep-weekly", "3"]);
    assert!(state() == before, "what lies before the run was written");
    let folded = content(lab.file("-d12.vhddiff"));
    assert!(
        folded == content(lab.path("expected")),
        "not what squashing gives"
    );
    assert_left(&lab, &all, &["d01", "d08", "d12"]);
}

#[test]
fn tags_keep_and_several_disks_are_pruned() {
    let lab = Lab::new();
    lab.0.file("disk.raw", &disk(1, 1 << 20));
    for name in ["web", "db", "mail"] {
        for (snap, tag) in [
            ("a", "keep=yes"),
            ("b", "keep=no"),
            ("c", "other=1"),
            ("d", "x="),
        ] {
            lab.good(&[
                "create", "--disk", name, "--name", snap, "disk.raw", "--tag", tag,
            ]);
        }
    }
    let left = |name: &str| {
        let listed = lab.json(&["list", "--disk", name]);
        let listed = listed["disks"][0]["snapshots"].as_array().unwrap();
        let names = listed.iter().map(|point| point["name"].as_str().unwrap());
        names.collect::<String>()
    };
    lab.good(&[
        "prune",
        "--keep-tag",
        "keep=yes",
        "--disk",
        "web",
        "--disk",
        "db",
    ]);
    assert_eq!(
        [left("web"), left("db"), left("mail")],
        ["ad", "ad", "abcd"]
    );
    lab.good(&["prune", "--keep-tag", "keep"]);
    assert_eq!([left("web"), left("db"), left("mail")], ["ad", "ad", "abd"]);
}

#[test]
fn what_can_not_be_judged_is_refused() {
    let (lab, _) = daily(&[1, 2], &[]);
    for args in [
        &["prune"][..],
        &["prune", "--keep-last", "0", "--keep-daily", "0"],
        &["prune", "--keep-last", "-1"],
        &["prune", "--keep-last", "many"],
        &["prune", "--keep-within", "30"],
        &["prune", "--keep-tag", "=x"],
        &["prune", "--keep-last", "1", "--disk", "other"],
    ] {
        lab.ends(2, args);
    }
    let manifest = lab.file("-d02.json");
    let good = content(&manifest);
    crate::store::lab::flip(&manifest, 30);
    lab.ends(3, &["prune", "--keep-last", "1"]);
    fs::write(&manifest, good).unwrap();
    assert_eq!(names(&lab), ["d01", "d02"]);
}

/// Killed at ever later moments, then once more: the same as if it had never been interrupted.
#[test]
fn a_killed_prune_goes_on() {
    let days: Vec<u64> = (1..=12).collect();
    let (lab, all) = daily(&days, &[7]);
    let copy = lab.path("store/copy");
    fs::create_dir(&copy).unwrap();
    for file in lab.files() {
        fs::copy(lab.path("store/web").join(&file), copy.join(&file)).unwrap();
    }
    fs::rename(&copy, lab.path("copy")).unwrap();
    let rules = ["prune", "--keep-last", "2", "--keep-weekly", "3", "-q"];
    let (mut delay, mut killed) = (Duration::from_millis(1), 0);
    for _ in 0..14 {
        fs::remove_dir_all(lab.path("store/web")).unwrap();
        fs::create_dir(lab.path("store/web")).unwrap();
        for entry in fs::read_dir(lab.path("copy")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), lab.path("store/web").join(entry.file_name())).unwrap();
        }
        let mut child = lab
            .command("vhd", &["snapshot"])
            .args(rules)
            .spawn()
            .unwrap();
        sleep(delay);
        let _ = child.kill();
        killed += u32::from(!child.wait().unwrap().success());
        for name in names(&lab) {
            let (_, bytes) = all.iter().find(|(known, _)| *known == name).unwrap();
            lab.assert_restores(&name, bytes);
        }
        lab.good(&rules);
        assert_left(&lab, &all, &["d01", "d08", "d11", "d12"]);
        delay = delay * 4 / 3;
    }
    assert!(killed > 3, "only {killed} prunes were killed in time");
}
