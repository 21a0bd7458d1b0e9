//! Diffs that a faulty or malicious program could write: all checksums, numbers and digests are right, but what they
//! cover isn't. Only the structural rules can catch them.

use vhdkit::ErrorKind::{Damaged, Unsupported};
use vhdkit::{Error, ErrorKind};

use crate::diff_format::sections::{
    END, Section, complete, cut, index, number, offsets, place_tail, put_u16, put_u32, put_u64,
    seal, u64_at,
};
use crate::diff_format::support::{WINDOW, error, mixed, mixed_stored, verify};

/// Returns the header and frames of [`mixed`], and the trailer's digests.
pub(crate) fn parts() -> (Vec<Section>, Vec<u8>) {
    let mut sections = cut(&mixed());
    let tail = sections.pop().unwrap();
    sections.pop();
    (sections, tail[56..128].to_vec())
}

/// Returns a diff whose frames were changed by `forge`; index and trailer match them.
pub(crate) fn frames(forge: impl Fn(&mut Vec<Section>)) -> Vec<u8> {
    let (mut sections, digests) = parts();
    forge(&mut sections);
    seal(&complete(sections, &digests))
}

/// Returns a diff in which anything may be changed by `forge` after index and trailer were made.
pub(crate) fn all(forge: impl Fn(&mut Vec<Section>)) -> Vec<u8> {
    let (sections, digests) = parts();
    let mut sections = complete(sections, &digests);
    forge(&mut sections);
    seal(&sections)
}

pub(crate) fn refused(what: &str, diff: &[u8], kind: ErrorKind) -> Error {
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

pub(crate) type Forgery = (&'static str, fn(&mut Vec<Section>));

/// The sections of [`mixed`]: HEAD, PAGE (3 ranges, zstd), CLER, PAGE (1 range), PAGE (2 ranges), INDX, TAIL.
pub(crate) const FIRST: usize = 1;
pub(crate) const CLEAR: usize = 2;
pub(crate) const LAST: usize = 4;
pub(crate) const INDEX: usize = 5;
pub(crate) const TAIL: usize = 6;

#[test]
pub(crate) fn frames_that_break_a_rule_are_refused_however_well_they_are_sealed() {
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
    // Without renumbering, the sequence numbers reveal it.
    let error = refused("frame lost", &all(|s| drop(s.remove(3))), Damaged);
    let third = offsets(&cut(&mixed()))[3];
    assert_eq!(
        (error.field(), error.offset()),
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
    assert_eq!(refused("digest", &digest, Damaged).field(), Some("digest"));
}

#[test]
fn a_frame_left_out_by_a_true_writer_is_another_diff() {
    let other = verify(&frames(|s| drop(s.remove(3)))).unwrap();
    assert_ne!(other, verify(&mixed()).unwrap());
}
