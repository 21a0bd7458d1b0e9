//! The binary format of diffs: pure encoding and decoding of each section, without I/O.
//!
//! `docs/diff-format.md` describes the same bytes in the same order. All integers are big-endian.
//!
//! ```text
//! HEAD  PAGE|CLER …  INDX  PAGE|CLER …  INDX  …  TAIL
//! ```
//!
//! A reversible diff also contains frames and index segments that lead from the target back to the base. Their section
//! types are in lower case.

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
use crate::remedy::{Remedy, Step, Tool};

/// The first eight bytes of every diff. The first one isn't text, and the last one reveals line-ending conversion.
pub const MAGIC: [u8; 8] = *b"\x89VHDDIF\n";

/// The version that this program writes, and the only one it reads.
pub const VERSION: u32 = 1;

/// Section types: four ASCII letters.
pub(crate) mod section {
    pub(crate) const PAGE: [u8; 4] = *b"PAGE";
    pub(crate) const CLEAR: [u8; 4] = *b"CLER";
    pub(crate) const INDEX: [u8; 4] = *b"INDX";
    pub(crate) const TAIL: [u8; 4] = *b"TAIL";
}

/// Length of the header with which every section except HEAD begins: type, a count, the sequence number.
pub(crate) const LEAD: usize = 16;

/// Encodes a count. Counts are limited to values far below the maximum of the field, and a reader refuses inconsistent
/// ones.
fn count(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes()
}

/// An error about a diff's bytes, with the advice that usually helps.
pub(crate) fn damaged(message: &str) -> Error {
    Error::damaged(message).with_remedy(
        Remedy::new("get the diff again from its source, or create it again")
            .named(" with ")
            .step(Step::Use(Tool::Diff), ""),
    )
}
