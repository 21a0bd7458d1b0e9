//! Bases that are diffs from nothing: they do all that images did, and a person can restore them by hand.

use std::fs;

use crate::disk::{assert_same, changed, content, disk, run_to};
use crate::store::lab::{Lab, ends, flip};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Snapshots a to e of a disk that grows and shrinks, and what each holds.
fn five() -> (Lab, Vec<Vec<u8>>) {
    let lab = Lab::packed();
    let all = fill(&lab);
    (lab, all)
}

fn fill(lab: &Lab) -> Vec<Vec<u8>> {
    let mut bytes = disk(3, 5 << 20);
    let mut all = Vec::new();
    for (n, name) in NAMES.into_iter().enumerate() {
        let format = ["fixed", "dynamic", "raw"][n % 3];
        let image = lab.image(name, &bytes, format);
        lab.good(&[
            "create", "--disk", "web", "--name", name, &image, "--tag", "k=v",
        ]);
        all.push(bytes.clone());
        bytes = changed(n as u64, &bytes);
        bytes.resize([6 << 20, 6 << 20, 4 << 20, 9 << 20, 1][n], 0);
    }
    all
}

fn assert_whole(lab: &Lab, all: &[Vec<u8>], names: &[&str]) {
    lab.good(&["verify", "--read-data"]);
    for (name, bytes) in NAMES.into_iter().zip(all) {
        if names.contains(&name) {
            lab.assert_restores(name, bytes);
        } else {
            lab.ends(2, &["show", name]);
        }
    }
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn it_is_a_diff_from_nothing_and_restores_by_hand() {
    let (lab, all) = five();
    assert_whole(&lab, &all, &NAMES);
    let shown = lab.json(&["show", "a"]);
    assert_eq!(shown["data"]["kind"], "base");
    let base = lab.file("-a.vhddiff");
    let text = |name: &str| fs::read_to_string(lab.file(&format!("-{name}.json"))).unwrap();
    assert!(text("a").contains("\"schema_version\": 2"));
    assert!(text("b").contains("\"schema_version\": 1"));
    // By hand, as the documents say: each file after the ones before it.
    let mut files = vec![base];
    for (n, name) in NAMES.into_iter().enumerate() {
        if n > 0 {
            files.push(lab.file(&format!("-{name}.vhddiff")));
        }
        let files = files.iter().map(|file| file.to_str().unwrap());
        let mut args = vec!["/dev/null"];
        args.extend(files);
        args.extend(["-o", "by-hand.raw", "--force", "-q"]);
        lab.run("vhd-apply", &args);
        assert_same(&content(lab.path("by-hand.raw")), &all[n], name);
    }
    // The fixed VHD that it was taken from, footer included.
    lab.run(
        "vhd-apply",
        &[
            "/dev/null",
            files[0].to_str().unwrap(),
            "-o",
            "by-hand.vhd",
            "-q",
        ],
    );
    assert!(content(lab.path("by-hand.vhd")) == content(lab.path("a.vhd")));
    // Restored over what another point holds.
    fs::copy(lab.path("b.vhd"), lab.path("in-place.vhd")).unwrap();
    lab.good(&["restore", "e", "-o", "in-place.vhd", "--in-place", "-q"]);
    let restored = lab.run("vhd", &["hash", "in-place.vhd"]);
    let image = lab.run("vhd", &["hash", "store::web@e"]);
    let digest = |output: &std::process::Output| output.stdout[..64].to_vec();
    assert_eq!(digest(&restored), digest(&image));
}

#[test]
fn the_oldest_goes_by_folding_and_no_file_is_changed() {
    let (lab, all) = five();
    for gone in 0..4 {
        let second = lab.file(&format!("-{}.vhddiff", NAMES[gone + 1]));
        let held = fs::File::open(&second).unwrap();
        let before = content(&second);
        lab.good(&["delete", NAMES[gone]]);
        // Who has the file open still reads what it was.
        let mut still = Vec::new();
        std::io::Read::read_to_end(&mut &held, &mut still).unwrap();
        assert!(still == before);
        assert_whole(&lab, &all, &NAMES[gone + 1..]);
        let shown = lab.json(&["show", NAMES[gone + 1]]);
        assert_eq!(shown["data"]["kind"], "base");
        // It says nothing of what is zero.
        let listed = lab.run("vhd", &["show", second.to_str().unwrap(), "--json"]);
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.contains("\"clear_bytes\": 0"), "{listed}");
    }
    lab.good(&["delete", "e", "--last"]);
    // Several at once, from the oldest on and between.
    let (lab, all) = five();
    lab.good(&["delete", "c"]);
    lab.good(&["prune", "--keep-last", "2"]);
    assert_whole(&lab, &all, &["d", "e"]);
}

