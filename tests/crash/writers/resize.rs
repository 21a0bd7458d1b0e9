//! Resizing in place.

use std::path::Path;

use vhdkit::files::{Format, FormatChoice, OpenOptions, Orphans, ResizeOptions, resize};
use vhdkit::progress::Silent;

use super::repair::run_repair;
use super::{LARGER, SIZE, SMALLER, monday, pair, pair_over_parent, tuesday};
use crate::explore::{Ground, Judged, Outcome, Writer};
use crate::ground::{content, holds, holds_after_repair, only};

/// A resize has no journal: at every moment the file has the old or the new size, and its content.
pub(super) fn all() -> Vec<Writer> {
    let mut writers = Vec::new();
    for (format, size) in [
        (Format::Raw, LARGER),
        (Format::Raw, SMALLER),
        (Format::Fixed, LARGER),
        (Format::Fixed, SIZE + 512),
        (Format::Fixed, 3 << 20),
        (Format::Fixed, SMALLER),
        (Format::Dynamic, LARGER),
        // The BAT has no room for so many blocks and moves.
        (Format::Dynamic, 3 << 20),
        (Format::Dynamic, SMALLER),
        (Format::Differencing, LARGER),
    ] {
        let mut before = match format {
            Format::Differencing => pair_over_parent(&monday(), &tuesday(SIZE)),
            _ => pair(format, &monday(), &tuesday(SIZE)),
        };
        before.remove("diff");
        let run = move |at: &Path| {
            let options = ResizeOptions {
                virtual_size: size as u64,
                allow_data_loss: true,
                dry_run: false,
                dense: false,
                fix_gpt: false,
                orphans: Orphans::Refuse,
                progress: &Silent,
            };
            let open = OpenOptions {
                format: Some(FormatChoice::Only(format)),
                ..Default::default()
            };
            resize(&at.join("base"), &open, options).map(drop)
        };
        let mut new = monday();
        new.resize(size, 0);
        let judge = move |ground: &Ground<'_>| -> Judged {
            let folder = ground.fresh();
            let base = folder.path().join("base");
            let mut found = content(&base);
            if format == Format::Fixed && size > SIZE && holds(&base, &monday()).is_err() {
                // Already longer, but without a new footer: only on file systems that extend a file before its bytes
                // arrive. The old footer is found again.
                run_repair(folder.path()).map_err(|e| format!("repair: {e}"))?;
                found = content(&base);
            }
            let found = found.map_err(|e| e.to_string())?;
            let outcome = match found {
                found if found == new => Outcome::New,
                found if found == monday() => Outcome::Old,
                found => return Err(format!("{} bytes of something else", found.len())),
            };
            run(folder.path()).map_err(|e| format!("again: {e}"))?;
            holds_after_repair(&base, &new).map_err(|e| format!("{outcome:?}, again: {e}"))?;
            only(&folder, &["base", "parent", "base.before-repair"])?;
            Ok(outcome)
        };
        writers.push(Writer {
            name: format!("resize: {format} to {size}"),
            before,
            run: Box::new(run),
            judge: Box::new(judge),
            done: Outcome::New,
            verifies: false,
            clones: false,
        });
    }
    writers
}
