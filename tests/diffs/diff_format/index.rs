//! The index: more frames than fit into one segment, and lookups through it.

use vhdkit::diff::{Compression, DiffFile, WindowChange};
use vhdkit::page::PageRange;
use vhdkit::progress::Silent;
use vhdkit::storage::Memory;

use crate::diff_format::sections::{cut, kind};
use crate::diff_format::support::{WINDOW, change, diff, header, verify};

/// Returns a diff with this many frames; every third window is unchanged, every fourth frame is an update.
fn many(frames: u64) -> (Vec<u8>, Vec<PageRange>) {
    let changes: Vec<WindowChange> = (0..frames)
        .map(|n| {
            let window = (n + n / 2) * WINDOW;
            match n % 4 {
                0 => change(window, &[(n % 8000, 1, 1), (8100, 2, 0)]),
                _ => change(window, &[(n % 8192, 1, 0)]),
            }
        })
        .collect();
    let spans = changes.iter().filter_map(|c| c.changes.span()).collect();
    let size = frames * 2 * WINDOW;
    (
        diff(&header(size, size), changes, Compression::default()),
        spans,
    )
}

fn indexes(diff: &[u8]) -> Vec<u32> {
    let sections = cut(diff);
    let indexes = sections.iter().filter(|section| kind(section) == "INDX");
    indexes
        .map(|section| crate::diff_format::sections::u32_at(section, 4))
        .collect()
}

#[test]
fn segments_are_full_but_for_the_last() {
    for (frames, expected) in [
        (0, vec![]),
        (1, vec![1]),
        (4095, vec![4095]),
        (4096, vec![4096]),
        (4097, vec![4096, 1]),
        (8192, vec![4096, 4096]),
    ] {
        let (diff, _) = many(frames);
        assert_eq!(indexes(&diff), expected, "{frames} frames");
        verify(&diff).unwrap();
    }
}

#[test]
fn the_index_finds_what_a_scan_finds() {
    let (diff, spans) = many(8200);
    assert_eq!(indexes(&diff), [4096, 4096, 8]);
    let file = DiffFile::open(Memory::new(diff), &Silent).unwrap();
    let size = file.header().target_size;
    assert_eq!(file.trailer().frames, 8200);

    let edge = spans[4095];
    let places = [
        0,
        512,
        WINDOW - 512,
        WINDOW,
        edge.start() - 512,
        edge.start(),
        edge.end() - 512,
        edge.end(),
    ];
    let last = spans[8199];
    let spread = (0..400).map(|n| n * 15_731 * 2 * 512 * 512 % size);
    for at in places
        .into_iter()
        .chain([last.end() - 512, last.end(), size - 512, size])
        .chain(spread)
    {
        let naive = spans
            .iter()
            .find(|span| span.end() > at)
            .map(|span| span.start().max(at));
        assert_eq!(file.first_change_from(at).unwrap(), naive, "from {at}");
        for len in [512, WINDOW, 40 * WINDOW] {
            let within = PageRange::new(at, at + len).unwrap();
            let found: Vec<_> = file
                .frames_in(within)
                .unwrap()
                .iter()
                .map(vhdkit::diff::Frame::range)
                .collect();
            let naive: Vec<_> = spans
                .iter()
                .copied()
                .filter(|span| span.intersect(within).is_some())
                .collect();
            assert_eq!(found, naive, "in {within:?}");
        }
    }
    assert_eq!(
        file.frames_in(PageRange::new(0, size).unwrap())
            .unwrap()
            .len(),
        8200
    );
}

#[test]
fn an_empty_diff_finds_nothing() {
    let (diff, _) = many(0);
    let file = DiffFile::open(Memory::new(diff), &Silent).unwrap();
    assert_eq!(file.first_change_from(0).unwrap(), None);
    assert!(
        file.frames_in(PageRange::new(0, WINDOW).unwrap())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_diff_costs_what_the_description_says() {
    let empty = diff(
        &header(8 * WINDOW, 8 * WINDOW),
        Vec::new(),
        Compression::None,
    );
    assert_eq!(empty.len(), 52 + 6 + "golden".len() + 176);
    // A single page, three 4 KiB writes, every other page, and a long clear.
    let every_other: Vec<_> = (0..4096).map(|n| (2 * n, 1, 1)).collect();
    let changes = vec![
        change(0, &[(5, 1, 1)]),
        change(WINDOW, &[(8, 8, 1), (100, 8, 1), (8000, 8, 1)]),
        change(2 * WINDOW, &every_other),
        change(3 * WINDOW, &[(0, 8192, 0)]),
        change(4 * WINDOW, &[(0, 8192, 0)]),
    ];
    let diff = diff(&header(8 * WINDOW, 8 * WINDOW), changes, Compression::None);
    let payload = 512 + 3 * 4096 + 4096 * 512;
    let frames = (100 + 4) + (100 + 3 * 4) + (100 + 4096 * 4) + (68 + 24);
    assert_eq!(diff.len(), empty.len() + frames + 20 + 24 + payload);
}