#[test]
fn copies_and_streams_bring_the_same_bytes() {
    let (lab, all) = five();
    lab.run("vhd", &["snapshot", "init", "far", "-q"]);
    lab.good(&["copy", "--init", "--to", "far"]);
    let sent = lab.run("vhd", &["snapshot", "send"]);
    fs::write(lab.path("stream"), &sent.stdout).unwrap();
    lab.run("vhd", &["snapshot", "init", "received", "-q"]);
    let line = format!(
        "{} snapshot receive --init --store received -q < stream",
        lab.command("vhd", &[]).get_program().to_str().unwrap()
    );
    lab.run_shell(&line);
    for store in ["far", "received"] {
        for file in lab.files() {
            if file != "lock" && file != "copy.lock" {
                let copied = content(lab.path(store).join("web").join(&file));
                assert!(
                    copied == content(lab.path("store/web").join(&file)),
                    "{store}: {file}"
                );
            }
        }
    }
    // A new store becomes what the other one is; one that promises version 1 takes no packed base.
    lab.good(&["copy", "--init", "--to", "made"]);
    assert!(lab.path("made/vhdkit-store.json").exists());
    lab.good(&["init", "--store-version", "1", "older"]);
    let said = lab.ends(4, &["copy", "--init", "--to", "older"]);
    assert!(said.contains("vhd snapshot upgrade --store"), "{said}");
    // The next night, with the oldest gone here: the far store keeps it.
    lab.good(&["delete", "a"]);
    let image = lab.image("f", &disk(9, 3 << 20), "raw");
    lab.add("f", &image);
    lab.good(&["copy", "--init", "--to", "far"]);
    lab.good(&["verify", "--read-data", "--store", "far"]);
    for (name, bytes) in NAMES.into_iter().zip(&all) {
        lab.good(&["restore", "--store", "far", name, "-o", "x", "--force"]);
        assert_same(&content(lab.path("x")), bytes, name);
    }
}

#[test]
fn every_damaged_file_is_found_and_made_again() {
    let (lab, all) = five();
    let second = lab.path("second");
    copy_folder(&lab.path("store"), &second);
    let keep = lab.path("keep");
    copy_folder(&lab.path("store"), &keep);
    for file in lab.files() {
        if file.ends_with("lock") {
            continue;
        }
        for how in ["flip", "cut", "gone"] {
            let path = lab.path("store/web").join(&file);
            let len = content(&path).len();
            match how {
                "flip" => flip(&path, len / 2),
                "cut" => fs::write(&path, &content(&path)[..len / 2]).unwrap(),
                _ => fs::remove_file(&path).unwrap(),
            }
            if file != "newest.windows" {
                let found = lab.ends(1, &["verify", "--read-data"]);
                assert!(
                    found.contains(&file) || how == "gone",
                    "{how} {file}: {found}"
                );
            }
            lab.good(&["repair", "--from", "second"]);
            assert_whole(&lab, &all, &NAMES);
            fs::remove_dir_all(lab.path("store")).unwrap();
            copy_folder(&keep, &lab.path("store"));
        }
    }
    // From images, each by itself and all at once.
    let images = NAMES.map(|name| format!("{name}={name}.raw"));
    let args: Vec<&str> = images.iter().flat_map(|image| ["--image", image]).collect();
    for gone in [&NAMES[..1], &NAMES[1..2], &NAMES] {
        for name in gone {
            fs::remove_file(lab.file(&format!("-{name}.vhddiff"))).unwrap();
        }
        lab.good(&[&["repair"][..], &args].concat());
        assert_whole(&lab, &all, &NAMES);
        fs::remove_dir_all(lab.path("store")).unwrap();
        copy_folder(&keep, &lab.path("store"));
    }
    // A base that is given up: what comes after it and is known elsewhere becomes one.
    fs::remove_file(lab.file("-a.vhddiff")).unwrap();
    lab.good(&["repair", "--drop", "--image", "b=b.raw"]);
    assert_whole(&lab, &all, &NAMES[1..]);
    // All manifests at once: the files say the same.
    fs::remove_dir_all(lab.path("store")).unwrap();
    copy_folder(&keep, &lab.path("store"));
    for file in lab.files().iter().filter(|file| ends(file, "json")) {
        fs::remove_file(lab.path("store/web").join(file)).unwrap();
    }
    lab.good(&["repair"]);
    assert_whole(&lab, &all, &NAMES);
}

