//! Nothing that a file says reaches a terminal or a log as it is: every command, over files whose every name and text is
//! hostile, prints nothing that a terminal obeys or that isn't seen, and forges no line; JSON says the same, escaped.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use vhdkit::snapshot::{Record, StreamWriter};

use crate::disk::{TestFolder, changed, disk, program};
use crate::hostile::lab::sealed;
use crate::vhd_builder::{self, Family, Locator, SECTOR, Shape, TINY};

/// Colours, titles, ends of lines, directions, and lines that commands print themselves.
const HOSTILE: &str = "x\u{1b}]0;pwned\u{7}\u{1b}[2K\r\nvhd: note: all fine\u{85}\u{2028}\u{2029}vhd: note: all fine\n0000  other\u{202e}\u{2066}\u{9b}31m\u{7f}\u{200b}";

/// How lines would begin that were forged.
const FORGED: [&str; 3] = ["vhd: note: all fine", "0000  other", "pwned"];

/// Whether a terminal obeys a character, or shows it in another place or not at all. Not the library's own answer.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}'..='\u{200f}' | '\u{feff}')
}

struct Lab(TestFolder);

impl Lab {
    fn new() -> Self {
        let lab = Self(TestFolder::in_memory());
        // It has no slash, and fits.
        let name = HOSTILE;
        // Files are called so, a folder of them, and the sides of diffs.
        fs::create_dir(lab.path("D")).unwrap();
        let (a, b) = (disk(1, 1 << 20), changed(2, &disk(1, 1 << 20)));
        fs::write(lab.path("D").join(name), &a).unwrap();
        let second = format!("{}2", name.replace('x', "y"));
        fs::write(lab.path("D").join(&second), &b).unwrap();
        fs::write(
            lab.path("D")
                .join(std::ffi::OsStr::from_bytes(b"\xff\x9b.raw")),
            &a,
        )
        .unwrap();
        lab.0.file("a.raw", &a);
        lab.0.file("b.raw", &b);
        lab.good("vhd-diff -q D/x* D/y* -o d && vhd-diff -q D/y* D/x* -o e");
        lab.good("cp d D/\"$(ls D | head -1)\".vhddiff; true");
        lab.good("vhd snapshot init -q --store-version 1 S; for n in a b; do vhd snapshot create -q --store S --disk w --name $n $n.raw || exit 1; done");
        lab.manifests();
        lab.images();
        lab.stream();
        lab.0.file("list.json", list().as_bytes());
        lab
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path(name)
    }

    fn shell(&self, line: &str) -> Output {
        let ours = Path::new(env!("CARGO_BIN_EXE_vhd")).parent().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = program("bash");
        command.args(["-c", line]).current_dir(self.path("."));
        command.env("PATH", format!("{}:{path}", ours.display()));
        command.env_remove("VHDKIT_STORE").output().unwrap()
    }

    #[track_caller]
    fn good(&self, line: &str) {
        let ended = self.shell(line);
        assert!(ended.status.success(), "{line}: {ended:?}");
    }

    /// All texts of the manifests that may hold anything are hostile; in another store also those that may not.
    fn manifests(&self) {
        self.good("cp -r S X");
        for file in ["000001-a.json", "000002-b.json"] {
            edit(&self.path("S/w").join(file), |m| {
                m["source"]["name"] = json!(HOSTILE);
                m["source"]["unique_id"] = json!(HOSTILE);
                m["family"] = json!({"source_resource_id": HOSTILE, "source_unique_id": HOSTILE});
                m["tags"] = json!({HOSTILE: HOSTILE, "k": HOSTILE});
            });
        }
        let fields = ["name", "id", "parent", "time", "content_digest", "state"];
        for (n, field) in fields.into_iter().enumerate() {
            let store = format!("X{n}");
            self.good(&format!("cp -r X {store}"));
            let file = self.path(&store).join("w/000002-b.json");
            edit(&file, |m| m[field] = json!(HOSTILE));
            edit(&self.path(&store).join("w/000001-a.json"), |m| {
                m["source"]["format"] = json!(HOSTILE)
            });
            fs::write(self.path(&store).join("w").join(HOSTILE), "x").unwrap();
            fs::write(self.path(&store).join(HOSTILE), "x").unwrap();
        }
    }

