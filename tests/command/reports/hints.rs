//! Every rule is broken by a file made for it, and its advice is followed: each command that `vhd check` prints is pasted
//! into a shell, and then the finding is gone, and no byte of the disk has changed.

#![allow(
    clippy::too_many_lines,
    clippy::semicolon_if_nothing_returned,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "they are tables"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use vhdkit::vhd::RULES;

use crate::disk::content;
use crate::reports::findings::{SECTOR, TINY, fixed, pages, trailing};
use crate::reports::lab::Lab;
use crate::vhd_writers::{
    Writer, data, edit_footers, edit_header, put32, put64, seal, set_batmap, utf16_le,
};

/// The image: a name that has to be quoted.
const NAME: &str = "a disk.vhd";

const CHILD: Writer = Writer {
    size: 64 << 10,
    block_size: 64 << 10,
    ..Writer::WINDOWS
};

const MIB: usize = 1 << 20;

/// A file that breaks a rule.
struct Made {
    id: &'static str,
    make: fn(&Lab),
    /// How many commands the advice has.
    commands: usize,
    /// What else is to be seen.
    also: fn(&Lab),
}

const fn made(id: &'static str, commands: usize, make: fn(&Lab)) -> Made {
    Made {
        id,
        make,
        commands,
        also: |_| {},
    }
}

/// A rule whose advice is for a person, and what shows that it is right.
const fn told(id: &'static str, make: fn(&Lab), also: fn(&Lab)) -> Made {
    Made {
        id,
        make,
        commands: 0,
        also,
    }
}

/// Puts the whole image's disk into `truth.raw`, and the damaged image beside it.
fn damaged(lab: &Lab, whole: Vec<u8>, damage: impl Fn(&mut Vec<u8>)) {
    lab.file("whole.vhd", &whole);
    lab.shell("vhd convert -q whole.vhd truth.raw").code(0);
    let mut file = whole;
    damage(&mut file);
    lab.file(NAME, &file);
}

fn dynamic(lab: &Lab, damage: impl Fn(&mut Vec<u8>)) {
    damaged(lab, TINY.dynamic(0xFF, true), damage);
}

fn a_fixed(lab: &Lab, damage: impl Fn(&mut Vec<u8>)) {
    damaged(lab, TINY.fixed(), damage);
}

/// A file whose oddities are no damage: the disk is what is read of it.
fn odd(lab: &Lab, file: &[u8]) {
    lab.file(NAME, file);
    lab.shell(&format!("vhd convert -q '{NAME}' truth.raw"))
        .code(0);
}

fn odd_header(lab: &Lab, change: impl Fn(&mut [u8])) {
    let mut file = TINY.dynamic(0xFF, true);
    edit_header(&mut file, change);
    odd(lab, &file);
}

fn odd_footers(lab: &Lab, file: Vec<u8>, change: impl Fn(&mut [u8])) {
    let mut file = file;
    edit_footers(&mut file, change);
    odd(lab, &file);
}

fn tapdisk() -> Writer {
    Writer {
        creator: b"tap\0",
        version: 0x0001_0003,
        ..TINY
    }
}

fn batmap_at() -> usize {
    1536 + (TINY.blocks() + 700).next_multiple_of(128) * 4
}

/// A parent and a child of it, whose header is changed.
fn child(lab: &Lab, change: impl Fn(&mut [u8])) {
    let base = Writer {
        id: *b"parent-unique-id",
        ..CHILD
    };
    lab.file("base.vhd", &base.fixed());
    let mut file = CHILD.windows_child();
    edit_header(&mut file, change);
    lab.file(NAME, &file);
}

/// The same, with what it reads as over that parent.
fn odd_child(lab: &Lab, change: impl Fn(&mut [u8])) {
    child(lab, change);
    lab.shell(&format!("vhd convert -q '{NAME}' truth.raw"))
        .code(0);
}

fn elsewhere(lab: &Lab) {
    lab.shell("mkdir up && mv base.vhd up/base.vhd").code(0);
}

