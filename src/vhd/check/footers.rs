//! Finds the footers, and determines which of them is in force.

use super::candidate::FooterCandidate;
use super::displaced::find_last;
use super::proof;
use super::scan::first_nonzero;
use crate::error::Result;
use crate::storage::ReadAt;
use crate::vhd::{DiskType, DynamicHeader, FOOTER_SIZE, Footer, HEADER_SIZE, SECTOR_SIZE};

const FOOTER_LEN: u64 = FOOTER_SIZE as u64;

/// The location of the footer in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vhd) enum Place {
    /// The one at the end of the file.
    Trailing,
    /// A trailing one with something else after it.
    Displaced,
    /// The copy at the start.
    Copy,
}

/// A type other than the footer's as which the disk is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vhd) struct Taken {
    pub(in crate::vhd) disk_type: DiskType,
    pub(in crate::vhd) why: Why,
    data_offset: u64,
}

/// Why a disk is read as another type than its footer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vhd) enum Why {
    /// The length of the file proves that it is fixed.
    ByLength,
    /// The user specified the type, and the disk can be read as that type.
    AsTold,
}

/// All footers of a file.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each was seen for itself")]
pub(in crate::vhd) struct Footers {
    pub(in crate::vhd) file_len: u64,
    pub(in crate::vhd) trailing: Option<FooterCandidate>,
    pub(in crate::vhd) copy: Option<FooterCandidate>,
    pub(in crate::vhd) displaced: Option<FooterCandidate>,
    /// Whether there is nonzero data after the displaced footer.
    pub(super) garbage: bool,
    /// The location of the intact footer in force; `None` if there is none.
    pub(in crate::vhd) in_force: Option<Place>,
    /// Whether there is a footer, damaged or not, or a dynamic disk header at its usual offset.
    pub(in crate::vhd) is_vhd: bool,
    /// Whether a dynamic disk header follows the copy.
    pub(super) header_follows: bool,
    /// Whether the copy is trusted although the trailing footer is intact: header and BAT fit only the copy.
    pub(super) overruled: bool,
    /// Whether header and BAT fit the trailing footer, if it and the copy differ in the type.
    pub(super) proven: bool,
    /// The type as which to read the disk, if it isn't the footer's.
    pub(in crate::vhd) taken: Option<Taken>,
}

