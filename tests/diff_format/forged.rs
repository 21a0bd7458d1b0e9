//! Diffs that a mistaken or malicious program could write: all checksums, numbers and digests are right, what they
//! cover isn't. Only the rules of the structure can tell.

use std::io::{self, Read};

use proptest::prelude::*;
use vhdkit::ErrorKind::{Damaged, Unsupported};
use vhdkit::diff::{Compression, DiffReader};
use vhdkit::{Error, ErrorKind};

use crate::sections::{
    END, Section, complete, cut, index, kind, number, offsets, place_tail, put_u16, put_u32,
    put_u64, seal, u32_at, u64_at,
};
use crate::support::{WINDOW, change, diff, error, header, mixed, mixed_stored, read, verify};

/// The header and frames of [`mixed`], and the trailer's digests.
fn parts() -> (Vec<Section>, Vec<u8>) {
    let mut sections = cut(&mixed());
    let tail = sections.pop().unwrap();
    sections.pop();
    (sections, tail[56..128].to_vec())
}

/// A diff whose frames were changed by `forge`; index and trailer agree with them.
fn frames(forge: impl Fn(&mut Vec<Section>)) -> Vec<u8> {
    let (mut sections, digests) = parts();
    forge(&mut sections);
    seal(&complete(sections, &digests))
}

/// A diff of which everything was changed by `forge` after index and trailer were made.
fn all(forge: impl Fn(&mut Vec<Section>)) -> Vec<u8> {
    let (sections, digests) = parts();
    let mut sections = complete(sections, &digests);
    forge(&mut sections);
    seal(&sections)
}

fn refused(what: &str, diff: &[u8], kind: ErrorKind) -> Error {
    let error = error(diff, what);
    assert_eq!(error.kind(), kind, "{what}: {error:?}");
    error
}

#[test]
fn the_forger_makes_true_diffs_when_it_changes_nothing() {
    for diff in [mixed(), mixed_stored()] {
        assert!(seal(&cut(&diff)) == diff);
    }
    assert!(frames(|_| {}) == mixed());
    assert!(all(|_| {}) == mixed());
}