/// The disk reads as it should, whatever is found.
fn reads_right(lab: &Lab) {
    lab.shell(&format!("vhd convert -q '{NAME}' read.raw"))
        .code(0);
    assert!(lab.read("read.raw") == lab.read("truth.raw"));
}

fn nothing_to_salvage(lab: &Lab) {
    lab.shell(&format!("vhd convert --salvage '{NAME}' out.raw"))
        .code(3);
}

fn with_parent(lab: &Lab) {
    lab.shell(&format!("vhd check '{NAME}' --parent up/base.vhd"))
        .code(0);
}

/// A chain of so many files, the last of which is the image.
fn chain(lab: &Lab, files: usize) {
    let mut script = String::from("set -e; vhd create -q c0.vhd --size 64K; ");
    for n in 1..files {
        let name = if n + 1 == files {
            format!("'{NAME}'")
        } else {
            format!("c{n}.vhd")
        };
        let parent = n - 1;
        write!(
            script,
            "vhd create -q {name} --parent c{parent}.vhd 2>/dev/null; "
        )
        .unwrap();
        if n == 64 {
            break;
        }
    }
    lab.shell(&script);
}

/// A new image in place of one in the middle makes the chain shorter.
fn shorten(lab: &Lab) {
    let middle = if lab.exists("c40.vhd") { "c40" } else { "c20" };
    let line = format!(
        "set -e; vhd merge -q {middle}.vhd -o new.vhd; mv new.vhd {middle}.vhd; vhd check '{NAME}' --json"
    );
    let said = lab.shell(&line);
    assert!(!said.out.contains("\"chain-"), "{}", said.out);
}

