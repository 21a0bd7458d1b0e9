//! Streams that somebody made up: whatever is in them, nothing outside of the store is written, and the snapshots that
//! are there already stay what they are.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use vhdkit::snapshot::{Record, StreamWriter};

use crate::hostile::lab::{Lab, Original, sealed, tree};

/// Into a new store and into one that is filled; then both are used.
const COMMANDS: &[&str] = &[
    "vhd snapshot receive --init --store N < stream",
    "vhd snapshot list --store N --json",
    "vhd snapshot verify --store N --read-data",
    "vhd snapshot create --init --store N --disk w --name d x.raw",
    "vhd snapshot restore d --store N --disk w -o out/d --force",
    "vhd snapshot show --store N --disk w --json",
    "vhd snapshot hash --store N --disk w",
    "vhd snapshot copy --init --store N --to out/T",
    "vhd snapshot send --store N --disk w | cat > out/s",
    "vhd snapshot prune --store N --disk w --keep-last 1 --dry-run",
    "vhd snapshot repair --store N --disk w",
    "vhd snapshot receive --init --store N < stream",
    "cat stream | vhd snapshot receive --init --store M --disk other",
    "vhd snapshot receive --init --store S < stream",
    "vhd snapshot verify --store S --read-data",
    "vhd snapshot restore a --store S -o out/a --force",
    "vhd snapshot restore c --store S -o out/c --force",
];

#[test]
fn nothing_that_arrives_leads_out_or_changes_what_is_there() {
    Original::each_version(arrives);
}

