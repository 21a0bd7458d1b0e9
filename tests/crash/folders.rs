//! Folders that a command made which was then killed: nothing says that their names would outlast a loss of power.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use vhdkit::snapshot::{Access, Disk, STORE_VERSION, init};
use vhdkit::storage::create_folder;
use vhdkit::storage::fault::{Answer, Call, Observer, watch};

use crate::explore::Scratch;
use crate::recorder::Files;

/// Notes the folders that are synced.
#[derive(Default)]
struct Synced(Mutex<Vec<PathBuf>>);

impl Observer for Synced {
    fn before(&self, path: &Path, call: &Call<'_>) -> Answer {
        match call {
            Call::SyncFolder => {
                self.0.lock().unwrap().push(path.to_path_buf());
                Answer::Pretend
            }
            _ => Answer::Proceed,
        }
    }

    fn after(&self, _path: &Path, _call: &Call<'_>) {}
}

#[test]
fn a_folder_that_is_there_is_made_durable() {
    let scratch = Scratch::new();
    let folder = scratch.folder(&Files::new());
    let store = folder.path().join("store");
    fs::create_dir_all(store.join("web")).unwrap();
    init(&store, STORE_VERSION).unwrap();
    let synced = || {
        let synced = Arc::new(Synced::default());
        let watch = watch(folder.path(), Arc::clone(&synced) as _);
        (synced, watch)
    };
    let both = [store.clone(), folder.path().to_path_buf()];
    for access in [Access::Create, Access::Write] {
        let (synced, _watch) = synced();
        Disk::open(&store, "web", access).unwrap();
        let expected = if access == Access::Create {
            &both[..]
        } else {
            &[]
        };
        assert_eq!(*synced.0.lock().unwrap(), expected);
    }
    let (synced, _watch) = synced();
    create_folder(&store.join("web"), 0o700).unwrap();
    assert_eq!(*synced.0.lock().unwrap(), both);
}
