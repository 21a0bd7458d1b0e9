//! What Azure takes as an upload.

use super::Checker;
use super::footers::Seen;
use super::rules;
use crate::vhd::{DiskType, FOOTER_SIZE};

const MEBIBYTE: u64 = 1 << 20;

impl Checker<'_> {
    /// Applies the rules for uploads to the disk of the footer `seen`, in a file of `file_len` bytes.
    pub(super) fn azure(&mut self, seen: &Seen, file_len: u64) {
        let footer = &seen.footer;
        let at = |offset: u64| seen.at.saturating_add(offset);
        let add = &mut self.findings;
        let size = footer.current_size;
        if footer.disk_type != DiskType::Fixed {
            let (rule, found) = (&rules::AZURE_TYPE, footer.disk_type);
            add.add(rule, "footer.disk_type", at(60), found, "fixed");
        } else if file_len.checked_sub(FOOTER_SIZE as u64) != Some(size)
            // That says the same.
            && !add.has_any(&[&rules::FIXED_CUT_OFF])
        {
            let found = format_args!("{file_len} bytes");
            let expected = format_args!("{size} + 512 bytes");
            let rule = &rules::AZURE_FILE_SIZE;
            add.add(rule, "file_size", file_len, found, expected);
        }
        let found = format_args!("{size} bytes");
        let field = "footer.current_size";
        if !size.is_multiple_of(MEBIBYTE) {
            let next = size.div_ceil(MEBIBYTE).saturating_mul(MEBIBYTE);
            let expected = format_args!("a multiple of 1048576; the next is {next}");
            add.add(&rules::AZURE_WHOLE_MIB, field, at(48), found, expected);
        }
        if size < 20 * MEBIBYTE {
            let rule = &rules::AZURE_TOO_SMALL;
            add.add(rule, field, at(48), found, "at least 20971520 bytes");
        }
        if size > 32 << 40 {
            let rule = &rules::AZURE_TOO_LARGE;
            add.add(rule, field, at(48), found, "at most 35184372088832 bytes");
        } else if size > 8 << 40 {
            let rule = &rules::AZURE_PAGE_BLOB;
            add.add(rule, field, at(48), found, "at most 8796093022208 bytes");
        }
        let geometry = footer.disk_geometry;
        if footer.creator_application.size_may_be_read_from_geometry() && geometry.size() != size {
            let found = format_args!(
                "creator {} with geometry {geometry}",
                footer.creator_application
            );
            let expected = "a creator whose disks are measured by current_size";
            let rule = &rules::AZURE_CREATOR;
            add.add(rule, "footer.creator_application", at(28), found, expected);
        }
    }
}
