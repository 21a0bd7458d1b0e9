//! The parent fields of differencing disks, and which parents are found from them.

use vhdkit::storage::Memory;
use vhdkit::vhd::{
    ChainLookup, ChainState, CheckOptions, DynamicHeader, Footer, FoundParent, Timestamp, Trouble,
    UniqueId, check,
};

use super::lines;
use crate::vhd_writers::{Writer, edit_header, put32, put64, seal, utf16_le};

type Case = (&'static str, Vec<u8>, &'static [&'static str]);

const CHILD: Writer = Writer {
    size: 64 << 10,
    block_size: 64 << 10,
    ..Writer::WINDOWS
};

/// Returns a child with a changed header.
fn child(change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut file = CHILD.windows_child();
    edit_header(&mut file, change);
    file
}

/// Returns a child whose relative locator holds `path`.
fn with_path(path: &str) -> Vec<u8> {
    let path = utf16_le(path);
    let mut file = child(|h| put32(&mut h[600..], 8, u32::try_from(path.len()).unwrap()));
    file[12_288..12_288 + path.len()].copy_from_slice(&path);
    file
}

pub(super) fn cases() -> Vec<Case> {
    let relative = |at: usize, value: u32| child(move |h| put32(&mut h[600..], at, value));
    let own_name = child(|h| {
        h[64..576].fill(0);
        for (n, unit) in "child.vhd".encode_utf16().enumerate() {
            h[64 + n * 2..66 + n * 2].copy_from_slice(&unit.to_be_bytes());
        }
        h[576..768].fill(0);
    });
    vec![
        ("child as Windows makes it", child(|_| {}), &[]),
        (
            "no locators, but a name",
            child(|h| h[576..768].fill(0)),
            &[],
        ),
        (
            "neither locators nor a name",
            child(|h| h[64..768].fill(0)),
            &["error parent-unnamed chain"],
        ),
        ("child names itself", own_name, &["error parent-self chain"]),
        (
            "child and parent with one id",
            {
                let mut file = child(|h| h[40..56].copy_from_slice(&CHILD.id));
                seal(&mut file[512..1536]);
                file
            },
            &[],
        ),
        (
            "nil id: raw parent",
            child(|h| h[40..56].fill(0)),
            &["warning parent-raw header.parent_unique_id"],
        ),
        (
            "lone surrogate in the name",
            child(|h| h[64..66].copy_from_slice(&[0xD8, 0])),
            &[],
        ),
        (
            "locator past the end",
            child(|h| put64(&mut h[600..], 16, 1 << 40)),
            &["warning locator-place header.parent_locator[1].data_offset"],
        ),
        (
            "locator over the BAT",
            child(|h| put64(&mut h[600..], 16, 8192)),
            &["warning locator-place header.parent_locator[1].data_offset"],
        ),
        (
            "locator over the header",
            child(|h| put64(&mut h[600..], 16, 600)),
            &["warning locator-place header.parent_locator[1].data_offset"],
        ),
        (
            "locator under a block",
            child(|h| put64(&mut h[600..], 16, 159 * 512)),
            &[
                "warning locator-path header.parent_locator[1].data_offset",
                "warning locator-place header.parent_locator[1].data_offset",
            ],
        ),
        (
            "locator of 2 GiB",
            relative(8, 1 << 31),
            &["warning locator-length header.parent_locator[1].data_length"],
        ),
        (
            "locator of odd length",
            relative(8, 21),
            &["warning locator-length header.parent_locator[1].data_length"],
        ),
        (
            "locator of unknown kind",
            child(|h| h[600..604].copy_from_slice(b"XXXX")),
            &["warning locator-code header.parent_locator[1].platform_code"],
        ),
        (
            "two locators of one kind",
            child(|h| h[600..604].copy_from_slice(b"W2ku")),
            &["warning locator-duplicate header.parent_locator[1].platform_code"],
        ),
        (
            "locator's reserved field",
            relative(12, 1),
            &["warning locator-reserved header.parent_locator[1].reserved"],
        ),
        ("locator's room in sectors", relative(4, 1), &[]),
        (
            "locator out of the folder",
            with_path("..\\..\\etc\\shadow"),
            &["warning locator-path header.parent_locator[1].data_offset"],
        ),
        (
            "locator to a server",
            with_path("\\\\server\\share\\x.vhd"),
            &["warning locator-path header.parent_locator[1].data_offset"],
        ),
        (
            "locator to a device",
            with_path("\\\\.\\PhysicalDrive0"),
            &["warning locator-path header.parent_locator[1].data_offset"],
        ),
    ]
}

struct Answer(ChainState);

impl ChainLookup for Answer {
    fn look_up(&self, _: &Footer, _: &DynamicHeader) -> vhdkit::Result<ChainState> {
        Ok(self.0.clone())
    }
}

#[test]
fn what_is_found_of_a_chain_is_judged() {
    let parent = FoundParent {
        file: "base.vhd".into(),
        unique_id: Some(UniqueId(*b"parent-unique-id")),
        virtual_size: 64 << 10,
        modified: Some(Timestamp(77)),
        depth: 2,
    };
    let found = |parent: FoundParent| ChainState::Found(parent);
    let name = String::from("x.vhd");
    let trouble = || Trouble {
        found: "no x.vhd".into(),
        remedy: None,
    };
    for (state, expected) in [
        (found(parent.clone()), vec![]),
        (
            found(FoundParent {
                unique_id: None,
                ..parent.clone()
            }),
            vec![],
        ),
        (
            found(FoundParent {
                virtual_size: 512,
                ..parent.clone()
            }),
            vec![],
        ),
        (
            found(FoundParent {
                virtual_size: 1 << 20,
                ..parent.clone()
            }),
            vec!["error parent-larger chain"],
        ),
        (
            found(FoundParent {
                unique_id: Some(UniqueId([1; 16])),
                ..parent.clone()
            }),
            vec!["error parent-mismatch chain"],
        ),
        (
            found(FoundParent {
                depth: 31,
                ..parent.clone()
            }),
            vec!["warning chain-long chain"],
        ),
        (
            ChainState::Missing(trouble()),
            vec!["error parent-missing chain"],
        ),
        (
            ChainState::Itself(name.clone()),
            vec!["error parent-self chain"],
        ),
        (
            ChainState::Loop(name.clone()),
            vec!["error parent-loop chain"],
        ),
        (ChainState::TooDeep(64), vec!["error chain-depth chain"]),
        (
            ChainState::Damaged(trouble()),
            vec!["error parent-damaged chain"],
        ),
    ] {
        let answer = Answer(state);
        let options = CheckOptions {
            chain: Some(&answer),
            ..super::options()
        };
        let report = check(&Memory::new(child(|_| {})), &options).unwrap();
        assert_eq!(lines(&report), expected);
        // With a time stamp that differs from that of the parent's file.
        if let ChainState::Found(_) = answer.0 {
            let stamped = child(|h| put32(h, 56, 5));
            let report = check(&Memory::new(stamped), &options).unwrap();
            let stamped = lines(&report).contains(&"warning parent-timestamp chain".to_string());
            assert!(stamped);
        }
    }
}

/// Checks files, whose parents are looked for in their folder.
#[test]
fn parents_are_looked_for_among_files() {
    use std::fs;
    use vhdkit::files::{ParentOptions, check_file};

    let folder = tempfile::tempdir().unwrap();
    let child_at = folder.path().join("child.vhd");
    let base_at = folder.path().join("base.vhd");
    let found = |parents: &ParentOptions| {
        let report = check_file(&child_at, &super::options(), parents).unwrap();
        lines(&report)
    };
    let here = ParentOptions::default();
    fs::write(&child_at, child(|_| {})).unwrap();
    assert_eq!(found(&here), ["error parent-missing chain"]);

    let base = Writer {
        id: *b"parent-unique-id",
        ..CHILD
    };
    fs::write(&base_at, base.fixed()).unwrap();
    assert_eq!(found(&here), [""; 0]);

    fs::write(&base_at, CHILD.fixed()).unwrap();
    assert_eq!(found(&here), ["error parent-mismatch chain"]);

    let larger = Writer {
        size: 128 << 10,
        ..base
    };
    fs::write(&base_at, larger.fixed()).unwrap();
    assert_eq!(found(&here), ["error parent-larger chain"]);

    let mut damaged = base.dynamic(0xFF, true);
    edit_header(&mut damaged, |h| put32(h, 32, 0));
    fs::write(&base_at, damaged).unwrap();
    assert_eq!(found(&here), ["error parent-damaged chain"]);

    // A parent that is a child of its own child.
    let mut below = child(|h| {
        h[40..56].copy_from_slice(&CHILD.id);
        let name = "child.vhd".encode_utf16().chain([0; 30]);
        for (n, unit) in name.enumerate() {
            h[64 + n * 2..66 + n * 2].copy_from_slice(&unit.to_be_bytes());
        }
        h[576..768].fill(0);
    });
    crate::vhd_writers::edit_footers(&mut below, |f| {
        f[68..84].copy_from_slice(b"parent-unique-id");
    });
    fs::write(&base_at, below).unwrap();
    assert_eq!(found(&here), ["error parent-loop chain"]);

    // A child that is its own parent.
    fs::remove_file(&base_at).unwrap();
    let own = folder.path().join("base.vhd");
    let itself = child(|h| h[40..56].copy_from_slice(&CHILD.id));
    fs::write(&own, itself).unwrap();
    let report = check_file(&own, &super::options(), &here).unwrap();
    assert_eq!(lines(&report), ["error parent-self chain"]);

    // A raw parent is looked for only if that is allowed.
    fs::remove_file(&own).unwrap();
    fs::write(&child_at, child(|h| h[40..56].fill(0))).unwrap();
    let warned = "warning parent-raw header.parent_unique_id";
    assert_eq!(found(&here), [warned]);
    let raw = ParentOptions {
        allow_raw: true,
        ..ParentOptions::default()
    };
    assert_eq!(found(&raw), ["error parent-missing chain", warned]);
    fs::write(&base_at, [1; 4096]).unwrap();
    assert_eq!(found(&raw), [warned]);
}
