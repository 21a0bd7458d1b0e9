//! A VHD as an image.

use super::dynamic::Dynamic;
use super::parent::Backing;
use super::{DiskType, DynamicHeader, Footer, Parent, ParentPath, ParentRequest, SECTOR_SIZE};
use crate::error::{Error, Result};
use crate::image::{
    Extents, Image, ImageMut, IoHints, PageSet, check_update, check_within, storage_extents, whole,
    zeros,
};
use crate::page::{PageRange, to_usize};
use crate::storage::{ReadAt, WriteAt};

/// A fixed, dynamic or differencing VHD.
#[derive(Debug)]
pub struct VhdImage<S> {
    pub(super) storage: S,
    pub(super) footer: Footer,
    /// Header, BAT and blocks; `None` for a fixed disk.
    pub(super) dynamic: Option<Dynamic>,
    /// The proper offset of the trailing footer, directly after everything else.
    pub(super) end: u64,
    pub(super) unwritten: Unwritten,
    pub(super) warnings: Vec<Error>,
    pub(super) lost: Vec<PageRange>,
    /// Whether it is read as another type than its footer's.
    pub(super) is_told: bool,
    /// Whether there is data between the end of a fixed disk and its footer.
    pub(super) slack_has_data: bool,
    /// The readable parent locators of a differencing disk.
    pub(super) parent_paths: Vec<ParentPath>,
}

/// A run of a virtual disk that its own file stores or doesn't store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredRun {
    /// Its range on the virtual disk.
    pub range: PageRange,
    /// Offset in this file, where it is stored contiguously. If it isn't stored, it is zero or, in a differencing disk,
    /// the parent's.
    pub at: Option<u64>,
}

impl StoredRun {
    /// Returns whether it is stored in this file.
    pub fn is_stored(&self) -> bool {
        self.at.is_some()
    }
}

/// The footers that the next flush must write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Unwritten {
    pub(super) trailing: bool,
    pub(super) copy: bool,
}

impl<S: ReadAt> VhdImage<S> {
    /// The footer in force: the trailing one, or its copy if that is damaged.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// The dynamic disk header; `None` for a fixed disk.
    pub fn header(&self) -> Option<&DynamicHeader> {
        self.dynamic.as_ref().map(|dynamic| &dynamic.header)
    }

    /// How the disk is stored.
    pub fn disk_type(&self) -> DiskType {
        self.footer.disk_type
    }

    /// Problems with the file that don't prevent reading it.
    pub fn warnings(&self) -> &[Error] {
        &self.warnings
    }

    /// The ranges of the virtual disk that a [salvaged](Self::salvage) image lost, in order. They may extend past its
    /// end.
    pub fn lost(&self) -> &[PageRange] {
        &self.lost
    }

    /// Returns whether it is read as another type than its footer's because the caller asked for it.
    pub fn is_told(&self) -> bool {
        self.is_told
    }

    /// The end of a fixed disk's contents.
    fn fixed_end(&self) -> u64 {
        let lost = self.lost.first().map(|range| range.start());
        lost.unwrap_or(self.footer.current_size)
    }

    /// Number of stored blocks; 0 for a fixed disk, which has no blocks.
    pub fn allocated_blocks(&self) -> u64 {
        self.dynamic
            .as_ref()
            .map_or(0, |dynamic| dynamic.table.allocated())
    }

    /// Number of blocks that the disk has, stored or not; 0 for a fixed disk.
    pub(super) fn block_count(&self) -> u64 {
        let size = self.footer.current_size;
        self.block_size()
            .map_or(0, |bytes| size.div_ceil(bytes.max(SECTOR_SIZE)))
    }

    /// Bytes by which the file grows at least when data is written to `ranges`, which are in order: the blocks that it
    /// doesn't store yet. Ranges may go on behind the end, for a disk that is about to grow.
    pub fn growth_by(&self, ranges: impl Iterator<Item = PageRange>) -> Result<u64> {
        let Some(dynamic) = &self.dynamic else {
            return Ok(0);
        };
        let blocks = self.block_count();
        let (mut next, mut new) = (0, 0_u64);
        for piece in ranges.flat_map(|range| dynamic.pieces(range.start(), range.end())) {
            if piece.block < next {
                continue;
            }
            next = piece.block + 1;
            let there = piece.block < blocks
                && dynamic
                    .table
                    .entry(&self.storage, piece.block)
                    .map_err(|e| e.with_path(self.storage.name()))?
                    .offset()
                    .is_some();
            new += u64::from(!there);
        }
        Ok(new.saturating_mul(dynamic.stride()))
    }

    /// Bytes of data in a block; `None` for a fixed disk.
    pub fn block_size(&self) -> Option<u64> {
        self.dynamic.as_ref().map(|dynamic| dynamic.block_size)
    }

    /// The open parent of a differencing disk.
    pub fn parent(&self) -> Option<&Parent> {
        match &self.dynamic.as_ref()?.beneath {
            Backing::Parent(parent) => Some(parent),
            Backing::Zeros | Backing::Unknown => None,
        }
    }

