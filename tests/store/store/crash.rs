//! Whatever an interrupted command leaves, the next one finishes or takes back.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::disk::{assert_same, changed, content, disk};
use crate::store::lab::Lab;

fn two(lab: &Lab) -> [Vec<u8>; 2] {
    let a = disk(1, 3 << 20);
    let b = changed(1, &a);
    for (name, bytes) in [("a", &a), ("b", &b)] {
        lab.0.file(&format!("{name}.raw"), bytes);
        lab.add(name, &format!("{name}.raw"));
    }
    [a, b]
}

#[test]
fn data_without_a_manifest_goes_and_data_with_one_gets_its_name() {
    let lab = Lab::new();
    let [a, b] = two(&lab);
    let files = lab.files();
    let diff = lab.file("-b.vhddiff");
    let new = diff.with_file_name("000002-b.vhddiff.new");
    // The manifest stands: a reader looks past it, a writer finishes it.
    fs::rename(&diff, &new).unwrap();
    let left = lab.files();
    lab.assert_restores("b", &b);
    lab.good(&["verify", "--read-data"]);
    assert_eq!(lab.files(), left);
    lab.good(&["repair"]);
    assert_eq!(lab.files(), files);
    // Data that never became a snapshot, and temporary files: the next writer removes them.
    for name in [
        "000003-c.vhddiff.new",
        "000003-c.vhd.new",
        ".vhdkit-abc.tmp",
    ] {
        fs::write(diff.with_file_name(name), b"half").unwrap();
    }
    lab.assert_restores("a", &a);
    lab.add("c", "a.raw");
    lab.good(&["delete", "c"]);
    assert_eq!(lab.files(), files);
    // A fold that was never decided.
    fs::write(&new, b"folded").unwrap();
    lab.assert_restores("b", &b);
    lab.good(&["repair"]);
    assert_eq!(lab.files(), files);
    // Data under its final name stays, though its manifest is lost.
    let manifest = lab.file("-b.json");
    let kept = content(&manifest);
    fs::remove_file(&manifest).unwrap();
    lab.add("c", "a.raw");
    let found = lab.ends(1, &["verify"]);
    assert!(
        found.contains("000002-b.vhddiff: this file has no manifest"),
        "{found}"
    );
    lab.good(&["delete", "c"]);
    fs::write(&manifest, kept).unwrap();
    lab.assert_restores("b", &b);
}

#[test]
fn window_hashes_that_are_stale_or_damaged_are_made_again() {
    let lab = Lab::new();
    let [a, _] = two(&lab);
    let list = lab.file("newest.windows");
    for bytes in [b"nonsense".to_vec(), content(&list)[..90].to_vec()] {
        fs::write(&list, bytes).unwrap();
        lab.add("c", "a.raw");
        lab.assert_restores("c", &a);
        lab.good(&["delete", "c"]);
    }
}

/// Kills create and delete at ever later moments: afterwards every snapshot that is listed restores to what it was.
#[test]
fn killed_commands_leave_every_point_as_it_was() {
    let lab = Lab::new();
    let mut disks = vec![disk(3, 4 << 20)];
    for n in 0..3 {
        disks.push(changed(n, disks.last().unwrap()));
    }
    for (n, bytes) in disks.iter().enumerate() {
        lab.0.file(&format!("s{n}.raw"), bytes);
    }
    let (mut delay, mut killed, mut round) = (Duration::from_micros(300), 0, 0);
    while round < 24 {
        let _ = fs::remove_dir_all(lab.path("store/web"));
        for n in 0..3 {
            lab.add(&format!("s{n}"), &format!("s{n}.raw"));
        }
        let victim = ["s0", "s1", "s2"][round % 3];
        let create = ["create", "--disk", "web", "--name", "s3", "s3.raw"];
        let delete = ["delete", victim];
        let deletes = round % 4 != 0;
        let mut child = lab
            .command("vhd", &["snapshot", "-q"])
            .args(if deletes { &delete[..] } else { &create[..] })
            .spawn()
            .unwrap();
        sleep(delay);
        let _ = child.kill();
        killed += u32::from(!child.wait().unwrap().success());
        let listed = lab.json(&["list"]);
        let listed = listed["disks"][0]["snapshots"].as_array().unwrap();
        let names: Vec<_> = listed.iter().map(|p| p["name"].as_str().unwrap()).collect();
        for n in 0..3 {
            let name = format!("s{n}");
            assert!(
                names.contains(&&*name) || (deletes && name == victim),
                "{names:?}"
            );
        }
        for name in &names {
            let n: usize = name[1..].parse().unwrap();
            lab.assert_restores(name, &disks[n]);
        }
        // A writer leaves nothing that doesn't belong there.
        lab.add("last", "s0.raw");
        lab.good(&["verify", "--read-data"]);
        let files = lab.files();
        let stray = |file: &&String| {
            file.contains(".new")
                || file.starts_with(".vhdkit")
                || file.starts_with("deleting")
                || file.ends_with("journal")
        };
        assert_eq!(files.iter().find(stray), None, "{files:?}");
        delay = delay * 5 / 4;
        if delay > Duration::from_millis(60) {
            delay = Duration::from_micros(500);
        }
        round += 1;
    }
    assert!(killed > 3, "only {killed} commands were killed in time");
    assert_same(&content(lab.path("s0.raw")), &disks[0], "an input");
}
