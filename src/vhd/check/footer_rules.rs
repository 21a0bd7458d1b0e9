//! The rules for footers as such, and for those that aren't in force.

use super::advice::Advice;
use super::advice::Phrase::{self, Choose, Do, Named, Text};
use super::candidate::FooterCandidate;
use super::checker::Checker;
use super::displaced::first_equal;
use super::footers::{Footers, Place, Why};
use super::proof;
use super::report::Facts;
use super::rules::{self, AS_DYNAMIC};
use crate::error::Result;
use crate::remedy::{Act, Choice, Conversion, ReadAs};
use crate::vhd::{DiskType, FOOTER_SIZE, Footer};

const FOOTER_LEN: u64 = FOOTER_SIZE as u64;

const READ_AS_DYNAMIC: Advice = Advice(&[AS_DYNAMIC, BY_HEADER]);
const READ_AS_DIFFERENCING: Advice = Advice(&[
    Do(
        Act::Convert(Conversion::reading(ReadAs::Differencing)),
        "converting it as a differencing VHD",
    ),
    BY_HEADER,
    Text(", over its parent"),
]);
const READ_AS_EITHER: Advice = Advice(&[
    AS_DYNAMIC,
    BY_HEADER,
    Text("; if it had a parent, "),
    Named("give "),
    Choose(Choice::AsDifferencing, "convert it as a differencing one"),
    Text(" instead"),
]);
const READ_AS_FIXED: Advice = Advice(&[
    Do(
        Act::Convert(Conversion::reading(ReadAs::Fixed)),
        "converting it as a fixed VHD",
    ),
    Text(" reads it as what comes before the footer, which is enough for a fixed disk"),
]);
const READ_AS_RAW: Advice = Advice(&[
    Text("copy the file again from its source; "),
    Do(
        Act::Convert(Conversion::reading(ReadAs::Raw)),
        "converting it as a raw disk",
    ),
    Text(" takes its bytes as they are, the footer among them"),
]);

const BY_HEADER: Phrase = Text(" reads it by the dynamic disk header that is in the file");

