//! Lies in packed bases, and in the marker of a store: diffs from nothing whose seals are right and that hold something else,
//! that aren't from nothing, or that unpack to more than the disk.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use crate::disk::{disk, program};
use crate::hostile::lab::{Lab, Original};
use crate::hostile::stores::{COMMANDS, Tampering, copy, pipe, replace, sparse};
use crate::hostile::tampered::{edit, read, socket};
use crate::sections::{complete, cut, kind, put_u32, put_u64, seal};

const BASE: &str = "000001-a.vhddiff";
const SAYS: &str = "000001-a.json";

const BASES: &[Tampering] = &[
    ("another disk from nothing", |w| {
        becomes(w, &made(w, "other", &[]))
    }),
    ("another disk from nothing, and the manifest says so", |w| {
        becomes(w, &made(w, "other", &[]));
        let digest = digest_of(w, "other");
        edit(w, SAYS, |m| m["content_digest"] = json!(digest));
    }),
    ("another disk, said to be this one at its end", |w| {
        let (own, mut other) = (cut(&own(w)), cut(&made(w, "other", &[])));
        let (tail, _) = (other.pop().unwrap(), other.pop());
        drop(tail);
        becomes(w, &seal(&complete(other, &own.last().unwrap()[56..128])));
    }),
    ("an empty disk", |w| becomes(w, &made(w, "empty", &[]))),
    ("a disk of one page", |w| becomes(w, &made(w, "none", &[]))),
    ("a disk of a tebibyte", |w| {
        becomes(w, &made(w, "tebibyte", &[]))
    }),
    ("a disk of a tebibyte, and the manifest says so", |w| {
        becomes(w, &made(w, "tebibyte", &[]));
        let digest = digest_of(w, "tebibyte");
        edit(w, SAYS, |m| {
            m["content_digest"] = json!(digest);
            m["virtual_size"] = json!(1_u64 << 40);
        });
    }),
    ("without digests", |w| {
        becomes(w, &made(w, "other", &["--no-digest"]))
    }),
    ("a diff that leads back, too", |w| {
        becomes(w, &made(w, "other", &["--reversible"]))
    }),
    ("the diff of another snapshot", |w| {
        becomes(w, &fs::read(w.join("000002-b.vhddiff")).unwrap())
    }),
    ("the diff of another snapshot, of its digest", |w| {
        becomes(w, &fs::read(w.join("000002-b.vhddiff")).unwrap());
        let digest = read(w, "000002-b.json")["content_digest"].clone();
        edit(w, SAYS, |m| m["content_digest"] = digest.clone());
    }),
    ("the base as the diff of another snapshot", |w| {
        becomes_of(w, "000002-b", &own(w))
    }),
    ("one byte of the data, sealed again", |w| {
        bent(w, |frames| *frames[1].last_mut().unwrap() ^= 1)
    }),
    ("the first frame twice", |w| {
        bent(w, |frames| frames.insert(1, frames[1].clone()))
    }),
    ("frames in another order", |w| {
        bent(w, |frames| {
            let last = frames.len() - 1;
            frames.swap(1, last);
        })
    }),
    ("a frame less", |w| bent(w, |frames| drop(frames.remove(1)))),
    ("no frame", |w| bent(w, |frames| frames.truncate(1))),
    ("a frame far behind the end", |w| {
        bent(w, |frames| {
            let last = frames.last_mut().unwrap();
            put_u64(last, 16, 1 << 62);
        })
    }),
    ("a frame at the end of 64 bits", |w| {
        bent(w, |frames| {
            let last = frames.last_mut().unwrap();
            put_u64(last, 16, u64::MAX - 511);
        })
    }),
    ("a frame of 4294967295 ranges", |w| {
        bent_raw(w, |frames| put_u32(&mut frames[1], 4, u32::MAX))
    }),
    ("packed data of 4 GiB", |w| {
        bent_raw(w, |frames| put_u32(&mut frames[1], 28, u32::MAX))
    }),
    ("a clear of all of it", |w| {
        bent(w, |frames| {
            let clear = cleared(0, 1 << 20);
            frames.push(clear);
        })
    }),
    ("a clear of a pebibyte", |w| {
        bent(w, |frames| frames.push(cleared(1 << 20, 1 << 50)))
    }),
    ("the header says a pebibyte", |w| {
        header(w, |head| {
            put_u64(head, 24, 1 << 50);
            put_u64(head, 32, 1 << 50);
        })
    }),
    ("the header says all bits of all its numbers", |w| {
        header(w, |head| {
            for at in (24..head.len() - 8).step_by(8) {
                put_u64(head, at, u64::MAX);
            }
        })
    }),
    ("the header says no size", |w| {
        header(w, |head| {
            for at in [24, 32] {
                put_u64(head, at, 0);
            }
        })
    }),
    ("only the header", |w| {
        let head = cut(&own(w)).remove(0);
        becomes(w, &head);
    }),
    ("two bases in one file", |w| {
        let twice = [own(w), own(w)].concat();
        becomes(w, &twice);
    }),
    ("a packed file", |w| {
        let own = own(w);
        becomes(w, &zstd::encode_all(own.as_slice(), 1).unwrap());
    }),
    ("no identity", |w| {
        edit(w, SAYS, |m| m["data"]["identity"] = json!(null))
    }),
    ("the manifest's version is 1", |w| {
        edit(w, SAYS, |m| m["schema_version"] = json!(1))
    }),
    ("a base with a parent", |w| {
        let b = read(w, "000002-b.json")["id"].clone();
        edit(w, SAYS, |m| m["parent"] = b.clone());
    }),
    ("said to be an image", |w| {
        edit(w, SAYS, |m| m["data"]["file"] = json!("000001-a.vhd"));
        copy(w, BASE, "000001-a.vhd");
    }),
    ("both a packed base and an image of nonsense", |w| {
        fs::write(w.join("000001-a.vhd"), "nonsense").unwrap();
        fs::write(w.join("000001-a.raw"), "nonsense").unwrap();
    }),
    ("a provisional base of nonsense beside it", |w| {
        fs::write(w.join("000001-a.vhddiff.new"), "nonsense").unwrap();
    }),
    ("only provisional", |w| {
        fs::rename(w.join(BASE), w.join("000001-a.vhddiff.new")).unwrap();
    }),
    ("the next one is a base of itself as well", |w| {
        let made = made(w, "other", &[]);
        edit(w, "000002-b.json", |m| {
            m["data"]["kind"] = json!("base");
            m["parent"] = json!(null);
        });
        becomes_of(w, "000002-b", &made);
    }),
    ("all three are bases of the first", |w| {
        let own = own(w);
        for stem in ["000002-b", "000003-c"] {
            edit(w, &format!("{stem}.json"), |m| {
                m["data"]["kind"] = json!("base");
                m["parent"] = json!(null);
            });
            becomes_of(w, stem, &own);
        }
    }),
    ("a deletion that makes a diff of another the base", |w| {
        let [mut a, b, c] = [SAYS, "000002-b.json", "000003-c.json"].map(|file| read(w, file));
        a["data"]["file"] = json!("000003-c.vhddiff");
        let mut after = c.clone();
        after["data"]["kind"] = json!("base");
        after["parent"] = json!(null);
        let intent =
            json!({"schema_version": 1, "deleted": [a, b], "next": [c, after], "forward": true});
        fs::write(w.join("deleting.json"), intent.to_string()).unwrap();
    }),
    ("a rename to the name of another", |w| {
        let [b, c] = ["000002-b.json", "000003-c.json"].map(|file| read(w, file));
        let mut after = b.clone();
        after["name"] = c["name"].clone();
        let intent =
            json!({"schema_version": 1, "deleted": [], "next": [b, after], "forward": false});
        fs::write(w.join("deleting.json"), intent.to_string()).unwrap();
    }),
    ("a rename that leads out", |w| {
        let b = read(w, "000002-b.json");
        let mut after = b.clone();
        after["name"] = json!("../../outside/secret");
        after["data"]["file"] = json!("../../outside/secret");
        let intent =
            json!({"schema_version": 1, "deleted": [], "next": [b, after], "forward": false});
        fs::write(w.join("deleting.json"), intent.to_string()).unwrap();
    }),
    ("the marker is a pipe", |w| marker(w, pipe)),
    ("the marker is a socket", |w| marker(w, socket)),
    ("the marker is a folder", |w| {
        marker(w, |p| fs::create_dir(p).unwrap())
    }),
    ("the marker leads to /dev/zero", |w| {
        marker(w, |p| symlink("/dev/zero", p).unwrap())
    }),
    ("the marker leads out", |w| {
        marker(w, |p| symlink("../outside/secret", p).unwrap())
    }),
    ("the marker has 3 GiB", |w| {
        marker(w, |p| sparse(p, 3 << 30))
    }),
    ("the marker is nested deep", |w| {
        marker(w, |p| fs::write(p, "[".repeat(1 << 15)).unwrap())
    }),
    ("the marker says version 1", |w| {
        marker(w, |p| {
            fs::write(p, r#"{"vhdkit_store": 1, "id": "x"}"#).unwrap()
        })
    }),
    ("the marker says version 4294967296", |w| {
        marker(w, |p| {
            fs::write(p, r#"{"vhdkit_store": 4294967296, "id": "x"}"#).unwrap()
        })
    }),
    ("the marker says version -1, and controls a terminal", |w| {
        marker(w, |p| {
            fs::write(
                p,
                "{\"vhdkit_store\": -1, \"id\": \"\\u001b[2J\\n\u{202e}\"}",
            )
            .unwrap()
        })
    }),
    ("the marker's id controls a terminal", |w| {
        marker(w, |p| {
            fs::write(
                p,
                "{\"vhdkit_store\": 2, \"id\": \"\\u001b[2J\\n\u{202e}\"}",
            )
            .unwrap()
        })
    }),
];

#[test]
fn lies_in_packed_bases_and_markers() {
    let original = Original::new(2);
    Original::each(BASES, |(name, tamper)| {
        let lab = Lab::of(&original);
        tamper(&lab.path("S/w"));
        // Whoever forges the data together with the manifest is believed about that snapshot alone, but not beside the next.
        let forged = name.ends_with("says so") || name.ends_with("of its digest");
        if forged {
            lab.runs("vhd snapshot verify --store S", 1);
        }
        let others = |line: &&&str| !forged || !line.starts_with("vhd snapshot restore a ");
        let commands: Vec<&str> = COMMANDS.iter().filter(others).copied().collect();
        lab.survives(name, &commands);
        // What is lost may be given up, and what is restored after that is right all the same.
        lab.survives(
            name,
            &["vhd snapshot upgrade --store S", COMMANDS[2], COMMANDS[6]],
        );
    });
    original.tell(BASES.len(), "packed bases and markers", COMMANDS);
}

fn own(folder: &Path) -> Vec<u8> {
    fs::read(folder.join(BASE)).unwrap()
}

/// Puts these bytes in place of the base, with a manifest that vouches for them.
fn becomes(folder: &Path, bytes: &[u8]) {
    becomes_of(folder, "000001-a", bytes);
}

fn becomes_of(folder: &Path, stem: &str, bytes: &[u8]) {
    let file = format!("{stem}.vhddiff");
    fs::write(folder.join(&file), bytes).unwrap();
    let at = bytes.len().saturating_sub(40);
    let mut identity = [0; 32];
    let found = &bytes[at..bytes.len().min(at + 32)];
    identity[..found.len()].copy_from_slice(found);
    let identity = vhdkit::image::ContentDigest(identity).to_string();
    edit(folder, &format!("{stem}.json"), |m| {
        m["data"]["length"] = json!(bytes.len());
        m["data"]["identity"] = json!(identity);
        m["data"]["file"] = json!(file);
    });
}

/// An image beside the store.
fn image(folder: &Path, which: &str) -> std::path::PathBuf {
    let path = folder.join("../../out").join(which);
    match which {
        "other" => fs::write(&path, disk(77, 1 << 20)).unwrap(),
        "empty" => sparse(&path, 1 << 20),
        "tebibyte" => sparse(&path, 1 << 40),
        _ => sparse(&path, 512),
    }
    path
}

/// A diff from nothing to that image.
fn made(folder: &Path, which: &str, options: &[&str]) -> Vec<u8> {
    let image = image(folder, which);
    let diff = image.with_extension("vhddiff");
    let mut command = program("vhd-diff");
    command
        .args(["-q", "--target-format", "raw", "/dev/null"])
        .arg(&image)
        .args(options);
    let ended = command.arg("-o").arg(&diff).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let bytes = fs::read(&diff).unwrap();
    fs::remove_file(diff).unwrap();
    fs::remove_file(image).unwrap();
    bytes
}

fn digest_of(folder: &Path, which: &str) -> String {
    let image = image(folder, which);
    let ended = program("vhd")
        .args(["hash", "-f", "raw"])
        .arg(&image)
        .output()
        .unwrap();
    fs::remove_file(image).unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    said.split(' ').next().unwrap().to_owned()
}

/// Changes the sections of the base before its index, and makes index, end and seals for what results.
fn bent(folder: &Path, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let mut frames = cut(&own(folder));
    let tail = frames.pop().unwrap();
    frames.pop();
    assert_eq!(kind(&frames[1]), "PAGE");
    change(&mut frames);
    becomes(folder, &seal(&complete(frames, &tail[56..128])));
}

/// The same for lengths that can't be followed: index and end stay those of the base.
fn bent_raw(folder: &Path, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let mut sections = cut(&own(folder));
    change(&mut sections);
    becomes(folder, &sections.concat());
}

fn header(folder: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut sections = cut(&own(folder));
    change(&mut sections[0]);
    becomes(folder, &seal(&sections));
}

fn cleared(start: u64, len: u64) -> Vec<u8> {
    let mut section = b"CLER".to_vec();
    section.resize(68, 0);
    put_u64(&mut section, 16, start);
    put_u64(&mut section, 24, len);
    section
}

fn marker(folder: &Path, by: impl FnOnce(&Path)) {
    replace(&folder.join(".."), "vhdkit-store.json", by);
}
