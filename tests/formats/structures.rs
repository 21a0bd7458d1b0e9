//! The structures of the VHD format against golden files, and whole small images with every byte damaged.
//!
//! With `VHDKIT_UPDATE=1` in the environment, the golden files in `fixtures/vhd` are rewritten, except those from
//! other programs; review the changes before keeping them.
use std::fmt::Write;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use proptest::prelude::*;
use vhdkit::ErrorKind;
use vhdkit::image::{Image, ImageMut};
use vhdkit::page::PageRange;
use vhdkit::storage::Memory;
use vhdkit::vhd::{
    BatEntry, Bitmap, DiskType, DynamicHeader, Field, Footer, FooterPlace, ParentLocator,
    PlatformCode, VhdImage,
};

use crate::checks::{assert_reads_as, read_all};
use crate::vhd_builder::{SECTOR, SHAPES, Shape, TINY, Trailing, patterned};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/vhd")
        .join(name)
}

/// Compares `found` with a golden file, or rewrites that file if the environment asks for it.
fn assert_golden(name: &str, found: &[u8]) {
    let path = fixture(name);
    if std::env::var_os("VHDKIT_UPDATE").is_some() {
        fs::write(&path, found).unwrap();
    }
    let golden = fs::read(&path).unwrap();
    assert!(
        golden == found,
        "{name} is not what it was:\n{}\nrun with VHDKIT_UPDATE=1 if that is right",
        String::from_utf8_lossy(found)
    );
}

fn text(fields: &[Field]) -> String {
    fields.iter().fold(String::new(), |mut text, field| {
        writeln!(
            text,
            "{:>4}  {:<20}  {}",
            field.offset, field.name, field.value
        )
        .unwrap();
        text
    })
}

/// Returns every change of one byte that a damaged medium may cause.
fn damages<const N: usize>(bytes: &[u8; N]) -> impl Iterator<Item = (usize, [u8; N])> + '_ {
    (0..N).flat_map(move |at| {
        let flips = (0..8).map(|bit| 1 << bit).chain([0xFF]);
        flips.map(move |flip| {
            let mut damaged = *bytes;
            damaged[at] ^= flip;
            (at, damaged)
        })
    })
}

#[test]
fn footers_decode_as_their_golden_text_says() {
    for (name, made) in [
        (
            "footer-fixed",
            Some(crate::vhd_builder::footer(&TINY, 2, u64::MAX, 20 << 20)),
        ),
        (
            "footer-dynamic",
            Some(crate::vhd_builder::footer(&SHAPES[1], 3, 512, 127 << 30)),
        ),
        ("footer-tapdisk-hidden", Some(hidden())),
        ("footer-qemu-dynamic", None),
        ("footer-qemu-fixed", None),
    ] {
        if let Some(made) = made {
            assert_golden(&format!("{name}.bin"), &made);
        }
        let bytes: [u8; 512] = fs::read(fixture(&format!("{name}.bin")))
            .unwrap()
            .try_into()
            .unwrap();
        let footer = Footer::decode(&bytes);
        assert_eq!(footer.encode(), bytes);
        assert_golden(&format!("{name}.txt"), text(&footer.fields()).as_bytes());
        footer.verify(0).unwrap();
        for (at, damaged) in damages(&bytes) {
            let footer = Footer::decode(&damaged);
            assert_eq!(footer.encode(), damaged);
            // Where the checksum may leave out a mark, damage of the same amount goes unnoticed.
            if name != "footer-tapdisk-hidden" {
                assert!(footer.verify(0).is_err(), "{name}: byte {at}");
            }
        }
    }
}

/// Returns a footer with tapdisk's mark of a hidden disk, set without a new checksum.
fn hidden() -> [u8; 512] {
    let mut bytes = crate::vhd_builder::footer(&SHAPES[2], 3, 512, 8 << 20);
    bytes[85] = 1;
    bytes
}

