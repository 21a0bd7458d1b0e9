//! Points in time as images: a base with diffs on top reads as its point in time, each page is read once, and two ends
//! of a chain are compared without reading what didn't change.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vhdkit::diff::{
    ChangedPages, Compression, DiffFile, DiffOptions, Overlay, Side, page_list, results_of,
    write_diff, write_diff_listed,
};
use vhdkit::image::{
    CopyOptions, Image as _, Masked, NoneShared, RawImage, WindowList, WindowListWriter,
    content_digest, copy, window_hashes,
};
use vhdkit::parallel::{Work, Workers};
use vhdkit::progress::Silent;
use vhdkit::storage::{Memory, ReadAt};

use crate::disk::Random;

/// Storage that counts the bytes read from it.
struct Counted(Memory, Arc<AtomicU64>);

impl Counted {
    fn new(bytes: Vec<u8>) -> (Self, Arc<AtomicU64>) {
        let count = Arc::new(AtomicU64::new(0));
        (Self(Memory::new(bytes), Arc::clone(&count)), count)
    }
}

impl ReadAt for Counted {
    fn name(&self) -> &Path {
        self.0.name()
    }

    fn byte_len(&self) -> vhdkit::Result<u64> {
        self.0.byte_len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> vhdkit::Result<()> {
        self.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.0.read_exact_at(buf, offset)
    }

    fn data_range(&self, within: Range<u64>) -> vhdkit::Result<Option<Range<u64>>> {
        self.0.data_range(within)
    }
}

fn raw(bytes: &[u8]) -> RawImage<Memory> {
    RawImage::open(Memory::new(bytes.to_vec())).unwrap()
}

fn diff_options(workers: &Workers) -> DiffOptions<'_> {
    DiffOptions {
        work: Work::new(workers, &Silent),
        compression: Compression::None,
        digests: true,
        equal: &NoneShared,
        confirm: &|| Ok(()),
    }
}

fn diff(base: &[u8], target: &[u8], workers: &Workers) -> Vec<u8> {
    let (base, target) = (raw(base), raw(target));
    write_diff(
        (&base, Side::default()),
        (&target, Side::default()),
        Vec::new(),
        "diff",
        diff_options(workers),
    )
    .unwrap()
    .out
}

fn indexed(bytes: Vec<u8>) -> Arc<DiffFile> {
    Arc::new(DiffFile::open_indexed(Memory::new(bytes)).unwrap())
}

/// Returns successive states of a disk: changed, cleared, grown and cut.
fn generations(count: u64, size: usize) -> Vec<Vec<u8>> {
    let mut random = Random::new(7);
    let mut disks = vec![crate::disk::disk(1, size)];
    for n in 0..count {
        let mut next = crate::disk::changed(n, disks.last().unwrap());
        match random.below(4) {
            0 => next.resize((next.len() + random.below(9 << 20)) / 512 * 512, 0),
            1 => next.truncate((next.len() - random.below(next.len() / 2)) / 512 * 512),
            _ => {}
        }
        disks.push(next);
    }
    disks
}

#[test]
fn every_point_in_time_reads_as_the_disk_it_was() {
    let workers = Workers::new(None).unwrap();
    let disks = generations(12, 14 << 20);
    let diffs: Vec<_> = disks
        .windows(2)
        .map(|pair| indexed(diff(&pair[0], &pair[1], &workers)))
        .collect();
    for (n, model) in disks.iter().enumerate() {
        let base = raw(&disks[0]);
        let digest = content_digest(&base, &workers, &Silent).unwrap();
        let overlay = Overlay::new(base, Some(digest), diffs[..n].to_vec()).unwrap();
        crate::checks::assert_reads_as(&overlay, model);
        assert_eq!(
            content_digest(&overlay, &workers, &Silent).unwrap(),
            content_digest(&raw(model), &workers, &Silent).unwrap()
        );
    }
}

