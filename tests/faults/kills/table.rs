//! Counts, and shows them.

use std::time::Instant;

/// What came of the kills of one writer on one file system.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) writer: &'static str,
    pub(crate) place: &'static str,
    pub(crate) kills: usize,
    /// What stood after the kill.
    pub(crate) old: usize,
    pub(crate) new: usize,
    pub(crate) between: usize,
    /// What became of those that stood in between.
    pub(crate) forward: usize,
    pub(crate) back: usize,
    /// Temporary files that were left.
    pub(crate) strays: usize,
    pub(crate) losses: usize,
}

impl Row {
    pub(crate) fn new(writer: &'static str, place: &'static str) -> Self {
        Self {
            writer,
            place,
            ..Self::default()
        }
    }

    fn numbers(&self) -> [usize; 8] {
        [
            self.kills,
            self.old,
            self.new,
            self.between,
            self.forward,
            self.back,
            self.strays,
            self.losses,
        ]
    }
}

/// All rows, each printed when it is added.
pub(crate) struct Table {
    rows: Vec<Row>,
    begun: Instant,
}

impl Table {
    pub(crate) fn begin() -> Self {
        println!(
            "old, new: what stood after the kill (old may be: no such file). between: the undo journal stood, \
             or a repair was half done; then it was finished or taken back. strays: temporary files left."
        );
        println!(
            "{:34} {:16} {:>6} {:>6} {:>6} {:>7} {:>8} {:>10} {:>6} {:>6}",
            "writer",
            "on",
            "kills",
            "old",
            "new",
            "between",
            "finished",
            "taken back",
            "strays",
            "losses"
        );
        Self {
            rows: Vec::new(),
            begun: Instant::now(),
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn add(&mut self, row: Row) {
        if row.kills > 0 {
            print(row.writer, row.place, row.numbers());
        }
        self.rows.push(row);
    }

    /// Prints the sum, and fails if anything was lost.
    pub(crate) fn end(self) {
        let mut sum = [0; 8];
        for row in &self.rows {
            for (sum, number) in sum.iter_mut().zip(row.numbers()) {
                *sum += number;
            }
        }
        print("all", "", sum);
        println!("{} s", self.begun.elapsed().as_secs());
        let [kills, old, new, between, forward, back, _, losses] = sum;
        assert_eq!(losses, 0, "something was lost");
        assert_eq!(kills, old + new + between);
        assert_eq!(between, forward + back);
        assert!(kills > 0, "no kill hit");
    }
}

fn print(writer: &str, place: &str, numbers: [usize; 8]) {
    let [kills, old, new, between, forward, back, strays, losses] = numbers;
    println!(
        "{writer:34} {place:16} {kills:6} {old:6} {new:6} {between:7} {forward:8} {back:10} {strays:6} {losses:6}"
    );
}
