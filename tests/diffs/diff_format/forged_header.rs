//! Headers and records that break a rule but have a right checksum.

use vhdkit::ErrorKind;
use vhdkit::ErrorKind::{Damaged, Unsupported};
use vhdkit::diff::Compression;

use crate::diff_format::forged::{FIRST, all, refused};
use crate::diff_format::sections::{Section, cut, place_tail, put_u32, put_u64, seal, u32_at};
use crate::diff_format::support::{diff, header, verify};

/// Encodes a record of the header.
fn record(tag: u16, value: &[u8]) -> Vec<u8> {
    let len = u32::try_from(value.len()).unwrap();
    [&tag.to_be_bytes()[..], &len.to_be_bytes(), value].concat()
}

/// Returns a diff that consists of a header with these records.
fn with_records(records: &[Vec<u8>]) -> Vec<u8> {
    let size = header(512, 512);
    let mut sections = cut(&diff(&size, Vec::new(), Compression::None));
    let head = &mut sections[0];
    head.truncate(48);
    head.extend(records.concat());
    head.extend([0; 4]);
    let len = u32::try_from(head.len()).unwrap();
    put_u32(head, 16, len);
    place_tail(&mut sections);
    seal(&sections)
}

type HeaderForgery = (&'static str, fn(&mut Vec<Section>), ErrorKind);

#[test]
fn a_header_that_breaks_a_rule_is_refused_however_well_it_is_sealed() {
    let forgeries: &[HeaderForgery] = &[
        ("version 0", |s| put_u32(&mut s[0], 8, 0), Unsupported),
        ("version 2", |s| put_u32(&mut s[0], 8, 2), Unsupported),
        (
            "must_understand",
            |s| put_u32(&mut s[0], 12, 2),
            Unsupported,
        ),
        ("header_length 0", |s| put_u32(&mut s[0], 16, 0), Damaged),
        ("header_length 51", |s| put_u32(&mut s[0], 16, 51), Damaged),
        (
            "header_length one less",
            |s| {
                let n = u32_at(&s[0], 16) - 1;
                put_u32(&mut s[0], 16, n);
            },
            Damaged,
        ),
        (
            "header_length too long",
            |s| put_u32(&mut s[0], 16, (1 << 20) + 1),
            Damaged,
        ),
        (
            "header_length huge",
            |s| put_u32(&mut s[0], 16, u32::MAX),
            Damaged,
        ),
        ("page_size", |s| put_u32(&mut s[0], 20, 4096), Unsupported),
        (
            "window_size",
            |s| put_u32(&mut s[0], 24, 8 << 20),
            Unsupported,
        ),
        ("reserved", |s| put_u32(&mut s[0], 28, 1), Unsupported),
        (
            "base_size no pages",
            |s| put_u64(&mut s[0], 32, 513),
            Damaged,
        ),
        (
            "base_size beyond the limit",
            |s| put_u64(&mut s[0], 32, 1 << 63),
            Damaged,
        ),
        (
            "target_size no pages",
            |s| put_u64(&mut s[0], 40, 511),
            Damaged,
        ),
        (
            "target_size beyond the limit",
            |s| put_u64(&mut s[0], 40, u64::MAX - 511),
            Damaged,
        ),
        (
            "target_size too small for the frames",
            |s| put_u64(&mut s[0], 40, 0),
            Damaged,
        ),
        ("codec", |s| s[FIRST][32] = 2, Unsupported),
        (
            "section type",
            |s| s[FIRST][..4].copy_from_slice(b"page"),
            Unsupported,
        ),
    ];
    for (what, forge, kind) in forgeries {
        refused(what, &all(forge), *kind);
    }
}

#[test]
fn records_that_break_a_rule_are_refused_and_unknown_ones_by_their_bit() {
    assert!(verify(&with_records(&[])).is_ok());
    let bad: &[(&str, Vec<Vec<u8>>, ErrorKind)] = &[
        ("text that isn't UTF-8", vec![record(1, b"\xff")], Damaged),
        ("half an identity", vec![record(2, &[0; 33])], Damaged),
        (
            "unique id too short",
            vec![record(0x103, &[0; 15])],
            Damaged,
        ),
        ("time too long", vec![record(0x204, &[0; 9])], Damaged),
        (
            "footer of 511 bytes",
            vec![record(0x208, &[0; 511])],
            Damaged,
        ),
        ("repeated", vec![record(1, b"a"), record(1, b"b")], Damaged),
        (
            "out of order",
            vec![record(0x101, b"a"), record(1, b"b")],
            Damaged,
        ),
        ("tag 0", vec![record(0, b"")], Damaged),
        ("cut lead", vec![vec![0, 1, 0, 0, 0]], Damaged),
        (
            "value beyond the end",
            vec![vec![0, 1, 0, 0, 0, 9, 1]],
            Damaged,
        ),
        (
            "value far beyond the end",
            vec![vec![0, 1, 0xff, 0xff, 0xff, 0xff, 1]],
            Damaged,
        ),
        ("must be understood", vec![record(0x8001, b"")], Unsupported),
        (
            "must be understood, of a side",
            vec![record(0x8101, b"")],
            Unsupported,
        ),
    ];
    for (what, records, kind) in bad {
        refused(what, &with_records(records), *kind);
    }
    for tag in [3, 0x7f, 0x109, 0x2ff, 0x300, 0x7fff] {
        assert!(
            verify(&with_records(&[record(tag, b"later")])).is_ok(),
            "{tag:#x}"
        );
    }
}
