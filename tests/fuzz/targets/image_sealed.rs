//! Bytes as a VHD whose checksums, and if asked for whose sizes and places, are made right, so that what stands behind
//! those checks is reached.

use super::image::check;
use super::input::Input;
use vhdkit::vhd::{DynamicHeader, FOOTER_SIZE, Footer, HEADER_SIZE};

const DISK_TYPE: usize = 60;
const CURRENT_SIZE: usize = 48;

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.u8();
    let mut file = input.0.to_vec();
    seal(flags, &mut file);
    check(&file, data, None);
}

/// `flags`: 1 seals the trailing footer, 2 the copy, 4 makes the copy one, 8 seals the header, 16 cuts the trailing
/// footer to 511 bytes, 32 cuts it off, 64 makes sizes and places sensible, 128 makes its checksum wrong.
pub fn seal(flags: u8, file: &mut Vec<u8>) {
    let is = |flag: u8| flags & flag != 0;
    let Some(trailing) = file.len().checked_sub(FOOTER_SIZE) else {
        return;
    };
    if is(64) {
        sensible_footer(&mut file[trailing..]);
    }
    if is(1) {
        seal_footer(&mut file[trailing..]);
    }
    if is(4) {
        let footer = file[trailing..].to_vec();
        file[..FOOTER_SIZE].copy_from_slice(&footer);
    } else if is(2) {
        seal_footer(&mut file[..FOOTER_SIZE]);
    }
    let at = number(file, trailing + 16, 8) as usize;
    let size = number(file, trailing + CURRENT_SIZE, 8);
    if is(8)
        && at
            .checked_add(HEADER_SIZE)
            .is_some_and(|end| end <= trailing)
    {
        if is(64) {
            sensible_header(file, at, size);
        }
        seal_header(&mut file[at..at + HEADER_SIZE]);
    }
    if is(128) {
        file[trailing + 64] ^= 1;
    }
    if is(16) {
        file.pop();
    } else if is(32) {
        file.truncate(trailing);
    }
}

fn seal_footer(bytes: &mut [u8]) {
    if let Ok(array) = <&[u8; FOOTER_SIZE]>::try_from(&*bytes) {
        let mut footer = Footer::decode(array);
        footer.cookie = Footer::COOKIE;
        bytes.copy_from_slice(&footer.sealed().encode());
    }
}

fn seal_header(bytes: &mut [u8]) {
    if let Ok(array) = <&[u8; HEADER_SIZE]>::try_from(&*bytes) {
        let mut header = DynamicHeader::decode(array);
        header.cookie = DynamicHeader::COOKIE;
        bytes.copy_from_slice(&header.sealed().encode());
    }
}

/// Version 1.0, a known type, a size of up to 128 KiB, a header directly behind the copy.
fn sensible_footer(footer: &mut [u8]) {
    footer[12..16].copy_from_slice(&[0, 1, 0, 0]);
    if !(2..=4).contains(&number(footer, DISK_TYPE, 4)) {
        footer[DISK_TYPE..DISK_TYPE + 4].copy_from_slice(&[0, 0, 0, 3]);
    }
    let size = (number(footer, CURRENT_SIZE, 8) / 512 % 256 + 1) * 512;
    footer[CURRENT_SIZE..CURRENT_SIZE + 8].copy_from_slice(&size.to_be_bytes());
    footer[16..24].copy_from_slice(&512_u64.to_be_bytes());
}

/// Version 1.0, blocks of 512 bytes to 64 KiB, a BAT within the file that is long enough, entries within the file.
fn sensible_header(file: &mut [u8], at: usize, size: u64) {
    let sectors = file.len() as u64 / 512;
    let block_size = 512_u64 << (number(file, at + 32, 4) % 8);
    let entries = size.div_ceil(block_size);
    let table = number(file, at + 16, 8) / 512 % 8 * 512;
    let header = &mut file[at..at + HEADER_SIZE];
    header[16..24].copy_from_slice(&table.to_be_bytes());
    header[24..28].copy_from_slice(&[0, 1, 0, 0]);
    let more = u64::from(header[31] % 3);
    header[28..32].copy_from_slice(&((entries + more) as u32).to_be_bytes());
    header[32..36].copy_from_slice(&(block_size as u32).to_be_bytes());
    // A BAT that lies over the header would break it: its entries are left as they are.
    if table < (at + HEADER_SIZE) as u64 {
        return;
    }
    let table = file.get_mut(table as usize..).unwrap_or_default();
    for entry in table.chunks_exact_mut(4).take(entries as usize) {
        let sector = number(entry, 0, 4);
        if sector != u64::from(u32::MAX) {
            entry.copy_from_slice(&((sector % (sectors + 2)) as u32).to_be_bytes());
        }
    }
}

/// The big-endian number at `at`; zero where the bytes end.
fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let bytes = bytes.get(at..at + len).unwrap_or_default();
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}
