//! Where the footers are, which of them is in force, and what became of the others.

use super::advice::Advice;
use super::bat::first_nonzero;
use super::displaced::{find_last, first_equal};
use super::proof;
use super::rules;
use super::{Checker, Facts};
use crate::error::Result;
use crate::storage::ReadAt;
use crate::vhd::{DiskType, DynamicHeader, FOOTER_SIZE, Footer, HEADER_SIZE, SECTOR_SIZE, Version};

const FOOTER_LEN: u64 = FOOTER_SIZE as u64;

const READ_AS_DYNAMIC: &str =
    "vhd convert -f dynamic {file} {new} reads it by the dynamic disk header that is in the file";
const READ_AS_DIFFERENCING: &str = "vhd convert -f differencing {file} {new} reads it by the dynamic disk header that is in the file, over its parent";
const READ_AS_EITHER: &str = "vhd convert -f dynamic {file} {new} reads it by the dynamic disk header that is in the file; \
     if it had a parent, give -f differencing instead";
const READ_AS_FIXED: &str = "vhd convert -f fixed {file} {new} reads it as what comes before the footer, which is enough for a fixed disk";
const READ_AS_RAW: &str = "copy the file again from its source; vhd convert -f raw {file} {raw} takes its bytes as they are, the footer among them";

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

/// Another type than the footer says, by which the disk is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vhd) struct Taken {
    pub(in crate::vhd) disk_type: DiskType,
    pub(in crate::vhd) why: Why,
    data_offset: u64,
}

/// Why a disk is read as another type than its footer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vhd) enum Why {
    /// The length of the file proves that it is fixed.
    ByLength,
    /// Whoever reads it said so, and it can be read so.
    AsTold,
}

/// All footers of a file.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each was seen for itself")]
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
    /// Whether the trailing footer is intact, but the copy is believed: header and BAT fit only that.
    overruled: bool,
    /// Whether header and BAT fit the trailing footer, where that and the copy differ in the type.
    proven: bool,
    /// The type to read the disk as, if it isn't that of the footer.
    pub(in crate::vhd) taken: Option<Taken>,
}

impl Footers {
    /// Looks for all footers; `told` is the type that whoever reads the file says it has.
    pub(in crate::vhd) fn read(storage: &dyn ReadAt, told: Option<DiskType>) -> Result<Self> {
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
            overruled: false,
            proven: false,
            taken: None,
        };
        footers.in_force = footers.choose();
        footers.compare(storage)?;
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
        footers.taken = footers.take(storage, told)?;
        Ok(footers)
    }

    /// Where two intact footers of one disk differ in what decides how it is read: which of them header and BAT fit.
    fn compare(&mut self, storage: &dyn ReadAt) -> Result<()> {
        let Some((trailing, copy)) = self.trailing.as_ref().zip(self.copy.as_ref()) else {
            return Ok(());
        };
        let deciding = |footer: &Footer| {
            (
                footer.disk_type,
                footer.current_size,
                footer.data_offset,
                footer.file_format_version,
            )
        };
        let (ours, theirs) = (&trailing.footer, &copy.footer);
        if !trailing.intact
            || !copy.intact
            || ours.unique_id != theirs.unique_id
            || deciding(ours) == deciding(theirs)
        {
            return Ok(());
        }
        self.proven = proof::fits(storage, ours, trailing.at)?;
        // A fixed disk's own first sectors may hold anything.
        let is_fixed = ours.disk_type == DiskType::Fixed && ours.current_size == trailing.at;
        if !self.proven && !is_fixed && proof::fits(storage, theirs, trailing.at)? {
            self.overruled = true;
            self.in_force = Some(Place::Copy);
        }
        Ok(())
    }

    /// As what else than its footer says the disk is to be read.
    fn take(&self, storage: &dyn ReadAt, told: Option<DiskType>) -> Result<Option<Taken>> {
        let seen = self
            .believed()
            .filter(|seen| seen.intact && self.in_force.is_some());
        let Some(seen) = seen else { return Ok(None) };
        let label = seen.footer.disk_type;
        let fixed = |why| Taken {
            disk_type: DiskType::Fixed,
            why,
            data_offset: Footer::NO_OFFSET,
        };
        let is_copied = self
            .copy
            .as_ref()
            .is_some_and(|copy| copy.intact && copy.footer.unique_id == seen.footer.unique_id);
        if label != DiskType::Fixed && !is_copied && proof::is_fixed_by_length(storage, seen)? {
            return Ok(Some(fixed(Why::ByLength)));
        }
        match told {
            Some(DiskType::Fixed) => {
                let readable = label != DiskType::Fixed
                    && (1..=self.data_end()).contains(&seen.footer.current_size)
                    && !proof::has_header_cookie(storage, seen)?;
                Ok(readable.then(|| fixed(Why::AsTold)))
            }
            // Of a sparse disk only what its two footers don't agree on is open.
            Some(disk_type)
                if disk_type.is_sparse() && (!label.is_sparse() || self.types_differ()) =>
            {
                let header = self.header(storage, &seen.footer)?;
                Ok(header.map(|(_, data_offset)| Taken {
                    disk_type,
                    why: Why::AsTold,
                    data_offset,
                }))
            }
            _ => Ok(None),
        }
    }

    /// The header that is where `footer` says, or in its usual place, and where that is; only if it proves itself.
    fn header(
        &self,
        storage: &dyn ReadAt,
        footer: &Footer,
    ) -> Result<Option<(DynamicHeader, u64)>> {
        for data_offset in [footer.data_offset, FOOTER_LEN] {
            let footer = Footer {
                data_offset,
                ..footer.clone()
            };
            if let Some(header) = proof::header_of(storage, &footer, self.data_end())? {
                return Ok(Some((header, data_offset)));
            }
        }
        Ok(None)
    }

    /// Whether two whole footers contradict each other. A torn one, as a crash leaves it, says nothing.
    fn types_differ(&self) -> bool {
        let copy = self.copy.as_ref().filter(|copy| copy.intact);
        let trailing = self.trailing.as_ref().filter(|trailing| trailing.intact);
        let types = trailing.zip(copy);
        types.is_some_and(|(trailing, copy)| trailing.footer.disk_type != copy.footer.disk_type)
    }

    /// The footer to go by, with the type that the disk is read as.
    pub(in crate::vhd) fn believed_as_taken(&self) -> Option<Seen> {
        let mut seen = self.believed()?.clone();
        if let Some(taken) = self.taken {
            seen.footer.disk_type = taken.disk_type;
            seen.footer.data_offset = taken.data_offset;
            seen.footer = seen.footer.sealed();
        }
        Some(seen)
    }

    /// Whether whoever reads the file said which type it has, against the footer.
    pub(in crate::vhd) fn is_told(&self) -> bool {
        self.taken.is_some_and(|taken| taken.why == Why::AsTold)
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

    fn first_sector_of_fixed(&mut self, footers: &Footers, footer: &Footer, copy: &Seen) {
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

    /// Whether it can't be told which type the disk has; says with which option it can be read.
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
        self.findings
            .advise_those_of(&rules, &Advice::Template(advice));
        Ok(true)
    }

    /// The fields in which an intact trailing footer is wrong.
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
