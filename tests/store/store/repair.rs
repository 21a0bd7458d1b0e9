//! `vhd snapshot repair` makes again what is damaged, or says what is lost; what it makes is proven.

use std::collections::BTreeMap;
use std::fs;

use crate::disk::{changed, content, disk};
use crate::store::damage::first_data;
use crate::store::lab::{Lab, ends, flip};

/// Snapshots a, b, c and d of images of these names, a copy of the store in `second`, and what each holds.
fn four() -> (Lab, Vec<Vec<u8>>) {
    let lab = Lab::new();
    let mut bytes = disk(1, 3 << 20);
    let mut all = Vec::new();
    for (n, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let image = lab.image(name, &bytes, "fixed");
        lab.good(&[
            "create", "--disk", "web", "--name", name, &image, "--tag", "k=v",
        ]);
        all.push(bytes.clone());
        bytes = changed(n as u64, &bytes);
    }
    fs::create_dir_all(lab.path("second/web")).unwrap();
    for file in lab.files() {
        fs::copy(
            lab.path("store/web").join(&file),
            lab.path("second/web").join(&file),
        )
        .unwrap();
    }
    (lab, all)
}

fn bytes_of(lab: &Lab) -> BTreeMap<String, Vec<u8>> {
    let files = lab.files().into_iter();
    files
        .map(|file| (file.clone(), content(lab.path("store/web").join(file))))
        .collect()
}

fn put_back(lab: &Lab, files: &BTreeMap<String, Vec<u8>>) {
    for file in lab.files() {
        fs::remove_file(lab.path("store/web").join(file)).unwrap();
    }
    for (file, bytes) in files {
        fs::write(lab.path("store/web").join(file), bytes).unwrap();
    }
}

/// All is as it was, and what was damaged lies beside, if it was there.
fn assert_whole(lab: &Lab, all: &[Vec<u8>]) {
    lab.good(&["verify", "--read-data"]);
    for (name, bytes) in ["a", "b", "c", "d"].into_iter().zip(all) {
        lab.assert_restores(name, bytes);
    }
    lab.add("e", "a.raw");
    lab.good(&["delete", "e"]);
}

#[test]
fn every_file_comes_back_from_another_store() {
    let (lab, all) = four();
    let good = bytes_of(&lab);
    let names: Vec<&String> = good.keys().filter(|file| *file != "lock").collect();
    assert_eq!(names.len(), 9);
    for file in names {
        let path = lab.path("store/web").join(file);
        for how in ["flip", "cut", "remove"] {
            match how {
                "flip" if ends(file, "vhd") => flip(&path, first_data(&lab)),
                "flip" => flip(&path, good[file].len() / 2),
                "cut" => fs::write(&path, &good[file][..good[file].len() / 2]).unwrap(),
                _ => fs::remove_file(&path).unwrap(),
            }
            let damaged = bytes_of(&lab);
            if how == "flip" {
                let dry = lab.good(&["repair", "--from", "second", "--dry-run"]);
                assert!(
                    dry.contains(&format!("{file}: would be rebuilt")),
                    "{how} {file}: {dry}"
                );
                assert_eq!(bytes_of(&lab), damaged);
            }
            let said = lab.good(&["repair", "--from", "second"]);
            assert!(
                said.contains(&format!("{file}: rebuilt")),
                "{how} {file}: {said}"
            );
            let now = bytes_of(&lab);
            // A base is written anew, and its manifest says how long it is.
            if !ends(file, "vhd") {
                assert!(now[file] == good[file], "{how} {file}: other bytes");
            }
            if file != "newest.windows" {
                assert_eq!(
                    now.get(&format!("{file}.damaged")),
                    damaged.get(file),
                    "{how} {file}"
                );
            }
            if how == "remove" {
                assert_whole(&lab, &all);
            } else {
                lab.good(&["verify", "--read-data"]);
            }
            put_back(&lab, &good);
        }
    }
    let nothing = lab.good(&["repair"]);
    assert_eq!(nothing, "web: 0 files rebuilt; now: no problems\n");
    assert_eq!(bytes_of(&lab), good);
}

