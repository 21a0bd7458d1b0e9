//! What a hostile tester broke: text that reaches a terminal raw, and commands that change the files of a store.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::disk::{changed, disk};
use crate::reports::lab::{Case, Ended, Lab, tell};

#[test]
fn a_hostile_tester() {
    tell("What a hostile tester broke", CASES);
}

const CASES: &[Case] = &[
    Case {
        name: "a parent's name with escape sequences, in the error of hash",
        before: "once escaped, twice raw, in one message",
        now: "nothing raw; the name can be read",
        run: |lab| {
            lab.shell("vhd create p.vhd --size 4M && vhd create c.vhd --parent p.vhd")
                .code(0);
            set_parent_name(lab, "c.vhd", HOSTILE);
            lab.shell("rm p.vhd");
            for command in [
                "hash",
                "info",
                "map",
                "check",
                "info --json",
                "check --json",
            ] {
                clean(lab.shell(&format!("vhd {command} c.vhd")));
            }
            lab.shell("vhd hash c.vhd")
                .code(2)
                .says(r"\u{1b}]0;pwned\u{7}");
        },
    },
    Case {
        name: "a file whose name has a line end, in the lines of hash",
        before: "a second line with a digest of its own",
        now: "one line for each file, the line end escaped",
        run: |lab| {
            let name = format!("q\n{}  other.raw", "0".repeat(64));
            lab.file(&name, &disk(1, 1 << 20));
            let ended = lab.shell("vhd hash *").code(0).says(r"q\n000");
            assert_eq!(ended.out.lines().count(), 1, "{}", ended.out);
        },
    },
    Case {
        name: "a file whose name turns the direction of writing or isn't UTF-8",
        before: "raw; two such files look alike",
        now: "escaped in text and in JSON, which reads back",
        run: |lab| {
            lab.file("a\u{202e}dhv.raw", &disk(1, 1 << 20));
            let byte = std::ffi::OsStr::from_bytes(b"b\xff.raw");
            fs::write(lab.folder().join(byte), disk(2, 1 << 20)).unwrap();
            clean(lab.shell("vhd hash *"))
                .says(r"a\u{202e}dhv.raw")
                .says(r"b\xff.raw");
            let json = clean(lab.shell("vhd info --json a*")).out;
            let json: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(json["image"], "a\u{202e}dhv.raw");
        },
    },
    Case {
        name: "a manifest's state and content digest with escape sequences",
        before: "raw in list, copy, create, delete, prune",
        now: "escaped everywhere",
        run: |lab| {
            for field in [
                "state",
                "content_digest",
                "time",
                "id",
                "data.file",
                "source.format",
            ] {
                store(lab);
                let path = "S/w/000002-b.json";
                let mut manifest = manifest(lab, path);
                *field
                    .split('.')
                    .fold(&mut manifest, |at, part| &mut at[part]) = HOSTILE.into();
                fs::write(lab.path(path), sealed(&manifest)).unwrap();
                for command in STORE_COMMANDS {
                    clean(lab.shell(&format!("{command} < /dev/null")));
                }
                lab.shell("rm -rf S T x");
            }
        },
    },
    Case {
        name: "arguments with escape sequences, of which the parser complains",
        before: "repeated raw",
        now: "repeated escaped",
        run: |lab| {
            for line in [
                r"vhd $'\x1b[31m\nvhd: note: fine'",
                r"vhd info $'--\x1b[31m\nvhd: note: fine'",
                r"vhd create x --size $'1\x1b[31mM\n'",
                r"vhd create x --size 1M --format $'\x1b[31m\n'",
                r"vhd snapshot show --store S --at $'\x1b\n\xe2\x80\xae'",
                r"vhd snapshot create --init --store S --disk $'\x1b\n' --name a x",
                r"vhd snapshot create --init --store S --disk w --name $'\xff\n' x",
                r"vhd-apply $'\x9b' $'\n'",
                r"vhd snapshot create --init --store S --disk w --tag $'\x1b' x",
                r"vhd hash --threads $'\n\n\nUsage: \x1b' x",
            ] {
                let ended = clean(lab.shell(line));
                assert_eq!(ended.code, 2, "{line}: {ended:?}");
                assert!(!ended.err.contains("\nvhd: note"), "{line}: {ended:?}");
            }
        },
    },
    Case {
        name: "the hint for a file with escape sequences in its name",
        before: "the command in it was right",
        now: "it still is: escaped once",
        run: |lab| {
            let name = "a\u{1b}b\nc\u{202e}.vhd";
            lab.command("vhd", &["create", name, "--size", "4M"])
                .output()
                .unwrap();
            fs::write(lab.path(&format!("{name}.undo-journal")), "x").unwrap();
            let ended: Ended = lab.command("vhd", &["hash", name]).output().unwrap().into();
            let ended = clean(ended).code(5);
            let advice = ended.advice("vhd-apply");
            assert!(
                advice
                    .iter()
                    .any(|line| line.contains(r"$'a\x1bb\nc\xe2\x80\xae.vhd'")),
                "{advice:?}"
            );
        },
    },
    Case {
        name: "every command that writes, onto a file of a store",
        before: "exit 0, and a damaged store after it",
        now: "exit 2 with what to do instead; the store is whole",
        run: |lab| {
            store(lab);
            let before = tree(&lab.path("S"));
            for line in ONTO_A_STORE {
                for of in ["S/w/000001-a.vhd", "link.vhd", "way/000001-a.vhd"] {
                    let line = line.replace("BASE", of);
                    let ended = lab.shell(&format!("rm -f kid*; {line}"));
                    assert_eq!(ended.code, 2, "{line}: {ended:?}");
                    ended.says("part of a store").says("vhd snapshot");
                    assert!(tree(&lab.path("S")) == before, "{line} changed the store");
                }
            }
            lab.shell("vhd snapshot verify --read-data --store S")
                .code(0);
        },
    },
    Case {
        name: "outputs with the names that only a store gives",
        before: "a diff called deleting.json closed the store",
        now: "exit 2",
        run: |lab| {
            store(lab);
            let before = tree(&lab.path("S"));
            for name in [
                "deleting.json",
                "newest.windows",
                "lock",
                "copy.lock",
                "000009-z.json",
                "000009-z.vhd",
                "000009-z.vhddiff.new",
                "000009-z.raw.part",
                "000002-b.vhddiff.damaged",
            ] {
                for line in [
                    format!("vhd-diff a.raw b.raw --force -o S/w/{name}"),
                    format!("vhd hash --windows S/w/{name} --force a.raw"),
                    format!("vhd convert --force -O raw a.raw S/w/{name}"),
                    format!("vhd squash d1 d2 --force -o S/w/{name}"),
                    format!("vhd-apply a.raw d1 --force -o S/w/{name}"),
                    format!("vhd-apply a.raw d1 --undo S/w/{name}"),
                    format!("vhd snapshot diff a b --store S --force -o S/w/{name}"),
                    format!("vhd snapshot restore a --store S --force -o S/w/{name}"),
                ] {
                    let ended = lab.shell(&line);
                    assert_eq!(ended.code, 2, "{line}: {ended:?}");
                    ended.says("part of a store");
                }
            }
            assert!(tree(&lab.path("S")) == before);
        },
    },
    Case {
        name: "the advice of that refusal, followed",
        before: "there was none",
        now: "an image that you can change",
        run: |lab| {
            store(lab);
            let ended = lab.shell("vhd-apply S/w/000001-a.vhd d1").code(2);
            let advice = ended.advice("vhd");
            let advice = advice
                .iter()
                .find(|line| line.starts_with("vhd snapshot restore"));
            let line = advice.unwrap().split(';').next().unwrap();
            lab.shell(line).code(0);
            assert!(lab.exists("IMAGE"));
            lab.shell("vhd snapshot repair --store S --disk w").code(0);
        },
    },
    Case {
        name: "names like a store's elsewhere, and other files in the folder of a disk",
        before: "written",
        now: "written; what somebody else put in the folder of a disk disturbs nothing",
        run: |lab| {
            store(lab);
            lab.shell("vhd convert a.raw mine.vhd && mv mine.vhd S/w")
                .code(0);
            lab.shell("vhd convert a.raw 000001-a.vhd && vhd resize 000001-a.vhd --size 16M")
                .code(0);
            lab.shell("vhd snapshot verify --store S").code(0);
        },
    },
];

