//! A disk cut into equal cells, and how much of each holds data or changed.

use crate::page::{Change, ChangeKind, PAGE_SIZE, PageRange, to_usize};

/// Characters before the cells on a terminal: an offset, a space, the partition, a space.
pub(super) const MARGIN: usize = 13;

/// Bytes of a cell that are one thing or another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cell {
    data: u64,
    updated: u64,
    cleared: u64,
}

/// The look of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shade {
    /// Nothing in it.
    Zero,
    /// Data that didn't change.
    Data,
    /// Some of it became zero, and nothing else changed.
    Cleared,
    /// Some of it was written: from a little (1) to nearly all (4).
    Updated(u8),
}

/// Cells of one size, in rows, from the beginning of the disk to its end.
#[derive(Debug)]
pub(crate) struct Cells {
    size: u64,
    each: u64,
    columns: usize,
    list: Vec<Cell>,
}

/// Neighbouring cells of a row that look the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) shade: Shade,
    /// The column of its first cell.
    pub(super) at: usize,
    /// How many cells.
    pub(super) len: usize,
}

impl Cells {
    /// Cells for a disk of `size` bytes: the smallest power of two that needs no more than `most_rows` rows.
    pub(crate) fn new(size: u64, columns: usize, most_rows: usize) -> Self {
        let (columns, most_rows) = (columns.max(1), most_rows.max(1));
        let most = (columns * most_rows) as u64;
        let each = size.div_ceil(most).next_power_of_two().max(PAGE_SIZE);
        Self {
            size,
            each,
            columns,
            list: vec![Cell::default(); to_usize(size.div_ceil(each))],
        }
    }

    /// Bytes of a cell; the last may have fewer.
    pub(crate) fn each(&self) -> u64 {
        self.each
    }

    /// Bytes of a row.
    pub(super) fn row_len(&self) -> u64 {
        self.each * self.columns as u64
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Notes a range that holds data.
    pub(crate) fn data(&mut self, range: PageRange) {
        self.add(range, |cell| &mut cell.data);
    }

    /// Notes a change.
    pub(crate) fn change(&mut self, change: Change) {
        match change.kind {
            ChangeKind::Update => self.add(change.range, |cell| &mut cell.updated),
            ChangeKind::Clear => self.add(change.range, |cell| &mut cell.cleared),
        }
    }

    fn add(&mut self, range: PageRange, part: impl Fn(&mut Cell) -> &mut u64) {
        let end = range.end().min(self.size);
        let mut at = range.start();
        while at < end {
            let n = at / self.each;
            let next = ((n + 1) * self.each).min(end);
            if let Some(cell) = self.list.get_mut(to_usize(n)) {
                *part(cell) += next - at;
            }
            at = next;
        }
    }

    /// The rows: where each begins on the disk, and its cells.
    pub(super) fn rows(&self) -> impl Iterator<Item = (u64, &[Cell])> {
        let starts = (0..).map(|n: u64| n * self.row_len());
        starts.zip(self.list.chunks(self.columns))
    }

    /// The looks of the cells in the first row.
    pub(super) fn first_row(&self) -> impl Iterator<Item = Shade> + '_ {
        let row = self.list.iter().take(self.columns);
        row.map(|cell| self.shade(*cell))
    }

    /// The runs of the first row.
    pub(super) fn first_runs(&self) -> Vec<Run> {
        self.rows()
            .next()
            .map_or_else(Vec::new, |(_, row)| self.runs(row))
    }

    /// The cells in which there is something: their first byte, and the bytes with data, updated and cleared.
    pub(crate) fn filled(&self) -> impl Iterator<Item = (u64, [u64; 3])> + '_ {
        let starts = (0_u64..).map(|n| n * self.each);
        let all = starts.zip(&self.list);
        all.map(|(start, cell)| (start, [cell.data, cell.updated, cell.cleared]))
            .filter(|(_, bytes)| bytes.iter().any(|bytes| *bytes > 0))
    }

    /// How a cell looks. The share that was written counts by its root, so that one page in a cell is still seen.
    pub(super) fn shade(&self, cell: Cell) -> Shade {
        let share = u128::from(cell.updated) * 16;
        let each = u128::from(self.each);
        match (1..4_u8).find(|level| share <= u128::from(*level).pow(2) * each) {
            _ if cell.updated == 0 && cell.cleared > 0 => Shade::Cleared,
            _ if cell.updated == 0 && cell.data > 0 => Shade::Data,
            _ if cell.updated == 0 => Shade::Zero,
            Some(level) => Shade::Updated(level),
            None => Shade::Updated(4),
        }
    }

    /// Neighbouring cells of a row that look the same; those that hold nothing are left out.
    pub(super) fn runs(&self, row: &[Cell]) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (at, cell) in row.iter().enumerate() {
            let shade = self.shade(*cell);
            match runs.last_mut() {
                Some(last) if last.shade == shade && last.at + last.len == at => last.len += 1,
                _ if shade == Shade::Zero => {}
                _ => runs.push(Run { shade, at, len: 1 }),
            }
        }
        runs
    }
}

impl Cell {
    /// Bytes that changed.
    pub(super) fn changed(self) -> u64 {
        self.updated + self.cleared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> PageRange {
        PageRange::new(start, end).unwrap()
    }

    fn change(range: PageRange, kind: ChangeKind) -> Change {
        Change { range, kind }
    }

    #[test]
    fn cells_are_no_smaller_than_a_page_and_never_too_many() {
        for size in [
            0,
            512,
            513 * 512,
            1 << 20,
            (3 << 30) + 512,
            1 << 46,
            1 << 62,
        ] {
            let cells = Cells::new(size, 128, 64);
            assert!(
                cells.each() >= PAGE_SIZE && cells.list.len() <= 128 * 64,
                "{size}"
            );
            assert!(cells.list.len() as u64 * cells.each() >= size);
        }
    }

    #[test]
    fn one_page_is_seen_and_a_full_cell_is_darkest() {
        let mut cells = Cells::new(1 << 30, 128, 64);
        let each = cells.each();
        cells.change(change(range(0, 512), ChangeKind::Update));
        cells.change(change(range(each, 2 * each), ChangeKind::Update));
        cells.change(change(range(2 * each, 3 * each), ChangeKind::Clear));
        cells.data(range(0, 4 * each));
        let (_, row) = cells.rows().next().unwrap();
        let shades: Vec<_> = row.iter().take(5).map(|cell| cells.shade(*cell)).collect();
        let expected = [
            Shade::Updated(1),
            Shade::Updated(4),
            Shade::Cleared,
            Shade::Data,
            Shade::Zero,
        ];
        assert_eq!(shades, expected);
        assert_eq!(cells.runs(row).len(), 4);
    }

    #[test]
    fn a_range_over_many_cells_is_counted_whole() {
        let mut cells = Cells::new(1 << 20, 16, 4);
        cells.change(change(range(512, 1 << 20), ChangeKind::Update));
        let sum: u64 = cells.list.iter().map(|cell| cell.changed()).sum();
        assert_eq!(sum, (1 << 20) - 512);
    }
}
