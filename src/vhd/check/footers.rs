//! Where the footers are, which of them is in force, and what became of the others.

use super::bat::first_nonzero;
use super::displaced::{find_last, first_equal};
use super::rules;
use super::{Checker, Facts};
use crate::error::Result;
use crate::storage::ReadAt;
use crate::vhd::{DiskType, DynamicHeader, FOOTER_SIZE, Footer, HEADER_SIZE, SECTOR_SIZE, Version};

const FOOTER_LEN: u64 = FOOTER_SIZE as u64;

/// What stands where a footer belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::vhd) struct Seen {
    pub(in crate::vhd) footer: Footer,
    pub(in crate::vhd) at: u64,
    /// Whether cookie and checksum are right.
    pub(in crate::vhd) intact: bool,
    /// Whether its last byte is missing, as before Virtual PC 2004.
    pub(in crate::vhd) is_short: bool,
}

impl Seen {
    pub(super) fn new(bytes: &[u8; FOOTER_SIZE], at: u64, is_short: bool) -> Self {
        let footer = Footer::decode(bytes);
        Self {
            intact: footer.verify_intact(at).is_ok(),
            footer,
            at,
            is_short,
        }
    }

    fn has_cookie(&self) -> bool {
        [Footer::COOKIE, Footer::POISON].contains(&self.footer.cookie)
    }

    /// Whether it was meant as a footer: by its cookie, or by fields that nothing else has.
    pub(in crate::vhd) fn is_meant(&self) -> bool {
        let known = !matches!(self.footer.disk_type, DiskType::Other(_));
        let shaped = self.footer.file_format_version == Version::ONE
            && self.footer.features & !3 == 0
            && self.footer.current_size > 0;
        self.has_cookie() || (known && shaped)
    }

    fn is_poisoned(&self) -> bool {
        self.footer.cookie == Footer::POISON
    }
}

/// Which footer is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vhd) enum Place {
    /// The one at the end of the file.
    Trailing,
    /// A trailing one, behind which something else stands.
    Displaced,
    /// The copy at the start.
    Copy,
}

/// All footers of a file.
#[derive(Debug)]
pub(in crate::vhd) struct Footers {
    pub(in crate::vhd) file_len: u64,
    pub(in crate::vhd) trailing: Option<Seen>,
    pub(in crate::vhd) copy: Option<Seen>,
    pub(in crate::vhd) displaced: Option<Seen>,
    /// Whether there is anything behind the displaced footer but zeros.
    garbage: bool,
    /// The footer that is intact and decides; `None` if there is none.
    pub(in crate::vhd) in_force: Option<Place>,
    /// Whether there is a footer, damaged or not, or a dynamic disk header in its usual place.
    pub(in crate::vhd) is_vhd: bool,
    /// Whether a dynamic disk header stands behind the copy.
    header_follows: bool,
}

impl Footers {
    pub(in crate::vhd) fn read(storage: &dyn ReadAt) -> Result<Self> {
        let file_len = storage.byte_len()?;
        let copy = read_copy(storage, file_len)?;
        let mut footers = Self {
            file_len,
            trailing: read_trailing(storage, file_len)?,
            header_follows: copy.is_some() && has_header(storage)?,
            copy,
            displaced: None,
            garbage: false,
            in_force: None,
            is_vhd: false,
        };
        footers.in_force = footers.choose();
        // A damaged trailing footer is where it belongs: nothing before it is one.
        if footers.in_force.is_none() && !footers.trailing.as_ref().is_some_and(Seen::is_meant) {
            footers.displaced = find_last(storage, file_len)?;
            footers.in_force = footers.displaced.as_ref().map(|_| Place::Displaced);
            footers.look_behind(storage)?;
        }
        footers.is_vhd = footers.in_force.is_some()
            || footers.trailing.as_ref().is_some_and(Seen::is_meant)
            || footers.copy_is_meant()
            || footers.header_follows;
        Ok(footers)
    }

    fn choose(&self) -> Option<Place> {
        let trailing = self.trailing.as_ref();
        if trailing.is_some_and(|seen| seen.intact) {
            return Some(Place::Trailing);
        }
        let copy = self.copy.as_ref()?;
        // The first sector of a fixed disk is the guest's: what it says of another disk is no copy of this footer.
        let foreign = trailing.is_some_and(|trailing| {
            let fixed = trailing.footer.disk_type == DiskType::Fixed;
            trailing.is_poisoned()
                || trailing.has_cookie()
                    && fixed
                    && trailing.footer.unique_id != copy.footer.unique_id
        });
        (copy.intact && copy.footer.disk_type.is_sparse() && !foreign).then_some(Place::Copy)
    }

    /// Whether the first sector was meant as a copy of the footer.
    fn copy_is_meant(&self) -> bool {
        self.copy
            .as_ref()
            .is_some_and(|copy| copy.is_meant() && copy.footer.disk_type.is_sparse())
    }

