//! Stores that somebody tampered with: whatever is in them, nothing outside of them is written, no restore that ends with
//! exit code 0 is wrong, and nothing hangs, panics, takes memory on the word of a file, or prints what a terminal obeys.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::hostile::lab::{Lab, Original, base, sealed};

pub(crate) const COMMANDS: &[&str] = &[
    "vhd snapshot list --store S --json",
    "vhd snapshot show b --store S",
    "vhd snapshot verify --store S --read-data",
    "vhd snapshot hash b --store S",
    "vhd snapshot restore a --store S -o out/a --force",
    "vhd snapshot restore b --store S -o out/b --force",
    "vhd snapshot restore c --store S -o out/c --force",
    "vhd snapshot diff a c --store S -o out/d --force",
    "vhd snapshot copy --init --store S --to out/T",
    "vhd snapshot send --store S | cat > out/s",
    "vhd snapshot prune --store S --keep-last 2 --dry-run",
    "vhd snapshot repair --store S --dry-run",
    "vhd snapshot create --init --store S --disk w --name z x.raw",
    "vhd snapshot delete b --store S",
    "vhd snapshot repair --store S --drop",
    "vhd snapshot restore c --store S -o out/c --force",
    "vhd snapshot list --store S",
];

/// Values that a field of a manifest shouldn't have.
fn values() -> Vec<Value> {
    vec![
        Value::Null,
        json!(-1),
        json!(0),
        json!(u64::MAX),
        json!(4_294_967_295_u32),
        json!(1e300),
        json!(""),
        json!("../../outside"),
        json!("/etc/passwd"),
        json!("000001-a.vhd"),
        json!("x\u{1b}]0;pwned\u{7}\r\nvhd: note: fine\u{202e}\u{9b}"),
        json!("9999-12-31T23:59:59Z"),
        json!([]),
        json!({"a": {"b": []}}),
        json!("x".repeat(100_000)),
    ]
}

const FIELDS: &[&str] = &[
    "/schema_version",
    "/name",
    "/sequence",
    "/id",
    "/parent",
    "/time",
    "/virtual_size",
    "/content_digest",
    "/source/name",
    "/source/format",
    "/source/footer",
    "/data/kind",
    "/data/file",
    "/data/length",
    "/data/identity",
    "/used_size",
    "/tags",
    "/state",
    "/completion_percent",
];

#[test]
fn manifests_with_right_checksums_and_wrong_fields() {
    let mut cases: Vec<(&str, &str, Option<Value>)> = Vec::new();
    // Every value in some field, and every field with several values, and missing.
    for (n, field) in FIELDS.iter().enumerate() {
        for value in values().into_iter().skip(n % 3).step_by(3) {
            let file = ["000001-a.json", "000002-b.json", "000003-c.json"][cases.len() % 3];
            cases.push((file, field, Some(value)));
        }
        cases.push(("000002-b.json", field, None));
    }
    Original::each_version(|original| wrong_fields(original, &cases));
}

fn wrong_fields(original: &Original, cases: &[(&str, &str, Option<Value>)]) {
    Original::each(cases, |(file, field, value)| {
        let lab = Lab::of(original);
        lab.edit(file, |manifest| {
            let (parent, name) = field.rsplit_once('/').unwrap();
            let parent = manifest.pointer_mut(parent).unwrap();
            let parent = parent.as_object_mut().unwrap();
            assert!(parent.remove(name).is_some());
            if let Some(value) = value {
                parent.insert(name.to_owned(), value.clone());
            }
        });
        let value = value.as_ref().map(ToString::to_string);
        let value = value.as_deref().unwrap_or("missing");
        lab.survives(&format!("{file} {field} = {value:.60}"), COMMANDS);
    });
    original.tell(cases.len(), "manifests with right checksums", COMMANDS);
}

