//! Checks a differencing disk's references to its parent: identity, name, locators.

use std::ops::Range;

use super::bat::Reserved;
use super::checker::{Checker, Depth};
use super::rules;
use super::table::Table;
use crate::error::Result;
use crate::page::to_usize;
use crate::vhd::header::locator_at;
use crate::vhd::{Footer, ParentLocator, PlatformCode};

/// Longer paths don't exist.
const MAX_PATH: u64 = 64 << 10;

impl Checker<'_> {
    /// Checks everything that refers to the parent. Returns the ranges of the locators.
    pub(super) fn parent(&mut self, footer: &Footer, table: &Table) -> Result<Vec<Reserved>> {
        let (header, at) = (&table.header, table.header_at);
        if header.parent_unique_id.is_nil() {
            let found = header.parent_unique_id;
            let field = "header.parent_unique_id";
            let rule = &rules::PARENT_RAW;
            self.findings
                .add(rule, field, at + 40, found, "the parent's unique id");
        }
        let mut names = Vec::new();
        if !header.parent_name().is_empty() {
            names.push(header.parent_name());
        }
        let mut reserved = Vec::new();
        for (n, locator) in header.parent_locators.iter().enumerate() {
            if !locator.is_used() {
                continue;
            }
            let earlier = header.parent_locators.iter().take(n);
            if earlier
                .clone()
                .any(|e| e.platform_code == locator.platform_code)
            {
                let found = locator.platform_code;
                self.locator_fault(
                    table,
                    n,
                    (0, "platform_code"),
                    &rules::LOCATOR_DUPLICATE,
                    &found,
                    &"one of each kind",
                );
            }
            let place = self.locator(table, n, locator);
            if let Some(place) = place {
                if let Some(path) = self.locator_path(locator, &place)? {
                    self.path_fault(table, n, locator, &path);
                    names.push(path);
                }
                reserved.push(Reserved {
                    range: place.start..place.start.saturating_add(locator.space_bytes()),
                    field: format!("header.parent_locator[{n}].data_offset"),
                    at: at + locator_at(n) + 16,
                });
            }
        }
        // When an image is opened, its parent is opened and checked anyway.
        if self.depth == Depth::Whole && !self.chain(footer, header, at)? {
            self.named(table, &names);
        }
        Ok(reserved)
    }

    /// Checks that something refers to the parent, and that it doesn't refer back to this file.
    fn named(&mut self, table: &Table, names: &[String]) {
        let at = table.header_at + 64;
        if names.is_empty() {
            let expected = "a name or a parent locator";
            let rule = &rules::PARENT_UNNAMED;
            self.findings.add(rule, "chain", at, "nothing", expected);
            return;
        }
        let own = self
            .storage
            .name()
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let is_own = |name: &String| {
            let base = name.rsplit(['\\', '/']).next().unwrap_or_default();
            own.as_deref() == Some(base)
        };
        // With a lookup, the files themselves are compared; another folder may contain a different file of the same
        // name.
        if self.options.chain.is_none() && names.iter().all(is_own) {
            let found = format_args!("\"{}\"", own.unwrap_or_default());
            let rule = &rules::PARENT_SELF;
            self.findings.add(rule, "chain", at, found, "another file");
        }
    }

    /// Checks one entry. Returns the range of its data if it can be read.
    fn locator(&mut self, table: &Table, n: usize, locator: &ParentLocator) -> Option<Range<u64>> {
        let code = locator.platform_code;
        if code.name().is_none() {
            let expected = "a code of the specification";
            self.locator_fault(
                table,
                n,
                (0, "platform_code"),
                &rules::LOCATOR_CODE,
                &code,
                &expected,
            );
        }
        if locator.reserved != 0 {
            let found = format!("{:#010x}", locator.reserved);
            self.locator_fault(
                table,
                n,
                (12, "reserved"),
                &rules::LOCATOR_RESERVED,
                &found,
                &"0",
            );
        }
        let (len, space) = (u64::from(locator.data_length), locator.space_bytes());
        let is_wide = [PlatformCode::W2RU, PlatformCode::W2KU].contains(&code);
        if len == 0 || len > space.min(MAX_PATH) || (is_wide && !len.is_multiple_of(2)) {
            let expected = format!("an even number from 2 to {}", space.min(MAX_PATH));
            self.locator_fault(
                table,
                n,
                (8, "data_length"),
                &rules::LOCATOR_LENGTH,
                &len,
                &expected,
            );
            return None;
        }
        let start = locator.data_offset;
        let end = start.checked_add(len).filter(|end| *end <= table.data_end);
        let place = end.map(|end| start..end);
        let beside = place.as_ref().is_some_and(|place| {
            let structures = table.structures();
            structures
                .iter()
                .all(|(range, _)| range.end <= place.start || place.end <= range.start)
        });
        if !beside {
            let found = format!("{len} bytes at {start:#x}");
            let expected = format!("a place of its own before {:#x}", table.data_end);
            self.locator_fault(
                table,
                n,
                (16, "data_offset"),
                &rules::LOCATOR_PLACE,
                &found,
                &expected,
            );
            return None;
        }
        place
    }

    fn locator_fault(
        &mut self,
        table: &Table,
        n: usize,
        (offset, field): (u64, &str),
        rule: &'static rules::Rule,
        found: &dyn std::fmt::Display,
        expected: &dyn std::fmt::Display,
    ) {
        let at = table.header_at + locator_at(n) + offset;
        let field = format_args!("header.parent_locator[{n}].{field}");
        self.findings.add(rule, field, at, found, expected);
    }

    /// The path in the data at `place`, if there is one.
    fn locator_path(&self, locator: &ParentLocator, place: &Range<u64>) -> Result<Option<String>> {
        let mut bytes = vec![0; to_usize(place.end - place.start)];
        self.storage.read_exact_at(&mut bytes, place.start)?;
        let text = locator.text(&bytes);
        let path = text.as_deref().and_then(|text| text.split('\0').next());
        Ok(path.filter(|path| !path.is_empty()).map(str::to_owned))
    }

    fn path_fault(&mut self, table: &Table, n: usize, locator: &ParentLocator, path: &str) {
        let parts = || path.split(['\\', '/']);
        let absolute = path.starts_with(['\\', '/']) || path.contains(':');
        let up = parts().any(|part| part == "..");
        let remote = path.starts_with("\\\\") || path.starts_with("//");
        let wrong = match locator.platform_code {
            PlatformCode::W2RU => up || absolute,
            PlatformCode::W2KU => up || remote,
            _ => up,
        };
        if wrong {
            let expected = "a path that stays in the folder of the disk";
            self.locator_fault(
                table,
                n,
                (16, "data_offset"),
                &rules::LOCATOR_PATH,
                &format!("\"{path}\""),
                &expected,
            );
        }
    }
}