type Forgery = (&'static str, fn(&mut Vec<Section>));

/// The sections of [`mixed`]: HEAD, PAGE (3 ranges, zstd), CLER, PAGE (1 range), PAGE (2 ranges), INDX, TAIL.
const FIRST: usize = 1;
const CLEAR: usize = 2;
const LAST: usize = 4;
const INDEX: usize = 5;
const TAIL: usize = 6;

#[test]
fn frames_that_break_a_rule_are_refused_however_well_they_are_sealed() {
    let forgeries: &[Forgery] = &[
        ("frames swapped", |s| s.swap(3, 4)),
        ("clear before the frame it follows", |s| s.swap(1, 2)),
        ("frame repeated", |s| s.insert(3, s[3].clone())),
        ("clear repeated", |s| s.insert(2, s[2].clone())),
        ("frame at an odd window", |s| {
            put_u64(&mut s[FIRST], 16, 512);
        }),
        ("frame in a window beyond the target", |s| {
            put_u64(&mut s[LAST], 16, 6 * WINDOW);
        }),
        ("window at the end of 64 bits", |s| {
            put_u64(&mut s[LAST], 16, u64::MAX - (WINDOW - 1));
        }),
        ("range beyond the target", |s| put_u16(&mut s[LAST], 76, 3)),
        ("range reaching beyond the target", |s| {
            put_u16(&mut s[LAST], 78, 1);
            put_u32(&mut s[LAST], 24, 1536);
        }),
        ("range beyond the window", |s| {
            put_u16(&mut s[FIRST], 80, 8192);
        }),
        ("range reaching beyond the window", |s| {
            put_u16(&mut s[FIRST], 80, 8191);
        }),
        ("range at the last page that fits 16 bits", |s| {
            put_u16(&mut s[3], 72, u16::MAX);
        }),
        ("range of the most pages that fit", |s| {
            put_u16(&mut s[3], 74, 0x7fff);
        }),
        ("ranges overlap", |s| put_u16(&mut s[FIRST], 76, 1)),
        ("ranges out of order", |s| put_u16(&mut s[FIRST], 80, 0)),
        ("neighbours of a kind not joined", |s| {
            put_u16(&mut s[LAST], 76, 1);
        }),
        ("clear where the payload has data", |s| {
            put_u16(&mut s[FIRST], 74, 0x8000);
        }),
        ("update where the payload has none", |s| {
            put_u16(&mut s[FIRST], 78, 0);
        }),
        ("payload_len too short", |s| {
            put_u32(&mut s[FIRST], 24, 1024);
        }),
        ("payload_len too long", |s| put_u32(&mut s[FIRST], 24, 2048)),
        ("payload_len no pages", |s| put_u32(&mut s[FIRST], 24, 1537)),
        ("payload_len beyond a window", |s| {
            put_u32(&mut s[FIRST], 24, (4 << 20) + 512);
        }),
        ("payload_len huge", |s| put_u32(&mut s[FIRST], 24, u32::MAX)),
        ("stored although shorter", |s| s[FIRST][32] = 0),
        ("reserved", |s| s[FIRST][33] = 1),
        ("reserved, the last", |s| s[FIRST][35] = 0x80),
        ("no ranges", |s| {
            put_u32(&mut s[3], 4, 0);
            s[3].drain(72..76);
        }),
        ("clear with ranges", |s| put_u32(&mut s[CLEAR], 4, 1)),
        ("clear of nothing", |s| put_u64(&mut s[CLEAR], 24, 0)),
        ("clear from an odd start", |s| {
            put_u64(&mut s[CLEAR], 16, WINDOW + 512);
        }),
        ("clear of an odd length", |s| {
            put_u64(&mut s[CLEAR], 24, WINDOW + 1);
        }),
        ("clear of half a window", |s| {
            put_u64(&mut s[CLEAR], 24, WINDOW / 2);
        }),
        ("clear beyond the target", |s| {
            put_u64(&mut s[CLEAR], 24, 5 * WINDOW);
        }),
        ("clear to the end of 64 bits", |s| {
            put_u64(&mut s[CLEAR], 24, u64::MAX - WINDOW + 1);
        }),
        ("clear beyond 64 bits", |s| {
            put_u64(&mut s[CLEAR], 24, u64::MAX);
        }),
        ("clear over the next frame", |s| {
            put_u64(&mut s[CLEAR], 24, 3 * WINDOW);
        }),
    ];
    for (what, forge) in forgeries {
        refused(what, &frames(forge), Damaged);
    }
}

#[test]
fn more_ranges_than_a_window_has_pages_are_refused() {
    for count in [8193, u32::MAX] {
        refused(
            "ranges",
            &all(|s| {
                let mut frame = s[3][..72].to_vec();
                put_u32(&mut frame, 4, count);
                frame.resize(72 + 4 * 8193 + 4, 0);
                s[3] = frame;
            }),
            Damaged,
        );
    }
}

#[test]
fn sections_lost_repeated_or_moved_are_refused_though_renumbered() {
    let renumbered: &[Forgery] = &[
        ("frame lost", |s| drop(s.remove(3))),
        ("last frame lost", |s| drop(s.remove(LAST))),
        ("clear lost", |s| drop(s.remove(CLEAR))),
        ("index lost", |s| drop(s.remove(INDEX))),
        ("index repeated", |s| s.insert(INDEX, s[INDEX].clone())),
        ("index too early", |s| s.swap(LAST, INDEX)),
        ("empty index", |s| s.insert(TAIL, index(&[]))),
        ("all frames lost", |s| drop(s.drain(1..TAIL))),
        ("a second header", |s| s.insert(1, s[0].clone())),
    ];
    for (what, forge) in renumbered {
        let forged = all(|sections| {
            forge(sections);
            number(sections);
            place_tail(sections);
        });
        let kind = if *what == "a second header" {
            Unsupported
        } else {
            Damaged
        };
        refused(what, &forged, kind);
    }
    // Not renumbered, the sequence tells at once.
    let error = refused("frame lost", &all(|s| drop(s.remove(3))), Damaged);
    let third = offsets(&cut(&mixed()))[3];
    assert_eq!(
        (error.field_name(), error.at()),
        (Some("sequence"), Some(third))
    );
}

#[test]
fn an_index_segment_that_ends_early_is_refused() {
    let two = all(|s| {
        let entry = |n: usize| [0, 8, 16].map(|at| u64_at(&s[INDEX], 16 + 24 * n + at));
        let (early, mut late) = (index(&[entry(0), entry(1)]), [entry(2), entry(3)]);
        for entry in &mut late {
            entry[2] += early.len() as u64;
        }
        let (first, last) = ([entry(0)[0], entry(1)[1]], [late[0][0], late[1][1]]);
        let at = offsets(s);
        s[INDEX] = index(&late);
        s.insert(3, early);
        let tail = s.last_mut().unwrap();
        put_u32(tail, 4, 2);
        let root = [first[0], first[1], at[3], last[0], last[1], at[INDEX] + 68];
        let root: Vec<u8> = root.iter().flat_map(|n| n.to_be_bytes()).collect();
        tail.splice(128..152, root);
        number(s);
        place_tail(s);
    });
    assert_eq!(
        refused("early index", &two, Damaged).message(),
        "an index section is missing or too early"
    );
}

#[test]
fn a_wrong_index_or_trailer_is_refused_however_well_it_is_sealed() {
    for at in (16..16 + 24 * 4).step_by(8) {
        for by in [1, 512, u64::MAX] {
            let forged = all(|s| {
                let n = u64_at(&s[INDEX], at).wrapping_add(by);
                put_u64(&mut s[INDEX], at, n);
            });
            refused(&format!("index entry at {at} by {by}"), &forged, Damaged);
        }
    }
    for at in (16..56).chain(128..152).chain(152..160).step_by(8) {
        for by in [1, 512, u64::MAX] {
            let forged = all(|s| {
                let n = u64_at(&s[TAIL], at).wrapping_add(by);
                put_u64(&mut s[TAIL], at, n);
            });
            refused(&format!("trailer at {at} by {by}"), &forged, Damaged);
        }
    }
    let forgeries: &[Forgery] = &[
        ("entries in the wrong order", |s| {
            let (a, b) = s[INDEX][16..64].split_at_mut(24);
            a.swap_with_slice(b);
        }),
        ("fewer entries than frames", |s| {
            put_u32(&mut s[INDEX], 4, 3);
            s[INDEX].drain(16..40);
            place_tail(s);
        }),
        ("more entries than a segment may have", |s| {
            put_u32(&mut s[INDEX], 4, 4097);
            s[INDEX].resize(20 + 24 * 4097, 0);
            place_tail(s);
        }),
        ("segments more", |s| put_u32(&mut s[TAIL], 4, 2)),
        ("segments none", |s| put_u32(&mut s[TAIL], 4, 0)),
        ("segments huge", |s| put_u32(&mut s[TAIL], 4, u32::MAX)),
        ("segments none, root cut", |s| {
            put_u32(&mut s[TAIL], 4, 0);
            s[TAIL].drain(128..152);
        }),
        ("unknown flag", |s| s[TAIL][56] = 0x80),
        ("unknown flag, low", |s| s[TAIL][59] |= 4),
        ("reserved", |s| s[TAIL][60] = 1),
        ("digest without its flag", |s| s[TAIL][59] = 1),
        ("digest without its flag, the other", |s| s[TAIL][59] = 2),
    ];
    for (what, forge) in forgeries {
        refused(what, &all(forge), Damaged);
    }
    let mut magic = mixed();
    *magic.last_mut().unwrap() = 0x88;
    refused("end magic", &magic, Damaged);
    let mut digest = mixed();
    let at = digest.len() - END + 8;
    digest[at] ^= 1;
    assert_eq!(
        refused("digest", &digest, Damaged).field_name(),
        Some("digest")
    );
}

#[test]
fn a_frame_left_out_by_a_true_writer_is_another_diff() {
    let other = verify(&frames(|s| drop(s.remove(3)))).unwrap();
    assert_ne!(other, verify(&mixed()).unwrap());
}

/// A record of the header.
fn record(tag: u16, value: &[u8]) -> Vec<u8> {
    let len = u32::try_from(value.len()).unwrap();
    [&tag.to_be_bytes()[..], &len.to_be_bytes(), value].concat()
}

/// A diff with these records, and nothing else.
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
            |s| put_u32(&mut s[0], 12, 1),
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

/// A diff of one frame of two pages, packed as `stored`.
fn packed(stored: &[u8]) -> Vec<u8> {
    let one = diff(
        &header(WINDOW, WINDOW),
        vec![change(0, &[(0, 2, 1)])],
        Compression::default(),
    );
    let mut sections = cut(&one);
    let digests = sections[3][56..128].to_vec();
    sections.truncate(2);
    let frame = &mut sections[1];
    assert_eq!(frame[32], 1, "packed");
    frame.truncate(80);
    frame.extend(stored);
    put_u32(frame, 28, u32::try_from(stored.len()).unwrap());
    seal(&complete(sections, &digests))
}

#[test]
fn a_payload_that_unpacks_to_something_else_is_refused() {
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).unwrap();
    let good = packed(&zstd(&[1; 1024]));
    assert_eq!(read(good.as_slice()).unwrap().frames[0].3, [1; 1024]);
    // Without its size in its head, as a stream is packed.
    let stream = zstd::stream::encode_all(&[1; 1024][..], 3).unwrap();
    assert_eq!(
        read(packed(&stream).as_slice()).unwrap().frames[0].3,
        [1; 1024]
    );
    let bomb = zstd(&vec![0; 64 << 20]);
    let bomb_stream = zstd::stream::encode_all(io::repeat(0).take(4 << 20), 3).unwrap();
    let cut = &zstd(&[1; 1024]);
    for (what, stored) in [
        ("too little", zstd(&[1; 1023])),
        ("too much", zstd(&[1; 1025])),
        ("nothing", zstd(&[])),
        ("no bytes", Vec::new()),
        ("no zstd", vec![0xaa; 100]),
        ("cut off", cut[..cut.len() - 1].to_vec()),
        ("more behind", [cut, &b"x"[..]].concat()),
        (
            "far too much, small",
            if bomb_stream.len() < 1024 {
                bomb_stream
            } else {
                zstd(&[0; 9000])
            },
        ),
        ("two frames", [zstd(&[1; 512]), zstd(&[1; 512])].concat()),
        (
            "an empty frame before",
            [zstd(&[]), zstd(&[1; 1024])].concat(),
        ),
        (
            "a skippable frame before",
            [&b"\x50\x2a\x4d\x18\x01\0\0\0x"[..], &zstd(&[1; 1024])].concat(),
        ),
        (
            "two frames that are too much",
            [zstd(&[1; 1024]), zstd(&[1; 1024])].concat(),
        ),
    ] {
        let forged = packed(&stored);
        // All its checksums are right: this shows when it is unpacked.
        verify(&forged).unwrap();
        let error = read(forged.as_slice()).unwrap_err();
        assert_eq!(error.kind(), Damaged, "{what}: {error:?}");
        assert!(
            error
                .field_name()
                .is_some_and(|field| field.contains("0..1024")),
            "{what}: {error:?}"
        );
    }
    // More stored than there is data isn't even tried.
    refused("longer than the data", &packed(&bomb), Damaged);
}

