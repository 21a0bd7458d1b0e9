//! Kinds of stores, and what a command does with one that it doesn't take; files where only a store makes some.

use std::fs;

use crate::reports::lab::{Case, Lab, tell};

const SIZE: usize = 4 << 20;

/// A store S with the points a and b of the disk w, their images, and diffs between them.
fn store(lab: &Lab) {
    let mut disk = vec![1; SIZE];
    lab.file("a.raw", &disk);
    disk[8192..9216].fill(7);
    lab.file("b.raw", &disk);
    lab.shell(
        "vhd-diff -q a.raw b.raw -o d1 && vhd-diff -q b.raw a.raw -o d2 && vhd convert -q a.raw a.vhd
         vhd create -q c.avhd --parent a.vhd && vhd snapshot init S -q
         for n in a b; do vhd snapshot create -q --store S --disk w --name $n $n.raw || exit; done",
    )
    .code(0);
}

/// Every command that names a store, with what it needs besides.
const WITH_A_STORE: &[&str] = &[
    "init STORE",
    "create --store STORE --disk w a.raw",
    "create --store STORE --disk w --init a.raw",
    "list --store STORE",
    "show --store STORE mon",
    "stats --store STORE",
    "diff --store STORE a b",
    "map --store STORE",
    "restore --store STORE a -o x.raw",
    "hash --store STORE a",
    "copy --store STORE --to T",
    "copy --store S --to STORE",
    "send --store STORE",
    "receive --store STORE",
    "delete --store STORE a",
    "prune --store STORE --keep-last 1",
    "tag --store STORE a --set x=y",
    "hold --store STORE a",
    "rename --store STORE a b",
    "verify --store STORE",
    "repair --store STORE",
    "repair --store S --from STORE",
    "upgrade --store STORE",
];

/// Options that mean nothing for a store of this kind.
const MEANINGLESS: &[(&str, &str)] = &[
    ("restore --store DISK a -o x.raw", "--windows-dir 'D:\\vms'"),
    ("restore --store DISK a -o x.raw", "--raw-parent"),
    ("restore --store DISK a -o x.raw", "--parent-path ."),
    ("restore --store DISK a -o x.raw", "--parent a.vhd"),
    ("restore --store DISK a -o x.raw", "--lock-timeout 1s"),
    ("restore --store DISK -o x.raw", "--at 2026-11-20"),
    ("create --store DISK", "--raw-parent"),
    ("create --store DISK", "--parent-path ."),
    ("create --store DISK", "--limit-rate 20M"),
    ("create --store DISK", "--disk w"),
    ("diff --store DISK a b", "--lock-timeout 1s"),
    ("delete --store DISK a", "--lock-timeout 1s"),
    ("delete --store DISK a", "--release-hold"),
    ("prune --store DISK --keep-last 1", "--lock-timeout 1s"),
    ("copy --store DISK --to S", "--lock-timeout 1s"),
    ("restore --store CONTAINER a -o x.raw", "--raw-parent"),
    ("restore --store CONTAINER a -o x.raw", "--parent-path ."),
    (
        "restore --store CONTAINER a -o x.raw",
        "--windows-dir 'D:\\vms'",
    ),
    ("restore --store CONTAINER a -o x.raw", "--lock-timeout 1s"),
    ("restore --store CONTAINER a -o x.raw", "--in-place"),
    (
        "create --store CONTAINER --disk w a.raw",
        "--sku Standard_LRS",
    ),
    ("create --store CONTAINER --disk w a.raw", "--compress none"),
    ("diff --store CONTAINER a b", "--lock-timeout 1s"),
    ("list --store CONTAINER", "--no-changes"),
    ("list --store S", "--no-changes"),
    ("create --store S --disk w a.raw", "--sku Standard_LRS"),
    ("verify --store CONTAINER", "--max-age 26h"),
    ("copy --store S --to CONTAINER", "--check-changes 5"),
];

