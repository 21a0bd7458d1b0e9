//! Stores: passing errors, full and read-only places, locks, lying files and streams, mistakes that look like success.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;

use vhdkit::snapshot::{Manifest, Record, StreamReader, StreamWriter, Time};

use crate::disk::{changed, disk};
use crate::reports::lab::{Case, Ended, Lab, tell};
use crate::sections;

const MIB: usize = 1 << 20;

/// A store `S` with the disk `w` and a snapshot of each image `a.raw`, `b.raw`, `c.raw`.
fn three(lab: &Lab) {
    let mut bytes = disk(7, 3 * MIB);
    if !lab.path("S").exists() {
        lab.shell("vhd snapshot init -q --store-version 1 S")
            .code(0);
    }
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        lab.file(&format!("{name}.raw"), &bytes);
        add(lab, name, &format!("{name}.raw")).code(0);
        bytes = changed(n as u64, &bytes);
    }
}

fn add(lab: &Lab, name: &str, image: &str) -> Ended {
    lab.shell(&format!(
        "vhd snapshot create --init --store S --disk w --name {name} {image}"
    ))
}

/// All files of the disk, with their bytes.
fn files(lab: &Lab) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(lab.path("S/w"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap_or_default())
        })
        .collect();
    all.sort();
    all
}

/// Nothing is wrong, and every snapshot of `names` restores to its image.
fn holds(lab: &Lab, names: &str) {
    lab.shell("vhd snapshot verify --read-data --store S")
        .code(0);
    for name in names.chars() {
        lab.shell(&format!(
            "vhd snapshot restore --store S {name} -o x.raw --force && cmp x.raw {name}.raw"
        ))
        .code(0);
    }
}

/// Runs the last command that was advised, with `more` behind it.
fn follow(lab: &Lab, said: &Ended, more: &str) -> Ended {
    let advice = said.advice("vhd");
    let command = advice
        .iter()
        .rfind(|line| line.starts_with("vhd snapshot") && !line.contains("; "));
    lab.shell(&format!("{} {more}", command.unwrap()))
}

fn manifest(lab: &Lab, stem: &str) -> Manifest {
    let path = lab.path(&format!("S/w/{stem}.json"));
    Manifest::decode(&fs::read(&path).unwrap(), &path).unwrap()
}

fn put(lab: &Lab, manifest: &Manifest) {
    let path = lab.path(&format!("S/w/{}", manifest.stem().manifest()));
    fs::write(path, manifest.encode().unwrap()).unwrap();
}

/// Changes the manifest of `stem`; its checksum is right.
fn forge(lab: &Lab, stem: &str, change: impl Fn(&mut Manifest)) {
    let mut forged = manifest(lab, stem);
    change(&mut forged);
    put(lab, &forged);
}

/// The stream of the store, with changed manifests.
fn stream(lab: &Lab, name: &str, change: impl Fn(&mut Manifest)) {
    lab.shell("vhd snapshot send --store S > sent").code(0);
    let bytes = lab.read("sent");
    let mut reader = StreamReader::new(&bytes[..], Path::new("sent")).unwrap();
    let mut out = Vec::new();
    let mut writer = StreamWriter::new(&mut out, Path::new(name), "w").unwrap();
    loop {
        let record = reader.next_record().unwrap();
        if let Record::Snapshot(bytes) = record {
            let named: serde_json::Value = serde_json::from_slice(bytes).unwrap();
            let file = format!(
                "{:06}-{}.json",
                named["sequence"].as_u64().unwrap(),
                named["name"].as_str().unwrap()
            );
            let mut point = Manifest::decode(bytes, Path::new(&file)).unwrap();
            change(&mut point);
            writer
                .push(&Record::Snapshot(&point.encode().unwrap()))
                .unwrap();
            continue;
        }
        writer.push(&record).unwrap();
        if matches!(record, Record::End(_)) {
            break;
        }
    }
    writer.finish().unwrap();
    lab.file(name, &out);
}

/// Makes the first payload of a diff one that can't be unpacked, with all checksums right.
fn spoil(diff: &[u8]) -> Vec<u8> {
    let mut parts = sections::cut(diff);
    let page = &mut parts[1];
    assert_eq!(
        (&page[..4], page[32]),
        (&b"PAGE"[..], 1),
        "not packed by zstd"
    );
    let payload = 76 + 4 * usize::try_from(sections::u32_at(page, 4)).unwrap();
    // The length of the content in the head of the zstd frame.
    page[payload + 4] ^= 0xff;
    let crc = crc32fast::hash(&page[payload..]);
    sections::put_u32(page, 36, crc);
    sections::seal(&parts)
}