fn table() -> Vec<Made> {
    [
        files(),
        footers(),
        headers(),
        blocks(),
        parents(),
        azure(),
        wholes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn files() -> Vec<Made> {
    vec![
        told(
            "file-empty",
            |lab| drop(lab.file(NAME, &[])),
            nothing_to_salvage,
        ),
        told(
            "raw-size",
            |lab| drop(lab.file(NAME, &[7; 700])),
            nothing_to_salvage,
        ),
        made("fixed-cut-off", 1, |lab| {
            a_fixed(lab, |f| drop(f.drain(TINY.size - SECTOR..TINY.size)));
        }),
        made("fixed-slack", 1, |lab| {
            a_fixed(lab, |f| drop(f.splice(TINY.size..TINY.size, [0; 2048])));
        }),
        made("fixed-slack-data", 2, |lab| {
            let disk = pages(32);
            lab.file("truth.raw", &disk);
            lab.file(NAME, &fixed(&disk, 14 << 10, 2));
        }),
        made("footer-cut-off", 1, |lab| {
            dynamic(lab, |f| f.truncate(f.len() - SECTOR));
        }),
        made("footer-cut-off", 1, |lab| {
            dynamic(lab, |f| f.truncate(f.len() - 6 * SECTOR));
        }),
        made("trailing-garbage", 1, |lab| {
            a_fixed(lab, |f| f.extend(data(700, 3)))
        }),
        made("trailing-garbage", 1, |lab| {
            dynamic(lab, |f| f.extend(data(700, 3)))
        }),
        made("trailing-zeros", 1, |lab| {
            a_fixed(lab, |f| f.extend([0; 700]))
        }),
        made("trailing-zeros", 1, |lab| {
            dynamic(lab, |f| f.extend([0; 700]))
        }),
    ]
}

fn footers() -> Vec<Made> {
    vec![
        made("footer-poisoned", 1, |lab| {
            dynamic(lab, |f| {
                edit_footers(f, |footer| footer[..8].copy_from_slice(b"v_poison"));
            });
        }),
        made("footer-lost", 1, |lab| {
            a_fixed(lab, |f| f[TINY.size + 66] ^= 1);
        }),
        made("footer-damaged", 1, |lab| {
            dynamic(lab, |f| {
                let at = f.len() - SECTOR;
                f[at + 66] ^= 1;
            });
        }),
        made("footer-damaged", 1, |lab| {
            dynamic(lab, |f| {
                let at = f.len() - SECTOR;
                f[at + 66] ^= 1;
                f[512 + 37] ^= 1;
            });
        }),
        made("footer-overruled", 1, |lab| {
            dynamic(lab, |f| trailing(f, |footer| put32(footer, 60, 99)));
        }),
        made("type-label", 1, |lab| {
            a_fixed(lab, |f| trailing(f, |footer| put32(footer, 60, 4)));
        }),
        made("footer-copy-damaged", 1, |lab| dynamic(lab, |f| f[66] ^= 1)),
        made("footer-copy-differs", 1, |lab| {
            dynamic(lab, |f| {
                f[27] ^= 1;
                seal(&mut f[..SECTOR]);
            });
        }),
        made("footer-types-differ", 1, |lab| {
            dynamic(lab, |f| {
                put32(f, 60, 4);
                seal(&mut f[..SECTOR]);
                edit_header(f, |header| header[40..56].fill(7));
            });
        }),
        made("fixed-label", 1, |lab| {
            dynamic(lab, |f| {
                edit_footers(f, |footer| {
                    put32(footer, 60, 2);
                    put64(footer, 16, u64::MAX);
                });
            });
        }),
        told(
            "nested-footer",
            |lab| {
                let mut file = TINY.fixed();
                let other = Writer {
                    id: [5; 16],
                    ..TINY
                };
                file[..SECTOR].copy_from_slice(&other.footer());
                odd(lab, &file);
            },
            reads_right,
        ),
        told(
            "features",
            |lab| odd_footers(lab, TINY.fixed(), |footer| footer[11] = 0),
            reads_right,
        ),
        made("file-format-version", 1, |lab| {
            dynamic(lab, |f| {
                edit_footers(f, |footer| put32(footer, 12, 0x0009_0000))
            });
        }),
        made("data-offset", 1, |lab| {
            dynamic(lab, |f| edit_footers(f, |footer| put64(footer, 16, 9999)));
        }),
        made("data-offset-fixed", 1, |lab| {
            odd_footers(lab, TINY.fixed(), |footer| put64(footer, 16, 512));
        }),
        told(
            "timestamp-future",
            |lab| odd_footers(lab, TINY.fixed(), |footer| put32(footer, 24, 0xF000_0000)),
            reads_right,
        ),
        told(
            "timestamp-unix",
            |lab| odd_footers(lab, TINY.fixed(), |footer| put32(footer, 24, 1_750_000_000)),
            reads_right,
        ),
        made("current-size", 1, |lab| {
            dynamic(lab, |f| {
                edit_footers(f, |footer| put64(footer, 48, (14 << 10) + 100));
            });
        }),
        told(
            "geometry-zero",
            |lab| odd_footers(lab, TINY.fixed(), |footer| footer[56..60].fill(0)),
            reads_right,
        ),
        made("geometry-size", 1, |lab| {
            odd_footers(lab, TINY.fixed(), |footer| {
                footer[28..32].copy_from_slice(b"vpc ");
                footer[59] = 6;
            });
        }),
        made("disk-type", 1, |lab| {
            dynamic(lab, |f| edit_footers(f, |footer| put32(footer, 60, 7)));
        }),
        made("disk-type", 1, |lab| {
            a_fixed(lab, |f| {
                trailing(f, |footer| put32(footer, 60, 7));
                f.splice(TINY.size..TINY.size, [0; 2048]);
            });
        }),
        made("disk-type", 1, |lab| {
            // Neither enough bytes nor a header: the bytes as they are, with the footer.
            let mut file = TINY.fixed();
            trailing(&mut file, |footer| put32(footer, 60, 7));
            file.drain(..SECTOR);
            lab.file("truth.raw", &file);
            lab.file(NAME, &file);
        }),
        made("unique-id-nil", 1, |lab| {
            odd_footers(lab, TINY.fixed(), |footer| footer[68..84].fill(0));
        }),
        told(
            "saved-state",
            |lab| odd_footers(lab, TINY.fixed(), |footer| footer[84] = 1),
            reads_right,
        ),
        told(
            "footer-reserved",
            |lab| odd_footers(lab, TINY.fixed(), |footer| footer[300] = 1),
            reads_right,
        ),
    ]
}

fn headers() -> Vec<Made> {
    vec![
        made("header-cookie", 1, |lab| {
            dynamic(lab, |f| edit_header(f, |header| header[0] = b'x'));
        }),
        told(
            "header-cookie",
            |lab| dynamic(lab, |f| f[512..1536].fill(0)),
            nothing_to_salvage,
        ),
        made("header-checksum", 1, |lab| {
            dynamic(lab, |f| f[512 + 37] ^= 1)
        }),
        made("header-version", 1, |lab| {
            dynamic(lab, |f| {
                edit_header(f, |header| put32(header, 24, 0x0002_0000))
            });
        }),
        made("header-data-offset", 1, |lab| {
            odd_header(lab, |header| put64(header, 8, 0))
        }),
        told(
            "table-offset",
            |lab| dynamic(lab, |f| edit_header(f, |header| put64(header, 16, 1537))),
            nothing_to_salvage,
        ),
        made("max-table-entries", 1, |lab| {
            dynamic(lab, |f| edit_header(f, |header| put32(header, 28, 3)));
        }),
        told(
            "block-size",
            |lab| dynamic(lab, |f| edit_header(f, |header| put32(header, 32, 0))),
            nothing_to_salvage,
        ),
        made("header-reserved", 1, |lab| {
            odd_header(lab, |header| header[800] = 1)
        }),
        made("parent-unwanted", 1, |lab| {
            odd_header(lab, |header| header[40..56].fill(7))
        }),
    ]
}

fn blocks() -> Vec<Made> {
    vec![
        made("bat-over-structure", 1, |lab| {
            dynamic(lab, |f| put32(f, 1540, 0))
        }),
        made("bat-over-footer", 1, |lab| {
            dynamic(lab, |f| {
                let sector = u32::try_from(f.len() / SECTOR - 1).unwrap();
                put32(f, 1540, sector);
            });
        }),
        made("bat-past-end", 1, |lab| {
            dynamic(lab, |f| put32(f, 1540, 5_000_000))
        }),
        made("bat-duplicate", 1, |lab| {
            dynamic(lab, |f| put32(f, 1540, 4))
        }),
        made("bat-overlap", 1, |lab| {
            dynamic(lab, |f| {
                let at = 2048 + TINY.stride();
                let block: Vec<u8> = f[at..at + TINY.stride()].to_vec();
                f[at - SECTOR..at - SECTOR + block.len()].copy_from_slice(&block);
                put32(f, 1540, u32::try_from(at / SECTOR - 1).unwrap());
            });
        }),
        made("block-cut-off", 1, |lab| {
            dynamic(lab, |f| f.truncate(f.len() - 6 * SECTOR));
        }),
        made("block-short", 1, |lab| {
            dynamic(lab, |f| {
                let at = f.len() - SECTOR;
                f.drain(at - 4 * SECTOR..at);
            });
        }),
        made("bat-beyond-disk", 1, |lab| {
            let mut file = TINY.head(TINY.blocks() + 2, 0xFF);
            for n in 0..TINY.blocks() + 2 {
                TINY.add_block(&mut file, n, true);
            }
            file.extend(TINY.footer());
            odd(lab, &file);
        }),
        made("bat-padding", 1, |lab| {
            let mut file = TINY.dynamic(0xFF, true);
            file[1900] = 7;
            odd(lab, &file);
        }),
        made("bitmap-clear-data", 1, |lab| {
            let mut file = TINY.dynamic(0xFF, false);
            file[2048 + SECTOR + 3 * SECTOR + 5] = 1;
            odd(lab, &file);
        }),
        made("bitmap-empty-data", 1, |lab| {
            let mut file = TINY.dynamic(0xFF, false);
            file[2048] = 0;
            odd(lab, &file);
        }),
        made("bitmap-padding", 1, |lab| {
            let mut file = TINY.dynamic(0xFF, true);
            file[2049] = 1;
            odd(lab, &file);
        }),
        made("batmap-missing", 1, |lab| {
            odd(lab, &tapdisk().dynamic(0xFF, true))
        }),
        made("batmap-bad", 1, |lab| {
            let mut file = tapdisk().tapdisk(false, true);
            file[batmap_at() + 26] ^= 1;
            odd(lab, &file);
        }),
        made("batmap-stale", 1, |lab| {
            let mut file = tapdisk().tapdisk(false, true);
            file[batmap_at() + SECTOR] = 0xC0;
            set_batmap(&mut file, batmap_at());
            odd(lab, &file);
        }),
        told(
            "batmap-encrypted",
            |lab| {
                let mut file = tapdisk().tapdisk(false, true);
                file[batmap_at() + 29] = 1;
                lab.file(NAME, &file);
            },
            |lab| drop(lab.shell(&format!("vhd hash '{NAME}'")).code(3)),
        ),
    ]
}

fn parents() -> Vec<Made> {
    // The relative locator is the second.
    fn relative(at: usize, value: u32) -> impl Fn(&mut [u8]) {
        move |header| put32(&mut header[600..], at, value)
    }
    vec![
        told(
            "locator-code",
            |lab| odd_child(lab, |h| h[600..604].copy_from_slice(b"XXXX")),
            reads_right,
        ),
        told(
            "locator-duplicate",
            |lab| odd_child(lab, |h| h[600..604].copy_from_slice(b"W2ku")),
            reads_right,
        ),
        told(
            "locator-length",
            |lab| odd_child(lab, relative(8, 21)),
            reads_right,
        ),
        made("locator-reserved", 1, |lab| odd_child(lab, relative(12, 1))),
        told(
            "locator-place",
            |lab| odd_child(lab, |h| put64(&mut h[600..], 16, 1 << 40)),
            reads_right,
        ),
        told(
            "locator-path",
            |lab| {
                let path = utf16_le("..\\up\\base.vhd");
                child(lab, relative(8, u32::try_from(path.len()).unwrap()));
                let mut file = lab.read(NAME);
                file[12_288..12_288 + path.len()].copy_from_slice(&path);
                lab.file(NAME, &file);
                elsewhere(lab);
            },
            |lab| {
                lab.shell(&format!("vhd hash '{NAME}'")).code(2);
                lab.shell(&format!("vhd hash '{NAME}' --parent up/base.vhd"))
                    .code(0);
                lab.shell(&format!("vhd hash '{NAME}' --parent-path up"))
                    .code(0);
            },
        ),
        told(
            "parent-raw",
            |lab| {
                child(lab, |h| h[40..56].fill(0));
                lab.file("raw.img", &data(64 << 10, 1));
            },
            |lab| {
                lab.shell(&format!("vhd hash '{NAME}' --raw-parent --parent raw.img"))
                    .code(0);
            },
        ),
        told(
            "parent-unnamed",
            |lab| {
                child(lab, |h| h[64..768].fill(0));
                elsewhere(lab);
            },
            with_parent,
        ),
        told(
            "parent-self",
            |lab| {
                let base = CHILD.fixed();
                lab.shell("mkdir up").code(0);
                lab.file("up/base.vhd", &base);
                child(lab, |h| {
                    h[40..56].copy_from_slice(&CHILD.id);
                    h[64..576].fill(0);
                    for (n, unit) in NAME.encode_utf16().enumerate() {
                        h[64 + n * 2..66 + n * 2].copy_from_slice(&unit.to_be_bytes());
                    }
                    h[576..768].fill(0);
                });
            },
            with_parent,
        ),
        told(
            "parent-missing",
            |lab| {
                child(lab, |_| {});
                elsewhere(lab);
            },
            |lab| {
                with_parent(lab);
                lab.shell(&format!("vhd check '{NAME}' --parent-path up"))
                    .code(0);
            },
        ),
        told(
            "parent-mismatch",
            |lab| {
                child(lab, |_| {});
                elsewhere(lab);
                lab.file("base.vhd", &CHILD.fixed());
            },
            with_parent,
        ),
        told(
            "parent-loop",
            |lab| {
                child(lab, |_| {});
                elsewhere(lab);
                let mut below = CHILD.windows_child();
                edit_header(&mut below, |h| {
                    h[40..56].copy_from_slice(&CHILD.id);
                    h[64..576].fill(0);
                    for (n, unit) in NAME.encode_utf16().enumerate() {
                        h[64 + n * 2..66 + n * 2].copy_from_slice(&unit.to_be_bytes());
                    }
                    h[576..768].fill(0);
                });
                edit_footers(&mut below, |f| {
                    f[68..84].copy_from_slice(b"parent-unique-id")
                });
                lab.file("base.vhd", &below);
            },
            with_parent,
        ),
        made("parent-damaged", 1, |lab| {
            child(lab, |_| {});
            let base = Writer {
                id: *b"parent-unique-id",
                ..CHILD
            };
            let mut file = base.dynamic(0xFF, true);
            edit_header(&mut file, |h| put32(h, 32, 0));
            lab.file("base.vhd", &file);
        }),
        made("parent-larger", 1, |lab| {
            child(lab, |_| {});
            let larger = Writer {
                id: *b"parent-unique-id",
                size: 128 << 10,
                disk_type: 2,
                ..CHILD
            };
            let file = [
                data(64 << 10, 1),
                vec![0; 64 << 10],
                larger.footer().to_vec(),
            ];
            lab.file("base.vhd", &file.concat());
        }),
        told(
            "parent-timestamp",
            |lab| odd_child(lab, |h| put32(h, 56, 5)),
            |lab| {
                // A mere copy is harmless.
                lab.shell("cp base.vhd b && mv b base.vhd").code(0);
                reads_right(lab);
            },
        ),
        told("chain-depth", |lab| chain(lab, 65), shorten),
        told("chain-long", |lab| chain(lab, 32), shorten),
    ]
}

/// A fixed VHD whose disk is a fixed VHD.
fn wrap(lab: &Lab, disk: &[u8]) {
    lab.file("truth.raw", disk);
    let inner = fixed(disk, disk.len(), 2);
    lab.file(NAME, &fixed(&inner, inner.len(), 2));
}

/// Files that aren't VHDs, and disks that hold one.
fn wholes() -> Vec<Made> {
    let person: fn(&Lab) = |_| {};
    vec![
        made("footer-missing", 1, |lab| {
            lab.file("truth.raw", &pages(64));
            lab.file(NAME, &pages(64));
        }),
        told(
            "optical-image",
            |lab| {
                let mut disc = vec![0; 65536];
                disc[32769..32774].copy_from_slice(b"CD001");
                lab.file(NAME, &disc);
            },
            person,
        ),
        told(
            "size-windows",
            |lab| drop(lab.file(NAME, &fixed(&[], 3 << 40, 2))),
            person,
        ),
        made("vhd-inside", 1, |lab| wrap(lab, &pages(2048))),
        made("azure-no-footer", 1, |lab| {
            lab.file("truth.raw", &pages(20 * 2048));
            lab.file(NAME, &pages(20 * 2048));
        }),
        made("azure-vhd-inside", 1, |lab| wrap(lab, &pages(20 * 2048))),
    ]
}

fn azure() -> Vec<Made> {
    let person: fn(&Lab) = |_| {};
    vec![
        made("azure-type", 1, |lab| {
            lab.shell(&format!(
                "vhd create -q '{NAME}' --size 20M && vhd convert -q '{NAME}' truth.raw"
            ))
            .code(0);
        }),
        made("azure-file-size", 1, |lab| {
            let disk = pages(20 * 2048);
            lab.file("truth.raw", &disk);
            lab.file(NAME, &fixed(&[disk, vec![0; MIB]].concat(), 20 * MIB, 2));
        }),
        made("azure-file-size", 1, |lab| {
            let disk = pages(20 * 2048);
            lab.file("truth.raw", &disk);
            lab.file(NAME, &[fixed(&disk, 20 * MIB, 2), vec![0; MIB]].concat());
        }),
        made("azure-file-size", 1, |lab| {
            let disk = pages(22 * 2048);
            lab.file("truth.raw", &disk);
            lab.file(NAME, &fixed(&disk, 20 * MIB, 2));
        }),
        made("azure-whole-mib", 1, |lab| {
            let disk = pages(20 * 2048 + 1);
            lab.file("truth.raw", &disk);
            lab.file(NAME, &fixed(&disk, disk.len(), 2));
        }),
        made("azure-too-small", 1, |lab| {
            let disk = pages(2048);
            lab.file("truth.raw", &disk);
            lab.file(NAME, &fixed(&disk, disk.len(), 2));
        }),
        told(
            "azure-too-large",
            |lab| drop(lab.file(NAME, &fixed(&[], 33 << 40, 2))),
            person,
        ),
        told(
            "azure-page-blob-size",
            |lab| drop(lab.file(NAME, &fixed(&[], 9 << 40, 2))),
            person,
        ),
        made("azure-creator", 1, |lab| {
            let disk = pages(20 * 2048);
            lab.file("truth.raw", &disk);
            let mut file = fixed(&disk, disk.len(), 2);
            trailing(&mut file, |footer| {
                footer[28..32].copy_from_slice(b"qemu");
                footer[56..60].copy_from_slice(&[0, 120, 4, 17]);
            });
            lab.file(NAME, &file);
        }),
    ]
}

/// The findings of an image by id, each with its advice.
fn findings(lab: &Lab, name: &str, azure: bool) -> Vec<(String, String)> {
    let azure = if azure { "--azure" } else { "" };
    let said = lab.shell(&format!("vhd check {name} --json {azure}"));
    let report: serde_json::Value = serde_json::from_str(&said.out)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", said.out, said.err));
    let text = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let list = report["findings"].as_array().unwrap().iter();
    list.map(|finding| (text(finding, "id"), text(finding, "hint")))
        .collect()
}

/// The commands in a text, as one would copy them out of it: from `vhd` to the last word that can belong to it.
fn commands(advice: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for part in advice.split(", vhd ").flat_map(|part| part.split("; ")) {
        let Some(at) = part.find("vhd c").or_else(|| part.find("vhd r")) else {
            // The second of two alternatives lost its first word.
            if ["check ", "convert ", "resize "]
                .iter()
                .any(|command| part.starts_with(command))
            {
                commands.extend(command(&format!("vhd {part}")));
            }
            continue;
        };
        commands.extend(command(&part[at..]));
    }
    commands
}

/// The command at the start of a text.
fn command(text: &str) -> Option<String> {
    const WORDS: [&str; 11] = [
        "vhd",
        "check",
        "convert",
        "resize",
        "&&",
        "raw",
        "fixed",
        "dynamic",
        "differencing",
        "20M",
        "65536",
    ];
    let mut words: Vec<String> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.find('\'')? + 2,
            None => rest.find([' ', ',']).unwrap_or(rest.len()),
        };
        let word = &rest[..end];
        let belongs = WORDS.contains(&word)
            || word.starts_with(['-', '\''])
            || word.ends_with(".vhd")
            || word.ends_with(".raw");
        if !belongs {
            break;
        }
        words.push(word.to_owned());
        let after = &rest[end..];
        if after.starts_with(',') {
            break;
        }
        rest = after.trim_start();
    }
    (words.len() > 2).then(|| words.join(" "))
}