/// What is done to a store, in words, and doing it to the folder of its disk.
pub(crate) type Tampering = (&'static str, fn(&Path));

const FILES: &[Tampering] = &[
    ("deleting.json of 3 GiB", |w| {
        sparse(&w.join("deleting.json"), 3 << 30)
    }),
    ("deleting.json leads to /dev/zero", |w| {
        symlink("/dev/zero", w.join("deleting.json")).unwrap()
    }),
    ("deleting.json is a pipe", |w| {
        pipe(&w.join("deleting.json"))
    }),
    ("deleting.json is a folder", |w| {
        fs::create_dir(w.join("deleting.json")).unwrap()
    }),
    ("deleting.json is empty", |w| {
        fs::write(w.join("deleting.json"), "").unwrap()
    }),
    ("deleting.json leads nowhere", |w| {
        symlink("nothing", w.join("deleting.json")).unwrap()
    }),
    ("a manifest of 3 GiB", |w| {
        sparse(&w.join("000002-b.json"), 3 << 30)
    }),
    ("a manifest leads to /dev/zero", |w| {
        replace(w, "000002-b.json", |p| symlink("/dev/zero", p).unwrap())
    }),
    ("a manifest is a pipe", |w| {
        replace(w, "000002-b.json", pipe)
    }),
    ("a manifest is a folder", |w| {
        replace(w, "000002-b.json", |p| fs::create_dir(p).unwrap())
    }),
    ("a manifest leads out of the store", |w| {
        replace(w, "000002-b.json", |p| {
            symlink("../../outside/secret", p).unwrap()
        })
    }),
    ("a diff is a pipe", |w| replace(w, "000002-b.vhddiff", pipe)),
    ("a diff is a folder", |w| {
        replace(w, "000002-b.vhddiff", |p| fs::create_dir(p).unwrap())
    }),
    ("a diff leads to /dev/zero", |w| {
        replace(w, "000002-b.vhddiff", |p| symlink("/dev/zero", p).unwrap())
    }),
    ("a diff leads out of the store", |w| {
        replace(w, "000002-b.vhddiff", |p| {
            symlink("../../outside/secret", p).unwrap()
        })
    }),
    ("a diff leads to itself", |w| {
        replace(w, "000002-b.vhddiff", |p| {
            symlink("000002-b.vhddiff", p).unwrap()
        })
    }),
    ("the base is a pipe", |w| replace(w, base(w), pipe)),
    ("the base leads out of the store", |w| {
        replace(w, base(w), |p| symlink("../../outside/secret", p).unwrap())
    }),
    ("the base is a hard link to a file outside", |w| {
        replace(w, base(w), |p| {
            fs::hard_link(w.join("../../outside/secret"), p).unwrap()
        })
    }),
    ("the base is cut off", |w| cut(&w.join(base(w)))),
    ("the base is longer", |w| sparse(&w.join(base(w)), 1 << 40)),
    ("a diff is cut off", |w| cut(&w.join("000003-c.vhddiff"))),
    ("a diff is longer", |w| {
        sparse(&w.join("000003-c.vhddiff"), 1 << 40)
    }),
    ("two diffs are swapped", |w| {
        swap(w, "000002-b.vhddiff", "000003-c.vhddiff")
    }),
    ("two manifests are swapped", |w| {
        swap(w, "000002-b.json", "000003-c.json")
    }),
    ("a manifest twice, under another number", |w| {
        copy(w, "000002-b.json", "000004-b.json")
    }),
    ("a manifest twice, under another name", |w| {
        copy(w, "000002-b.json", "000002-x.json")
    }),
    ("newest.windows of 3 GiB", |w| {
        sparse(&w.join("newest.windows"), 3 << 30)
    }),
    ("newest.windows is a pipe", |w| {
        replace(w, "newest.windows", pipe)
    }),
    ("newest.windows leads out of the store", |w| {
        replace(w, "newest.windows", |p| {
            symlink("../../outside/secret", p).unwrap()
        })
    }),
    ("newest.windows with one byte wrong", |w| {
        flip(&w.join("newest.windows"), 80)
    }),
    ("the lock is a pipe", |w| replace(w, "lock", pipe)),
    ("the lock leads out of the store", |w| {
        replace(w, "lock", |p| symlink("../../outside/secret", p).unwrap())
    }),
    ("the lock is a folder", |w| {
        replace(w, "lock", |p| fs::create_dir(p).unwrap())
    }),
    ("copy.lock is a pipe", |w| replace(w, "copy.lock", pipe)),
    ("a planted diff that isn't named yet", |w| {
        copy(w, "000003-c.vhddiff", "000002-b.vhddiff.new")
    }),
    ("a planted manifest of a copy", |w| {
        copy(w, "000002-b.json", "000009-q.json.part")
    }),
    ("a planted copy that is a pipe", |w| {
        pipe(&w.join("000009-q.json.part"))
    }),
    ("a planted copy that leads out", |w| {
        symlink("../../outside/secret", w.join("000004-z.vhddiff.part")).unwrap()
    }),
    ("a planted new file that leads out", |w| {
        symlink("../../outside/secret", w.join("000004-z.vhddiff.new")).unwrap()
    }),
    ("a planted temporary file that leads out", |w| {
        symlink("../../outside/secret", w.join(".vhdkit-x.tmp")).unwrap()
    }),
    ("a planted temporary folder", |w| {
        fs::create_dir(w.join(".vhdkit-x.tmp")).unwrap()
    }),
    ("a planted journal of the base", |w| {
        copy(w, "000002-b.vhddiff", &format!("{}.undo-journal", base(w)))
    }),
    ("a journal of the base that is a pipe", |w| {
        pipe(&w.join(format!("{}.undo-journal", base(w))))
    }),
    ("a number of 4294967295", |w| {
        copy(w, "000003-c.json", "4294967295-c.json")
    }),
    ("a number of zero", |w| {
        copy(w, "000003-c.json", "000000-c.json")
    }),
    ("names that control a terminal", |w| {
        fs::write(w.join("\u{1b}[31m\n.json"), "x").unwrap()
    }),
    ("the base is gone", |w| {
        fs::remove_file(w.join(base(w))).unwrap()
    }),
    ("a manifest is gone", |w| {
        fs::remove_file(w.join("000002-b.json")).unwrap()
    }),
    ("all manifests are gone", |w| {
        for name in ["000001-a.json", "000002-b.json", "000003-c.json"] {
            fs::remove_file(w.join(name)).unwrap();
        }
    }),
    ("one byte of the base", |w| flip(&w.join(base(w)), 1000)),
    ("one byte of a diff", |w| {
        flip(&w.join("000002-b.vhddiff"), 300)
    }),
    ("one byte of a manifest", |w| {
        flip(&w.join("000002-b.json"), 40)
    }),
    ("a manifest that isn't UTF-8", |w| {
        fs::write(w.join("000002-b.json"), b"\xff\xfe\x1b[31m").unwrap()
    }),
    ("a manifest nested a million deep", |w| {
        fs::write(w.join("000002-b.json"), "[".repeat(1 << 20)).unwrap()
    }),
];

#[test]
fn files_that_are_not_what_they_should_be() {
    let all: Vec<&Tampering> = FILES
        .iter()
        .chain(crate::hostile::tampered::FILES)
        .collect();
    Original::each_version(|original| {
        Original::each(&all, |(name, tamper)| {
            let lab = Lab::of(original);
            tamper(&lab.path("S/w"));
            lab.survives(name, COMMANDS);
        });
        original.tell(all.len(), "stores", COMMANDS);
    });
}

pub(crate) fn sparse(path: &Path, len: u64) {
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path);
    file.unwrap().set_len(len).unwrap();
}