#[test]
fn headers_decode_as_their_golden_text_says() {
    for (name, made) in [
        (
            "header-dynamic",
            Some(crate::vhd_builder::header(1536, 64, 2 << 20)),
        ),
        (
            "header-differencing",
            Some(crate::vhd_builder::differencing_header()),
        ),
        ("header-qemu", None),
    ] {
        if let Some(made) = made {
            assert_golden(&format!("{name}.bin"), &made);
        }
        let bytes: [u8; 1024] = fs::read(fixture(&format!("{name}.bin")))
            .unwrap()
            .try_into()
            .unwrap();
        let header = DynamicHeader::decode(&bytes);
        assert_eq!(header.encode(), bytes);
        assert_golden(&format!("{name}.txt"), text(&header.fields()).as_bytes());
        header.verify(512).unwrap();
        for (at, damaged) in damages(&bytes) {
            let header = DynamicHeader::decode(&damaged);
            assert_eq!(header.encode(), damaged);
            assert!(header.verify(512).is_err(), "{name}: byte {at}");
        }
    }
}

#[test]
fn locators_decode_as_their_golden_text_says() {
    let bytes = crate::vhd_builder::locator(*b"W2ru", 512, 26, 12_288);
    assert_golden("locator.bin", &bytes);
    let locator = ParentLocator::decode(&bytes);
    assert_golden("locator.txt", format!("{locator}\n").as_bytes());
    assert_eq!(locator.platform_code, PlatformCode::W2RU);
    for (_, damaged) in damages(&bytes) {
        let other = ParentLocator::decode(&damaged);
        assert_eq!(other.encode(), damaged);
        assert_ne!(other, locator);
    }
}

#[test]
fn bats_and_bitmaps_decode_as_their_golden_text_says() {
    let entries = [
        BatEntry(7),
        BatEntry::ABSENT,
        BatEntry(4111),
        BatEntry(0xFFFF_FFFE),
    ];
    let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.encode()).collect();
    assert_golden("bat.bin", &bytes);
    let mut listed = String::new();
    for (n, entry) in bytes.as_chunks::<4>().0.iter().enumerate() {
        let offset = BatEntry::decode(entry).offset();
        let offset = offset.map_or("absent".into(), |offset| offset.to_string());
        writeln!(listed, "bat[{n}]  {offset}").unwrap();
    }
    assert_golden("bat.txt", listed.as_bytes());

    let mut bitmap = Bitmap::new(vec![0; SECTOR], 0);
    for sectors in [0..3, 7..9, 64..128, 4095..4096] {
        bitmap.set(sectors);
    }
    assert_golden("bitmap.bin", bitmap.as_bytes());
    let runs = bitmap.runs(0..4096).fold(String::new(), |mut text, run| {
        writeln!(
            text,
            "{}..{} {}",
            run.start,
            run.end,
            if run.stored { "stored" } else { "clear" }
        )
        .unwrap();
        text
    });
    assert_golden("bitmap.txt", runs.as_bytes());
}

/// Returns the content of a file, if it opens and can be read.
fn content(file: Vec<u8>) -> vhdkit::Result<Vec<u8>> {
    let image = VhdImage::open(Memory::new(file))?;
    let mut bytes = vec![0xEE; usize::try_from(image.virtual_size()).unwrap()];
    image.read_exact_at(&mut bytes, 0)?;
    for extent in image.extents(PageRange::new(0, image.virtual_size()).unwrap()) {
        extent?;
    }
    Ok(bytes)
}

#[test]
fn the_shapes_of_other_programs_are_read_and_grow() {
    for shape in SHAPES {
        for pages in [9000, 8192, 1] {
            let mut disk = patterned(pages);
            let storage = Memory::new(crate::vhd_builder::dynamic(&shape, &disk));
            let mut image = VhdImage::open(&storage).unwrap_or_else(|e| panic!("{shape:?}: {e:?}"));
            assert_reads_as(&image, &disk);
            assert_eq!(
                image.warnings().is_empty(),
                shape.trailing != Trailing::Missing
            );
            let place = VhdImage::probe(&&storage).unwrap().unwrap().place;
            assert_eq!(
                place,
                match shape.trailing {
                    Trailing::Whole => FooterPlace::Trailing,
                    Trailing::Short => FooterPlace::Trailing511,
                    Trailing::Missing => FooterPlace::Copy,
                }
            );
            for page in [0, pages / 2, pages.saturating_sub(70)] {
                disk[page * SECTOR..(page + 1) * SECTOR].fill(0xAB);
                let range = PageRange::from_len((page * SECTOR) as u64, 512).unwrap();
                image.update(range, &[0xAB; 512]).unwrap();
            }
            image.flush().unwrap();
            let again = VhdImage::open(&storage).unwrap();
            assert!(
                again.warnings().is_empty(),
                "{}: {:?}",
                shape.name,
                again.warnings()
            );
            assert_reads_as(&again, &disk);
        }
    }
}

