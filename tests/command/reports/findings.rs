//! Findings of `vhd check`: repairs that write only where no disk data is, what is lost told page by page, and advice
//! that works.

use crate::disk::assert_same;
use crate::reports::lab::{Case, Lab, tell};
use crate::vhd_writers::{Writer, edit_footers, edit_header, put32, put64, seal};

pub(crate) const SECTOR: usize = 512;
const MIB: usize = 1 << 20;

/// Small blocks: three of 4 KiB, and one of which the disk has the half.
pub(crate) const TINY: Writer = Writer {
    creator: b"vhdk",
    size: 14 << 10,
    block_size: 4096,
    geometry: [0, 1, 4, 7],
    ..Writer::WINDOWS
};

/// Pages that tell which they are.
pub(crate) fn pages(count: usize) -> Vec<u8> {
    let page = |n: usize| format!("{n:08}.").into_bytes().repeat(57);
    let mut bytes = Vec::with_capacity(count * SECTOR);
    for n in 0..count {
        bytes.extend(&page(n)[..SECTOR - 1]);
        bytes.push(b'\n');
    }
    bytes
}

/// A fixed disk of these pages, whose footer says another size, type and place of a header.
pub(crate) fn fixed(content: &[u8], size: usize, disk_type: u32) -> Vec<u8> {
    let writer = Writer {
        size,
        disk_type: 2,
        geometry: [0xFF, 0xFF, 16, 255],
        ..Writer::WINDOWS
    };
    let mut footer = writer.footer();
    if disk_type != 2 {
        put32(&mut footer, 60, disk_type);
        put64(&mut footer, 16, 512);
        seal(&mut footer);
    }
    [content, &footer].concat()
}

/// The trailing footer of `file`, changed and sealed.
pub(crate) fn trailing(file: &mut [u8], change: impl Fn(&mut [u8])) {
    let at = file.len() - SECTOR;
    change(&mut file[at..]);
    seal(&mut file[at..]);
}

/// What a file reads as, by a conversion with these options.
#[track_caller]
fn read_as(lab: &Lab, name: &str, options: &str) -> Vec<u8> {
    lab.shell(&format!(
        "rm -f out.raw; vhd convert {options} {name} out.raw"
    ))
    .code(0);
    lab.read("out.raw")
}