/// What a terminal would obey, and what would forge a line.
const HOSTILE: &str = "x\u{1b}]0;pwned\u{7}\u{1b}[2K\r\nvhd: note: all fine\u{202e}\u{9b}31m";

const STORE_COMMANDS: &[&str] = &[
    "vhd snapshot list --store S",
    "vhd snapshot list --store S --json",
    "vhd snapshot show b --store S",
    "vhd snapshot show --store S --json",
    "vhd snapshot verify --store S",
    "vhd snapshot verify --read-data --store S --json",
    "vhd snapshot hash b --store S",
    "vhd snapshot diff a b --store S -o x/d",
    "vhd snapshot restore b --store S -o x/r",
    "vhd snapshot copy --init --store S --to T",
    "vhd snapshot send --store S | cat > x/s",
    "vhd snapshot prune --keep-last 1 --dry-run --store S",
    "vhd snapshot repair --dry-run --store S",
    "vhd snapshot create --init --store S --disk w --name d a.raw",
    "vhd snapshot delete b --store S",
    "vhd snapshot repair --store S",
    "vhd hash S::w@b",
];

/// Commands that would change a store's file, which is called BASE.
const ONTO_A_STORE: &[&str] = &[
    "vhd-apply BASE d1",
    "vhd-apply BASE d1 --in-place copy",
    "vhd-apply BASE d1 --dry-run",
    "vhd-apply BASE d1 --undo u",
    "vhd-apply --rollback BASE",
    "vhd-apply a.raw d1 --force -o BASE",
    "vhd resize BASE --size 32M",
    "vhd resize BASE --size 32M --dry-run",
    "vhd convert --force a.raw BASE",
    "vhd create --force BASE --size 4M",
    "vhd check --repair BASE",
    "vhd check --take-back d1 BASE",
    "vhd hash --stamp BASE",
    "vhd hash --windows BASE --force a.raw",
    "vhd-diff a.raw b.raw --force -o BASE",
    "vhd squash d1 d2 --force -o BASE",
    "vhd snapshot diff a b --store S --force -o BASE",
    "vhd snapshot restore a --store S --force -o BASE",
    "vhd snapshot restore b --store S --in-place -o BASE",
    "vhd create kid.vhd --parent BASE && vhd merge kid.vhd",
    "vhd create kid2.vhd --parent BASE && vhd merge --dry-run kid2.vhd",
    "vhd create kid3.vhd --size 4M && vhd create kid4.vhd --parent kid3.vhd && vhd merge --force kid4.vhd -o BASE",
];