#[test]
fn fixed_disks_are_read_by_their_trailing_footer() {
    let disk = patterned(100);
    for trailing in [Trailing::Whole, Trailing::Short] {
        let file = crate::vhd_builder::fixed(&Shape { trailing, ..TINY }, &disk);
        let image = VhdImage::open(Memory::new(file)).unwrap();
        assert!(image.warnings().is_empty());
        assert_reads_as(&image, &disk);
    }
    // The disk of a guest that stores VHD files directly on the disk, intact or damaged.
    let inner = crate::vhd_builder::dynamic(&TINY, &disk);
    for damaged in [false, true] {
        let mut guest = inner.clone();
        guest[68] ^= 1;
        crate::vhd_builder::seal(&mut guest[..512], 64);
        guest[64] ^= u8::from(damaged);
        let mut file = crate::vhd_builder::fixed(&TINY, &guest);
        let image = VhdImage::open(Memory::new(file.clone())).unwrap();
        assert_eq!(
            (image.disk_type(), image.warnings().len()),
            (DiskType::Fixed, usize::from(!damaged))
        );
        assert_reads_as(&image, &guest);
        // Without its own footer the file must not be taken for the guest's.
        let last = file.len() - 1;
        file[last] ^= 1;
        assert!(VhdImage::open(Memory::new(file)).is_err());
    }
    let mut file = crate::vhd_builder::fixed(&TINY, &disk);
    let footer = file.split_off(disk.len());
    file.extend([0; 1024]);
    file.extend(footer);
    let image = VhdImage::open(Memory::new(file)).unwrap();
    assert_eq!(image.warnings()[0].field(), Some("file_size"));
    assert_reads_as(&image, &disk);
}

/// Oracle: a damaged footer causes an error, damaged data changes only that byte.
#[test]
fn every_flipped_byte_of_a_fixed_disk_is_refused_or_stays_where_it_is() {
    let disk = patterned(3);
    let file = crate::vhd_builder::fixed(&TINY, &disk);
    for at in 0..file.len() {
        for flip in [1, 0x80, 0xFF] {
            let mut damaged = file.clone();
            damaged[at] ^= flip;
            let mut expected = disk.clone();
            match expected.get_mut(at) {
                Some(byte) => {
                    *byte ^= flip;
                    assert!(content(damaged).unwrap() == expected, "byte {at}");
                }
                None => assert!(content(damaged).is_err(), "byte {at}"),
            }
        }
    }
    for len in 0..file.len() {
        let cut = content(file[..len].to_vec());
        // The last byte of a footer is reserved, and old programs left it out.
        assert_eq!(cut.is_ok(), len == file.len() - 1, "cut to {len}");
    }
}

/// Returns which bytes of the disk may change with the byte at `at` of `file`, or `None` if opening must fail.
fn may_change(shape: &Shape, file: &[u8], disk: &[u8], at: usize) -> Option<Range<usize>> {
    let block_of = |n: usize| {
        let start = (n * shape.block_size).min(disk.len());
        start..(start + shape.block_size).min(disk.len())
    };
    if (512..1536).contains(&at) {
        return None;
    }
    let blocks = disk.len().div_ceil(shape.block_size);
    if (1536..1536 + blocks * 4).contains(&at) {
        return Some(block_of((at - 1536) / 4));
    }
    for n in 0..blocks {
        let sector = u32::from_be_bytes(file[1536 + n * 4..][..4].try_into().unwrap());
        let start = usize::try_from(u64::from(sector) * 512).unwrap();
        if sector == u32::MAX || at < start || at >= start + SECTOR + shape.block_size {
            continue;
        }
        let page = match at - start {
            bitmap if bitmap < SECTOR => bitmap * 8,
            data => (data - SECTOR) / SECTOR,
        };
        let pages = if at - start < SECTOR { 8 } else { 1 };
        let block = block_of(n);
        let first = (block.start + page * SECTOR).min(block.end);
        return Some(first..(first + pages * SECTOR).min(block.end));
    }
    Some(0..0)
}

