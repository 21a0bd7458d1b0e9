//! Merging into a parent.

use std::path::Path;

use vhdkit::Result;
use vhdkit::files::{Format, MergeOptions, Orphans, merge};
use vhdkit::parallel::Work;
use vhdkit::progress::Silent;

use super::{KIB, LARGER, SIZE, data, files, monday, put, tuesday};
use crate::explore::{Ground, Judged, Outcome, Writer};
use crate::ground::{InPlaceJudge, WORKERS, content, holds, make, parents};

fn run_merge(delete: bool, again: bool) -> impl Fn(&Path) -> Result<()> {
    move |at| {
        let options = MergeOptions {
            work: Work::new(&WORKERS, &Silent),
            parents: parents(),
            verify: false,
            dry_run: false,
            dense: false,
            delete,
            orphans: Orphans::Refuse,
            windows_folder: None,
            warn: &|_| {},
        };
        match merge(&at.join("child"), options) {
            // A merge that was completed, including the child.
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
    writers.push(with_heirs());
    writers
}

/// Merging the middle of a chain: the children of the child get the parent as theirs, then the child is removed.
fn with_heirs() -> Writer {
    let (old, new) = (monday(), tuesday(SIZE));
    let heirs = ["first", "second"];
    let of_heir = |n: usize| {
        let mut disk = tuesday(SIZE);
        put(&mut disk, (3 + 9 * n) * KIB, &data(60 + n, 2 * KIB));
        disk
    };
    let before = files(|at| {
        make(&at.join("base"), Format::Dynamic, &old, None)?;
        let (base, child) = (at.join("base"), at.join("child"));
        make(&child, Format::Differencing, &new, Some(&base))?;
        for (n, heir) in heirs.iter().enumerate() {
            make(
                &at.join(heir),
                Format::Differencing,
                &of_heir(n),
                Some(&child),
            )?;
        }
        Ok(())
    });
    let in_place = InPlaceJudge {
        image: "base",
        old,
        new,
        again: Box::new(run_merge(true, true)),
        names: vec!["base", "child", "first", "second"],
    };
    let judge = move |ground: &Ground<'_>| -> Judged {
        let outcome = in_place.judge(ground)?;
        let gone = !ground.files.contains_key("child");
        if gone && outcome != Outcome::New {
            return Err("the child is gone".into());
        }
        let folder = ground.fresh();
        if outcome != Outcome::Between {
            for (n, heir) in heirs.iter().enumerate() {
                let found =
                    content(&folder.path().join(heir)).map_err(|e| format!("{heir}: {e}"))?;
                if found != of_heir(n) {
                    return Err(format!("{heir} reads as something else"));
                }
            }
        }
        run_merge(true, true)(folder.path()).map_err(|e| format!("{outcome:?}, again: {e}"))?;
        if folder.path().join("child").exists() {
            return Err("the child is still there".into());
        }
        for (n, heir) in heirs.iter().enumerate() {
            holds(&folder.path().join(heir), &of_heir(n))
                .map_err(|e| format!("{outcome:?}, again: {heir}: {e}"))?;
        }
        // Its content doesn't show what happened after the parent was merged.
        Ok(outcome)
    };
    Writer {
        name: "merge: in the middle of a chain".to_owned(),
        before,
        run: Box::new(run_merge(true, false)),
        judge: Box::new(judge),
        done: Outcome::New,
        verifies: true,
        clones: false,
    }
}