impl Footers {
    /// Looks for all footers. `told` is the type that the user specified.
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
        // A damaged trailing footer is in its place: nothing before it is a footer.
        if footers.in_force.is_none()
            && !footers
                .trailing
                .as_ref()
                .is_some_and(FooterCandidate::is_meant)
        {
            footers.displaced = find_last(storage, file_len)?;
            footers.in_force = footers.displaced.as_ref().map(|_| Place::Displaced);
            footers.look_behind(storage)?;
        }
        footers.is_vhd = footers.in_force.is_some()
            || footers
                .trailing
                .as_ref()
                .is_some_and(FooterCandidate::is_meant)
            || footers.copy_is_meant()
            || footers.header_follows;
        footers.taken = footers.take(storage, told)?;
        Ok(footers)
    }

    /// If two intact footers of one disk differ in an essential field, determines which of them fits header and BAT.
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
        // The first sectors of a fixed disk may contain anything.
        let is_fixed = ours.disk_type == DiskType::Fixed && ours.current_size == trailing.at;
        if !self.proven && !is_fixed && proof::fits(storage, theirs, trailing.at)? {
            self.overruled = true;
            self.in_force = Some(Place::Copy);
        }
        Ok(())
    }

    /// Determines the type as which to read the disk, if it isn't the footer's.
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
            // For a sparse disk, only the fields in which its two footers differ are uncertain.
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

    /// The header at the offset in `footer` or at its usual offset, and that offset; only if it is valid.
    pub(super) fn header(
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

    /// Returns whether two complete footers contradict each other. A torn one, as left by a crash, proves nothing.
    fn types_differ(&self) -> bool {
        let copy = self.copy.as_ref().filter(|copy| copy.intact);
        let trailing = self.trailing.as_ref().filter(|trailing| trailing.intact);
        let types = trailing.zip(copy);
        types.is_some_and(|(trailing, copy)| trailing.footer.disk_type != copy.footer.disk_type)
    }

    /// The footer to use, with the type as which the disk is read.
    pub(in crate::vhd) fn believed_as_taken(&self) -> Option<FooterCandidate> {
        let mut seen = self.believed()?.clone();
        if let Some(taken) = self.taken {
            seen.footer.disk_type = taken.disk_type;
            seen.footer.data_offset = taken.data_offset;
            seen.footer = seen.footer.sealed();
        }
        Some(seen)
    }

    /// Returns whether the user specified a type that contradicts the footer.
    pub(in crate::vhd) fn is_told(&self) -> bool {
        self.taken.is_some_and(|taken| taken.why == Why::AsTold)
    }

    fn choose(&self) -> Option<Place> {
        let trailing = self.trailing.as_ref();
        if trailing.is_some_and(|seen| seen.intact) {
            return Some(Place::Trailing);
        }
        let copy = self.copy.as_ref()?;
        // The first sector of a fixed disk belongs to the guest: a footer of another disk there isn't a copy of this
        // one.
        let foreign = trailing.is_some_and(|trailing| {
            let fixed = trailing.footer.disk_type == DiskType::Fixed;
            trailing.is_poisoned()
                || trailing.has_cookie()
                    && fixed
                    && trailing.footer.unique_id != copy.footer.unique_id
        });
        (copy.intact && copy.footer.disk_type.is_sparse() && !foreign).then_some(Place::Copy)
    }

    /// Returns whether the first sector was meant as a copy of the footer.
    pub(super) fn copy_is_meant(&self) -> bool {
        self.copy
            .as_ref()
            .is_some_and(|copy| copy.is_meant() && copy.footer.disk_type.is_sparse())
    }

    pub(super) fn look_behind(&mut self, storage: &dyn ReadAt) -> Result<()> {
        if let Some(displaced) = &self.displaced {
            let behind = displaced.at + FOOTER_LEN..self.file_len;
            self.garbage = first_nonzero(storage, behind)?.is_some();
        }
        Ok(())
    }

    /// The footer to use: the one in force, otherwise the least damaged one.
    pub(in crate::vhd) fn believed(&self) -> Option<&FooterCandidate> {
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

    /// The name that findings use for `seen`.
    pub(super) fn name_of(&self, seen: &FooterCandidate) -> &'static str {
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

fn read_trailing(storage: &dyn ReadAt, len: u64) -> Result<Option<FooterCandidate>> {
    let mut bytes = [0; FOOTER_SIZE];
    if len % SECTOR_SIZE == SECTOR_SIZE - 1 {
        let at = len - (FOOTER_LEN - 1);
        storage.read_exact_at(&mut bytes[..FOOTER_SIZE - 1], at)?;
        let seen = FooterCandidate::new(&bytes, at, true);
        if seen.has_cookie() {
            return Ok(Some(seen));
        }
    }
    let Some(at) = len.checked_sub(FOOTER_LEN) else {
        return Ok(None);
    };
    storage.read_exact_at(&mut bytes, at)?;
    Ok(Some(FooterCandidate::new(&bytes, at, false)))
}

fn read_copy(storage: &dyn ReadAt, len: u64) -> Result<Option<FooterCandidate>> {
    if len < FOOTER_LEN + HEADER_SIZE as u64 {
        return Ok(None);
    }
    let mut bytes = [0; FOOTER_SIZE];
    storage.read_exact_at(&mut bytes, 0)?;
    Ok(Some(FooterCandidate::new(&bytes, 0, false)))
}

fn has_header(storage: &dyn ReadAt) -> Result<bool> {
    let mut cookie = [0; 8];
    storage.read_exact_at(&mut cookie, FOOTER_LEN)?;
    Ok(cookie == DynamicHeader::COOKIE)
}
