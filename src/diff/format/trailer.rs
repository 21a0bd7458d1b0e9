//! The trailer: totals, digests, the root of the index, and the digest of everything.

use byteorder::{BigEndian, ByteOrder};

use super::{Entry, LEAD, MAGIC, count, section};
use crate::image::{ContentDigest, Hash};

/// Bytes of the trailer's fields between its lead and the root of the index.
pub(crate) const TAIL_FIXED: usize = 112;

/// Bytes at the very end: offset of the trailer, digest, the magic backwards.
pub(crate) const END_LEN: usize = 48;

const BASE_KNOWN: u32 = 1;
const TARGET_KNOWN: u32 = 2;

/// What a diff says of itself at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trailer {
    /// Number of frames.
    pub frames: u64,
    /// Number of page ranges in all frames; a long clear counts as one, a range that crosses windows once in each.
    pub ranges: u64,
    /// Bytes of the virtual disk that hold other data now.
    pub update_bytes: u64,
    /// Bytes of the virtual disk that became zero.
    pub clear_bytes: u64,
    /// Bytes of all payloads as stored.
    pub stored_bytes: u64,
    /// Content digest of the base, if it was computed.
    pub base_digest: Option<ContentDigest>,
    /// Content digest of the target, if it was computed.
    pub target_digest: Option<ContentDigest>,
}

/// The trailer up to, but without, the digest of everything before that.
pub(crate) fn encode_tail(
    sequence: u64,
    offset: u64,
    trailer: &Trailer,
    root: &[Entry],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(LEAD + TAIL_FIXED + Entry::LEN * root.len() + END_LEN);
    out.extend_from_slice(&section::TAIL);
    out.extend_from_slice(&count(root.len()));
    out.extend_from_slice(&sequence.to_be_bytes());
    let t = trailer;
    for n in [
        t.frames,
        t.ranges,
        t.update_bytes,
        t.clear_bytes,
        t.stored_bytes,
    ] {
        out.extend_from_slice(&n.to_be_bytes());
    }
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
    out.extend_from_slice(&offset.to_be_bytes());
    out
}

/// The digest and the magic that end the file.
pub(crate) fn finish_tail(out: &mut Vec<u8>, digest: &Hash) {
    out.extend_from_slice(digest);
    out.extend(MAGIC.iter().rev());
}

/// Decodes the trailer's fixed fields; `None` if a flag is unknown or an absent digest isn't zero.
pub(crate) fn decode_tail(b: &[u8; TAIL_FIXED]) -> Option<Trailer> {
    let n = |at: usize| BigEndian::read_u64(&b[at..]);
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
    Some(Trailer {
        frames: n(0),
        ranges: n(8),
        update_bytes: n(16),
        clear_bytes: n(24),
        stored_bytes: n(32),
        base_digest: digest(48, BASE_KNOWN)?,
        target_digest: digest(80, TARGET_KNOWN)?,
    })
}

/// The last bytes of a diff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    /// Where the trailer begins.
    pub(crate) tail_offset: u64,
    /// BLAKE3 of every byte before it: the identity of the diff.
    pub(crate) digest: Hash,
}

impl End {
    /// `None` if these aren't the last bytes of a diff.
    pub(crate) fn decode(b: &[u8; END_LEN]) -> Option<Self> {
        b[40..].iter().eq(MAGIC.iter().rev()).then(|| Self {
            tail_offset: BigEndian::read_u64(b),
            digest: b[8..40].try_into().unwrap_or_default(),
        })
    }
}
