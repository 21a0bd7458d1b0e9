//! Payloads that unpack to something else, impossible counts, and random forgeries.

use std::io::{self, Read};

use proptest::prelude::*;
use vhdkit::ErrorKind::{Damaged, Unsupported};
use vhdkit::diff::{Compression, DiffReader};

use crate::diff_format::forged::{CLEAR, FIRST, Forgery, INDEX, LAST, TAIL, parts, refused};
use crate::diff_format::sections::{Section, complete, cut, kind, put_u32, put_u64, seal, u32_at};
use crate::diff_format::support::{WINDOW, change, diff, header, read, verify};

/// Returns a diff of one frame of two pages whose packed payload is `stored`.
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
    // Streaming compression leaves the content size out of the frame header.
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
        // All checksums are right, so this only shows when it is unpacked.
        verify(&forged).unwrap();
        let error = read(forged.as_slice()).unwrap_err();
        assert_eq!(error.kind(), Damaged, "{what}: {error:?}");
        assert!(
            error.field().is_some_and(|field| field.contains("0..1024")),
            "{what}: {error:?}"
        );
    }
    // A payload that is longer stored than unpacked isn't even tried.
    refused("longer than the data", &packed(&bomb), Damaged);
}

/// Asserts that no single read asks for more than a frame can have.
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
        // Sealed as far as possible: a section that claims to be longer than the file has no place for its checksum.
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

    /// A sealed diff with random bytes is refused, or it is a different diff that follows all the rules.
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
            // The count must still fit into the section, or its checksum has no place.
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
