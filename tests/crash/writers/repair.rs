//! Repairing, and undoing a repair.

use std::path::Path;
use std::sync::Arc;

use vhdkit::Result;
use vhdkit::files::{Format, repair, take_back};
use vhdkit::vhd::CheckOptions;

use super::{data, monday, pair};
use crate::explore::{Ground, Judged, Outcome, Scratch, Writer};
use crate::ground::{holds, only, parents};
use crate::recorder::{Files, read_folder};

pub(super) fn run_repair(at: &Path) -> Result<()> {
    repair(&at.join("base"), &CheckOptions::default(), parents(), false).map(drop)
}

/// An interrupted repair is finished by the next one; the replaced bytes are saved before and can be restored.
pub(super) fn all() -> Vec<Writer> {
    let mut writers = Vec::new();
    let whole = |format| pair(format, &monday(), &monday());
    for (name, format, damage) in [
        (
            "footer cut off",
            Format::Dynamic,
            (|f| f.truncate(f.len() - 512)) as fn(&mut Vec<u8>),
        ),
        ("footer damaged", Format::Dynamic, |f| {
            let at = f.len() - 400;
            f[at] ^= 1;
        }),
        ("copy damaged", Format::Dynamic, |f| f[100] ^= 1),
        ("garbage behind", Format::Fixed, |f| f.extend(data(5, 1500))),
        ("garbage and a short footer", Format::Dynamic, |f| {
            f[3] = 0;
            f.extend(data(5, 700));
        }),
    ] {
        let mut before = whole(format);
        before.remove("diff");
        let mut damaged = before["base"].to_vec();
        damage(&mut damaged);
        let damaged = Arc::new(damaged);
        before.insert("base".to_owned(), Arc::clone(&damaged));
        let was = Arc::clone(&damaged);
        let judge = move |ground: &Ground<'_>| -> Judged {
            let folder = ground.fresh();
            let base = folder.path().join("base");
            let saved = "base.before-repair";
            let outcome = if ground.files["base"] == was {
                Outcome::Old
            } else {
                Outcome::New
            };
            if outcome == Outcome::New {
                take_back(&base, &folder.path().join(saved))
                    .map_err(|e| format!("take back: {e}"))?;
                if std::fs::read(&base).unwrap() != **was {
                    return Err("taken back it is something else".into());
                }
            }
            let folder = ground.fresh();
            let base = folder.path().join("base");
            run_repair(folder.path()).map_err(|e| format!("again: {e}"))?;
            holds(&base, &monday()).map_err(|e| format!("again: {e}"))?;
            // Each interrupted repair saved them again.
            let more = ["base.before-repair-2", "base.before-repair-3"];
            only(&folder, &["base", saved, more[0], more[1]])?;
            Ok(outcome)
        };
        writers.push(Writer {
            name: format!("repair: {name}"),
            before: before.clone(),
            run: Box::new(run_repair),
            judge: Box::new(judge),
            done: Outcome::New,
            verifies: false,
            clones: false,
        });
        writers.push(taking_back(name, &before, damaged));
    }
    writers
}

/// Undoing a repair.
fn taking_back(name: &str, damaged_files: &Files, damaged: Arc<Vec<u8>>) -> Writer {
    let scratch = Scratch::new();
    let folder = scratch.folder(damaged_files);
    run_repair(folder.path()).unwrap();
    let before = read_folder(folder.path());
    let run = |at: &Path| take_back(&at.join("base"), &at.join("base.before-repair"));
    let repaired = Arc::clone(&before["base"]);
    let judge = move |ground: &Ground<'_>| -> Judged {
        let outcome = if ground.files["base"] == repaired {
            Outcome::Old
        } else {
            Outcome::New
        };
        let folder = ground.fresh();
        run(folder.path()).map_err(|e| format!("again: {e}"))?;
        if std::fs::read(folder.path().join("base")).unwrap() != *damaged {
            return Err("taken back it is something else".into());
        }
        Ok(outcome)
    };
    Writer {
        name: format!("take a repair back: {name}"),
        before,
        run: Box::new(run),
        judge: Box::new(judge),
        done: Outcome::New,
        verifies: false,
        clones: false,
    }
}
