//! Where the file system keeps the bytes of a file: what two files keep in the same place needn't be compared.
//!
//! Only what is beyond doubt is told. The file system is XFS or btrfs, and flushes what it holds back before it
//! answers (`FIEMAP_FLAG_SYNC`; without it most fresh changes are missed). An extent has a place of its own on the
//! device, written, whole, neither compressed nor encrypted, and is known to the file system as shared.

use std::collections::VecDeque;
use std::fs;
use std::ops::Range;

use fiemap::{Fiemap, FiemapExtent, FiemapExtentFlags, FiemapFlags};
use rustix::fs::{AtFlags, FsWord, StatxFlags, fstatfs, statx};

use super::File;

/// The `f_type` of file systems whose answers were tested: XFS and btrfs.
const KNOWN: [FsWord; 2] = [0x5846_5342, 0x9123_683E];

/// The flags that an extent may have: the last of its file, put together from smaller ones, shared. Any other,
/// also one that isn't known yet, is a doubt.
const HARMLESS: FiemapExtentFlags = FiemapExtentFlags::LAST
    .union(FiemapExtentFlags::MERGED)
    .union(FiemapExtentFlags::SHARED);

/// Extents kept for a file at most, 24 bytes each: enough for 256 GiB of shuffled 512 KiB pieces, and without limit
/// where the file is asked for front to back.
const MOST_KEPT: usize = 1 << 19;

/// The space from which a file system takes places: the same place in the same space is the same bytes.
#[derive(Debug, Clone, Copy)]
pub struct FileSystemId {
    file_system: FsWord,
    device: u64,
    mount: Option<u64>,
    blocks: u64,
}

impl FileSystemId {
    /// Whether both are one and the same space.
    pub fn is_same(&self, other: &Self) -> bool {
        // The subvolumes of btrfs look like devices of their own; but a mount is of one file system. The files that
        // XFS keeps on its real-time device see the size of that one.
        let mounted_as_one = self.mount.is_some() && self.mount == other.mount;
        (self.device == other.device || mounted_as_one)
            && (self.file_system, self.blocks) == (other.file_system, other.blocks)
    }
}

/// Bytes of a file, or of a disk, and where they are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhysicalExtent {
    /// First byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
    /// Where the first byte is kept, in the [`FileSystemId`] of the file.
    pub at: u64,
}

impl PhysicalExtent {
    /// The part of it that lies in `range`, if any.
    #[must_use]
    pub fn cut(self, range: &Range<u64>) -> Option<Self> {
        let (start, end) = (self.start.max(range.start), self.end.min(range.end));
        (start < end).then(|| Self {
            start,
            end,
            at: self.at + (start - self.start),
        })
    }

    /// The extent, if there is no doubt about it.
    fn trusted(extent: &FiemapExtent) -> Option<Self> {
        let harmless = HARMLESS.contains(extent.fe_flags);
        let shared = extent.fe_flags.contains(FiemapExtentFlags::SHARED);
        // No file lies where the file system itself begins.
        if !harmless || !shared || extent.fe_physical == 0 {
            return None;
        }
        extent.fe_physical.checked_add(extent.fe_length)?;
        Some(Self {
            start: extent.fe_logical,
            end: extent.fe_logical.checked_add(extent.fe_length)?,
            at: extent.fe_physical,
        })
    }
}

impl File {
    /// The space that the file's bytes are kept in, or `None` where places can't be trusted.
    pub fn space(&self) -> Option<FileSystemId> {
        if self.is_block_device() {
            return None;
        }
        let file_system = fstatfs(self.as_std()).ok()?;
        let kind = KNOWN.into_iter().find(|kind| *kind == file_system.f_type)?;
        let file = statx(self.as_std(), "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
        let has_mount = StatxFlags::from_bits_retain(file.stx_mask).contains(StatxFlags::MNT_ID);
        Some(FileSystemId {
            file_system: kind,
            device: u64::from(file.stx_dev_major) << 32 | u64::from(file.stx_dev_minor),
            mount: has_mount.then_some(file.stx_mnt_id),
            blocks: file_system.f_blocks,
        })
    }

    /// The places of the file's shared bytes, as far as they are beyond doubt.
    pub fn shared_places(&self) -> SharedPhysical<'_> {
        SharedPhysical {
            extents: Some(Fiemap::with_flags(self.as_std(), FiemapFlags::SYNC)),
            known_to: 0,
            kept: VecDeque::new(),
        }
    }
}

/// Where the shared bytes of a file are kept. Asks the file system as it goes on; what lies far behind is forgotten.
#[derive(Debug)]
pub struct SharedPhysical<'a> {
    extents: Option<Fiemap<&'a fs::File>>,
    /// The file system was asked about everything before.
    known_to: u64,
    kept: VecDeque<PhysicalExtent>,
}

impl SharedPhysical<'_> {
    /// The places of the shared bytes in `range`, in order. What isn't named may be anything.
    pub fn within(&mut self, range: Range<u64>) -> impl Iterator<Item = PhysicalExtent> {
        while self.known_to < range.end && self.ask() {}
        let first = self.kept.partition_point(|place| place.end <= range.start);
        self.kept
            .range(first..)
            .take_while({
                let end = range.end;
                move |place| place.start < end
            })
            .filter_map(move |place| place.cut(&range))
    }

    /// Takes one more extent; false at the end, or when the file system has nothing sensible to say.
    fn ask(&mut self) -> bool {
        let next = self.extents.as_mut().and_then(Iterator::next);
        let sensible = next.and_then(Result::ok).filter(|extent| {
            let end = extent.fe_logical.checked_add(extent.fe_length);
            extent.fe_logical >= self.known_to && end.is_some_and(|end| end > self.known_to)
        });
        let Some(extent) = sensible else {
            self.extents = None;
            self.known_to = u64::MAX;
            return false;
        };
        self.known_to = extent.fe_logical + extent.fe_length;
        if let Some(place) = PhysicalExtent::trusted(&extent) {
            self.keep(place);
        }
        true
    }

    fn keep(&mut self, place: PhysicalExtent) {
        match self.kept.back_mut() {
            Some(last)
                if last.end == place.start
                    && last.at.checked_add(last.end - last.start) == Some(place.at) =>
            {
                last.end = place.end;
            }
            _ => {
                if self.kept.len() >= MOST_KEPT {
                    self.kept.pop_front();
                }
                self.kept.push_back(place);
            }
        }
    }
}
