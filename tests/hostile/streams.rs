//! Streams that somebody made up: whatever is in them, nothing outside of the store is written, and the snapshots that
//! are there already stay what they are.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use vhdkit::snapshot::{Record, StreamWriter};

use crate::lab::{Lab, Original, sealed, tree};

/// Into a new store and into one that is filled; then both are used.
const COMMANDS: &[&str] = &[
    "vhd snapshot receive --store N < stream",
    "vhd snapshot list --store N --json",
    "vhd snapshot verify --store N --read-data",
    "vhd snapshot create --store N --disk w --name d x.raw",
    "vhd snapshot restore d --store N --disk w -o out/d --force",
    "vhd snapshot receive --store S < stream",
    "vhd snapshot verify --store S --read-data",
    "vhd snapshot restore a --store S -o out/a --force",
    "vhd snapshot restore c --store S -o out/c --force",
];

#[test]
fn nothing_that_arrives_leads_out_or_changes_what_is_there() {
    let original = Original::new();
    let base = fs::read(original.folder.path("S/w/000001-a.vhd")).unwrap();
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
            manifest["data"]["file"] = json!(format!("{sequence:06}-{name}.vhd"));
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
    for (name, stream) in &cases {
        let lab = Lab::of(&original);
        fs::write(lab.path("stream"), stream).unwrap();
        let before = tree(&lab.path("S/w"));
        lab.survives(name, COMMANDS);
        let after = tree(&lab.path("S/w"));
        for (path, bytes) in before {
            let list = path.ends_with("newest.windows");
            assert!(
                list || after.get(&path) == Some(&bytes),
                "{name}: {path:?} was changed"
            );
        }
    }
    println!(
        "{} streams, {} commands on each",
        cases.len(),
        COMMANDS.len()
    );
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
