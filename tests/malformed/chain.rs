//! What differencing disks say of their parents, and what is found of them.

use vhdkit::storage::Memory;
use vhdkit::vhd::{
    ChainLookup, ChainState, CheckOptions, DynamicHeader, Footer, FoundParent, Timestamp, UniqueId,
    check,
};

use super::lines;
use super::writers::{Writer, edit_header, put32, put64, seal, utf16_le};

type Case = (&'static str, Vec<u8>, &'static [&'static str]);

const CHILD: Writer = Writer {
    size: 64 << 10,
    block_size: 64 << 10,
    ..Writer::WINDOWS
};

/// A child with a changed header.
fn child(change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut file = CHILD.windows_child();
    edit_header(&mut file, change);
    file
}

/// A child whose relative locator holds `path`.
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
    fn look_up(&self, _: &Footer, _: &DynamicHeader) -> ChainState {
        self.0.clone()
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
            ChainState::Missing(name.clone()),
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
            ChainState::Damaged(name),
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
        // With a time stamp that isn't that of the parent's file.
        if let ChainState::Found(_) = answer.0 {
            let stamped = child(|h| put32(h, 56, 5));
            let report = check(&Memory::new(stamped), &options).unwrap();
            let stamped = lines(&report).contains(&"warning parent-timestamp chain".to_string());
            assert!(stamped);
        }
    }
}