impl Checker<'_> {
    /// Checks the footers as such.
    pub(super) fn footers(&mut self, footers: &Footers) {
        match footers.in_force {
            None => self.no_footer(footers),
            Some(Place::Copy) => {}
            Some(Place::Trailing | Place::Displaced) => {
                if let Some(believed) = footers.believed_as_taken() {
                    self.copy(footers, &believed.footer);
                }
            }
        }
        let by_length = footers.taken.filter(|taken| taken.why == Why::ByLength);
        if let Some((taken, seen)) = by_length.zip(footers.believed()) {
            let found = format_args!(
                "{}, with {} bytes before the footer",
                seen.footer.disk_type, seen.at
            );
            let at = seen.at.saturating_add(60);
            self.findings.add(
                &rules::TYPE_LABEL,
                "footer.disk_type",
                at,
                found,
                taken.disk_type,
            );
        }
    }

    fn no_footer(&mut self, footers: &Footers) {
        let empty = FooterCandidate::new(&[0; FOOTER_SIZE], footers.file_len, false);
        let trailing = footers.trailing.as_ref().unwrap_or(&empty);
        if trailing.is_poisoned() {
            let found = "\"v_poison\"";
            self.findings.add(
                &rules::FOOTER_POISONED,
                "footer.cookie",
                trailing.at,
                found,
                "\"conectix\"",
            );
        } else {
            self.damaged(&rules::FOOTER_LOST, "footer", trailing);
        }
        let sparse = footers.copy_is_meant() || footers.header_follows;
        if let Some(copy) = footers.copy.as_ref().filter(|copy| sparse && !copy.intact) {
            self.damaged(&rules::FOOTER_LOST, "footer_copy", copy);
        }
    }

    /// Reports the cookie or the checksum of a damaged footer.
    fn damaged(&mut self, rule: &'static rules::Rule, name: &str, seen: &FooterCandidate) {
        let Footer {
            cookie, checksum, ..
        } = seen.footer;
        if cookie != Footer::COOKIE {
            let found = format_args!("\"{}\"", cookie.escape_ascii());
            let field = format_args!("{name}.cookie");
            self.findings
                .add(rule, field, seen.at, found, "\"conectix\"");
        }
        let right = seen.footer.compute_checksum();
        if cookie == Footer::COOKIE || (seen.is_meant() && checksum != right) {
            let with_cookie = Footer {
                cookie: Footer::COOKIE,
                ..seen.footer.clone()
            };
            let right = with_cookie.compute_checksum();
            if checksum != right {
                self.findings.add(
                    rule,
                    format_args!("{name}.checksum"),
                    seen.at.saturating_add(64),
                    format_args!("{checksum:#010x}"),
                    format_args!("{right:#010x}"),
                );
            }
        }
    }

    /// Compares the first sector with the footer in force.
    fn copy(&mut self, footers: &Footers, footer: &Footer) {
        let Some(copy) = &footers.copy else { return };
        if footer.disk_type == DiskType::Fixed {
            self.first_sector_of_fixed(footers, footer, copy);
        } else if !footer.disk_type.is_sparse() {
            // It is unknown what such a disk has there.
        } else if !copy.intact {
            self.damaged(&rules::FOOTER_COPY_DAMAGED, "footer_copy", copy);
        } else {
            let (ours, theirs) = (footer.fields(), copy.footer.fields());
            for (ours, theirs) in ours.iter().zip(&theirs) {
                if ours == theirs || ours.name == "checksum" {
                    continue;
                }
                let rule = if ours.name == "disk_type" && !footers.proven && !footers.is_told() {
                    &rules::FOOTER_TYPES_DIFFER
                } else {
                    &rules::FOOTER_COPY_DIFFERS
                };
                let field = format_args!("footer_copy.{}", theirs.name);
                let at = theirs.offset as u64;
                self.findings
                    .add(rule, field, at, &theirs.value, &ours.value);
            }
        }
    }

    fn first_sector_of_fixed(
        &mut self,
        footers: &Footers,
        footer: &Footer,
        copy: &FooterCandidate,
    ) {
        if !copy.intact {
            return;
        }
        let inner = &copy.footer;
        let sparse = inner.disk_type.is_sparse() || footers.header_follows;
        if inner.unique_id == footer.unique_id && sparse && !footers.is_told() {
            let at = footers.believed().map_or(0, |seen| seen.at);
            let expected = "a sparse type, as the copy at offset 0 or the header after it has it";
            self.findings.add(
                &rules::FIXED_LABEL,
                "footer.disk_type",
                at.saturating_add(60),
                footer.disk_type,
                expected,
            );
            return;
        }
        let found = format_args!("the footer of a {} disk", inner.disk_type);
        self.findings.add(
            &rules::NESTED_FOOTER,
            "footer_copy.cookie",
            0,
            found,
            "what the guest keeps there",
        );
    }

    /// Returns whether the type of the disk is uncertain, and reports the option that resolves it.
    pub(super) fn doubts_type(&mut self, footers: &Footers) -> Result<bool> {
        let rules = [
            &rules::DISK_TYPE,
            &rules::FIXED_LABEL,
            &rules::FOOTER_TYPES_DIFFER,
        ];
        let Some(seen) = footers.believed().filter(|_| self.findings.has_any(&rules)) else {
            return Ok(false);
        };
        let advice = match footers.header(self.storage, &seen.footer)? {
            Some((header, _)) => match proof::type_of(&header) {
                Some(DiskType::Dynamic) => READ_AS_DYNAMIC,
                Some(_) => READ_AS_DIFFERENCING,
                None => READ_AS_EITHER,
            },
            None if (1..=footers.data_end()).contains(&seen.footer.current_size)
                && !proof::has_header_cookie(self.storage, seen)? =>
            {
                READ_AS_FIXED
            }
            None => READ_AS_RAW,
        };
        self.findings.advise_those_of(&rules, advice);
        Ok(true)
    }

    /// Reports the wrong fields of an intact trailing footer.
    fn overruled(&mut self, footers: &Footers) {
        let Some((trailing, copy)) = footers.trailing.as_ref().zip(footers.copy.as_ref()) else {
            return;
        };
        let (found, right) = (trailing.footer.fields(), copy.footer.fields());
        for (found, right) in found.iter().zip(&right) {
            if found == right || found.name == "checksum" {
                continue;
            }
            let field = format_args!("footer.{}", found.name);
            let at = trailing.at.saturating_add(found.offset as u64);
            let rule = &rules::FOOTER_OVERRULED;
            self.findings
                .add(rule, field, at, &found.value, &right.value);
        }
    }

    /// Reports data after a footer that should be the last.
    pub(super) fn behind_footer(&mut self, footers: &Footers) {
        let Some(displaced) = &footers.displaced else {
            return;
        };
        let end = displaced.at + FOOTER_LEN;
        let rule = if footers.garbage {
            &rules::TRAILING_GARBAGE
        } else {
            &rules::TRAILING_ZEROS
        };
        let found = format_args!("{} bytes", footers.file_len);
        let expected = format_args!("{end} bytes, where the footer ends");
        self.findings.add(rule, "file_size", end, found, expected);
    }

    /// Checks the trailing footer of a sparse disk, once the end of its blocks is known.
    pub(super) fn trailing(&mut self, facts: &mut Facts) -> Result<()> {
        let used_end = facts.used_end;
        let footers = &mut facts.footers;
        match footers.in_force {
            None | Some(Place::Trailing) => return Ok(()),
            Some(Place::Displaced) => {
                self.behind_footer(footers);
                return Ok(());
            }
            Some(Place::Copy) => {}
        }
        if footers.overruled {
            self.overruled(footers);
            return Ok(());
        }
        if let Some(trailing) = footers.trailing.as_ref().filter(|seen| seen.is_meant()) {
            self.damaged(&rules::FOOTER_DAMAGED, "footer", trailing);
            return Ok(());
        }
        let len = footers.file_len;
        if let Some((start, copy)) = used_end.filter(|end| *end < len).zip(footers.copy.as_ref()) {
            footers.displaced = first_equal(self.storage, start..len, &copy.footer)?;
            footers.look_behind(self.storage)?;
        }
        if footers.displaced.is_some() {
            self.behind_footer(footers);
        } else if used_end.is_some_and(|end| len >= end.saturating_add(FOOTER_LEN)) {
            if let Some(trailing) = &footers.trailing {
                self.damaged(&rules::FOOTER_DAMAGED, "footer", trailing);
            }
        } else {
            let expected = match used_end {
                Some(end) => format!("{} bytes", end.saturating_add(FOOTER_LEN)),
                None => "a footer at the end".into(),
            };
            self.findings.add(
                &rules::FOOTER_CUT_OFF,
                "file_size",
                len,
                format_args!("{len} bytes"),
                expected,
            );
        }
        Ok(())
    }
}
