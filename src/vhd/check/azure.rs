//! Requirements of Azure for uploads.

use super::advice::{Advice, Advised, Phrase};
use super::candidate::FooterCandidate;
use super::checker::Checker;
use super::report::Facts;
use super::rules::{self, Rule};
use crate::vhd::{DiskType, FOOTER_SIZE, MAX_DYNAMIC_SIZE};

const MEBIBYTE: u64 = 1 << 20;

const FOOTER: u64 = FOOTER_SIZE as u64;

/// The largest disk that can be uploaded to a managed disk: 35183298347520 bytes with its footer, commonly called 32
/// TiB.
const LARGEST_DISK: u64 = 32767 << 30;

/// The largest page blob, including the footer.
const LARGEST_BLOB: u64 = 8 << 40;

/// The advice if there are errors; until they are resolved, the size shouldn't be changed.
const AFTER_ERRORS: Advice = Advice(&[Phrase::Text(
    "deal with the errors above first, and check the result again",
)]);

impl Checker<'_> {
    /// Applies the rules for uploads to the disk with the footer `seen`.
    pub(super) fn azure(&mut self, seen: &FooterCandidate, facts: &Facts) {
        let footer = &seen.footer;
        let size = footer.current_size;
        let file_len = facts.footers.file_len;
        let fixed = footer.disk_type == DiskType::Fixed;
        let mut add = |rule: &'static Rule, field, at, found: String, expected: String| {
            // Advice about converting depends on all findings and is added at the end.
            let advice = if facts.has_errors && rule.advice != rules::AZURE {
                AFTER_ERRORS
            } else {
                rule.advice
            };
            let at = seen.at.saturating_add(at);
            let advice = Advised::Kind(advice);
            self.findings
                .add_advising(rule, field, at, (found, expected), advice);
        };
        let current_size = "footer.current_size";
        let found = || format!("{size} bytes");
        if !fixed {
            let found = footer.disk_type.to_string();
            add(
                &rules::AZURE_TYPE,
                "footer.disk_type",
                60,
                found,
                "fixed".into(),
            );
        } else if file_len.checked_sub(FOOTER) != Some(size) && size <= facts.footers.data_end() {
            // A file that is too short for its disk is reported separately.
            let found = format!("{file_len} bytes");
            let at = file_len.saturating_sub(seen.at);
            add(
                &rules::AZURE_FILE_SIZE,
                "file_size",
                at,
                found,
                format!("{size} + 512 bytes"),
            );
        }
        if !size.is_multiple_of(MEBIBYTE) {
            let next = size.div_ceil(MEBIBYTE).saturating_mul(MEBIBYTE);
            let expected = format!("a multiple of 1048576; the next is {next}");
            add(&rules::AZURE_WHOLE_MIB, current_size, 48, found(), expected);
        }
        if size < 20 * MEBIBYTE {
            let expected = "at least 20971520 bytes".into();
            add(&rules::AZURE_TOO_SMALL, current_size, 48, found(), expected);
        }
        let with_footer = || format!("{size} + 512 bytes");
        if size > LARGEST_DISK {
            let expected = format!("at most {LARGEST_DISK} + 512 bytes");
            add(
                &rules::AZURE_TOO_LARGE,
                current_size,
                48,
                with_footer(),
                expected,
            );
        } else if size > LARGEST_BLOB - FOOTER {
            let expected = format!("at most {LARGEST_BLOB} bytes");
            add(
                &rules::AZURE_PAGE_BLOB,
                current_size,
                48,
                with_footer(),
                expected,
            );
        }
        let geometry = footer.disk_geometry;
        let creator = footer.creator_application;
        if creator.size_may_be_read_from_geometry() && geometry.size() != size {
            let found = format!("creator {creator} with geometry {geometry}");
            let expected = "a creator whose disks are measured by current_size".into();
            let field = "footer.creator_application";
            add(&rules::AZURE_CREATOR, field, 28, found, expected);
        }
    }

    /// Applies the limits of Windows, for which the format was made.
    pub(super) fn windows(&mut self, seen: &FooterCandidate) {
        let size = seen.footer.current_size;
        // An invalid size is reported separately.
        let senseless = self.findings.has_any(&[&rules::CURRENT_SIZE]);
        if size > MAX_DYNAMIC_SIZE && !senseless {
            let found = format_args!("{size} bytes");
            let expected = format_args!("at most {MAX_DYNAMIC_SIZE} bytes (2040 GiB)");
            let at = seen.at.saturating_add(48);
            let rule = &rules::SIZE_WINDOWS;
            self.findings
                .add(rule, "footer.current_size", at, found, expected);
        }
    }

    /// Looks for a VHD within the virtual disk, which an upload would treat as data.
    pub(super) fn inside(&mut self, seen: &FooterCandidate) {
        let opened =
            crate::vhd::VhdImage::open_over(self.storage, crate::vhd::ParentPolicy::LeftOut);
        let Some(inside) = opened.ok().and_then(|image| crate::vhd::vhd_inside(&image)) else {
            return;
        };
        let take_out = inside.take_out(self.storage.name(), seen.footer.current_size);
        let found = format!(
            "the footer of a {} VHD that ends at {} of the virtual disk",
            inside.footer.disk_type, inside.len
        );
        let mut rules = vec![&rules::VHD_INSIDE];
        if self.options.azure {
            rules.push(&rules::AZURE_VHD_INSIDE);
        }
        for rule in rules {
            let values = (found.as_str(), "what a guest keeps there");
            let advice = Advised::Own(take_out.clone());
            self.findings
                .add_advising(rule, "disk", seen.at, values, advice);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::error::Result;
    use crate::storage::ReadAt;
    use crate::vhd::{CheckOptions, DiskType, FOOTER_SIZE, Footer, Geometry, Version, check};

    /// A fixed VHD of zeros, of any size.
    struct Fixed(u64, [u8; FOOTER_SIZE]);

    impl Fixed {
        fn new(size: u64) -> Self {
            let mut footer = Footer::decode(&[0; FOOTER_SIZE]);
            footer.cookie = Footer::COOKIE;
            footer.features = 2;
            footer.file_format_version = Version::ONE;
            footer.data_offset = u64::MAX;
            footer.original_size = size;
            footer.current_size = size;
            footer.disk_geometry = Geometry::for_size(size);
            footer.disk_type = DiskType::Fixed;
            footer.unique_id.0 = [7; 16];
            footer.checksum = footer.compute_checksum();
            Self(size, footer.encode())
        }
    }

    impl ReadAt for Fixed {
        fn name(&self) -> &Path {
            Path::new("a.vhd")
        }

        fn byte_len(&self) -> Result<u64> {
            Ok(self.0 + super::FOOTER)
        }

        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            for (at, byte) in (offset..).zip(buf) {
                let in_footer = at.checked_sub(self.0);
                let footer = in_footer.and_then(|at| self.1.get(usize::try_from(at).unwrap()));
                *byte = footer.copied().unwrap_or(0);
            }
            Ok(())
        }
    }

    #[test]
    fn the_limits_are_those_of_the_file_with_its_footer() {
        let options = CheckOptions {
            azure: true,
            ..CheckOptions::default()
        };
        for (size, expected) in [
            (20 << 20, &[][..]),
            (2040 << 30, &[]),
            ((2040 << 30) + (1 << 20), &["size-windows"]),
            ((8 << 40) - (1 << 20), &["size-windows"]),
            (8 << 40, &["size-windows", "azure-page-blob-size"]),
            (32767 << 30, &["size-windows", "azure-page-blob-size"]),
            (
                (32767 << 30) + (1 << 20),
                &["size-windows", "azure-too-large"],
            ),
            (32 << 40, &["size-windows", "azure-too-large"]),
        ] {
            let report = check(&Fixed::new(size), &options).unwrap();
            let ids: Vec<&str> = report
                .findings
                .iter()
                .map(super::super::Finding::id)
                .collect();
            assert_eq!(ids, expected, "{size}");
        }
    }
}
