//! Diffs that lie with all their checksums right, given to everything that makes an image of a diff: the old image stays,
//! and no new one appears.

use std::fs;

use serde_json::Value;

use crate::disk::Random;
use crate::mounts::Mounted;
use crate::reports::lab::{Case, Lab, tell, tell_within};
use crate::sections::{Section, complete, cut, put_u16, put_u32, put_u64, seal, u32_at, u64_at};

const MIB: usize = 1 << 20;

#[test]
fn lies() {
    tell("Lying diffs, each in fourteen ways", CASES);
}

#[test]
#[ignore = "mounts XFS and btrfs; for root: cargo test --test command lies -- --include-ignored"]
fn lies_where_there_are_clones() {
    for place in Mounted::all(&["xfs", "btrfs"]) {
        let lab = Lab::within(&place.path());
        honest(&lab);
        // What the cases below do with their diffs is done on a clone.
        let told = lab
            .shell("vhd hash --stamp base.raw && vhd-apply --json base.raw d.vhddiff -o new.raw")
            .code(0);
        told.says("\"clone\"");
        drop(lab);
        let title = format!("Lying diffs on {}", place.kind());
        tell_within(&place.path(), &title, CASES);
    }
}

/// A diff and its manifest that agree with each other and not with the disk: whoever can write into a store can make them.
/// Copies carry the files as they are; what is given out, or read to be verified, is compared with the manifest.
#[test]
fn a_snapshot_forged_with_its_manifest_is_never_given_out() {
    let lab = &Lab::new();
    let (mut frames, digests) = honest(lab);
    *frames[FIRST].last_mut().unwrap() ^= 1;
    let diff = seal(&complete(frames, &digests));
    fs::write(lab.path("S/w/000002-target.vhddiff"), &diff).unwrap();
    let path = lab.path("S/w/000002-target.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest.as_object_mut().unwrap().remove("checksum");
    let identity = &diff[diff.len() - 40..diff.len() - 8];
    let identity = vhdkit::image::ContentDigest(*identity.first_chunk().unwrap()).to_string();
    manifest["data"]["length"] = diff.len().into();
    manifest["data"]["identity"] = identity.into();
    let text = serde_json::to_string_pretty(&manifest).unwrap();
    let head = format!("{},\n", text.strip_suffix("\n}").unwrap());
    let checksum = blake3::hash(head.as_bytes()).to_hex();
    fs::write(path, format!("{head}  \"checksum\": \"{checksum}\"\n}}\n")).unwrap();
    for (command, code) in [
        ("vhd snapshot restore -q target --store S -o new.raw", 3),
        ("vhd snapshot hash target --store S", 3),
        ("vhd snapshot verify -q --read-data --store S", 1),
        // By its checksums all of it arrived.
        ("vhd snapshot copy -q --init --store S --to T", 0),
        ("vhd snapshot restore -q target --store T -o new.raw", 3),
        ("vhd snapshot verify -q --read-data --store T", 1),
        // What came is laid over what is there.
        (
            "set -o pipefail; vhd snapshot send -q --store S | vhd snapshot receive -q --init --store R",
            3,
        ),
        // It isn't kept.
        ("vhd snapshot restore -q target --store R -o new.raw", 2),
        ("vhd snapshot verify -q --read-data --store R", 0),
        (
            "vhd snapshot restore -q base --store R -o base.again -O raw && cmp base.raw base.again",
            0,
        ),
    ] {
        let ended = lab.shell(command);
        assert_eq!(ended.code, code, "{command}: {}{}", ended.out, ended.err);
        assert!(!lab.exists("new.raw"), "{command}");
    }
}

/// What was done with most of them in place, or to a base that is known.
const BEFORE: &str = "in place 0, and stamped with what the diff says";

const NOW: &str = "3 in each way; the old image, no output";

/// The frames of the honest diff: updates in the first two windows, a whole window cleared.
const FIRST: usize = 1;
const SECOND: usize = 2;
const CLEAR: usize = 3;

/// Where in what the trailer says of digests the target's begins.
const TARGET: usize = 40;

const CASES: &[Case] = &[
    Case {
        name: "Another digest of the target",
        before: BEFORE,
        now: NOW,
        run: |lab| lie(lab, |_, digests| digests[TARGET..].fill(7)),
    },
    Case {
        name: "One bit of the digest of the target",
        before: BEFORE,
        now: NOW,
        run: |lab| lie(lab, |_, digests| digests[TARGET + 31] ^= 1),
    },
    Case {
        name: "The digest of the base as that of the target",
        before: BEFORE,
        now: NOW,
        run: |lab| lie(lab, |_, digests| digests.copy_within(8..TARGET, TARGET)),
    },
    Case {
        name: "A byte of the data",
        before: BEFORE,
        now: NOW,
        run: |lab| {
            lie(lab, |frames, _| {
                *frames[FIRST].last_mut().unwrap() ^= 1;
            });
        },
    },
    Case {
        name: "A byte of the data of the second window",
        before: BEFORE,
        now: NOW,
        run: |lab| {
            lie(lab, |frames, _| {
                *frames[SECOND].last_mut().unwrap() ^= 0x80;
            });
        },
    },
    Case {
        name: "All data of a frame zero",
        before: BEFORE,
        now: NOW,
        run: |lab| {
            lie(lab, |frames, _| {
                let at = payload(&frames[FIRST]);
                frames[FIRST][at..].fill(0);
            });
        },
    },
    Case {
        name: "The data of two frames exchanged",
        before: BEFORE,
        now: NOW,
        run: |lab| {
            lie(lab, |frames, _| {
                let (one, other) = (payload(&frames[FIRST]), payload(&frames[SECOND]));
                let first = frames[FIRST].split_off(one);
                let second = frames[SECOND].split_off(other);
                frames[FIRST].extend(second);
                frames[SECOND].extend(first);
            });
        },
    },
    Case {
        name: "A change one page later",
        before: BEFORE,
        now: NOW,
        run: |lab| lie(lab, |frames, _| put_u16(&mut frames[FIRST], 72, 9)),
    },
    Case {
        name: "The first frame is missing",
        before: BEFORE,
        now: NOW,
        run: |lab| lie(lab, |frames, _| drop(frames.remove(FIRST))),
    },
    Case {
        name: "The second frame is missing",
        before: BEFORE,
        now: NOW,
        run: |lab| lie(lab, |frames, _| drop(frames.remove(SECOND))),
    },
    Case {
        name: "The clear is missing",
        before: BEFORE,
        now: NOW,
        run: |lab| lie(lab, |frames, _| drop(frames.remove(CLEAR))),
    },
    Case {
        name: "All frames are missing",
        before: BEFORE,
        now: NOW,
        run: |lab| lie(lab, |frames, _| frames.truncate(1)),
    },
    Case {
        name: "A target that is a page larger",
        before: BEFORE,
        now: NOW,
        run: |lab| {
            lie(lab, |frames, _| {
                let size = u64_at(&frames[0], 40);
                put_u64(&mut frames[0], 40, size + 512);
            });
        },
    },
    Case {
        name: "A target that is a gibibyte larger",
        before: BEFORE,
        now: NOW,
        run: |lab| {
            lie(lab, |frames, _| {
                let size = u64_at(&frames[0], 40);
                put_u64(&mut frames[0], 40, size + (1 << 30));
            });
        },
    },
    Case {
        name: "A target that ends before a change",
        before: "3",
        now: NOW,
        run: |lab| {
            lie(lab, |frames, _| {
                let size = u64_at(&frames[0], 40);
                put_u64(&mut frames[0], 40, size - 512);
            });
        },
    },
    Case {
        name: "Data that can't be unpacked",
        before: "3; squash 0, and handed on",
        now: NOW,
        run: |lab| {
            lie(lab, |frames, _| {
                let at = payload(&frames[FIRST]);
                frames[FIRST].truncate(at);
                frames[FIRST].extend([0xaa; 100]);
                frames[FIRST][32] = 1;
                put_u32(&mut frames[FIRST], 28, 100);
            });
        },
    },
    Case {
        name: "Data that unpacks to something else",
        before: BEFORE,
        now: NOW,
        run: |lab| {
            lie(lab, |frames, _| {
                let at = payload(&frames[FIRST]);
                let len = usize::try_from(u32_at(&frames[FIRST], 24)).unwrap();
                let packed = zstd::bulk::compress(&vec![1; len], 3).unwrap();
                frames[FIRST].truncate(at);
                frames[FIRST].extend(&packed);
                frames[FIRST][32] = 1;
                put_u32(&mut frames[FIRST], 28, u32::try_from(packed.len()).unwrap());
            });
        },
    },
    Case {
        name: "An index that leads elsewhere",
        before: "3",
        now: NOW,
        run: |lab| {
            sealed(lab, |sections| {
                let index = sections.len() - 2;
                let at = u64_at(&sections[index], 16 + 16);
                put_u64(&mut sections[index], 16 + 16, at + 4);
            });
        },
    },
    Case {
        name: "An index of other windows",
        before: "3",
        now: NOW,
        run: |lab| {
            sealed(lab, |sections| {
                let index = sections.len() - 2;
                put_u64(&mut sections[index], 16 + 8, 1 << 20);
            });
        },
    },
    Case {
        name: "Totals that don't add up",
        before: "3",
        now: NOW,
        run: |lab| {
            sealed(lab, |sections| {
                let tail = sections.len() - 1;
                let frames = u64_at(&sections[tail], 16);
                put_u64(&mut sections[tail], 16, frames + 1);
            });
        },
    },
];

/// Where the data of a frame with ranges begins.
fn payload(frame: &Section) -> usize {
    76 + 4 * usize::try_from(u32_at(frame, 4)).unwrap()
}

/// A base, a target, and the parts of the diff between them, whose data isn't packed.
fn honest(lab: &Lab) -> (Vec<Section>, Vec<u8>) {
    let mut disk = Random::new(1).bytes(12 * MIB);
    lab.file("base.raw", &disk);
    for (n, at) in [4096, 4 * MIB + 4096].into_iter().enumerate() {
        disk[at..at + 1024].copy_from_slice(&Random::new(n as u64 + 2).bytes(1024));
    }
    disk[8 * MIB..].fill(0);
    lab.file("target.raw", &disk);
    lab.shell(
        "vhd-diff -q --compress none base.raw target.raw -o d.vhddiff
        vhd convert -q base.raw base.vhd
        for n in base target; do
            vhd snapshot create -q --init --store S --disk w --name $n $n.raw || exit 1
        done",
    )
    .code(0);
    let mut sections = cut(&lab.read("d.vhddiff"));
    let tail = sections.pop().unwrap();
    sections.pop();
    assert_eq!(sections.len(), 4);
    (sections, tail[56..128].to_vec())
}

/// Changes what the honest diff says, so that index and trailer agree with it, and tries that in all ways.
fn lie(lab: &Lab, forge: fn(&mut Vec<Section>, &mut Vec<u8>)) {
    let (mut frames, mut digests) = honest(lab);
    forge(&mut frames, &mut digests);
    try_all(lab, &seal(&complete(frames, &digests)));
}

/// The same with what comes after the frames.
fn sealed(lab: &Lab, forge: fn(&mut Vec<Section>)) {
    let (frames, digests) = honest(lab);
    let mut sections = complete(frames, &digests);
    forge(&mut sections);
    try_all(lab, &seal(&sections));
}

fn try_all(lab: &Lab, diff: &[u8]) {
    fs::write(lab.path("lie.vhddiff"), diff).unwrap();
    let base = lab.read("base.raw");
    // In place.
    for (image, prepare, command) in [
        ("w.raw", "", "--in-place journal"),
        ("w.raw", "", "--in-place copy"),
        ("w.raw", "vhd hash --stamp w.raw", ""),
        ("w.raw", "vhd hash --stamp w.raw", "--in-place copy"),
        (
            "w.raw",
            "vhd hash --stamp w.raw && rm w.raw.windows",
            "--undo undo",
        ),
        ("w.vhd", "vhd hash --stamp w.vhd", ""),
    ] {
        let way = format!("{image} {prepare} {command}");
        lab.shell(&format!(
            "rm -f w.*; cp base.raw w.raw; cp base.vhd w.vhd; {prepare}"
        ))
        .code(0);
        let old = lab.read(image);
        let names = lab.names();
        let ended = lab.shell(&format!("vhd-apply -q {image} lie.vhddiff {command}"));
        assert_eq!(ended.code, 3, "{way}: {}", ended.err);
        assert!(lab.read(image) == old, "{way}");
        assert_eq!(lab.names(), names, "{way}");
        if !prepare.is_empty() {
            // What was known of it still is.
            let info = lab.shell(&format!("vhd info --json {image}")).code(0);
            info.says("\"valid\":true");
        }
    }
    // To new files; the last ones to a clone of a base that is known, where there are clones.
    for command in [
        "vhd-apply -q base.raw lie.vhddiff -o new.raw",
        "vhd-apply -q base.raw lie.vhddiff -o new.vhd",
        "vhd-apply -q base.vhd lie.vhddiff -o new.vhd -O differencing",
        "vhd squash -q lie.vhddiff -o new.vhddiff && vhd-apply -q base.raw new.vhddiff -o new.raw",
        "vhd hash --stamp base.raw && vhd-apply -q base.raw lie.vhddiff -o new.raw",
        "vhd hash --stamp base.vhd && rm -f base.vhd.windows && vhd-apply -q base.vhd lie.vhddiff -o new.vhd",
    ] {
        lab.shell("rm -f new.*").code(0);
        let ended = lab.shell(command);
        assert_eq!(ended.code, 3, "{command}: {}", ended.err);
        assert!(
            !lab.exists("new.raw") && !lab.exists("new.vhd"),
            "{command}"
        );
    }
    // In a store, and out of it into another.
    lab.shell("cp lie.vhddiff S/w/000002-target.vhddiff")
        .code(0);
    for (command, made) in [
        (
            "vhd snapshot restore -q target --store S -o new.raw",
            "new.raw",
        ),
        (
            "vhd snapshot copy --init -q --store S --to T",
            "T/w/000002-target.json",
        ),
        (
            "set -o pipefail; vhd snapshot send -q --store S | vhd snapshot receive --init -q --store R",
            "R/w/000002-target.json",
        ),
    ] {
        lab.shell("rm -f new.*").code(0);
        let ended = lab.shell(command);
        assert_eq!(ended.code, 3, "{command}: {}", ended.err);
        assert!(!lab.exists(made), "{command}");
    }
    assert!(lab.read("base.raw") == base);
}
