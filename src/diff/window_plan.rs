//! Determines the origin of the bytes of one window when many diffs are applied to a base.

use std::sync::{Arc, Mutex, PoisonError};

use super::file::DiffFile;
use super::format::Entry;
use super::frames::{FrameCache, UnpackedFrame};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Image, read_or_zeros};
use crate::page::{ChangeKind, PageRange, to_usize};
use crate::parallel::Bytes;

/// The origin of a piece of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Base,
    Zero,
    /// From one of the plan's frames.
    Diff {
        frame: usize,
    },
}

/// A piece of a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) range: PageRange,
    pub(super) from: Origin,
}

/// The origin of the bytes of one window.
#[derive(Debug)]
pub(super) struct WindowPlan {
    window: PageRange,
    /// In order, without gaps.
    pieces: Vec<Piece>,
    /// The visible frames: the diff's position in the list, and the frame's entry in the diff.
    frames: Vec<(usize, Entry)>,
    /// The data of all pieces from frames, in the order of the pieces, once it was read.
    data: Mutex<Option<Arc<Bytes>>>,
}

impl WindowPlan {
    /// Queries the frame heads, newest diff first, until all pages are accounted for.
    pub(super) fn of(window: PageRange, diffs: &[Arc<DiffFile>]) -> Result<Self> {
        let mut open = vec![window];
        let (mut pieces, mut frames) = (Vec::new(), Vec::new());
        for (n, diff) in diffs.iter().enumerate().rev() {
            if open.is_empty() {
                break;
            }
            for entry in diff.entries_in(window)? {
                if !open.iter().any(|r| r.intersect(entry.range).is_some()) {
                    continue;
                }
                let frame = frames.len();
                let mut seen = false;
                let changes = diff.changes_of(&entry)?;
                let changed = changes.iter().map(|change| (change.range, change.kind));
                open = take(&open, changed, |range, kind| {
                    let from = match kind {
                        ChangeKind::Clear => Origin::Zero,
                        ChangeKind::Update => {
                            seen = true;
                            Origin::Diff { frame }
                        }
                    };
                    pieces.push(Piece { range, from });
                });
                if seen {
                    frames.push((n, entry));
                }
            }
            // Beyond the end of this diff's base there were zeros, regardless of older diffs.
            let cut = range(diff.header().base_size.min(window.end()), window.end());
            open = take(&open, [(cut, ())].into_iter(), |range, ()| {
                pieces.push(Piece {
                    range,
                    from: Origin::Zero,
                });
            });
        }
        pieces.extend(open.into_iter().map(|range| Piece {
            range,
            from: Origin::Base,
        }));
        pieces.sort_unstable_by_key(|piece| piece.range.start());
        // Many plans are kept, so memory matters.
        pieces.shrink_to_fit();
        frames.shrink_to_fit();
        Ok(Self {
            window,
            pieces,
            frames,
            data: Mutex::default(),
        })
    }

    /// The first byte of the window.
    pub(super) fn start(&self) -> u64 {
        self.window.start()
    }

