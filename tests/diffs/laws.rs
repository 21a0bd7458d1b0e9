//! The laws of diffs, on images in memory: what they contain and what they rebuild.

use std::num::NonZeroUsize;

use proptest::prelude::*;
use vhdkit::diff::{
    Applier, BaseCheck, Chain, Compression, DiffFile, DiffOptions, Side, WindowChange, pack,
    page_list, write_diff,
};
use vhdkit::image::{NoneShared, RawImage, content_digest};
use vhdkit::page::{Change, ChangeKind, PAGE_SIZE, PageList, PageRange};
use vhdkit::parallel::{Bytes, Work, Workers};
use vhdkit::progress::Silent;
use vhdkit::storage::Memory;

type Raw = RawImage<Memory>;

fn raw(bytes: &[u8]) -> Raw {
    RawImage::open(Memory::new(bytes.to_vec())).unwrap()
}

fn workers(threads: usize) -> Workers {
    Workers::new(NonZeroUsize::new(threads)).unwrap()
}

fn diff_bytes(
    base: &[u8],
    target: &[u8],
    workers: &Workers,
    digests: bool,
    compression: Compression,
) -> Vec<u8> {
    let options = DiffOptions {
        work: Work::new(workers, &Silent),
        compression,
        digests,
        equal: &NoneShared,
        confirm: &|| Ok(()),
    };
    let (base, target) = (raw(base), raw(target));
    write_diff(
        (&base, Side::default()),
        (&target, Side::default()),
        Vec::new(),
        "memory",
        options,
    )
    .unwrap()
    .out
}

fn open(bytes: Vec<u8>) -> DiffFile {
    DiffFile::open(Memory::new(bytes), &Silent).unwrap()
}

fn chain(diffs: Vec<Vec<u8>>) -> Chain {
    Chain::new(diffs.into_iter().map(open).collect()).unwrap()
}

fn rebuild(base: &[u8], chain: &Chain, workers: &Workers, check: BaseCheck) -> Vec<u8> {
    let base = raw(base);
    let mut out = raw(&vec![0; usize::try_from(chain.target_size()).unwrap()]);
    let (rebuilt, touched) = Applier::new(&base, chain, workers, &Silent)
        .rebuild(&mut out, check)
        .unwrap();
    assert_eq!(touched.mismatch, None);
    if check == BaseCheck::Full && chain.base_digest().is_some() {
        assert_eq!(rebuilt.base_digest, chain.base_digest());
    }
    if chain.target_digest().is_some() {
        assert_eq!(Some(rebuilt.target_digest), chain.target_digest());
    }
    out.storage().to_vec()
}

/// Returns the expected list, computed page by page.
fn naive(base: &[u8], target: &[u8]) -> Vec<(u64, ChangeKind)> {
    let size = usize::try_from(PAGE_SIZE).unwrap();
    let mut base = base.to_vec();
    base.resize(base.len().max(target.len()), 0);
    let pages = target
        .chunks(size)
        .zip(base.chunks(size))
        .enumerate()
        .filter(|(_, (t, b))| t != b);
    pages
        .map(|(n, (t, _))| {
            (
                n as u64,
                if t.iter().all(|b| *b == 0) {
                    ChangeKind::Clear
                } else {
                    ChangeKind::Update
                },
            )
        })
        .collect()
}

fn pages(list: &PageList) -> Vec<(u64, ChangeKind)> {
    let each = list.iter().flat_map(|c| {
        (c.range.start() / PAGE_SIZE..c.range.end() / PAGE_SIZE).map(move |page| (page, c.kind))
    });
    each.collect()
}

