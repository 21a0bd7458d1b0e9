//! A week in the life of a disk with a real ext4 file system: a snapshot each day, copied to a second store, thinned
//! out, damaged, repaired, and restored, by the commands and by hand.
//!
//! ```text
//! cargo test --test store week -- --nocapture    also prints what the stores take beside the images
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's helpers, and what it shows"
)]

mod by_hand;
mod copies;
mod ext4;
mod restored;
mod sizes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::disk::{command, run};
use crate::store::lab::{Lab, ends};
use crate::week::ext4::Ext4;

/// A day, and what is known of it.
pub(crate) struct Day {
    /// The name of its snapshot.
    pub(crate) name: &'static str,
    /// A copy of the disk as it was.
    pub(crate) image: PathBuf,
    /// What its files held.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

/// The names of the days, in order; the snapshots are taken at six o'clock, from 16 November 2026 on.
const DAYS: [&str; 8] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun", "next"];

#[test]
fn a_week_of_a_real_file_system() {
    let lab = Lab::new();
    let days = live(&lab);
    copies::interrupted_five_times(&lab);
    sizes::print("after the week", &lab, &days);

    let kept = prune(&lab);
    let days: Vec<Day> = days
        .into_iter()
        .filter(|day| kept.contains(&day.name.to_owned()))
        .collect();
    lab.good(&["verify", "--read-data"]);
    // What is gone here is kept there.
    let said = lab.good(&["copy", "--init", "--to", "second"]);
    assert!(said.contains("web: nothing to copy; the newest is next"));
    let far = ["verify", "--read-data", "--store", "second"];
    assert!(lab.good(&far).starts_with("web: 8 snapshots"));

    damage_and_repair(&lab);
    for store in ["store", "second"] {
        for day in &days {
            let out = lab.path("restored.raw");
            let path = out.to_str().unwrap();
            lab.good(&["restore", day.name, "--store", store, "-o", path]);
            restored::assert_is(day, &out);
            std::fs::remove_file(&out).unwrap();
            by_hand::restore(&lab.path(store).join("web"), day, &out);
            restored::assert_is(day, &out);
            std::fs::remove_file(&out).unwrap();
        }
    }
    sizes::print("pruned", &lab, &days);
}

/// Files are added, changed, deleted and trimmed; the disk grows. Each day ends with a snapshot and a copy.
fn live(lab: &Lab) -> Vec<Day> {
    let mut disk = Ext4::new(lab.path("."));
    let mut days = Vec::new();
    for (n, name) in DAYS.into_iter().enumerate() {
        match name {
            "mon" => {}
            "tue" => {
                disk.add("srv/added.bin", 3 << 20);
                disk.add("etc/motd", 700);
            }
            "wed" => {
                disk.append("var/log/syslog", 200 << 10);
                disk.overwrite("srv/database", 40);
            }
            "thu" => disk.delete("srv/photos-2"),
            "fri" => disk.trim(),
            "sat" => {
                disk.grow(80);
                disk.add("srv/added-after-growing.bin", 4 << 20);
            }
            "sun" => {
                disk.overwrite("srv/database", 25);
                disk.append("var/log/syslog", 90 << 10);
                disk.delete("srv/added.bin");
                disk.add("home/letter.txt", 5000);
                disk.trim();
            }
            _ => disk.overwrite("srv/database", 10),
        }
        days.push(snapshot(lab, &disk, n, name));
    }
    days
}

fn snapshot(lab: &Lab, disk: &Ext4, n: usize, name: &'static str) -> Day {
    let time = format!("2026-11-{}T06:00:00Z", 16 + n);
    let mut args = vec!["create", "--disk", "web", "--name", name, "--time", &time];
    if name == "wed" {
        args.extend(["--tag", "keep=audit"]);
    }
    args.push("disk.img");
    let said = lab.good(&args);
    // The freed blocks cost nothing from the day on which they were trimmed.
    let cleared = !said.contains(" 0 bytes updated") && !said.contains(" 0 bytes cleared");
    assert!(!matches!(name, "fri" | "sun") || cleared, "{said}");
    let image = lab.path(&format!("{name}.img"));
    run(&mut command!("cp", "--sparse=always", &disk.image, &image));
    Day {
        name,
        image,
        files: disk.files.clone(),
    }
}

/// The last three days, the last of each of the last two weeks, and what is tagged. Gives the names of what is kept.
fn prune(lab: &Lab) -> Vec<String> {
    let rules = [
        "prune",
        "--keep-daily",
        "3",
        "--keep-weekly",
        "2",
        "--keep-tag",
        "keep",
    ];
    let before: Vec<_> = lab.files().iter().map(|file| state(lab, file)).collect();
    let dry = lab.good(&[&rules[..], &["--dry-run"]].concat());
    let lines: Vec<Vec<&str>> = dry
        .lines()
        .map(|line| line.split("  ").filter(|word| !word.is_empty()).collect())
        .collect();
    let expected = [
        ("web@mon", "delete"),
        ("web@tue", "delete"),
        ("web@wed", "tag keep"),
        ("web@thu", "delete"),
        ("web@fri", "delete"),
        ("web@sat", "daily 2026-11-21"),
        ("web@sun", "daily 2026-11-22, weekly 2026-W47"),
        ("web@next", "newest, daily 2026-11-23, weekly 2026-W48"),
    ];
    for (line, (point, why)) in lines.iter().zip(expected) {
        assert_eq!(
            (line[0].trim(), *line.last().unwrap()),
            (point, why),
            "{dry}"
        );
    }
    assert_eq!(
        dry.lines().last(),
        Some("web: 4 would be kept, 4 snapshots would be deleted")
    );
    let after: Vec<_> = lab.files().iter().map(|file| state(lab, file)).collect();
    assert_eq!(before, after, "a dry run changed the store");
    lab.good(&rules);
    let listed = lab.json(&["list"]);
    let points = listed["disks"][0]["snapshots"].as_array().unwrap();
    let names = points.iter().map(|point| point["name"].as_str().unwrap());
    let names: Vec<String> = names.map(str::to_owned).collect();
    assert_eq!(names, ["wed", "sat", "sun", "next"]);
    names
}

/// The offset of a byte in the middle of a stored file that holds data, and the place that damage there has: of a diff
/// the same, of a base the offset on the disk.
fn somewhere(lab: &Lab, path: &Path) -> [u64; 2] {
    let file = path.to_str().unwrap();
    if !ends(file, "vhd") {
        let middle = path.metadata().unwrap().len() / 2;
        return [middle, middle];
    }
    let map = lab.run("vhd", &["map", file, "--offsets", "--json"]).stdout;
    let map: Value = serde_json::from_slice(&map).unwrap();
    let mut extents = map["extents"].as_array().unwrap().clone();
    extents.retain(|extent| extent["state"] == "data");
    let extent = &extents[extents.len() / 2];
    ["offset", "start"].map(|field| extent[field].as_u64().unwrap() + 5)
}

fn state(lab: &Lab, file: &str) -> (String, copies::State) {
    let path = lab.path("store/web").join(file);
    (file.to_owned(), copies::State::of(&path))
}

/// One byte is flipped, in the base and then in a diff that pruning made, which the second store doesn't have. It is
/// found, and mended from the second store.
fn damage_and_repair(lab: &Lab) {
    for (file, affected) in [
        ("000003-wed.vhd", "wed, sat, sun, next"),
        ("000006-sat.vhddiff", "sat, sun, next"),
    ] {
        let path = lab.path("store/web").join(file);
        let [at, place] = somewhere(lab, &path);
        crate::store::lab::flip(&path, usize::try_from(at).unwrap());
        let said = lab.ends(1, &["verify", "--read-data"]);
        println!("\nbyte {at} of {file} flipped:\n{said}");
        assert!(said.ends_with("1 problem\n"), "{said}");
        assert!(said.lines().next().unwrap().contains(file), "{said}");
        let offset = said.split("offset ").nth(1).unwrap();
        let digits = offset.split(|c: char| !c.is_ascii_digit()).next().unwrap();
        let near = digits.parse().unwrap()..=place;
        assert!(
            near.contains(&place) && place - near.start() < 1 << 20,
            "{place}: {said}"
        );
        assert!(said.contains(&format!("affects: {affected}\n")), "{said}");
        lab.ends(3, &["restore", "next", "-o", "lost.raw"]);
        assert!(!lab.path("lost.raw").exists());
        let said = lab.good(&["repair", "--from", "second"]);
        assert!(said.contains(&format!("{file}: rebuilt")), "{said}");
        lab.good(&["verify", "--read-data"]);
        std::fs::remove_file(path.with_file_name(format!("{file}.damaged"))).unwrap();
    }
}