/// Runs one command of the advice; the finding must be gone, and the disk be what it was.
fn follow(lab: &Lab, case: &Made, line: &str, azure: bool) {
    let readable = lab.shell(&format!("vhd hash '{NAME}'"));
    let before = (readable.code == 0).then_some(readable.out);
    let ended = lab.shell(line);
    if let Some(other) = line
        .strip_prefix("vhd check ")
        .filter(|_| !line.contains("--repair"))
    {
        assert_eq!(ended.code, 1, "{other}: {}", ended.out);
        return;
    }
    let outputs: Vec<&str> = line.split(" && ").collect();
    let last = outputs.last().unwrap();
    if line.contains("--repair") || line.contains("resize") {
        assert!(ended.code <= 1, "{line}: {}{}", ended.out, ended.err);
        let left = findings(lab, &format!("'{NAME}'"), azure);
        assert!(left.iter().all(|(id, _)| id != case.id), "{line}: {left:?}");
        if let Some(before) = before.filter(|_| !line.contains("resize")) {
            let after = lab.shell(&format!("vhd hash '{NAME}'"));
            let raw = before != after.out
                && lab.shell(&format!("vhd hash -f raw '{NAME}'")).out != after.out;
            // What comes after the footer of a fixed disk may make it a raw one, until it is cut off.
            assert!(!raw || azure || case.id.starts_with("trailing-"), "{line}");
        }
        if lab.exists("truth.raw") {
            lab.shell(&format!("vhd convert -q '{NAME}' read.raw"))
                .code(0);
            assert!(
                lab.read("read.raw").starts_with(&lab.read("truth.raw")),
                "{line}"
            );
        }
        return;
    }
    assert_eq!(ended.code, 0, "{line}: {}{}", ended.out, ended.err);
    let new = last.rsplit('\'').nth(1).unwrap();
    let truth = lab.read("truth.raw");
    if new.ends_with(".vhd") {
        let left = findings(lab, &format!("'{new}'"), azure);
        assert!(left.iter().all(|(id, _)| id != case.id), "{line}: {left:?}");
        lab.shell(&format!("vhd convert -q '{new}' read.raw"))
            .code(0);
    } else {
        lab.shell(&format!("cp '{new}' read.raw")).code(0);
    }
    let read = lab.read("read.raw");
    let lost = line.contains("--salvage");
    // Azure's whole MiB, and what a footer leaves out, are said.
    let len = read.len().min(truth.len());
    assert!(
        read.len() == truth.len() || azure || lost || case.id == "fixed-slack-data",
        "{line}"
    );
    assert!(len > 0, "{line}");
    for (n, (found, right)) in read.chunks(SECTOR).zip(truth.chunks(SECTOR)).enumerate() {
        let given_up = lost && found.iter().all(|byte| *byte == 0);
        assert!(found == right || given_up, "{line}: page {n}");
    }
}

