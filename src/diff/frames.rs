//! Unpacked frames, for random reads of a few bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::file::DiffFile;
use super::format::{Entry, damaged};
use crate::error::Result;
use crate::page::{ChangeKind, PageRange, to_usize};
use crate::parallel::Bytes;

/// Smaller payloads aren't cached: unpacking them again takes less time than the loss of a larger one would cost.
const WORTH_KEEPING: usize = 64 << 10;

/// Size of the cache in bytes: four of the largest payloads.
const ROOM: usize = 16 << 20;

/// A frame with its payload unpacked.
#[derive(Debug)]
pub(super) struct UnpackedFrame {
    /// The updates in order, each with the offset of its data in the payload.
    updates: Vec<(u64, PageRange)>,
    payload: Bytes,
}

impl UnpackedFrame {
    /// Reads and unpacks a frame.
    pub(super) fn read(diff: &DiffFile, entry: &Entry) -> Result<Self> {
        let frame = diff.frame(entry)?;
        let mut place = 0;
        let updates = frame.changes().iter();
        let updates = updates.filter(|change| change.kind == ChangeKind::Update);
        let updates = updates
            .map(|change| {
                let at = place;
                place += change.range.len();
                (at, change.range)
            })
            .collect();
        let payload = frame
            .unpack()
            .map_err(|e| e.with_path(diff.name()).with_offset(entry.offset))?;
        Ok(Self { updates, payload })
    }

    /// Fills `buf` with the disk's data from `offset` on, all of which lies within one update of the frame.
    pub(super) fn fill(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let n = self
            .updates
            .partition_point(|(_, range)| range.end() <= offset);
        let bytes = self.updates.get(n).and_then(|(place, range)| {
            let start = to_usize(place + offset.checked_sub(range.start())?);
            let inside = offset + buf.len() as u64 <= range.end();
            self.payload
                .get(start..start.checked_add(buf.len())?)
                .filter(|_| inside)
        });
        let bytes = bytes.ok_or_else(|| damaged("the diff was changed while it was in use"))?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

/// A cache of the most recently used large frames, bounded in bytes.
#[derive(Debug, Default)]
pub(super) struct FrameCache(Mutex<VecDeque<Kept>>);

#[derive(Debug)]
struct Kept {
    /// The diff's number, and the frame's offset in it.
    key: (usize, u64),
    frame: Arc<UnpackedFrame>,
}

impl FrameCache {
    /// Returns a frame of the diff with this number, from the cache or by unpacking it.
    pub(super) fn get(
        &self,
        number: usize,
        diff: &DiffFile,
        entry: &Entry,
    ) -> Result<Arc<UnpackedFrame>> {
        let key = (number, entry.offset);
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = lock();
        if let Some(at) = kept.iter().rposition(|kept| kept.key == key)
            && let Some(found) = kept.remove(at)
        {
            let frame = Arc::clone(&found.frame);
            kept.push_back(found);
            return Ok(frame);
        }
        // The lock isn't held while unpacking: a thread that needs another frame needn't wait. Two threads that need
        // the same one at the same moment both unpack it.
        drop(kept);
        let frame = Arc::new(UnpackedFrame::read(diff, entry)?);
        if frame.payload.len() < WORTH_KEEPING {
            return Ok(frame);
        }
        let mut kept = lock();
        if kept.iter().all(|kept| kept.key != key) {
            kept.push_back(Kept {
                key,
                frame: Arc::clone(&frame),
            });
        }
        let mut bytes: usize = kept.iter().map(|kept| kept.frame.payload.len()).sum();
        while bytes > ROOM {
            let Some(oldest) = kept.pop_front() else {
                break;
            };
            bytes -= oldest.frame.payload.len();
        }
        Ok(frame)
    }
}
