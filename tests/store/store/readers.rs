//! Who reads a point in time keeps nobody from the store, and what is read stays the same to the byte.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use vhdkit::files::Opened;

use crate::disk::{Random, assert_same, changed, disk};
use crate::store::lab::Lab;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A store with five snapshots of one disk, of these bytes.
fn store(lab: &Lab, format: &str) -> Vec<Vec<u8>> {
    let mut all = vec![disk(31, 9 << 20)];
    for (n, name) in NAMES.iter().enumerate() {
        let image = lab.image(name, &all[n], format);
        lab.add(name, &image);
        let mut next = changed(40 + n as u64, &all[n]);
        next.resize((9 << 20) + (n << 16), 3);
        all.push(next);
    }
    all
}

fn open(lab: &Lab, name: &str) -> Box<dyn Opened> {
    vhdkit::open(PathBuf::from(format!(
        "{}::web@{name}",
        lab.path("store").to_str().unwrap()
    )))
    .unwrap()
}

fn all_of(image: &dyn Opened) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(image.virtual_size()).unwrap()];
    image.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// While threads read every point, each command that changes the store runs, the deletion of what is read too.
#[test]
fn the_store_changes_under_readers_who_notice_nothing() {
    let lab = Lab::new();
    let all = store(&lab, "raw");
    let points: Vec<_> = NAMES.iter().map(|name| open(&lab, name)).collect();
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for (n, point) in points.iter().enumerate() {
            let (expected, done, reads) = (&all[n], &done, &reads);
            scope.spawn(move || {
                let mut random = Random::new(n as u64);
                while !done.load(Ordering::Relaxed) {
                    let len = 1 + random.below(70_000);
                    let at = random.below(expected.len() - len);
                    let mut bytes = vec![0; len];
                    point.read_exact_at(&mut bytes, at as u64).unwrap();
                    assert_same(&bytes, &expected[at..at + len], NAMES[n]);
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let changes = || {
            let image = lab.image("f", &all[5], "raw");
            lab.add("f", &image);
            lab.good(&["copy", "--init", "--to", lab.path("far").to_str().unwrap()]);
            lab.good(&["delete", "c"]);
            lab.good(&["delete", "a"]);
            lab.good(&["verify", "--read-data"]);
            lab.assert_restores("b", &all[1]);
            lab.good(&["prune", "--keep-last", "1"]);
            lab.good(&["verify", "--read-data"]);
            lab.assert_restores("f", &all[5]);
            lab.good(&["repair"]);
        };
        let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(changes));
        done.store(true, Ordering::Relaxed);
        changed.unwrap();
    });
    assert!(reads.load(Ordering::Relaxed) > 0);
    for (n, point) in points.iter().enumerate() {
        assert_same(&all_of(&**point), &all[n], NAMES[n]);
        point.check_unchanged().unwrap();
    }
    // And the whole disk.
    lab.good(&["delete", "--last", "f"]);
    assert_same(&all_of(&*points[2]), &all[2], "c");
    drop(points);
}

/// A base that nobody reads is still changed where it is, which takes no room; one that is read gets a successor.
#[test]
fn only_a_base_that_is_read_is_made_anew() {
    let lab = Lab::new();
    let all = store(&lab, "dynamic");
    let inode = |ending: &str| fs::metadata(lab.file(ending)).unwrap().ino();
    let before = inode(".vhd");
    lab.good(&["delete", "a"]);
    assert_eq!(inode(".vhd"), before);
    let point = open(&lab, "c");
    lab.good(&["delete", "b"]);
    assert_ne!(inode(".vhd"), before);
    assert!(lab.file(".vhd").ends_with("000003-c.vhd"));
    assert_same(&all_of(&*point), &all[2], "c");
    lab.assert_restores("c", &all[2]);
    lab.assert_restores("e", &all[4]);
    lab.good(&["verify", "--read-data"]);
    drop(point);
    let before = inode(".vhd");
    lab.good(&["delete", "c"]);
    assert_eq!(inode(".vhd"), before);
    lab.assert_restores("d", &all[3]);
}

/// What is changed behind the store's back while it is read is still found.
#[test]
fn a_file_that_is_written_to_is_noticed() {
    let lab = Lab::new();
    store(&lab, "raw");
    let point = open(&lab, "b");
    point.check_unchanged().unwrap();
    for ending in ["-b.vhddiff", ".vhd"] {
        let point = open(&lab, "b");
        let path = lab.file(ending);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes).unwrap();
        let error = point.check_unchanged().unwrap_err();
        assert_eq!(error.kind(), vhdkit::ErrorKind::Changed, "{ending}");
    }
}