#[test]
fn every_hint_is_followed() {
    let table = table();
    let covered: BTreeSet<&str> = table.iter().map(|case| case.id).collect();
    let rules: BTreeSet<&str> = RULES.iter().map(|rule| rule.id).collect();
    let missing: Vec<_> = rules.difference(&covered).collect();
    assert!(missing.is_empty(), "no file for {missing:?}");
    let mut count = 0;
    let mut failed = Vec::new();
    for case in &table {
        let azure = case.id.starts_with("azure-");
        let lab = Lab::new();
        (case.make)(&lab);
        let found = findings(&lab, &format!("'{NAME}'"), azure);
        let advice = found.iter().find(|(id, _)| id == case.id);
        let Some((_, advice)) = advice else {
            failed.push(format!("{}: not found, but {found:?}", case.id));
            continue;
        };
        let lines = commands(advice);
        println!("{:<24} {advice}", case.id);
        if lines.len() != case.commands {
            failed.push(format!("{}: {lines:?} of {advice:?}", case.id));
        }
        let file = content(lab.path(NAME));
        for line in &lines {
            println!("{:<24} $ {line}", "");
            count += 1;
            // Each on files of its own.
            let lab = Lab::new();
            (case.make)(&lab);
            assert!(lab.read(NAME).len() == file.len());
            let followed = std::panic::AssertUnwindSafe(|| follow(&lab, case, line, azure));
            if std::panic::catch_unwind(followed).is_err() {
                failed.push(format!("{}: {line}", case.id));
            }
        }
        let also = std::panic::AssertUnwindSafe(|| (case.also)(&lab));
        if std::panic::catch_unwind(also).is_err() {
            failed.push(format!("{}: {advice}", case.id));
        }
    }
    println!(
        "{} rules, {} files, {count} commands run",
        rules.len(),
        table.len()
    );
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
