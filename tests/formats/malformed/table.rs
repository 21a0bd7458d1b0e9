//! The table of malformed inputs: every row has exactly its findings.

use vhdkit::files::{Format, OpenOptions, ParentOptions, open_image};
use vhdkit::storage::Memory;
use vhdkit::vhd::{CheckOptions, RepairPlan, check};

use super::{TINY, checked, lines};
use crate::vhd_writers::{Writer, data, edit_footers, edit_header, put32, put64, seal, set_batmap};

type Case = (&'static str, Vec<u8>, &'static [&'static str]);

const SECTOR: usize = 512;

fn dynamic() -> Vec<u8> {
    TINY.dynamic(0xFF, false)
}

fn fixed() -> Vec<u8> {
    TINY.fixed()
}

fn changed(mut file: Vec<u8>, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut file);
    file
}

fn footers(file: Vec<u8>, change: impl Fn(&mut [u8])) -> Vec<u8> {
    changed(file, |file| edit_footers(file, &change))
}

fn header(file: Vec<u8>, change: impl Fn(&mut [u8])) -> Vec<u8> {
    changed(file, |file| edit_header(file, &change))
}

fn trailing(file: Vec<u8>, change: impl Fn(&mut [u8])) -> Vec<u8> {
    changed(file, |file| {
        let at = file.len() - SECTOR;
        change(&mut file[at..]);
    })
}

/// Returns a fixed disk with some bytes between its end and its footer.
fn slack(bytes: &[u8]) -> Vec<u8> {
    changed(fixed(), |file| {
        drop(file.splice(TINY.size..TINY.size, bytes.to_vec()));
    })
}

/// Returns a file whose trailing footer has another type.
fn labelled(file: Vec<u8>, disk_type: u32) -> Vec<u8> {
    trailing(file, |footer| {
        put32(footer, 60, disk_type);
        put64(footer, 16, SECTOR as u64);
        seal(footer);
    })
}

/// Returns a disk whose BAT entry `n` is `sector`.
fn bat(n: usize, sector: u32) -> Vec<u8> {
    changed(dynamic(), |file| put32(file, 1536 + n * 4, sector))
}

fn file_sizes() -> Vec<Case> {
    vec![
        ("empty", vec![], &["error file-empty file_size"]),
        ("100 bytes", vec![7; 100], &["error raw-size file_size"]),
        (
            "footer only",
            TINY.footer().to_vec(),
            &["error data-offset footer.data_offset"],
        ),
        (
            "fixed footer only",
            fixed().split_off(14 << 10),
            &["error fixed-cut-off file_size"],
        ),
        (
            "fixed, a sector short",
            changed(fixed(), |file| drop(file.drain(0..SECTOR))),
            &["error fixed-cut-off file_size"],
        ),
        (
            "fixed, data between its end and the footer",
            changed(fixed(), |file| drop(file.splice(0..0, [1; SECTOR]))),
            &["warning fixed-slack-data file_size"],
        ),
        (
            "fixed, zeros between its end and the footer",
            slack(&[0; 3 * SECTOR]),
            &["warning fixed-slack file_size"],
        ),
        (
            "fixed, an older footer between its end and the footer",
            slack(&[&fixed()[TINY.size..], &[0; SECTOR]].concat()),
            &["warning fixed-slack file_size"],
        ),
        (
            "fixed, the footer of another disk between its end and the footer",
            slack(
                &Writer {
                    id: [9; 16],
                    disk_type: 2,
                    ..TINY
                }
                .footer(),
            ),
            &["warning fixed-slack-data file_size"],
        ),
        (
            "fixed, but called dynamic",
            labelled(fixed(), 3),
            &["repairable type-label footer.disk_type"],
        ),
        (
            "fixed, but called differencing",
            labelled(fixed(), 4),
            &["repairable type-label footer.disk_type"],
        ),
        (
            "fixed, but called none",
            labelled(fixed(), 0),
            &["repairable type-label footer.disk_type"],
        ),
        (
            "fixed, but called a type that doesn't exist",
            labelled(fixed(), 77),
            &["repairable type-label footer.disk_type"],
        ),
        (
            "fixed, called dynamic, with the footer of another disk in its first sector",
            labelled(
                changed(fixed(), |file| {
                    let other = Writer {
                        id: [9; 16],
                        ..TINY
                    };
                    file[..SECTOR].copy_from_slice(&other.footer());
                }),
                3,
            ),
            &[
                "repairable type-label footer.disk_type",
                "warning nested-footer footer_copy.cookie",
            ],
        ),
        (
            "fixed, called dynamic, garbage after the footer",
            changed(labelled(fixed(), 3), |file| file.extend(data(700, 3))),
            &[
                "repairable trailing-garbage file_size",
                "repairable type-label footer.disk_type",
            ],
        ),
        (
            "fixed, called dynamic, a sector short",
            changed(labelled(fixed(), 3), |file| drop(file.drain(0..SECTOR))),
            &[
                "error header-cookie header.cookie",
                "repairable footer-copy-damaged footer_copy.cookie",
            ],
        ),
        (
            "fixed, garbage behind the footer",
            changed(fixed(), |file| file.extend(data(700, 3))),
            &["repairable trailing-garbage file_size"],
        ),
        (
            "fixed, extra zero sector",
            changed(fixed(), |file| file.extend([0; SECTOR])),
            &["repairable trailing-zeros file_size"],
        ),
        (
            "dynamic, garbage behind the footer",
            changed(dynamic(), |file| file.extend(data(100, 3))),
            &["repairable trailing-garbage file_size"],
        ),
        (
            "dynamic, extra zero sector",
            changed(dynamic(), |file| file.extend([0; SECTOR])),
            &["repairable trailing-zeros file_size"],
        ),
        (
            "dynamic, footer cut off",
            changed(dynamic(), |file| file.truncate(file.len() - SECTOR)),
            &["repairable footer-cut-off file_size"],
        ),
        (
            "dynamic, footer half cut off",
            changed(dynamic(), |file| file.truncate(file.len() - 200)),
            &["repairable footer-cut-off file_size"],
        ),
        (
            "dynamic, cut in the last block after the end of the disk",
            changed(dynamic(), |file| file.truncate(file.len() - 3 * SECTOR)),
            &[
                "repairable footer-cut-off file_size",
                "warning block-short bat[3]",
            ],
        ),
        (
            "dynamic, the last block only as far as the disk goes",
            changed(TINY.dynamic(0xFF, true), |file| {
                let at = file.len() - SECTOR;
                drop(file.drain(at - 4 * SECTOR..at));
            }),
            &["warning block-short bat[3]"],
        ),
        (
            "dynamic, the last block a sector shorter than the disk",
            changed(TINY.dynamic(0xFF, true), |file| {
                let at = file.len() - SECTOR;
                drop(file.drain(at - 5 * SECTOR..at));
            }),
            &["error block-cut-off bat[3]"],
        ),
        (
            "dynamic, another block where the last one goes on after the disk",
            changed(TINY.dynamic(0xFF, true), |file| {
                // Block 2 moves to where the rest of the last block would be.
                let stride = TINY.stride();
                let (third, last) = (2048 + 2 * stride, 2048 + 3 * stride);
                let block: Vec<u8> = file[third..last].to_vec();
                let footer = file.split_off(file.len() - SECTOR);
                file.truncate(last + TINY.stride() - 4 * SECTOR);
                let sector = u32::try_from(file.len() / SECTOR).unwrap();
                put32(file, 1536 + 8, sector);
                file.extend(block);
                file.extend(footer);
            }),
            &[],
        ),
        (
            "dynamic, cut in a block",
            changed(dynamic(), |file| file.truncate(file.len() - 10 * SECTOR)),
            &[
                "error bat-past-end bat[3]",
                "repairable footer-cut-off file_size",
            ],
        ),
        (
            "dynamic, cut in the last block of the disk",
            changed(TINY.dynamic(0xFF, true), |file| {
                file.truncate(file.len() - 6 * SECTOR);
            }),
            &[
                "error block-cut-off bat[3]",
                "repairable footer-cut-off file_size",
            ],
        ),
        (
            "dynamic, cut before the last block, as the first part of a split image",
            changed(dynamic(), |file| {
                file.truncate(file.len() - SECTOR - TINY.stride());
            }),
            &[
                "error bat-past-end bat[3]",
                "repairable footer-cut-off file_size",
            ],
        ),
    ]
}

fn footer_rows() -> Vec<Case> {
    let both = |at: usize| {
        changed(dynamic(), |file| {
            let trailing = file.len() - SECTOR;
            file[at] ^= 1;
            file[trailing + at] ^= 1;
        })
    };
    vec![
        (
            "both cookies lost",
            both(0),
            &[
                "error footer-lost footer.cookie",
                "error footer-lost footer_copy.cookie",
            ],
        ),
        (
            "trailing cookie lost",
            trailing(dynamic(), |f| f[0] = b'x'),
            &["repairable footer-damaged footer.cookie"],
        ),
        (
            "trailing footer zeroed",
            trailing(dynamic(), |f| f.fill(0)),
            &["repairable footer-damaged footer.cookie"],
        ),
        (
            "511-byte footer",
            changed(dynamic(), |file| file.truncate(file.len() - 1)),
            &[],
        ),
        (
            "both checksums wrong",
            both(66),
            &[
                "error footer-lost footer.checksum",
                "error footer-lost footer_copy.checksum",
            ],
        ),
        (
            "trailing checksum wrong",
            trailing(dynamic(), |f| f[66] ^= 1),
            &["repairable footer-damaged footer.checksum"],
        ),
        (
            "fixed, checksum wrong",
            trailing(fixed(), |f| f[66] ^= 1),
            &["error footer-lost footer.checksum"],
        ),
        (
            "copy's checksum wrong",
            changed(dynamic(), |file| file[66] ^= 1),
            &["repairable footer-copy-damaged footer_copy.checksum"],
        ),
        (
            "copy valid with another unique id",
            changed(dynamic(), |file| {
                file[70] ^= 1;
                seal(&mut file[..SECTOR]);
            }),
            &["repairable footer-copy-differs footer_copy.unique_id"],
        ),
        (
            "copy differs in two fields",
            changed(dynamic(), |file| {
                file[70] ^= 1;
                file[27] ^= 1;
                seal(&mut file[..SECTOR]);
            }),
            &[
                "repairable footer-copy-differs footer_copy.timestamp",
                "repairable footer-copy-differs footer_copy.unique_id",
            ],
        ),
        (
            "poisoned",
            footers(dynamic(), |f| f[..8].copy_from_slice(b"v_poison")),
            &[
                "error footer-lost footer_copy.cookie",
                "error footer-poisoned footer.cookie",
            ],
        ),
        (
            "features: bit 1 clear",
            footers(dynamic(), |f| f[11] = 0),
            &["warning features footer.features"],
        ),
        (
            "features: unknown bit",
            footers(dynamic(), |f| f[10] = 1),
            &["warning features footer.features"],
        ),
        (
            "version 2.0",
            footers(dynamic(), |f| put32(f, 12, 0x0002_0000)),
            &["error file-format-version footer.file_format_version"],
        ),
        (
            "data_offset unaligned",
            footers(dynamic(), |f| put64(f, 16, 513)),
            &["error data-offset footer.data_offset"],
        ),
        (
            "data_offset past the end",
            footers(dynamic(), |f| put64(f, 16, 1 << 40)),
            &["error data-offset footer.data_offset"],
        ),
        (
            "data_offset zero",
            footers(dynamic(), |f| put64(f, 16, 0)),
            &["error data-offset footer.data_offset"],
        ),
        (
            "data_offset all ones in a dynamic disk",
            footers(dynamic(), |f| put64(f, 16, u64::MAX)),
            &["error data-offset footer.data_offset"],
        ),
        (
            "data_offset 512 in a fixed disk",
            footers(fixed(), |f| put64(f, 16, 512)),
            &["warning data-offset-fixed footer.data_offset"],
        ),
        (
            "timestamp in the future",
            footers(dynamic(), |f| put32(f, 24, 0xF000_0000)),
            &["warning timestamp-future footer.timestamp"],
        ),
        (
            "timestamp counted from 1970",
            // In 2025.
            footers(dynamic(), |f| put32(f, 24, 1_750_000_000)),
            &["warning timestamp-unix footer.timestamp"],
        ),
        (
            "original size smaller",
            footers(dynamic(), |f| put64(f, 40, 512)),
            &[],
        ),
        (
            "current_size zero",
            footers(dynamic(), |f| put64(f, 48, 0)),
            &[
                "error current-size footer.current_size",
                "warning bat-beyond-disk bat[0]",
                "warning bat-beyond-disk bat[1]",
                "warning bat-beyond-disk bat[2]",
                "warning bat-beyond-disk bat[3]",
            ],
        ),
        (
            "current_size not of sectors",
            footers(dynamic(), |f| put64(f, 48, (14 << 10) - 100)),
            &["error current-size footer.current_size"],
        ),
        (
            "current_size over the BAT",
            footers(dynamic(), |f| put64(f, 48, 16 << 10 | 512)),
            &["error max-table-entries header.max_table_entries"],
        ),
        (
            "current_size over 2040 GiB",
            footers(dynamic(), |f| put64(f, 48, 2041 << 30)),
            &[
                "error current-size footer.current_size",
                "error max-table-entries header.max_table_entries",
            ],
        ),
        (
            "current_size 2^64 - 512",
            footers(dynamic(), |f| put64(f, 48, u64::MAX - 511)),
            &[
                "error current-size footer.current_size",
                "error max-table-entries header.max_table_entries",
            ],
        ),
        (
            "current_size 2^64 - 512, fixed",
            footers(fixed(), |f| put64(f, 48, u64::MAX - 511)),
            &["error current-size footer.current_size"],
        ),
        (
            "geometry 0/0/0",
            footers(dynamic(), |f| f[56..60].fill(0)),
            &["warning geometry-zero footer.disk_geometry"],
        ),
        (
            "geometry 65535/16/255",
            footers(dynamic(), |f| {
                f[56..60].copy_from_slice(&[255, 255, 16, 255]);
            }),
            &[],
        ),
        (
            "Virtual PC with a smaller geometry",
            footers(dynamic(), |f| {
                f[28..32].copy_from_slice(b"vpc ");
                f[59] = 6;
            }),
            &["warning geometry-size footer.disk_geometry"],
        ),
        (
            "disk_type 0",
            footers(dynamic(), |f| put32(f, 60, 0)),
            &["error disk-type footer.disk_type"],
        ),
        (
            "disk_type 7",
            footers(dynamic(), |f| put32(f, 60, 7)),
            &["error disk-type footer.disk_type"],
        ),
        (
            "fixed label on a dynamic file",
            footers(dynamic(), |f| {
                put32(f, 60, 2);
                put64(f, 16, u64::MAX);
            }),
            &["error fixed-label footer.disk_type"],
        ),
        (
            "trailer says fixed, copy dynamic",
            trailing(dynamic(), |f| {
                put32(f, 60, 2);
                seal(f);
            }),
            &["repairable footer-overruled footer.disk_type"],
        ),
        (
            "trailer says a type that doesn't exist, copy dynamic",
            trailing(dynamic(), |f| {
                put32(f, 60, 99);
                seal(f);
            }),
            &["repairable footer-overruled footer.disk_type"],
        ),
        (
            "trailer has a size that the BAT has no entries for",
            trailing(dynamic(), |f| {
                put64(f, 48, 1 << 30);
                seal(f);
            }),
            &["repairable footer-overruled footer.current_size"],
        ),
        (
            "trailer has no size",
            trailing(dynamic(), |f| {
                put64(f, 48, 0);
                seal(f);
            }),
            &["repairable footer-overruled footer.current_size"],
        ),
        (
            "trailer points nowhere",
            trailing(dynamic(), |f| {
                put64(f, 16, 1 << 40);
                seal(f);
            }),
            &["repairable footer-overruled footer.data_offset"],
        ),
        (
            "trailer of another version",
            trailing(dynamic(), |f| {
                put32(f, 12, 0x0009_0000);
                seal(f);
            }),
            &["repairable footer-overruled footer.file_format_version"],
        ),
        (
            "trailer says differencing, but nothing names a parent",
            trailing(dynamic(), |f| {
                put32(f, 60, 4);
                seal(f);
            }),
            &["repairable footer-overruled footer.disk_type"],
        ),
        (
            "copy says fixed, trailer dynamic",
            changed(dynamic(), |file| {
                put32(file, 60, 2);
                seal(&mut file[..SECTOR]);
            }),
            &["repairable footer-copy-differs footer_copy.disk_type"],
        ),
        (
            "copy says a type that doesn't exist",
            changed(dynamic(), |file| {
                put32(file, 60, 99);
                seal(&mut file[..SECTOR]);
            }),
            &["repairable footer-copy-differs footer_copy.disk_type"],
        ),
        (
            "the two disagree on the type, and the header has a parent's id without a name",
            header(
                changed(dynamic(), |file| {
                    put32(file, 60, 4);
                    seal(&mut file[..SECTOR]);
                }),
                |h| h[40..56].fill(7),
            ),
            &[
                "error footer-types-differ footer_copy.disk_type",
                "warning parent-unwanted header.parent_unique_id",
            ],
        ),
        (
            "unique id nil",
            footers(dynamic(), |f| f[68..84].fill(0)),
            &["warning unique-id-nil footer.unique_id"],
        ),
        (
            "saved_state 1",
            footers(dynamic(), |f| f[84] = 1),
            &["warning saved-state footer.saved_state"],
        ),
        (
            "saved_state 2",
            footers(dynamic(), |f| f[84] = 2),
            &["warning saved-state footer.saved_state"],
        ),
        (
            "reserved nonzero",
            footers(dynamic(), |f| f[300] = 1),
            &["warning footer-reserved footer.reserved"],
        ),
        (
            "hidden by another than tapdisk",
            footers(dynamic(), |f| f[85] = 1),
            &["warning footer-reserved footer.reserved"],
        ),
        (
            "nested fixed disk",
            changed(fixed(), |file| {
                let nested = Writer {
                    id: [5; 16],
                    disk_type: 2,
                    ..TINY
                };
                file[..SECTOR].copy_from_slice(&nested.footer());
            }),
            &["warning nested-footer footer_copy.cookie"],
        ),
    ]
}

fn header_rows() -> Vec<Case> {
    vec![
        (
            "header cookie wrong",
            header(dynamic(), |h| h[0] = b'x'),
            &["error header-cookie header.cookie"],
        ),
        (
            "header zeroed",
            changed(dynamic(), |f| f[512..1536].fill(0)),
            &["error header-cookie header.cookie"],
        ),
        (
            "header checksum wrong",
            changed(dynamic(), |f| f[512 + 37] ^= 1),
            &["error header-checksum header.checksum"],
        ),
        (
            "header version 2.0",
            header(dynamic(), |h| put32(h, 24, 0x0002_0000)),
            &["error header-version header.header_version"],
        ),
        (
            "header data_offset set",
            header(dynamic(), |h| put64(h, 8, 0)),
            &["warning header-data-offset header.data_offset"],
        ),
        (
            "table_offset unaligned",
            header(dynamic(), |h| put64(h, 16, 1537)),
            &["error table-offset header.table_offset"],
        ),
        (
            "table_offset past the end",
            header(dynamic(), |h| put64(h, 16, 1 << 40)),
            &["error table-offset header.table_offset"],
        ),
        (
            "table_offset wraps",
            header(dynamic(), |h| put64(h, 16, u64::MAX - 511)),
            &["error table-offset header.table_offset"],
        ),
        (
            "table_offset in the header",
            header(dynamic(), |h| put64(h, 16, 1024)),
            &["error table-offset header.table_offset"],
        ),
        (
            "table_offset at the copy",
            header(dynamic(), |h| put64(h, 16, 0)),
            &["error table-offset header.table_offset"],
        ),
        (
            "max_table_entries 0",
            header(dynamic(), |h| put32(h, 28, 0)),
            &["error max-table-entries header.max_table_entries"],
        ),
        (
            "max_table_entries too few",
            header(dynamic(), |h| put32(h, 28, 3)),
            &[
                "error max-table-entries header.max_table_entries",
                "warning bat-padding bat.padding",
            ],
        ),
        (
            "max_table_entries 2^32 - 1",
            header(dynamic(), |h| put32(h, 28, u32::MAX)),
            &["error max-table-entries header.max_table_entries"],
        ),
        (
            "max_table_entries more than needed",
            header(dynamic(), |h| put32(h, 28, 100)),
            &[],
        ),
        (
            "block_size 0",
            header(dynamic(), |h| put32(h, 32, 0)),
            &["error block-size header.block_size"],
        ),
        (
            "block_size no power of two",
            header(dynamic(), |h| put32(h, 32, 0x1234_5678)),
            &["error block-size header.block_size"],
        ),
        (
            "block_size 128",
            header(dynamic(), |h| put32(h, 32, 128)),
            &["error block-size header.block_size"],
        ),
        (
            "block_size 2 GiB",
            header(dynamic(), |h| put32(h, 32, 1 << 31)),
            &["error block-size header.block_size"],
        ),
        (
            "header reserved nonzero",
            header(dynamic(), |h| h[62] = 1),
            &["warning header-reserved header.reserved"],
        ),
        (
            "header's end nonzero",
            header(dynamic(), |h| h[1000] = 1),
            &["warning header-reserved header.reserved"],
        ),
        (
            "parent of a dynamic disk",
            header(dynamic(), |h| {
                h[40..56].fill(7);
                h[65] = b'x';
                put32(h, 56, 9);
                h[576..580].copy_from_slice(b"W2ru");
            }),
            &[
                "warning parent-unwanted header.parent_locator[0].platform_code",
                "warning parent-unwanted header.parent_timestamp",
                "warning parent-unwanted header.parent_unicode_name",
                "warning parent-unwanted header.parent_unique_id",
            ],
        ),
        (
            "four faults at once",
            header(footers(dynamic(), |f| put32(f, 12, 0x0002_0000)), |h| {
                put32(h, 24, 0x0002_0000);
                put32(h, 32, 0);
                put64(h, 16, 1);
            }),
            &[
                "error block-size header.block_size",
                "error file-format-version footer.file_format_version",
                "error header-version header.header_version",
                "error table-offset header.table_offset",
            ],
        ),
    ]
}

fn bat_rows() -> Vec<Case> {
    let file = dynamic();
    let footer = u32::try_from(file.len() / SECTOR - 1).unwrap();
    let first = 4;
    let stride = u32::try_from(TINY.stride() / SECTOR).unwrap();
    vec![
        (
            "block past the end",
            bat(1, 5_000_000),
            &["error bat-past-end bat[1]"],
        ),
        (
            "block at sector 0",
            bat(1, 0),
            &["error bat-over-structure bat[1]"],
        ),
        (
            "block in the header",
            bat(1, 1),
            &["error bat-over-structure bat[1]"],
        ),
        (
            "block in the BAT",
            bat(1, 3),
            &["error bat-over-structure bat[1]"],
        ),
        (
            "block over the footer",
            bat(1, footer),
            &["error bat-over-footer bat[1]"],
        ),
        (
            "two blocks in one place",
            bat(1, first),
            &["error bat-duplicate bat[1]"],
        ),
        (
            "blocks overlap",
            bat(1, first + stride + stride - 1),
            &[
                "error bat-overlap bat[2]",
                "warning bitmap-padding bitmap[1]",
                "warning bitmap-clear-data bitmap[1]",
            ],
        ),
        (
            "three faults at once",
            changed(bat(1, 0), |file| {
                put32(file, 1536 + 8, 5_000_000);
                put32(file, 1536 + 12, first);
            }),
            &[
                "error bat-duplicate bat[3]",
                "error bat-over-structure bat[1]",
                "error bat-past-end bat[2]",
            ],
        ),
        (
            "block beyond the disk",
            header(bat(5, 4), |h| put32(h, 28, 8)),
            &["warning bat-beyond-disk bat[5]"],
        ),
        (
            "padding mixed",
            changed(dynamic(), |file| file[1536 + 20] = 0),
            &["warning bat-padding bat.padding"],
        ),
        ("padding zero", TINY.dynamic(0, false), &[]),
    ]
}

fn bitmap_rows() -> Vec<Case> {
    let block = 4 * SECTOR;
    let stale = |bits: u8, sum: u8| {
        let writer = Writer {
            creator: b"tap\0",
            version: 0x0001_0003,
            ..TINY
        };
        changed(writer.tapdisk(false, true), |file| {
            let batmap = 1536 + (writer.blocks() + 700).next_multiple_of(128) * 4;
            file[batmap + SECTOR] = bits;
            set_batmap(file, batmap);
            file[batmap + 27] ^= sum;
        })
    };
    let without_batmap = Writer {
        creator: b"tap\0",
        version: 0x0001_0003,
        ..TINY
    };
    let encrypted = changed(stale(0, 0), |file| {
        let batmap = 1536 + (TINY.blocks() + 700).next_multiple_of(128) * 4;
        file[batmap + 29] = 1;
    });
    vec![
        (
            "clear bit with data",
            changed(dynamic(), |f| f[block + SECTOR + 3 * SECTOR + 5] = 1),
            &["warning bitmap-clear-data bitmap[0]"],
        ),
        (
            "all bits clear with data",
            changed(dynamic(), |f| f[block] = 0),
            &["warning bitmap-empty-data bitmap[0]"],
        ),
        (
            "bits behind the last sector",
            changed(dynamic(), |f| f[block + 1] = 1),
            &["warning bitmap-padding bitmap[0]"],
        ),
        (
            "batmap calls a block full that isn't",
            stale(0b1100_0000, 0),
            &["warning batmap-stale bitmap[0]"],
        ),
        (
            "batmap with a wrong checksum",
            stale(0b0100_0000, 1),
            &["warning batmap-bad batmap"],
        ),
        (
            "batmap promised and missing",
            without_batmap.dynamic(0, false),
            &["warning batmap-missing batmap"],
        ),
        ("encrypted", encrypted, &["error batmap-encrypted batmap"]),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    let parents = super::chain::cases();
    [
        file_sizes(),
        footer_rows(),
        header_rows(),
        bat_rows(),
        bitmap_rows(),
        parents,
    ]
    .concat()
}

#[test]
fn every_malformed_file_has_exactly_its_findings() {
    let mut wrong = Vec::new();
    for (name, file, expected) in cases() {
        let found = lines(&checked(file.clone()));
        let shown = if found.is_empty() {
            "accept".into()
        } else {
            found.join("; ")
        };
        println!("{name:<72} {:<16} {shown}", reading(file));
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        if found != expected {
            wrong.push(format!(
                "{name}\n   found    {found:?}\n   expected {expected:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns how a command that reads images treats such a file, as a user sees it.
fn reading(file: Vec<u8>) -> &'static str {
    let path = tempfile::tempdir().unwrap();
    let path = path.path().join("child.vhd");
    std::fs::write(&path, file).unwrap();
    let options = |salvage| OpenOptions {
        salvage,
        parents: ParentOptions {
            leave_out: true,
            ..ParentOptions::default()
        },
        ..OpenOptions::default()
    };
    match open_image(&path, &options(false)) {
        Ok(image) if image.format() == Format::Raw && !image.warnings().is_empty() => {
            "raw, with doubts"
        }
        Ok(image) if image.warnings().is_empty() => "read",
        Ok(_) => "read, warned",
        Err(error) => {
            let named = error.hint().is_some() && error.path().is_some();
            assert!(named, "{error:?}");
            match open_image(&path, &options(true)) {
                Ok(_) => "refused, salvaged",
                Err(_) => "refused",
            }
        }
    }
}

/// The check decides whether a file is read: errors are refused, repairable files are read with a warning, clean files
/// are read. The one exception is announced: a fixed disk with data after its footer is read as raw.
#[test]
fn reading_goes_by_the_verdict_of_the_check() {
    for (name, file, expected) in cases() {
        let reading = reading(file);
        let own = |line: &&&str| !line.ends_with(" chain");
        let has = |severity: &str| {
            let findings = expected.iter().filter(own);
            findings.clone().any(|line| line.starts_with(severity))
        };
        let right = match reading {
            "refused" | "refused, salvaged" => has("error"),
            "read, warned" => !has("error") && (has("repairable") || has("warning")),
            "raw, with doubts" => name.starts_with("fixed") && has("repairable trailing-"),
            _ => !has("error") && !has("repairable") && !has("warning fixed-slack-data"),
        };
        assert!(right, "{name}: {reading}, but {expected:?}");
    }
}

/// The requirements of a service don't prevent faults of the file from being repaired.
#[test]
fn azure_has_no_say_in_repairs() {
    let file = changed(dynamic(), |file| file.truncate(file.len() - SECTOR));
    let options = CheckOptions {
        azure: true,
        ..super::options()
    };
    let storage = Memory::new(file);
    let report = check(&storage, &options).unwrap();
    assert!(report.errors > 0 && report.repairable > 0);
    RepairPlan::new(&report).apply(&storage).unwrap();
    assert_eq!(check(&storage, &options).unwrap().repairable, 0);
}

#[test]
fn azure_takes_whole_mebibytes_of_fixed_disks() {
    let options = CheckOptions {
        azure: true,
        ..super::options()
    };
    let good = Writer {
        size: 20 << 20,
        ..Writer::WINDOWS
    };
    for (file, expected) in [
        (good.fixed(), vec![]),
        (
            Writer {
                size: (20 << 20) + SECTOR,
                ..good
            }
            .fixed(),
            vec!["error azure-whole-mib footer.current_size"],
        ),
        (
            good.dynamic(0xFF, true),
            vec!["error azure-type footer.disk_type"],
        ),
        (
            Writer {
                size: 19 << 20,
                ..good
            }
            .fixed(),
            vec!["error azure-too-small footer.current_size"],
        ),
        (
            changed(good.fixed(), |file| drop(file.splice(0..0, [1; SECTOR]))),
            vec![
                "error azure-file-size file_size",
                "warning fixed-slack-data file_size",
            ],
        ),
        (
            Writer {
                creator: b"qemu",
                ..good
            }
            .fixed(),
            vec![
                "error azure-creator footer.creator_application",
                "warning geometry-size footer.disk_geometry",
            ],
        ),
    ] {
        let report = check(&Memory::new(file), &options).unwrap();
        assert_eq!(lines(&report), expected);
    }
}
