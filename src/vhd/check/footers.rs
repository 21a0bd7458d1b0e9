//! Where the footers are, and which of them is in force.

use super::candidate::FooterCandidate;
use super::displaced::find_last;
use super::proof;
use super::scan::first_nonzero;
use crate::error::Result;
use crate::storage::ReadAt;
use crate::vhd::{DiskType, DynamicHeader, FOOTER_SIZE, Footer, HEADER_SIZE, SECTOR_SIZE};

const FOOTER_LEN: u64 = FOOTER_SIZE as u64;

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
    pub(in crate::vhd) trailing: Option<FooterCandidate>,
    pub(in crate::vhd) copy: Option<FooterCandidate>,
    pub(in crate::vhd) displaced: Option<FooterCandidate>,
    /// Whether there is anything behind the displaced footer but zeros.
    pub(super) garbage: bool,
    /// The footer that is intact and decides; `None` if there is none.
    pub(in crate::vhd) in_force: Option<Place>,
    /// Whether there is a footer, damaged or not, or a dynamic disk header in its usual place.
    pub(in crate::vhd) is_vhd: bool,
    /// Whether a dynamic disk header stands behind the copy.
    pub(super) header_follows: bool,
    /// Whether the trailing footer is intact, but the copy is believed: header and BAT fit only that.
    pub(super) overruled: bool,
    /// Whether header and BAT fit the trailing footer, where that and the copy differ in the type.
    pub(super) proven: bool,
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

    /// Whether two whole footers contradict each other. A torn one, as a crash leaves it, says nothing.
    fn types_differ(&self) -> bool {
        let copy = self.copy.as_ref().filter(|copy| copy.intact);
        let trailing = self.trailing.as_ref().filter(|trailing| trailing.intact);
        let types = trailing.zip(copy);
        types.is_some_and(|(trailing, copy)| trailing.footer.disk_type != copy.footer.disk_type)
    }

    /// The footer to go by, with the type that the disk is read as.
    pub(in crate::vhd) fn believed_as_taken(&self) -> Option<FooterCandidate> {
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

    /// The footer to go by: the one in force, else the least damaged.
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

    /// What fields of `seen` are called.
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
