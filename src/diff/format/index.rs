//! The index: the location of each frame, in segments of bounded size.

use byteorder::{BigEndian, ByteOrder};

use super::{Direction, LEAD, count, section};
use crate::page::PageRange;

/// The most frames per `INDX` section; only the last section may have fewer.
pub(crate) const INDEX_ENTRIES: usize = 4096;

/// The location of a frame, or of a segment of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// From the first changed byte to the last.
    pub(crate) range: PageRange,
    /// Offset in the file.
    pub(crate) offset: u64,
}

impl Entry {
    pub(crate) const LEN: usize = 24;

    pub(crate) fn encode_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.range.start().to_be_bytes());
        out.extend_from_slice(&self.range.end().to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
    }

    /// Decodes an entry. Returns `None` if the range is invalid.
    pub(crate) fn decode(b: &[u8; Self::LEN]) -> Option<Self> {
        let range = PageRange::new(BigEndian::read_u64(b), BigEndian::read_u64(&b[8..]))?;
        Some(Self {
            range,
            offset: BigEndian::read_u64(&b[16..]),
        })
    }
}

pub(crate) fn encode_index(direction: Direction, sequence: u64, entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(LEAD + Entry::LEN * entries.len() + 4);
    out.extend_from_slice(&direction.section(section::INDEX));
    out.extend_from_slice(&count(entries.len()));
    out.extend_from_slice(&sequence.to_be_bytes());
    for entry in entries {
        entry.encode_to(&mut out);
    }
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_be_bytes());
    out
}

/// Decodes the entries between an index's section header and its checksum. Returns `None` if one is invalid.
pub(crate) fn decode_index(bytes: &[u8]) -> Option<Vec<Entry>> {
    bytes.as_chunks().0.iter().map(Entry::decode).collect()
}