fn arrives(original: &Original) {
    let base = original.base();
    let file = crate::hostile::lab::base(&original.folder.path("S/w"));
    let ending = file.rsplit_once('.').unwrap().1;
    let manifest = |change: &dyn Fn(&mut Value)| {
        let bytes = fs::read(original.folder.path("S/w/000001-a.json")).unwrap();
        let mut manifest: Value = serde_json::from_slice(&bytes).unwrap();
        manifest.as_object_mut().unwrap().remove("checksum");
        change(&mut manifest);
        sealed(&manifest).into_bytes()
    };
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    for field in [
        "/name",
        "/sequence",
        "/id",
        "/parent",
        "/time",
        "/virtual_size",
        "/content_digest",
        "/source/format",
        "/source/footer",
        "/data/kind",
        "/data/file",
        "/data/length",
        "/state",
        "/completion_percent",
    ] {
        for value in [
            json!(null),
            json!(-1),
            json!(u32::MAX),
            json!("../../outside/secret"),
            json!("\u{1b}[31m\n"),
            json!(u64::MAX),
        ] {
            let bytes = manifest(&|manifest| *manifest.pointer_mut(field).unwrap() = value.clone());
            cases.push((
                format!("{field} = {value}"),
                stream(
                    "w",
                    &[
                        Record::Snapshot(&bytes),
                        Record::Data(0, &base),
                        Record::Done(base.len() as u64),
                        Record::End(1),
                    ],
                ),
            ));
        }
    }
    // The number and the name that go together.
    for (sequence, name) in [
        (u32::MAX, "m"),
        (u32::MAX - 1, "m"),
        (0, "z"),
        (1, "a"),
        (2, "b"),
        (1_000_000, "far"),
    ] {
        let bytes = manifest(&|manifest| {
            manifest["sequence"] = json!(sequence);
            manifest["name"] = json!(name);
            manifest["data"]["file"] = json!(format!("{sequence:06}-{name}.{ending}"));
        });
        cases.push((
            format!("{sequence}-{name}"),
            stream(
                "w",
                &[
                    Record::Snapshot(&bytes),
                    Record::Data(0, &base),
                    Record::Done(base.len() as u64),
                    Record::End(1),
                ],
            ),
        ));
    }
    let good = manifest(&|_| {});
    let len = base.len() as u64;
    for disk in [
        "",
        "..",
        "../w",
        "/w",
        "w\n",
        "\u{1b}[31m",
        ".hidden",
        "w/../../outside",
    ] {
        cases.push((
            format!("disk {disk:?}"),
            stream(
                disk,
                &[
                    Record::Snapshot(&good),
                    Record::Data(0, &base),
                    Record::Done(len),
                    Record::End(1),
                ],
            ),
        ));
    }
    let orders: [(&str, Vec<Record<'_>>); 12] = [
        ("nothing", vec![Record::End(0)]),
        ("an end without a snapshot", vec![Record::End(1)]),
        (
            "data before a snapshot",
            vec![Record::Data(0, &base), Record::End(0)],
        ),
        (
            "data far behind",
            vec![
                Record::Snapshot(&good),
                Record::Data(1 << 62, &base),
                Record::Done(len),
                Record::End(1),
            ],
        ),
        (
            "data at the end of 64 bits",
            vec![
                Record::Snapshot(&good),
                Record::Data(u64::MAX, b"x"),
                Record::Done(len),
                Record::End(1),
            ],
        ),
        (
            "data twice",
            vec![
                Record::Snapshot(&good),
                Record::Data(0, &base),
                Record::Data(0, &base),
                Record::Done(len),
                Record::End(1),
            ],
        ),
        (
            "done with another length",
            vec![
                Record::Snapshot(&good),
                Record::Data(0, &base),
                Record::Done(u64::MAX),
                Record::End(1),
            ],
        ),
        (
            "done twice",
            vec![
                Record::Snapshot(&good),
                Record::Data(0, &base),
                Record::Done(len),
                Record::Done(len),
                Record::End(1),
            ],
        ),
        (
            "a snapshot in a snapshot",
            vec![
                Record::Snapshot(&good),
                Record::Snapshot(&good),
                Record::Done(len),
                Record::End(2),
            ],
        ),
        (
            "the same twice",
            vec![
                Record::Snapshot(&good),
                Record::Data(0, &base),
                Record::Done(len),
                Record::Snapshot(&good),
                Record::Data(0, &base),
                Record::Done(len),
                Record::End(2),
            ],
        ),
        (
            "a wrong count",
            vec![
                Record::Snapshot(&good),
                Record::Data(0, &base),
                Record::Done(len),
                Record::End(9),
            ],
        ),
        (
            "no data",
            vec![Record::Snapshot(&good), Record::Done(len), Record::End(1)],
        ),
    ];
    cases.extend(
        orders
            .into_iter()
            .map(|(name, records)| (name.to_owned(), stream("w", &records))),
    );
    let whole = stream(
        "w",
        &[
            Record::Snapshot(&good),
            Record::Data(0, &base),
            Record::Done(len),
            Record::End(1),
        ],
    );
    for at in [0, 8, 20, 40, whole.len() / 2, whole.len() - 1] {
        cases.push((format!("cut at {at}"), whole[..at].to_vec()));
    }
    let base_of = |change: &dyn Fn(&mut Value), data: &[u8]| {
        let bytes = manifest(change);
        let done = Record::Done(data.len() as u64);
        stream(
            "w",
            &[
                Record::Snapshot(&bytes),
                Record::Data(0, data),
                done,
                Record::End(1),
            ],
        )
    };
    cases.extend(bent(&whole));
    cases.extend(said(&base_of, &base));
    cases.extend(carried(original, &base_of));
    Original::each(&cases, |(name, stream)| {
        let lab = Lab::of(original);
        fs::write(lab.path("stream"), stream).unwrap();
        let before = tree(&lab.path("S/w"));
        lab.survives(name, COMMANDS);
        let after = tree(&lab.path("S/w"));
        for (path, bytes) in before {
            let list = path.ends_with("newest.windows");
            assert!(
                list || after.get(&path) == Some(&bytes),
                "{name}: {} was changed",
                path.display()
            );
        }
    });
    original.tell(cases.len(), "streams", COMMANDS);
}

type Case = (String, Vec<u8>);

/// Makes a stream of a base from a change of its manifest, and its data.
type BaseOf<'a> = dyn Fn(&dyn Fn(&mut Value), &[u8]) -> Vec<u8> + 'a;

/// A good stream whose bytes are others: its header, the leads of its records, its end.
fn bent(whole: &[u8]) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| cases.push((name.to_owned(), bytes));
    let header = 20 + 1 + 4;
    let with_header = |at: usize, bytes: &[u8]| {
        let mut bent = whole.to_vec();
        bent[at..at + bytes.len()].copy_from_slice(bytes);
        let crc = crc32fast::hash(&bent[..header - 4]);
        bent[header - 4..header].copy_from_slice(&crc.to_be_bytes());
        bent
    };
    add("version 2", with_header(8, &[0, 0, 0, 2]));
    add(
        "a bit that must be understood",
        with_header(12, &[0x80, 0, 0, 0]),
    );
    add("a name of 4 GiB", with_header(16, &[0xff; 4]));
    add("a name of no bytes", with_header(16, &[0; 4]));
    add("a name that isn't UTF-8", with_header(20, &[0xff]));
    add("a name that is a dot", with_header(20, b"."));
    add("a name of NUL", with_header(20, &[0]));
    // The first record is the manifest: of this length.
    let count = u32::from_be_bytes(*whole[header + 4..].first_chunk().unwrap());
    let record = header + 16 + usize::try_from(count).unwrap() + 4;
    let with_lead = |at: usize, bytes: &[u8]| {
        let mut bent = whole.to_vec();
        bent[header + at..header + at + bytes.len()].copy_from_slice(bytes);
        let crc = crc32fast::hash(&bent[header..record - 4]);
        bent[record - 4..record].copy_from_slice(&crc.to_be_bytes());
        bent
    };
    for kind in [b"DATA", b"DONE", b"ENDS", b"XXXX", b"snap", b"\x1b[2J"] {
        let kind_name = String::from_utf8_lossy(kind).escape_debug().to_string();
        add(
            &format!("the first record is {kind_name}"),
            with_lead(0, kind),
        );
    }
    for count in [0, 1, count - 1, count + 1, 1 << 20, (1 << 20) + 1, u32::MAX] {
        add(
            &format!("a manifest of {count} bytes"),
            with_lead(4, &count.to_be_bytes()),
        );
    }
    for sequence in [0, 2, u64::MAX] {
        add(
            &format!("record number {sequence}"),
            with_lead(8, &sequence.to_be_bytes()),
        );
    }
    add("twice, one after the other", [whole, whole].concat());
    add("without its header", whole[header..].to_vec());
    add(
        "its first record twice",
        [&whole[..record], &whole[header..]].concat(),
    );
    add(
        "without its first record",
        [&whole[..header], &whole[record..]].concat(),
    );
    add("something after its end", [whole, b"\x1b[31mmore"].concat());
    add("zeros after its end", [whole, &vec![0; 1 << 20]].concat());
    for at in [
        0,
        5,
        19,
        header - 1,
        header + 20,
        record + 3,
        record + 500,
        whole.len() - 5,
    ] {
        let mut bent = whole.to_vec();
        bent[at] ^= 1;
        add(&format!("a bit of byte {at}"), bent);
    }
    for at in [
        header,
        header + 16,
        record,
        record + 16,
        whole.len() - 8,
        whole.len() - 60,
    ] {
        add(&format!("cut at a seam, {at}"), whole[..at].to_vec());
    }
    add("only zeros", vec![0; 1 << 20]);
    add("only its first eight bytes", whole[..8].to_vec());
    add("lines with other ends", {
        let text: Vec<u8> = whole
            .iter()
            .copied()
            .filter(|byte| *byte != b'\n')
            .collect();
        text
    });
    add("backwards", whole.iter().rev().copied().collect());
    cases
}

