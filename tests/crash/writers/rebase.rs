//! Changing the parent of a differencing VHD.

use std::path::Path;

use vhdkit::Result;
use vhdkit::files::{Format, RebaseOptions, rebase};
use vhdkit::progress::Silent;

use super::{KIB, SIZE, data, files, monday, put, tuesday};
use crate::explore::{Ground, Judged, Outcome, Writer};
use crate::ground::{Disk, content, holds, make, only, open, parents};

fn run_rebase(blindly: bool) -> impl Fn(&Path) -> Result<()> {
    move |at| {
        let options = RebaseOptions {
            progress: &Silent,
            parents: parents(),
            windows_folder: None,
            blindly,
            dry_run: false,
            warn: &|_| {},
        };
        rebase(&at.join("child"), &at.join("other"), options).map(drop)
    }
}

/// A disk that differs from the parent of the child below some pages that the child stores, and below others.
fn another(parent: &[u8]) -> Disk {
    let mut disk = parent.to_vec();
    put(&mut disk, 2 * KIB, &data(70, KIB));
    put(&mut disk, 13 * KIB, &[0; 1024]);
    put(&mut disk, 20 * KIB, &data(71, 3 * KIB));
    put(&mut disk, SIZE - 1024, &data(72, 1024));
    disk
}

/// At every moment the child reads the same, over one parent or the other.
pub(super) fn all() -> Vec<Writer> {
    let mut writers = Vec::new();
    for (name, other, blindly) in [
        ("what differs is stored", another(&monday()), false),
        ("both parents hold the same", monday(), false),
        ("without a look", monday(), true),
    ] {
        let before = files(|at| {
            make(&at.join("base"), Format::Dynamic, &monday(), None)?;
            make(&at.join("other"), Format::Dynamic, &other, None)?;
            let base = at.join("base");
            make(
                &at.join("child"),
                Format::Differencing,
                &tuesday(SIZE),
                Some(&base),
            )
        });
        let judge = move |ground: &Ground<'_>| -> Judged {
            let folder = ground.fresh();
            let child = folder.path().join("child");
            let found = content(&child).map_err(|e| e.to_string())?;
            if found != tuesday(SIZE) {
                return Err("the child reads as something else".into());
            }
            let image = open(&child).map_err(|e| e.to_string())?;
            let parent = image.parent().map(|parent| parent.path().to_path_buf());
            drop(image);
            let outcome = match parent {
                Some(path) if path.ends_with("other") => Outcome::New,
                _ => Outcome::Old,
            };
            run_rebase(blindly)(folder.path()).map_err(|e| format!("{outcome:?}, again: {e}"))?;
            holds(&child, &tuesday(SIZE)).map_err(|e| format!("{outcome:?}, again: {e}"))?;
            only(&folder, &["base", "other", "child"])?;
            std::fs::remove_file(folder.path().join("base")).unwrap();
            holds(&child, &tuesday(SIZE)).map_err(|e| format!("without the old parent: {e}"))?;
            // The header is in its place again.
            let bytes = std::fs::read(&child).unwrap();
            if bytes[..512] != bytes[bytes.len() - 512..] || bytes[512..520] != *b"cxsparse" {
                return Err("the footers don't lead to the usual place".into());
            }
            Ok(outcome)
        };
        writers.push(Writer {
            name: format!("rebase: {name}"),
            before,
            run: Box::new(run_rebase(blindly)),
            judge: Box::new(judge),
            done: Outcome::New,
            verifies: false,
            clones: false,
        });
    }
    writers
}
