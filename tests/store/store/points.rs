//! Every point in time is what it was, whatever became of the others.

use std::collections::BTreeMap;
use std::fs;

use crate::disk::{Random, assert_same, changed, content, disk, run};
use crate::store::lab::{Lab, ends};

/// Raw, fixed, dynamic and back, grown, cut and grown again: each comes back to the byte, through a file and a pipe.
#[test]
fn sources_of_all_formats_and_sizes_come_back() {
    let lab = Lab::new();
    let first = disk(1, 9 << 20);
    let second = changed(2, &first);
    let mut third = changed(3, &second);
    third.resize(14 << 20, 0);
    third[(13 << 20) + 5] = 1;
    let fourth = third[..5 << 20].to_vec();
    let mut fifth = fourth.clone();
    fifth.resize(9 << 20, 0);
    let steps = [
        ("a", &first, "fixed"),
        ("b", &second, "fixed"),
        ("c", &third, "dynamic"),
        ("d", &fourth, "raw"),
        ("e", &fifth, "fixed"),
        ("f", &fifth, "raw"),
    ];
    for (name, bytes, format) in steps {
        let image = lab.image(name, bytes, format);
        lab.add(name, &image);
        fs::rename(lab.path(&image), lab.path(&format!("{name}.source"))).unwrap();
    }
    for (name, bytes, format) in steps {
        lab.assert_restores(name, bytes);
        let piped = lab.run("vhd", &["snapshot", "restore", name, "-o", "-"]);
        assert_same(&piped.stdout, bytes, name);
        if format == "fixed" {
            lab.good(&["restore", name, "-o", "restored.vhd", "--force"]);
            let source = content(lab.path(&format!("{name}.source")));
            assert_same(&content(lab.path("restored.vhd")), &source, name);
        }
        for kind in ["dynamic", "fixed"] {
            lab.good(&["restore", name, "-o", "other.vhd", "-O", kind, "--force"]);
            lab.0.file("expected.raw", bytes);
            lab.run("vhd-diff", &["other.vhd", "expected.raw"]);
        }
    }
    lab.good(&["verify", "--read-data"]);
}

