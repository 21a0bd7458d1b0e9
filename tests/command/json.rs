//! The JSON of every command against its table in docs/json.md: no undocumented member, none missing, none of another
//! type, for commands that succeed and for commands that fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::json_tables::{check_document, tables};

/// Commands as they are typed, in this order in one folder, and how they end. The heading of the table is the command
/// without its arguments.
const COMMANDS: &[(&str, &str, i32)] = &[
    ("vhd create", "vhd create disk.vhd --size 4M --json", 0),
    (
        "vhd create",
        "vhd create child.vhd --parent disk.vhd --json",
        0,
    ),
    ("vhd create", "vhd create disk.vhd --size 4M --json", 2),
    (
        "vhd convert",
        "vhd convert disk.vhd disk.raw --verify --json",
        0,
    ),
    ("vhd convert", "vhd convert none.vhd x.raw --json", 2),
    ("vhd convert", "vhd convert disk.vhd - --json", 2),
    (
        "vhd info",
        "vhd info disk.vhd child.vhd later.raw --json",
        0,
    ),
    ("vhd info", "vhd info none.vhd disk.vhd --json", 2),
    ("vhd check", "vhd check disk.vhd child.vhd --json", 0),
    ("vhd check", "vhd check disk.vhd damaged.vhd --json", 1),
    ("vhd check", "vhd check damaged.vhd --repair --json", 0),
    ("vhd check", "vhd check none.vhd --json", 2),
    ("vhd map", "vhd map child.vhd --json", 0),
    ("vhd map", "vhd map none.vhd --json", 2),
    ("vhd files ls", "vhd files ls later.raw --json", 0),
    ("vhd files ls", "vhd files ls later.raw/etc --json", 3),
    ("vhd files ls", "vhd files ls none.vhd --json", 2),
    ("vhd files find", "vhd files find later.raw --json", 3),
    (
        "vhd files get",
        "vhd files get later.raw/etc/fstab -o fstab --json",
        3,
    ),
    (
        "vhd files get",
        "vhd files get later.raw/etc/fstab --json",
        2,
    ),
    (
        "vhd diff --files",
        "vhd-diff disk.vhd later.raw --files --json",
        1,
    ),
    ("vhd hash", "vhd hash disk.vhd later.raw --json", 0),
    ("vhd hash", "vhd hash disk.vhd none.vhd --json", 2),
    ("vhd diff", "vhd diff disk.vhd later.raw --json", 1),
    ("vhd diff", "vhd-diff disk.vhd disk.raw --format json", 0),
    (
        "vhd diff",
        "vhd-diff disk.vhd later.raw -o d1 --reversible --json",
        0,
    ),
    ("vhd diff", "vhd-diff disk.vhd later.raw -o - --json", 2),
    (
        "vhd diff",
        "vhd-diff later.raw latest.raw -o d2 --reversible --json",
        0,
    ),
    ("vhd show", "vhd show d1 --json", 0),
    ("vhd show", "vhd show cut --json", 3),
    ("vhd show", "vhd show none --json", 2),
    ("vhd squash", "vhd squash d1 d2 -o d --json", 0),
    ("vhd squash", "vhd squash d2 d1 -o x --json", 4),
    ("vhd apply", "vhd apply disk.vhd d1 -o new.raw --json", 0),
    ("vhd apply", "vhd-apply new.raw d2 --json", 0),
    ("vhd apply", "vhd-apply new.raw d2 --json", 0),
    ("vhd apply", "vhd-apply disk.raw d2 --json", 4),
    ("vhd resize", "vhd resize new.raw --size 8M --json", 0),
    ("vhd resize", "vhd resize none.raw --size 8M --json", 2),
    ("vhd tree", "vhd tree . --json", 0),
    ("vhd tree", "vhd tree none --json", 2),
    (
        "vhd rebase",
        "vhd rebase child.vhd --parent disk.vhd --json",
        0,
    ),
    (
        "vhd rebase",
        "vhd rebase none.vhd --parent disk.vhd --json",
        2,
    ),
    ("vhd merge", "vhd merge child.vhd -o merged.vhd --json", 0),
    ("vhd merge", "vhd merge child.vhd --json", 0),
    ("vhd merge", "vhd merge none.vhd --json", 2),
    ("vhd serve", "vhd serve missing.vhd --json", 2),
    (
        "vhd serve azure",
        "vhd serve azure --store disk.vhd --json",
        2,
    ),
    ("vhd mount", "vhd mount missing.vhd . --json", 2),
    ("vhd unmount", "vhd unmount . --json", 2),
    ("vhd demo", "vhd demo --json", 0),
    ("vhd demo", "vhd demo --keep . --json", 2),
    ("vhd completions", "vhd completions bash --json", 0),
    ("vhd completions", "vhd completions none --json", 2),
    ("vhd man", "vhd man --json", 0),
    ("vhd man", "vhd man --dir pages --json", 0),
    ("vhd man", "vhd man --dir disk.vhd/x --json", 2),
    (
        "vhd snapshot create",
        "vhd snapshot create --init --store s --disk web --name mon disk.vhd --json",
        0,
    ),
    (
        "vhd snapshot create",
        "vhd snapshot create --init --store s --disk web --name tue later.raw --json",
        0,
    ),
    (
        "vhd snapshot create",
        "vhd snapshot create --init --store s --disk web --name tue later.raw --json",
        2,
    ),
    ("vhd snapshot list", "vhd snapshot list --store s --json", 0),
    (
        "vhd snapshot list",
        "vhd snapshot list --store none --json",
        2,
    ),
    (
        "vhd snapshot show",
        "vhd snapshot show --store s tue --json",
        0,
    ),
    (
        "vhd snapshot show",
        "vhd snapshot show --store s none --json",
        2,
    ),
    (
        "vhd snapshot diff",
        "vhd snapshot diff --store s mon tue --json",
        1,
    ),
    (
        "vhd snapshot diff",
        "vhd snapshot diff --store s mon tue -o d3 --json",
        0,
    ),
    (
        "vhd snapshot diff",
        "vhd snapshot diff --store s mon none --json",
        2,
    ),
    (
        "vhd snapshot restore",
        "vhd snapshot restore --store s mon -o back.raw --json",
        0,
    ),
    (
        "vhd snapshot restore",
        "vhd snapshot restore --store s tue -o back.raw --in-place --json",
        0,
    ),
    (
        "vhd snapshot restore",
        "vhd snapshot restore --store s tue -o back.raw --json",
        2,
    ),
    (
        "vhd snapshot hash",
        "vhd snapshot hash --store s --all --json",
        0,
    ),
    (
        "vhd snapshot hash",
        "vhd snapshot hash --store s none --json",
        2,
    ),
    (
        "vhd snapshot copy",
        "vhd snapshot copy --init --store s --to s2 --json",
        0,
    ),
    (
        "vhd snapshot copy",
        "vhd snapshot copy --init --store s --disk none --to s2 --json",
        2,
    ),
    (
        "vhd snapshot send",
        "vhd snapshot send --store s -o stream --json",
        0,
    ),
    ("vhd snapshot send", "vhd snapshot send --store s --json", 2),
    (
        "vhd snapshot receive",
        "vhd snapshot receive --init --store s3 --json < stream",
        0,
    ),
    (
        "vhd snapshot receive",
        "vhd snapshot receive --store s --disk web --status --json",
        0,
    ),
    (
        "vhd snapshot receive",
        "vhd snapshot receive --init --store s4 --json < d1",
        2,
    ),
    (
        "vhd snapshot verify",
        "vhd snapshot verify --store s --read-data --json",
        0,
    ),
    (
        "vhd snapshot verify",
        "vhd snapshot verify --store none --json",
        2,
    ),
    (
        "vhd snapshot repair",
        "vhd snapshot repair --store s --json",
        0,
    ),
    (
        "vhd snapshot repair",
        "vhd snapshot repair --store none --json",
        2,
    ),
    (
        "vhd snapshot prune",
        "vhd snapshot prune --store s --keep-last 1 --dry-run --json",
        0,
    ),
    (
        "vhd snapshot prune",
        "vhd snapshot prune --store none --keep-last 1 --json",
        2,
    ),
    (
        "vhd snapshot verify",
        "vhd snapshot verify --store s --max-age 1h --json",
        0,
    ),
    ("vhd snapshot map", "vhd snapshot map --store s --json", 0),
    (
        "vhd snapshot map",
        "vhd snapshot map --store none --json",
        2,
    ),
    (
        "vhd snapshot stats",
        "vhd snapshot stats --store s --json",
        0,
    ),
    (
        "vhd snapshot stats",
        "vhd snapshot stats --store none --json",
        2,
    ),
    (
        "vhd snapshot tag",
        "vhd snapshot tag --store s mon --set why=test --json",
        0,
    ),
    (
        "vhd snapshot tag",
        "vhd snapshot tag --store s none --set why=test --json",
        2,
    ),
    (
        "vhd snapshot hold",
        "vhd snapshot hold --store s mon --reason test --json",
        0,
    ),
    (
        "vhd snapshot hold",
        "vhd snapshot hold --store s none --json",
        2,
    ),
    (
        "vhd snapshot rename",
        "vhd snapshot rename --store s mon monday --json",
        0,
    ),
    (
        "vhd snapshot rename",
        "vhd snapshot rename --store s monday mon --json",
        0,
    ),
    (
        "vhd snapshot rename",
        "vhd snapshot rename --store s none mon --json",
        2,
    ),
    (
        "vhd snapshot delete",
        "vhd snapshot delete --store s mon --json",
        2,
    ),
    (
        "vhd snapshot hold",
        "vhd snapshot hold --store s mon --release --json",
        0,
    ),
    (
        "vhd snapshot create --also",
        "vhd snapshot create --init --store s5 --disk a later.raw --also b=latest.raw --also c=none.raw --json",
        2,
    ),
    (
        "vhd snapshot create --also",
        "vhd snapshot create --init --store s5 --disk a later.raw --also b=none.raw --name x --json",
        2,
    ),
    (
        "vhd snapshot rebase",
        "vhd snapshot rebase --store s5 --disk b --like a --json",
        0,
    ),
    (
        "vhd snapshot rebase",
        "vhd snapshot rebase --store s5 --disk b --like none --json",
        2,
    ),
    (
        "vhd snapshot list",
        "vhd snapshot list --store s5 --json",
        0,
    ),
    (
        "vhd snapshot show",
        "vhd snapshot show --store s5 --disk b --json",
        0,
    ),
    (
        "vhd snapshot stats",
        "vhd snapshot stats --store s5 --json",
        0,
    ),
    (
        "vhd snapshot create",
        "vhd snapshot create --store s5 --disk d --name x --like b latest.raw --json",
        0,
    ),
    (
        "vhd snapshot rebase",
        "vhd snapshot rebase --store s5 --disk b --full --json",
        0,
    ),
    (
        "vhd snapshot family",
        "vhd snapshot family list.json --json",
        0,
    ),
    ("vhd snapshot family", "vhd snapshot family d1 --json", 3),
    (
        "vhd snapshot delete",
        "vhd snapshot delete --store s mon --json",
        0,
    ),
    (
        "vhd snapshot delete",
        "vhd snapshot delete --store s tue --json",
        2,
    ),
    (
        "vhd snapshot upgrade",
        "vhd snapshot upgrade --store s --json",
        0,
    ),
    (
        "vhd snapshot upgrade",
        "vhd snapshot upgrade --store none --json",
        2,
    ),
    ("vhd snapshot init", "vhd snapshot init fresh --json", 0),
    ("vhd snapshot init", "vhd snapshot init fresh --json", 2),
    (
        "vhd snapshot init",
        "vhd snapshot init secret --encrypt --key-file key --json",
        0,
    ),
    (
        "vhd snapshot init",
        "vhd snapshot init locked --encrypt --passphrase-file old --recovery-key recovery --json",
        0,
    ),
    (
        "vhd snapshot passphrase",
        "vhd snapshot passphrase locked --passphrase-file old --new-passphrase-file new --json",
        0,
    ),
    (
        "vhd snapshot passphrase",
        "vhd snapshot passphrase locked --passphrase-file old --new-passphrase-file new --json",
        2,
    ),
];

