//! The pages that a pass over base and diffs found to change, so that it needn't be repeated.

use super::compare::WindowChange;
use crate::error::Result;
use crate::page::{Change, ChangeKind, PageRange};

/// The most windows that are processed together, provided that the changes in them span no more than a window's length.
pub(super) const GROUP: usize = 64;

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
    pub(super) fn groups(self) -> impl Iterator<Item = Result<(PageRange, Vec<WindowChange>)>> {
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