/// Generates a disk as runs of pages, each filled with one byte, which is often zero so that clears and holes occur.
fn disk(max_runs: usize) -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![
        Just(1),
        1..40_u64,
        Just(511),
        Just(512),
        Just(2048),
        4000..9000_u64
    ];
    prop::collection::vec(
        (len, prop_oneof![Just(0), Just(0), Just(1), 2..5_u8]),
        1..max_runs,
    )
    .prop_map(|runs| {
        runs.into_iter()
            .flat_map(|(pages, byte)| {
                (0..pages).flat_map(move |n| {
                    let mut page = vec![byte; usize::try_from(PAGE_SIZE).unwrap()];
                    if byte == 4 {
                        page[usize::try_from(n % PAGE_SIZE).unwrap()] = 0xee;
                    }
                    page
                })
            })
            .collect()
    })
}

/// Generates a disk made from another one by overwriting runs of pages, growing or shrinking.
fn changed(base: Vec<u8>) -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let pages = base.len() / 512;
    let edits = prop::collection::vec(
        (
            0..pages,
            1..600_usize,
            prop_oneof![Just(0), Just(0), 1..4_u8],
        ),
        0..12,
    );
    let size = prop_oneof![4 => Just(pages), 1 => 1..=pages, 1 => pages..pages + 10_000];
    (edits, size).prop_map(move |(edits, size)| {
        let mut target = base.clone();
        target.resize(size * 512, 0);
        for (at, len, byte) in edits {
            let end = ((at + len) * 512).min(target.len());
            target[(at * 512).min(end)..end].fill(byte);
        }
        (base.clone(), target)
    })
}