/// Every command that makes a file or fills a folder, where its place is NEW.
const MAKERS: &[&str] = &[
    "vhd-diff a.raw b.raw -o NEW",
    "vhd diff a.raw b.raw --force -o NEW",
    "vhd-apply a.raw d1 -o NEW",
    "vhd-apply a.raw d1 --undo NEW",
    "vhd create NEW --size 4M",
    "vhd create NEW.avhd --parent a.vhd",
    "vhd convert a.raw NEW",
    "vhd convert --force --dense a.raw NEW",
    "vhd merge c.avhd -o NEW",
    "vhd squash d1 d2 -o NEW",
    "vhd hash --windows NEW a.raw",
    "vhd files get a.raw:1/x -o NEW",
    "vhd snapshot diff --store S a b -o NEW",
    "vhd snapshot restore --store S a -o NEW",
    "vhd snapshot restore --store S a --force -o NEW",
    "vhd snapshot restore --store S a --in-place -o NEW",
    "vhd snapshot restore --store S a -o NEW.avhd --parent a.vhd",
    "vhd serve a.raw --socket NEW",
];

/// Commands that fill the folder WHERE.
const FILLERS: &[&str] = &[
    "vhd man --dir WHERE",
    "vhd demo --keep WHERE",
    "vhd serve azure --store WHERE",
    "vhd --journal-dir WHERE hash a.raw",
];