    fn look_behind(&mut self, storage: &dyn ReadAt) -> Result<()> {
        if let Some(displaced) = &self.displaced {
            let behind = displaced.at + FOOTER_LEN..self.file_len;
            self.garbage = first_nonzero(storage, behind)?.is_some();
        }
        Ok(())
    }

    /// The footer to go by: the one in force, else the least damaged.
    pub(in crate::vhd) fn believed(&self) -> Option<&Seen> {
        match self.in_force {
            Some(Place::Trailing) => self.trailing.as_ref(),
            Some(Place::Displaced) => self.displaced.as_ref(),
            Some(Place::Copy) => self.copy.as_ref(),
            None => {
                let trailing = self.trailing.as_ref().filter(|seen| seen.is_meant());
                trailing.or(self.copy.as_ref().filter(|_| self.copy_is_meant()))
            }
        }
    }

    /// What fields of `seen` are called.
    pub(super) fn name_of(&self, seen: &Seen) -> &'static str {
        let is_copy = self.copy.as_ref() == Some(seen) && self.trailing.as_ref() != Some(seen);
        if is_copy { "footer_copy" } else { "footer" }
    }

    /// Where blocks and data must end.
    pub(in crate::vhd) fn data_end(&self) -> u64 {
        if let Some(displaced) = &self.displaced {
            return displaced.at;
        }
        let trailing = self.trailing.as_ref();
        let in_place = trailing.filter(|seen| seen.intact || seen.is_meant());
        in_place.map_or(self.file_len, |seen| seen.at)
    }
}

fn read_trailing(storage: &dyn ReadAt, len: u64) -> Result<Option<Seen>> {
    let mut bytes = [0; FOOTER_SIZE];
    if len % SECTOR_SIZE == SECTOR_SIZE - 1 {
        let at = len - (FOOTER_LEN - 1);
        storage.read_exact_at(&mut bytes[..FOOTER_SIZE - 1], at)?;
        let seen = Seen::new(&bytes, at, true);
        if seen.has_cookie() {
            return Ok(Some(seen));
        }
    }
    let Some(at) = len.checked_sub(FOOTER_LEN) else {
        return Ok(None);
    };
    storage.read_exact_at(&mut bytes, at)?;
    Ok(Some(Seen::new(&bytes, at, false)))
}

fn read_copy(storage: &dyn ReadAt, len: u64) -> Result<Option<Seen>> {
    if len < FOOTER_LEN + HEADER_SIZE as u64 {
        return Ok(None);
    }
    let mut bytes = [0; FOOTER_SIZE];
    storage.read_exact_at(&mut bytes, 0)?;
    Ok(Some(Seen::new(&bytes, 0, false)))
}

fn has_header(storage: &dyn ReadAt) -> Result<bool> {
    let mut cookie = [0; 8];
    storage.read_exact_at(&mut cookie, FOOTER_LEN)?;
    Ok(cookie == DynamicHeader::COOKIE)
}

impl Checker<'_> {
    /// What is wrong with the footers as such.
    pub(super) fn footers(&mut self, footers: &Footers) {
        match footers.in_force {
            None => self.no_footer(footers),
            Some(Place::Copy) => {}
            Some(Place::Trailing | Place::Displaced) => {
                if let Some(believed) = footers.believed() {
                    self.copy(footers, &believed.footer.clone());
                }
            }
        }
    }

    fn no_footer(&mut self, footers: &Footers) {
        let empty = Seen::new(&[0; FOOTER_SIZE], footers.file_len, false);
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

    /// Reports the cookie or the checksum of a footer that isn't intact.
    fn damaged(&mut self, rule: &'static rules::Rule, name: &str, seen: &Seen) {
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
            // Nothing is known of what such a disk has there.
        } else if !copy.intact {
            self.damaged(&rules::FOOTER_COPY_DAMAGED, "footer_copy", copy);
        } else {
            let (ours, theirs) = (footer.fields(), copy.footer.fields());
            for (ours, theirs) in ours.iter().zip(&theirs) {
                if ours == theirs || ours.name == "checksum" {
                    continue;
                }
                let rule = if ours.name == "disk_type" {
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

    fn first_sector_of_fixed(&mut self, footers: &Footers, footer: &Footer, copy: &Seen) {
        if !copy.intact {
            return;
        }
        let inner = &copy.footer;
        let sparse = inner.disk_type.is_sparse() || footers.header_follows;
        if inner.unique_id == footer.unique_id && sparse {
            let at = footers.believed().map_or(0, |seen| seen.at);
            let expected =
                "a sparse type, as the copy at offset 0 and the header behind it have it";
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

    /// What stands behind a footer that should be the last.
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

    /// What became of the trailing footer of a sparse disk, once it is known where its blocks end.
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
