//! `vhd snapshot family`: what the cloud has, and what the store lacks of it.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::disk::disk;
use crate::store::lab::Lab;

const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cmd/family.in/az.json");
const WEB: &str = "7f1e9a52-0d3c-4b68-9d5e-2f6a1c8b4e70";

/// What JSON says of the disk `web`.
fn family(lab: &Lab, more: &[&str]) -> serde_json::Value {
    let args = ["family", LIST, "--disk", "web"];
    lab.json(&[&args[..], more].concat())
}

#[test]
fn the_store_says_which_disk_and_what_it_lacks() {
    let lab = Lab::new();
    lab.0.file("disk.raw", &disk(1, 1 << 20));
    let new = family(&lab, &["--source-unique-id", WEB]);
    assert_eq!(
        new["missing"],
        serde_json::json!(["web-mon", "web-tue", "web-wed"])
    );
    assert!(!lab.path("store/web").exists());
    // Without ids nothing tells which disk is meant.
    lab.ends(2, &["family", LIST, "--disk", "web"]);
    let add = |name: &str| {
        let args = ["create", "--disk", "web", "--name", name, "disk.raw"];
        lab.good(&[&args[..], &["--source-unique-id", WEB]].concat());
    };
    add("Web-Mon");
    let one = family(&lab, &[]);
    assert_eq!(one["missing"], serde_json::json!(["web-tue", "web-wed"]));
    let there = |view: &serde_json::Value| -> Vec<bool> {
        let all = view["snapshots"].as_array().unwrap().iter();
        all.map(|point| point["in_store"].as_bool().unwrap())
            .collect()
    };
    assert_eq!(there(&one), [true, false, false]);
    // The one between was left out: too late.
    add("web-wed");
    let all = family(&lab, &[]);
    assert_eq!(all["missing"], serde_json::json!([]));
    assert_eq!(there(&all), [true, false, true]);
    let warnings = all["warnings"].as_array().unwrap();
    assert!(
        warnings.iter().any(|w| w["id"] == "too-late"
            && w["message"]
                .as_str()
                .unwrap()
                .starts_with("web-tue: the store already has a later one")),
        "{warnings:?}"
    );
    // Another disk under this name.
    let error = lab.ends(
        4,
        &[
            "family",
            LIST,
            "--disk",
            "web",
            "--source-unique-id",
            "other",
        ],
    );
    assert!(error.contains("found other, expected 7f1e9a52"), "{error}");
}

#[test]
fn lists_come_through_pipes_and_are_bounded() {
    let lab = Lab::new();
    let mut child = lab
        .command(
            "vhd",
            &[
                "snapshot",
                "family",
                "-",
                "--source-unique-id",
                WEB,
                "--json",
            ],
        )
        .stdin(Stdio::from(fs::File::open(LIST).unwrap()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert!(child.wait().unwrap().success());
    let long = fs::File::create(lab.path("long")).unwrap();
    long.set_len((64 << 20) + 1).unwrap();
    let error = lab.ends(3, &["family", "long"]);
    assert!(error.contains("at most 67108864 bytes"), "{error}");
    lab.ends(2, &["family", "nowhere"]);
    lab.ends(2, &["family", LIST, "--disk", "../x"]);
    // No bytes of a list, and none cut anywhere, do more than be refused.
    let good = fs::read(Path::new(LIST)).unwrap();
    for len in (0..good.len() - 3).step_by(good.len() / 40) {
        fs::write(lab.path("cut"), &good[..len]).unwrap();
        lab.ends(3, &["family", "cut"]);
    }
}