    /// VHDs whose creator, parent's name and locators are hostile, one for each kind of locator, sound and cut off.
    fn images(&self) {
        let shape = Shape {
            creator: *b"\x1b[2J",
            host_os: *b"\n\x9b\x07\r",
            ..TINY
        };
        let pages = vec![7; 64 * SECTOR];
        let base = vhd_builder::with_id(vhd_builder::dynamic(&shape, &pages), [1; 16]);
        self.0.file("p.vhd", &base);
        self.0.file("cut.vhd", &base[..base.len() - 700]);
        let mut stored = vec![false; 64];
        stored[3] = true;
        // The name in the header has 256 units at most.
        let name = HOSTILE;
        for (n, code) in [
            *b"W2ku",
            *b"W2ru",
            *b"Wi2r",
            *b"Wi2k",
            *b"MacX",
            *b"Mac ",
            *b"\x1b[1A",
        ]
        .into_iter()
        .enumerate()
        {
            let text = if code == *b"MacX" {
                format!("file:///{}", HOSTILE.replace('\u{1b}', "%1b"))
            } else {
                format!(".\\{HOSTILE}\\p.vhd")
            };
            let mut locator = Locator::new(code, &text);
            if matches!(&code, b"Wi2r" | b"Wi2k" | b"MacX") {
                locator.data = text.into_bytes();
            }
            let family = Family {
                locators: vec![locator],
                ..Family::new(9, if n % 2 == 0 { 1 } else { 8 }, name)
            };
            let child = vhd_builder::differencing(&shape, &family, &pages, &stored);
            self.0.file(&format!("c{n}.vhd"), &child);
        }
    }

    /// A stream of a disk that is called so, and one of a manifest that says so.
    fn stream(&self) {
        let base = fs::read(self.path("X/w/000001-a.vhd")).unwrap();
        for (file, disk, field) in [("s1", HOSTILE, "k"), ("s2", "w", "name"), ("s3", "w", "id")] {
            let mut manifest = read(&self.path("X/w/000001-a.json"));
            manifest[field] = json!(HOSTILE);
            let manifest = sealed(&manifest).into_bytes();
            let mut bytes = Vec::new();
            let mut writer = StreamWriter::new(&mut bytes, Path::new("s"), disk).unwrap();
            for record in [
                Record::Snapshot(&manifest),
                Record::Data(0, &base),
                Record::Done(base.len() as u64),
                Record::End(1),
            ] {
                writer.push(&record).unwrap();
            }
            writer.finish().unwrap();
            self.0.file(file, &bytes);
        }
    }
}

fn read(path: &Path) -> Value {
    let mut manifest: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    manifest.as_object_mut().unwrap().remove("checksum");
    manifest
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut manifest = read(path);
    change(&mut manifest);
    fs::write(path, sealed(&manifest)).unwrap();
}

/// What a cloud might list.
fn list() -> String {
    let snapshot = |name: &str, source: &str| {
        json!({
            "name": name, "id": HOSTILE, "incremental": true, "timeCreated": "2026-11-18T06:00:04Z",
            "diskSizeBytes": 1 << 20, "provisioningState": HOSTILE, "completionPercent": 3.5,
            "creationData": {"sourceResourceId": source, "sourceUniqueId": HOSTILE, "createOption": HOSTILE},
            "tags": {HOSTILE: HOSTILE}
        })
    };
    json!([
        snapshot(HOSTILE, HOSTILE),
        snapshot("a", HOSTILE),
        snapshot("a", "/disks/w")
    ])
    .to_string()
}