/// The disk `w` with the snapshots a and b in the store S, links to it, and what commands need.
fn store(lab: &Lab) {
    let (a, size) = (disk(7, 8 << 20), 8 << 20);
    let b = changed(8, &a);
    assert_eq!(b.len(), size);
    lab.file("a.raw", &a);
    lab.file("b.raw", &b);
    lab.file("c.raw", &changed(9, &b));
    if !lab.path("S").exists() {
        lab.shell("vhd snapshot init -q --store-version 1 S")
            .code(0);
    }
    for name in ["a", "b"] {
        lab.shell(&format!(
            "vhd snapshot create --store S --disk w --name {name} {name}.raw"
        ))
        .code(0);
    }
    lab.shell(
        "vhd-diff a.raw b.raw -o d1 --force && vhd-diff b.raw c.raw -o d2 --force && mkdir -p x",
    )
    .code(0);
    let _ = fs::remove_file(lab.path("link.vhd"));
    let _ = fs::remove_file(lab.path("way"));
    symlink("S/w/000001-a.vhd", lab.path("link.vhd")).unwrap();
    symlink("S/w", lab.path("way")).unwrap();
}

/// The content of all files in a folder and below, but for locks that a command may make.
fn tree(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(tree(&path));
        } else {
            all.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

fn manifest(lab: &Lab, path: &str) -> serde_json::Value {
    let mut value: serde_json::Value = serde_json::from_slice(&lab.read(path)).unwrap();
    value.as_object_mut().unwrap().remove("checksum");
    value
}

/// A manifest with its checksum, whatever is in it.
fn sealed(manifest: &serde_json::Value) -> String {
    let text = serde_json::to_string_pretty(manifest).unwrap();
    let head = format!("{},\n", text.strip_suffix("\n}").unwrap());
    let checksum = blake3::hash(head.as_bytes()).to_hex();
    format!("{head}  \"checksum\": \"{checksum}\"\n}}\n")
}

/// Writes another parent's name into a differencing VHD, and into the paths of its locators, with right checksums.
fn set_parent_name(lab: &Lab, image: &str, name: &str) {
    let mut bytes = lab.read(image);
    let at = 512 + 64;
    bytes[at..at + 512].fill(0);
    for (n, unit) in name.encode_utf16().enumerate() {
        bytes[at + 2 * n..at + 2 * n + 2].copy_from_slice(&unit.to_be_bytes());
    }
    for n in 0..8 {
        let entry = 512 + 576 + n * 24;
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let offset = usize::try_from(number(entry + 16)).unwrap();
        if offset != 0 && bytes[entry] == b'W' {
            let text: Vec<u8> = name
                .encode_utf16()
                .flat_map(|unit| unit.swap_bytes().to_be_bytes())
                .collect();
            bytes[offset..offset + text.len()].copy_from_slice(&text);
            bytes[entry + 8..entry + 12]
                .copy_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        }
    }
    bytes[512 + 36..512 + 40].fill(0);
    let sum = bytes[512..1536]
        .iter()
        .fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    bytes[512 + 36..512 + 40].copy_from_slice(&(!sum).to_be_bytes());
    fs::write(lab.path(image), bytes).unwrap();
}

/// Fails if anything was printed that a terminal obeys, or that isn't seen.
#[track_caller]
fn clean(ended: Ended) -> Ended {
    for text in [&ended.out, &ended.err] {
        let raw = text
            .chars()
            .find(|c| *c != '\n' && vhdkit::text::is_unseen(*c));
        assert_eq!(raw, None, "{ended:?}");
        assert!(!text.contains('\u{fffd}'), "{ended:?}");
    }
    let forged = ended
        .err
        .lines()
        .any(|line| line.starts_with("vhd: note: all fine"));
    assert!(
        !forged && !ended.out.lines().any(|line| line.starts_with("vhd: note")),
        "{ended:?}"
    );
    ended
}
