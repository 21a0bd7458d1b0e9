//! An undo diff on another file system can't be renamed: it is copied, and only then is the journal removed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use vhdkit::files::InPlace;
use vhdkit::storage::fault::{Answer, Call, Observer, watch};

use crate::explore::Scratch;
use crate::ground::{apply, apply_options, chain, holds};
use crate::writers::{self, monday};

const EXDEV: i32 = 18;

/// Forbids all renames except to new names, and records names in the order in which they come and go.
#[derive(Default)]
struct OtherFileSystem(Mutex<Vec<String>>);

impl Observer for OtherFileSystem {
    fn before(&self, _path: &Path, call: &Call<'_>) -> Answer {
        match call {
            Call::Rename { replaces: true, .. } => Answer::Fail(EXDEV),
            Call::Sync { .. } | Call::SyncFolder => Answer::Pretend,
            _ => Answer::Proceed,
        }
    }

    fn after(&self, path: &Path, call: &Call<'_>) {
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let event = match call {
            Call::Rename { to, .. } => format!("{} comes", name(to)),
            Call::Remove => format!("{} goes", name(path)),
            _ => return,
        };
        self.0.lock().unwrap().push(event);
    }
}

#[test]
fn the_undo_diff_is_copied_and_nobody_else_may_read_it() {
    let writer = writers::find("apply in place: raw");
    let scratch = Scratch::new();
    let folder = scratch.folder(&writer.before);
    let (base, undo) = (folder.path().join("base"), folder.path().join("undo"));
    fs::set_permissions(&base, fs::Permissions::from_mode(0o600)).unwrap();
    let observer = Arc::new(OtherFileSystem::default());
    let watch = watch(folder.path(), Arc::clone(&observer) as _);
    let how = InPlace {
        undo: Some(&undo),
        ..InPlace::default()
    };
    apply(folder.path(), how, apply_options()).unwrap();
    drop(watch);
    let events = observer.0.lock().unwrap();
    let named: Vec<&str> = events
        .iter()
        .map(String::as_str)
        .filter(|e| !e.starts_with(".vhdkit"))
        .collect();
    assert_eq!(
        named,
        [
            "base.undo-journal comes",
            "undo comes",
            "base.undo-journal goes"
        ]
    );
    let mode = fs::metadata(&undo).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let undo = chain(folder.path(), "undo").unwrap();
    vhdkit::files::apply_in_place(&base, undo, InPlace::default(), apply_options()).unwrap();
    holds(&base, &monday()).unwrap();
}
