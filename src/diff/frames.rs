//! Frames of diffs, unpacked: for reading a few bytes here and there.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::file::DiffFile;
use super::format::{Entry, damaged};
use crate::error::Result;
use crate::page::{ChangeKind, PageRange, to_usize};

/// Payloads of fewer bytes aren't kept: unpacking them again takes less time than a larger one would lose its place for.
const WORTH_KEEPING: usize = 64 << 10;

/// Bytes of payloads that are kept: four of the largest.
const ROOM: usize = 16 << 20;

/// A frame whose payload was unpacked.
#[derive(Debug)]
pub(super) struct UnpackedFrame {
    /// The updates in order, each with the place of its first byte in the payload.
    updates: Vec<(u64, PageRange)>,
    payload: Vec<u8>,
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

    /// Fills `buf` with what the disk holds from `offset` on, all of it within one update of the frame.
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

/// The large frames that were used last, bounded by bytes.
#[derive(Debug, Default)]
pub(super) struct FrameCache(Mutex<VecDeque<Kept>>);

#[derive(Debug)]
struct Kept {
    /// The diff's number, and the frame's offset in it.
    key: (usize, u64),
    frame: Arc<UnpackedFrame>,
}

impl FrameCache {
    /// The frame of the diff with this number, from the cache or unpacked now.
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
        // Not held while unpacking: a thread that needs another frame needn't wait. Two that need the same one at the
        // same moment both unpack it.
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
