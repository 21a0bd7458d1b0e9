//! The diff file byte by byte: pure encoding and decoding of each of its sections, without I/O.
//!
//! `docs/diff-format.md` describes the same bytes in the same order. All integers are big-endian.
//!
//! ```text
//! HEAD  PAGE|CLER …  INDX  PAGE|CLER …  INDX  …  TAIL
//! ```
//!
//! A reversible diff has a second sequence of frames and index segments among those, which lead from the target
//! back to the base: their types are in lower case.

mod direction;
mod frame;
mod header;
mod index;
mod trailer;

pub use direction::Direction;
pub(crate) use frame::{ClearHead, Codec, PageHead, decode_ranges};
pub use header::{DiffHeader, Side};
pub(crate) use header::{HEAD_FIXED, encode_header};
pub(crate) use index::{Entry, INDEX_ENTRIES, decode_index, encode_index};
pub(crate) use trailer::{
    BACK_FIXED, END_LEN, End, TAIL_FIXED, decode_back, decode_tail, encode_tail, finish_tail,
};
pub use trailer::{Totals, Trailer};

use crate::error::Error;

/// The first eight bytes of every diff. The first isn't text, and the last shows a transfer that changed line ends.
pub const MAGIC: [u8; 8] = *b"\x89VHDDIF\n";

/// The version this program writes, and the only one it reads.
pub const VERSION: u32 = 1;

/// Section types: four ASCII letters.
pub(crate) mod section {
    pub(crate) const PAGE: [u8; 4] = *b"PAGE";
    pub(crate) const CLEAR: [u8; 4] = *b"CLER";
    pub(crate) const INDEX: [u8; 4] = *b"INDX";
    pub(crate) const TAIL: [u8; 4] = *b"TAIL";
}

/// Bytes of what every section but the header begins with: type, a count, the sequence number.
pub(crate) const LEAD: usize = 16;

/// A count as it stands in the file. What is counted is bounded far below the limit of the field, and a reader
/// refuses what doesn't add up.
fn count(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes()
}

/// An error about a diff's bytes, with the remedy that helps against most of them.
pub(crate) fn damaged(message: &str) -> Error {
    Error::damaged(message)
        .with_hint("get the diff again from its source, or make it again with vhd-diff")
}
