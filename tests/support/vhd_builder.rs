//! Builds VHD files byte by byte, in the shapes that other programs give them.
//!
//! Nothing here uses the library: every offset and number is written out from the specification, so that a
//! mistake in the library can't hide in its own tests.
#![allow(dead_code)]

pub(crate) const SECTOR: usize = 512;

/// The end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trailing {
    /// A footer of 512 bytes.
    Whole,
    /// A footer of 511 bytes, as before Virtual PC 2004.
    Short,
    /// Nothing: the footer was cut off.
    Missing,
}

/// How a program lays out its VHD files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) creator: [u8; 4],
    pub(crate) host_os: [u8; 4],
    pub(crate) block_size: usize,
    /// BAT entries beyond those that the disk needs.
    pub(crate) extra_entries: usize,
    /// The byte that fills the BAT's last sector.
    pub(crate) bat_padding: u8,
    /// The offset of the BAT.
    pub(crate) table_at: usize,
    /// Block data starts at a multiple of this many bytes.
    pub(crate) data_alignment: usize,
    /// Whether all bits of a stored block are set, or only those of pages that aren't zero.
    pub(crate) full_bitmaps: bool,
    /// Whether the last block of the disk comes first in the file.
    pub(crate) reversed: bool,
    pub(crate) trailing: Trailing,
}

const PLAIN: Shape = Shape {
    name: "qemu",
    creator: *b"qem2",
    host_os: *b"Wi2k",
    block_size: 2 << 20,
    extra_entries: 0,
    bat_padding: 0xFF,
    table_at: 1536,
    data_alignment: SECTOR,
    full_bitmaps: true,
    reversed: false,
    trailing: Trailing::Whole,
};

/// Every shape, each with its own block size.
pub(crate) const SHAPES: [Shape; 9] = [
    PLAIN,
    Shape {
        name: "Windows",
        creator: *b"win ",
        full_bitmaps: false,
        ..PLAIN
    },
    Shape {
        name: "tapdisk, with room for growth",
        creator: *b"tap\0",
        host_os: [0; 4],
        extra_entries: 700,
        bat_padding: 0,
        data_alignment: 4096,
        full_bitmaps: false,
        ..PLAIN
    },
    Shape {
        name: "disk2vhd",
        creator: *b"d2v\0",
        bat_padding: 0,
        full_bitmaps: false,
        ..PLAIN
    },
    Shape {
        name: "512 KiB blocks",
        creator: *b"vpc ",
        block_size: 512 << 10,
        full_bitmaps: false,
        ..PLAIN
    },
    Shape {
        name: "blocks out of order",
        creator: *b"vbox",
        block_size: 64 << 10,
        reversed: true,
        full_bitmaps: false,
        bat_padding: 0,
        ..PLAIN
    },
    Shape {
        name: "BAT far from the header",
        creator: *b"win ",
        block_size: 4096,
        table_at: 8192,
        full_bitmaps: false,
        ..PLAIN
    },
    Shape {
        name: "footer of 511 bytes",
        creator: *b"vpc ",
        block_size: 64 << 10,
        trailing: Trailing::Short,
        ..PLAIN
    },
    Shape {
        name: "trailing footer cut off",
        block_size: 64 << 10,
        trailing: Trailing::Missing,
        ..PLAIN
    },
];

/// Small blocks, for tests that touch every byte.
pub(crate) const TINY: Shape = Shape {
    name: "tiny",
    creator: *b"vhdk",
    block_size: 4096,
    full_bitmaps: false,
    data_alignment: 4096,
    ..PLAIN
};

fn put32(bytes: &mut [u8], at: usize, value: usize) {
    let value = u32::try_from(value).unwrap();
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn put64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

/// Sets the checksum at `field`.
pub(crate) fn seal(bytes: &mut [u8], field: usize) {
    bytes[field..field + 4].fill(0);
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    bytes[field..field + 4].copy_from_slice(&(!sum).to_be_bytes());
}

/// Builds a footer; `data_offset` is all ones for a fixed disk.
pub(crate) fn footer(
    shape: &Shape,
    disk_type: usize,
    data_offset: u64,
    size: usize,
) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    bytes[0..8].copy_from_slice(b"conectix");
    put32(&mut bytes, 8, 2);
    put32(&mut bytes, 12, 0x0001_0000);
    put64(&mut bytes, 16, data_offset);
    put32(&mut bytes, 24, 0x2A5C_7D80);
    bytes[28..32].copy_from_slice(&shape.creator);
    put32(&mut bytes, 32, 0x0005_0003);
    bytes[36..40].copy_from_slice(&shape.host_os);
    put64(&mut bytes, 40, size as u64);
    put64(&mut bytes, 48, size as u64);
    bytes[56..60].copy_from_slice(&[0xFF, 0xFF, 16, 255]);
    put32(&mut bytes, 60, disk_type);
    for (n, byte) in bytes[68..84].iter_mut().enumerate() {
        *byte = u8::try_from(0xA0 + n).unwrap();
    }
    seal(&mut bytes, 64);
    bytes
}