    /// Calls `ask` with the description of the parent of a differencing disk that was opened without it
    /// ([`ParentPolicy::LeftOut`](super::ParentPolicy::LeftOut)); for any other disk, returns `None`.
    pub fn with_parent_request<T>(
        &self,
        ask: impl FnOnce(&ParentRequest<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let Some(dynamic) = &self.dynamic else {
            return Ok(None);
        };
        if !matches!(dynamic.beneath, Backing::Unknown) {
            return Ok(None);
        }
        ask(&ParentRequest {
            child: self.storage.name(),
            child_id: self.footer.unique_id,
            parent_id: dynamic.header.parent_unique_id,
            parent_timestamp: dynamic.header.parent_timestamp,
            parent_name: &dynamic.header.parent_name(),
            paths: &self.parent_paths,
        })
        .map(Some)
    }

    /// Reads from `parent` whatever a differencing disk that was opened without its parent doesn't store itself.
    ///
    /// # Errors
    ///
    /// Fails if it isn't the parent, or if it is larger than its child.
    pub fn attach_parent(&mut self, parent: Parent) -> Result<()> {
        let size = self.footer.current_size;
        let backing = self.with_parent_request(|request| Backing::of(request, size, parent));
        let backing = backing.map_err(|e| e.with_path(self.storage.name()))?;
        if let (Some(dynamic), Some(backing)) = (&mut self.dynamic, backing) {
            dynamic.beneath = backing;
        }
        Ok(())
    }

    /// The locations at which a differencing disk refers to its parent.
    pub fn parent_paths(&self) -> &[ParentPath] {
        &self.parent_paths
    }

    /// The parts of `within` that this file stores itself, in order and without gaps. A fixed disk stores everything,
    /// other types the pages whose bits are set. Adjacent stored runs aren't necessarily joined.
    pub fn stored_runs(
        &self,
        within: PageRange,
    ) -> Box<dyn Iterator<Item = Result<StoredRun>> + '_> {
        let within = within.cut_to(whole(self));
        let Some(dynamic) = &self.dynamic else {
            let all = StoredRun {
                range: within,
                at: Some(within.start()),
            };
            return Box::new((!within.is_empty()).then_some(Ok(all)).into_iter());
        };
        let spans = dynamic.spans(&self.storage, within.start(), within.end());
        Box::new(spans.map(|span| {
            let span = span.map_err(|e| e.with_path(self.storage.name()))?;
            Ok(StoredRun {
                range: span.range(),
                at: span.at,
            })
        }))
    }

    /// The underlying storage.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Returns the storage. Anything not flushed may be missing from it.
    pub fn into_storage(self) -> S {
        self.storage
    }

    /// Returns the offset in the file of the byte at `offset` of the virtual disk, or `None` if its page isn't stored
    /// in this file.
    pub fn locate(&self, offset: u64) -> Result<Option<u64>> {
        self.checked(offset, 1)?;
        let place = match &self.dynamic {
            None => Ok(Some(offset)),
            Some(dynamic) => dynamic.locate(&self.storage, offset),
        };
        place.map_err(|e| e.with_path(self.storage.name()))
    }

    pub(super) fn checked(&self, offset: u64, len: usize) -> Result<()> {
        check_within(self.footer.current_size, offset, len)
            .map_err(|e| e.with_path(self.storage.name()))
    }
}

impl<S: ReadAt> Image for VhdImage<S> {
    fn virtual_size(&self) -> u64 {
        self.footer.current_size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.checked(offset, buf.len())?;
        match &self.dynamic {
            None => {
                let there = self.fixed_end().saturating_sub(offset);
                let there = to_usize(there).min(buf.len());
                let (stored, lost) = buf.split_at_mut(there);
                lost.fill(0);
                self.storage.read_exact_at(stored, offset)
            }
            Some(dynamic) => dynamic
                .read_exact_at(&self.storage, buf, offset)
                .map_err(|e| e.with_path(self.storage.name())),
        }
    }

    fn extents(&self, within: PageRange) -> Extents<'_> {
        let within = within.cut_to(whole(self));
        match &self.dynamic {
            None => {
                let end = self.fixed_end().clamp(within.start(), within.end());
                let stored = PageRange::covering(within.start(), end);
                let lost = PageRange::covering(end, within.end());
                Box::new(storage_extents(&self.storage, stored).chain(zeros(lost)))
            }
            Some(dynamic) => {
                let name = self.storage.name();
                let extents = dynamic.extents(&self.storage, within);
                Box::new(extents.map(move |extent| extent.map_err(|e| e.with_path(name))))
            }
        }
    }

    fn io(&self) -> IoHints {
        let own = self.storage.io();
        match &self.dynamic {
            None => own,
            Some(dynamic) => own.and(dynamic.beneath.io()),
        }
    }
}

/// The pages that the file itself stores. A child and its parent, both [masked](crate::image::Masked) by the child,
/// differ in the same pages as unmasked: pages that the child doesn't store are the same in both.
impl<S: ReadAt> PageSet for VhdImage<S> {
    fn pages(&self, within: PageRange) -> Box<dyn Iterator<Item = Result<PageRange>> + '_> {
        Box::new(self.stored_runs(within).filter_map(|run| match run {
            Ok(run) => run.is_stored().then_some(Ok(run.range)),
            Err(error) => Some(Err(error)),
        }))
    }
}

impl<S: WriteAt> ImageMut for VhdImage<S> {
    fn update(&mut self, range: PageRange, data: &[u8]) -> Result<()> {
        check_update(self.virtual_size(), range, data)
            .map_err(|e| e.with_path(self.storage.name()))?;
        if self.dynamic.is_none() {
            return self.storage.write_all_at(data, range.start());
        }
        self.update_blocks(range, data)
            .map_err(|e| e.with_path(self.storage.name()))
    }

    fn clear(&mut self, range: PageRange) -> Result<()> {
        self.checked(range.start(), range.buffer_len())?;
        if self.dynamic.is_none() {
            return self.storage.write_zeros_at(range.start()..range.end());
        }
        self.clear_blocks(range)
            .map_err(|e| e.with_path(self.storage.name()))
    }

    fn flush(&mut self) -> Result<()> {
        self.commit().map_err(|e| e.with_path(self.storage.name()))
    }
}
