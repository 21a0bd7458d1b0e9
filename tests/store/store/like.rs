//! Disks that begin as a snapshot of another disk: they store what differs from it, read as any other, and nothing that
//! they depend on is deleted.

use std::fs;

use crate::disk::{Random, assert_same, changed, content, disk, run_to};
use crate::store::lab::{Lab, flip};

/// A store with the disk web (mon, tue), and the disk web2, which begins as web@mon (first, second).
struct Clones {
    lab: Lab,
    mon: Vec<u8>,
    tue: Vec<u8>,
    first: Vec<u8>,
    second: Vec<u8>,
}

fn clones() -> Clones {
    let lab = Lab::packed();
    let mon = disk(3, 5 << 20);
    let tue = changed(1, &mon);
    let mut first = changed(2, &mon);
    first.resize(6 << 20, 0);
    let second = changed(3, &first);
    let all = [
        ("web", "mon", &mon),
        ("web", "tue", &tue),
        ("web2", "first", &first),
        ("web2", "second", &second),
    ];
    for (disk, name, bytes) in all {
        let image = lab.image(name, bytes, "fixed");
        let mut args = vec!["create", "--disk", disk, "--name", name, &image];
        if name == "first" {
            args.extend(["--like", "web@mon"]);
        }
        lab.good(&args);
    }
    Clones {
        lab,
        mon,
        tue,
        first,
        second,
    }
}

impl Clones {
    /// All that is there is right, by all means.
    fn assert_whole(&self) {
        self.lab.good(&["verify", "--read-data"]);
        let all = [
            ("web@mon", &self.mon),
            ("web@tue", &self.tue),
            ("web2@first", &self.first),
            ("web2@second", &self.second),
        ];
        let listed = self.lab.json(&["list"]);
        for (name, bytes) in all {
            let (of, point) = name.split_once('@').unwrap();
            let disks = listed["disks"].as_array().unwrap();
            let disk = disks.iter().find(|disk| disk["disk"] == of);
            let there = disk.is_some_and(|disk| {
                let points = disk["snapshots"].as_array().unwrap();
                points.iter().any(|p| p["name"] == point)
            });
            if there {
                self.lab.assert_restores(name, bytes);
            }
        }
    }

    fn path(&self, file: &str) -> std::path::PathBuf {
        self.lab.path(&format!("store/{file}"))
    }
}

#[test]
fn it_stores_what_differs_and_every_command_reads_it() {
    let clones = clones();
    let lab = &clones.lab;
    clones.assert_whole();
    let manifest = fs::read_to_string(clones.path("web2/000001-first.json")).unwrap();
    assert!(manifest.contains("\"schema_version\": 3"), "{manifest}");
    assert!(
        manifest.contains("\n  \"like\": {\n    \"disk\": \"web\",\n    \"snapshot\": \"mon\",\n")
    );
    let marker = fs::read_to_string(clones.path("vhdkit-store.json")).unwrap();
    assert!(marker.contains("\"vhdkit_store\": 4"), "{marker}");
    let sizes = |file: &str| content(clones.path(file)).len();
    assert!(sizes("web2/000001-first.vhddiff") * 4 < sizes("web/000001-mon.vhddiff"));
    let list = lab.good(&["list"]);
    assert!(list.contains("like web@mon"), "{list}");
    let show = lab.good(&["show", "web2@first"]);
    assert!(show.contains("like               web@mon"), "{show}");
    assert!(show.contains("in 2 files"), "{show}");
    assert_eq!(lab.json(&["show", "web2@second"])["chain_length"], 3);
    assert!(lab.good(&["stats", "--points"]).contains("like web@mon"));
    lab.good(&["map", "--disk", "web2"]);
    lab.ends(1, &["diff", "web2@first", "web2@second"]);
    lab.good(&["hash", "web2@second"]);
    let store = lab.path("store");
    let name = format!("{}::web2@second", store.to_str().unwrap());
    lab.run("vhd", &["info", &name]);
    lab.run("vhd", &["convert", &name, "far.raw", "-q"]);
    assert_same(&content(lab.path("far.raw")), &clones.second, "second");
    let diff = [&name, "mon.vhd", "-o", "back.vhddiff", "-q"];
    lab.run("vhd-diff", &diff);
    // In place, over what the disk held before, known by its stamp.
    lab.good(&["restore", "web2@first", "-o", "x.vhd"]);
    lab.good(&["restore", "web2@second", "-o", "x.vhd", "--in-place"]);
    lab.run("vhd", &["convert", "x.vhd", "x.raw", "-q"]);
    assert_same(&content(lab.path("x.raw")), &clones.second, "in place");
}