#[test]
fn two_points_differ_in_the_same_pages_seen_whole_or_in_part_in_both_directions() {
    let workers = Workers::new(None).unwrap();
    let disks = generations(8, 10 << 20);
    let diffs: Vec<_> = disks
        .windows(2)
        .map(|pair| indexed(diff(&pair[0], &pair[1], &workers)))
        .collect();
    let (base, read) = Counted::new(disks[0].clone());
    let base = Arc::new(RawImage::open(base).unwrap());
    let at = |n: usize| Overlay::new(Arc::clone(&base), None, diffs[..n].to_vec()).unwrap();
    for from in 0..disks.len() {
        for to in 0..disks.len() {
            let (low, high) = (from.min(to), from.max(to));
            let pages = ChangedPages::new(diffs[low..high].to_vec());
            let (a, b) = (at(from), at(to));
            let before = read.load(Ordering::Relaxed);
            let found =
                page_list(&Masked::new(&a, &pages), &Masked::new(&b, &pages), &workers).unwrap();
            if from == to {
                assert_eq!(read.load(Ordering::Relaxed), before);
            }
            let expected = page_list(&raw(&disks[from]), &raw(&disks[to]), &workers).unwrap();
            assert_eq!(found, expected, "{from} to {to}");
            // Masked views keep the promises of images as well.
            let seen = Masked::new(&b, &pages);
            let mut bytes = vec![1; disks[to].len()];
            seen.read_exact_at(&mut bytes, 0).unwrap();
            crate::checks::assert_reads_as(&seen, &bytes);
        }
    }
}

/// The last of 200 snapshots: base and diffs together are read for no more bytes than the disk has, apart from headers
/// and indexes.
#[test]
fn the_two_hundredth_point_reads_each_page_once() {
    const SIZE: usize = 8 << 20;
    const POINTS: u64 = 200;
    let workers = Workers::new(None).unwrap();
    let mut random = Random::new(3);
    let mut disk = random.bytes(SIZE);
    let (base, base_read) = Counted::new(disk.clone());
    let diff_read = Arc::new(AtomicU64::new(0));
    let mut diffs = Vec::new();
    let mut payloads = 0;
    for _ in 0..POINTS {
        let mut next = disk.clone();
        // Whole windows change again and again, so newer payloads hide nearly all others.
        let at = random.below(2) * (4 << 20);
        let bytes = random.bytes(4 << 20);
        next[at..at + (4 << 20)].copy_from_slice(&bytes);
        let bytes = diff(&disk, &next, &workers);
        payloads += bytes.len() as u64;
        let counted = Counted(Memory::new(bytes), Arc::clone(&diff_read));
        diffs.push(Arc::new(DiffFile::open_indexed(counted).unwrap()));
        disk = next;
    }
    diff_read.store(0, Ordering::Relaxed);
    let overlay = Overlay::new(RawImage::open(base).unwrap(), None, diffs).unwrap();
    let mut restored = raw(&vec![0; SIZE]);
    let options = CopyOptions {
        work: Work::new(&workers, &Silent),
        digest: true,
    };
    copy(&overlay, &mut restored, options).unwrap();
    assert!(restored.storage().to_vec() == disk);
    assert_eq!(base_read.load(Ordering::Relaxed), 0);
    let read = diff_read.load(Ordering::Relaxed);
    let heads = POINTS * 64 * 1024;
    assert!(payloads > 100 * SIZE as u64);
    assert!(read < SIZE as u64 + heads, "{read} bytes of {payloads}");
    // Comparing reads in smaller pieces, but no more bytes.
    diff_read.store(0, Ordering::Relaxed);
    assert!(page_list(&overlay, &restored, &workers).unwrap().is_empty());
    let read = diff_read.load(Ordering::Relaxed);
    assert!(read < SIZE as u64 + heads, "{read} bytes of {payloads}");
}