/// Watches that nobody asks for more at once than a frame can have.
struct Watched<'a> {
    bytes: &'a [u8],
    most: usize,
}

impl Read for Watched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        assert!(buf.len() <= self.most, "asks for {} bytes", buf.len());
        self.bytes.read(buf)
    }
}

#[test]
fn no_count_is_believed_before_it_is_checked() {
    let huge: &[Forgery] = &[
        ("header_length", |s| put_u32(&mut s[0], 16, u32::MAX)),
        ("ranges", |s| put_u32(&mut s[FIRST], 4, u32::MAX)),
        ("payload_len", |s| put_u32(&mut s[FIRST], 24, u32::MAX)),
        ("stored_len", |s| put_u32(&mut s[FIRST], 28, u32::MAX)),
        ("clear", |s| put_u64(&mut s[CLEAR], 24, 1 << 62)),
        ("entries", |s| put_u32(&mut s[INDEX], 4, u32::MAX)),
        ("segments", |s| put_u32(&mut s[TAIL], 4, u32::MAX)),
    ];
    for (what, forge) in huge {
        // Sealed as far as that goes: the checksum of what claims to be longer than the file can't be.
        let (sections, digests) = parts();
        let mut sections = complete(sections, &digests);
        let limits: Vec<_> = sections.iter().map(Vec::len).collect();
        forge(&mut sections);
        let total: usize = limits.iter().sum();
        let bytes = seal(&sections);
        assert!(bytes.len() <= total);
        let input = Watched {
            bytes: &bytes,
            most: 4096,
        };
        let result = DiffReader::new(input, "watched").and_then(|mut reader| {
            while reader.next_frame()?.is_some() {}
            Ok(())
        });
        assert!(result.is_err(), "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    /// Random bytes in a well-sealed diff: refused, or another diff that keeps all the rules.
    #[test]
    fn a_mutated_and_sealed_diff_is_refused_or_keeps_the_rules(
        which in 0..7_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0), Just(1), Just(0xff)]), 1..4),
        agree: bool,
    ) {
        let (mut sections, digests) = parts();
        let mut all = complete(sections.clone(), &digests);
        let edit = |section: &mut Section| {
            let head = section.len().min(if kind(section) == "PAGE" { 84 } else { usize::MAX });
            for (at, byte) in &edits {
                section[4 + at.index(head - 4)] = *byte;
            }
        };
        let forged = if agree && which <= LAST && which > 0 {
            edit(&mut sections[which]);
            // A count must still fit the section for its checksum to have a place.
            if kind(&sections[which]) == "PAGE" {
                let ranges = u32_at(&parts().0[which], 4);
                put_u32(&mut sections[which], 4, ranges);
            }
            seal(&complete(sections, &digests))
        } else {
            edit(&mut all[which]);
            if kind(&all[which]) == "PAGE" {
                let ranges = u32_at(&parts().0[which], 4);
                put_u32(&mut all[which], 4, ranges);
            }
            seal(&all)
        };
        let verified = verify(&forged);
        if let Err(error) = &verified {
            prop_assert!(matches!(error.kind(), Damaged | Unsupported), "{error:?}");
            return Ok(());
        }
        match read(forged.as_slice()) {
            Err(error) => prop_assert_eq!(error.kind(), Damaged),
            Ok(meaning) => {
                let mut end = 0;
                for (changes, _, _, payload) in &meaning.frames {
                    let span = changes.span().unwrap();
                    prop_assert!(span.start() >= end && span.end() <= meaning.header.target_size);
                    prop_assert_eq!(payload.len() as u64, changes.bytes(vhdkit::page::ChangeKind::Update));
                    end = span.end();
                }
            }
        }
    }
}