/// Manifests that are right by themselves and wrong for what comes with them.
fn said(base_of: &BaseOf<'_>, base: &[u8]) -> Vec<Case> {
    type Edit = fn(&mut Value);
    let edits: [(&str, Edit); 22] = [
        ("a time in the year 5000", |m| {
            m["time"] = json!("5000-01-01T00:00:00Z")
        }),
        ("a time in the year 9999", |m| {
            m["time"] = json!("9999-12-31T23:59:59Z")
        }),
        ("a time before the year 0", |m| {
            m["time"] = json!("-009999-01-01T00:00:00Z")
        }),
        ("a disk of a pebibyte", |m| {
            m["virtual_size"] = json!(1_u64 << 50)
        }),
        ("a disk of one page", |m| m["virtual_size"] = json!(512)),
        ("another digest", |m| {
            m["content_digest"] = json!("ab".repeat(32))
        }),
        ("an identity for a base", |m| {
            m["data"]["identity"] = json!("ab".repeat(32))
        }),
        ("the file of another snapshot", |m| {
            m["data"]["file"] = json!("000002-b.vhddiff")
        }),
        ("the list as its file", |m| {
            m["data"]["file"] = json!("newest.windows")
        }),
        ("deleting.json as its file", |m| {
            m["data"]["file"] = json!("deleting.json")
        }),
        ("a raw disk", |m| m["data"]["file"] = json!("000001-a.raw")),
        ("a diff", |m| {
            m["data"]["kind"] = json!("diff");
            m["data"]["file"] = json!("000001-a.vhddiff");
            m["data"]["identity"] = json!("ab".repeat(32));
            m["parent"] = json!("00000000-0000-4000-8000-000000000001");
        }),
        ("copying, 3 %", |m| {
            m["state"] = json!("copying");
            m["completion_percent"] = json!(3);
        }),
        ("complete, 255 %", |m| m["completion_percent"] = json!(255)),
        ("a footer of text", |m| {
            m["source"]["footer"] = json!("41".repeat(512))
        }),
        ("a name with NUL", |m| {
            m["source"]["name"] = json!("a\u{0}\u{1b}[2J\n")
        }),
        ("fields that no version has", |m| {
            m["run"] = json!({"a": ["../../outside"]})
        }),
        ("an array a hundred deep", |m| {
            m["deep"] = (0..100).fold(json!(1), |deep, _| json!([deep]))
        }),
        ("a megabyte of tags", |m| {
            m["tags"] = json!({"\u{202e}": "\u{9b}".repeat(300_000)})
        }),
        ("more than a megabyte of tags", |m| {
            m["tags"] = json!({"x": "y".repeat(1 << 20)})
        }),
        (
            "another family",
            |m| {
                m["family"] =
                    json!({"source_resource_id": "\u{1b}]0;x\u{7}\n", "source_unique_id": "\n"})
            },
        ),
        ("an empty id", |m| m["id"] = json!("")),
    ];
    let mut cases: Vec<Case> = Vec::new();
    for (name, edit) in edits {
        cases.push((name.to_owned(), base_of(&|m| edit(m), base)));
    }
    // Lengths with nothing to them.
    for length in [0, 1, base.len() as u64 - 1, 1 << 40, 1 << 62, u64::MAX] {
        let bytes = base_of(&|m| m["data"]["length"] = json!(length), b"x");
        cases.push((format!("a file of {length} bytes, in one"), bytes));
    }
    cases
}

