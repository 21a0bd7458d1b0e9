//! The contents of the files.

use std::sync::Arc;

use super::super::shelf::data_in;
use super::Served;
use crate::error::Result;
use crate::image::{ExtentState, whole};
use crate::page::{PageRange, to_usize};
use crate::vhd::{DiskType, FOOTER_SIZE, Footer};

/// The content of a file.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// The virtual disk.
    Raw(Arc<Served>),
    /// A fixed VHD with the disk and this footer.
    Vhd(Arc<Served>, Arc<[u8; FOOTER_SIZE]>),
    /// A part of the disk: offset and length.
    Part(Arc<Served>, u64, u64),
}

impl Content {
    /// A fixed VHD of an image, like that of a restore.
    pub(super) fn vhd(served: &Arc<Served>) -> Self {
        let image = served.image();
        let footer = Footer::for_disk(DiskType::Fixed, image.virtual_size(), image.footer());
        Self::Vhd(Arc::clone(served), Arc::new(footer.encode()))
    }

    fn served(&self) -> &Arc<Served> {
        let (Self::Raw(served) | Self::Vhd(served, _) | Self::Part(served, ..)) = self;
        served
    }

    /// Its offset on the disk.
    fn start(&self) -> u64 {
        match self {
            Self::Part(_, start, _) => *start,
            Self::Raw(_) | Self::Vhd(..) => 0,
        }
    }

    /// The length of its part of the disk.
    fn of_disk(&self) -> u64 {
        match self {
            Self::Part(.., len) => *len,
            Self::Raw(served) | Self::Vhd(served, _) => served.image().virtual_size(),
        }
    }

    /// Its length in bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Vhd(..) => self.of_disk().saturating_add(FOOTER_SIZE as u64),
            Self::Raw(_) | Self::Part(..) => self.of_disk(),
        }
    }

    /// The time of the snapshot in seconds since 1970.
    pub(super) fn time(&self) -> u64 {
        let time = self.served().time();
        time.and_then(|time| u64::try_from(time.to_unix()).ok())
            .unwrap_or(0)
    }

    /// Bytes of it that may hold data.
    pub(super) fn stored(&self) -> Result<u64> {
        match self {
            Self::Raw(served) => served.data_bytes(),
            Self::Vhd(served, _) => Ok(served.data_bytes()?.saturating_add(FOOTER_SIZE as u64)),
            Self::Part(served, start, len) => {
                let range = PageRange::covering(*start, start.saturating_add(*len));
                data_in(served.image(), range)
            }
        }
    }

    /// Fills `buffer` from `offset`, up to the end. Returns the number of bytes.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let size = self.size();
        let len = to_usize(size.saturating_sub(offset).min(buffer.len() as u64));
        let disk = to_usize(self.of_disk().saturating_sub(offset).min(len as u64));
        let (now, _) = buffer.split_at_mut(len);
        let (disk, footer) = now.split_at_mut(disk);
        if !disk.is_empty() {
            let at = self.start().saturating_add(offset);
            self.served().image().read_exact_at(disk, at)?;
        }
        if let Self::Vhd(_, bytes) = self {
            let at = offset
                .saturating_add(disk.len() as u64)
                .saturating_sub(self.of_disk());
            let from = bytes.get(to_usize(at)..).unwrap_or_default();
            for (to, from) in footer.iter_mut().zip(from) {
                *to = *from;
            }
        }
        Ok(len)
    }

    /// The first byte at or after `offset` that may hold data, or that is in a hole; `None` beyond the end.
    pub(super) fn seek(&self, offset: u64, data: bool) -> Result<Option<u64>> {
        let size = self.size();
        if offset >= size {
            return Ok(None);
        }
        let image = self.served().image();
        let (start, end) = (self.start(), self.start().saturating_add(self.of_disk()));
        let at = start.saturating_add(offset).min(end);
        let within = PageRange::covering(at, end).cut_to(whole(image));
        for extent in image.extents(within) {
            let extent = extent?;
            if (extent.state == ExtentState::Data) == data {
                let found = extent.range.start().max(at);
                if found < end {
                    return Ok(Some(found - start));
                }
            }
        }
        // The footer is data, and every file ends in a virtual hole.
        Ok(match (data, self) {
            (true, Self::Vhd(..)) => Some(offset.max(self.of_disk())),
            (true, _) => None,
            (false, _) => Some(size),
        })
    }
}