#[test]
fn it_restores_by_hand() {
    let clones = clones();
    let files = [
        "web/000001-mon.vhddiff",
        "web2/000001-first.vhddiff",
        "web2/000002-second.vhddiff",
    ]
    .map(|file| clones.path(file).to_str().unwrap().to_owned());
    let [mon, first, second] = &files;
    let apply = ["/dev/null", mon, first, second, "-o", "x.raw", "-q"];
    clones.lab.run("vhd-apply", &apply);
    assert_same(&content(clones.lab.path("x.raw")), &clones.second, "x");
    // Without what it begins as, it is refused.
    let without = ["/dev/null", first, second, "-o", "y.raw", "-q"];
    run_to(&mut clones.lab.command("vhd-apply", &without), 4);
}

#[test]
fn what_a_disk_begins_as_is_not_deleted() {
    let clones = clones();
    let lab = &clones.lab;
    for args in [
        &["delete", "web@mon"][..],
        &["delete", "web@mon", "--dry-run"],
        &["delete", "web@mon", "web@tue", "--last"],
    ] {
        let said = lab.ends(2, args);
        assert!(said.contains("web2"), "{said}");
        assert!(said.contains("vhd snapshot rebase --store"), "{said}");
    }
    clones.assert_whole();
    let said = lab.good(&["prune", "--disk", "web", "--keep-last", "1"]);
    assert!(said.contains("keep    web2 begins as it"), "{said}");
    clones.assert_whole();
    // What came before it still goes.
    lab.good(&["delete", "web@tue"]);
    clones.assert_whole();
    // The first of the other disk goes, and the next one begins as the same.
    let said = lab.good(&["delete", "web2@first"]);
    assert!(said.contains("part of second now"), "{said}");
    assert_eq!(
        lab.json(&["show", "web2@second"])["like"]["snapshot"],
        "mon"
    );
    clones.assert_whole();
    assert!(
        lab.ends(2, &["delete", "web@mon", "--last"])
            .contains("web2")
    );
    // The command that the message names.
    lab.good(&["rebase", "--disk", "web2", "--full"]);
    assert!(lab.json(&["show", "web2@second"])["like"].is_null());
    clones.assert_whole();
    lab.good(&["delete", "web@mon", "--last"]);
    clones.assert_whole();
}

#[test]
fn older_points_are_folded_into_it_and_it_may_get_another_name() {
    let lab = Lab::packed();
    let old = disk(3, 5 << 20);
    let mon = changed(1, &old);
    let first = changed(2, &mon);
    for (disk, name, bytes, like) in [
        ("web", "old", &old, None),
        ("web", "mon", &mon, None),
        ("web2", "first", &first, Some("web")),
    ] {
        let image = lab.image(name, bytes, "raw");
        let mut args = vec!["create", "--disk", disk, "--name", name, &image];
        args.extend(like.iter().flat_map(|like| ["--like", *like]));
        lab.good(&args);
    }
    lab.good(&["delete", "web@old"]);
    lab.assert_restores("web2@first", &first);
    lab.good(&["rename", "web@mon", "golden"]);
    lab.assert_restores("web2@first", &first);
    assert!(lab.good(&["list"]).contains("like web@golden"));
    // The disk too, by hand.
    fs::rename(lab.path("store/web"), lab.path("store/template")).unwrap();
    lab.assert_restores("web2@first", &first);
    assert!(lab.good(&["list"]).contains("like template@golden"));
    let said = lab.ends(2, &["delete", "template@golden", "--last"]);
    assert!(said.contains("web2"), "{said}");
    // Another snapshot with the same content is as good.
    lab.good(&["create", "--disk", "template", "--name", "same", "mon.raw"]);
    lab.good(&["delete", "template@golden"]);
    lab.assert_restores("web2@first", &first);
    assert!(lab.good(&["list"]).contains("like template@same"));
    lab.good(&["verify", "--read-data"]);
}

#[test]
fn a_full_snapshot_stands_by_itself() {
    let clones = clones();
    let lab = &clones.lab;
    lab.good(&[
        "create",
        "--disk",
        "web2",
        "--name",
        "third",
        "second.vhd",
        "--full",
    ]);
    lab.good(&["delete", "web2@first"]);
    lab.good(&["delete", "web2@second"]);
    lab.good(&["delete", "web@mon", "web@tue", "--last"]);
    lab.assert_restores("web2@third", &clones.second);
    lab.good(&["verify", "--read-data", "--disk", "web2"]);
}