    /// The pieces within `within`, cut at its ends.
    pub(super) fn pieces_in(&self, within: PageRange) -> impl Iterator<Item = Piece> + '_ {
        let first = self
            .pieces
            .partition_point(|piece| piece.range.end() <= within.start());
        self.pieces.iter().skip(first).map_while(move |piece| {
            piece.range.intersect(within).map(|range| Piece {
                range,
                from: piece.from,
            })
        })
    }

    /// Fills `buf` from `offset` of the disk, within the window. Returns whether data was unpacked that is now kept.
    pub(super) fn read(
        &self,
        buf: &mut [u8],
        offset: u64,
        base: &dyn Image,
        diffs: &[Arc<DiffFile>],
    ) -> Result<bool> {
        let end = offset + buf.len() as u64;
        let mut unpacked = false;
        let mut data = None;
        let mut at_data = 0;
        for piece in &self.pieces {
            let (start, stop) = (piece.range.start().max(offset), piece.range.end().min(end));
            let from_frame = matches!(piece.from, Origin::Diff { .. });
            if start < stop {
                let into = slice_mut(buf, start - offset, stop - offset);
                match piece.from {
                    Origin::Zero => into.fill(0),
                    Origin::Base => read_or_zeros(base, into, start)?,
                    Origin::Diff { .. } => {
                        let data = if let Some(data) = &data {
                            data
                        } else {
                            let (found, new) = self.data(diffs)?;
                            unpacked = new;
                            data.insert(found)
                        };
                        let from = at_data + (start - piece.range.start());
                        into.copy_from_slice(slice(data, from, from + (stop - start)));
                    }
                }
            }
            if from_frame {
                at_data += piece.range.len();
            }
        }
        let last = self.pieces.iter().rev();
        let last = last.filter(|piece| matches!(piece.from, Origin::Diff { .. }));
        if last
            .map(|piece| piece.range.end())
            .next()
            .is_some_and(|last| end >= last)
        {
            // A sequential reader is done with this window.
            self.forget();
            unpacked = false;
        }
        Ok(unpacked)
    }

    /// As [`read`](Self::read), for a few bytes: unpacks only the frames needed, or takes them from `frames`, and keeps
    /// nothing else.
    pub(super) fn read_some(
        &self,
        buf: &mut [u8],
        offset: u64,
        base: &dyn Image,
        (diffs, unpacked): (&[Arc<DiffFile>], &FrameCache),
    ) -> Result<()> {
        let end = offset + buf.len() as u64;
        let first = self
            .pieces
            .partition_point(|piece| piece.range.end() <= offset);
        let pieces = self.pieces.iter().skip(first);
        for piece in pieces.take_while(|piece| piece.range.start() < end) {
            let (start, stop) = (piece.range.start().max(offset), piece.range.end().min(end));
            let into = slice_mut(buf, start - offset, stop - offset);
            match piece.from {
                Origin::Zero => into.fill(0),
                Origin::Base => read_or_zeros(base, into, start)?,
                Origin::Diff { frame } => {
                    let (diff, entry) = self.frames.get(frame).ok_or_else(lost_frame)?;
                    let file = diffs.get(*diff).ok_or_else(lost_frame)?;
                    unpacked.get(*diff, file, entry)?.fill(into, start)?;
                }
            }
        }
        Ok(())
    }

    /// Size of the plan in memory in bytes, without unpacked data.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.pieces) + size_of_val(&*self.frames)
    }

    /// Bytes of unpacked data that are kept; `None` while another thread unpacks or drops them.
    pub(super) fn kept(&self) -> Option<usize> {
        let held = self.data.try_lock().ok()?;
        Some(held.as_ref().map_or(0, |data| data.len()))
    }

    /// Drops the unpacked data.
    pub(super) fn forget(&self) {
        *self.data.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns the data of all pieces from frames, unpacking it if necessary, and whether that was necessary.
    fn data(&self, diffs: &[Arc<DiffFile>]) -> Result<(Arc<Bytes>, bool)> {
        // The lock is held while reading: two threads in one window should not both unpack it.
        let mut held = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(data) = &*held {
            return Ok((Arc::clone(data), false));
        }
        let places = self.pieces.iter().scan(0, |at, piece| {
            let place = *at;
            if matches!(piece.from, Origin::Diff { .. }) {
                *at += piece.range.len();
            }
            Some((place, piece))
        });
        let places: Vec<(u64, &Piece)> = places.collect();
        let len = places.last().map_or(0, |(at, piece)| match piece.from {
            Origin::Diff { .. } => at + piece.range.len(),
            _ => *at,
        });
        let mut data = Bytes::zeroed(to_usize(len));
        for (n, (diff, entry)) in self.frames.iter().enumerate() {
            let diff = diffs.get(*diff).ok_or_else(lost_frame)?;
            let frame = UnpackedFrame::read(diff, entry)?;
            let mine = places
                .iter()
                .filter(|(_, piece)| piece.from == Origin::Diff { frame: n });
            for (place, piece) in mine {
                let into = slice_mut(&mut data, *place, place + piece.range.len());
                frame.fill(into, piece.range.start())?;
            }
        }
        Ok((Arc::clone(held.insert(Arc::new(data))), true))
    }
}

/// Moves the parts of `ranges` that overlap the ordered ranges `open` to `taken`, and returns what remains open.
fn take<K: Copy>(
    open: &[PageRange],
    ranges: impl Iterator<Item = (PageRange, K)>,
    mut taken: impl FnMut(PageRange, K),
) -> Vec<PageRange> {
    let mut left = Vec::with_capacity(open.len() + 1);
    let mut open = open.iter().copied();
    let mut current = open.next();
    for (hit, kind) in ranges.filter(|(range, _)| !range.is_empty()) {
        while let Some(here) = current {
            if here.end() <= hit.start() {
                left.push(here);
                current = open.next();
                continue;
            }
            let Some(both) = here.intersect(hit) else {
                break;
            };
            if here.start() < both.start() {
                left.push(range(here.start(), both.start()));
            }
            taken(both, kind);
            if both.end() < here.end() {
                current = Some(range(both.end(), here.end()));
                break;
            }
            current = open.next();
        }
    }
    left.extend(current);
    left.extend(open);
    left
}

/// The error for a plan that is used with other diffs than those it was made from.
fn lost_frame() -> Error {
    Error::new(
        ErrorKind::Usage,
        "a plan was used with different diffs than it was made from",
    )
}

/// Returns the bytes from `start` to `end`.
fn slice(bytes: &[u8], start: u64, end: u64) -> &[u8] {
    &bytes[to_usize(start)..to_usize(end)]
}

/// Mutable version of [`slice`].
fn slice_mut(bytes: &mut [u8], start: u64, end: u64) -> &mut [u8] {
    &mut bytes[to_usize(start)..to_usize(end)]
}

/// A range whose ends are pages in order.
pub(super) fn range(start: u64, end: u64) -> PageRange {
    PageRange::covering(start, end)
}
