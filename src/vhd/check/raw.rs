//! Checks a file without any trace of a VHD: its length, its name, and whether it is something else.

use super::checker::Checker;
use super::rules;
use crate::error::Result;
use crate::storage::ReadAt;
use crate::vhd::{SECTOR_SIZE, is_named_vhd};

impl Checker<'_> {
    /// Checks a file of `len` bytes without any trace of a VHD.
    pub(super) fn raw(&mut self, len: u64) -> Result<()> {
        let add = &mut self.findings;
        if len == 0 {
            add.add(&rules::FILE_EMPTY, "file_size", 0, "0 bytes", "an image");
            return Ok(());
        }
        if !len.is_multiple_of(SECTOR_SIZE) {
            let found = format_args!("{len} bytes");
            let expected = "a multiple of 512, or a VHD";
            add.add(&rules::RAW_SIZE, "file_size", 0, found, expected);
            return Ok(());
        }
        let at = len.saturating_sub(SECTOR_SIZE);
        let mut start = [0; 8];
        self.storage.read_exact_at(&mut start, 0)?;
        let found = if start == *b"conectix" {
            "something else, and a footer at the beginning that isn't of a dynamic VHD"
        } else {
            "something else"
        };
        let expected = "\"conectix\"";
        if is_named_vhd(self.storage.name()) {
            add.add(&rules::FOOTER_MISSING, "footer.cookie", at, found, expected);
        }
        if self.options.azure {
            add.add(
                &rules::AZURE_NO_FOOTER,
                "footer.cookie",
                at,
                found,
                expected,
            );
        }
        if is_optical_image(&self.storage)? {
            let found = "the file system of a CD or DVD, and no boot sector";
            let rule = &rules::OPTICAL_IMAGE;
            self.findings.add(rule, "file", 32769, found, "a disk");
        }
        Ok(())
    }
}

/// Returns whether `storage` begins with a CD or DVD file system and isn't bootable as a disk. A hybrid image has a
/// boot sector as well, and counts as a disk.
pub fn is_optical_image<S: ReadAt>(storage: &S) -> Result<bool> {
    const DESCRIPTOR: u64 = 32769;
    if storage.byte_len()? < DESCRIPTOR + 5 {
        return Ok(false);
    }
    let (mut signature, mut id) = ([0; 2], [0; 5]);
    storage.read_exact_at(&mut signature, 510)?;
    storage.read_exact_at(&mut id, DESCRIPTOR)?;
    Ok(signature != [0x55, 0xAA] && [*b"CD001", *b"BEA01"].contains(&id))
}
