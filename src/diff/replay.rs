//! Repeats the changes that an earlier pass over base and diffs found, reading only the diffs.

use super::applier::Applier;
use super::change_map::ChangeMap;
use super::compare::WindowChange;
use super::range_buffer::RangeBuffer;
use crate::error::Result;
use crate::image::WINDOW_SIZE;
use crate::page::{ChangeKind, to_usize};
use crate::parallel::{Buffers, Bytes, IoHints};

impl Applier<'_> {
    /// Passes the changes in `known` to `sink`, with their data. Only the new data in the diffs is read.
    pub fn change_map(
        &self,
        known: ChangeMap,
        mut sink: impl FnMut(WindowChange) -> Result<()>,
    ) -> Result<()> {
        let buffers = Buffers::new();
        // The base isn't read.
        let near = IoHints::LOCAL.ahead(self.workers);
        self.work().pass(
            self.extent().end(),
            (near, |_: &_| 2 * WINDOW_SIZE),
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
        change.payload = Bytes::with_capacity(to_usize(len));
        let updates = change.changes.iter();
        for update in updates.filter(|change| change.kind == ChangeKind::Update) {
            let data = spans.piece(&bytes, update.range);
            change.payload.extend_from_slice(data);
        }
        buffers.give(bytes);
        Ok(change)
    }
}
