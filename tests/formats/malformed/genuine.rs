//! Genuine files pass without false alarms.

use super::{TINY, checked, lines};
use crate::vhd_writers::{Writer, data, put64, seal};

const BASE: Writer = Writer::WINDOWS;

/// A geometry that means "look at the size".
const LARGEST: [u8; 4] = [0xFF, 0xFF, 16, 255];

const TAPDISK: Writer = Writer {
    creator: b"tap\0",
    version: 0x0001_0003,
    host_os: [0; 4],
    ..BASE
};

/// A size that the geometry expresses exactly: 120 × 4 × 17 sectors.
const EXACT: usize = 120 * 4 * 17 * 512;

fn named() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    let virtual_pc = Writer {
        creator: b"vpc ",
        version: 0x0005_0003,
        size: EXACT,
        ..BASE
    };
    let qemu = Writer {
        creator: b"qemu",
        version: 0x0005_0003,
        size: EXACT,
        ..BASE
    };
    let qemu_exact = Writer {
        creator: b"qem2",
        geometry: LARGEST,
        ..qemu
    };
    let disk2vhd = Writer {
        creator: b"d2v\0",
        geometry: LARGEST,
        ..BASE
    };
    let vbox = Writer {
        creator: b"vbox",
        version: 0x0004_0003,
        ..BASE
    };
    let short = |mut file: Vec<u8>| {
        file.pop();
        file
    };
    let windows = |version| Writer { version, ..BASE };
    let mut files: Vec<(&'static str, Vec<u8>, &'static [&'static str])> = Vec::new();
    let mut add = |name, file| files.push((name, file, &[]));
    add("Virtual PC 2007, fixed", virtual_pc.fixed());
    add("Virtual PC 2007, dynamic", virtual_pc.dynamic(0xFF, false));
    add(
        "before Virtual PC 2004, fixed, 511-byte footer",
        short(virtual_pc.fixed()),
    );
    add(
        "before Virtual PC 2004, dynamic, 511-byte footer",
        short(virtual_pc.dynamic(0xFF, true)),
    );
    for (name, version) in [
        ("Windows 7, dynamic", 0x0006_0001),
        ("Windows 8, dynamic", 0x0006_0002),
        ("Windows 8.1 and Hyper-V 2012, dynamic", 0x0006_0003),
        ("Windows 10 and 11, dynamic", 0x000A_0000),
    ] {
        add(name, windows(version).dynamic(0xFF, false));
    }
    add("Windows 10, fixed", BASE.fixed());
    add("Windows 10, differencing", BASE.windows_child());
    add(
        "temporary disk of Virtual Server",
        Writer {
            creator: b"vs  ",
            features: 3,
            size: EXACT,
            ..BASE
        }
        .fixed(),
    );
    add("disk2vhd, dynamic", disk2vhd.dynamic(0, false));
    add("VirtualBox, dynamic", vbox.dynamic(0, true));
    add("VirtualBox, fixed", vbox.fixed());
    add(
        "qemu, dynamic, size of the geometry",
        qemu.dynamic(0xFF, true),
    );
    add("qemu, fixed, size of the geometry", qemu.fixed());
    add("qemu force_size, dynamic", qemu_exact.dynamic(0xFF, true));
    add("qemu force_size, fixed", qemu_exact.fixed());
    add(
        "512 KiB blocks",
        Writer {
            block_size: 512 << 10,
            ..BASE
        }
        .dynamic(0xFF, false),
    );
    add("small blocks", TINY.dynamic(0xFF, false));
    add("XenServer, dynamic", TAPDISK.tapdisk(false, true));
    add("XenServer, hidden", TAPDISK.tapdisk(true, true));
    add(
        "XenServer, hidden by an old tapdisk without a new checksum",
        TAPDISK.tapdisk(true, false),
    );
    add("XenServer, short last block", short_block());
    add("spec's unused offset of four bytes", {
        let mut file = BASE.fixed();
        let at = file.len() - 512;
        put64(&mut file[at..], 16, 0xFFFF_FFFF);
        seal(&mut file[at..]);
        file
    });
    add("grown: original size smaller", {
        let mut file = BASE.dynamic(0xFF, true);
        crate::vhd_writers::edit_footers(&mut file, |footer| put64(footer, 40, 1 << 20));
        file
    });
    add("no block at all", {
        let mut file = BASE.head(BASE.blocks(), 0xFF);
        file.extend(BASE.footer());
        file
    });
    files.push((
        "Virtual PC, size that no geometry makes",
        Writer {
            creator: b"vpc ",
            ..BASE
        }
        .dynamic(0xFF, false),
        &["warning geometry-size footer.disk_geometry"],
    ));
    files.push((
        "raw image with the name of a VHD",
        data(4096, 1),
        &["error footer-missing footer.cookie"],
    ));
    files
}

/// tapdisk leaves out the end of the last block where nothing was written.
fn short_block() -> Vec<u8> {
    let mut file = TAPDISK.tapdisk(false, true);
    let footer = file.split_off(file.len() - 512);
    let block = file.len() - TAPDISK.stride();
    // Only the first sector of the block was written.
    file[block..block + 512].fill(0);
    file[block] = 0x80;
    file.truncate(block + 512 + 8192);
    let batmap = 1536 + (TAPDISK.blocks() + 700).next_multiple_of(128) * 4;
    file[batmap + 512] = 0;
    crate::vhd_writers::set_batmap(&mut file, batmap);
    file.extend(footer);
    file
}

#[test]
fn genuine_files_pass() {
    for (name, file, expected) in named() {
        let found = lines(&checked(file));
        println!(
            "{name:<62} {}",
            if found.is_empty() {
                "nothing".into()
            } else {
                found.join(", ")
            }
        );
        assert_eq!(found, expected, "{name}");
    }
}
