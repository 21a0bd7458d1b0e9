//! The trailer: totals, digests, the root of the index, and the digest of the whole file.

use byteorder::{BigEndian, ByteOrder};

use super::{Entry, LEAD, MAGIC, count, section};
use crate::image::{ContentDigest, Hash};

/// Length of the trailer's fields between its section header and the root of the index.
pub(crate) const TAIL_FIXED: usize = 112;

/// Length of the second part of a reversible diff's trailer, before its root.
pub(crate) const BACK_FIXED: usize = 48;

/// Length of the end of the file: offset of the trailer, digest, reversed magic bytes.
pub(crate) const END_LEN: usize = 48;

const BASE_KNOWN: u32 = 1;
const TARGET_KNOWN: u32 = 2;

/// Totals for one direction of a diff.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Number of frames.
    pub frames: u64,
    /// Number of page ranges in all frames.
    pub ranges: u64,
    /// Total length of all updates on the disk, in bytes.
    pub update_bytes: u64,
    /// Total length of all clears on the disk, in bytes.
    pub clear_bytes: u64,
    /// Total length of all payloads as stored, in bytes.
    pub stored_bytes: u64,
}

/// The totals and digests at the end of a diff.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trailer {
    /// Number of frames.
    pub frames: u64,
    /// Number of page ranges in all frames. A long clear counts once; a range that crosses windows counts once in each.
    pub ranges: u64,
    /// Bytes of the virtual disk that hold other data now.
    pub update_bytes: u64,
    /// Bytes of the virtual disk that became zero.
    pub clear_bytes: u64,
    /// Total length of all payloads as stored, in bytes.
    pub stored_bytes: u64,
    /// Content digest of the base, if it was computed.
    pub base_digest: Option<ContentDigest>,
    /// Content digest of the target, if it was computed.
    pub target_digest: Option<ContentDigest>,
    /// Totals for the opposite direction, in a reversible diff.
    pub way_back: Option<Totals>,
}

impl Trailer {
    /// A trailer with these totals and digests, and no opposite direction.
    pub(crate) fn new(
        totals: Totals,
        base_digest: Option<ContentDigest>,
        target_digest: Option<ContentDigest>,
    ) -> Self {
        Self {
            frames: totals.frames,
            ranges: totals.ranges,
            update_bytes: totals.update_bytes,
            clear_bytes: totals.clear_bytes,
            stored_bytes: totals.stored_bytes,
            base_digest,
            target_digest,
            way_back: None,
        }
    }

    /// The totals for the direction from the base to the target.
    pub fn totals(&self) -> Totals {
        Totals {
            frames: self.frames,
            ranges: self.ranges,
            update_bytes: self.update_bytes,
            clear_bytes: self.clear_bytes,
            stored_bytes: self.stored_bytes,
        }
    }

    /// The trailer for the opposite direction. Returns `None` unless the diff is reversible.
    pub(crate) fn reversed(&self) -> Option<Self> {
        Some(Self {
            way_back: Some(self.totals()),
            ..Self::new(self.way_back?, self.target_digest, self.base_digest)
        })
    }
}

/// Encodes the trailer up to the digest of everything before it.
pub(crate) fn encode_tail(
    sequence: u64,
    offset: u64,
    trailer: &Trailer,
    root: &[Entry],
    back: &[Entry],
) -> Vec<u8> {
    let entries = Entry::LEN * (root.len() + back.len());
    let mut out = Vec::with_capacity(LEAD + TAIL_FIXED + BACK_FIXED + entries + END_LEN);
    out.extend_from_slice(&section::TAIL);
    out.extend_from_slice(&count(root.len()));
    out.extend_from_slice(&sequence.to_be_bytes());
    let t = trailer;
    encode_totals(&mut out, &t.totals());
    let known = |digest: Option<ContentDigest>, flag| digest.map_or(0, |_| flag);
    out.extend_from_slice(
        &(known(t.base_digest, BASE_KNOWN) | known(t.target_digest, TARGET_KNOWN)).to_be_bytes(),
    );
    out.extend_from_slice(&[0; 4]);
    let bytes = |digest: Option<ContentDigest>| digest.map_or([0; 32], |d| d.0);
    out.extend_from_slice(&bytes(t.base_digest));
    out.extend_from_slice(&bytes(t.target_digest));
    for entry in root {
        entry.encode_to(&mut out);
    }
    if let Some(totals) = &t.way_back {
        out.extend_from_slice(&count(back.len()));
        out.extend_from_slice(&[0; 4]);
        encode_totals(&mut out, totals);
        for entry in back {
            entry.encode_to(&mut out);
        }
    }
    out.extend_from_slice(&offset.to_be_bytes());
    out
}

fn encode_totals(out: &mut Vec<u8>, t: &Totals) {
    for n in [
        t.frames,
        t.ranges,
        t.update_bytes,
        t.clear_bytes,
        t.stored_bytes,
    ] {
        out.extend_from_slice(&n.to_be_bytes());
    }
}

fn decode_totals(b: &[u8; 40]) -> Totals {
    let n = |at: usize| BigEndian::read_u64(&b[at..]);
    Totals {
        frames: n(0),
        ranges: n(8),
        update_bytes: n(16),
        clear_bytes: n(24),
        stored_bytes: n(32),
    }
}

/// Appends the digest and the magic bytes that end the file.
pub(crate) fn finish_tail(out: &mut Vec<u8>, digest: &Hash) {
    out.extend_from_slice(digest);
    out.extend(MAGIC.iter().rev());
}

/// Decodes the trailer's fixed fields. Returns `None` if a flag is unknown or an absent digest isn't zero.
pub(crate) fn decode_tail(b: &[u8; TAIL_FIXED]) -> Option<Trailer> {
    let (totals, _) = b.split_first_chunk()?;
    let flags = BigEndian::read_u32(&b[40..]);
    let digest = |at: usize, flag| {
        let bytes: Hash = b[at..at + 32].try_into().ok()?;
        if flags & flag != 0 {
            Some(Some(ContentDigest(bytes)))
        } else {
            (bytes == [0; 32]).then_some(None)
        }
    };
    if flags & !(BASE_KNOWN | TARGET_KNOWN) != 0 || b[44..48] != [0; 4] {
        return None;
    }
    Some(Trailer::new(
        decode_totals(totals),
        digest(48, BASE_KNOWN)?,
        digest(80, TARGET_KNOWN)?,
    ))
}

/// Decodes the part of a reversible diff's trailer about the opposite direction: the number of its index segments, and
/// the totals. Returns `None` if the reserved field isn't zero.
pub(crate) fn decode_back(b: &[u8; BACK_FIXED]) -> Option<(u32, Totals)> {
    let (head, totals) = b.split_first_chunk::<8>()?;
    let totals = totals.first_chunk()?;
    (head[4..] == [0; 4]).then(|| (BigEndian::read_u32(head), decode_totals(totals)))
}

/// The last bytes of a diff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    /// Offset of the trailer.
    pub(crate) tail_offset: u64,
    /// BLAKE3 of every byte before it: the identity of the diff.
    pub(crate) digest: Hash,
}

impl End {
    /// Decodes the last bytes of a diff. Returns `None` if they are something else.
    pub(crate) fn decode(b: &[u8; END_LEN]) -> Option<Self> {
        b[40..].iter().eq(MAGIC.iter().rev()).then(|| Self {
            tail_offset: BigEndian::read_u64(b),
            digest: b[8..40].try_into().unwrap_or_default(),
        })
    }
}
