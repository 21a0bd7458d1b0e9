//! Space that stays allocated while a file is changed, so that the changes can be undone on a full device.
//!
//! Zeroed ranges become holes only at the end: other files can take the space of a hole, and restoring the old bytes
//! would need it again.

use std::ops::Range;
use std::sync::Arc;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::held::Held;
use super::{File, ReadAt as _, system};
use crate::error::{Error, Result};

impl File {
    /// Another handle to the same open file, through which zeroed ranges stay allocated until
    /// [`give_back`](Self::give_back).
    #[must_use]
    pub fn holding_space(&self) -> Self {
        let mut handle = self.another_handle();
        handle.held = Some(Arc::default());
        handle
    }

    /// Turns the ranges that were zeroed through this handle and those derived from it into holes. If that fails, the
    /// file only takes more space than necessary.
    pub fn give_back(&self) {
        let Some(held) = &self.held else {
            return;
        };
        let ranges = std::mem::take(&mut *held.ranges());
        let len = self.byte_len().unwrap_or(0);
        for (start, end) in ranges {
            let range = start..end.min(len);
            if !range.is_empty() {
                let _ = system::punch(self.as_std(), self.path(), range);
            }
        }
    }

    pub(super) fn zero_held(&self, held: &Held, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        while let Some(data) = self.stored(at..range.end) {
            at = data.end;
            if system::zero(self.as_std(), self.path(), data.clone()).is_err() {
                self.write_zeros_in(data.clone())?;
            }
            held.push(data);
        }
        Ok(())
    }

    /// Reserves space for the unallocated parts of `range`, also after the end of the file; the contents don't change.
    /// Adds what it reserved to `reserved`. Does nothing if the file system doesn't support it.
    ///
    /// # Errors
    ///
    /// Fails if there isn't enough space.
    pub fn reserve_range(&self, range: Range<u64>, reserved: &mut Vec<Range<u64>>) -> Result<()> {
        let mut at = range.start;
        while at < range.end && !self.is_block_device() {
            let data = self.stored(at..range.end).unwrap_or(range.end..range.end);
            if at < data.start {
                // A failed call may have reserved a part.
                reserved.push(at..data.start);
                let done = system::allocate(self.as_std(), self.path(), at..data.start);
                match done.map_err(|e| (Errno::from_io_error(&e), e)) {
                    Err((Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG), e)) => {
                        return Err(Error::io("there is not enough space for the changes to", e)
                            .with_path(self.path())
                            .with_hint(
                                "nothing was changed: free some space and run the command again",
                            ));
                    }
                    Err(_) => return Ok(()),
                    Ok(()) => {}
                }
            }
            at = data.end;
        }
        Ok(())
    }

    /// Frees the ranges that were reserved and not written to.
    pub fn release(&self, reserved: Vec<Range<u64>>) {
        for range in reserved {
            let _ = system::punch(self.as_std(), self.path(), range);
        }
        // Truncation also frees the space after the end.
        if let Ok(len) = self.byte_len() {
            let _ = system::set_len(self.as_std(), self.path(), len);
        }
    }

    /// The first run of `within` that is allocated and not known to be zero. Queries the file system each time.
    fn stored(&self, within: Range<u64>) -> Option<Range<u64>> {
        if within.is_empty() {
            return None;
        }
        let start = match seek(self.as_std(), SeekFrom::Data(within.start)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return None,
            // Not every file system reports holes.
            Err(_) => return Some(within),
        };
        if start >= within.end {
            return None;
        }
        let end = seek(self.as_std(), SeekFrom::Hole(start)).unwrap_or(within.end);
        Some(start..end.clamp(start.saturating_add(1), within.end))
    }
}