/// Data that isn't what it should be, with manifests that say its length; and diffs that follow nothing.
fn carried(original: &Original, base_of: &BaseOf<'_>) -> Vec<Case> {
    let stored = |file: &str| fs::read(original.folder.path("S/w").join(file)).unwrap();
    let (base, diff) = (original.base(), stored("000002-b.vhddiff"));
    let mut datas: Vec<(&str, Vec<u8>)> = vec![
        ("a diff as the base", diff.clone()),
        ("text as the base", b"x\x1b[2J\n".repeat(1000)),
        ("zeros as the base", vec![0; base.len()]),
    ];
    let mut bend = |name: &'static str, at: usize, bytes: &[u8]| {
        let mut bent = base.clone();
        bent[at..at + bytes.len()].copy_from_slice(bytes);
        datas.push((name, bent));
    };
    bend("a table of 2^32 - 1 entries", 512 + 28, &[0xff; 4]);
    bend("blocks of 2 GiB", 512 + 32, &[0x80, 0, 0, 0]);
    bend("a table that is far away", 512 + 16, &[0x7f; 8]);
    bend(
        "a parent at /etc/passwd",
        512 + 64,
        b"\0/\0e\0t\0c\0/\0p\0a\0s\0s\0w\0d",
    );
    bend("another type of disk", 60, &[0, 0, 0, 4]);
    let mut cases: Vec<Case> = Vec::new();
    for (name, data) in datas {
        let length = data.len();
        let bytes = base_of(&|m| m["data"]["length"] = json!(length), &data);
        cases.push((name.to_owned(), bytes));
    }
    // A diff by itself, as it was sent, and with data of another.
    let [b, c] = [stored("000002-b.json"), stored("000003-c.json")];
    let other = stored("000003-c.vhddiff");
    let one = |manifest: &[u8], data: &[u8]| {
        let done = Record::Done(data.len() as u64);
        stream(
            "w",
            &[
                Record::Snapshot(manifest),
                Record::Data(0, data),
                done,
                Record::End(1),
            ],
        )
    };
    cases.push(("a diff without its base".to_owned(), one(&b, &diff)));
    cases.push((
        "a diff with the data of the next".to_owned(),
        one(&b, &other),
    ));
    cases.push(("the last diff alone".to_owned(), one(&c, &other)));
    let [done_b, done_c] = [&diff, &other].map(|data| Record::Done(data.len() as u64));
    let records = [
        Record::Snapshot(&c),
        Record::Data(0, &other),
        done_c,
        Record::Snapshot(&b),
        Record::Data(0, &diff),
        done_b,
        Record::End(2),
    ];
    cases.push(("diffs in the wrong order".to_owned(), stream("w", &records)));
    cases
}

fn stream(disk: &str, records: &[Record<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::new(&mut bytes, Path::new("stream"), disk).unwrap();
    for record in records {
        writer.push(record).unwrap();
    }
    writer.finish().unwrap();
    bytes
}