#[test]
fn a_base_becomes_like_another_and_back() {
    let lab = Lab::packed();
    let mut random = Random::new(7);
    let mon = random.bytes(20 << 20);
    let mut first = mon.clone();
    first[4096..8192].fill(7);
    for (disk, name, bytes) in [("web", "mon", &mon), ("web2", "first", &first)] {
        let image = lab.image(name, bytes, "raw");
        let said = lab.good(&["create", "--disk", disk, "--name", name, &image]);
        // It proposes, and decides nothing.
        let told = said.contains("19 of the 20 MiB that hold data are as in web@mon");
        assert_eq!(told, disk == "web2", "{said}");
        if told {
            let command = said.lines().find_map(|line| line.split_once("differs: "));
            let before = content(lab.path("store/web2/000001-first.vhddiff")).len();
            lab.run_shell(
                &command
                    .unwrap()
                    .1
                    .replace("vhd ", &format!("{} ", env!("CARGO_BIN_EXE_vhd"))),
            );
            let after = content(lab.path("store/web2/000001-first.vhddiff")).len();
            assert!(after * 100 < before, "{before} {after}");
        }
    }
    let quiet = lab.good(&[
        "create",
        "--disk",
        "web3",
        "--name",
        "first",
        "first.raw",
        "-q",
    ]);
    assert_eq!(quiet, "");
    lab.good(&["rebase", "--disk", "web3", "--like", "web2"]);
    lab.good(&["verify", "--read-data"]);
    lab.assert_restores("web3@first", &first);
    assert!(
        lab.good(&["rebase", "--disk", "web3", "--like", "web2"])
            .contains("already")
    );
    // Not in a circle.
    let said = lab.ends(3, &["rebase", "--disk", "web", "--like", "web3"]);
    assert!(said.contains("begins as one that depends on it"), "{said}");
    lab.ends(2, &["rebase", "--disk", "web", "--like", "web"]);
    lab.good(&["rebase", "--disk", "web2", "--full"]);
    lab.good(&["rebase", "--disk", "web3", "--full"]);
    lab.good(&["delete", "web@mon", "--last"]);
    lab.assert_restores("web3@first", &first);
    lab.good(&["verify", "--read-data"]);
}

#[test]
fn copies_bring_what_a_disk_begins_as_first() {
    let clones = clones();
    let lab = &clones.lab;
    // It comes before what it depends on in the order of names, too.
    fs::rename(clones.path("web2"), clones.path("a-clone")).unwrap();
    lab.good(&["copy", "--to", "second", "--init", "--dry-run"]);
    lab.good(&["copy", "--to", "second", "--init"]);
    lab.good(&["verify", "--store", "second", "--read-data"]);
    lab.good(&[
        "restore",
        "--store",
        "second",
        "a-clone@second",
        "-o",
        "x.raw",
        "-O",
        "raw",
    ]);
    assert_same(&content(lab.path("x.raw")), &clones.second, "copied");
    // Alone, it says what is missing.
    lab.run("vhd", &["snapshot", "init", "third", "-q"]);
    for more in [&[][..], &["--dry-run"]] {
        let args = [&["copy", "--to", "third", "--disk", "a-clone"][..], more].concat();
        let said = lab.ends(4, &args);
        assert!(said.contains("content of web@mon in third"), "{said}");
        assert!(said.contains("--disk web --to third"), "{said}");
    }
    lab.good(&["copy", "--to", "third", "--disk", "web"]);
    lab.good(&["copy", "--to", "third", "--disk", "a-clone"]);
    lab.good(&["verify", "--store", "third", "--read-data"]);
    // A target that is past it gets the disk by itself.
    lab.run("vhd", &["snapshot", "init", "fourth", "-q"]);
    lab.good(&["copy", "--to", "fourth", "--disk", "web"]);
    lab.good(&["delete", "--store", "fourth", "web@mon"]);
    let said = lab.ends(4, &["copy", "--to", "fourth", "--disk", "a-clone"]);
    assert!(said.contains("rebase") && said.contains("--full"), "{said}");
    lab.good(&["rebase", "--disk", "a-clone", "--full"]);
    lab.good(&["copy", "--to", "fourth", "--disk", "a-clone"]);
    lab.good(&["verify", "--store", "fourth", "--read-data"]);
    // And a copy goes on where the disk was the other way.
    let third = crate::disk::changed(9, &clones.second);
    let image = lab.image("third-day", &third, "raw");
    lab.good(&["create", "--disk", "a-clone", "--name", "third", &image]);
    lab.good(&["copy", "--to", "second"]);
    lab.good(&["verify", "--store", "second", "--read-data"]);
    // A store of version 1 has no such disks.
    lab.run(
        "vhd",
        &["snapshot", "init", "--store-version", "1", "old", "-q"],
    );
    lab.ends(4, &["copy", "--to", "old"]);
}