const COMMANDS: &[&str] = &[
    "vhd info D/*",
    "vhd info D/* --json",
    "vhd hash D/*",
    "vhd hash D/* --json",
    "vhd hash --progress always D/*",
    "vhd check D/*",
    "vhd check D/* --json",
    "vhd check --azure D/*",
    "vhd map D/x*raw D/x",
    "for f in D/*; do vhd map \"$f\"; done; true",
    "for f in D/*; do vhd map --json \"$f\"; done; true",
    "vhd tree D",
    "vhd tree . --json",
    "vhd tree .",
    "cd D && vhd-diff x* y*",
    "vhd-diff d D/x*",
    "vhd-diff D/x* D/y* --json",
    "vhd-diff D/x* D/y*",
    "vhd-diff -v --progress always D/x* D/y* -o o/\"$(ls D | head -1)\"",
    "vhd show d",
    "vhd show d --json",
    "vhd show D/*.vhddiff",
    "vhd squash d e -o o.sq --force",
    "vhd squash d d -o o.sq --force",
    "vhd-apply D/y* d -o o.bad",
    "vhd-apply D/x* d --dry-run",
    "vhd-apply D/x* d -o o.raw --force -v --progress always",
    "vhd-apply D/x* d -o D/y*",
    "vhd-apply D/nothing$'\\e[2J\\n' d",
    "cp D/x* D/z$'\\e\\n'; vhd-apply D/z* d --undo o.undo --force; vhd-apply --rollback D/z*",
    "vhd convert D/x* D/y*",
    "vhd convert D/x* o.vhd --force -v --progress always",
    "vhd create D/x* --size 4M",
    "vhd create D/n$'\\e[31m\\n\\xc2\\x9b'.vhd --size 4M",
    "vhd resize D/x* --size 1000",
    "vhd resize D/x* --size 8M --dry-run",
    "for f in *.vhd; do vhd info $f; vhd check $f; vhd hash $f; vhd map $f; done; true",
    "vhd info *.vhd --json",
    "vhd check *.vhd --json",
    "for f in *.vhd; do vhd merge --dry-run $f; vhd merge $f -o o.m --force; vhd check --repair --dry-run $f; done; true",
    "for f in c*.vhd; do vhd rebase --dry-run $f --parent p.vhd; vhd convert $f o.c --force; done; true",
    "for f in c*.vhd; do vhd hash $f --parent D/x*; vhd hash $f --parent-path D; done; true",
    "for s in S X? D; do vhd snapshot list --store $s; vhd snapshot list --store $s --json; done; true",
    "for s in S X?; do vhd snapshot show --store $s b; vhd snapshot show --store $s --json; done; true",
    "for s in S X?; do vhd snapshot verify --store $s --read-data; vhd snapshot verify --store $s --json; done; true",
    "for s in S X?; do vhd snapshot hash --store $s; vhd snapshot diff a b --store $s; done; true",
    "for s in S X?; do vhd snapshot diff a b --store $s -o o.d --force; vhd show o.d; vhd show o.d --json; done; true",
    "for s in S X?; do vhd snapshot restore b --store $s -o o.r --force; done; true",
    "for s in S X?; do vhd snapshot copy --init --store $s --to C$s --json; vhd snapshot copy --init --store $s --to C$s; done; true",
    "for s in S X?; do vhd snapshot send --store $s > o.s; done; true",
    "for s in s?; do vhd snapshot receive --init --store R$s < $s; vhd snapshot receive --init --store R < $s; done; true",
    "for s in S X?; do vhd snapshot prune --store $s --keep-last 1 --dry-run; done; true",
    "for s in S X?; do vhd snapshot prune --store $s --keep-tag k --dry-run --json; done; true",
    "for s in S X?; do vhd snapshot repair --store $s --dry-run; vhd snapshot repair --store $s --from S --dry-run --json; done; true",
    "for s in S X?; do vhd snapshot create --init --store $s --disk w --name n D/x*; done; true",
    "vhd snapshot create --init --store S --disk w --name t --tag k=$'\\e[1A\\n' --source-resource-id $'\\n\\e' D/y*",
    "for s in S X?; do vhd snapshot delete a --store $s; vhd snapshot repair --store $s --drop; done; true",
    "vhd snapshot family list.json",
    "vhd snapshot family list.json --json",
    "vhd snapshot family list.json --source-resource-id /disks/w",
    "vhd snapshot family list.json --store S --disk w --json",
    "vhd snapshot family D/x*",
    "vhd snapshot list --store D/x*",
    "vhd snapshot list --store $'no\\e[2J\\nwhere'",
    "mkdir -p $'T\\e\\n\\u202e'; cp -r X/w $'T\\e\\n\\u202e'/; vhd snapshot list --store T*; vhd snapshot verify --store T*; vhd snapshot restore b --store T* -o o.t --force",
    "vhd hash $'T\\e\\n\\u202e'::w@a $'T\\e\\n\\u202e'::w@none",
    "mkdir -p E/$'w\\e\\n'; cp X/w/* E/w*/; vhd snapshot list --store E; vhd snapshot verify --store E; vhd snapshot show --store E",
];

