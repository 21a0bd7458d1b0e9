//! Damage in transit: cut, flipped, appended, slow and interrupted input.

use std::io::{self, Read};

use proptest::prelude::*;
use vhdkit::ErrorKind;

use crate::diff_format::goldens::golden_files;
use crate::diff_format::support::{error, mixed, mixed_stored, read, verify};

fn small_diffs() -> Vec<(String, Vec<u8>)> {
    let mut diffs = golden_files();
    diffs.push(("mixed".into(), mixed()));
    diffs.push(("mixed, stored".into(), mixed_stored()));
    diffs
}

#[test]
fn every_cut_is_found_where_it_is() {
    for (name, diff) in small_diffs() {
        for at in 0..diff.len() {
            let error = error(&diff[..at], format_args!("{name} cut at {at}"));
            assert_eq!(error.kind(), ErrorKind::Damaged, "{name} cut at {at}");
            assert_eq!(
                error.offset(),
                Some(at as u64),
                "{name} cut at {at}: {error}"
            );
        }
    }
}

#[test]
fn every_flipped_bit_is_found() {
    for (name, diff) in small_diffs() {
        let mut bad = diff.clone();
        for bit in 0..diff.len() * 8 {
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = error(
                &bad,
                format_args!("{name}, bit {} of byte {}", bit % 8, bit / 8),
            );
            assert!(
                matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported),
                "{error:?}"
            );
            bad[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn nothing_may_follow_the_end() {
    for (name, diff) in small_diffs() {
        for more in [&[0][..], b"\n", &diff] {
            let bad = [&diff, more].concat();
            let error = error(&bad, &name);
            assert_eq!(
                (error.kind(), error.offset()),
                (ErrorKind::Damaged, Some(diff.len() as u64))
            );
        }
    }
}

#[test]
fn what_is_no_diff_is_called_that() {
    for bytes in [
        &b"conectix"[..],
        &[0; 4096],
        b"x",
        b"\x89VHDX",
        b"\x89PNG\r\n\x1a\n",
    ] {
        assert_eq!(error(bytes, "no diff").field(), Some("magic"));
    }
    assert!(error(b"", "empty").message().contains("truncated"));
    // A transfer that converted line ends.
    let diff = mixed();
    let text: Vec<u8> = diff
        .iter()
        .flat_map(|b| {
            if *b == b'\n' {
                vec![b'\r', b'\n']
            } else {
                vec![*b]
            }
        })
        .collect();
    assert_eq!(error(&text, "text").offset(), Some(0));
}

/// A reader that returns a byte at a time, and reports an interruption now and then.
struct Slow<'a> {
    bytes: &'a [u8],
    calls: usize,
}

impl Read for Slow<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls % 3 == 1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = buf.len().min(1);
        self.bytes.read(&mut buf[..len])
    }
}

#[test]
fn a_slow_and_interrupted_pipe_gives_the_same() {
    for (name, diff) in small_diffs() {
        let slow = read(Slow {
            bytes: &diff,
            calls: 0,
        })
        .unwrap();
        assert_eq!(slow, read(diff.as_slice()).unwrap(), "{name}");
    }
}

/// A reader that fails after this many bytes.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.0.read(buf)
    }
}

#[test]
fn trouble_with_reading_is_not_taken_for_damage() {
    let diff = mixed();
    for at in 0..=diff.len() {
        let error = read(Failing(&diff[..at])).unwrap_err();
        assert_eq!(
            (error.kind(), error.io_kind()),
            (ErrorKind::Io, Some(io::ErrorKind::PermissionDenied)),
            "{at}"
        );
    }
}

/// Ways in which a stretch of bytes may change.
#[derive(Debug, Clone)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Copy(prop::sample::Index, prop::sample::Index, usize),
    Zero(prop::sample::Index, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (at(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (at(), 1..200_usize).prop_map(|(at, len)| Mutation::Remove(at, len)),
        (at(), at(), 1..200_usize).prop_map(|(from, to, len)| Mutation::Copy(from, to, len)),
        (at(), 1..50_usize).prop_map(|(at, len)| Mutation::Zero(at, len)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    if bytes.is_empty() {
        return;
    }
    let total = bytes.len();
    let span =
        |at: &prop::sample::Index, len: usize| at.index(total)..(at.index(total) + len).min(total);
    match mutation {
        Mutation::Set(at, byte) => bytes[at.index(total)] = *byte,
        Mutation::Insert(at, more) => drop(bytes.splice(span(at, 0), more.iter().copied())),
        Mutation::Remove(at, len) => drop(bytes.drain(span(at, *len))),
        Mutation::Copy(from, to, len) => {
            let piece = bytes[span(from, *len)].to_vec();
            bytes.splice(span(to, *len), piece);
        }
        Mutation::Zero(at, len) => bytes[span(at, *len)].fill(0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_diff_is_refused_or_unchanged(
        stored: bool, mutations in prop::collection::vec(mutation(), 1..5)
    ) {
        let diff = if stored { mixed_stored() } else { mixed() };
        let mut bad = diff.clone();
        for mutation in &mutations {
            mutate(&mut bad, mutation);
        }
        match verify(&bad) {
            Ok(_) => prop_assert!(bad == diff),
            Err(error) => prop_assert!(matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported)),
        }
    }
}