#[test]
fn streams_need_what_a_disk_begins_as_at_the_other_end() {
    let clones = clones();
    let lab = &clones.lab;
    lab.run("vhd", &["snapshot", "init", "far", "-q"]);
    let vhd = env!("CARGO_BIN_EXE_vhd");
    let send =
        |disk: &str| format!("{vhd} snapshot send --store store --disk {disk} > {disk}.stream");
    for disk in ["web", "web2"] {
        lab.run_shell(&send(disk));
    }
    let receive = |code: i32, disk: &str| {
        let mut command = lab.command("vhd", &["snapshot", "receive", "--store", "far"]);
        command.stdin(fs::File::open(lab.path(&format!("{disk}.stream"))).unwrap());
        let output = run_to(&mut command, code);
        String::from_utf8(output.stderr).unwrap()
    };
    let said = receive(4, "web2");
    assert!(said.contains("bring web first"), "{said}");
    assert!(!lab.path("far/web2").exists());
    receive(0, "web");
    receive(0, "web2");
    lab.good(&["verify", "--store", "far", "--read-data"]);
    lab.good(&[
        "restore",
        "--store",
        "far",
        "web2@second",
        "-o",
        "x.raw",
        "-O",
        "raw",
    ]);
    assert_same(&content(lab.path("x.raw")), &clones.second, "received");
}

#[test]
fn a_disk_that_begins_as_one_that_is_gone_says_so_and_is_repaired() {
    let clones = clones();
    let lab = &clones.lab;
    lab.good(&["copy", "--to", "second", "--init"]);
    let away = lab.path("away");
    for what in ["web", "web/000001-mon.json", "web/000001-mon.vhddiff"] {
        fs::rename(clones.path(what), &away).unwrap();
        for args in [
            &["restore", "web2@second", "-o", "gone.raw"][..],
            &["show", "web2@first"],
            &["hash", "web2@first"],
            &["verify", "--disk", "web2"],
            &["repair", "--disk", "web2", "--dry-run"],
        ] {
            let output = lab
                .command("vhd", &["snapshot"])
                .args(args)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            let code = output.status.code();
            assert!(
                matches!(code, Some(1 | 3)),
                "{what} {args:?} {code:?} {said}"
            );
            assert!(
                said.contains("begins") || said.contains("repair"),
                "{args:?} {said}"
            );
            assert!(!said.contains("panicked"), "{said}");
        }
        assert!(
            lab.good(&["list", "--disk", "web2"])
                .contains("like web@mon")
        );
        fs::rename(&away, clones.path(what)).unwrap();
    }
    clones.assert_whole();
    // From an image: it is a disk by itself then.
    fs::rename(clones.path("web"), &away).unwrap();
    lab.good(&["repair", "--disk", "web2", "--image", "first=first.vhd"]);
    lab.good(&["verify", "--disk", "web2", "--read-data"]);
    lab.assert_restores("web2@second", &clones.second);
    assert!(lab.json(&["show", "web2@first"])["like"].is_null());
}

#[test]
fn a_damaged_disk_is_repaired_from_another_store() {
    let clones = clones();
    let lab = &clones.lab;
    lab.good(&["copy", "--to", "second", "--init"]);
    flip(&clones.path("web2/000001-first.vhddiff"), 300);
    lab.ends(1, &["verify", "--read-data"]);
    lab.good(&["repair", "--disk", "web2", "--from", "second"]);
    clones.assert_whole();
    assert_eq!(lab.json(&["show", "web2@first"])["like"]["disk"], "web");
    // What another disk begins as: both tell it, and one repair is enough.
    flip(&clones.path("web/000001-mon.vhddiff"), 1 << 16);
    let said = lab.ends(1, &["verify", "--read-data", "--disk", "web2"]);
    assert!(said.contains("000001-mon.vhddiff"), "{said}");
    lab.good(&["repair", "--disk", "web", "--from", "second"]);
    clones.assert_whole();
    // A manifest, from the data alone.
    fs::remove_file(clones.path("web2/000001-first.json")).unwrap();
    let said = lab.ends(3, &["delete", "web@mon"]);
    assert!(said.contains("can't be read"), "{said}");
    lab.good(&["repair", "--disk", "web2"]);
    clones.assert_whole();
}

