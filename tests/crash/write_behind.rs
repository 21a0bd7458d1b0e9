//! Early writeback: the system reports a failure there once, and never again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use vhdkit::storage::fault::{Answer, Call, Observer, watch};
use vhdkit::storage::{AtomicFile, Overwrite, WriteAt as _};

use crate::explore::Scratch;
use crate::recorder::{Files, read_folder};

/// Fails the first sync and lets all others succeed. Writes are only simulated, as there are many.
#[derive(Default)]
struct FirstSyncFails(AtomicUsize);

impl Observer for FirstSyncFails {
    fn before(&self, _path: &Path, call: &Call<'_>) -> Answer {
        match call {
            Call::Sync { .. } if self.0.fetch_add(1, Ordering::Relaxed) == 0 => Answer::Fail(5),
            Call::Sync { .. } | Call::SyncFolder | Call::Write { .. } => Answer::Pretend,
            _ => Answer::Proceed,
        }
    }

    fn after(&self, _path: &Path, _call: &Call<'_>) {}
}

#[test]
fn a_failure_under_way_is_a_failure_at_the_end() {
    let scratch = Scratch::new();
    let folder = scratch.folder(&Files::new());
    let observer = Arc::new(FirstSyncFails::default());
    let _watch = watch(folder.path(), Arc::clone(&observer) as _);
    let file = AtomicFile::new(folder.path().join("new")).unwrap();
    let piece = vec![1; 1 << 20];
    for n in 0..65 {
        file.file().write_all_at(&piece, n << 20).unwrap();
    }
    let begun = Instant::now();
    while observer.0.load(Ordering::Relaxed) == 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "no sync under way"
        );
        std::thread::yield_now();
    }
    let error = file.publish(Overwrite::No).unwrap_err();
    assert!(error.to_string().contains("stable storage"), "{error}");
    assert!(read_folder(folder.path()).is_empty());
}