fn pair() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    prop_oneof![disk(12).prop_flat_map(changed), (disk(8), disk(8))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn applying_what_was_compared_gives_the_target((base, target) in pair(), digests: bool, zstd: bool) {
        let workers = workers(2);
        let compression = if zstd { Compression::default() } else { Compression::None };
        let chain = chain(vec![diff_bytes(&base, &target, &workers, digests, compression)]);
        for check in [BaseCheck::Full, BaseCheck::Touched] {
            prop_assert!(rebuild(&base, &chain, &workers, check) == target);
        }
    }

    #[test]
    fn the_list_is_exact_to_the_page((base, target) in pair()) {
        let list = page_list(&raw(&base), &raw(&target), &workers(2)).unwrap();
        prop_assert_eq!(pages(&list), naive(&base, &target));
    }

    #[test]
    fn an_image_does_not_differ_from_itself(disk in disk(8)) {
        let workers = workers(2);
        prop_assert!(page_list(&raw(&disk), &raw(&disk), &workers).unwrap().is_empty());
        let diff = open(diff_bytes(&disk, &disk, &workers, true, Compression::default()));
        prop_assert_eq!(diff.trailer().frames, 0);
        prop_assert_eq!(diff.trailer().base_digest, diff.trailer().target_digest);
    }

    #[test]
    fn digests_in_a_diff_are_those_of_the_images((base, target) in pair()) {
        let workers = workers(2);
        let diff = open(diff_bytes(&base, &target, &workers, true, Compression::default()));
        let digest = |bytes: &[u8]| content_digest(&raw(bytes), &workers, &Silent).unwrap();
        prop_assert_eq!(diff.trailer().base_digest, Some(digest(&base)));
        prop_assert_eq!(diff.trailer().target_digest, Some(digest(&target)));
    }

    #[test]
    fn one_thread_and_many_write_the_same_bytes((base, target) in pair()) {
        let one = diff_bytes(&base, &target, &workers(1), true, Compression::default());
        let many = diff_bytes(&base, &target, &workers(5), true, Compression::default());
        prop_assert!(one == many);
    }

    #[test]
    fn a_chain_applies_like_its_diffs_one_after_another(
        (a, b) in pair(), (c, d) in pair(), digests: bool
    ) {
        let workers = workers(2);
        let diffs: Vec<_> = [(&a, &b), (&b, &c), (&c, &d)]
            .iter()
            .map(|(from, to)| diff_bytes(from, to, &workers, digests, Compression::default()))
            .collect();
        let chain = chain(diffs);
        for check in [BaseCheck::Full, BaseCheck::Touched] {
            prop_assert!(rebuild(&a, &chain, &workers, check) == d);
        }
    }

    #[test]
    fn changes_in_place_and_their_inverse_lead_there_and_back((a, b) in pair(), (c, _) in pair()) {
        let workers = workers(2);
        let diffs = [(&a, &b), (&b, &c)].map(|(from, to)| diff_bytes(from, to, &workers, true, Compression::default()));
        let chain = chain(diffs.to_vec());
        let base = raw(&a);
        let layers = Applier::new(&base, &chain, &workers, &Silent);

        let mut forward = a.clone();
        forward.resize(c.len(), 0);
        layers.changes(Ok, |change| { put(&mut forward, &change); Ok(()) }).unwrap();
        prop_assert!(forward == c);

        let mut back = c.clone();
        back.resize(a.len(), 0);
        layers.inverse(Ok, |change| { put(&mut back, &change); Ok(()) }).unwrap();
        prop_assert!(back == a);

        back = c.clone();
        back.resize(a.len(), 0);
        // The data remembered on the way back suffices for the way forward, without the base.
        let (there, known) = layers.inverse_remembering(usize::MAX, Ok, |change| {
            put(&mut back, &change);
            Ok(())
        }).unwrap();
        prop_assert!(back == a);
        prop_assert_eq!(there.already_applied && a.len() == c.len(), a == c);
        let mut forward = a.clone();
        forward.resize(c.len(), 0);
        let elsewhere = raw(&vec![0x55; c.len()]);
        let mut windows = 0;
        let write = |change| { windows += 1; put(&mut forward, &change); Ok(()) };
        Applier::new(&elsewhere, &chain, &workers, &Silent).change_map(known.unwrap(), write).unwrap();
        prop_assert!(forward == c);
        prop_assert_eq!(layers.inverse_remembering(0, Ok, |_| Ok(())).unwrap().1.is_none(), windows > 0);

        // Pages that already match aren't written again.
        let target = raw(&c);
        let again = chain_of_last(&b, &c, &workers);
        let mut touched = 0;
        Applier::new(&target, &again, &workers, &Silent).changes(Ok, |_| { touched += 1; Ok(()) }).unwrap();
        prop_assert_eq!(touched, 0);
    }

    #[test]
    fn a_base_that_differs_under_a_change_is_noticed((base, target) in pair(), pick: prop::sample::Index) {
        let workers = workers(2);
        let bytes = diff_bytes(&base, &target, &workers, true, Compression::default());
        let chain = chain(vec![bytes]);
        let list = naive(&base, &target);
        let within: Vec<_> = list.iter().filter(|(page, _)| (*page * PAGE_SIZE) < base.len() as u64).collect();
        prop_assume!(!within.is_empty());
        let (page, _) = within[pick.index(within.len())];
        let mut wrong = base.clone();
        let at = usize::try_from(page * PAGE_SIZE).unwrap();
        wrong[at + 17] ^= 0x5a;
        let wrong_image = raw(&wrong);
        let touched = Applier::new(&wrong_image, &chain, &workers, &Silent).check_touched().unwrap();
        prop_assert!(touched.mismatch.is_some());
        let base_image = raw(&base);
        let touched = Applier::new(&base_image, &chain, &workers, &Silent).check_touched().unwrap();
        prop_assert!(touched.mismatch.is_none() && !touched.already_applied);
        let target_image = raw(&target);
        if target.len() == base.len() {
            let touched = Applier::new(&target_image, &chain, &workers, &Silent).check_touched().unwrap();
            prop_assert!(touched.already_applied);
        }
    }
}

fn chain_of_last(b: &[u8], c: &[u8], workers: &Workers) -> Chain {
    chain(vec![diff_bytes(
        b,
        c,
        workers,
        true,
        Compression::default(),
    )])
}

fn put(bytes: &mut [u8], change: &vhdkit::diff::WindowChange) {
    let mut payload = &*change.payload;
    for c in &change.changes {
        let range =
            usize::try_from(c.range.start()).unwrap()..usize::try_from(c.range.end()).unwrap();
        match c.kind {
            ChangeKind::Clear => bytes[range].fill(0),
            ChangeKind::Update => {
                let (data, rest) = payload.split_at(range.len());
                bytes[range].copy_from_slice(data);
                payload = rest;
            }
        }
    }
    assert!(payload.is_empty());
}