/// Nobody but its owner gets at anything of a store; its locks hold nothing.
fn private(lab: &Lab, store: &str) {
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
    let folder = lab.path(store).join("w");
    for folder in [lab.path(store), folder.clone()] {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
    }
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().ends_with("lock") {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
}

fn many_commands(lab: &Lab, code: i32, limit: &str) {
    for command in [
        "list",
        "show",
        "verify",
        "verify --read-data",
        "hash",
        "restore -o out.raw --force",
        "diff a b",
        "copy --init --to T",
        "send > /dev/null",
        "create --disk w --name d c.raw",
        "delete b",
        "prune --keep-last 1",
        "repair",
        "repair --drop",
        "repair --take-back",
    ] {
        let said = lab.shell(&format!(
            "({limit} export VHDKIT_STORE=S; timeout 60 vhd snapshot {command})"
        ));
        assert_eq!(said.code, code, "{command}: {said:?}");
    }
}

const CASES: &[Case] = &[
    Case {
        name: "verify, repair and repair --drop with too few descriptors",
        before: "1, then all four files given up with exit 0",
        now: "2, and not a file is touched",
        run: |lab| {
            three(lab);
            let before = files(lab);
            let mut refused = 0;
            for n in 6..16 {
                for command in ["verify --read-data", "repair", "repair --drop"] {
                    let said = lab.shell(&format!(
                        "(ulimit -n {n}; vhd snapshot {command} --store S --threads 1)"
                    ));
                    assert!([0, 2].contains(&said.code), "{n} {command}: {said:?}");
                    refused += i32::from(said.code == 2);
                    assert!(files(lab) == before, "{n} {command}: {said:?}");
                }
            }
            assert!(refused > 5);
            holds(lab, "abc");
        },
    },
    Case {
        name: "a link in circles where a diff, a manifest or a list should be",
        before: "damage",
        now: "2: it couldn't be read; nothing is changed",
        run: |lab| {
            for file in [
                "000002-b.vhddiff",
                "000002-b.json",
                "000001-a.vhd",
                "newest.windows",
            ] {
                let lab = &Lab::new();
                three(lab);
                let path = lab.path(&format!("S/w/{file}"));
                fs::rename(&path, lab.path("kept")).unwrap();
                symlink(file, &path).unwrap();
                for command in ["verify", "verify --read-data", "repair", "repair --drop"] {
                    lab.shell(&format!("vhd snapshot {command} --store S"))
                        .code(2);
                    assert!(path.symlink_metadata().unwrap().is_symlink());
                }
                fs::rename(lab.path("kept"), &path).unwrap();
                holds(lab, "abc");
            }
            let _ = lab;
        },
    },
    Case {
        name: "a link that leads nowhere: the other disk isn't mounted",
        before: "the snapshots are missing, --drop gives them up",
        now: "2; with the mount all is well",
        run: |lab| {
            three(lab);
            let path = lab.path("S/w/000002-b.vhddiff");
            fs::rename(&path, lab.path("S/w/kept")).unwrap();
            symlink("nowhere", &path).unwrap();
            for command in ["verify", "repair", "repair --drop"] {
                lab.shell(&format!("vhd snapshot {command} --store S"))
                    .code(2)
                    .says("cannot follow the symbolic link");
            }
            fs::rename(lab.path("S/w/kept"), &path).unwrap();
            holds(lab, "abc");
        },
    },
    Case {
        name: "what --drop gave up",
        before: "no command brings it back",
        now: "repair --take-back does, and overwrites nothing",
        run: |lab| {
            three(lab);
            let sound = files(lab);
            let diff = lab.path("S/w/000002-b.vhddiff");
            let mut bytes = fs::read(&diff).unwrap();
            bytes[400] ^= 4;
            fs::write(&diff, &bytes).unwrap();
            let damaged = files(lab);
            lab.shell("vhd snapshot repair --drop --store S")
                .code(0)
                .says("w@b: given up")
                .says("w@c: given up");
            lab.shell("vhd snapshot list --store S")
                .says("1 snapshot of");
            lab.shell("vhd snapshot repair --take-back --dry-run --store S")
                .code(0)
                .says("would be taken back");
            lab.shell("vhd snapshot repair --take-back --store S")
                .code(0)
                .says("4 files taken back");
            let again: Vec<_> = files(lab);
            let data = |all: &[(String, Vec<u8>)]| -> Vec<(String, Vec<u8>)> {
                let mut all = all.to_vec();
                all.retain(|(name, _)| name != "newest.windows");
                all
            };
            assert!(data(&again) == data(&damaged));
            // What is damaged still is; with the right bytes all is well.
            lab.shell("vhd snapshot verify --read-data --store S")
                .code(1);
            for (name, bytes) in &sound {
                fs::write(lab.path("S/w").join(name), bytes).unwrap();
            }
            holds(lab, "abc");
        },
    },
    Case {
        name: "--take-back after another snapshot took the number",
        before: "no such command",
        now: "1, with the reason; nothing is overwritten",
        run: |lab| {
            three(lab);
            fs::remove_file(lab.path("S/w/000003-c.vhddiff")).unwrap();
            lab.shell("vhd snapshot repair --drop --store S").code(0);
            add(lab, "d", "c.raw").code(0);
            lab.shell("vhd snapshot repair --take-back --store S")
                .code(1)
                .says("its number is that of d now");
            fs::rename(lab.path("c.raw"), lab.path("d.raw")).unwrap();
            holds(lab, "abd");
        },
    },
    Case {
        name: "a second damaged file of one name",
        before: "takes the place of the first one that was put aside",
        now: "both are kept, numbered; the later one comes back",
        run: |lab| {
            three(lab);
            lab.shell("vhd snapshot copy --init --store S --to T")
                .code(0);
            let diff = lab.path("S/w/000002-b.vhddiff");
            for n in 0..3 {
                fs::write(&diff, format!("damage {n}")).unwrap();
                lab.shell("vhd snapshot repair --store S --from T").code(0);
            }
            for (n, end) in ["", ".2", ".3"].into_iter().enumerate() {
                let name = format!("S/w/000002-b.vhddiff.damaged{end}");
                assert_eq!(lab.read(&name), format!("damage {n}").into_bytes());
            }
            lab.shell("vhd snapshot repair --take-back --store S")
                .code(1)
                .says("000002-b.vhddiff exists again");
            fs::remove_file(&diff).unwrap();
            lab.shell("vhd snapshot repair --take-back --store S")
                .code(1)
                .says("000002-b.vhddiff: taken back");
            assert_eq!(fs::read(&diff).unwrap(), b"damage 2");
        },
    },
    Case {
        name: "deleting the oldest where its journal can't be written",
        before: "the disk is closed, reading included",
        now: "2, the decision is taken back, nothing has changed",
        run: |lab| {
            three(lab);
            let before = files(lab);
            // Files of 64 KiB at most: deleting.json fits, the journal doesn't.
            let said = lab.shell("(trap '' XFSZ; ulimit -f 64; vhd snapshot delete --store S a)");
            assert_eq!(said.code, 2, "{said:?}");
            let said = said.says("nothing was deleted");
            // The base may have become longer, which its manifest says then.
            let names = |all: &[(String, Vec<u8>)]| -> Vec<String> {
                all.iter().map(|(name, _)| name.clone()).collect()
            };
            assert_eq!(names(&files(lab)), names(&before), "{said:?}");
            holds(lab, "abc");
            lab.shell("vhd snapshot delete --store S a").code(0);
            holds(lab, "bc");
        },
    },
    Case {
        name: "folding where the new diff or the decision can't be written",
        before: "a leftover, or a closed disk",
        now: "2, and nothing has changed",
        run: |lab| {
            three(lab);
            let before = files(lab);
            for blocks in [0, 1, 2, 8] {
                let said = lab.shell(&format!(
                    "(trap '' XFSZ; ulimit -f {blocks}; vhd snapshot delete --store S b)"
                ));
                assert_eq!(said.code, 2, "{blocks}: {said:?}");
                assert!(files(lab) == before, "{blocks}: {said:?}");
            }
            holds(lab, "abc");
        },
    },
    Case {
        name: "deleting the newest without room for a single byte",
        before: "2: deleting.json can't be written",
        now: "0: names alone do",
        run: |lab| {
            three(lab);
            lab.shell("(trap '' XFSZ; ulimit -f 0; vhd snapshot delete -q --store S c)")
                .code(0);
            holds(lab, "ab");
            add(lab, "c", "c.raw").code(0);
            holds(lab, "abc");
        },
    },
    Case {
        name: "a decided deletion that nobody has begun, and readers",
        before: "each reader wants to finish it first",
        now: "readers look past it and change nothing; a writer finishes it",
        run: |lab| {
            three(lab);
            let deleting = |lab: &Lab, forward: bool| {
                let mut intent = serde_json::json!({"schema_version": 1, "deleted": [], "next": null, "forward": forward});
                let value = |m: &Manifest| serde_json::to_value(m).unwrap();
                let (first, next) = (manifest(lab, "000001-a"), manifest(lab, "000002-b"));
                let mut base = next.clone();
                base.parent = None;
                base.data = first.data.clone();
                "000002-b.vhd".clone_into(&mut base.data.file);
                base.data.length = 0;
                intent["deleted"] = serde_json::json!([value(&first)]);
                intent["next"] = serde_json::json!([value(&next), value(&base)]);
                fs::write(lab.path("S/w/deleting.json"), intent.to_string()).unwrap();
            };
            deleting(lab, true);
            let left = files(lab);
            lab.shell("vhd snapshot list --store S")
                .code(0)
                .says("2 snapshots")
                .says("deleting a was interrupted");
            lab.shell("vhd snapshot copy --init --store S --to T")
                .code(0);
            lab.shell("vhd snapshot send --store S > s").code(0);
            holds(lab, "bc");
            assert!(files(lab) == left);
            lab.shell("vhd snapshot delete --store S c").code(0);
            holds(lab, "b");
            assert!(!lab.exists("S/w/deleting.json") && !lab.exists("S/w/000001-a.vhd"));
        },
    },
    Case {
        name: "data that still has its provisional name, and readers",
        before: "finished by the first reader, which a read-only store refuses",
        now: "read where it is",
        run: |lab| {
            three(lab);
            for file in ["000001-a.vhd", "000003-c.vhddiff"] {
                let path = lab.path(&format!("S/w/{file}"));
                fs::rename(&path, lab.path(&format!("S/w/{file}.new"))).unwrap();
            }
            let left = files(lab);
            lab.shell("vhd snapshot list --store S")
                .code(0)
                .says("3 snapshots");
            holds(lab, "abc");
            assert!(files(lab) == left);
            lab.shell("vhd snapshot delete --store S b").code(0);
            assert!(lab.exists("S/w/000001-a.vhd") && lab.exists("S/w/000003-c.vhddiff"));
            holds(lab, "ac");
        },
    },
    Case {
        name: "the lock file is removed while a reader is at work, and others write",
        before: "a writer gets in: unreadable snapshots",
        now: "the reader holds its files and reads right to the end; nothing is lost",
        run: |lab| {
            three(lab);
            lab.shell("vhd snapshot restore --store S -o right.raw")
                .code(0);
            let mut reader = lab
                .command("vhd", &["snapshot", "restore", "--store", "S", "-o", "-"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut all = vec![0];
            reader
                .stdout
                .as_mut()
                .unwrap()
                .read_exact(&mut all)
                .unwrap();
            for _ in 0..2 {
                let _ = fs::remove_file(lab.path("S/w/lock"));
                add(lab, "d", "a.raw").code(0);
                lab.shell("vhd snapshot repair --store S").code(0);
                lab.shell("vhd snapshot delete --store S d").code(0);
            }
            reader
                .stdout
                .as_mut()
                .unwrap()
                .read_to_end(&mut all)
                .unwrap();
            assert!(reader.wait().unwrap().success());
            assert!(all == lab.read("right.raw"));
            holds(lab, "abc");
        },
    },
    Case {
        name: "an older program holds the lock file",
        before: "5",
        now: "a writer ends with 5, and who reads reads",
        run: |lab| {
            three(lab);
            let lock = fs::File::open(lab.path("S/w/lock")).unwrap();
            lock.lock().unwrap();
            lab.shell("vhd snapshot list --store S")
                .code(0)
                .says("being written by another command");
            add(lab, "d", "a.raw").code(5);
        },
    },
    Case {
        name: "deleting.json of 3 GiB, or a link to /dev/zero",
        before: "3.1 GB of memory; without end",
        now: "3 at once",
        run: |lab| {
            three(lab);
            let path = lab.path("S/w/deleting.json");
            fs::File::create(&path).unwrap().set_len(3 << 30).unwrap();
            let limit = "ulimit -v 1500000; timeout 20";
            lab.shell(&format!("({limit} vhd snapshot list --store S)"))
                .code(3);
            fs::remove_file(&path).unwrap();
            symlink("/dev/zero", &path).unwrap();
            lab.shell(&format!("({limit} vhd snapshot list --store S)"))
                .code(3);
            lab.shell("vhd snapshot repair --store S")
                .code(0)
                .says("set aside");
            holds(lab, "abc");
        },
    },
    Case {
        name: "a manifest of 3 GiB, or a link to /dev/zero",
        before: "3.1 GB of memory in repair",
        now: "a finding; repair makes it again",
        run: |lab| {
            three(lab);
            let path = lab.path("S/w/000002-b.json");
            let limit = "ulimit -v 1500000; timeout 30";
            fs::File::create(&path).unwrap().set_len(3 << 30).unwrap();
            lab.shell(&format!("({limit} vhd snapshot verify --store S)"))
                .code(1);
            lab.shell(&format!(
                "({limit} vhd snapshot repair --dry-run --store S)"
            ))
            .code(0);
            fs::remove_file(&path).unwrap();
            symlink("/dev/zero", &path).unwrap();
            lab.shell(&format!("({limit} vhd snapshot verify --store S)"))
                .code(1)
                .says("leads out of the store");
            lab.shell(&format!("({limit} vhd snapshot repair --store S)"))
                .code(0);
            holds(lab, "abc");
        },
    },
    Case {
        name: "a pipe where any file of a store should be",
        before: "hangs, with the exclusive lock",
        now: "an answer at once, and no verdict that isn't so",
        run: |_| {
            for file in [
                "deleting.json",
                "lock",
                "000001-a.vhd",
                "000001-a.json",
                "000002-b.vhddiff",
                "000002-b.json",
                "newest.windows",
                "000004-d.json.part",
            ] {
                let lab = &Lab::new();
                three(lab);
                let path = lab.path(&format!("S/w/{file}"));
                let _ = fs::remove_file(&path);
                lab.shell(&format!("mkfifo S/w/{file}")).code(0);
                for command in [
                    "list",
                    "verify",
                    "verify --read-data",
                    "restore a -o x.raw --force",
                    "repair --dry-run",
                    "copy --init --to T",
                    "delete c",
                ] {
                    let said = lab.shell(&format!("timeout 30 vhd snapshot {command} --store S"));
                    assert!(said.code < 6, "{file} {command}: {said:?}");
                }
            }
        },
    },
    Case {
        name: "a data file that is a link out of the store",
        before: "read wherever it leads",
        now: "a finding, and never read",
        run: |lab| {
            three(lab);
            for file in ["000001-a.vhd", "000002-b.vhddiff"] {
                let path = lab.path(&format!("S/w/{file}"));
                fs::rename(&path, lab.path("outside")).unwrap();
                symlink(lab.path("outside"), &path).unwrap();
                lab.shell("vhd snapshot verify --store S")
                    .code(1)
                    .says("leads out of the store");
                lab.shell("vhd snapshot restore --store S c -o x.raw --force")
                    .code(3);
                fs::rename(lab.path("outside"), &path).unwrap();
            }
            // A name of the same folder is one.
            let path = lab.path("S/w/000002-b.vhddiff");
            fs::rename(&path, lab.path("S/w/elsewhere")).unwrap();
            symlink("elsewhere", &path).unwrap();
            holds(lab, "abc");
        },
    },
    Case {
        name: "a stream with the number 4294967295, 0 or the last one",
        before: "received; the next snapshot can't be restored",
        now: "3, and nothing is kept",
        run: |lab| {
            three(lab);
            for number in [u32::MAX, u32::MAX - 1, 1_000_000_000, 999_999_999, 0] {
                stream(lab, "bad", |m| {
                    if m.name == "a" {
                        m.sequence = number;
                        m.data.file = format!("{}.vhd", m.stem());
                    }
                });
                lab.shell("vhd snapshot receive --init --store R < bad")
                    .code(3);
                assert!(!lab.exists("R/w"), "{number}");
            }
        },
    },
    Case {
        name: "a stream from the year 5000",
        before: "received; nothing can be added any more",
        now: "4; --accept-future takes it, with a warning even under -q",
        run: |lab| {
            three(lab);
            let year = "5000-01-01T00:00:00Z".parse::<Time>().unwrap();
            stream(lab, "future", |m| m.time = year);
            lab.shell("vhd snapshot receive --init --store R < future")
                .code(4)
                .says("in the future")
                .says("--accept-future");
            lab.shell("vhd snapshot receive --init -q --accept-future --store R < future")
                .code(0)
                .says("warning");
        },
    },
    Case {
        name: "create --time in the future, and the night after",
        before: "silence; then a hint to say the right time",
        now: "a warning even under -q; then the snapshot in the way, and the command that deletes it",
        run: |lab| {
            three(lab);
            lab.shell("vhd snapshot create -q --init --store S --disk w --name fut --time 2199-01-01T00:00:00Z a.raw")
                .code(0)
                .says("warning")
                .says("in the future");
            let said = add(lab, "d", "a.raw").code(2).says("(fut) or later");
            follow(lab, &said, "").code(0).says("w@fut: deleted");
            add(lab, "d", "a.raw").code(0);
            // It can be the only one, too.
            lab.shell("vhd snapshot create --init --store S --disk x --name fut --time 2199-01-01T00:00:00Z a.raw").code(0);
            let said = lab
                .shell("vhd snapshot create --init --store S --disk x --name d a.raw")
                .code(2);
            follow(lab, &said, "").code(0);
        },
    },
    Case {
        name: "two snapshots with one id",
        before: "nothing is wrong",
        now: "a finding",
        run: |lab| {
            three(lab);
            let id = manifest(lab, "000001-a").id;
            forge(lab, "000003-c", |m| m.id.clone_from(&id));
            lab.shell("vhd snapshot verify --store S")
                .code(1)
                .says("(id: found");
        },
    },
    Case {
        name: "two snapshots made of one, of one name, or of one number",
        before: "nothing is wrong",
        now: "findings",
        run: |lab| {
            three(lab);
            let parent = manifest(lab, "000001-a").id;
            forge(lab, "000003-c", |m| m.parent = Some(parent.clone()));
            lab.shell("vhd snapshot verify --store S")
                .code(1)
                .says("(parent: found");
            let lab = &Lab::new();
            three(lab);
            let mut twin = manifest(lab, "000003-c");
            for (name, number, field) in [("b", 3, "name"), ("d", 3, "sequence")] {
                (twin.name, twin.sequence) = (name.to_owned(), number);
                twin.data.file = format!("{}.vhddiff", twin.stem());
                put(lab, &twin);
                lab.shell(&format!("cp S/w/000003-c.vhddiff S/w/{}", twin.data.file))
                    .code(0);
                lab.shell("vhd snapshot verify --store S")
                    .code(1)
                    .says(&format!("({field}: found"));
            }
        },
    },
    Case {
        name: "times that go back",
        before: "nothing is wrong",
        now: "a finding",
        run: |lab| {
            three(lab);
            forge(lab, "000002-b", |m| m.time = Time::from_unix(5));
            lab.shell("vhd snapshot verify --store S")
                .code(1)
                .says("(time: found");
        },
    },
    Case {
        name: "a footer in a manifest that is not a footer",
        before: "nothing is wrong; received",
        now: "a finding; refused in a stream",
        run: |lab| {
            three(lab);
            forge(lab, "000002-b", |m| {
                m.source.footer = Some("ab".repeat(512));
            });
            lab.shell("vhd snapshot verify --store S")
                .code(1)
                .says("source.footer");
            lab.shell("vhd snapshot send --store S | vhd snapshot receive --init --store R")
                .says("footer");
            lab.shell("vhd snapshot list --store R")
                .says("1 snapshot of");
        },
    },
    Case {
        name: "the newest snapshot lost with both its files",
        before: "nothing is wrong",
        now: "a finding, by the window hashes that are left",
        run: |lab| {
            three(lab);
            for file in ["000003-c.json", "000003-c.vhddiff"] {
                fs::rename(lab.path(&format!("S/w/{file}")), lab.path(file)).unwrap();
            }
            lab.shell("vhd snapshot verify --store S")
                .code(1)
                .says("belong to a snapshot that isn't here");
            for file in ["000003-c.json", "000003-c.vhddiff"] {
                fs::rename(lab.path(file), lab.path(&format!("S/w/{file}"))).unwrap();
            }
            holds(lab, "abc");
            // Deleted ones aren't lost.
            for name in ["c", "b", "a --last"] {
                lab.shell(&format!("vhd snapshot delete --store S {name}"))
                    .code(0);
                lab.shell("vhd snapshot verify --store S --disk w").code(0);
            }
        },
    },
    Case {
        name: "a fixed VHD that lost its end becomes the next point in time",
        before: "0 without a word",
        now: "told: other size, other format, less data; -q and --json don't hide it; the hint takes it back",
        run: |lab| {
            lab.file("m.raw", &disk(3, 8 * MIB));
            lab.shell("vhd convert -q -O fixed m.raw m.vhd && head -c 4M m.vhd > cut.raw")
                .code(0);
            add(lab, "a", "m.vhd").code(0);
            for quiet in ["", "-q ", "--json -q "] {
                let said = lab
                    .shell(&format!(
                        "vhd snapshot create --init {quiet}--store S --disk w --name b cut.raw"
                    ))
                    .code(0)
                    .says("8 MiB")
                    .says("4 MiB")
                    .says("was fixed before and is raw now");
                follow(lab, &said, "").code(0).says("w@b: deleted");
            }
            lab.shell("truncate -s 8M empty.raw").code(0);
            add(lab, "c", "empty.raw").code(0).says("hold data now");
            lab.shell("vhd snapshot create --init --full --store S --disk w --name d cut.raw")
                .code(0)
                .says("was 8388608 bytes");
            let json =
                lab.shell("vhd snapshot create --init --json -q --store S --disk w --name e m.vhd");
            let view: serde_json::Value = serde_json::from_str(&json.out).unwrap();
            assert_eq!(view["warnings"].as_array().unwrap().len(), 2, "{view}");
            // The same again is nothing to speak of.
            add(lab, "f", "m.vhd").code(0).omits("warning");
        },
    },
    Case {
        name: "a name of a disk, or a store, typed wrong",
        before: "a new base, exit 0, as always",
        now: "a store: refused; a disk: told that it is new",
        run: |lab| {
            lab.file("a.raw", &disk(1, MIB));
            add(lab, "a", "a.raw").code(0).says("a new store");
            add(lab, "b", "a.raw").code(0).omits("new");
            lab.shell("vhd snapshot create --store SS --disk w --name c a.raw")
                .code(2)
                .says("there is no store here");
            assert!(!lab.exists("SS"));
            lab.shell("vhd snapshot create --init --store S --disk ww --name a a.raw")
                .code(0)
                .says("ww is a new disk");
            lab.shell("vhd snapshot copy --init --store S --disk w --to T")
                .says("w is a new disk");
            lab.shell(
                "vhd snapshot send --store S --disk w | vhd snapshot receive --init --store R",
            )
            .says("w is a new disk");
            lab.shell("vhd snapshot copy --init --store S --disk w --to T")
                .code(0)
                .omits("new disk");
        },
    },
    Case {
        name: "restoring from a damaged diff",
        before: "get the diff again, make it again with vhd-diff",
        now: "the hint names the repair, which works",
        run: |lab| {
            three(lab);
            lab.shell("vhd snapshot copy --init --store S --to T")
                .code(0);
            let path = lab.path("S/w/000002-b.vhddiff");
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let said = lab
                .shell("vhd snapshot restore --store S c -o x.raw")
                .code(3)
                .omits("vhd-diff");
            follow(lab, &said, "--from T").code(0).says("rebuilt");
            holds(lab, "abc");
            fs::write(&path, b"x").unwrap();
            let said = lab.shell("vhd hash S::w@c").code(3);
            follow(lab, &said, "--from T").code(0).says("rebuilt");
            fs::remove_file(&path).unwrap();
            let said = lab.shell("vhd snapshot verify --store S").code(1);
            follow(lab, &said, "--from T").code(0).says("rebuilt");
            holds(lab, "abc");
        },
    },
    Case {
        name: "verify without an option, one byte of data changed",
        before: "data read: none: nothing is wrong",
        now: "structure only, no problems; data not read",
        run: |lab| {
            three(lab);
            lab.shell("vhd snapshot verify --store S").code(0).says(
                "w: 3 snapshots, structure only, data not read (--read-data reads it): no problems",
            );
            lab.shell("vhd snapshot verify --read-data --store S")
                .code(0)
                .says("w: 3 snapshots, all data read: no problems");
        },
    },
    Case {
        name: "a diff whose payload can't be unpacked: squash, create --diff, receive, verify",
        before: "squash and receive take it and hand it on",
        now: "3 each; verify --read-data finds it",
        run: |lab| {
            let base = vec![0; MIB];
            let text: Vec<u8> = (0..MIB / 8)
                .flat_map(|n| format!("{:07}\n", n / 9).into_bytes())
                .collect();
            lab.file("a.raw", &base);
            lab.file("b.raw", &text);
            lab.shell("vhd-diff -q a.raw b.raw -o good.vhddiff").code(0);
            lab.file("bad.vhddiff", &spoil(&lab.read("good.vhddiff")));
            lab.shell("vhd-apply a.raw bad.vhddiff -o x.raw").code(3);
            lab.shell("vhd squash bad.vhddiff -o s.vhddiff")
                .code(3)
                .says("zstd frame");
            lab.shell("vhd-diff -q b.raw a.raw -o back.vhddiff && vhd squash bad.vhddiff back.vhddiff -o s.vhddiff").code(3);
            assert!(!lab.exists("s.vhddiff"));
            add(lab, "a", "a.raw").code(0);
            lab.shell("vhd snapshot create --store S --disk w --name b --diff bad.vhddiff")
                .code(3);
            lab.shell("vhd snapshot list --store S")
                .says("1 snapshot of");
            // A store that has such a diff, as an older program may have taken it.
            lab.shell("vhd snapshot create --store S --disk w --name b --diff good.vhddiff")
                .code(0);
            let bad = lab.read("bad.vhddiff");
            fs::write(lab.path("S/w/000002-b.vhddiff"), &bad).unwrap();
            let identity = bad[bad.len() - 40..bad.len() - 8].to_vec();
            forge(lab, "000002-b", |m| {
                m.data.length = bad.len() as u64;
                m.data.identity = Some(vhdkit::image::ContentDigest(
                    identity.clone().try_into().unwrap(),
                ));
            });
            lab.shell("vhd snapshot verify --store S").code(0);
            lab.shell("vhd snapshot verify --read-data --store S")
                .code(1)
                .says("zstd frame");
            lab.shell("vhd snapshot send --store S | vhd snapshot receive --init --store R")
                .code(3);
            lab.shell("vhd snapshot copy --init --store S --to T")
                .code(3);
        },
    },
    Case {
        name: "a create that fails on a new disk",
        before: "web/lock stays, an empty folder",
        now: "nothing is left",
        run: |lab| {
            lab.file("a.raw", &disk(1, 4 * MIB));
            lab.shell("(trap '' XFSZ; ulimit -f 200; vhd snapshot create --init --store S --disk w --name a a.raw)").code(2);
            assert!(!lab.exists("S/w"));
            lab.shell("echo nonsense | vhd snapshot receive --init --store R --disk w")
                .code(3);
            assert!(!lab.exists("R/w"));
        },
    },
    Case {
        name: "a command for one disk, in a store of three, and in an empty folder",
        before: "more than one disk, or none",
        now: "which of the two it is, and what to add",
        run: |lab| {
            lab.file("a.raw", &disk(1, MIB));
            for name in ["x", "y", "z"] {
                lab.shell(&format!(
                    "vhd snapshot create -q --init --store S --disk {name} --name a a.raw"
                ))
                .code(0);
            }
            lab.shell("vhd snapshot repair --store S")
                .code(2)
                .says("several disks")
                .says("--disk x");
            fs::create_dir(lab.path("E")).unwrap();
            lab.shell("vhd snapshot repair --store E")
                .code(2)
                .says("there is no store here");
            lab.shell("vhd snapshot init E").code(0);
            lab.shell("vhd snapshot repair --store E")
                .code(2)
                .says("no disk in this store");
        },
    },
    Case {
        name: "family of an empty list, of full snapshots, of the wrong disk",
        before: "0 other disks, leave the ids away, though none was given",
        now: "what the list has, and what to do",
        run: |lab| {
            lab.shell("echo '[]' | vhd snapshot family -")
                .code(2)
                .says("0 snapshots")
                .omits("ids");
            let one = |incremental| {
                format!(
                    r#"[{{"name": "s", "timeCreated": "2026-11-20T06:00:00Z", "incremental": {incremental}, "creationData": {{"sourceResourceId": "/d/web", "sourceUniqueId": "1"}}}}]"#
                )
            };
            lab.file("full.json", one(false).as_bytes());
            lab.shell("vhd snapshot family full.json")
                .code(2)
                .says("omitted")
                .says("1 snapshot");
            lab.file("list.json", one(true).as_bytes());
            lab.shell("vhd snapshot family list.json --source-unique-id 2")
                .code(2)
                .says("1 other disk")
                .says("choose one by its id, as in: vhd snapshot family list.json --source-unique-id 1");
        },
    },
    Case {
        name: "a store of 0600 and 0700: delete, prune, create, repair",
        before: "0644 where files are made anew",
        now: "what is made anew has the permissions of what it replaces; new files are as closed as the newest",
        run: |lab| {
            three(lab);
            lab.shell("vhd snapshot copy --init -q --store S --to T")
                .code(0);
            lab.shell("chmod 700 S S/w; chmod 600 S/w/*").code(0);
            add(lab, "d", "a.raw").code(0);
            lab.shell("vhd snapshot delete --store S b").code(0);
            lab.shell("vhd snapshot delete --store S a").code(0);
            private(lab, "S");
            fs::write(lab.path("S/w/000004-d.vhddiff"), "x").unwrap();
            fs::remove_file(lab.path("S/w/newest.windows")).unwrap();
            lab.shell("vhd snapshot repair --store S --image d=a.raw")
                .code(0);
            private(lab, "S");
            add(lab, "e", "b.raw").code(0);
            lab.shell("vhd snapshot create --init --full --store S --disk w --name f c.raw")
                .code(0);
            lab.shell("vhd snapshot prune --store S --keep-last 2")
                .code(0);
            private(lab, "S");
        },
    },
    Case {
        name: "copy of a private store, receive into a new one, create from a private image",
        before: "0755 and 0644",
        now: "as private as what they are made from; received ones are for their owner alone",
        run: |lab| {
            three(lab);
            lab.shell("chmod 700 S S/w; chmod 600 S/w/*").code(0);
            lab.shell("vhd snapshot copy --init --store S --to T")
                .code(0);
            private(lab, "T");
            lab.shell("vhd snapshot send --store S | vhd snapshot receive --init --store R")
                .code(0);
            private(lab, "R");
            lab.shell("chmod 600 a.raw b.raw").code(0);
            lab.shell("vhd snapshot create --init --store P --disk w --name a a.raw")
                .code(0);
            lab.shell("vhd snapshot create --init --store P --disk w --name b b.raw")
                .code(0);
            private(lab, "P");
            // A later one that anybody may read joins a private disk.
            lab.shell(
                "chmod 644 c.raw; vhd snapshot create --init --store P --disk w --name c c.raw",
            )
            .code(0);
            private(lab, "P");
            // And what everybody may read stays so.
            lab.shell("umask 022; vhd snapshot create --init --store O --disk w --name c c.raw; vhd snapshot copy --init --store O --to OO")
                .code(0);
            for store in ["O", "OO"] {
                lab.shell(&format!(
                    "stat -c %a {store}/w {store}/w/000001-c.vhddiff {store}/w/000001-c.json"
                ))
                .says("755\n644\n644");
            }
        },
    },
    Case {
        name: "every command beside a file that can't be opened for want of descriptors",
        before: "verdicts",
        now: "2 each",
        run: |lab| {
            three(lab);
            let before = files(lab);
            many_commands(lab, 2, "ulimit -n 4;");
            assert!(files(lab) == before);
            holds(lab, "abc");
        },
    },
];

#[test]
fn stores() {
    tell("Stores", CASES);
}

/// Where nothing can be written: everything is read, whatever an interrupted command left, and with no lock file.
#[test]
fn a_folder_that_nobody_may_write_is_read() {
    let lab = Lab::new();
    three(&lab);
    fs::rename(
        lab.path("S/w/000003-c.vhddiff"),
        lab.path("S/w/000003-c.vhddiff.new"),
    )
    .unwrap();
    fs::remove_file(lab.path("S/w/lock")).unwrap();
    let is_root = fs::metadata(lab.path("S")).unwrap().uid() == 0;
    for folder in ["S/w", "S"] {
        fs::set_permissions(lab.path(folder), fs::Permissions::from_mode(0o555)).unwrap();
    }
    holds(&lab, "abc");
    // The superuser may write it nevertheless.
    assert!(is_root || !lab.exists("S/w/lock"));
    for folder in ["S", "S/w"] {
        fs::set_permissions(lab.path(folder), fs::Permissions::from_mode(0o755)).unwrap();
    }
}