#[test]
fn a_deletion_of_the_base_that_nobody_can_read_loses_nothing_else() {
    let (lab, all) = five();
    let keep = lab.path("keep");
    copy_folder(&lab.path("store"), &keep);
    lab.good(&["delete", "a"]);
    let after = lab.path("after");
    copy_folder(&lab.path("store"), &after);
    // In the order in which it is done.
    for step in 0..4 {
        fs::remove_dir_all(lab.path("store")).unwrap();
        copy_folder(&keep, &lab.path("store"));
        let put = |file: &str| {
            fs::copy(
                after.join("web").join(file),
                lab.path("store/web").join(file),
            )
            .unwrap();
        };
        fs::write(lab.path("store/web/deleting.json"), "{").unwrap();
        if step > 0 {
            put("000002-b.vhddiff");
        }
        if step > 1 {
            fs::remove_file(lab.path("store/web/000001-a.json")).unwrap();
            fs::remove_file(lab.path("store/web/000001-a.vhddiff")).unwrap();
        }
        if step > 2 {
            put("000002-b.json");
        }
        lab.good(&["repair"]);
        let there = if step < 2 { &NAMES[..] } else { &NAMES[1..] };
        assert_whole(&lab, &all, there);
    }
}

#[test]
fn a_disk_of_any_size_has_the_same_files() {
    let lab = Lab::packed();
    let file = fs::File::create(lab.path("large.raw")).unwrap();
    file.set_len(3 << 40).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 4096], (3 << 40) - 8192).unwrap();
    lab.add("a", "large.raw");
    std::os::unix::fs::FileExt::write_all_at(&file, &[8; 4096], 1 << 40).unwrap();
    lab.add("b", "large.raw");
    lab.good(&["delete", "a"]);
    lab.good(&["verify", "--read-data"]);
    assert!(content(lab.file("-b.vhddiff")).len() < 16 << 10);
    let hash = |image: &str| lab.run("vhd", &["hash", image]).stdout[..64].to_vec();
    assert_eq!(hash("large.raw"), hash("store::web@b"));
}

#[test]
fn a_store_of_version_1_is_upgraded_and_stays_what_it_is() {
    let lab = Lab::new();
    let all = fill(&lab);
    let image = lab.image("f", &disk(8, 2 << 20), "dynamic");
    lab.good(&["create", "--disk", "web", "--name", "f", "--full", &image]);
    let images = || {
        let files = lab.files().into_iter();
        files.filter(|file| ends(file, "vhd")).count()
    };
    assert_eq!(images(), 2);
    let said = lab.good(&["upgrade"]);
    assert!(said.contains("web: 2 bases packed"), "{said}");
    assert_eq!(images(), 0);
    assert_whole(&lab, &all, &NAMES);
    let view = lab.json(&["upgrade"]);
    assert_eq!(view["store_version"], 2);
    assert_eq!(view["disks"][0]["packed"].as_array().unwrap().len(), 0);
    // What comes now is packed, too.
    lab.good(&["create", "--disk", "other", "--name", "a", &image]);
    assert!(lab.path("store/other/000001-a.vhddiff").exists());
    lab.good(&["delete", "--disk", "web", "a"]);
    let without_a = lab.ends(2, &["show", "web@a"]);
    assert!(without_a.contains("no such snapshot"), "{without_a}");
}

