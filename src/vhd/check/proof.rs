//! Evidence for a footer: a valid dynamic disk header, a BAT that fits, or the length of the file.

use super::candidate::FooterCandidate;
use crate::error::Result;
use crate::storage::ReadAt;
use crate::vhd::{
    DiskType, DynamicHeader, FOOTER_SIZE, Footer, HEADER_SIZE, MAX_DYNAMIC_SIZE, SECTOR_SIZE,
};

/// The dynamic disk header that `footer` points to, if it is before `data_end` and has a correct cookie, checksum and
/// fields.
pub(super) fn header_of(
    storage: &dyn ReadAt,
    footer: &Footer,
    data_end: u64,
) -> Result<Option<DynamicHeader>> {
    let at = footer.data_offset;
    let inside = at
        .checked_add(HEADER_SIZE as u64)
        .is_some_and(|end| end <= data_end);
    if at < FOOTER_SIZE as u64 || !at.is_multiple_of(SECTOR_SIZE) || !inside {
        return Ok(None);
    }
    let mut bytes = [0; HEADER_SIZE];
    storage.read_exact_at(&mut bytes, at)?;
    let header = DynamicHeader::decode(&bytes);
    Ok(header.verify(at).is_ok().then_some(header))
}

/// Returns whether header and BAT belong to a disk of this footer's type and size.
pub(super) fn fits(storage: &dyn ReadAt, footer: &Footer, data_end: u64) -> Result<bool> {
    let size = footer.current_size;
    if !footer.disk_type.is_sparse()
        || footer.file_format_version.major() != 1
        || !(1..=MAX_DYNAMIC_SIZE).contains(&size)
        || !size.is_multiple_of(SECTOR_SIZE)
    {
        return Ok(false);
    }
    let Some(header) = header_of(storage, footer, data_end)? else {
        return Ok(false);
    };
    let entries = u64::from(header.max_table_entries);
    let blocks = size.div_ceil(u64::from(header.block_size));
    let table_end = header.table_offset.checked_add(entries * 4);
    Ok(blocks <= entries
        && table_end.is_some_and(|end| end <= data_end)
        && type_of(&header) == Some(footer.disk_type))
}

/// Returns whether the header is that of a dynamic or a differencing disk, if its parent fields are conclusive.
pub(super) fn type_of(header: &DynamicHeader) -> Option<DiskType> {
    let has_id = !header.parent_unique_id.is_nil();
    let has_name = header.parent_unicode_name != [0; 512];
    let locators = &header.parent_locators;
    let has_locator = locators
        .iter()
        .any(|locator| locator.is_used() && locator.data_length > 0);
    match (has_id, has_name || has_locator) {
        (true, true) => Some(DiskType::Differencing),
        (false, false) => Some(DiskType::Dynamic),
        _ => None,
    }
}

/// Returns whether the length of the file proves that it is a fixed disk, whatever its footer says: the footer is
/// preceded by exactly as many bytes as the disk has, and there is no sign of a dynamic disk header.
pub(super) fn is_fixed_by_length(storage: &dyn ReadAt, seen: &FooterCandidate) -> Result<bool> {
    let size = seen.footer.current_size;
    Ok(size > 0 && size == seen.at && !has_header_cookie(storage, seen)?)
}

/// Returns whether a dynamic disk header, damaged or not, is at the footer's offset or at its usual one.
pub(super) fn has_header_cookie(storage: &dyn ReadAt, seen: &FooterCandidate) -> Result<bool> {
    for at in [seen.footer.data_offset, FOOTER_SIZE as u64] {
        let mut cookie = [0; 8];
        if at.checked_add(8).is_some_and(|end| end <= seen.at) {
            storage.read_exact_at(&mut cookie, at)?;
        }
        if cookie == DynamicHeader::COOKIE {
            return Ok(true);
        }
    }
    Ok(false)
}
