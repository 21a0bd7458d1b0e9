//! Merging into a parent.

use std::path::Path;

use vhdkit::Result;
use vhdkit::files::{Format, MergeOptions, merge};
use vhdkit::progress::Silent;

use super::{LARGER, SIZE, files, monday, tuesday};
use crate::explore::{Ground, Judged, Outcome, Writer};
use crate::ground::{InPlaceJudge, WORKERS, holds, make, parents};

fn run_merge(delete: bool, again: bool) -> impl Fn(&Path) -> Result<()> {
    move |at| {
        let options = MergeOptions {
            workers: &WORKERS,
            progress: &Silent,
            parents: parents(),
            verify: false,
            dry_run: false,
            dense: false,
            delete,
            warn: &|_| {},
        };
        match merge(&at.join("child"), options) {
            // A merge that was done to its end, the child included.
            Err(_) if again && !at.join("child").exists() => Ok(()),
            merged => merged.map(drop),
        }
    }
}

pub(super) fn all() -> Vec<Writer> {
    let mut writers = Vec::new();
    for (parent, size, delete, what) in [
        (Format::Fixed, SIZE, false, ""),
        (Format::Dynamic, SIZE, false, ""),
        (
            Format::Dynamic,
            LARGER,
            true,
            ", growing, then removing the child",
        ),
        (Format::Fixed, LARGER, false, ", growing"),
    ] {
        let before = files(|at| {
            make(&at.join("base"), parent, &monday(), None)?;
            make(
                &at.join("child"),
                Format::Differencing,
                &tuesday(size),
                Some(&at.join("base")),
            )
        });
        let in_place = InPlaceJudge {
            image: "base",
            old: monday(),
            new: tuesday(size),
            again: Box::new(run_merge(delete, true)),
            names: vec!["base", "child"],
        };
        let judge = move |ground: &Ground<'_>| -> Judged {
            let outcome = in_place.judge(ground)?;
            if !ground.files.contains_key("child") {
                let gone = delete && outcome == Outcome::New;
                return gone.then_some(outcome).ok_or("the child is gone".into());
            }
            if outcome != Outcome::Between && size == SIZE {
                let child = ground.fresh();
                holds(&child.path().join("child"), &tuesday(size))?;
            }
            Ok(outcome)
        };
        writers.push(Writer {
            name: format!("merge: into {parent}{what}"),
            before,
            run: Box::new(run_merge(delete, false)),
            judge: Box::new(judge),
            done: Outcome::New,
            verifies: true,
            clones: false,
        });
    }
    writers
}