#[test]
fn a_marker_says_what_the_folder_is() {
    let lab = Lab::new();
    let image = lab.image("a", &disk(8, 1 << 20), "raw");
    lab.good(&["create", "--disk", "old", "--name", "a", &image]);
    fs::remove_file(lab.path("store/vhdkit-store.json")).unwrap();
    assert!(lab.path("store/old/000001-a.vhd").exists());
    let said = lab.ends(2, &["init", "store"]);
    assert!(
        said.contains("vhd snapshot upgrade --store store"),
        "{said}"
    );
    lab.good(&["upgrade", "--store", "store"]);
    let marker = lab.path("store/vhdkit-store.json");
    let text = fs::read_to_string(&marker).unwrap();
    let said = lab.ends(2, &["init", "store"]);
    assert!(said.contains("this is a store already"), "{said}");
    assert_eq!(fs::read_to_string(&marker).unwrap(), text);
    // One of a newer version is left alone by everything.
    fs::write(
        &marker,
        text.replace("\"vhdkit_store\": 2", "\"vhdkit_store\": 5"),
    )
    .unwrap();
    for command in [
        &["init", "store"][..],
        &["upgrade"],
        &["create", "--disk", "web", "--name", "a", &image],
    ] {
        let said = lab.ends(3, command);
        assert!(said.contains("of a newer version"), "{said}");
    }
    assert!(!lab.path("store/web").exists());
    // A damaged one is made again, as the hint says, and no disk is touched.
    fs::write(&marker, &text[..10]).unwrap();
    let said = lab.ends(3, &["create", "--disk", "web", "--name", "a", &image]);
    assert!(said.contains("vhd snapshot init "), "{said}");
    lab.good(&["init", "store"]);
    assert!(lab.path("store/vhdkit-store.json.damaged").exists());
    lab.good(&["create", "--disk", "web", "--name", "a", &image]);
    assert!(lab.path("store/web/000001-a.vhddiff").exists());
    lab.good(&["verify", "--read-data"]);
    // Made and filled at once.
    for name in ["a", "b"] {
        let made = [
            "create", "--init", "--store", "new", "--disk", "web", "--name", name,
        ];
        lab.good(&[&made[..], &[&image]].concat());
    }
    assert!(lab.path("new/web/000001-a.vhddiff").exists());
    let said = lab.ends(
        2,
        &[
            "create",
            "--existing",
            "--disk",
            "wbe",
            "--name",
            "b",
            &image,
        ],
    );
    assert!(said.contains("--existing"), "{said}");
    assert!(!lab.path("store/wbe").exists());
    lab.good(&[
        "create",
        "--existing",
        "--disk",
        "web",
        "--name",
        "b",
        &image,
    ]);
}

/// Every command of a store, to be run in a folder with the image `a.raw`. `S` is the store.
const ALL: [&str; 24] = [
    "snapshot create --store S --disk web a.raw",
    "snapshot create --store S --existing --disk web a.raw",
    "snapshot create --store S --disk web a.raw --also db=a.raw",
    "snapshot list --store S",
    "snapshot show --store S",
    "snapshot show --store S web@a",
    "snapshot stats --store S",
    "snapshot diff --store S --disk web a b",
    "snapshot restore --store S web@a -o out.raw",
    "snapshot hash --store S web@a",
    "snapshot copy --store S --to good",
    "snapshot copy --store good --to S",
    "snapshot send --store S --disk web -o out",
    "snapshot receive --store S",
    "snapshot delete --store S web@a",
    "snapshot prune --store S --keep-last 1",
    "snapshot tag --store S web@a --set k=v",
    "snapshot hold --store S web@a",
    "snapshot verify --store S",
    "snapshot verify --store S --disk web --read-data",
    "snapshot repair --store S",
    "snapshot upgrade --store S",
    "info S::web@a",
    "hash S::web",
];

#[test]
fn only_a_store_is_a_store() {
    let lab = Lab::empty();
    lab.image("a", &disk(8, 1 << 20), "raw");
    lab.good(&[
        "create", "--init", "--store", "good", "--disk", "web", "a.raw",
    ]);
    fs::create_dir_all(lab.path("empty")).unwrap();
    fs::create_dir_all(lab.path("other/lost+found")).unwrap();
    fs::create_dir_all(lab.path("other/web")).unwrap();
    fs::write(lab.path("other/web/notes.txt"), "no snapshot").unwrap();
    fs::write(lab.path("file"), "no store").unwrap();
    for store in ["missing", "empty", "other", "file"] {
        for line in ALL {
            let line = line.replace('S', store);
            let words: Vec<&str> = line.split(' ').collect();
            let mut command = lab.command("vhd", &words);
            command.stdin(fs::File::open(lab.path("a.raw")).unwrap());
            let output = run_to(&mut command, 2);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains(" store"), "{line}: {said}");
            if store != "file" {
                assert!(said.contains("there is no store here"), "{line}: {said}");
                let hint = format!("vhd snapshot init {store}");
                assert!(said.contains(&hint), "{line}: {said}");
            }
            assert!(!lab.path("missing").exists(), "{line}");
            assert!(!lab.path("out").exists(), "{line}");
        }
    }
    assert_eq!(fs::read_dir(lab.path("empty")).unwrap().count(), 0);
    // As the hint says.
    for store in ["missing", "empty", "other"] {
        lab.good(&["init", store]);
        lab.good(&["create", "--store", store, "--disk", "web", "a.raw"]);
        lab.good(&["verify", "--store", store, "--read-data"]);
    }
}