const CASES: &[Case] = &[
    Case {
        name: "every command on a store, with the name of a managed disk or of a group",
        before: "some looked for a folder of that name, and advised to make it a store",
        now: "exit 2: what the command takes, or how the disk is named; nothing is made",
        run: |lab| {
            store(lab);
            for line in WITH_A_STORE {
                for name in [
                    "azure:GROUP",
                    "azure:GROUP/disk",
                    "azure:A/B/C",
                    "azure:G/snapshots/s",
                ] {
                    let line = format!("vhd snapshot {}", line.replace("STORE", name));
                    let ended = lab.shell(&format!(
                        "HOME=$PWD AZURE_CONFIG_DIR=$PWD {line} < /dev/null"
                    ));
                    let ended = ended.code(2).says("hint: ").omits("there is no store here");
                    for advice in ["snapshot init azure", "mounted"] {
                        assert!(!ended.err.contains(advice), "{line}: {}", ended.err);
                    }
                }
            }
            assert!(!lab.names().iter().any(|name| name.starts_with("azure")));
        },
    },
    Case {
        name: "options that mean nothing for a kind of store",
        before: "accepted, and ignored",
        now: "exit 2 with the option, before anything is asked or changed",
        run: |lab| {
            store(lab);
            for (line, option) in MEANINGLESS {
                let line = line
                    .replace("DISK", "azure:g/d")
                    .replace("CONTAINER", "http://127.0.0.1:1/acct/disks");
                let line = format!("vhd snapshot {line} {option}");
                let name = option.split(' ').next().unwrap();
                let ended = lab.shell(&line).code(2);
                assert!(
                    ended.err.contains(&format!("(found {name})")),
                    "{line}: {}",
                    ended.err
                );
                ended.says("hint: omit");
            }
        },
    },
    Case {
        name: "the output of every command that makes files, in the folder of a store or of its disk",
        before: "a new file was made among those of the store",
        now: "exit 2, and no file",
        run: |lab| {
            store(lab);
            std::os::unix::fs::symlink(lab.path("S/w"), lab.path("way")).unwrap();
            std::os::unix::fs::symlink(lab.path("S/w/to.vhd"), lab.path("link.vhd")).unwrap();
            let all = |lab: &Lab| lab.shell("find S ! -name '*.lock' ! -name lock | sort").out;
            let before = all(lab);
            for place in [
                "S/new.vhd",
                "S/w/new.vhd",
                "way/new.vhd",
                "link.vhd",
                "./S/../S/w/n",
            ] {
                for line in MAKERS {
                    let line = line.replace("NEW", place);
                    if place == "link.vhd" && line.contains("link.vhd.avhd") {
                        continue;
                    }
                    let ended = lab.shell(&line);
                    assert_eq!(ended.code, 2, "{line}: {}", ended.err);
                    ended.says("store").says("hint: ");
                    assert_eq!(all(lab), before, "{line}");
                }
            }
            for line in FILLERS {
                for place in ["S", "S/w", "way"] {
                    let line = line.replace("WHERE", place);
                    let ended = lab.shell(&line);
                    assert_eq!(ended.code, 2, "{line}: {}", ended.err);
                    ended.says("of a store");
                    assert_eq!(all(lab), before, "{line}");
                }
            }
            // What was there before the folder became a store can be replaced.
            lab.shell("mkdir old; cp a.raw old/; vhd snapshot init old; vhd convert --force b.raw old/a.raw")
                .code(0);
            // Elsewhere, as the hint says.
            let advice = lab
                .shell("vhd convert a.raw S/w/new.vhd")
                .advice("hint: choose another folder, as in");
            let place = advice[0].rsplit(' ').next().unwrap().to_owned();
            lab.shell(&format!("vhd convert a.raw {place}")).code(0);
        },
    },
    Case {
        name: "verify of a disk of which only a copy was begun",
        before: "0 snapshots: no problems",
        now: "nothing was verified; the copy that isn't complete is named",
        run: |lab| {
            store(lab);
            lab.shell("vhd snapshot copy -q --store S --to T --init")
                .code(0);
            // As a copy leaves it that was killed in the first snapshot.
            let folder = lab.path("T/w");
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                match name.as_str() {
                    "000001-a.vhddiff" => {
                        let bytes = fs::read(&path).unwrap();
                        let part = folder.join("000001-a.vhddiff.part");
                        fs::write(part, &bytes[..bytes.len() / 2]).unwrap();
                        fs::remove_file(path).unwrap();
                    }
                    "000001-a.json" => {
                        let text = fs::read_to_string(&path).unwrap();
                        let text = text
                            .replace("\"state\": \"complete\"", "\"state\": \"copying\"")
                            .replace("\"completion_percent\": 100", "\"completion_percent\": 0");
                        let body: Vec<&str> = text.lines().collect();
                        let body = body[..body.len() - 2].join("\n") + "\n";
                        let sum = blake3::hash(body.as_bytes()).to_hex();
                        let text = format!("{body}  \"checksum\": \"{sum}\"\n}}\n");
                        fs::write(folder.join("000001-a.json.part"), text).unwrap();
                        fs::remove_file(path).unwrap();
                    }
                    _ => fs::remove_file(path).unwrap(),
                }
            }
            lab.shell("vhd snapshot list --store T")
                .code(0)
                .says("copying");
            for line in ["", "--read-data"] {
                let line = format!("vhd snapshot verify --store T {line}");
                lab.shell(&line)
                    .code(0)
                    .says("w: there is no snapshot, so nothing was verified; a, whose copy isn't complete, was not looked at")
                    .omits("no problems");
            }
            lab.shell("vhd snapshot verify --store T --json | jq -e '.disks[0].copying == \"a\"'")
                .code(0);
            lab.shell("vhd snapshot verify --store T --max-age 26h")
                .code(1);
            lab.shell(
                "vhd snapshot copy --store S --to T && vhd snapshot verify --store T --read-data",
            )
            .code(0)
            .says("2 snapshots, all data read: no problems");
        },
    },
    Case {
        name: "list of a disk that isn't there",
        before: "0 snapshots of 1 disk, then the error",
        now: "the error alone; of several, only those that were read are counted",
        run: |lab| {
            store(lab);
            let ended = lab.shell("vhd snapshot list --store S --disk nope").code(2);
            assert_eq!(ended.out, "", "{}", ended.out);
            ended.says("found \"nope\"");
            lab.shell("mkdir S/x; cp S/w/000001* S/x; rm S/x/*.json; mkdir S/x/000001-a.json");
            let ended = lab.shell("vhd snapshot list --store S");
            assert_ne!(ended.code, 0);
            ended.says("2 snapshots of");
        },
    },
];

#[test]
fn kinds_of_stores_and_places_of_outputs() {
    tell(
        "Kinds of stores, and files where only a store makes some",
        CASES,
    );
}
