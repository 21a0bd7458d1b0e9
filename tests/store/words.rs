//! `STORE::DISK@SNAPSHOT` wherever an image is read.

use std::fs;

use crate::disk::{assert_same, changed, content, disk, run_to};
use crate::lab::Lab;

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
