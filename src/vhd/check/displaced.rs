//! Finds footers that aren't at the end of the file because something was appended to it.

use std::ops::Range;

use super::candidate::FooterCandidate;
use super::proof;
use crate::error::Result;
use crate::page::to_usize;
use crate::storage::ReadAt;
use crate::vhd::{DiskType, FOOTER_SIZE, Footer, SECTOR_SIZE};

/// A displaced footer is searched for in this many bytes.
const SEARCHED: u64 = 1 << 20;

/// Finds the last intact footer near the end of the file whose position is consistent: for a fixed disk, it follows as
/// many bytes as the disk has; for other types, it follows the header it points to. If the file ends in a hole, as it
/// does after being extended, a fixed disk's footer is also searched for before the hole.
pub(super) fn find_last(storage: &dyn ReadAt, file_len: u64) -> Result<Option<FooterCandidate>> {
    let found = find_last_before(storage, file_len, |seen| match seen.footer.disk_type {
        DiskType::Fixed => Ok(seen.footer.current_size == seen.at),
        DiskType::Dynamic | DiskType::Differencing | DiskType::Other(_) => {
            Ok(proof::header_of(storage, &seen.footer, seen.at)?.is_some()
                || proof::is_fixed_by_length(storage, seen)?)
        }
    })?;
    if found.is_some() {
        return Ok(found);
    }
    let end = stored_end(storage, file_len)?;
    if end >= file_len {
        return Ok(None);
    }
    find_last_before(storage, end, |seen| {
        Ok(seen.footer.disk_type == DiskType::Fixed && seen.footer.current_size == seen.at)
    })
}

/// Finds the first footer near the start of `range` that equals `copy`.
pub(super) fn first_equal(
    storage: &dyn ReadAt,
    range: Range<u64>,
    copy: &Footer,
) -> Result<Option<FooterCandidate>> {
    let end = range.end.min(range.start.saturating_add(SEARCHED));
    let bytes = read(storage, range.start, end)?;
    Ok(intact(&bytes, range.start).find(|seen| seen.footer == *copy))
}

/// Reads `start..end`, which is short.
fn read(storage: &dyn ReadAt, start: u64, end: u64) -> Result<Vec<u8>> {
    let len = end.saturating_sub(start).min(SEARCHED);
    let mut bytes = vec![0; to_usize(len)];
    storage.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

/// Finds the last intact footer in the bytes before `end` for which `is_right` holds.
fn find_last_before(
    storage: &dyn ReadAt,
    end: u64,
    is_right: impl Fn(&FooterCandidate) -> Result<bool>,
) -> Result<Option<FooterCandidate>> {
    let start = end.saturating_sub(SEARCHED).next_multiple_of(SECTOR_SIZE);
    let bytes = read(storage, start, end)?;
    for seen in intact(&bytes, start).rev() {
        if is_right(&seen)? {
            return Ok(Some(seen));
        }
    }
    Ok(None)
}

/// Returns the start of the hole at the end of the file, or the length of the file.
fn stored_end(storage: &dyn ReadAt, file_len: u64) -> Result<u64> {
    let (mut end, mut step) = (file_len, SEARCHED);
    while end > 0 {
        let start = end.saturating_sub(step);
        let (mut at, mut last) = (start, None);
        while let Some(data) = storage.data_range(at..end)? {
            last = Some(data.end);
            at = data.end.max(at + 1);
        }
        if let Some(last) = last {
            return Ok(last);
        }
        (end, step) = (start, step.saturating_mul(2));
    }
    Ok(0)
}

/// The intact footers in `bytes`, which start at `start` in the file.
fn intact(bytes: &[u8], start: u64) -> impl DoubleEndedIterator<Item = FooterCandidate> {
    let (sectors, _) = bytes.as_chunks::<FOOTER_SIZE>();
    let seen = sectors.iter().enumerate().filter_map(move |(n, sector)| {
        let cookie = sector.starts_with(&Footer::COOKIE);
        cookie.then(|| FooterCandidate::new(sector, start + n as u64 * SECTOR_SIZE, false))
    });
    seen.filter(|seen| seen.intact)
}