#[test]
fn manifests_come_back_from_what_is_left() {
    let (lab, all) = four();
    let good = bytes_of(&lab);
    for (number, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let file = format!("{:06}-{name}.json", number + 1);
        let path = lab.path("store/web").join(&file);
        // One wrong byte anywhere, in the checksum too: it comes back as it was.
        let len = good[&file].len();
        let places = [
            len / 3 + number,
            len - 1,
            0,
            30,
            len - 90,
            len - 70,
            len - 20,
        ];
        for at in places.into_iter().take(if name == "a" { 7 } else { 2 }) {
            flip(&path, at);
            let said = lab.good(&["repair"]);
            assert!(
                said.contains("one byte was wrong"),
                "{file} at {at}: {said}"
            );
            assert!(content(&path) == good[&file], "{file} at {at}");
        }
        put_back(&lab, &good);
        // Lost: the data and the next diff know all but the tags.
        let before = lab.json(&["show", name]);
        fs::remove_file(&path).unwrap();
        let said = lab.good(&["repair"]);
        assert!(said.contains("tags are lost"), "{file}: {said}");
        let mut after = lab.json(&["show", name]);
        after["tags"] = before["tags"].clone();
        if name == "a" {
            // What it takes now; the copies of this test have lost its holes.
            for field in ["used_size", "chain_used_size"] {
                after[field] = before[field].clone();
            }
        }
        if name == "d" {
            assert_ne!(after["id"], before["id"]);
            after["id"] = before["id"].clone();
        }
        assert_eq!(after, before);
        assert_whole(&lab, &all);
        put_back(&lab, &good);
    }
    // All that can be derived at once.
    for file in good.keys().filter(|file| file.ends_with("json")).skip(1) {
        fs::remove_file(lab.path("store/web").join(file)).unwrap();
    }
    lab.good(&["repair"]);
    assert_whole(&lab, &all);
}

#[test]
fn bases_and_diffs_come_back_from_images() {
    let (lab, all) = four();
    let good = bytes_of(&lab);
    for (name, ending) in [
        ("a", "vhd"),
        ("b", "vhddiff"),
        ("c", "vhddiff"),
        ("d", "vhddiff"),
    ] {
        let path = lab.file(&format!("-{name}.{ending}"));
        let at = if name == "a" {
            first_data(&lab)
        } else {
            content(&path).len() * 2 / 3
        };
        flip(&path, at);
        let error = lab.ends(1, &["repair"]);
        assert!(error.contains("--image SNAPSHOT=FILE"), "{error}");
        // One that holds something else isn't used.
        let other = if name == "d" { "a.vhd" } else { "d.vhd" };
        let refused = lab.ends(1, &["repair", "--image", &format!("{name}={other}")]);
        assert!(
            refused.contains("doesn't have the content of the snapshot"),
            "{refused}"
        );
        for form in ["vhd", "raw"] {
            let damaged = bytes_of(&lab);
            lab.good(&["repair", "--image", &format!("{name}={name}.{form}")]);
            assert_whole(&lab, &all);
            put_back(&lab, &damaged);
        }
        put_back(&lab, &good);
    }
    // All data at once.
    for ending in ["-a.vhd", "-b.vhddiff", "-c.vhddiff", "-d.vhddiff"] {
        fs::remove_file(lab.file(ending)).unwrap();
    }
    let images = ["a", "b", "c", "d"].map(|name| format!("{name}={name}.vhd"));
    let args: Vec<&str> = images.iter().flat_map(|image| ["--image", image]).collect();
    lab.good(&[&["repair"][..], &args].concat());
    assert_whole(&lab, &all);
    lab.ends(2, &["repair", "--image", "x=a.vhd"]);
    lab.ends(2, &["repair", "--image", "a.vhd"]);
    lab.ends(5, &["repair", "--from", "store"]);
    lab.ends(2, &["repair", "--from", "nowhere"]);
}