const CASES: &[Case] = &[
    Case {
        name: "a fixed disk whose footer says dynamic, differencing, none or a type that doesn't exist: check --repair",
        before: "writes a footer over its first sector",
        now: "mends the type in the footer; not a byte of the disk is written",
        run: |lab| {
            let disk = pages(8192);
            for disk_type in [0, 3, 4, 5, 77] {
                lab.file("a.vhd", &fixed(&disk, 4 * MIB, disk_type));
                lab.shell("vhd check a.vhd").code(1).says("type-label");
                assert_same(&read_as(lab, "a.vhd", ""), &disk, "as it is");
                assert_same(&read_as(lab, "a.vhd", "-f fixed"), &disk, "-f fixed");
                lab.shell("rm -f a.vhd.before-repair; vhd check --repair a.vhd")
                    .code(0);
                assert_same(
                    &lab.read("a.vhd")[..4 * MIB],
                    &disk,
                    "the bytes of the disk",
                );
                lab.shell("vhd check a.vhd")
                    .code(0)
                    .says("no problems found");
                assert_same(&read_as(lab, "a.vhd", ""), &disk, "repaired");
                lab.shell("vhd check a.vhd --take-back a.vhd.before-repair")
                    .code(0);
                assert_same(
                    &lab.read("a.vhd"),
                    &fixed(&disk, 4 * MIB, disk_type),
                    "taken back",
                );
            }
        },
    },
    Case {
        name: "the same, with 2 MiB between disk and footer: nothing proves what it is",
        before: "a footer is written over the first sector; -f fixed is overruled by the label",
        now: "nothing is repaired, and -f fixed reads it",
        run: |lab| {
            let disk = pages(8192);
            let file = fixed(&[disk.clone(), vec![0; 2 * MIB]].concat(), 4 * MIB, 3);
            lab.file("a.vhd", &file);
            lab.shell("vhd check --repair a.vhd").code(1);
            assert_same(&lab.read("a.vhd"), &file, "unchanged");
            lab.shell("vhd hash a.vhd").code(3);
            assert_same(&read_as(lab, "a.vhd", "-f fixed"), &disk, "-f fixed");
            lab.shell("vhd resize a.vhd --size 8M").code(3);
        },
    },
    Case {
        name: "a dynamic disk that lost its first sectors: check --repair",
        before: "the footer's copy is written although no header proves that it belongs there",
        now: "nothing is written",
        run: |lab| {
            let mut file = TINY.dynamic(0xFF, true);
            file[..1536].fill(0x5A);
            lab.file("a.vhd", &file);
            lab.shell("vhd check --repair a.vhd").code(1);
            assert_same(&lab.read("a.vhd"), &file, "unchanged");
        },
    },
    Case {
        name: "2 MiB of data between the end of a fixed disk and its footer",
        before: "check: exit 0, nothing is lost; convert drops it in silence",
        now: "check: exit 1, how much and where; reading warns; --salvage keeps it",
        run: |lab| {
            let disk = pages(3 * 2048 * 2);
            lab.file("a.vhd", &fixed(&disk, 4 * MIB, 2));
            lab.shell("vhd check a.vhd")
                .code(1)
                .says("fixed-slack-data")
                .says("4096 pages of 512 bytes with data, from 4194304 to 6291456")
                .says("vhd convert --salvage a.vhd a-new.vhd");
            lab.shell("vhd hash a.vhd").code(0).says("is not read");
            assert_same(
                &read_as(lab, "a.vhd", ""),
                &disk[..4 * MIB],
                "by the footer",
            );
            assert_same(&read_as(lab, "a.vhd", "--salvage"), &disk, "to the footer");
            // What would cut it off or write zeros over it refuses.
            for size in ["8M", "2M"] {
                lab.shell(&format!("vhd resize a.vhd --size {size} --allow-data-loss"))
                    .code(2)
                    .says("would be lost");
            }
            assert_same(&lab.read("a.vhd"), &fixed(&disk, 4 * MIB, 2), "unchanged");
        },
    },
    Case {
        name: "2 MiB of zeros there",
        before: "nothing is lost, without a look",
        now: "a warning that says that they were looked at",
        run: |lab| {
            let disk = pages(8192);
            let file = fixed(&[disk.clone(), vec![0; 2 * MIB]].concat(), 4 * MIB, 2);
            lab.file("a.vhd", &file);
            lab.shell("vhd check a.vhd")
                .code(0)
                .says("2097152 more bytes, all zeros")
                .says("(fixed-slack)");
            assert_same(&read_as(lab, "a.vhd", ""), &disk, "read");
            lab.shell("vhd resize a.vhd --size 8M").code(0);
        },
    },
    Case {
        name: "blocks 4096 sectors apart, each bitmap over the last page of the block before",
        before: "--salvage gives up 14 of 16 MiB, and hands a bitmap out as data",
        now: "7 pages are lost, and named; all others are right",
        run: |lab| {
            let disk = pages(32_768);
            let writer = Writer {
                size: 16 * MIB,
                geometry: [0xFF, 0xFF, 16, 255],
                ..Writer::WINDOWS
            };
            let mut file = writer.head(8, 0xFF);
            for n in 0..8 {
                let at = 2048 + n * 2 * MIB;
                put32(&mut file, 1536 + n * 4, u32::try_from(at / SECTOR).unwrap());
                file.resize(at, 0);
                file.extend([0xFF; SECTOR]);
                file.extend(&disk[n * 2 * MIB..(n + 1) * 2 * MIB]);
            }
            file.extend(writer.footer());
            lab.file("a.vhd", &file);
            lab.shell("vhd check a.vhd").code(1).says("bat-overlap");
            lab.shell("vhd convert --salvage a.vhd b.raw")
                .code(0)
                .says("3584 bytes (3.5 KiB) are lost")
                .says("lost: 512 bytes at 2096640");
            let mut expected = disk;
            for n in 0..7 {
                expected[(n + 1) * 2 * MIB - SECTOR..(n + 1) * 2 * MIB].fill(0);
            }
            assert_same(&lab.read("b.raw"), &expected, "what is left");
        },
    },
    Case {
        name: "the last block is stored only as far as the disk goes, its bitmap all ones",
        before: "exit 3, copy the file again",
        now: "read, with a warning in check; resize completes the block",
        run: |lab| {
            let disk = pages(6144);
            let writer = Writer {
                size: 3 * MIB,
                geometry: [0xFF, 0xFF, 16, 255],
                ..Writer::WINDOWS
            };
            let mut file = writer.head(2, 0xFF);
            for (n, data) in disk.chunks(2 * MIB).enumerate() {
                let sector = u32::try_from(file.len() / SECTOR).unwrap();
                put32(&mut file, 1536 + n * 4, sector);
                file.extend([0xFF; SECTOR]);
                file.extend(data);
            }
            file.extend(writer.footer());
            lab.file("a.vhd", &file);
            lab.shell("vhd check a.vhd").code(0).says("block-short");
            assert_same(&read_as(lab, "a.vhd", ""), &disk, "read");
            lab.shell("vhd resize a.vhd --size 4M").code(0);
            let grown = [disk.clone(), vec![0; MIB]].concat();
            assert_same(&read_as(lab, "a.vhd", ""), &grown, "grown");
            lab.shell("vhd check a.vhd")
                .code(0)
                .says("no problems found");
        },
    },
    Case {
        name: "a full backup with the places of eight empty locators, and without the map that its creator promises",
        before: "nine warnings, one of which advises a repair that does nothing",
        now: "one, batmap-missing: nothing has to be done",
        run: |lab| {
            let writer = Writer {
                creator: b"tap\0",
                version: 0x0001_0003,
                ..TINY
            };
            let mut file = writer.dynamic(0xFF, true);
            edit_header(&mut file, |header| {
                for n in 0..8 {
                    put64(&mut header[576 + n * 24..], 16, 2048 + n as u64 * 512);
                }
            });
            lab.file("a.vhd", &file);
            lab.shell("vhd check a.vhd")
                .code(0)
                .says("1 warning\n")
                .says("batmap-missing")
                .omits("--repair");
        },
    },
    Case {
        name: "a time stamp counted from 1970",
        before: "check the clock of the machine that made it",
        now: "told as what it is",
        run: |lab| {
            let mut file = TINY.fixed();
            edit_footers(&mut file, |footer| put32(footer, 24, 1_750_000_000));
            lab.file("a.vhd", &file);
            lab.shell("vhd check a.vhd")
                .code(0)
                .says("timestamp-unix")
                .says("2025-06-15")
                .omits("clock");
        },
    },
    Case {
        name: "a footer of version 16.0 and features 0",
        before: "convert it with the program that wrote it",
        now: "and the command that reads it",
        run: |lab| {
            let disk = pages(8192);
            let mut file = fixed(&disk, 4 * MIB, 2);
            trailing(&mut file, |footer| {
                put32(footer, 8, 0);
                put32(footer, 12, 0x0010_0000);
            });
            lab.file("a.vhd", &file);
            lab.shell("vhd check a.vhd")
                .code(1)
                .says("vhd convert --salvage a.vhd a-new.vhd reads it");
            assert_same(&read_as(lab, "a.vhd", "--salvage"), &disk, "read");
        },
    },
    Case {
        name: "a backup that was cut off within a block, and so lost its last footer, too",
        before: "run vhd check --repair, which does nothing",
        now: "not repaired while there are errors; --salvage saves what is left",
        run: |lab| {
            let mut file = TINY.dynamic(0xFF, true);
            file.truncate(file.len() - 6 * SECTOR);
            lab.file("a.vhd", &file);
            lab.shell("vhd check a.vhd")
                .code(1)
                .says("footer-cut-off")
                .says("it is not repaired while there are errors")
                .omits("--repair");
            lab.shell("vhd convert --salvage a.vhd b.raw")
                .code(0)
                .says("lost: 512 bytes at 13824");
        },
    },
    Case {
        name: "the footer's copy has a type that doesn't exist, or says fixed",
        before: "refused, though the trailing footer, the header and the BAT agree",
        now: "read, and repaired",
        run: |lab| {
            let whole = TINY.dynamic(0xFF, true);
            for disk_type in [2, 99] {
                let mut file = whole.clone();
                put32(&mut file, 60, disk_type);
                seal(&mut file[..SECTOR]);
                lab.file("a.vhd", &file);
                lab.shell("vhd hash a.vhd").code(0);
                lab.shell("rm -f *.before-repair; vhd check --repair a.vhd")
                    .code(0);
                assert_same(&lab.read("a.vhd"), &whole, "repaired");
            }
        },
    },
    Case {
        name: "the trailing footer alone has another size, type, version or place of the header",
        before: "refused, though its copy, the header and the BAT agree",
        now: "read, and repaired",
        run: |lab| {
            let whole = TINY.dynamic(0xFF, true);
            let changes: [fn(&mut [u8]); 5] = [
                |footer| put64(footer, 48, 1 << 30),
                |footer| put64(footer, 48, 0),
                |footer| put32(footer, 60, 99),
                |footer| put32(footer, 12, 0x0009_0000),
                |footer| put64(footer, 16, 1 << 40),
            ];
            for change in changes {
                let mut file = whole.clone();
                trailing(&mut file, change);
                lab.file("a.vhd", &file);
                lab.shell("vhd hash a.vhd").code(0).says("its copy fits");
                lab.shell("rm -f *.before-repair; vhd check --repair a.vhd")
                    .code(0);
                assert_same(&lab.read("a.vhd"), &whole, "repaired");
            }
        },
    },
    Case {
        name: "both footers of a dynamic disk say fixed",
        before: "refused; --salvage hands out footer, header and BAT as the disk",
        now: "refused, with the command that reads it: -f dynamic",
        run: |lab| {
            let mut file = TINY.dynamic(0xFF, true);
            lab.file("whole.vhd", &file);
            let disk = read_as(lab, "whole.vhd", "");
            edit_footers(&mut file, |footer| {
                put32(footer, 60, 2);
                put64(footer, 16, u64::MAX);
            });
            lab.file("a.vhd", &file);
            lab.shell("vhd hash a.vhd")
                .code(3)
                .says("vhd convert -f dynamic a.vhd a-new.vhd");
            lab.shell("vhd hash --salvage a.vhd").code(3);
            assert_same(&read_as(lab, "a.vhd", "-f dynamic"), &disk, "-f dynamic");
        },
    },
    Case {
        name: "check of a child whose parent isn't there",
        before: "one error wrapped in another, of 500 characters",
        now: "one sentence, and where to look",
        run: |lab| {
            lab.shell(
                "vhd create base.vhd --size 1M -q && vhd create child.vhd --parent base.vhd -q && mkdir up && mv base.vhd up",
            )
            .code(0);
            let said = lab
                .shell("vhd check child.vhd")
                .code(1)
                .says("parent-missing");
            let found = said.out.lines().find(|line| line.contains("found no"));
            let found = found.unwrap_or_else(|| panic!("{}", said.out));
            assert!(!found.contains("header.parent_unique_id"), "{found}");
            assert!(found.len() < 300, "{found}");
            lab.shell("vhd check child.vhd --parent-path up").code(0);
        },
    },
    Case {
        name: "check of a child whose parent was made larger",
        before: "find the parent from which the child was created",
        now: "the command that takes the growth back",
        run: |lab| {
            lab.shell(
                "vhd create base.vhd --size 1M -q && vhd create child.vhd --parent base.vhd -q && \
                 vhd resize base.vhd --size 2M -q --force 2>/dev/null || vhd resize base.vhd --size 2M -q",
            );
            lab.shell("vhd check child.vhd")
                .code(1)
                .says("vhd resize base.vhd --size 1048576 takes that back");
        },
    },
];

#[test]
fn findings() {
    tell("Findings", CASES);
}