/// With known window hashes the diff is identical, and the base is read only where windows differ.
#[test]
fn a_base_with_known_window_hashes_is_read_only_where_it_differs() {
    let workers = Workers::new(None).unwrap();
    let mut disks = generations(10, 13 << 20);
    disks.push(vec![0; 9 << 20]);
    disks.push(crate::disk::disk(5, 21 << 20));
    for pair in disks.windows(2) {
        let list = |disk: &[u8]| {
            let mut bytes = Vec::new();
            let mut writer = WindowListWriter::new(&mut bytes, "list", disk.len() as u64).unwrap();
            let each = |start, hashes: &_| writer.push(start, hashes);
            window_hashes(&raw(disk), &workers, &Silent, each).unwrap();
            writer.finish().unwrap();
            bytes
        };
        let known = WindowList::open(Memory::new(list(&pair[0]))).unwrap();
        let (base, read) = Counted::new(pair[0].clone());
        let base = RawImage::open(base).unwrap();
        let target = raw(&pair[1]);
        let mut bytes = Vec::new();
        let size = pair[1].len() as u64;
        let mut writer = WindowListWriter::new(&mut bytes, "list", size).unwrap();
        let written = write_diff_listed(
            &known,
            (&base, Side::default()),
            (&target, Side::default()),
            (Vec::new(), "diff".into()),
            diff_options(&workers),
            |start, hashes| writer.push(start, hashes),
        )
        .unwrap();
        writer.finish().unwrap();
        assert!(bytes == list(&pair[1]), "the new list");
        assert!(written.out == diff(&pair[0], &pair[1], &workers));
        let window = 1 << 20;
        let mut zero = pair[0].clone();
        zero.resize(pair[1].len().max(zero.len()), 0);
        let differing = pair[1]
            .chunks(window)
            .zip(zero.chunks(window))
            .filter(|(a, b)| a != b || a.len() != window)
            .count();
        assert!(read.load(Ordering::Relaxed) <= (differing * window) as u64);
    }
}

/// What each diff of a chain makes is computed in one pass, with window hashes of the base or without.
#[test]
fn what_each_diff_makes_is_computed_in_one_pass() {
    const SIZES: [usize; 6] = [9 << 20, (9 << 20) + 512, 5 << 20, 13 << 20, 512, 6 << 20];
    let workers = crate::diffs::workers(2);
    let mut random = Random::new(4);
    let mut bytes = random.bytes(SIZES[0]);
    bytes[2 << 20..6 << 20].fill(0);
    let mut disks = Vec::new();
    for size in SIZES {
        bytes.resize(size, 0);
        for _ in 0..3 {
            let at = random.below(size / 512) * 512;
            let value = u8::try_from(random.below(3)).unwrap();
            bytes[at..at + 512].fill(value);
        }
        disks.push(bytes.clone());
    }
    let digest = |bytes: &[u8]| content_digest(&crate::diffs::raw(bytes), &workers, &Silent);
    let digests: Vec<_> = disks.iter().map(|disk| digest(disk).unwrap()).collect();
    let diffs: Vec<_> = disks
        .windows(2)
        .map(|pair| {
            let diff = crate::diffs::diff_bytes(&pair[0], &pair[1], &workers, false, true);
            Arc::new(DiffFile::open(Memory::new(diff), &Silent).unwrap())
        })
        .collect();
    let base = crate::diffs::raw(&disks[0]);
    let mut list = Vec::new();
    let mut writer = WindowListWriter::new(&mut list, "list", SIZES[0] as u64).unwrap();
    window_hashes(&base, &workers, &Silent, |start, hashes| {
        writer.push(start, hashes)
    })
    .unwrap();
    writer.finish().unwrap();
    let list = WindowList::open(Memory::new(list)).unwrap();
    for known in [None, Some(&list)] {
        let mut last = Vec::new();
        let mut writer = WindowListWriter::new(&mut last, "list", SIZES[5] as u64).unwrap();
        let found = results_of(
            (&base, known),
            &diffs,
            &workers,
            &Silent,
            |start, hashes| writer.push(start, hashes),
        );
        assert_eq!(found.unwrap(), digests);
        assert_eq!(writer.finish().unwrap(), digests[5]);
    }
    // One that doesn't follow.
    let error = results_of(
        (&base, Some(&list)),
        &diffs[2..],
        &workers,
        &Silent,
        |_, _| Ok(()),
    );
    assert!(error.unwrap_err().to_string().contains("base size"));
}
