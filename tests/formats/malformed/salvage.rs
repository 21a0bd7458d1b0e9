//! Salvage reads what is left of damaged files and names what is lost.

use vhdkit::image::Image;
use vhdkit::page::PageRange;
use vhdkit::storage::Memory;
use vhdkit::vhd::{ParentPolicy, VhdImage};

use super::TINY;
use crate::checks::read_all;
use crate::vhd_writers::{edit_footers, edit_header, put32, put64, seal};

const SECTOR: usize = 512;

/// Returns the content and the lost ranges.
fn saved(file: Vec<u8>) -> (Vec<u8>, Vec<PageRange>) {
    let image = VhdImage::salvage(Memory::new(file), ParentPolicy::Refused).unwrap();
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
            vec![range(0, 8192)],
        ),
        (
            // The last page of block 0 and the bitmap of block 1.
            "a block one sector early",
            with(&|f| {
                let at = 2048 + TINY.stride();
                let block: Vec<u8> = f[at..at + TINY.stride()].to_vec();
                f[at - SECTOR..at - SECTOR + block.len()].copy_from_slice(&block);
                put32(f, 1536 + 4, u32::try_from(at / SECTOR - 1).unwrap());
            }),
            &content,
            vec![range(4096 - 512, 4096)],
        ),
        (
            // Only pages of the second block are covered by the header.
            "a block whose data reaches into the BAT",
            with(&|f| {
                let bat: Vec<u8> = f[1536..2048].to_vec();
                f.splice(1536..2048, vec![0; 9 * SECTOR]);
                let at = 1536 + 9 * SECTOR - 2 * SECTOR;
                f.splice(at..at, bat);
                let table = at as u64;
                for n in 0..TINY.blocks() {
                    let entry = f[at + n * 4..at + n * 4 + 4].to_vec();
                    let sector = u32::from_be_bytes(entry.try_into().unwrap());
                    put32(f, at + n * 4, sector + 9);
                }
                // Block 1, which is moved to the front.
                let from = 2048 + 9 * SECTOR + TINY.stride();
                let block: Vec<u8> = f[from..from + TINY.stride()].to_vec();
                let under: Vec<u8> = f[at..at + SECTOR].to_vec();
                f[1536..1536 + block.len()].copy_from_slice(&block);
                f[at..at + SECTOR].copy_from_slice(&under);
                put32(f, at + 4, 3);
                edit_header(f, |h| put64(h, 16, table));
            }),
            &content,
            vec![range(4096 + 6 * 512, 4096 + 7 * 512)],
        ),
        (
            "two blocks that are gone",
            with(&|f| f[1536 + 4..1536 + 12].fill(0)),
            &content,
            vec![range(4096, 12_288)],
        ),
        (
            "cut in the last block, after all that is stored of it",
            with(&|f| f.truncate(f.len() - 8 * SECTOR)),
            &content,
            vec![],
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
            "fixed, data before the footer",
            [
                fixed.clone(),
                vec![7; 1024],
                TINY.fixed()[TINY.size..].to_vec(),
            ]
            .concat(),
            &[fixed.clone(), vec![7; 1024]].concat(),
            vec![],
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

/// A full disk cut anywhere in its last two blocks loses exactly the missing pages.
#[test]
fn exactly_what_is_missing_is_lost() {
    let file = TINY.dynamic(0xFF, true);
    let content = read_all(&VhdImage::open(Memory::new(file.clone())).unwrap());
    let data_end = file.len() - SECTOR;
    for cut in (0..2 * TINY.stride()).step_by(256) {
        let mut file = file.clone();
        file.truncate(data_end - cut);
        let (found, lost) = saved(file.clone());
        let mut expected = content.clone();
        let mut gone = Vec::new();
        for page in 0..TINY.size / SECTOR {
            let (block, sector) = (page / 8, page % 8);
            let bitmap = 2048 + block * TINY.stride();
            // Without the bitmap byte that covers its pages, a block doesn't exist.
            let there =
                bitmap + SECTOR + (sector + 1) * SECTOR <= file.len() && bitmap < file.len();
            if !there {
                expected[page * SECTOR..(page + 1) * SECTOR].fill(0);
                gone.push(page as u64 * 512);
            }
        }
        let named: Vec<u64> = lost
            .iter()
            .flat_map(|range| (range.start()..range.end()).step_by(SECTOR))
            .collect();
        assert_eq!(named, gone, "cut by {cut}");
        assert!(found == expected, "cut by {cut}");
    }
}

/// Blocks placed too close together by a writer, each bitmap overlapping the end of the block before by some sectors.
#[test]
fn overlapping_blocks_lose_the_pages_under_the_overlap() {
    for early in 1..=9 {
        for full in [true, false] {
            let step = TINY.stride() - early * SECTOR;
            let mut file = TINY.head(TINY.blocks(), 0xFF);
            let mut expected = vec![0; TINY.size];
            let mut owners = vec![Vec::new(); 100];
            for n in 0..TINY.blocks() {
                let mut one = TINY.head(TINY.blocks(), 0xFF);
                let from = one.len();
                TINY.add_block(&mut one, n, full);
                let at = 2048 + n * step;
                file.resize(file.len().max(at + TINY.stride()), 0);
                file[at..at + TINY.stride()].copy_from_slice(&one[from..]);
                put32(&mut file, 1536 + n * 4, u32::try_from(at / SECTOR).unwrap());
                let disk = n * 4096..((n + 1) * 4096).min(TINY.size);
                let len = disk.len();
                expected[disk].copy_from_slice(&one[from + SECTOR..][..len]);
                for sector in 0..TINY.stride() / SECTOR {
                    owners[at / SECTOR + sector].push(n);
                }
            }
            file.extend(TINY.footer());
            let (found, lost) = saved(file);
            let mut gone = Vec::new();
            for page in 0..TINY.size / SECTOR {
                let place = 4 + page / 8 * step / SECTOR + 1 + page % 8;
                if owners[place].len() > 1 {
                    gone.push(page as u64 * 512);
                    expected[page * SECTOR..(page + 1) * SECTOR].fill(0);
                }
            }
            let named: Vec<u64> = lost
                .iter()
                .flat_map(|range| (range.start()..range.end()).step_by(SECTOR))
                .collect();
            assert_eq!(named, gone, "{early} sectors early, full: {full}");
            assert!(found == expected, "{early} sectors early, full: {full}");
        }
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
        assert!(VhdImage::salvage(Memory::new(file), ParentPolicy::Refused).is_err());
    }
}

#[test]
fn every_malformed_file_is_salvaged_or_refused() {
    for (_, file, _) in super::table::cases() {
        if let Ok(image) = VhdImage::salvage(Memory::new(file), ParentPolicy::Refused)
            && image.virtual_size() < 1 << 20
        {
            drop(read_all(&image));
        }
    }
}
