//! `vhd merge` with the real binary: its results, and that killing it does no harm.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vhdkit::files::{OpenOptions, ParentOptions, open_image};
use vhdkit::image::{Image, ImageMut as _};
use vhdkit::page::PageRange;

use crate::disk::{Random, TestFolder, assert_same, changed, command, run, run_to};

const SIZE: usize = 3 << 20;
const KINDS: [&str; 6] = [
    "raw",
    "fixed",
    "dynamic",
    "small-blocks",
    "differencing",
    "empty",
];

/// Serializes the tests: a process started by another test holds our locks until it executes its program.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A parent, its child, and the content of each.
struct Pair {
    folder: TestFolder,
    parent: PathBuf,
    child: PathBuf,
    raw: bool,
    old: Vec<u8>,
    new: Vec<u8>,
}

fn options(path: &Path, writable: bool) -> OpenOptions {
    let raw = path.extension().is_some_and(|e| e == "raw");
    OpenOptions {
        format: raw
            .then(|| "raw".parse::<vhdkit::files::Format>().unwrap())
            .map(vhdkit::files::FormatChoice::Only),
        writable,
        parents: ParentOptions {
            allow_raw: true,
            ..ParentOptions::default()
        },
        ..OpenOptions::default()
    }
}

/// Returns the content of an image.
fn read(path: &Path) -> Vec<u8> {
    let image = open_image(path, &options(path, false)).unwrap_or_else(|e| panic!("{e:?}"));
    let mut bytes = vec![0; usize::try_from(image.virtual_size()).unwrap()];
    image.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Changes the content of an image from `old` to `new`.
fn write(path: &Path, old: &[u8], new: &[u8]) {
    let mut image = open_image(path, &options(path, true)).unwrap();
    for (n, page) in new.chunks(512).enumerate() {
        let start = n * 512;
        if old.get(start..start + 512).is_some_and(|old| old == page) {
            continue;
        }
        let range = PageRange::from_len(start as u64, 512).unwrap();
        if page.iter().all(|byte| *byte == 0) {
            image.clear(range).unwrap();
        } else {
            image.update(range, page).unwrap();
        }
    }
    image.flush().unwrap();
}

impl Pair {
    fn new(kind: &str, size: usize, seed: u64) -> Self {
        let folder = TestFolder::new();
        let raw = kind == "raw";
        let parent = folder.path(if raw { "parent.raw" } else { "parent.vhd" });
        let (mut old, vhd) = (crate::disk::disk(seed, SIZE), "vhd");
        if kind == "empty" {
            old.fill(0);
        }
        if kind == "differencing" {
            let base = folder.path("base.vhd");
            let first = changed(seed + 9, &old);
            run(&mut command!(
                vhd,
                "create",
                &base,
                "--size",
                (SIZE - 512).to_string()
            ));
            write(&base, &[], &first[..SIZE - 512]);
            let size = SIZE.to_string();
            run(&mut command!(
                vhd,
                "create",
                &parent,
                "--parent",
                &base,
                "--size",
                size,
                "--block-size",
                "64K"
            ));
            write(&parent, &first[..SIZE - 512], &old);
        } else {
            let format = match kind {
                "small-blocks" | "empty" => "dynamic",
                other => other,
            };
            let mut create = command!(
                vhd,
                "create",
                &parent,
                "-O",
                format,
                "--size",
                SIZE.to_string()
            );
            if kind == "small-blocks" {
                create.args(["--block-size", "4K"]);
            }
            run(&mut create);
            write(&parent, &[], &old);
        }
        let child = folder.path("child.vhd");
        let mut create = command!(
            vhd,
            "create",
            &child,
            "--parent",
            &parent,
            "--size",
            size.to_string()
        );
        if raw {
            create.arg("--raw-parent");
        }
        run(&mut create);
        let mut new = changed(seed + 1, &old);
        new.resize(size, 0);
        if size > SIZE {
            let bytes = Random::new(seed).bytes(4096);
            new[size - 4096..].copy_from_slice(&bytes);
        }
        write(&child, &old, &new);
        assert_same(&read(&child), &new, "the child");
        Self {
            folder,
            parent,
            child,
            raw,
            old,
            new,
        }
    }

    fn merge(&self) -> std::process::Command {
        let mut merge = command!("vhd", "merge", &self.child);
        if self.raw {
            merge.arg("--raw-parent");
        }
        merge
    }

    fn assert_no_trace(&self) {
        for name in self.folder.names() {
            assert!(
                !name.contains("journal") && !name.contains("merge-diff"),
                "{name}"
            );
        }
    }
}

fn identity(path: &Path) -> Option<vhdkit::vhd::UniqueId> {
    let image = open_image(path, &options(path, false)).unwrap();
    image.vhd().map(|vhd| vhd.footer().unique_id)
}

#[test]
fn the_parent_comes_to_hold_what_the_child_reads_as() {
    let _turn = turn();
    for (n, kind) in KINDS.into_iter().enumerate() {
        for size in [SIZE, SIZE + 512, 2 * SIZE] {
            let pair = Pair::new(kind, size, n as u64);
            let before = identity(&pair.parent);
            let bytes = fs::read(&pair.parent).unwrap();
            run(pair.merge().arg("--dry-run"));
            assert!(fs::read(&pair.parent).unwrap() == bytes, "{kind}: dry run");
            pair.assert_no_trace();

            run(pair.merge().args((n % 2 == 0).then_some("--verify")));
            assert_same(&read(&pair.parent), &pair.new, kind);
            assert_same(&read(&pair.child), &pair.new, kind);
            assert_eq!(identity(&pair.parent), before);
            pair.assert_no_trace();

            // Again: nothing is left to do but to remove the child.
            let bytes = fs::read(&pair.parent).unwrap();
            let again = run(pair.merge().args(["--json", "--delete"]));
            assert!(String::from_utf8_lossy(&again.stdout).contains("already_merged"));
            assert!(fs::read(&pair.parent).unwrap() == bytes);
            assert!(!pair.child.exists() && pair.parent.exists());
        }
    }
}

#[test]
fn a_chain_becomes_one_new_image() {
    let _turn = turn();
    let pair = Pair::new("differencing", SIZE + 512, 5);
    let whole = pair.folder.path("whole.vhd");
    run(pair.merge().arg("-o").arg(&whole));
    assert_same(&read(&whole), &pair.new, "whole");
    assert_same(&read(&pair.parent), &pair.old, "the parent");
    run_to(pair.merge().arg("-o").arg(&pair.parent).arg("--force"), 2);
    run_to(
        pair.merge()
            .arg("-o")
            .arg(pair.folder.path("base.vhd"))
            .arg("--force"),
        2,
    );
    assert_same(&read(&pair.child), &pair.new, "the child");
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let _turn = turn();
    let pair = Pair::new("dynamic", SIZE, 6);
    run_to(&mut command!("vhd", "merge", &pair.parent), 2);
    run_to(
        &mut command!("vhd", "merge", pair.folder.path("none.vhd")),
        2,
    );

    // The parent is in use.
    let lock = fs::File::open(&pair.parent).unwrap();
    lock.lock_shared().unwrap();
    run_to(&mut pair.merge(), 5);
    drop(lock);
    let lock = fs::File::open(&pair.child).unwrap();
    lock.lock().unwrap();
    run_to(&mut pair.merge(), 5);
    drop(lock);

    // With another parent, or none.
    let kept = pair.folder.path("kept");
    fs::rename(&pair.parent, &kept).unwrap();
    run_to(&mut pair.merge(), 2);
    run(&mut command!("vhd", "create", &pair.parent, "--size", "3M"));
    run_to(&mut pair.merge(), 3);
    run(pair.merge().arg("--parent").arg(&kept));
    assert_same(&read(&kept), &pair.new, "the parent by another name");
}

/// `tests/faults/kills` kills merges anywhere; this checks the messages afterwards, and what else may be done.
#[test]
fn a_merge_that_was_killed_is_finished_or_taken_back() {
    let _turn = turn();
    for (n, kind) in KINDS.into_iter().enumerate() {
        let size = SIZE + (n % 2) * (256 << 10);
        for back in [true, false] {
            let pair = Pair::new(kind, size, n as u64);
            let mut points = crate::kill::points(&Pair::new(kind, size, n as u64).merge());
            // The journal is complete, and all of the parent but its last part is written.
            points.retain(|point| point.call == "pwrite64");
            assert!(crate::kill::killed_at(
                &pair.merge(),
                points.last().unwrap()
            ));
            let refused = run_to(&mut command!("vhd", "info", &pair.parent), 5);
            let text = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(text.contains("vhd merge child.vhd"), "{text}");
            assert!(text.contains("vhd-apply --rollback"), "{text}");
            run(pair.merge().arg("--dry-run"));
            if back {
                run(&mut command!("vhd-apply", "--rollback", &pair.parent));
                assert_same(&read(&pair.parent), &pair.old, kind);
                assert_same(&read(&pair.child), &pair.new, kind);
            } else {
                run(&mut pair.merge());
                assert_same(&read(&pair.parent), &pair.new, kind);
            }
            pair.assert_no_trace();
        }
    }
}