#[test]
fn what_is_lost_can_be_given_up_and_no_more() {
    let (lab, all) = four();
    let good = bytes_of(&lab);
    let listed = || {
        let view = lab.json(&["list"]);
        let points = view["disks"][0]["snapshots"].as_array().unwrap().clone();
        let names = points
            .iter()
            .map(|p| p["name"].as_str().unwrap().to_owned());
        names.collect::<String>()
    };
    let check = |left: &str| {
        assert_eq!(listed(), left);
        lab.good(&["verify", "--read-data"]);
        for (name, bytes) in ["a", "b", "c", "d"].into_iter().zip(&all) {
            if left.contains(name) {
                lab.assert_restores(name, bytes);
            }
        }
        lab.add("e", "a.raw");
        put_back(&lab, &good);
    };
    let cases: [(&str, &[&str], &str); 7] = [
        ("-b.vhddiff", &[], "a"),
        ("-c.vhddiff", &[], "ab"),
        ("-d.vhddiff", &[], "abc"),
        ("-b.vhddiff", &["--image", "c=c.vhd"], "acd"),
        ("-b.vhddiff", &["--image", "d=d.raw"], "ad"),
        ("-a.vhd", &["--image", "b=b.raw"], "bcd"),
        ("-a.vhd", &["--image", "d=d.vhd"], "d"),
    ];
    for (ending, more, left) in cases {
        fs::remove_file(lab.file(ending)).unwrap();
        let before = bytes_of(&lab);
        let args = [&["repair", "--drop"][..], more].concat();
        lab.good(&[&args[..], &["--dry-run"]].concat());
        assert_eq!(bytes_of(&lab), before);
        lab.good(&args);
        check(left);
    }
    // A base that is gone without any trace: only its manifest and files aside are left.
    flip(&lab.file("-a.json"), 20);
    flip(&lab.file("-a.json"), 40);
    fs::remove_file(lab.file("-a.vhd")).unwrap();
    lab.ends(1, &["repair"]);
    lab.good(&["repair", "--drop", "--image", "c=c.vhd"]);
    check("cd");
}

/// A store of other disks under the same names has nothing that could be taken for what is lost here.
#[test]
fn another_disk_of_the_same_name_is_no_source() {
    let lab = Lab::new();
    lab.good(&["init", "--store-version", "1", "second"]);
    for (store, seed) in [("store", 1), ("second", 2)] {
        lab.0.file("disk.raw", &disk(seed, 1 << 20));
        for name in ["a", "b"] {
            let args = [
                "create", "--store", store, "--disk", "web", "--name", name, "disk.raw",
            ];
            lab.good(&args);
            lab.0.file("disk.raw", &changed(seed, &disk(seed, 1 << 20)));
        }
    }
    let good = bytes_of(&lab);
    for ending in ["-a.vhd", "-b.vhddiff", "-b.json"] {
        fs::remove_file(lab.file(ending)).unwrap();
        let left = bytes_of(&lab);
        let said = lab.ends(
            i32::from(ending != "-b.json"),
            &["repair", "--from", "second"],
        );
        assert!(!said.contains("second"), "{said}");
        let now = bytes_of(&lab);
        assert!(left.iter().all(|(file, bytes)| now[file] == *bytes));
        put_back(&lab, &good);
    }
    // The base alone, without a manifest: nothing but the name speaks for that of the other store.
    lab.good(&["delete", "b"]);
    fs::remove_file(lab.file("-a.json")).unwrap();
    let left = bytes_of(&lab);
    lab.ends(1, &["repair", "--from", "second"]);
    assert_eq!(bytes_of(&lab), left);
}

/// A repair that ended between any two of its steps is finished by the next one.
#[test]
fn an_interrupted_repair_goes_on() {
    let (lab, all) = four();
    let good = bytes_of(&lab);
    let path = lab.file("-c.vhddiff");
    let (new, aside) = (
        path.with_file_name("000003-c.vhddiff.new"),
        path.with_file_name("000003-c.vhddiff.damaged"),
    );
    // The same diff with another identity, as a repair may write it.
    lab.run("vhd-diff", &["b.raw", "c.raw", "-o", "other"]);
    let other = content(lab.path("other"));
    assert!(other != good["000003-c.vhddiff"]);
    flip(&path, 300);
    fs::write(&new, &other).unwrap();
    lab.good(&["repair", "--from", "second"]);
    assert_whole(&lab, &all);
    put_back(&lab, &good);
    fs::rename(&path, &aside).unwrap();
    fs::write(&new, &other).unwrap();
    let said = lab.good(&["repair"]);
    assert!(said.contains("000003-c.json: rebuilt"), "{said}");
    assert!(content(&path) == other);
    assert_whole(&lab, &all);
}