/// Oracle: a damaged header causes an error, a damaged footer leaves the content unchanged thanks to the other one; a
/// BAT entry may cause an error or change its own block, a byte of a bitmap its own eight pages, a byte of data its own
/// page; nothing else may change.
#[test]
fn every_flipped_byte_of_a_dynamic_disk_is_refused_or_stays_where_it_belongs() {
    let mut disk = patterned(29);
    disk[8192..12288].fill(0);
    let file = crate::vhd_builder::dynamic(&TINY, &disk);
    for at in 0..file.len() {
        let in_data = at < file.len() - 512 && at / 4096 % 2 == 1;
        if in_data && at % 61 != 0 {
            continue;
        }
        for flip in [1, 0x80, 0xFF] {
            let mut damaged = file.clone();
            damaged[at] ^= flip;
            let Some(range) = may_change(&TINY, &file, &disk, at) else {
                assert!(content(damaged).is_err(), "byte {at}");
                continue;
            };
            let is_entry = (1536..1536 + 16).contains(&at);
            let is_footer = at < 512 || at >= file.len() - 512;
            match content(damaged.clone()) {
                Ok(found) => {
                    assert_eq!(found.len(), disk.len());
                    assert!(found[..range.start] == disk[..range.start], "byte {at}");
                    assert!(found[range.end..] == disk[range.end..], "byte {at}");
                    let image = VhdImage::open(Memory::new(damaged)).unwrap();
                    assert_eq!(image.warnings().len(), usize::from(is_footer), "byte {at}");
                }
                Err(error) => assert!(is_entry, "byte {at}: {error:?}"),
            }
        }
    }
}

