//! Changes the parent of a differencing disk, in place and crash-safe.
//!
//! A header has two sectors, and both change: a crash while writing leaves neither the old one nor the new one. So the
//! header in force is never overwritten. A copy with the new parent is written to the end of the file, the footers are
//! pointed at it while the header itself is written, and then they are pointed back:
//!
//! ```text
//!   locators and header behind the last block ─► footer, its copy: there ─► header in its place
//!                                             ─► footer, its copy: back ─► what isn't needed any more is cut off
//! ```
//!
//! Each step is on stable storage before the next, and a footer is one sector: after a crash at any point the file can
//! be opened, with the old or the new parent. Repeating the operation moves a header that was left at the end back to
//! its place.

use super::dynamic::Dynamic;
use super::image::Unwritten;
use super::parent::{self, Backing};
use super::{
    DiskType, DynamicHeader, FOOTER_SIZE, Footer, HEADER_SIZE, NewParent, Parent, ParentLocator,
    SECTOR_SIZE, VhdImage, read_paths,
};
use crate::error::{Error, Result};
use crate::remedy::{Remedy, Step, Tool};
use crate::storage::WriteAt;
use crate::text::shown;

const FOOTER_LEN: u64 = FOOTER_SIZE as u64;
const HEADER_LEN: u64 = HEADER_SIZE as u64;

impl<S: WriteAt> VhdImage<S> {
    /// Fails if the disk can't be given that parent; see [`set_parent`](Self::set_parent).
    pub fn check_parent(&self, new: &NewParent) -> Result<()> {
        let checked = self.differencing().and_then(|dynamic| {
            parent::check_sizes(self.footer.current_size, &new.parent)?;
            parent::refuse_nil(&new.parent)?;
            if new.parent.unique_id == Some(self.footer.unique_id) {
                return Err(Error::usage(
                    "an image can't have a parent with its own unique id: each would pass for the other",
                )
                .with_field("footer.unique_id")
                .with_found(format_args!(
                    "{} in {}",
                    self.footer.unique_id,
                    shown(&new.parent.name)
                ))
                .with_expected("another unique id")
                .with_hint("a copy of an image keeps its id: use the original image, or its parent"));
            }
            named(&dynamic.header, new, 0).map(drop)
        });
        checked.map_err(|error| error.with_path(self.storage.name()))
    }

    /// Changes the parent of a differencing disk: its id, time stamp, name and locators in the file. The disk's own
    /// data doesn't change, and is combined with the new parent from then on; whether the result reads the same is up
    /// to the caller. Returns when the change is on stable storage.
    ///
    /// # Errors
    ///
    /// Fails before anything is written if the disk has another type, if the parent is larger or has the disk's own id,
    /// or if names are too long.
    pub fn set_parent(&mut self, new: &NewParent) -> Result<()> {
        self.check_parent(new)?;
        self.relink(new)
            .map_err(|error| error.with_path(self.storage.name()))
    }

    /// Returns whether the file already refers to exactly this parent, with its header in place and both footers
    /// correct. Time stamps are ignored, since copying changes them.
    pub fn names_parent(&self, new: &NewParent) -> bool {
        let Ok(dynamic) = self.differencing() else {
            return false;
        };
        let header = &dynamic.header;
        let said = |path: &super::ParentPath| (path.platform_code, path.text.clone());
        let relative = (super::PlatformCode::W2RU, new.relative.clone());
        let absolute = new.absolute.clone();
        let absolute = absolute.map(|path| (super::PlatformCode::W2KU, path));
        let wanted = std::iter::once(relative).chain(absolute);
        header.parent_unique_id == new.parent.unique_id.unwrap_or_default()
            && header.parent_name() == new.file_name
            && self.parent_paths.iter().map(said).eq(wanted)
            && !self.is_between_parents()
    }

    /// Returns whether [`set_parent`](Self::set_parent) may have been interrupted: the header isn't in its place, or
    /// the footers aren't correct. Repeating it completes it.
    pub fn is_between_parents(&self) -> bool {
        self.unwritten != Unwritten::default() || self.home() != self.footer.data_offset
    }

    /// Reads data that the disk doesn't store from `parent` from now on. The file isn't changed, but writes are stored
    /// so that the disk reads correctly with this parent as well as with the one that the file refers to.
    pub fn lay_over(&mut self, parent: Parent) {
        if let Some(dynamic) = &mut self.dynamic {
            dynamic.beneath = Backing::Parent(parent);
        }
    }