#[test]
fn a_long_clear_is_one_frame_however_long() {
    let workers = workers(2);
    let mut base = vec![1; 64 << 20];
    base[..4096].fill(2);
    let target = vec![0; 64 << 20];
    let bytes = diff_bytes(&base, &target, &workers, true, Compression::default());
    assert!(bytes.len() < 1024, "{}", bytes.len());
    let diff = open(bytes.clone());
    assert_eq!(
        (
            diff.trailer().frames,
            diff.trailer().ranges,
            diff.trailer().clear_bytes
        ),
        (1, 1, 64 << 20)
    );
    assert!(rebuild(&base, &chain(vec![bytes]), &workers, BaseCheck::Touched) == target);
}

#[test]
fn a_long_clear_over_nothing_is_quick_and_known_for_what_it_is() {
    let workers = workers(2);
    let size = 1_u64 << 40;
    let folder = tempfile::tempdir().unwrap();
    let file = vhdkit::storage::AtomicFile::new(folder.path().join("holes")).unwrap();
    vhdkit::storage::WriteAt::set_len(file.file(), size).unwrap();
    let base = RawImage::with_size(file.file(), size);
    // The diff claims a base full of data, unlike this one.
    let header = vhdkit::diff::DiffHeader {
        base_size: size,
        target_size: size,
        program: None,
        base: Side::default(),
        target: Side::default(),
        undoes: Vec::new(),
    };
    let mut writer = vhdkit::diff::DiffWriter::new(Vec::new(), "memory", &header).unwrap();
    for window in PageRange::new(0, size).unwrap().windows(4 << 20) {
        let mut changes = PageList::new();
        changes
            .push(Change {
                range: window,
                kind: ChangeKind::Clear,
            })
            .unwrap();
        let change = WindowChange {
            window,
            changes,
            payload: Bytes::new(),
            base_hash: [7; 32],
        };
        writer
            .push(&pack(change, Compression::None).unwrap())
            .unwrap();
    }
    let chain = chain(vec![writer.finish(None, None).unwrap().out]);
    let layers = Applier::new(&base, &chain, &workers, &Silent);
    let start = std::time::Instant::now();
    let touched = layers.check_touched().unwrap();
    assert!(touched.mismatch.is_some() && touched.already_applied);
    let mut changes = 0;
    layers
        .changes(Ok, |_| {
            changes += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(changes, 0);
    // 262,144 windows: filling each with zeros would take minutes.
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

#[test]
fn scattered_small_writes_cost_less_than_one_percent() {
    let workers = workers(2);
    let base = vec![0; 64 << 20];
    let mut target = base.clone();
    let mut state = 1_u64;
    let mut changed = 0;
    // Twelve changed, incompressible 4 KiB pages in each window.
    for window in 0..16 {
        for n in 0..12 {
            let at = (window << 22) + n * 340 * 1024;
            for byte in &mut target[at & !4095..][..4096] {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                *byte = state.to_be_bytes()[0] | 1;
            }
            changed += 4096;
        }
    }
    let bytes = diff_bytes(&base, &target, &workers, true, Compression::default());
    assert!(
        bytes.len() < changed + changed / 100,
        "{} for {changed}",
        bytes.len()
    );
}

#[test]
fn packing_is_by_level_and_refuses_nonsense() {
    for (text, good) in [
        ("none", true),
        ("zstd", true),
        ("zstd:19", true),
        ("zstd:0", false),
        ("zstd:99", false),
        ("lz4", false),
    ] {
        assert_eq!(text.parse::<Compression>().is_ok(), good, "{text}");
    }
    let empty = vhdkit::diff::WindowChange::default();
    assert!(pack(empty, Compression::default()).is_ok());
}