#[test]
fn a_forged_circle_ends_with_an_error() {
    let clones = clones();
    let lab = &clones.lab;
    let own = clones.path("web/000001-mon.json");
    // web's first snapshot says that it begins as what begins as it.
    let digest = lab.json(&["show", "web2@first"])["content_digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let forged = fs::read_to_string(&own).unwrap();
    let like = format!(
        "\"parent\": null,\n  \"like\": {{\n    \"disk\": \"web2\",\n    \"snapshot\": \"first\",\n    \"content_digest\": \"{digest}\",\n    \"virtual_size\": {}\n  }},",
        6 << 20
    );
    let forged = forged.replace("\"parent\": null,", &like);
    let forged = forged.replace("\"schema_version\": 2", "\"schema_version\": 3");
    let forged = forged.replace("\"kind\": \"base\"", "\"kind\": \"diff\"");
    let at = forged.find("  \"checksum\"").unwrap();
    let head = &forged[..at];
    let sum = blake3::hash(head.as_bytes()).to_hex();
    fs::write(&own, format!("{head}  \"checksum\": \"{sum}\"\n}}\n")).unwrap();
    for args in [
        &["restore", "web2@second", "-o", "x.raw"][..],
        &["restore", "web@mon", "-o", "x.raw"],
        &["show", "web@tue"],
    ] {
        let said = lab.ends(3, args);
        assert!(said.contains("begins as one that depends on it"), "{said}");
    }
    lab.ends(1, &["verify", "--read-data"]);
    lab.good(&["list"]);
    lab.good(&["stats"]);
    lab.ends(2, &["delete", "web@mon"]);
}

#[test]
fn a_row_of_disks_has_an_end() {
    let lab = Lab::packed();
    let mut bytes = disk(3, 1 << 20);
    let image = lab.image("i", &bytes, "raw");
    lab.good(&["create", "--disk", "d0", "--name", "s", &image]);
    let mut deepest = 0;
    for n in 1..40 {
        bytes = changed(n, &bytes);
        let image = lab.image("i", &bytes, "raw");
        let (name, like) = (format!("d{n}"), format!("d{}", n - 1));
        let args = [
            "create", "--disk", &name, "--name", "s", &image, "--like", &like,
        ];
        let output = lab
            .command("vhd", &["snapshot"])
            .args(args)
            .output()
            .unwrap();
        if !output.status.success() {
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains("too many disks"), "{said}");
            assert!(!lab.path(&format!("store/{name}")).exists());
            deepest = n;
            break;
        }
        lab.assert_restores(&format!("{name}@s"), &bytes);
    }
    assert!((10..30).contains(&deepest), "{deepest}");
}

#[test]
fn what_means_nothing_is_refused() {
    let clones = clones();
    let lab = &clones.lab;
    let said = lab.ends(
        2,
        &[
            "create",
            "--disk",
            "web2",
            "second.vhd",
            "--like",
            "web@mon",
        ],
    );
    assert!(said.contains("only the first snapshot"), "{said}");
    assert!(said.contains("vhd snapshot rebase"), "{said}");
    lab.ends(
        2,
        &["create", "--disk", "n", "mon.vhd", "--like", "web@nope"],
    );
    lab.ends(2, &["create", "--disk", "n", "mon.vhd", "--like", "nope"]);
    lab.ends(2, &["create", "--disk", "n", "mon.vhd", "--like", "n"]);
    lab.ends(
        2,
        &[
            "create", "--disk", "n", "mon.vhd", "--like", "web@mon", "--full",
        ],
    );
    lab.ends(
        2,
        &["create", "--disk", "n", "mon.vhd", "--like", "../web@mon"],
    );
    lab.ends(2, &["rebase", "--disk", "web2"]);
    assert!(!lab.path("store/n").exists());
    let old = Lab::new();
    let image = old.image("mon", &clones.mon, "raw");
    old.add("mon", &image);
    let said = old.ends(4, &["create", "--disk", "n", &image, "--like", "web@mon"]);
    assert!(said.contains("vhd snapshot upgrade"), "{said}");
}

#[test]
fn the_marker_that_was_lost_says_again_that_there_are_such_disks() {
    let clones = clones();
    let marker = clones.path("vhdkit-store.json");
    let version = || {
        fs::read_to_string(&marker)
            .unwrap()
            .contains("\"vhdkit_store\": 4")
    };
    fs::write(&marker, "x").unwrap();
    clones.lab.run("vhd", &["snapshot", "init", "store", "-q"]);
    assert!(version());
    fs::remove_file(&marker).unwrap();
    clones.lab.good(&["upgrade"]);
    assert!(version());
    clones.assert_whole();
}