fn prepare(folder: &Path) {
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    let key = vhdkit::age::Identity::random().unwrap().secret_text();
    write("key", key.as_bytes());
    write("old", b"correct horse battery staple");
    write("new", b"another horse battery staple");
    let mut disk = vec![0; 4 << 20];
    disk[4096..4101].copy_from_slice(b"later");
    write("later.raw", &disk);
    disk[8192] = 1;
    write("latest.raw", &disk);
    write(
        "list.json",
        br#"[{"name":"a","id":"/subscriptions/1/a","timeCreated":"2026-11-16T06:00:00Z","incremental":true,
            "incrementalSnapshotFamilyId":"f","completionPercent":100,"diskSizeGb":1,"uniqueId":"u",
            "creationData":{"sourceResourceId":"/disks/web","sourceUniqueId":"w"}}]"#,
    );
}

/// What is made of what the commands before have made.
fn prepare_later(folder: &Path, command: &str) {
    if command.contains("damaged.vhd --json") {
        let mut disk = fs::read(folder.join("disk.vhd")).unwrap();
        let len = disk.len();
        disk[len - 512..].fill(0);
        fs::write(folder.join("damaged.vhd"), disk).unwrap();
    }
    if command.contains("show cut") {
        let diff = fs::read(folder.join("d1")).unwrap();
        fs::write(folder.join("cut"), &diff[..200]).unwrap();
    }
    if command.contains("tree . ") {
        // Damaged on purpose, but repaired; kept apart all the same.
        let _ = fs::remove_file(folder.join("damaged.vhd"));
    }
}

