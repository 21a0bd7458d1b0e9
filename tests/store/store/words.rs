//! `STORE::DISK@SNAPSHOT` wherever an image is read.

use std::fs;

use crate::disk::{assert_same, changed, content, disk, run_to};
use crate::store::lab::Lab;

#[test]
fn a_point_in_time_is_an_image_for_every_command_that_reads_one() {
    let lab = Lab::new();
    let a = disk(1, 2 << 20);
    let b = changed(1, &a);
    for (name, bytes) in [("a", &a), ("b", &b)] {
        let image = lab.image(name, bytes, "fixed");
        lab.add(name, &image);
    }
    let text =
        |program: &str, args: &[&str]| String::from_utf8(lab.run(program, args).stdout).unwrap();
    let digest = |line: String| line.split(' ').next().unwrap().to_owned();
    for algorithm in ["content", "sha256", "blake3"] {
        let of = |image: &str| digest(text("vhd", &["hash", "-a", algorithm, image]));
        assert_eq!(of("store::web@b"), of("b.raw"));
        assert_eq!(of("::web"), of("b.raw"));
        assert_ne!(of("::web@a"), of("b.raw"));
    }
    assert!(text("vhd", &["info", "store::web@a"]).contains("content digest"));
    let map = text("vhd", &["map", "store::web@b", "--json"]);
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    assert_eq!(map["virtual_size"], 2 << 20);
    lab.run(
        "vhd",
        &["convert", "store::web@a", "out.vhd", "-O", "fixed"],
    );
    assert_same(
        &content(lab.path("out.vhd")),
        &content(lab.path("a.vhd")),
        "converted",
    );
    lab.run("vhd-diff", &["store::web@b", "b.raw"]);
    lab.run("vhd-diff", &["a.raw", "store::web@a"]);
    lab.run("vhd-diff", &["::web@a", "::web@b", "-o", "ab"]);
    lab.run("vhd-apply", &["store::web@a", "ab", "-o", "applied.vhd"]);
    assert_same(
        &content(lab.path("applied.vhd")),
        &content(lab.path("b.vhd")),
        "applied",
    );
    run_to(&mut lab.command("vhd-apply", &["store::web@a", "ab"]), 2);
    run_to(&mut lab.command("vhd", &["info", "store::web@none"]), 2);
    run_to(&mut lab.command("vhd", &["info", "store::none@a"]), 2);
    run_to(&mut lab.command("vhd", &["info", "nowhere::web@a"]), 2);
    // A file of that very name is a file.
    fs::copy(lab.path("a.raw"), lab.path("x::y@z")).unwrap();
    lab.run("vhd-diff", &["x::y@z", "a.raw"]);
}

/// What the commands print can be given to them again.
#[test]
fn a_snapshot_may_be_named_with_its_disk() {
    let lab = Lab::new();
    let a = disk(1, 1 << 20);
    for (name, bytes) in [
        ("a", a.clone()),
        ("b", changed(1, &a)),
        ("c", changed(2, &a)),
    ] {
        lab.0.file("disk.raw", &bytes);
        lab.add(name, "disk.raw");
    }
    lab.0.file("disk.raw", &a);
    lab.good(&["create", "--disk", "db", "--name", "a", "disk.raw"]);
    let said = lab.ends(2, &["show", "a"]);
    assert!(said.contains("DISK@SNAPSHOT"), "{said}");
    lab.assert_restores("web@b", &changed(1, &a));
    lab.assert_restores("db@a", &a);
    assert_eq!(lab.json(&["show", "web@b"])["name"], "b");
    lab.good(&["hash", "web@a", "b", "web@c"]);
    lab.good(&["diff", "web@a", "b", "-o", "ab"]);
    for args in [
        &["diff", "web@a", "db@a"][..],
        &["restore", "web@a", "--disk", "db", "-o", "out"],
        &["hash", "db@a", "web@a"],
    ] {
        let said = lab.ends(2, args);
        assert!(said.contains("two disks"), "{said}");
    }
    for (span, count) in [
        (&["--after", "web@a"][..], 2),
        (&["--until", "web@b"], 2),
        (&["--after", "web@a", "--until", "b"], 1),
    ] {
        let mut command = lab.command("vhd", &["snapshot", "send"]);
        let said = run_to(command.args(span), 0).stderr;
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains(&format!("web: {count} snapshot")), "{said}");
    }
    lab.good(&["delete", "web@b"]);
    lab.ends(2, &["show", "web@b"]);
    assert_eq!(lab.json(&["show", "--disk", "db"])["name"], "a");
}
