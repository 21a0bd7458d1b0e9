//! Diffs whose seals and digests are right, and that make something else than they say: whoever can write into a store, or
//! sends a stream, can make them.

use std::fs;

use serde_json::Value;
use vhdkit::image::ContentDigest;

use crate::disk::{assert_same, content, disk};
use crate::sections::{complete, cut, seal};
use crate::store::lab::Lab;
use crate::store::streams::{receive, sent};

const PAGE: usize = 4096;

/// Snapshots a, b, c and d. If b's change is hidden, c changes the same page again; d changes another one.
fn four(lab: &Lab, hidden: bool) -> Vec<Vec<u8>> {
    let mut bytes = disk(5, 3 << 20);
    let mut all = vec![bytes.clone()];
    for at in [1, if hidden { 1 } else { 7 }, 500] {
        let page = &mut bytes[at * PAGE..(at + 1) * PAGE];
        for (byte, n) in page.iter_mut().zip((1_u8..=251).cycle()) {
            *byte = byte.wrapping_mul(5).wrapping_add(n);
        }
        all.push(bytes.clone());
    }
    for (name, bytes) in ["a", "b", "c", "d"].into_iter().zip(&all) {
        let image = lab.image(name, bytes, "raw");
        let args = ["create", "--disk", "web", "--name", name, &image];
        lab.good(&[&args[..], &["--compress", "none"]].concat());
    }
    all
}

/// Changes the last byte of the data of a snapshot's diff, and everything that vouches for it.
fn forge(lab: &Lab, store: &str, stem: &str) {
    let folder = lab.path(store).join("web");
    let path = folder.join(format!("{stem}.vhddiff"));
    let mut frames = cut(&fs::read(&path).unwrap());
    let tail = frames.pop().unwrap();
    frames.pop();
    *frames[1].last_mut().unwrap() ^= 1;
    let diff = seal(&complete(frames, &tail[56..128]));
    fs::write(&path, &diff).unwrap();
    let path = folder.join(format!("{stem}.json"));
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest.as_object_mut().unwrap().remove("checksum");
    let identity = &diff[diff.len() - 40..diff.len() - 8];
    let identity = ContentDigest(*identity.first_chunk().unwrap());
    manifest["data"]["length"] = diff.len().into();
    manifest["data"]["identity"] = identity.to_string().into();
    let text = serde_json::to_string_pretty(&manifest).unwrap();
    let head = format!("{},\n", text.strip_suffix("\n}").unwrap());
    let checksum = blake3::hash(head.as_bytes()).to_hex();
    fs::write(path, format!("{head}  \"checksum\": \"{checksum}\"\n}}\n")).unwrap();
}

fn both(test: impl Fn(Lab)) {
    test(Lab::new());
    test(Lab::packed());
}

#[test]
fn a_diff_that_lies_is_found_although_later_ones_hide_it() {
    both(|lab| {
        let all = four(&lab, true);
        lab.good(&["copy", "--init", "--to", "good"]);
        forge(&lab, "store", "000002-b");
        // What its seals say is right, and so is the newest snapshot.
        lab.good(&["verify"]);
        lab.assert_restores("d", &all[3]);
        let found = lab.ends(1, &["verify", "--read-data"]);
        assert!(found.contains("000002-b.vhddiff"), "{found}");
        assert!(found.contains("affects: b\n"), "{found}");
        let found = lab.ends(1, &["repair"]);
        assert!(found.contains("000002-b.vhddiff"), "{found}");
        // Each way that the hint names.
        for source in [&["--from", "good"][..], &["--image", "b=b.raw"]] {
            lab.good(&[&["repair"], source].concat());
            lab.good(&["verify", "--read-data"]);
            for (name, bytes) in ["a", "b", "c", "d"].into_iter().zip(&all) {
                lab.assert_restores(name, bytes);
            }
            forge(&lab, "store", "000002-b");
        }
        // What is right over it isn't given up with it.
        let dropped = lab.good(&["repair", "--drop"]);
        assert!(dropped.contains("b: given up"), "{dropped}");
        lab.good(&["verify", "--read-data"]);
        lab.ends(2, &["show", "b"]);
        for (name, bytes) in [("a", &all[0]), ("c", &all[2]), ("d", &all[3])] {
            lab.assert_restores(name, bytes);
        }
    });
}

#[test]
fn a_diff_that_lies_affects_what_shows_it() {
    both(|lab| {
        let all = four(&lab, false);
        forge(&lab, "store", "000002-b");
        let found = lab.ends(1, &["verify", "--read-data"]);
        assert!(found.contains("affects: b, c, d\n"), "{found}");
        lab.ends(3, &["restore", "d", "-o", "restored"]);
        lab.good(&["repair", "--image", "b=b.raw"]);
        lab.good(&["verify", "--read-data"]);
        lab.assert_restores("d", &all[3]);
        // Another one that lies behind it is told for itself.
        forge(&lab, "store", "000002-b");
        forge(&lab, "store", "000004-d");
        let found = lab.ends(1, &["verify", "--read-data"]);
        assert!(found.contains("affects: b, c, d\n"), "{found}");
    });
}

#[test]
fn a_packed_base_that_lies_is_found() {
    let lab = Lab::packed();
    let all = four(&lab, false);
    forge(&lab, "store", "000001-a");
    let found = lab.ends(1, &["verify", "--read-data"]);
    assert!(found.contains("000001-a.vhddiff"), "{found}");
    assert!(found.contains("affects: a, b, c, d\n"), "{found}");
    lab.ends(1, &["repair"]);
    lab.good(&["repair", "--image", "a=a.raw"]);
    lab.good(&["verify", "--read-data"]);
    lab.assert_restores("d", &all[3]);
}

#[test]
fn what_lies_is_not_received() {
    for hidden in [false, true] {
        both(|lab| {
            let all = four(&lab, hidden);
            lab.good(&["copy", "--init", "--to", "good"]);
            forge(&lab, "store", "000002-b");
            let restores = |to: &str, name, bytes: &[u8]| {
                lab.good(&["restore", name, "--store", to, "-o", "restored", "--force"]);
                assert_same(&content(lab.path("restored")), bytes, name);
            };
            for known in ["", "a", "b"] {
                let to = &format!("received-{known}");
                let mut args = vec![];
                // One that has a part of it already goes on from there.
                if !known.is_empty() {
                    let part = sent(&lab, &["--store", "good", "--until", known]);
                    receive(&lab, 0, &part, to);
                    args = vec!["--after", known];
                }
                let lies = known != "b";
                let said = receive(&lab, if lies { 3 } else { 0 }, &sent(&lab, &args), to);
                lab.good(&["verify", "--read-data", "--store", to]);
                restores(to, "a", &all[0]);
                if lies {
                    assert!(said.contains("doesn't make what"), "{said}");
                    assert!(said.contains("--after a"), "{said}");
                    lab.ends(2, &["show", "b", "--store", to]);
                    // As the hint says, with a stream that is right.
                    let right = sent(&lab, &["--store", "good", "--after", "a"]);
                    receive(&lab, 0, &right, to);
                    lab.good(&["verify", "--read-data", "--store", to]);
                }
                restores(to, "d", &all[3]);
            }
        });
    }
}
