//! `vhd snapshot verify` names the damaged file and what it affects, and nothing damaged is restored.

use std::fs;

use crate::disk::{changed, content, disk};
use crate::store::lab::{Lab, flip};

fn three() -> Lab {
    let lab = Lab::new();
    let mut bytes = disk(1, 3 << 20);
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        lab.0.file("disk.raw", &bytes);
        lab.add(name, "disk.raw");
        bytes = changed(n as u64, &bytes);
    }
    lab
}

/// Where the base stores the first page, which isn't zero.
pub(crate) fn first_data(lab: &Lab) -> usize {
    let base = lab.file("-a.vhd");
    let args = ["map", base.to_str().unwrap(), "--offsets", "--json"];
    let map: serde_json::Value = serde_json::from_slice(&lab.run("vhd", &args).stdout).unwrap();
    usize::try_from(map["extents"][0]["offset"].as_u64().unwrap()).unwrap()
}

#[test]
fn every_flipped_byte_is_found_in_the_file_where_it_is() {
    let lab = three();
    lab.good(&["verify", "--read-data"]);
    let cases = [
        ("-a.json", "a, b, c"),
        ("-b.json", "b, c"),
        ("-b.vhddiff", "b, c"),
        ("-c.vhddiff", "c"),
        ("newest.windows", "no snapshot"),
    ];
    for (ending, affected) in cases {
        let file = lab.file(ending);
        let good = content(&file);
        for n in 0..12 {
            let at = (n * good.len() / 12 + n) % good.len();
            flip(&file, at);
            let found = lab.ends(1, &["verify", "--read-data"]);
            assert!(found.contains(ending), "{ending} at {at}: {found}");
            assert!(
                found.contains(&format!("affects: {affected}\n")),
                "{ending} at {at}: {found}"
            );
            fs::write(&file, &good).unwrap();
        }
    }
    // A base: what the disk holds, and the structures.
    let base = lab.file("-a.vhd");
    let good = content(&base);
    let data = first_data(&lab);
    for at in [3, 600, 1536, data, good.len() - 100] {
        flip(&base, at);
        let found = lab.ends(1, &["verify", "--read-data"]);
        assert!(found.contains("-a.vhd"), "{at}: {found}");
        assert!(found.contains("affects: a, b, c\n"), "{at}: {found}");
        fs::write(&base, &good).unwrap();
    }
    lab.good(&["verify", "--read-data"]);
}

#[test]
fn missing_and_cut_files_are_found_without_reading_data() {
    let lab = three();
    for ending in ["-a.vhd", "-b.vhddiff", "-c.vhddiff"] {
        let file = lab.file(ending);
        let good = content(&file);
        fs::write(&file, &good[..good.len() - 512.min(good.len() / 2)]).unwrap();
        let found = lab.ends(1, &["verify"]);
        assert!(found.contains(ending), "{found}");
        fs::remove_file(&file).unwrap();
        let found = lab.ends(1, &["verify"]);
        assert!(
            found.contains(ending) && found.contains("cannot open"),
            "{found}"
        );
        fs::write(&file, good).unwrap();
    }
    lab.good(&["verify"]);
}

#[test]
fn nothing_damaged_is_restored_and_the_points_before_it_are() {
    let lab = three();
    let diff = lab.file("-b.vhddiff");
    let good = content(&diff);
    // In a payload: only the one who reads it finds out.
    flip(&diff, good.len() / 2);
    lab.good(&["restore", "a", "-o", "a.raw"]);
    let error = lab.ends(3, &["restore", "b", "-o", "b.raw"]);
    assert!(error.contains("-b.vhddiff"), "{error}");
    assert!(!lab.path("b.raw").exists());
    fs::write(&diff, &good).unwrap();
    // A manifest: what is made of it can't be used, and nothing can be added.
    let manifest = lab.file("-b.json");
    let good = content(&manifest);
    flip(&manifest, 20);
    lab.good(&["restore", "a", "-o", "a.raw", "--force"]);
    lab.ends(3, &["restore", "c", "-o", "c.raw"]);
    lab.ends(3, &["create", "--disk", "web", "--name", "d", "disk.raw"]);
    lab.ends(3, &["delete", "a"]);
    let listed = lab.ends(1, &["list"]);
    assert!(listed.contains("this manifest was changed"), "{listed}");
    fs::write(&manifest, good).unwrap();
    lab.good(&["hash", "--all"]);
    // The base: its content is found to be wrong only when it is read whole.
    flip(&lab.file("-a.vhd"), first_data(&lab));
    lab.ends(3, &["hash", "a"]);
    lab.ends(3, &["restore", "a", "-o", "x.raw"]);
    assert!(!lab.path("x.raw").exists());
    lab.ends(3, &["restore", "a", "-o", "-"]);
}

/// A night's verification says all that it can, whatever else is going on.
#[test]
fn a_disk_in_use_hides_nothing_of_the_others() {
    let lab = three();
    for disk in ["db", "mail"] {
        lab.good(&["create", "--disk", disk, "--name", "a", "disk.raw"]);
    }
    flip(&lab.path("store/mail/000001-a.json"), 20);
    let lock = fs::File::create(lab.path("store/db/lock")).unwrap();
    lock.lock().unwrap();
    // Without the lock, and that is said.
    let found = lab.ends(1, &["verify"]);
    assert!(
        found.contains("db: is being written by another command"),
        "{found}"
    );
    assert!(found.contains("db: 1 snapshot,"), "{found}");
    assert!(found.contains("web: 3 snapshots"), "{found}");
    assert!(
        found.contains(
            "mail: 0 snapshots, structure only, data not read (--read-data reads it): 1 problem"
        ),
        "{found}"
    );
    assert!(found.contains("000001-a.json"), "{found}");
    // What can't be read at all hides nothing of the others either.
    fs::write(lab.path("store/db/deleting.json"), "{").unwrap();
    let found = lab.ends(3, &["verify", "--json", "-q"]);
    let view: serde_json::Value =
        serde_json::from_str(found.split("vhd: ").next().unwrap()).unwrap();
    assert_eq!(view["sound"], false);
    assert!(view["disks"][0]["error"].is_object(), "{view}");
    assert_eq!(view["disks"][1]["findings"].as_array().unwrap().len(), 1);
    assert!(view["disks"][2]["error"].is_null(), "{view}");
    let found = lab.ends(
        1,
        &["verify", "--disk", "web", "--disk", "mail", "--disk", "web"],
    );
    assert_eq!(found.matches("web: 3 snapshots").count(), 1, "{found}");
    assert!(
        !found.contains("store/db") && !found.contains("db:"),
        "{found}"
    );
    let listed = lab.ends(3, &["list"]);
    assert!(listed.contains("deleting.json"), "{listed}");
    assert!(listed.contains("web   c"), "{listed}");
    fs::remove_file(lab.path("store/db/deleting.json")).unwrap();
    drop(lock);
    lab.good(&["verify", "--disk", "web", "--disk", "db"]);
}
