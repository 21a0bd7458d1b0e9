//! Checks the fields of a footer.

use super::candidate::FooterCandidate;
use super::checker::Checker;
use super::rules;
use crate::vhd::{
    DiskType, FOOTER_SIZE, Footer, Geometry, MAX_DYNAMIC_SIZE, SECTOR_SIZE, Timestamp, Version,
};

/// The bits of `features` defined by the specification.
const KNOWN_FEATURES: u32 = 3;

/// How many seconds in the future a time stamp may be: Virtual PC for the Macintosh wrote local time.
const TOLERANCE: u32 = 26 * 3600;

impl Checker<'_> {
    /// Checks every field of the footer in force, which findings call `name`.
    pub(super) fn footer_fields(&mut self, seen: &FooterCandidate, name: &str) {
        let FooterCandidate { footer, at, .. } = seen;
        let at = |offset: u64| at.saturating_add(offset);
        let field = |field: &str| format!("{name}.{field}");
        let add = &mut self.findings;
        if footer.features & 2 == 0 || footer.features & !KNOWN_FEATURES != 0 {
            let found = format_args!("{:#010x}", footer.features);
            let expected = "bit 1 set, perhaps bit 0, and no other";
            add.add(&rules::FEATURES, field("features"), at(8), found, expected);
        }
        let version = footer.file_format_version;
        if version.major() != 1 {
            let (rule, expected) = (&rules::FORMAT_VERSION, Version::ONE);
            add.add(
                rule,
                field("file_format_version"),
                at(12),
                version,
                expected,
            );
        }
        // The specification prints only four of the eight bytes.
        let unused = [Footer::NO_OFFSET, 0xFFFF_FFFF].contains(&footer.data_offset);
        if footer.disk_type == DiskType::Fixed && !unused {
            let found = format_args!("{:#x}", footer.data_offset);
            let rule = &rules::DATA_OFFSET_FIXED;
            add.add(rule, field("data_offset"), at(16), found, "all ones");
        }
        let now = self.options.now;
        let is_past = |stamp: Timestamp| stamp.0 <= now.0.saturating_add(TOLERANCE);
        let stamp = footer.timestamp;
        if !is_past(stamp) {
            let (expected, since_1970) = (format_args!("at most {now}"), stamp.since_1970());
            if is_past(since_1970) {
                let found = format_args!("{stamp}, which is {since_1970} when counted from 1970");
                let rule = &rules::TIMESTAMP_UNIX;
                add.add(rule, field("timestamp"), at(24), found, expected);
            } else {
                let rule = &rules::TIMESTAMP;
                add.add(rule, field("timestamp"), at(24), stamp, expected);
            }
        }
        if let DiskType::Other(_) = footer.disk_type {
            let expected = "2 (fixed), 3 (dynamic) or 4 (differencing)";
            let (rule, found) = (&rules::DISK_TYPE, footer.disk_type);
            add.add(rule, field("disk_type"), at(60), found, expected);
        }
        if footer.unique_id.is_nil() {
            let found = footer.unique_id;
            let rule = &rules::UNIQUE_ID_NIL;
            add.add(rule, field("unique_id"), at(68), found, "a unique id");
        }
        if footer.saved_state != 0 {
            let (rule, found) = (&rules::SAVED_STATE, footer.saved_state);
            add.add(rule, field("saved_state"), at(84), found, 0);
        }
        let hidden = usize::from(footer.is_hidden());
        if let Some(n) = footer.reserved.iter().skip(hidden).position(|b| *b != 0) {
            let n = n + hidden;
            let byte = footer.reserved.get(n).copied().unwrap_or(0);
            let found = format_args!("{byte:#04x} at byte {}", 85 + n);
            let rule = &rules::FOOTER_RESERVED;
            let offset = at(85).saturating_add(n as u64);
            add.add(rule, field("reserved"), offset, found, "zeros");
        }
        self.size_fields(footer, at(0), name);
    }

    fn size_fields(&mut self, footer: &Footer, at: u64, name: &str) {
        let size = footer.current_size;
        let too_large = footer.disk_type.is_sparse() && size > MAX_DYNAMIC_SIZE
            || size.checked_add(FOOTER_SIZE as u64).is_none();
        if size == 0 || !size.is_multiple_of(SECTOR_SIZE) || too_large {
            self.findings.add(
                &rules::CURRENT_SIZE,
                format_args!("{name}.current_size"),
                at.saturating_add(48),
                format_args!("{size} bytes"),
                "a multiple of 512, not 0, and at most 2190433320960 (2040 GiB) unless the disk is fixed",
            );
        }
        let geometry = footer.disk_geometry;
        let field = format_args!("{name}.disk_geometry");
        let at = at.saturating_add(56);
        let by_geometry = footer.creator_application.size_may_be_read_from_geometry();
        if geometry == Geometry::default() {
            let rule = &rules::GEOMETRY_ZERO;
            self.findings
                .add(rule, field, at, geometry, Geometry::for_size(size));
        } else if by_geometry && geometry.size() != size && geometry != Geometry::for_size(u64::MAX)
        {
            self.findings.add(
                &rules::GEOMETRY_SIZE,
                field,
                at,
                format_args!("{geometry}, {} bytes", geometry.size()),
                format_args!("{size} bytes, as current_size has it"),
            );
        }
    }
}
