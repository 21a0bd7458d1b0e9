//! Replays what fuzzing kept, and a few thousand mutations of it, through the bodies of the fuzz targets.
//!
//! The input is in `tests/fuzz/corpus` and, where it once broke a promise, in `fixtures/found`, with a folder for each
//! target; `docs/fuzzing.md` tells how it comes there. An input that fails is left in `target/tmp` under the name of
//! its target.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub,
    reason = "test code, in part shared with the fuzz programs, where a panic is how a promise is found broken"
)]

use std::fs;
use std::path::{Path, PathBuf};

use crate::targets::{TARGETS, Target};

/// Replays a target's corpus and as many mutations of it.
fn replay(name: &str, mutations: usize) {
    let (_, target) = TARGETS.iter().find(|(found, _)| *found == name).unwrap();
    let corpus = corpus(name);
    assert!(corpus.len() >= 2, "{name}: the corpus is missing");
    for input in &corpus {
        call(name, *target, input);
    }
    let mut random = Random(name.bytes().map(u64::from).sum());
    for _ in 0..mutations {
        call(name, *target, &mutation(&corpus, &mut random));
    }
}

/// Returns the kept and the found inputs, sorted by name.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = ["tests/fuzz/corpus", "fixtures/found"]
        .map(|folder| {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(folder)
                .join(name)
        })
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn call(name: &str, target: Target, input: &[u8]) {
    let _kept = KeptOnPanic { name, input };
    target(input);
}

/// Writes the input to a file when the target panics.
struct KeptOnPanic<'a> {
    name: &'a str,
    input: &'a [u8],
}

impl Drop for KeptOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(self.name);
            let _ = fs::write(path, self.input);
        }
    }
}

/// Pseudo-random numbers that are the same each time (`xorshift64*`).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % (end as u64).max(1)) as usize
    }
}

/// Returns an input of the corpus with a few changes: bits flipped, bytes and numbers replaced, pieces moved, cut or
/// taken from another input.
fn mutation(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    const NUMBERS: [u32; 8] = [0, 1, 511, 512, 513, 0x7FFF_FFFF, 0x8000_0000, u32::MAX];
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let end = bytes.len().min(at + 1 + random.below(64));
        match random.below(8) {
            _ if bytes.is_empty() => bytes.push(random.next() as u8),
            0..3 => bytes[at] ^= 1 << random.below(8),
            3 => bytes[at] = random.next() as u8,
            4 => {
                let number = NUMBERS[random.below(NUMBERS.len())].to_be_bytes();
                bytes.splice(at..(at + 4).min(bytes.len()), number);
            }
            5 => drop(bytes.drain(at..end)),
            6 => bytes.extend_from_within(at..end),
            _ => {
                let other = &corpus[random.below(corpus.len())];
                let from = at.min(other.len());
                bytes.truncate(from);
                bytes.extend(&other[from..]);
            }
        }
    }
    bytes
}

macro_rules! replays {
    ($($name:ident: $mutations:literal,)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name), $mutations);
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            assert_eq!(TARGETS.map(|(name, _)| name), [$(stringify!($name)),*]);
        }
    };
}

replays! {
    footer: 5000,
    header: 5000,
    locator: 5000,
    bat: 5000,
    bitmap: 5000,
    image: 4000,
    image_sealed: 2000,
    chain: 1500,
    check: 1500,
    diff: 4000,
    diff_sealed: 2000,
    layers: 60,
    compare: 100,
    squash: 60,
    stream: 2000,
    manifest: 4000,
    inside: 200,
}