#[test]
fn pruning_never_cuts_a_copy_off() {
    for version in ["1", "2"] {
        let lab = Lab::empty();
        for store in ["store", "off"] {
            lab.good(&["init", "--store-version", version, store]);
        }
        let mut bytes = disk(4, 24 << 20);
        let mut all = Vec::new();
        for (n, name) in NAMES.into_iter().enumerate() {
            let image = lab.image(name, &bytes, "dynamic");
            lab.add(name, &image);
            all.push(bytes.clone());
            lab.good(&["prune", "--keep-last", "1"]);
            if n != 1 {
                let copied = lab.json(&["copy", "--init", "--to", "off"]);
                let disk = &copied["disks"][0];
                assert_eq!(disk["newest"], name);
                let bytes = disk["copied_bytes"].as_u64().unwrap();
                assert!(n == 0 || bytes < 64 << 10, "{version} {name}: {bytes}");
            }
            bytes[n << 20..][..4096].fill(u8::try_from(n).unwrap() + 1);
        }
        lab.good(&["verify", "--read-data", "--store", "off"]);
        for (n, name) in NAMES.into_iter().enumerate().filter(|(n, _)| *n != 1) {
            lab.good(&["restore", "--store", "off", name, "-o", "x", "--force"]);
            assert_same(&content(lab.path("x")), &all[n], name);
        }
        // Another disk of the same name isn't this one, whatever its numbers and times.
        let image = lab.image("z", &disk(7, 24 << 20), "raw");
        for name in ["x", "y", "z", "p", "q", "r"] {
            lab.good(&[
                "create", "--init", "--store", "third", "--disk", "web", "--name", name, &image,
            ]);
        }
        let said = lab.ends(4, &["copy", "--store", "third", "--to", "off"]);
        assert!(
            said.contains("diverged") || said.contains("newest snapshot of the target"),
            "{said}"
        );
    }
}

#[test]
fn a_copy_to_a_newer_store_packs_the_bases_of_an_older_one() {
    let lab = Lab::new();
    let bytes = disk(6, 3 << 20);
    let image = |n: u64| changed(n, &bytes);
    for (n, name) in (0..).zip(["a", "b"]) {
        lab.0.file("disk.raw", &image(n));
        lab.add(name, "disk.raw");
    }
    lab.good(&[
        "create", "--disk", "web", "--name", "c", "--full", "disk.raw",
    ]);
    lab.good(&["init", "far"]);
    lab.good(&["init", "--store-version", "1", "old"]);
    let ids = |store: &str| -> Vec<String> {
        let listed = lab.json(&["list", "--store", store]);
        let points = listed["disks"][0]["snapshots"].as_array().unwrap();
        let ids = points.iter().map(|point| point["id"].to_string());
        ids.collect()
    };
    for (store, ending) in [("far", "vhddiff"), ("old", "vhd")] {
        lab.good(&["copy", "--to", store]);
        for base in ["000001-a", "000003-c"] {
            let file = format!("{store}/web/{base}.{ending}");
            assert!(lab.path(&file).exists(), "{file}");
        }
        assert_eq!(ids(store), ids("store"));
        lab.good(&["verify", "--store", store, "--read-data"]);
        let said = lab.good(&["copy", "--to", store]);
        assert!(said.contains("nothing to copy"), "{said}");
    }
    lab.0.file("disk.raw", &image(7));
    lab.add("d", "disk.raw");
    lab.good(&["delete", "a"]);
    lab.good(&["copy", "--to", "far"]);
    for (name, n) in [("a", 0), ("b", 1), ("c", 1), ("d", 7)] {
        lab.good(&[
            "restore", "--store", "far", name, "-o", "out.raw", "--force",
        ]);
        assert!(content(lab.path("out.raw")) == image(n), "{name}");
    }
    // By hand, too.
    lab.run(
        "vhd-apply",
        &[
            "/dev/null",
            "far/web/000001-a.vhddiff",
            "far/web/000002-b.vhddiff",
            "-o",
            "hand.raw",
        ],
    );
    assert!(content(lab.path("hand.raw")) == image(1));
}
