//! Repeats the changes that an earlier pass over base and diffs found, reading only the diffs.

use super::applier::{Applier, GROUP};
use super::compare::WindowChange;
use super::range_buffer::RangeBuffer;
use crate::error::Result;
use crate::page::{Change, ChangeKind, PageRange, to_usize};
use crate::parallel::{Buffers, IoHints};

/// Windows are grouped until they hold this many bytes of data.
const GROUP_BYTES: u64 = 1 << 20;

/// The pages that change from a base to the result, without their data.
#[derive(Debug, Default)]
pub struct ChangeMap(Vec<WindowChange>);

impl ChangeMap {
    /// Adds the changes of one window. Returns their approximate size in memory, in bytes.
    pub(super) fn push(&mut self, change: WindowChange) -> usize {
        const EACH: usize = 512;
        let bytes = EACH + 2 * change.changes.len().saturating_mul(size_of::<Change>());
        self.0.push(change);
        bytes
    }

    /// The ranges where the result holds different data than the base, in order.
    pub fn updates(&self) -> impl Iterator<Item = PageRange> {
        let changes = self.0.iter().flat_map(|window| window.changes.iter());
        changes
            .filter(|change| change.kind == ChangeKind::Update)
            .map(|change| change.range)
    }

    /// The windows, grouped for processing.
    fn groups(self) -> impl Iterator<Item = Result<(PageRange, Vec<WindowChange>)>> {
        let mut windows = self.0.into_iter().peekable();
        std::iter::from_fn(move || {
            let first = windows.next()?;
            let (mut all, mut group) = (first.window, vec![first]);
            let len = |change: &WindowChange| change.changes.bytes(ChangeKind::Update);
            let mut bytes = group.first().map_or(0, len);
            while let Some(next) = windows.next_if(|next| {
                bytes = bytes.saturating_add(len(next));
                bytes <= GROUP_BYTES && group.len() < GROUP
            }) {
                all = all.hull(next.window);
                group.push(next);
            }
            Some(Ok((all, group)))
        })
    }
}

impl Applier<'_> {
    /// Passes the changes in `known` to `sink`, with their data. Only the new data in the diffs is read.
    pub fn change_map(
        &self,
        known: ChangeMap,
        mut sink: impl FnMut(WindowChange) -> Result<()>,
    ) -> Result<()> {
        let buffers = Buffers::new();
        // The base isn't read.
        let near = IoHints::LOCAL.ahead();
        self.work().pass(
            self.extent().end(),
            (near, 0),
            known.groups(),
            |_, group| Ok(group),
            |_, group| {
                let with_data = |change| self.with_data(change, &buffers);
                group.into_iter().map(with_data).collect::<Result<Vec<_>>>()
            },
            |_, group| group.into_iter().try_for_each(&mut sink),
        )
    }

    /// Adds the data of the updates from the diffs.
    fn with_data(&self, mut change: WindowChange, buffers: &Buffers) -> Result<WindowChange> {
        let len = change.changes.bytes(ChangeKind::Update);
        if len == 0 {
            return Ok(change);
        }
        let frames = self.frames(change.window)?;
        let spans = RangeBuffer::joining(&self.touched(change.window, &frames), 0);
        let mut bytes = buffers.take(spans.len());
        self.lay_over(change.window, frames, &spans, &mut bytes, false)?;
        change.payload.reserve_exact(to_usize(len));
        let updates = change.changes.iter();
        for update in updates.filter(|change| change.kind == ChangeKind::Update) {
            let data = spans.piece(&bytes, update.range);
            change.payload.extend_from_slice(data);
        }
        buffers.give(bytes);
        Ok(change)
    }
}
