//! Scans the bytes of a file.

use std::ops::Range;

use crate::error::Result;
use crate::page::to_usize;
use crate::storage::ReadAt;

/// Bytes read at a time.
const PART: u64 = 256 << 10;

/// Returns the first nonzero byte of `range`. Holes aren't read.
pub(super) fn first_nonzero(storage: &dyn ReadAt, range: Range<u64>) -> Result<Option<u64>> {
    let mut at = range.start;
    let mut bytes = Vec::new();
    while let Some(data) = storage.data_range(at..range.end)? {
        let len = (data.end - data.start).min(PART);
        bytes.resize(to_usize(len), 0);
        storage.read_exact_at(&mut bytes, data.start)?;
        if !crate::page::is_zero(&bytes) {
            let first = bytes.iter().position(|byte| *byte != 0);
            return Ok(first.map(|n| data.start + n as u64));
        }
        at = data.start + len.max(1);
        if at >= range.end {
            break;
        }
    }
    Ok(None)
}
