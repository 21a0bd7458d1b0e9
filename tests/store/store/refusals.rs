//! What is refused, and what is said.

use std::process::Stdio;

use crate::disk::{assert_same, changed, disk};
use crate::store::lab::Lab;

#[test]
fn names_times_and_families() {
    let lab = Lab::new();
    let a = disk(1, 1 << 20);
    lab.0.file("a.raw", &a);
    lab.0.file("b.raw", &changed(1, &a));
    let create = |code: i32, name: &str, more: &[&str]| {
        let args = ["create", "--disk", "web", "--name", name];
        lab.ends(code, &[&args[..], more].concat())
    };
    create(2, "../a", &["a.raw"]);
    let error = lab.ends(2, &["create", "--disk", "..", "--name", "a", "a.raw"]);
    assert!(error.contains("the name of a disk"), "{error}");
    assert!(!lab.path("store/web").exists());
    let first = [
        "a.raw",
        "--time",
        "2026-11-20T06:00:00Z",
        "--source-resource-id",
        "/disks/web",
        "--source-unique-id",
        "11",
        "--tag",
        "keep=yes",
    ];
    create(0, "a", &first);
    create(2, "a", &["b.raw"]);
    let error = create(2, "b", &["b.raw", "--time", "2026-11-20T06:59:59+01:00"]);
    assert!(
        error.contains("2026-11-20T05:59:59Z, expected 2026-11-20T06:00:00Z (a)"),
        "{error}"
    );
    let error = create(4, "b", &["b.raw", "--source-unique-id", "12"]);
    assert!(error.contains("found 12, expected 11"), "{error}");
    let error = create(4, "b", &["b.raw", "--source-resource-id", "/disks/db"]);
    assert!(
        error.contains("/disks/db") && error.contains("/disks/web"),
        "{error}"
    );
    // Nothing of all that left anything.
    assert_eq!(
        lab.files(),
        ["000001-a.json", "000001-a.vhd", "lock", "newest.windows"]
    );
    create(
        0,
        "b",
        &[
            "b.raw",
            "--time",
            "2026-11-21T06:00:00Z",
            "--source-resource-id",
            "/DISKS/web",
        ],
    );
    let view = lab.json(&["show"]);
    assert_eq!(view["source_unique_id"], "11");
    let view = lab.json(&["show", "--at", "2026-11-20T07:00:00Z"]);
    assert_eq!(
        (&view["name"], &view["tags"]["keep"]),
        (&"a".into(), &"yes".into())
    );
    lab.ends(2, &["show", "--at", "2026-11-20T05:00:00Z"]);
    lab.ends(2, &["show", "c"]);
    lab.ends(2, &["show", "--disk", "other"]);
    // A second disk: now it has to be named.
    lab.good(&["create", "--disk", "db", "--name", "a", "b.raw"]);
    let error = lab.ends(2, &["show", "a"]);
    assert!(error.contains("--disk NAME"), "{error}");
    lab.good(&["show", "a", "--disk", "db"]);
}

#[test]
fn another_unique_id_of_a_vhd_warns_unless_the_disk_is_known() {
    let lab = Lab::new();
    let bytes = disk(2, 1 << 20);
    for name in ["a", "b", "c"] {
        lab.image(name, &bytes, "fixed");
    }
    lab.good(&[
        "create",
        "--disk",
        "web",
        "--name",
        "a",
        "a.vhd",
        "--source-unique-id",
        "1",
    ]);
    let said = lab.add("b", "b.vhd");
    assert!(said.contains("a different unique id"), "{said}");
    let args = [
        "create",
        "--disk",
        "web",
        "--name",
        "c",
        "c.vhd",
        "--source-unique-id",
        "1",
    ];
    let said = lab.good(&args);
    assert!(!said.contains("unique id"), "{said}");
}

/// A command that goes through the files of a store keeps writers away, and no readers. One that reads a point in time
/// keeps nobody away.
#[test]
fn readers_hold_what_they_read_and_stop_nobody() {
    let lab = Lab::new();
    lab.0.file("a.raw", &disk(3, 2 << 20));
    lab.add("a", "a.raw");
    // They can't end before somebody reads what they write.
    let begin = |args: &[&str]| {
        let mut reader = lab
            .command("vhd", args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0];
        std::io::Read::read_exact(reader.stdout.as_mut().unwrap(), &mut first).unwrap();
        reader
    };
    // What is sent is held open: whoever changes the disk meanwhile waits for nobody.
    let reader = begin(&["snapshot", "send"]);
    lab.good(&["hash"]);
    lab.add("b", "a.raw");
    lab.good(&["delete", "a"]);
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    lab.good(&["delete", "b", "--last"]);
    lab.add("a", "a.raw");
    let reader = begin(&["snapshot", "restore", "-o", "-"]);
    lab.add("b", "a.raw");
    lab.good(&["delete", "a"]);
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_same(&output.stdout, &disk(3, 2 << 20)[1..], "a");
    let mut reader = begin(&["snapshot", "restore", "-o", "-"]);
    reader.kill().unwrap();
    reader.wait().unwrap();
    lab.add("c", "a.raw");
}