/// Builds a dynamic disk header.
pub(crate) fn header(table_at: usize, entries: usize, block_size: usize) -> [u8; 1024] {
    let mut bytes = [0; 1024];
    bytes[0..8].copy_from_slice(b"cxsparse");
    put64(&mut bytes, 8, u64::MAX);
    put64(&mut bytes, 16, table_at as u64);
    put32(&mut bytes, 24, 0x0001_0000);
    put32(&mut bytes, 28, entries);
    put32(&mut bytes, 32, block_size);
    seal(&mut bytes, 36);
    bytes
}

/// Builds the header of a differencing disk with a parent's name and two locators.
pub(crate) fn differencing_header() -> [u8; 1024] {
    let mut bytes = header(8192, 8, 2 << 20);
    bytes[40..56].copy_from_slice(b"parent-unique-id");
    put32(&mut bytes, 56, 0x2000_0000);
    for (n, unit) in "C:\\disks\\base ü.vhd".encode_utf16().enumerate() {
        bytes[64 + n * 2..66 + n * 2].copy_from_slice(&unit.to_be_bytes());
    }
    let locators = [(*b"W2ku", 512, 38, 4096_u64), (*b"W2ru", 512, 26, 12_288)];
    for (n, (code, space, len, at)) in locators.into_iter().enumerate() {
        bytes[576 + n * 24..][..24].copy_from_slice(&locator(code, space, len, at));
    }
    seal(&mut bytes, 36);
    bytes
}

/// Builds a parent locator entry.
pub(crate) fn locator(code: [u8; 4], space: usize, len: usize, at: u64) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[0..4].copy_from_slice(&code);
    put32(&mut bytes, 4, space);
    put32(&mut bytes, 8, len);
    put64(&mut bytes, 16, at);
    bytes
}

/// Builds a fixed VHD of `disk`.
pub(crate) fn fixed(shape: &Shape, disk: &[u8]) -> Vec<u8> {
    let mut file = disk.to_vec();
    let footer = footer(shape, 2, u64::MAX, disk.len());
    match shape.trailing {
        Trailing::Whole => file.extend(footer),
        Trailing::Short => file.extend(&footer[..SECTOR - 1]),
        Trailing::Missing => {}
    }
    file
}

/// Returns the size of a block's bitmap in bytes.
pub(crate) fn bitmap_len(shape: &Shape) -> usize {
    (shape.block_size / SECTOR)
        .div_ceil(8)
        .next_multiple_of(SECTOR)
}

/// Builds a dynamic VHD of `disk`; blocks of zeros aren't stored.
pub(crate) fn dynamic(shape: &Shape, disk: &[u8]) -> Vec<u8> {
    let blocks: Vec<&[u8]> = disk.chunks(shape.block_size).collect();
    let entries = blocks.len() + shape.extra_entries;
    let table_len = (entries * 4).next_multiple_of(SECTOR);
    let footer = footer(shape, 3, 512, disk.len());

    let mut file = vec![0; shape.table_at + table_len];
    file[0..512].copy_from_slice(&footer);
    file[512..1536].copy_from_slice(&header(shape.table_at, entries, shape.block_size));
    file[shape.table_at..][..entries * 4].fill(0xFF);
    file[shape.table_at + entries * 4..].fill(shape.bat_padding);

    let mut order: Vec<usize> = (0..blocks.len()).collect();
    if shape.reversed {
        order.reverse();
    }
    for n in order {
        if blocks[n].iter().any(|byte| *byte != 0) {
            let bitmap_len = bitmap_len(shape);
            let data_at = (file.len() + bitmap_len).next_multiple_of(shape.data_alignment);
            let sector = (data_at - bitmap_len) / SECTOR;
            put32(&mut file, shape.table_at + n * 4, sector);
            file.resize(data_at - bitmap_len, 0);
            file.extend(bitmap(shape, blocks[n]));
            file.extend(blocks[n]);
            file.resize(data_at + shape.block_size, 0);
        }
    }
    match shape.trailing {
        Trailing::Whole => file.extend(footer),
        Trailing::Short => file.extend(&footer[..SECTOR - 1]),
        Trailing::Missing => {}
    }
    file
}

fn bitmap(shape: &Shape, block: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; bitmap_len(shape)];
    for n in 0..shape.block_size / SECTOR {
        let page = block.get(n * SECTOR..(n + 1) * SECTOR).unwrap_or_default();
        if shape.full_bitmaps || page.iter().any(|byte| *byte != 0) {
            bytes[n / 8] |= 0x80 >> (n % 8);
        }
    }
    bytes
}

/// Returns a disk of `pages` pages, some of which hold data, including the last one.
pub(crate) fn patterned(pages: usize) -> Vec<u8> {
    let mut disk = vec![0; pages * SECTOR];
    for (n, page) in disk.chunks_mut(SECTOR).enumerate() {
        let (group, within) = (n / 61, n % 61);
        if (group % 3 == 0 && within % 7 < 3) || n + 1 == pages {
            for (at, byte) in page.iter_mut().enumerate() {
                *byte = u8::try_from((n * 31 + at * 7) % 255).unwrap() + 1;
            }
        }
    }
    disk
}

