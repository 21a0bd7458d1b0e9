//! Physical locations of a file's bytes: ranges of two files with the same location needn't be compared.
//!
//! Only certain facts are reported. The file system must be XFS or btrfs, and flush delayed allocations before it
//! answers (`FIEMAP_FLAG_SYNC`; without it, most recent changes are missed). An extent must have a location of its own
//! on the device, be written, whole, neither compressed nor encrypted, and be flagged as shared.

use std::collections::VecDeque;
use std::fs;
use std::ops::Range;

use fiemap::{Fiemap, FiemapExtent, FiemapExtentFlags, FiemapFlags};
use rustix::fs::{AtFlags, FsWord, StatxFlags, fstatfs, statx};

use super::File;

/// The `f_type` of the file systems that were tested: XFS and btrfs.
const KNOWN: [FsWord; 2] = [0x5846_5342, 0x9123_683E];

/// Flags that an extent may have: last of its file, merged from smaller ones, shared. Any other, including unknown
/// ones, makes the extent unusable.
const HARMLESS: FiemapExtentFlags = FiemapExtentFlags::LAST
    .union(FiemapExtentFlags::MERGED)
    .union(FiemapExtentFlags::SHARED);

/// The most extents kept per file, 24 bytes each: enough for 256 GiB of shuffled 512 KiB pieces. There is no limit if
/// the file is queried front to back.
const MOST_KEPT: usize = 1 << 19;

/// The address space of a file system: equal locations in the same space are the same bytes.
#[derive(Debug, Clone, Copy)]
pub struct FileSystemId {
    file_system: FsWord,
    device: u64,
    mount: Option<u64>,
    blocks: u64,
}

impl FileSystemId {
    /// Returns whether both are the same space.
    pub fn is_same(&self, other: &Self) -> bool {
        // The subvolumes of btrfs look like separate devices, but a mount belongs to one file system. Files on the
        // real-time device of XFS report the size of that device.
        let mounted_as_one = self.mount.is_some() && self.mount == other.mount;
        (self.device == other.device || mounted_as_one)
            && (self.file_system, self.blocks) == (other.file_system, other.blocks)
    }
}

/// A range of a file or disk, and its physical location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhysicalExtent {
    /// First byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
    /// Location of the first byte, in the [`FileSystemId`] of the file.
    pub at: u64,
}

impl PhysicalExtent {
    /// The part of it within `range`, if any.
    #[must_use]
    pub fn cut(self, range: &Range<u64>) -> Option<Self> {
        let (start, end) = (self.start.max(range.start), self.end.min(range.end));
        (start < end).then(|| Self {
            start,
            end,
            at: self.at + (start - self.start),
        })
    }

    /// Converts the extent if it can be trusted.
    fn trusted(extent: &FiemapExtent) -> Option<Self> {
        let harmless = HARMLESS.contains(extent.fe_flags);
        let shared = extent.fe_flags.contains(FiemapExtentFlags::SHARED);
        // Location 0 holds the file system's own superblock.
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
    /// Returns the space of the file's bytes, or `None` if its locations can't be trusted.
    pub fn space(&self) -> Option<FileSystemId> {
        if self.is_block_device() || self.is_sealed() {
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

    /// Returns the locations of the file's shared extents, as far as they are certain.
    pub fn shared_places(&self) -> SharedPhysical<'_> {
        SharedPhysical {
            extents: (!self.is_sealed())
                .then(|| Fiemap::with_flags(self.as_std(), FiemapFlags::SYNC)),
            known_to: 0,
            kept: VecDeque::new(),
        }
    }
}

/// The locations of a file's shared extents. Queries the file system on demand; extents far before the current position
/// are forgotten.
#[derive(Debug)]
pub struct SharedPhysical<'a> {
    extents: Option<Fiemap<&'a fs::File>>,
    /// The end of the part of the file that has been queried.
    known_to: u64,
    kept: VecDeque<PhysicalExtent>,
}

impl SharedPhysical<'_> {
    /// The locations of shared extents in `range`, in order. Nothing is known about the rest.
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

    /// Queries one more extent. Returns `false` at the end, or if the file system's answer makes no sense.
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
