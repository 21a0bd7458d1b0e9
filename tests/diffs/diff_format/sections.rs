//! Splits diffs into sections and joins them, working from the description alone: nothing here uses the library's own
//! encoding, so that a mistake there can't be hidden by the same mistake here.

use byteorder::{BigEndian, ByteOrder};

/// Bytes of a section, or of the header.
pub(crate) type Section = Vec<u8>;

pub(crate) const END: usize = 48;

pub(crate) fn u32_at(section: &[u8], at: usize) -> u32 {
    BigEndian::read_u32(&section[at..])
}

pub(crate) fn u64_at(section: &[u8], at: usize) -> u64 {
    BigEndian::read_u64(&section[at..])
}

pub(crate) fn put_u16(section: &mut [u8], at: usize, n: u16) {
    BigEndian::write_u16(&mut section[at..], n);
}

pub(crate) fn put_u32(section: &mut [u8], at: usize, n: u32) {
    BigEndian::write_u32(&mut section[at..], n);
}

pub(crate) fn put_u64(section: &mut [u8], at: usize, n: u64) {
    BigEndian::write_u64(&mut section[at..], n);
}

fn size(n: u32) -> usize {
    usize::try_from(n).unwrap()
}

pub(crate) fn kind(section: &[u8]) -> &str {
    match &section[..4] {
        b"PAGE" => "PAGE",
        b"CLER" => "CLER",
        b"INDX" => "INDX",
        b"TAIL" => "TAIL",
        b"page" => "page",
        b"cler" => "cler",
        b"indx" => "indx",
        b"\x89VHD" => "HEAD",
        _ => "?",
    }
}

/// Splits a whole diff into its sections, the header first.
pub(crate) fn cut(diff: &[u8]) -> Vec<Section> {
    let mut sections = Vec::new();
    let mut rest = diff;
    while !rest.is_empty() {
        let count = size(u32_at(rest, 4));
        let len = match kind(rest) {
            "HEAD" => size(u32_at(rest, 16)),
            "PAGE" | "page" => 76 + 4 * count + size(u32_at(rest, 28)),
            "CLER" | "cler" => 68,
            "INDX" | "indx" => 20 + 24 * count,
            _ => rest.len(),
        };
        let (section, after) = rest.split_at(len);
        sections.push(section.to_vec());
        rest = after;
    }
    sections
}

/// Returns the offset of each section.
pub(crate) fn offsets(sections: &[Section]) -> Vec<u64> {
    let mut at = 0;
    sections
        .iter()
        .map(|section| {
            let start = at;
            at += section.len() as u64;
            start
        })
        .collect()
}

/// Numbers the sections that follow the header.
pub(crate) fn number(sections: &mut [Section]) {
    for (section, n) in sections.iter_mut().skip(1).zip(1..) {
        put_u64(section, 8, n);
    }
}

/// Returns a frame's first and last changed byte, its number of ranges, and the bytes of its updates and clears.
fn measure(frame: &[u8]) -> (u64, u64, u64, [u64; 2]) {
    if kind(frame) == "CLER" {
        let (start, len) = (u64_at(frame, 16), u64_at(frame, 24));
        return (start, start.wrapping_add(len), 1, [0, len]);
    }
    let window = u64_at(frame, 16);
    let ranges = &frame[72..72 + 4 * size(u32_at(frame, 4))];
    let mut bytes = [0, 0];
    let (mut start, mut end) = (None, window);
    for range in ranges.chunks(4) {
        let (first, second) = (BigEndian::read_u16(range), BigEndian::read_u16(&range[2..]));
        let (len, clear) = (u64::from(second & 0x7fff) + 1, second >> 15);
        bytes[usize::from(clear)] += len * 512;
        let at = window.wrapping_add(u64::from(first) * 512);
        start.get_or_insert(at);
        end = at.wrapping_add(len * 512);
    }
    (
        start.unwrap_or(window),
        end,
        u64::from(u32_at(frame, 4)),
        bytes,
    )
}

/// Encodes the index section for consecutive frames.
pub(crate) fn index(entries: &[[u64; 3]]) -> Section {
    let mut out = b"INDX".to_vec();
    out.extend(u32::try_from(entries.len()).unwrap().to_be_bytes());
    out.extend([0; 8]);
    out.extend(entries.iter().flatten().flat_map(|n| n.to_be_bytes()));
    out.extend([0; 4]);
    out
}

/// Appends a matching index and trailer to a header and its frames; `digests` is the trailer's flags, the reserved
/// field and both digests.
pub(crate) fn complete(mut sections: Vec<Section>, digests: &[u8]) -> Vec<Section> {
    let mut totals = [0; 5];
    let mut entries = Vec::new();
    for (frame, offset) in sections.iter().zip(offsets(&sections)).skip(1) {
        let (start, end, ranges, [updates, clears]) = measure(frame);
        let stored = if kind(frame) == "PAGE" {
            u64::from(u32_at(frame, 28))
        } else {
            0
        };
        for (total, n) in totals.iter_mut().zip([1, ranges, updates, clears, stored]) {
            *total = u64::wrapping_add(*total, n);
        }
        entries.push([start, end, offset]);
    }
    let mut root = Vec::new();
    if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
        let offset: usize = sections.iter().map(Vec::len).sum();
        root = vec![first[0], last[1], offset as u64];
        sections.push(index(&entries));
    }
    let mut tail = b"TAIL".to_vec();
    tail.extend(u32::from(!root.is_empty()).to_be_bytes());
    tail.extend([0; 8]);
    tail.extend(totals.iter().flat_map(|n| n.to_be_bytes()));
    tail.extend(digests);
    tail.extend(root.iter().flat_map(|n| n.to_be_bytes()));
    tail.extend([0; END]);
    sections.push(tail);
    number(&mut sections);
    place_tail(&mut sections);
    sections
}

/// Writes the offset of the trailer into the trailer.
pub(crate) fn place_tail(sections: &mut [Section]) {
    let before: usize = sections.iter().rev().skip(1).map(Vec::len).sum();
    if let Some(tail) = sections.last_mut() {
        let at = tail.len() - END;
        put_u64(tail, at, before as u64);
    }
}

/// Fixes all checksums and the digest, and joins the sections.
pub(crate) fn seal(sections: &[Section]) -> Vec<u8> {
    let mut out = Vec::new();
    for section in sections {
        let mut section = section.clone();
        let len = section.len();
        let covered = match kind(&section) {
            "PAGE" => {
                let head = len.min(76 + 4 * size(u32_at(&section, 4))) - 4;
                let crc = crc32fast::hash(&section[head + 4..]);
                put_u32(&mut section, 36, crc);
                head
            }
            "TAIL" => {
                out.extend(&section[..len - END + 8]);
                let digest = *blake3::hash(&out).as_bytes();
                out.extend(digest);
                out.extend(b"\nFIDDHV\x89");
                continue;
            }
            _ => len - 4,
        };
        let crc = crc32fast::hash(&section[..covered]);
        put_u32(&mut section, covered, crc);
        out.extend(section);
    }
    out
}