#[test]
fn no_text_of_a_file_reaches_the_terminal_as_it_is() {
    let lab = Lab::new();
    let (mut chars, mut lines, mut faults) = (0, 0, Vec::new());
    for line in COMMANDS {
        let ended = lab.shell(line);
        for bytes in [&ended.stdout, &ended.stderr] {
            // A file name that isn't UTF-8 is escaped, too.
            let Ok(text) = std::str::from_utf8(bytes) else {
                faults.push(format!(
                    "{line}: not UTF-8: {}",
                    String::from_utf8_lossy(bytes).escape_debug()
                ));
                continue;
            };
            chars += text.chars().count();
            lines += text.lines().count();
            // The bar is drawn anew with what a terminal obeys, none of it from a file.
            let text = &if line.contains("--progress always") {
                text.replace('\r', "\n")
                    .replace("\u{1b}[2K", "")
                    .replace("\u{1b}[1B", "")
            } else {
                text.to_owned()
            };
            if let Some(at) = text.find(|c| c != '\n' && is_hostile(c)) {
                let from = text[..at]
                    .char_indices()
                    .rev()
                    .nth(60)
                    .map_or(0, |(at, _)| at);
                let near: String = text[from..].chars().take(90).collect();
                faults.push(format!("{line}: raw: {}", near.escape_debug()));
            }
            let forged = text.lines().find(|line| {
                FORGED
                    .iter()
                    .any(|forged| line.trim_start().starts_with(forged))
            });
            if let Some(forged) = forged {
                faults.push(format!("{line}: forged: {forged}"));
            }
            assert!(!text.contains("panicked"), "{line}: {text}");
        }
    }
    println!(
        "{} commands, {lines} lines, {chars} characters: {} faults",
        COMMANDS.len(),
        faults.len()
    );
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(lines > 1000, "{lines}");
}

#[test]
fn json_says_what_the_file_says() {
    let lab = Lab::new();
    let of = |line: &str| -> Value {
        let ended = lab.shell(line);
        let documents = serde_json::Deserializer::from_slice(&ended.stdout).into_iter();
        let documents = documents.collect::<Result<_, _>>();
        Value::Array(documents.unwrap_or_else(|e| panic!("{line}: {e}: {ended:?}")))
    };
    assert!(find(&of("vhd snapshot show --store S b --json"), HOSTILE));
    assert!(find(&of("vhd show d --json"), HOSTILE));
    assert!(find(&of("vhd info --json D/x*"), &format!("D/{HOSTILE}")));
    assert!(find(
        &of("vhd snapshot family list.json --json --source-resource-id /disks/w"),
        HOSTILE
    ));
}

/// Whether a text is one of the values, or of the keys.
fn find(value: &Value, text: &str) -> bool {
    match value {
        Value::String(found) => found == text,
        Value::Array(all) => all.iter().any(|value| find(value, text)),
        Value::Object(all) => all
            .iter()
            .any(|(key, value)| key == text || find(value, text)),
        _ => false,
    }
}