/// Oracle: cut anywhere, the file is either refused or has its old content.
#[test]
fn a_dynamic_disk_cut_anywhere_is_refused_or_whole() {
    let disk = patterned(29);
    let file = crate::vhd_builder::dynamic(&TINY, &disk);
    let (mut refused, mut read) = (0, 0);
    for len in 0..file.len() {
        match content(file[..len].to_vec()) {
            Ok(found) => {
                assert!(found == disk, "cut to {len}");
                read += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(
        refused > 1536 && read >= 512,
        "{refused} refused, {read} read"
    );
}

#[test]
fn a_last_block_cut_where_nothing_was_written_is_read_and_mended() {
    let shape = Shape {
        block_size: 64 << 10,
        ..TINY
    };
    let mut disk = vec![0; 128 << 10];
    disk[65536..66560].fill(7);
    let whole = crate::vhd_builder::dynamic(&shape, &disk);
    let footer = whole[..512].to_vec();
    // Like tapdisk, which ends the file after the last written sector and puts the footer right there.
    for keep in [2, 50] {
        let mut file = whole[..4096 + 512 * keep].to_vec();
        file.extend(&footer);
        let storage = Memory::new(file);
        let mut image = VhdImage::open(&storage).unwrap();
        assert!(image.warnings().is_empty(), "{:?}", image.warnings());
        assert_reads_as(&image, &disk);
        let range = PageRange::from_len(65536 + 30 * 512, 512).unwrap();
        image.update(range, &[9; 512]).unwrap();
        image
            .update(PageRange::new(0, 512).unwrap(), &[8; 512])
            .unwrap();
        image.flush().unwrap();
        let again = VhdImage::open(&storage).unwrap();
        assert!(again.warnings().is_empty());
        let mut expected = disk.clone();
        expected[65536 + 30 * 512..][..512].fill(9);
        expected[..512].fill(8);
        assert_reads_as(&again, &expected);
    }
    let mut file = whole[..4096 + 512].to_vec();
    file.extend(&footer);
    let error = VhdImage::open(Memory::new(file)).unwrap_err();
    assert_eq!(
        (error.kind(), error.field()),
        (ErrorKind::Damaged, Some("bat[1]"))
    );
}

/// Returns a small dynamic file whose header was changed by `change` and sealed again.
fn with_header(change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut file = crate::vhd_builder::dynamic(&TINY, &patterned(29));
    change(&mut file[512..1536]);
    crate::vhd_builder::seal(&mut file[512..1536], 36);
    file
}

/// Returns a small dynamic file whose footers were both changed by `change` and sealed again.
fn with_footers(change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut file = crate::vhd_builder::dynamic(&TINY, &patterned(29));
    let last = file.len() - 512;
    for at in [0, last] {
        change(&mut file[at..at + 512]);
        crate::vhd_builder::seal(&mut file[at..at + 512], 64);
    }
    file
}

/// Returns a small dynamic file whose BAT entry `n` is `sector`.
fn with_entry(n: usize, sector: u32) -> Vec<u8> {
    let mut file = crate::vhd_builder::dynamic(&TINY, &patterned(29));
    file[1536 + n * 4..][..4].copy_from_slice(&sector.to_be_bytes());
    file
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn hostile_files_are_refused_with_field_and_place() {
    let put64 = |at: usize, value: u64| {
        move |bytes: &mut [u8]| bytes[at..at + 8].copy_from_slice(&value.to_be_bytes())
    };
    let put32 = |at: usize, value: u32| {
        move |bytes: &mut [u8]| bytes[at..at + 4].copy_from_slice(&value.to_be_bytes())
    };
    let end = crate::vhd_builder::dynamic(&TINY, &patterned(29)).len();
    let last_sector = u32::try_from(end / 512 - 1).unwrap();
    for (file, field, kind) in [
        (
            with_footers(put64(48, 0)),
            "footer.current_size",
            ErrorKind::Damaged,
        ),
        (
            with_footers(put64(48, 1000)),
            "footer.current_size",
            ErrorKind::Damaged,
        ),
        (
            with_footers(put64(48, u64::MAX - 511)),
            "footer.current_size",
            ErrorKind::Damaged,
        ),
        (
            with_footers(put64(48, 1 << 40)),
            "header.max_table_entries",
            ErrorKind::Damaged,
        ),
        (
            with_footers(put64(16, 513)),
            "footer.data_offset",
            ErrorKind::Damaged,
        ),
        (
            with_footers(put64(16, 0)),
            "footer.data_offset",
            ErrorKind::Damaged,
        ),
        (
            with_footers(put64(16, u64::MAX)),
            "footer.data_offset",
            ErrorKind::Damaged,
        ),
        (
            with_footers(put64(16, 1536)),
            "header.cookie",
            ErrorKind::Damaged,
        ),
        (
            with_footers(put32(12, 0x2_0000)),
            "footer.file_format_version",
            ErrorKind::Unsupported,
        ),
        (
            with_footers(put32(60, 0)),
            "footer.disk_type",
            ErrorKind::Unsupported,
        ),
        (
            with_footers(put32(60, 7)),
            "footer.disk_type",
            ErrorKind::Unsupported,
        ),
        (
            with_footers(put32(60, 4)),
            "footer.disk_type",
            ErrorKind::Unsupported,
        ),
        (
            with_footers(|b| b[..8].copy_from_slice(b"v_poison")),
            "footer.cookie",
            ErrorKind::Unsupported,
        ),
        (
            with_header(put64(16, 1537)),
            "header.table_offset",
            ErrorKind::Damaged,
        ),
        (
            with_header(put64(16, 0)),
            "header.table_offset",
            ErrorKind::Damaged,
        ),
        (
            with_header(put64(16, 1024)),
            "header.table_offset",
            ErrorKind::Damaged,
        ),
        (
            with_header(put64(16, 1 << 40)),
            "header.table_offset",
            ErrorKind::Damaged,
        ),
        (
            with_header(put64(16, u64::MAX - 511)),
            "header.table_offset",
            ErrorKind::Damaged,
        ),
        (
            with_header(put32(28, 0)),
            "header.max_table_entries",
            ErrorKind::Damaged,
        ),
        (
            with_header(put32(28, 3)),
            "header.max_table_entries",
            ErrorKind::Damaged,
        ),
        (
            with_header(put32(28, u32::MAX)),
            "header.max_table_entries",
            ErrorKind::Damaged,
        ),
        (
            with_header(put32(32, 0)),
            "header.block_size",
            ErrorKind::Damaged,
        ),
        (
            with_header(put32(32, 1 << 31)),
            "header.block_size",
            ErrorKind::Damaged,
        ),
        (with_entry(0, 0), "bat[0]", ErrorKind::Damaged),
        (with_entry(1, 1), "bat[1]", ErrorKind::Damaged),
        (with_entry(1, 3), "bat[1]", ErrorKind::Damaged),
        (with_entry(2, last_sector), "bat[2]", ErrorKind::Damaged),
        (with_entry(2, u32::MAX - 1), "bat[2]", ErrorKind::Damaged),
    ] {
        let error = VhdImage::open(Memory::new(file)).unwrap_err();
        assert_eq!(
            (error.field(), error.kind()),
            (Some(field), kind),
            "{error}"
        );
        assert!(
            error.offset().is_some() && error.hint().is_some(),
            "{error}"
        );
        assert!(error.to_string().contains("found"), "{error}");
    }
    // Blocks at the same offset, and one that begins within another.
    for (n, sector) in [(3, 7), (0, 8), (3, 14)] {
        let mut file = with_entry(n, sector);
        file[1536 + 4..1536 + 8].copy_from_slice(&7_u32.to_be_bytes());
        let error = VhdImage::open(Memory::new(file)).unwrap_err();
        assert!(error.message().starts_with("two blocks"), "{error}");
    }
}

#[test]
fn what_is_no_vhd_is_told_from_what_is_damaged() {
    for len in [0, 1, 511, 512, 4096, 4095] {
        let storage = Memory::new(vec![0x5A; len]);
        assert_eq!(VhdImage::probe(&storage).unwrap(), None);
        assert!(VhdImage::open(storage).is_err());
    }
    let mut file = crate::vhd_builder::fixed(&TINY, &patterned(3));
    *file.last_mut().unwrap() ^= 1;
    let hint = VhdImage::probe(&Memory::new(file)).unwrap().unwrap();
    assert_eq!((hint.place, hint.intact), (FooterPlace::Trailing, false));
    let file = crate::vhd_builder::dynamic(&TINY, &patterned(29));
    let hint = VhdImage::probe(&Memory::new(file[..file.len() - 512].to_vec()))
        .unwrap()
        .unwrap();
    assert_eq!((hint.place, hint.intact), (FooterPlace::Copy, true));
}

#[test]
fn two_footers_that_differ_are_reported() {
    let disk = patterned(29);
    let mut file = crate::vhd_builder::dynamic(&TINY, &disk);
    file[70] ^= 1;
    crate::vhd_builder::seal(&mut file[..512], 64);
    let image = VhdImage::open(Memory::new(file)).unwrap();
    let warning = &image.warnings()[0];
    assert_eq!(warning.field(), Some("footer_copy.unique_id"));
    assert!(read_all(&image) == disk);
}

/// Generates numbers that make arithmetic go wrong.
fn hostile_number() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(u32::MAX),
        Just(u32::MAX - 1),
        Just(1 << 31),
        Just(512),
        Just(4096),
        0..64_u32,
        any::<u32>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Oracle: a file with right checksums over wrong numbers is refused, or can be read, written and reopened. It
    /// never causes panics, endless loops or unbounded use of memory.
    #[test]
    fn wrong_numbers_under_right_checksums_do_no_harm(
        words in prop::collection::vec(
            (
                prop_oneof![
                    Just(16_usize), Just(20), Just(48), Just(52), Just(60), // footer: data_offset, current_size, disk_type
                    Just(528), Just(532), Just(540), Just(544), // header: table_offset, max_table_entries, block_size
                    (0..4_usize).prop_map(|n| 1536 + n * 4), // BAT
                ],
                hostile_number(),
            ),
            1..4,
        ),
        cut in prop_oneof![3 => Just(0_usize), 1 => 0..6000_usize],
    ) {
        let mut file = crate::vhd_builder::dynamic(&TINY, &patterned(29));
        for (at, value) in words {
            file[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        crate::vhd_builder::seal(&mut file[..512], 64);
        crate::vhd_builder::seal(&mut file[512..1536], 36);
        let last = file.len() - 512;
        file.copy_within(..512, last);
        file.truncate(file.len() - cut);
        let storage = Memory::new(file);
        let Ok(mut image) = VhdImage::open(&storage) else {
            return Ok(());
        };
        let size = image.virtual_size();
        let mut bytes = vec![0; 64 << 10];
        for start in [0, size / 1024 * 512, size.saturating_sub(65536)] {
            let len = usize::try_from(size - start).unwrap_or(usize::MAX).min(bytes.len());
            let _ = image.read_exact_at(&mut bytes[..len], start);
            let within = PageRange::from_len(start, len as u64).unwrap();
            for extent in image.extents(within).take(1000) {
                prop_assert!(extent.is_err() || !extent.unwrap().range.is_empty());
            }
        }
        for start in [0, size - 512] {
            let range = PageRange::from_len(start, 512).unwrap();
            if image.block_size().is_none_or(|size| size <= 1 << 20) && image.update(range, &[1; 512]).is_ok() {
                image.flush().unwrap();
                let again = VhdImage::open(&storage).unwrap();
                again.read_exact_at(&mut bytes[..512], start).unwrap();
                prop_assert_eq!(&bytes[..512], &[1; 512]);
            }
        }
    }
}