pub(crate) fn copy(folder: &Path, from: &str, to: &str) {
    fs::copy(folder.join(from), folder.join(to)).unwrap();
}

fn cut(path: &Path) {
    let len = fs::metadata(path).unwrap().len();
    sparse(path, len / 2);
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

pub(crate) fn pipe(path: &Path) {
    let made = crate::disk::program("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

pub(crate) fn replace(folder: &Path, name: &str, by: impl FnOnce(&Path)) {
    let path = folder.join(name);
    let _ = fs::remove_file(&path);
    by(&path);
}

fn swap(folder: &Path, a: &str, b: &str) {
    let (a, b) = (folder.join(a), folder.join(b));
    let (in_a, in_b) = (fs::read(&a).unwrap(), fs::read(&b).unwrap());
    fs::write(a, in_b).unwrap();
    fs::write(b, in_a).unwrap();
}

#[test]
fn a_seal_is_that_of_the_format() {
    let original = Original::new(2);
    let lab = Lab::of(&original);
    let path = lab.path("S/w/000002-b.json");
    let before = fs::read_to_string(&path).unwrap();
    let mut manifest: Value = serde_json::from_str(&before).unwrap();
    manifest.as_object_mut().unwrap().remove("checksum");
    fs::write(&path, sealed(&manifest)).unwrap();
    lab.runs("vhd snapshot restore b --store S -o out/b", 0);
}