/// As `docs/store-format.md` says: `ls` and `vhd-apply`, and nothing else.
#[test]
fn restoring_by_hand_as_the_document_says() {
    let lab = Lab::new();
    let mut bytes = disk(4, 6 << 20);
    let mut fixed = Vec::new();
    for (n, name) in ["mon", "tue", "wed", "thu"].into_iter().enumerate() {
        let image = lab.image(name, &bytes, "fixed");
        lab.add(name, &image);
        fixed.push(content(lab.path(&image)));
        bytes = changed(n as u64, &bytes);
    }
    // In the order of `ls`, and with the manifests gone.
    let mut files = lab.files();
    files.retain(|file| !ends(file, "json"));
    fs::create_dir(lab.path("hand")).unwrap();
    for file in &files {
        fs::copy(
            lab.path("store/web").join(file),
            lab.path("hand").join(file),
        )
        .unwrap();
    }
    files.retain(|file| ends(file, "vhd") || ends(file, "vhddiff"));
    assert_eq!(files.len(), 4);
    for (n, expected) in fixed.iter().enumerate().skip(1) {
        let mut command = lab.command("vhd-apply", &["-o", "out.vhd", "--force"]);
        command.args(files[..=n].iter().map(|file| lab.path("hand").join(file)));
        run(&mut command);
        assert_same(&content(lab.path("out.vhd")), expected, &files[n]);
    }
    // The base itself: its footer stands in the manifest.
    let base = lab.path("hand").join(&files[0]);
    let base = base.to_str().unwrap();
    lab.run("vhd", &["convert", base, "base.vhd", "-O", "fixed"]);
    let mut made = content(lab.path("base.vhd"));
    made.truncate(made.len() - 512);
    let manifest = fs::read_to_string(lab.file("-mon.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let hex = manifest["source"]["footer"].as_str().unwrap();
    made.extend((0..512).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()));
    assert_same(&made, &fixed[0], "the base");
}

#[test]
fn two_hundred_snapshots_of_one_disk() {
    let lab = Lab::new();
    let mut random = Random::new(9);
    let mut bytes = disk(5, 1 << 20);
    let mut all = Vec::new();
    for n in 0..200 {
        let at = random.below(2048) * 512;
        let page = random.bytes(512);
        bytes[at..at + 512].copy_from_slice(&page);
        lab.0.file("disk.raw", &bytes);
        lab.add(&format!("s{n}"), "disk.raw");
        all.push(bytes.clone());
    }
    for n in [0, 1, 63, 64, 65, 130, 199] {
        lab.assert_restores(&format!("s{n}"), &all[n]);
    }
    let view = lab.json(&["show", "s199"]);
    assert_eq!(view["chain_length"], 200);
    lab.run("vhd-diff", &["store::web@s199", "disk.raw"]);
    // Few file handles are enough.
    let limited = "ulimit -n 96; exec \"$0\" snapshot restore s199 -o few.raw";
    run(lab
        .command("sh", &["-c", limited, env!("CARGO_BIN_EXE_vhd")])
        .env("LC_ALL", "C"));
}

/// Between any two points the list is that of `vhd-diff` of the restored images, and the diff leads from one to the other.
#[test]
fn differences_between_all_pairs() {
    let lab = Lab::new();
    let mut bytes = disk(6, 5 << 20);
    let mut names = Vec::new();
    for n in 0..5_u64 {
        let name = format!("s{n}");
        lab.0.file(&format!("{name}.raw"), &bytes);
        lab.add(&name, &format!("{name}.raw"));
        names.push(name);
        bytes = changed(n, &bytes);
        match n {
            1 => bytes.resize(11 << 20, 7),
            2 => bytes.truncate(3 << 20),
            _ => {}
        }
    }
    let ranges = |output: std::process::Output| {
        let view: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (view["ranges"].clone(), view["update_bytes"].clone())
    };
    for from in &names {
        for to in names.iter().filter(|to| *to != from) {
            let list = ["snapshot", "diff", from, to, "--format", "json"];
            let ours = lab.command("vhd", &list).output().unwrap();
            let images = [from, to].map(|name| format!("{name}.raw"));
            let theirs = ["--format", "json", &images[0], &images[1]];
            let theirs = lab.command("vhd-diff", &theirs).output().unwrap();
            assert_eq!(ours.status.code(), Some(1));
            assert_eq!(ranges(ours), ranges(theirs), "{from} {to}");
            lab.good(&["diff", from, to, "-o", "d", "--force"]);
            lab.run("vhd-apply", &[&images[0], "d", "-o", "out.raw", "--force"]);
            let expected = content(lab.path(&images[1]));
            assert_same(&content(lab.path("out.raw")), &expected, from);
        }
    }
}

/// A diff made elsewhere is stored as it is, by file and by pipe, and the next snapshot goes on from it.
#[test]
fn diffs_made_elsewhere_join() {
    let lab = Lab::new();
    let a = disk(7, 4 << 20);
    let b = changed(1, &a);
    let mut c = changed(2, &b);
    c.resize(7 << 20, 3);
    for (name, bytes) in [("a", &a), ("b", &b), ("c", &c)] {
        lab.0.file(&format!("{name}.raw"), bytes);
    }
    lab.add("a", "a.raw");
    lab.run("vhd-diff", &["a.raw", "b.raw", "-o", "ab"]);
    let add = ["create", "--disk", "web", "--name"];
    lab.good(&[&add[..], &["b", "--diff", "ab"]].concat());
    assert_same(
        &content(lab.file("-b.vhddiff")),
        &content(lab.path("ab")),
        "ab",
    );
    // The window hashes were brought along: without them the next one would hash all that is stored.
    let list = content(lab.file("newest.windows"));
    lab.run("vhd-diff", &["b.raw", "c.raw", "-o", "bc"]);
    let bc = fs::File::open(lab.path("bc")).unwrap();
    run(lab
        .command("vhd", &["snapshot"])
        .args([&add[..], &["c", "--diff", "-"]].concat())
        .stdin(bc));
    lab.add("d", "a.raw");
    for (name, bytes) in [("a", &a), ("b", &b), ("c", &c), ("d", &a)] {
        lab.assert_restores(name, bytes);
    }
    fs::remove_file(lab.file("newest.windows")).unwrap();
    lab.add("e", "b.raw");
    assert_same(&content(lab.file("newest.windows")), &list, "the list");
    let error = lab.ends(4, &[&add[..], &["f", "--diff", "ab"]].concat());
    assert!(
        error.contains("doesn't continue the newest snapshot"),
        "{error}"
    );
    lab.run(
        "vhd-diff",
        &["b.raw", "c.raw", "-o", "blind", "--no-digest"],
    );
    lab.ends(4, &[&add[..], &["f", "--diff", "blind"]].concat());
    lab.good(&["verify", "--read-data"]);
}

/// Random programs of create, full, delete, restore and diff against a map.
#[test]
fn programs_against_a_plain_map() {
    for seed in 0..3 {
        let lab = Lab::new();
        let mut random = Random::new(seed);
        let mut bytes = disk(seed, 3 << 20);
        let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for n in 0..40_u64 {
            let names: Vec<String> = model.keys().cloned().collect();
            let any = |random: &mut Random| names[random.below(names.len())].clone();
            match random.below(8) {
                0..4 => {
                    bytes = changed(seed * 100 + n, &bytes);
                    match random.below(5) {
                        0 => bytes.resize(bytes.len() + (1 + random.below(3000)) * 512, 9),
                        1 => bytes.truncate((bytes.len() / 512 / 2 + 1) * 512),
                        _ => {}
                    }
                    let format = ["raw", "fixed", "dynamic"][random.below(3)];
                    let image = lab.image("source", &bytes, format);
                    let name = format!("s{n:03}");
                    let mut args = vec!["create", "--disk", "web", "--name", &name, &image];
                    if random.below(8) == 0 {
                        args.push("--full");
                    }
                    lab.good(&args);
                    model.insert(name, bytes.clone());
                }
                4 | 5 if names.len() > 1 => {
                    let name = any(&mut random);
                    lab.good(&["delete", &name]);
                    model.remove(&name);
                }
                6 if !names.is_empty() => {
                    let name = any(&mut random);
                    lab.assert_restores(&name, &model[&name]);
                }
                _ if names.len() > 1 => {
                    let (from, to) = (any(&mut random), any(&mut random));
                    lab.good(&["diff", &from, &to, "-o", "d", "--force"]);
                    lab.0.file("from.raw", &model[&from]);
                    lab.run("vhd-apply", &["from.raw", "d", "-o", "to.raw", "--force"]);
                    assert_same(&content(lab.path("to.raw")), &model[&to], &from);
                }
                _ => {}
            }
        }
        lab.good(&["verify", "--read-data"]);
        lab.good(&["verify", "--read-data-subset", "30%"]);
        for (name, bytes) in &model {
            lab.assert_restores(name, bytes);
        }
        let listed = lab.json(&["list"]);
        let listed = listed["disks"][0]["snapshots"].as_array().unwrap();
        let listed: Vec<_> = listed.iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert_eq!(listed, model.keys().map(String::as_str).collect::<Vec<_>>());
    }
}

/// The first, one in the middle, the newest, down to the last.
#[test]
fn what_is_deleted_is_gone_and_the_rest_stays() {
    let lab = Lab::new();
    let mut bytes = disk(8, 3 << 20);
    let mut left = BTreeMap::new();
    for n in 0..6_u64 {
        lab.0.file("disk.raw", &bytes);
        lab.add(&format!("s{n}"), "disk.raw");
        left.insert(format!("s{n}"), bytes.clone());
        bytes = changed(n, &bytes);
    }
    for name in ["s0", "s3", "s5", "s1", "s2"] {
        lab.good(&["delete", name]);
        left.remove(name);
        for (name, bytes) in &left {
            lab.assert_restores(name, bytes);
        }
        lab.good(&["verify", "--read-data"]);
        let files = lab.files();
        assert!(!files.iter().any(|file| file.contains(name)), "{files:?}");
    }
    let error = lab.ends(2, &["delete", "s4"]);
    assert!(error.contains("this is the last snapshot"), "{error}");
    lab.good(&["delete", "s4", "--last"]);
    assert_eq!(lab.files(), ["lock"]);
    lab.add("new", "disk.raw");
}