    fn differencing(&self) -> Result<&Dynamic> {
        match &self.dynamic {
            Some(dynamic) if self.footer.disk_type == DiskType::Differencing => Ok(dynamic),
            _ => Err(Error::usage("only a differencing VHD has a parent")
                .with_found(self.footer.disk_type)
                .with_expected("a differencing VHD")
                .with_remedy(
                    Remedy::default()
                        .step(
                            Step::Use(Tool::CreateChild),
                            "a new differencing VHD over it",
                        )
                        .text(" creates a child of an image"),
                )),
        }
    }

    fn relink(&mut self, new: &NewParent) -> Result<()> {
        // From here on, both footers are complete and in place.
        self.commit()?;
        self.mend_end()?;
        let (home, room) = (self.home(), self.room_for_locators()?);
        let old = self.differencing()?.header.clone();
        let start = self.end;
        let (away, locators) = named(&old, new, start)?;
        let copy = start + locators.len() as u64;
        let end = copy + HEADER_LEN;
        // The file always ends with a footer: the new one is written before its old place is overwritten.
        self.storage.write_all_at(&self.footer.encode(), end)?;
        self.storage.sync()?;
        self.storage.write_all_at(&locators, start)?;
        self.storage.write_all_at(&away.encode(), copy)?;
        self.storage.sync()?;
        self.set_end(end);
        self.lead_to(copy)?;
        // Nothing refers to the old header and its locators any more.
        let mut header = away;
        let mut cut = copy;
        if locators.len() as u64 <= room {
            let place = home + HEADER_LEN;
            self.storage.write_all_at(&locators, place)?;
            header = named(&old, new, place)?.0;
            cut = start;
        }
        self.storage.write_all_at(&header.encode(), home)?;
        self.storage.sync()?;
        self.lead_to(home)?;
        self.parent_paths = read_paths(&self.storage, &header)?;
        if let Some(dynamic) = &mut self.dynamic {
            dynamic.header = header;
        }
        self.lay_over(new.parent.clone());
        self.cut_to(cut)?;
        self.set_end(self.end);
        Ok(())
    }

    fn set_end(&mut self, end: u64) {
        self.end = end;
        if let Some(dynamic) = &mut self.dynamic {
            dynamic.data_end = end;
        }
    }

    /// Points both footers to the header at `at`.
    fn lead_to(&mut self, at: u64) -> Result<()> {
        self.footer = Footer {
            data_offset: at,
            ..self.footer.clone()
        }
        .sealed();
        for place in [self.end, 0] {
            self.storage.write_all_at(&self.footer.encode(), place)?;
            self.storage.sync()?;
        }
        Ok(())
    }

    /// The proper offset of the header: after the footer's copy if nothing else is there, otherwise its current offset.
    fn home(&self) -> u64 {
        let is_free = self.next_structure(FOOTER_LEN).is_ok_and(|next| {
            // Only blocks and the BAT count; the header and its locators are rewritten.
            next >= FOOTER_LEN + HEADER_LEN
        });
        if is_free {
            FOOTER_LEN
        } else {
            self.footer.data_offset
        }
    }

    /// Bytes after the header's place that locators can use without moving anything else.
    fn room_for_locators(&self) -> Result<u64> {
        let start = self.home() + HEADER_LEN;
        let header = &self.differencing()?.header;
        if header.table_offset < start {
            // It is unknown what some programs store after the BAT.
            return Ok(0);
        }
        Ok(self.next_structure(start)?.saturating_sub(start))
    }

    /// The first offset from `start` on at which a block, the BAT or the end of the file is.
    fn next_structure(&self, start: u64) -> Result<u64> {
        let dynamic = self.differencing()?;
        let mut next = self.end;
        let mut see = |place: u64| {
            if place >= start {
                next = next.min(place);
            }
        };
        see(dynamic.header.table_offset);
        let blocks = self
            .footer
            .current_size
            .div_ceil(dynamic.block_size.max(SECTOR_SIZE));
        for block in 0..blocks {
            if let Some(at) = dynamic.table.entry(&self.storage, block)?.offset() {
                see(at);
            }
        }
        Ok(next)
    }
}

/// Returns `header` with another parent, whose locators' data is at `at`, and that data, in whole sectors.
pub(super) fn named(
    header: &DynamicHeader,
    new: &NewParent,
    at: u64,
) -> Result<(DynamicHeader, Vec<u8>)> {
    let (locators, data) = new.locators(at)?;
    let mut header = header.clone();
    header.parent_unique_id = new.parent.unique_id.unwrap_or_default();
    header.parent_timestamp = new.timestamp;
    header.set_parent_name(&new.file_name)?;
    header.parent_locators = [ParentLocator::NONE; 8];
    for (slot, locator) in header.parent_locators.iter_mut().zip(locators) {
        *slot = locator;
    }
    Ok((header.sealed(), data))
}
