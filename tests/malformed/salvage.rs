//! What is left of damaged files is read, and what is lost is named.

use vhdkit::image::Image;
use vhdkit::page::PageRange;
use vhdkit::storage::Memory;
use vhdkit::vhd::{Family, VhdImage};

use super::TINY;
use super::checks::read_all;
use super::writers::{edit_footers, edit_header, put32, put64, seal};

const SECTOR: usize = 512;

/// The content and what is lost.
fn saved(file: Vec<u8>) -> (Vec<u8>, Vec<PageRange>) {
    let image = VhdImage::salvage(Memory::new(file), Family::Refused).unwrap();
    let lost = image.lost().to_vec();
    for range in &lost {
        let inside = range.end().min(image.virtual_size());
        let mut bytes = vec![1; usize::try_from(inside.saturating_sub(range.start())).unwrap()];
        image.read_exact_at(&mut bytes, range.start()).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
    }
    (read_all(&image), lost)
}

fn range(start: u64, end: u64) -> PageRange {
    PageRange::new(start, end).unwrap()
}

#[test]
fn what_is_left_is_read() {
    let dynamic = || TINY.dynamic(0xFF, false);
    let content = read_all(&VhdImage::open(Memory::new(dynamic())).unwrap());
    let fixed = TINY.fixed()[..TINY.size].to_vec();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut file = dynamic();
        change(&mut file);
        file
    };
    let fixed_with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut file = TINY.fixed();
        change(&mut file);
        file
    };
    let entry = |n: usize, sector: u32| with(&|f| put32(f, 1536 + n * 4, sector));
    let both = |at: usize| {
        with(&|f| {
            let trailing = f.len() - SECTOR;
            f[at] ^= 1;
            f[trailing + at] ^= 1;
        })
    };
    for (name, file, whole, lost) in [
        ("nothing wrong", dynamic(), &content, vec![]),
        ("nothing wrong, fixed", TINY.fixed(), &fixed, vec![]),
        (
            "a block past the end",
            entry(1, 5_000_000),
            &content,
            vec![range(4096, 8192)],
        ),
        (
            "two blocks in one place",
            entry(1, 4),
            &content,
            vec![range(4096, 8192)],
        ),
        (
            "two blocks that are gone",
            with(&|f| f[1536 + 4..1536 + 12].fill(0)),
            &content,
            vec![range(4096, 12_288)],
        ),
        (
            "cut in the last block",
            with(&|f| f.truncate(f.len() - 8 * SECTOR)),
            &content,
            vec![range(12_288 + 512, TINY.size as u64)],
        ),
        ("a cookie", both(0), &content, vec![]),
        ("both checksums", both(66), &content, vec![]),
        (
            "header's checksum",
            with(&|f| f[512 + 37] ^= 1),
            &content,
            vec![],
        ),
        (
            "header's cookie",
            with(&|f| edit_header(f, |h| h[0] = 1)),
            &content,
            vec![],
        ),
        (
            "a BAT of 16 GiB",
            with(&|f| edit_header(f, |h| put32(h, 28, u32::MAX))),
            &content,
            vec![],
        ),
        (
            "header's place",
            with(&|f| edit_footers(f, |f| put64(f, 16, 9999))),
            &content,
            vec![],
        ),
        (
            "version",
            with(&|f| edit_footers(f, |f| put32(f, 12, 0x0009_0000))),
            &content,
            vec![],
        ),
        (
            "footer over data",
            with(&|f| {
                let footer = f[..SECTOR].to_vec();
                let at = f.len() - 2 * SECTOR;
                f.truncate(at);
                f.extend(footer);
            }),
            &content,
            vec![],
        ),
        (
            "fixed, cut off",
            fixed_with(&|f| {
                f.drain(TINY.size - 1024..TINY.size);
            }),
            &fixed,
            vec![range(TINY.size as u64 - 1024, TINY.size as u64)],
        ),
        (
            "fixed, checksum",
            fixed_with(&|f| f[TINY.size + 66] ^= 1),
            &fixed,
            vec![],
        ),
    ] {
        let (found, named) = saved(file);
        let mut expected = whole.clone();
        for range in &lost {
            let at = |place: u64| usize::try_from(place).unwrap();
            expected[at(range.start())..at(range.end())].fill(0);
        }
        assert_eq!(named, lost, "{name}");
        assert!(found == expected, "{name}");
    }
}

#[test]
fn without_a_trace_of_its_shape_nothing_is_read() {
    let mut unknown = TINY.dynamic(0xFF, false);
    edit_footers(&mut unknown, |f| put32(f, 60, 7));
    let mut blocks = TINY.dynamic(0xFF, false);
    edit_header(&mut blocks, |h| put32(h, 32, 0));
    let mut header = TINY.dynamic(0xFF, false);
    header[512..1536].fill(7);
    seal(&mut header[..SECTOR]);
    for file in [unknown, blocks, header, vec![0; 4096], vec![]] {
        assert!(VhdImage::salvage(Memory::new(file), Family::Refused).is_err());
    }
}

#[test]
fn every_malformed_file_is_salvaged_or_refused() {
    for (_, file, _) in super::table::cases() {
        if let Ok(image) = VhdImage::salvage(Memory::new(file), Family::Refused)
            && image.virtual_size() < 1 << 20
        {
            drop(read_all(&image));
        }
    }
}