/// A deletion was interrupted, and the file that says how to finish it is damaged.
#[test]
fn a_deletion_that_cannot_be_read_is_put_aside() {
    let (lab, all) = four();
    let intent = lab.path("store/web/deleting.json");
    let garbage = || fs::write(&intent, b"{ \"deleted\": [").unwrap();
    let repaired = |lab: &Lab, args: &[&str]| {
        for command in [&["list"][..], &["restore", "a", "-o", "x"], &["verify"]] {
            let said = lab.ends(3, command);
            assert!(said.contains("vhd snapshot repair sets it aside"), "{said}");
        }
        let said = lab.good(&[&["repair"], args].concat());
        assert!(
            said.contains("deleting.json is damaged and was set aside"),
            "{said}"
        );
        assert!(lab.files().contains(&"deleting.json.damaged".to_owned()));
        assert_whole(lab, &all);
        fs::remove_file(lab.path("store/web/deleting.json.damaged")).unwrap();
        said
    };
    let sound = bytes_of(&lab);
    // Nothing was done yet; the folded diff was complete.
    garbage();
    fs::write(lab.path("store/web/000003-c.vhddiff.new"), b"folded").unwrap();
    repaired(&lab, &[]);
    // The folded diff had taken the place of the next one's.
    put_back(&lab, &sound);
    lab.good(&["delete", "b"]);
    let folded = content(lab.file("-c.vhddiff"));
    put_back(&lab, &sound);
    fs::write(lab.file("-c.vhddiff"), folded).unwrap();
    garbage();
    let said = repaired(&lab, &["--from", "second"]);
    assert!(said.contains("000003-c.vhddiff"), "{said}");
    // The base was being brought forward: in the middle of that it is taken back.
    let mut between = 0;
    for micros in (0..6).map(|n| n * 700) {
        put_back(&lab, &sound);
        let mut child = lab
            .command("vhd", &["snapshot", "delete", "a", "-q"])
            .spawn()
            .unwrap();
        let journal = lab.path("store/web/000001-a.vhd.undo-journal");
        while !journal.exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
        std::thread::sleep(std::time::Duration::from_micros(micros));
        let _ = child.kill();
        let _ = child.wait();
        if journal.exists() && intent.exists() {
            between += 1;
            garbage();
            let said = repaired(&lab, &[]);
            assert!(
                said.contains("000001-a.vhd was restored to its previous content"),
                "{said}"
            );
        } else if intent.exists() {
            // It was done with the base: how far it came after that is each case of the test below.
            garbage();
            lab.good(&["repair", "--from", "second"]);
            lab.good(&["verify", "--read-data"]);
        }
    }
    assert!(
        between > 0,
        "none was killed while the base was between two points"
    );
}

#[test]
fn a_deletion_that_cannot_be_read_had_made_a_base() {
    let (lab, all) = four();
    let sound = bytes_of(&lab);
    lab.good(&["delete", "a"]);
    let after = bytes_of(&lab);
    // In the order in which the deletion does it.
    let mut state = sound.clone();
    state.insert("deleting.json".to_owned(), b"{".to_vec());
    state.insert("000002-b.vhd".to_owned(), after["000002-b.vhd"].clone());
    state.remove("000001-a.vhd");
    let mut states = vec![state.clone()];
    for gone in ["000002-b.vhddiff", "000001-a.json"] {
        state.remove(gone);
        states.push(state.clone());
    }
    state.insert("000002-b.json".to_owned(), after["000002-b.json"].clone());
    states.push(state);
    for (n, state) in states.iter().enumerate() {
        for from in [&[][..], &["--from", "second"]] {
            put_back(&lab, state);
            let has_both = n < 2 && !from.is_empty();
            // Without a second store, nothing but the manifest is left of the first snapshot.
            let args = [&["repair"], from].concat();
            let code = i32::from(n < 2 && !has_both);
            let said = lab.ends(code, &args);
            if code == 1 {
                lab.good(&["repair", "--drop"]);
            }
            lab.good(&["verify", "--read-data"]);
            assert_eq!(
                said.contains("its data is a base"),
                n < 3 && !has_both,
                "{n} {from:?}: {said}"
            );
            for (name, bytes) in ["a", "b", "c", "d"].into_iter().zip(&all) {
                if name == "a" && !has_both {
                    lab.ends(2, &["show", "a"]);
                } else {
                    lab.assert_restores(name, bytes);
                }
            }
        }
    }
}