fn run(folder: &Path, command: &str) -> std::process::Output {
    prepare_later(folder, command);
    let (command, input) = command.split_once(" < ").unwrap_or((command, ""));
    let mut words = command.split(' ');
    let program = match words.next().unwrap() {
        "vhd-diff" => env!("CARGO_BIN_EXE_vhd-diff"),
        "vhd-apply" => env!("CARGO_BIN_EXE_vhd-apply"),
        _ => env!("CARGO_BIN_EXE_vhd"),
    };
    let mut run = Command::new(program);
    run.args(words)
        .current_dir(folder)
        .env_remove("VHDKIT_STORE");
    run.stdin(match input {
        "" => Stdio::null(),
        name => fs::File::open(folder.join(name)).unwrap().into(),
    });
    run.output().unwrap()
}

#[test]
fn the_tables_describe_what_every_command_prints() {
    let tables = tables();
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let mut wrong = Vec::new();
    for (heading, command, code) in COMMANDS {
        let out = run(folder.path(), command);
        let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
        if out.status.code() != Some(*code) {
            wrong.push(format!("{command}: ended with {}: {stderr}", out.status));
        }
        let documents = serde_json::Deserializer::from_slice(&out.stdout).into_iter::<Value>();
        let documents: Vec<Value> = documents.map(|d| d.expect(command)).collect();
        let images = ["vhd info", "vhd check", "vhd hash"].contains(heading);
        let expected = if images {
            command
                .split(' ')
                .filter(|word| word.contains(".vhd") || word.contains(".raw"))
                .count()
        } else {
            1
        };
        if documents.len() != expected {
            wrong.push(format!("{command}: {} documents", documents.len()));
        }
        let worst = documents
            .iter()
            .filter_map(|document| document["exit_code"].as_i64())
            .max();
        if worst != Some(i64::from(*code)) {
            wrong.push(format!("{command}: exit_code {worst:?}"));
        }
        for document in &documents {
            let found = check_document(&tables, heading, document);
            wrong.extend(
                found
                    .into_iter()
                    .map(|found| format!("{heading}: {command}: {found}")),
            );
            if let Some(error) = document.get("error") {
                assert_eq!(error["code"], document["exit_code"], "{command}");
                assert!(!stderr.is_empty(), "{command}");
            }
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_name_has_one_type_in_all_documents() {
    let mut kinds: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for (heading, table) in tables() {
        for (member, row) in table {
            let leaf = member.rsplit(['.', ']']).next().unwrap().to_owned();
            let mut types: Vec<String> = row.types.into_iter().filter(|t| t != "null").collect();
            types.sort();
            let of_name = kinds.entry(leaf).or_default();
            let places = of_name.entry(types.join(" or ")).or_default();
            places.push(format!("{heading}: {member}"));
        }
    }
    kinds.retain(|_, of_name| of_name.len() > 1);
    assert!(kinds.is_empty(), "{kinds:#?}");
}

#[test]
fn what_the_parser_refuses_is_a_document_too() {
    let folder = tempfile::tempdir().unwrap();
    let commands: BTreeSet<&str> = COMMANDS
        .iter()
        .map(|(heading, ..)| heading.trim_end_matches(" --also"))
        .collect();
    for command in commands {
        let out = run(folder.path(), &format!("{command} --json --no-such-option"));
        assert_eq!(out.status.code(), Some(2), "{command}");
        let document: Value = serde_json::from_slice(&out.stdout).expect(command);
        assert_eq!(document["error"]["kind"], "usage", "{command}");
        let name = command.trim_end_matches(" --files");
        assert_eq!(document["command"], name, "{command}");
        let message = document["error"]["message"].as_str().unwrap();
        assert!(message.contains("--no-such-option"), "{command}: {message}");
    }
}

#[test]
fn every_command_has_a_table_and_every_table_a_command() {
    let commands: BTreeSet<String> = COMMANDS
        .iter()
        .map(|(heading, ..)| (*heading).to_owned())
        .collect();
    let mut tables: BTreeSet<String> = tables().into_keys().collect();
    assert!(tables.remove("Every document"));
    // Those of stores elsewhere are held by the tests beside their servers.
    tables.retain(|heading| {
        !heading.contains(" of a ")
            && !["vhd azure check", "vhd backup"].contains(&heading.as_str())
    });
    assert_eq!(tables, commands);
}
