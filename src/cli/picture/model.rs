//! A picture before it is drawn.

use std::ops::Range;

use super::cells::Cells;

/// A picture, ready to be drawn.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) title: String,
    /// The line below the title.
    pub(super) below: String,
    pub(super) cells: Cells,
    pub(super) bands: Vec<Band>,
    /// Changed bytes and path of the files that changed most.
    pub(super) files: Vec<(u64, String)>,
    /// Whether it shows changes, or data alone.
    pub(super) changes: bool,
}

/// A partition beside the rows.
#[derive(Debug)]
pub(super) struct Band {
    pub(super) range: Range<u64>,
    pub(super) name: String,
    pub(super) mark: char,
}