/// The fields of a differencing VHD about itself and its parent.
#[derive(Debug, Clone)]
pub(crate) struct Family {
    pub(crate) id: [u8; 16],
    pub(crate) parent_id: [u8; 16],
    /// `parent_unicode_name`, in UTF-16 units.
    pub(crate) name: Vec<u16>,
    pub(crate) locators: Vec<Locator>,
}

/// A parent locator with its data.
#[derive(Debug, Clone)]
pub(crate) struct Locator {
    pub(crate) code: [u8; 4],
    pub(crate) data: Vec<u8>,
    /// `data_space`, if it isn't the space in bytes.
    pub(crate) space: Option<usize>,
    /// `data_length`, if it isn't the length of the data.
    pub(crate) len: Option<usize>,
    /// `data_offset`, if it isn't the offset of the data.
    pub(crate) at: Option<u64>,
}

impl Locator {
    pub(crate) fn new(code: [u8; 4], text: &str) -> Self {
        Self {
            code,
            data: text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            space: None,
            len: None,
            at: None,
        }
    }
}

impl Family {
    /// Returns the fields as Windows writes them for a parent in the same folder.
    pub(crate) fn new(id: u8, parent_id: u8, name: &str) -> Self {
        Self {
            id: [id; 16],
            parent_id: [parent_id; 16],
            name: name.encode_utf16().collect(),
            locators: vec![
                Locator::new(*b"W2ku", &format!("C:\\disks\\{name}")),
                Locator::new(*b"W2ru", &format!(".\\{name}")),
            ],
        }
    }
}

/// Sets another unique id in both footers of a file built here.
pub(crate) fn with_id(mut file: Vec<u8>, id: [u8; 16]) -> Vec<u8> {
    let end = file.len() - SECTOR;
    for at in [0, end] {
        if file[at..].starts_with(b"conectix") {
            file[at + 68..at + 84].copy_from_slice(&id);
            seal(&mut file[at..at + SECTOR], 64);
        }
    }
    file
}

/// Builds a differencing VHD with the pages of `disk` marked in `stored`. Pages with clear bits hold garbage, which
/// readers must ignore.
pub(crate) fn differencing(
    shape: &Shape,
    family: &Family,
    disk: &[u8],
    stored: &[bool],
) -> Vec<u8> {
    let per_block = shape.block_size / SECTOR;
    let blocks: Vec<&[bool]> = stored.chunks(per_block).collect();
    let entries = blocks.len() + shape.extra_entries;
    let table_len = (entries * 4).next_multiple_of(SECTOR);
    let mut footer = footer(shape, 4, 512, disk.len());
    footer[68..84].copy_from_slice(&family.id);
    seal(&mut footer, 64);

    let mut file = vec![0; shape.table_at + table_len];
    file[shape.table_at..][..entries * 4].fill(0xFF);
    file[shape.table_at + entries * 4..].fill(shape.bat_padding);
    let mut header = header(shape.table_at, entries, shape.block_size);
    header[40..56].copy_from_slice(&family.parent_id);
    put32(&mut header, 56, 0);
    for (n, unit) in family.name.iter().enumerate() {
        header[64 + n * 2..66 + n * 2].copy_from_slice(&unit.to_be_bytes());
    }
    for (n, item) in family.locators.iter().enumerate() {
        let at = file.len();
        file.extend(&item.data);
        file.resize(file.len().next_multiple_of(SECTOR), 0);
        let entry = locator(
            item.code,
            item.space.unwrap_or(file.len() - at),
            item.len.unwrap_or(item.data.len()),
            item.at.unwrap_or(at as u64),
        );
        header[576 + n * 24..][..24].copy_from_slice(&entry);
    }
    seal(&mut header, 36);
    file[0..512].copy_from_slice(&footer);
    file[512..1536].copy_from_slice(&header);

    let mut order: Vec<usize> = (0..blocks.len()).collect();
    if shape.reversed {
        order.reverse();
    }
    for n in order.into_iter().filter(|n| blocks[*n].contains(&true)) {
        let bitmap_len = bitmap_len(shape);
        let data_at = (file.len() + bitmap_len).next_multiple_of(shape.data_alignment);
        put32(
            &mut file,
            shape.table_at + n * 4,
            (data_at - bitmap_len) / SECTOR,
        );
        file.resize(data_at, 0);
        for page in 0..per_block {
            let at = (n * per_block + page) * SECTOR;
            if blocks[n].get(page) == Some(&true) {
                file[data_at - bitmap_len + page / 8] |= 0x80 >> (page % 8);
                file.extend(&disk[at..at + SECTOR]);
            } else {
                file.extend([0xEE; SECTOR]);
            }
        }
    }
    file.extend(footer);
    file
}
