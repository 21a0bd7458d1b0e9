//! The laws of squashing and of going back, on images in memory.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::diffs::{
    Frames, chain, chain_of_disks, content_of, diff_bytes, frames, open, pages_of, rebuild,
    squashed, workers,
};
use proptest::prelude::*;
use vhdkit::diff::{
    Applier, BaseCheck, Chain, Compression, DiffFile, DiffHeader, DiffWriter, Side, SquashOptions,
    WindowChange, pack, squash,
};
use vhdkit::page::{Change, ChangeKind, PAGE_SIZE, PageList, PageRange};
use vhdkit::parallel::Work;
use vhdkit::progress::Silent;
use vhdkit::storage::{Memory, WriteAt as _};

const WINDOW: u64 = 4 << 20;

/// Generates points in time of a disk, most of which fit into two windows, so that one diff often touches what the one
/// before changed, cleared or cut off.
fn points(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Point>> {
    let size = prop_oneof![
        4 => Just(9000_usize),
        1 => Just(0),
        1 => Just(1),
        1 => Just(8192),
        1 => Just(8191),
        1 => Just(17_000),
        2 => 1..12_000_usize
    ];
    let place = prop_oneof![0..40_usize, 8150..8230_usize, 0..17_000_usize];
    let len = prop_oneof![4 => 1..30_usize, 1 => 1..500_usize, 2 => 8000..17_000_usize];
    let edits = prop::collection::vec((place, len, prop_oneof![Just(0), 0..4_u8]), 0..5);
    let point = (
        prop_oneof![3 => Just(None), 1 => size.prop_map(Some)],
        edits,
    );
    prop::collection::vec(point, count)
}

/// A new size in pages, and runs of pages filled with a byte.
type Point = (Option<usize>, Vec<(usize, usize, u8)>);

fn disks(points: &[Point]) -> Vec<Vec<u8>> {
    let mut disk = vec![0; 9000 * 512];
    let mut disks = Vec::new();
    for (size, edits) in points {
        disk.resize(size.map_or(disk.len(), |pages| pages * 512), 0);
        for (at, len, byte) in edits {
            let end = ((at + len) * 512).min(disk.len());
            disk[(at * 512).min(end)..end].fill(*byte);
        }
        disks.push(disk.clone());
    }
    disks
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_squashed_chain_does_what_its_diffs_do(points in points(2..7), reversible: bool, digests: bool) {
        let disks = disks(&points);
        let workers = workers(2);
        let all = chain_of_disks(&disks, &workers, reversible, digests);
        let bytes = squashed(&all, &workers);
        let one = chain(vec![bytes]);
        let (first, last) = (&disks[0], &disks[disks.len() - 1]);
        for check in [BaseCheck::Full, BaseCheck::Touched] {
            prop_assert!(rebuild(first, &one, &workers, check) == *last);
        }
        prop_assert_eq!((one.base_digest(), one.target_digest()), (all.base_digest(), all.target_digest()));
        let Some(back) = one.reversed() else {
            prop_assert!(!reversible);
            return Ok(());
        };
        prop_assert!(reversible);
        for check in [BaseCheck::Full, BaseCheck::Touched] {
            prop_assert!(rebuild(last, &back, &workers, check) == *first);
        }
    }

    /// With both ways recorded everything is known: squashing gives the same as comparing the two ends.
    #[test]
    fn a_squashed_reversible_chain_is_the_diff_of_its_ends(points in points(2..6)) {
        let disks = disks(&points);
        let workers = workers(2);
        let all = chain_of_disks(&disks, &workers, true, true);
        let one = squashed(&all, &workers);
        let compared = diff_bytes(&disks[0], &disks[disks.len() - 1], &workers, true, true);
        prop_assert!(one == compared);
    }

    #[test]
    fn it_does_not_matter_what_is_squashed_first(points in points(4..5), reversible: bool) {
        let disks = disks(&points);
        let workers = workers(2);
        let diffs: Vec<_> = disks
            .windows(2)
            .map(|pair| diff_bytes(&pair[0], &pair[1], &workers, reversible, true))
            .collect();
        let fold = |diffs: &[Vec<u8>]| squashed(&chain(diffs.to_vec()), &workers);
        let [a, b, c] = [0, 1, 2].map(|n| diffs[n].clone());
        let left = fold(&[fold(&[a.clone(), b.clone()]), c.clone()]);
        let right = fold(&[a.clone(), fold(&[b.clone(), c.clone()])]);
        let both = fold(&[a, b, c]);
        // A squash that starts from an empty disk knows what lies under its pages, and clears nothing there.
        let from_empty = disks[1].iter().all(|byte| *byte == 0);
        for (other, same) in [(left, true), (right, !from_empty)] {
            prop_assert!(rebuild(&disks[0], &chain(vec![other.clone()]), &workers, BaseCheck::Full) == disks[3]);
            prop_assert!(!same || content_of(&other) == content_of(&both));
            // With both ways nothing is unknown, so not even the order of folding makes a difference.
            prop_assert!(!reversible || other == both);
        }
    }

    #[test]
    fn one_thread_and_many_squash_to_the_same_bytes(points in points(3..5), reversible: bool) {
        let disks = disks(&points);
        let all = chain_of_disks(&disks, &workers(2), reversible, true);
        prop_assert!(squashed(&all, &workers(1)) == squashed(&all, &workers(5)));
    }

    #[test]
    fn a_reversible_diff_goes_both_ways(points in points(2..3), digests: bool) {
        let disks = disks(&points);
        let workers = workers(2);
        let all = chain_of_disks(&disks, &workers, true, digests);
        let back = all.reversed().unwrap();
        let (a, b) = (&disks[0], &disks[1]);
        for check in [BaseCheck::Full, BaseCheck::Touched] {
            prop_assert!(rebuild(a, &all, &workers, check) == *b);
            prop_assert!(rebuild(b, &back, &workers, check) == *a);
        }
        // The way back is the diff from target to base, and the way forward is the same as without it.
        let there = open(diff_bytes(a, b, &workers, false, digests));
        let again = open(diff_bytes(b, a, &workers, false, digests));
        for (one, other) in [(&all.diffs()[0], &there), (&back.diffs()[0], &again)] {
            prop_assert_eq!(one.trailer().totals(), other.trailer().totals());
            prop_assert_eq!(one.frames_in(whole()).unwrap(), other.frames_in(whole()).unwrap());
            prop_assert!(one.digest() != other.digest());
        }
        prop_assert!(all.diffs()[0].digest() != back.diffs()[0].digest());
        prop_assert_eq!(back.reversed().unwrap().identities(), all.identities());
    }
}

fn whole() -> PageRange {
    PageRange::new(0, 1 << 40).unwrap()
}

#[test]
fn a_hundred_diffs_become_one() {
    let workers = workers(2);
    let mut disk = vec![1; 3 << 20];
    let mut disks = vec![disk.clone()];
    for n in 0..100_usize {
        let at = n * 7919 * 512 % disk.len();
        let end = (at + (1 + n % 9) * 512).min(disk.len());
        disk[at..end].fill(if n % 3 == 0 {
            0
        } else {
            u8::try_from(n).unwrap()
        });
        disks.push(disk.clone());
    }
    for reversible in [false, true] {
        let all = chain_of_disks(&disks, &workers, reversible, true);
        let one = chain(vec![squashed(&all, &workers)]);
        assert!(rebuild(&disks[0], &one, &workers, BaseCheck::Full) == disk);
        assert!(one.diffs()[0].trailer().update_bytes <= 3 << 20);
    }
}

#[test]
fn a_window_that_one_diff_changes_keeps_its_hash_and_bytes() {
    let workers = workers(2);
    let a = vec![1; 12 << 20];
    let mut second = a.clone();
    second[512..4096].fill(2);
    let mut third = second.clone();
    third[8 << 20..(8 << 20) + 512].fill(3);
    let mut d = third.clone();
    // The same pages again: the first diff knows the data that they replace in the base.
    d[512..2048].fill(0);
    let all = chain_of_disks(
        &[a.clone(), second, third, d.clone()],
        &workers,
        false,
        true,
    );
    let one = squashed(&all, &workers);
    let compared = diff_bytes(&a, &d, &workers, false, true);
    assert_eq!(frames(&one), frames(&compared));
    assert!(frames(&one).iter().all(|frame| frame.1.is_some()));
    // A window that two diffs change in different places: neither knows the hash of the combined data.
    let mut e = d.clone();
    e[1 << 20..(1 << 20) + 512].fill(9);
    let more = chain(vec![one, diff_bytes(&d, &e, &workers, false, true)]);
    let one = chain(vec![squashed(&more, &workers)]);
    let unknown = |frames: Frames| frames.iter().filter(|frame| frame.1.is_none()).count();
    assert_eq!(unknown(frames(&squashed(&more, &workers))), 1);
    let base = crate::diffs::raw(&a);
    let touched = Applier::new(&base, &one, &workers, &Silent)
        .check_touched()
        .unwrap();
    assert!(touched.unknown && touched.mismatch.is_none());
    assert!(rebuild(&a, &one, &workers, BaseCheck::Full) == e);
}

#[test]
fn what_a_shrink_cut_off_is_cleared_where_the_disk_grew_again() {
    let workers = workers(2);
    let size = 40 << 20;
    let disks = [vec![1; size], vec![1; 5 << 20], vec![1; 5 << 20], {
        let mut grown = vec![0; size];
        grown[..5 << 20].fill(1);
        grown[20 << 20..(20 << 20) + 512].fill(7);
        grown
    }];
    let all = chain_of_disks(&disks, &workers, false, true);
    let one = chain(vec![squashed(&all, &workers)]);
    assert!(rebuild(&disks[0], &one, &workers, BaseCheck::Full) == disks[3]);
    assert_eq!(one.diffs()[0].trailer().clear_bytes, (35 << 20) - 512);
    // Two clears around a window of pages, and the part before the first whole window.
    assert_eq!(one.diffs()[0].trailer().frames, 4);
}

fn header(base_size: u64, target_size: u64) -> DiffHeader {
    DiffHeader {
        base_size,
        target_size,
        program: None,
        base: Side::default(),
        target: Side::default(),
        undoes: Vec::new(),
    }
}

/// Returns a diff of a huge disk: long clears and single pages, `(window, windows)` and `(page, byte)`.
fn huge(size: u64, clears: &[(u64, u64)], updates: &[(u64, u8)], target: u64) -> Vec<u8> {
    let mut writer = DiffWriter::new(Vec::new(), "memory", &header(size, target)).unwrap();
    let mut push = |window: u64, range: PageRange, kind, payload: Vec<u8>| {
        let mut changes = PageList::new();
        changes.push(Change { range, kind }).unwrap();
        let window = PageRange::from_len(window, WINDOW).unwrap();
        let change = WindowChange {
            window,
            changes,
            payload: payload.into(),
            base_hash: [7; 32],
        };
        writer
            .push(&pack(change, Compression::None).unwrap())
            .unwrap();
    };
    for (first, count) in clears {
        for n in *first..first + count {
            let range = PageRange::from_len(n * WINDOW, WINDOW).unwrap();
            push(n * WINDOW, range, ChangeKind::Clear, Vec::new());
        }
    }
    for (page, byte) in updates {
        let range = PageRange::from_len(page * PAGE_SIZE, PAGE_SIZE).unwrap();
        let window = range.start() - range.start() % WINDOW;
        push(window, range, ChangeKind::Update, vec![*byte; 512]);
    }
    writer.finish(None, None).unwrap().out
}

/// Returns a wiped pebibyte as one frame, without visiting its 268 million windows.
fn wiped(size: u64) -> Vec<u8> {
    let shrunk = huge(size, &[], &[], 0);
    let grown = huge(0, &[], &[], size);
    squashed(&chain(vec![shrunk, grown]), &workers(2))
}

#[test]
fn a_clear_of_a_pebibyte_folds_in_no_time() {
    let workers = workers(2);
    let size = 1 << 50;
    let start = Instant::now();
    let wiped = wiped(size);
    assert!(wiped.len() < 1000);
    let page = (1 << 40) / PAGE_SIZE + 3;
    let updated = huge(size, &[], &[(page, 5)], size);
    let one = squashed(
        &chain(vec![
            wiped.clone(),
            updated.clone(),
            huge(size, &[(7, 3)], &[], size),
        ]),
        &workers,
    );
    let changes = pages_of(&one);
    let page = page * PAGE_SIZE;
    let clear = |start, end| (start, end, ChangeKind::Clear);
    assert_eq!(
        changes,
        [
            clear(0, page),
            (page, page + 512, ChangeKind::Update),
            clear(page + 512, size)
        ]
    );
    let all = squashed(&chain(vec![updated, wiped.clone(), one]), &workers);
    assert_eq!(pages_of(&all), changes);
    assert_eq!(
        frames(&squashed(&chain(vec![wiped.clone()]), &workers)),
        frames(&wiped)
    );
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

#[test]
fn a_long_clear_keeps_its_hash_where_nothing_cuts_it() {
    let workers = workers(2);
    let size = 100 * WINDOW;
    let first = huge(size, &[(10, 50)], &[], size);
    let beside = huge(size, &[], &[(70 * 8192, 1)], size);
    let within = huge(size, &[(20, 5)], &[], size);
    let hashes = |diffs: &[&Vec<u8>]| {
        let diffs = diffs.iter().map(|diff| (*diff).clone()).collect();
        let found = frames(&squashed(&chain(diffs), &workers));
        found
            .into_iter()
            .map(|frame| (frame.1.is_some(), frame.2))
            .collect::<Vec<_>>()
    };
    let known = frames(&first)[0].1;
    assert!(known.is_some());
    assert_eq!(hashes(&[&first, &beside]), [(true, true), (true, false)]);
    assert_eq!(
        frames(&squashed(
            &chain(vec![first.clone(), beside.clone()]),
            &workers
        ))[0]
            .1,
        known
    );
    assert_eq!(hashes(&[&first, &first]), [(true, true)]);
    // Partly under another clear: the hashes of the parts are unknown.
    assert_eq!(hashes(&[&first, &within]), [(false, true)]);
    assert_eq!(
        hashes(&[&within, &first]),
        [(false, true), (true, true), (false, true)]
    );
}

#[test]
fn what_does_not_follow_is_refused_by_both_names() {
    let workers = workers(1);
    let [a, b, c] = [1, 2, 3].map(|byte| vec![byte; 4096]);
    let diff = |from: &[u8], to: &[u8]| open(diff_bytes(from, to, &workers, true, true));
    let error = Chain::new(vec![diff(&a, &b), diff(&a, &c)])
        .unwrap_err()
        .to_string();
    assert!(error.contains("doesn't follow"), "{error}");
    let back = [diff(&a, &b), diff(&b, &c)].map(|diff| diff.reversed().unwrap());
    let error = Chain::new(back.into()).unwrap_err();
    assert!(
        error.hint().unwrap().contains("newest diff first"),
        "{error}"
    );
}

#[test]
fn a_diff_that_changes_under_the_squash_is_an_error() {
    let workers = workers(1);
    let (a, b) = (vec![1; 4096], vec![2; 4096]);
    let bytes = diff_bytes(&a, &b, &workers, false, true);
    let storage: &'static Memory = Box::leak(Box::new(Memory::new(bytes)));
    let chain = Chain::new(vec![DiffFile::open(storage, &Silent).unwrap()]).unwrap();
    storage.write_all_at(&[0xff], 200).unwrap();
    let options = SquashOptions {
        work: Work::new(&workers, &Silent),
        compression: Compression::default(),
    };
    squash(&chain, Vec::new(), "memory", options).unwrap_err();
}

/// Writes a diff of a large disk to a file, with one page in each of this many windows.
fn scattered(path: &Path, windows: u64, byte: u8) {
    let size = windows * WINDOW;
    let header = header(size, size);
    let out = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut writer = DiffWriter::new(out, path, &header).unwrap();
    for n in 0..windows {
        let page = n * 37 % 8192 + u64::from(byte) * u64::from(n % 3 == 0);
        let range = PageRange::from_len(n * WINDOW + page % 8192 * PAGE_SIZE, PAGE_SIZE).unwrap();
        let mut changes = PageList::new();
        let kind = ChangeKind::Update;
        changes.push(Change { range, kind }).unwrap();
        let change = WindowChange {
            window: PageRange::from_len(n * WINDOW, WINDOW).unwrap(),
            changes,
            payload: vec![byte; 512].into(),
            base_hash: [7; 32],
        };
        writer
            .push(&pack(change, Compression::None).unwrap())
            .unwrap();
    }
    writer.finish(None, None).unwrap();
}

/// Measures the peak memory of the real program, since the tests of this process run side by side.
#[test]
fn memory_stays_bounded_whatever_there_is_to_fold() {
    let folder = tempfile::tempdir().unwrap();
    let mut peaks = Vec::new();
    for (count, windows) in [(2_u8, 1000), (2, 100_000), (40, 2000)] {
        let diffs: Vec<_> = (0..count)
            .map(|n| folder.path().join(format!("{n}.vhddiff")))
            .collect();
        for (n, diff) in (1..).zip(&diffs) {
            scattered(diff, windows, n);
        }
        let measured = folder.path().join("peak");
        let status = Command::new("time")
            .args(["--quiet", "-f", "%M", "-o"])
            .arg(&measured)
            .args([
                env!("CARGO_BIN_EXE_vhd"),
                "squash",
                "-q",
                "--threads",
                "2",
                "--force",
                "-o",
            ])
            .arg(folder.path().join("one.vhddiff"))
            .args(&diffs)
            .status()
            .unwrap_or_else(|e| panic!("GNU time measures memory, tests/run installs it: {e}"));
        assert!(status.success());
        let peak: u64 = std::fs::read_to_string(measured)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        println!("{count} diffs of {windows} windows: {peak} KiB at the peak");
        peaks.push(peak);
    }
    // A window for each of four items in progress, and the buffers of a few diffs.
    assert!(peaks.iter().all(|peak| *peak < 64 << 10), "{peaks:?} KiB");
    assert!(peaks[1] < peaks[0] + (12 << 10), "{peaks:?} KiB");
}
