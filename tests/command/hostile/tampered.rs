//! More stores that somebody tampered with: manifests that are right by themselves and lie together, deletions that nobody
//! decided, files that another command would have left, and files of other kinds.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::{Value, json};

use crate::hostile::lab::{base, sealed};
use crate::hostile::stores::{Tampering, copy, pipe, replace, sparse};

pub(crate) const FILES: &[Tampering] = &[
    ("a socket as a manifest", |w| {
        replace(w, "000002-b.json", socket)
    }),
    ("a socket as a diff", |w| {
        replace(w, "000002-b.vhddiff", socket)
    }),
    ("a socket as deleting.json", |w| {
        socket(&w.join("deleting.json"))
    }),
    ("a socket as the lock", |w| replace(w, "lock", socket)),
    ("a device as a diff", |w| {
        replace(w, "000003-c.vhddiff", |p| symlink("/dev/null", p).unwrap())
    }),
    ("a device as the base", |w| {
        replace(w, base(w), |p| symlink("/dev/full", p).unwrap())
    }),
    ("a terminal as the list", |w| {
        replace(w, "newest.windows", |p| symlink("/dev/tty", p).unwrap())
    }),
    ("links in a circle", |w| {
        symlink("y.json", w.join("x.json")).unwrap();
        replace(w, "000002-b.json", |p| symlink("000003-b.json", p).unwrap());
        symlink("000002-b.json", w.join("000003-b.json")).unwrap();
    }),
    ("a link to a file of the same folder", |w| {
        replace(w, "000003-c.vhddiff", |p| {
            symlink("000002-b.vhddiff", p).unwrap()
        })
    }),
    ("the base is a link to its manifest", |w| {
        replace(w, base(w), |p| symlink("000001-a.json", p).unwrap())
    }),
    ("all three have one id", |w| {
        for file in ALL {
            edit(w, file, |m| {
                m["id"] = json!("00000000-0000-4000-8000-000000000001")
            });
        }
    }),
    ("each is its own parent", |w| {
        for file in &ALL[1..] {
            edit(w, file, |m| m["parent"] = m["id"].clone());
        }
    }),
    ("the parents are a circle", |w| {
        let [b, c] = ["000002-b.json", "000003-c.json"].map(|file| read(w, file)["id"].clone());
        edit(w, "000002-b.json", |m| m["parent"] = c.clone());
        edit(w, "000003-c.json", |m| m["parent"] = b.clone());
    }),
    ("two snapshots of one parent", |w| {
        let a = read(w, "000001-a.json")["id"].clone();
        edit(w, "000003-c.json", |m| m["parent"] = a.clone());
    }),
    ("times go back", |w| {
        edit(w, "000003-c.json", |m| {
            m["time"] = json!("1970-01-01T00:00:00Z")
        })
    }),
    ("a time in the year 5000", |w| {
        edit(w, "000003-c.json", |m| {
            m["time"] = json!("5000-01-01T00:00:00Z")
        })
    }),
    ("a time before the year 0", |w| {
        edit(w, "000001-a.json", |m| {
            m["time"] = json!("-009999-01-01T00:00:00Z")
        })
    }),
    ("the greatest number that is read", |w| {
        renumber(w, "000003-c", "999999999-c", 999_999_999)
    }),
    ("a number of 2^32 - 1, all of it", |w| {
        renumber(w, "000003-c", "4294967295-c", u32::MAX)
    }),
    ("a footer of text", |w| {
        edit(w, "000001-a.json", |m| {
            m["source"]["footer"] = json!("41".repeat(512))
        })
    }),
    ("a footer of zeros", |w| {
        edit(w, "000001-a.json", |m| {
            m["source"]["footer"] = json!("00".repeat(512))
        })
    }),
    ("the disk is said to be a pebibyte", |w| {
        for file in ALL {
            edit(w, file, |m| m["virtual_size"] = json!(1_u64 << 50));
        }
    }),
    ("the disk is said to be one page", |w| {
        for file in ALL {
            edit(w, file, |m| m["virtual_size"] = json!(512));
        }
    }),
    ("the digest of one is that of another", |w| {
        let digest = read(w, "000001-a.json")["content_digest"].clone();
        edit(w, "000003-c.json", |m| m["content_digest"] = digest.clone());
    }),
    ("the identities of two diffs are swapped", |w| {
        let [b, c] = ["000002-b.json", "000003-c.json"]
            .map(|file| read(w, file)["data"]["identity"].clone());
        edit(w, "000002-b.json", |m| m["data"]["identity"] = c.clone());
        edit(w, "000003-c.json", |m| m["data"]["identity"] = b.clone());
    }),
    ("lengths that are another's", |w| {
        edit(w, "000002-b.json", |m| {
            m["data"]["length"] = json!(u64::MAX)
        });
        edit(w, "000001-a.json", |m| m["used_size"] = json!(u64::MAX));
        edit(w, "000003-c.json", |m| m["used_size"] = json!(u64::MAX));
    }),
    ("the base is said to be a diff", |w| {
        edit(w, "000001-a.json", |m| m["data"]["kind"] = json!("diff"))
    }),
    ("a diff is said to be a base", |w| {
        edit(w, "000002-b.json", |m| {
            m["data"]["kind"] = json!("base");
            m["data"]["file"] = json!("000002-b.raw");
            m["data"]["identity"] = json!(null);
            m["parent"] = json!(null);
        });
        copy(w, "000002-b.vhddiff", "000002-b.raw");
    }),
    ("the base is said to be raw", |w| {
        edit(w, "000001-a.json", |m| {
            m["data"]["file"] = json!("000001-a.raw")
        });
        copy(w, base(w), "000001-a.raw");
    }),
    (
        "a diff is the base of nothing: its own base is gone, and it says so",
        |w| {
            fs::remove_file(w.join(base(w))).unwrap();
            fs::remove_file(w.join("000001-a.json")).unwrap();
        },
    ),
    (
        "complete is said to be copying, and copying complete",
        |w| {
            edit(w, "000002-b.json", |m| m["state"] = json!("copying"));
            edit(w, "000003-c.json", |m| m["completion_percent"] = json!(7));
        },
    ),
    ("the files of another store", |w| {
        // Made of other bytes under the same names.
        for file in ["000002-b.vhddiff", "000003-c.vhddiff"] {
            let mut bytes = fs::read(w.join("000002-b.vhddiff")).unwrap();
            bytes.reverse();
            fs::write(w.join(file), bytes).unwrap();
        }
    }),
    ("a manifest of another disk", |w| {
        edit(w, "000003-c.json", |m| {
            m["id"] = json!("11111111-1111-4111-8111-111111111111");
            m["parent"] = json!("22222222-2222-4222-8222-222222222222");
            m["family"] = json!({"source_resource_id": "/other", "source_unique_id": "other"});
        })
    }),
    ("fields that no version has", |w| {
        edit(w, "000002-b.json", |m| {
            m["execute"] = json!("rm -rf /");
            m["data"]["also"] = json!(["../../outside/secret"]);
        })
    }),
    (
        "a field that nobody knows, nested as deep as is read",
        |w| {
            edit(w, "000002-b.json", |m| {
                let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
                m["deep"] = deep;
            })
        },
    ),
    ("a sealed manifest nested a hundred thousand deep", |w| {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let text = fs::read_to_string(w.join("000002-b.json")).unwrap();
        let head = text[..text.find("  \"checksum\"").unwrap()]
            .replace("\"tags\": {}", &format!("\"tags\": {deep}"));
        fs::write(w.join("000002-b.json"), seal(&head)).unwrap();
    }),
    ("the same field twice", |w| {
        let text = fs::read_to_string(w.join("000002-b.json")).unwrap();
        let head = text[..text.find("  \"checksum\"").unwrap()]
            .replace("\"tags\": {}", "\"name\": \"../x\",\n  \"tags\": {}");
        fs::write(w.join("000002-b.json"), seal(&head)).unwrap();
    }),
    ("a megabyte of tags with control characters", |w| {
        edit(w, "000002-b.json", |m| {
            m["tags"] = json!({"\u{1b}[2J": "\u{202e}\u{2028}\u{9b}\r".repeat(20_000)});
        })
    }),
    ("NUL in a name, and in the middle of a file", |w| {
        edit(w, "000002-b.json", |m| {
            m["source"]["name"] = json!("a\u{0}b")
        });
        let mut bytes = fs::read(w.join("000003-c.json")).unwrap();
        bytes.insert(40, 0);
        fs::write(w.join("000003-c.json"), bytes).unwrap();
    }),
    ("ids that control a terminal and forge a line", |w| {
        edit(w, "000001-a.json", |m| {
            m["id"] = json!("\n0000  other\u{2029}\u{85}\u{1b}[1A");
            m["family"] = json!({"source_resource_id": "\u{1b}]0;x\u{7}\n", "source_unique_id": "\u{2066}\n"});
        })
    }),
    (
        "a deletion of all, of nothing and of what isn't there",
        |w| {
            let all = ALL.map(|file| read(w, file));
            intent(w, &all, None, false);
        },
    ),
    ("a deletion that deletes nothing", |w| {
        intent(w, &[], None, true)
    }),
    ("a deletion of files outside", |w| {
        let mut b = read(w, "000002-b.json");
        b["data"]["file"] = json!("../../outside/secret");
        intent(w, &[b], None, false);
    }),
    ("a deletion of a name that leads out", |w| {
        let mut b = read(w, "000002-b.json");
        b["name"] = json!("../../outside/secret");
        intent(w, &[b], None, false);
    }),
    ("a deletion that makes a diff the base", |w| {
        let [a, b, c] = ALL.map(|file| read(w, file));
        intent(w, &[b], Some(&[c.clone(), c]), true);
        drop(a);
    }),
    ("a deletion whose next one is before it", |w| {
        let [a, b, c] = ALL.map(|file| read(w, file));
        intent(w, &[c], Some(&[a, b]), false);
    }),
    ("a deletion whose next one is another afterwards", |w| {
        let [a, b, c] = ALL.map(|file| read(w, file));
        let mut other = c.clone();
        other["name"] = json!("q");
        other["sequence"] = json!(9);
        other["data"]["file"] = json!("000009-q.vhddiff");
        intent(w, &[b], Some(&[c, other]), false);
        drop(a);
    }),
    ("a deletion of one snapshot fifty thousand times", |w| {
        let b = read(w, "000002-b.json");
        intent(w, &vec![b; 20_000], None, false);
    }),
    ("a deletion nested deep", |w| {
        fs::write(w.join("deleting.json"), "[".repeat(1 << 20)).unwrap();
    }),
    (
        "a deletion and the copy of a snapshot that it deletes",
        |w| {
            let [_, b, c] = ALL.map(|file| read(w, file));
            intent(w, &[c], None, false);
            copy(w, "000003-c.json", "000003-c.json.part");
            copy(w, "000003-c.vhddiff", "000003-c.vhddiff.part");
            drop(b);
        },
    ),
    ("copies of two snapshots, neither complete", |w| {
        for (sequence, name) in [(4, "d"), (5, "e")] {
            let stem = format!("00000{sequence}-{name}");
            let mut m = read(w, "000003-c.json");
            m["sequence"] = json!(sequence);
            m["name"] = json!(name);
            m["data"]["file"] = json!(format!("{stem}.vhddiff"));
            m["state"] = json!("copying");
            fs::write(w.join(format!("{stem}.json.part")), sealed(&m)).unwrap();
            sparse(&w.join(format!("{stem}.vhddiff.part")), 1 << 40);
        }
    }),
    ("a copy's mark that says another name", |w| {
        copy(w, "000002-b.json", "000004-d.json.part")
    }),
    ("a copy's mark that is nonsense", |w| {
        fs::write(w.join("000004-d.json.part"), b"\x00\xff\x1b[2J").unwrap();
        fs::write(w.join("000004-d.vhddiff.part"), b"x").unwrap();
    }),
    ("provisional files of every snapshot", |w| {
        for name in [
            base(w),
            "000002-b.vhddiff",
            "000003-c.vhddiff",
            "000009-z.raw",
        ] {
            fs::write(w.join(format!("{name}.new")), "nonsense").unwrap();
        }
    }),
    ("a provisional file that is a pipe", |w| {
        pipe(&w.join("000003-c.vhddiff.new"))
    }),
    ("a provisional file instead of the real one", |w| {
        fs::rename(w.join("000002-b.vhddiff"), w.join("000002-b.vhddiff.new")).unwrap();
    }),
    ("files put aside that lead out", |w| {
        symlink("../../outside/secret", w.join("000002-b.vhddiff.damaged")).unwrap();
        symlink("/dev/zero", w.join("000004-d.json.damaged.2")).unwrap();
    }),
    ("files put aside under every number", |w| {
        for n in 2..300 {
            fs::write(w.join(format!("000002-b.json.damaged.{n}")), "x").unwrap();
        }
    }),
    ("a journal of nonsense beside a diff", |w| {
        fs::write(w.join("000002-b.vhddiff.undo-journal"), "nonsense").unwrap();
        fs::write(w.join(format!("{}.undo-journal", base(w))), "nonsense").unwrap();
    }),
    ("ten thousand files of other names", |w| {
        for n in 0..10_000 {
            fs::write(w.join(format!("{n:06}-.json")), "").unwrap();
        }
    }),
    ("the whole folder is empty files", |w| {
        for entry in fs::read_dir(w).unwrap() {
            fs::write(entry.unwrap().path(), "").unwrap();
        }
    }),
    ("the folder of the disk is a link", |w| {
        let moved = w.with_file_name("moved.aside");
        fs::rename(w, &moved).unwrap();
        symlink("moved.aside", w).unwrap();
    }),
    ("another disk that is a pipe, a file, a link out", |w| {
        pipe(&w.with_file_name("x"));
        fs::write(w.with_file_name("y"), "y").unwrap();
        symlink("../outside", w.with_file_name("z")).unwrap();
    }),
];

const ALL: [&str; 3] = ["000001-a.json", "000002-b.json", "000003-c.json"];

pub(crate) fn socket(path: &Path) {
    // The name is too long for a socket elsewhere than here.
    let short = path.with_file_name("s");
    let bound = UnixListener::bind(&short);
    drop(bound.unwrap());
    fs::rename(short, path).unwrap();
}

pub(crate) fn read(folder: &Path, file: &str) -> Value {
    let mut manifest: Value =
        serde_json::from_slice(&fs::read(folder.join(file)).unwrap()).unwrap();
    manifest.as_object_mut().unwrap().remove("checksum");
    manifest
}

pub(crate) fn edit(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let mut manifest = read(folder, file);
    change(&mut manifest);
    fs::write(folder.join(file), sealed(&manifest)).unwrap();
}

/// Gives the last snapshot another number, in its manifest and in the names of its files.
fn renumber(folder: &Path, from: &str, to: &str, sequence: u32) {
    edit(folder, &format!("{from}.json"), |m| {
        m["sequence"] = json!(sequence);
        m["data"]["file"] = json!(format!("{to}.vhddiff"));
    });
    for end in ["json", "vhddiff"] {
        fs::rename(
            folder.join(format!("{from}.{end}")),
            folder.join(format!("{to}.{end}")),
        )
        .unwrap();
    }
}

/// Writes down a deletion.
fn intent(folder: &Path, deleted: &[Value], next: Option<&[Value; 2]>, forward: bool) {
    let intent = json!({"schema_version": 1, "deleted": deleted, "next": next, "forward": forward});
    fs::write(folder.join("deleting.json"), intent.to_string()).unwrap();
}

/// A manifest of these lines.
fn seal(head: &str) -> String {
    let checksum = blake3::hash(head.as_bytes()).to_hex();
    format!("{head}  \"checksum\": \"{checksum}\"\n}}\n")
}
