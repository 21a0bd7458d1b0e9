//! Clones: blocks that two images share aren't read, and the result is the same as if they were.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::disk::{Random, command, program, run, run_to};
use crate::mounts::Mounted;
use rustix::fs::{FallocateFlags, copy_file_range, fallocate};
use vhdkit::diff::{
    CompareOptions, Comparison, Compression, DiffOptions, Side, compare, write_diff,
};
use vhdkit::files::{Clones, OpenImage, OpenOptions, open_image};
use vhdkit::image::{Image as _, ImageMut as _, NoneShared, SharedExtents};
use vhdkit::page::{PageList, PageRange};
use vhdkit::parallel::{Work, Workers};
use vhdkit::progress::Silent;

const BLOCK: usize = 4096;
/// Blocks of the images: 12 MiB, three windows.
const BLOCKS: usize = 3072;

/// Makes `to` a clone of `from`.
fn clone(from: &Path, to: &Path) {
    run(&mut command!("cp", "--reflink=always", from, to));
}

fn open(path: &Path) -> OpenImage {
    open_image(path, &OpenOptions::default()).unwrap()
}

fn list(pair: [&OpenImage; 2], equal: &dyn SharedExtents) -> (PageList, Comparison) {
    let workers = Workers::new(None).unwrap();
    let options = CompareOptions {
        work: Work::new(&workers, &Silent),
        digests: false,
        payload: false,
        equal,
    };
    let mut list = PageList::new();
    let comparison = compare(pair[0], pair[1], options, Ok, |change| {
        list.extend(&change.changes)
    });
    (list, comparison.unwrap())
}

fn diff(pair: [&OpenImage; 2], digests: bool, equal: &dyn SharedExtents) -> Vec<u8> {
    let workers = Workers::new(None).unwrap();
    let options = DiffOptions {
        work: Work::new(&workers, &Silent),
        compression: Compression::default(),
        digests,
        equal,
        confirm: &|| Ok(()),
    };
    let side = Side::default;
    let written = write_diff(
        (pair[0], side()),
        (pair[1], side()),
        Vec::new(),
        "memory",
        options,
    );
    written.unwrap().out
}

/// The law: knowing about clones changes no result. Returns the number of bytes known to be equal.
fn same_with_and_without(base: &Path, target: &Path, what: &str) -> u64 {
    // This comes first, while the last writes are still only in memory.
    let known = {
        let pair = [base, target].map(open);
        let pair = [&pair[0], &pair[1]];
        let (found, comparison) = list(pair, &Clones::new(pair[0], pair[1]));
        let (expected, _) = list(pair, &NoneShared);
        assert!(found == expected, "{what}: another list");
        comparison.known_bytes
    };
    let pair = [base, target].map(open);
    let pair = [&pair[0], &pair[1]];
    let clones = Clones::new(pair[0], pair[1]);
    for range in clones.equal_ranges() {
        let mut bytes = [vec![1; len(range)], vec![2; len(range)]];
        for (image, bytes) in pair.iter().zip(&mut bytes) {
            image.read_exact_at(bytes, range.start()).unwrap();
        }
        assert!(bytes[0] == bytes[1], "{what}: {range:?} isn't the same");
    }
    for digests in [false, true] {
        assert!(
            diff(pair, digests, &clones) == diff(pair, digests, &NoneShared),
            "{what}: another diff, digests {digests}"
        );
    }
    known
}

fn len(range: PageRange) -> usize {
    usize::try_from(range.len()).unwrap()
}

/// Creates an image of fragments: data, runs of one byte, stored zeros, holes, and allocated space without data.
fn fragments(random: &mut Random, path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len((BLOCKS * BLOCK) as u64).unwrap();
    let mut at = 0;
    while at < BLOCKS {
        let blocks = (1 + random.below(64)).min(BLOCKS - at);
        let (offset, size) = ((at * BLOCK) as u64, blocks * BLOCK);
        match random.below(8) {
            0 => {}
            1 => fallocate(&file, FallocateFlags::empty(), offset, size as u64).unwrap(),
            2 => file.write_all_at(&vec![0; size], offset).unwrap(),
            3 => file.write_all_at(&vec![7; size], offset).unwrap(),
            _ => file.write_all_at(&random.bytes(size), offset).unwrap(),
        }
        at += blocks;
    }
}

/// Changes an image in one random way.
fn change(random: &mut Random, file: &File, other: &File) {
    let (from, to) = (random.below(BLOCKS), random.below(BLOCKS));
    let blocks = (1 + random.below(32)).min(BLOCKS - from.max(to));
    let (from, to, size) = ((from * BLOCK) as u64, (to * BLOCK) as u64, blocks * BLOCK);
    match random.below(8) {
        // A range cloned from another offset or another file.
        0 | 1 => {
            let source = if random.below(2) == 0 { file } else { other };
            let (mut from, mut to) = (from, to);
            // Overlapping ranges are refused without a change.
            let _ = copy_file_range(source, Some(&mut from), file, Some(&mut to), size);
        }
        2 => {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(file, punch, to, size as u64).unwrap();
        }
        3 => fallocate(file, FallocateFlags::empty(), to, size as u64).unwrap(),
        // The same bytes written again: no longer shared, but still equal.
        4 => {
            let mut bytes = vec![0; size];
            file.read_exact_at(&mut bytes, to).unwrap();
            file.write_all_at(&bytes, to).unwrap();
        }
        5 => file.write_all_at(&random.bytes(512), to + 512).unwrap(),
        6 => file.write_all_at(&random.bytes(1), to + 77).unwrap(),
        _ => file.write_all_at(&random.bytes(size), to).unwrap(),
    }
}

fn random_pairs(file_system: &Mounted, seeds: std::ops::Range<u64>) -> u64 {
    let mut known = 0;
    for seed in seeds {
        let random = &mut Random::new(seed);
        let [base, target] = ["base", "target"].map(|name| file_system.path().join(name));
        fragments(random, &base);
        if random.below(4) == 0 {
            File::open(&base).unwrap().sync_all().unwrap();
        }
        clone(&base, &target);
        let (b, t) = (writable(&base), writable(&target));
        for _ in 0..random.below(60) {
            match random.below(4) {
                0 => change(random, &b, &t),
                _ => change(random, &t, &b),
            }
        }
        known += same_with_and_without(&base, &target, &format!("seed {seed}"));
        fs::remove_file(&base).unwrap();
        fs::remove_file(&target).unwrap();
    }
    known
}

fn writable(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

#[test]
#[ignore = "mounts file systems: needs root"]
fn fragmented_clones_on_xfs() {
    let known = random_pairs(&Mounted::new("xfs").unwrap(), 0..40);
    assert!(known > 40 << 20, "only {known} bytes were known");
}

#[test]
#[ignore = "mounts file systems: needs root"]
fn fragmented_clones_on_btrfs() {
    let known = random_pairs(&Mounted::new("btrfs").unwrap(), 0..40);
    assert!(known > 40 << 20, "only {known} bytes were known");
}

#[test]
#[ignore = "mounts file systems: needs root"]
fn compressed_and_inline_files_on_btrfs() {
    let file_system = Mounted::new("btrfs")
        .unwrap()
        .with_options("compress-force=zstd");
    random_pairs(&file_system, 100..115);
    for size in [512, 1024, 2048] {
        let [base, target] = ["small", "clone"].map(|name| file_system.path().join(name));
        fs::write(&base, vec![5; size]).unwrap();
        clone(&base, &target);
        assert_eq!(same_with_and_without(&base, &target, "inline"), 0);
        writable(&target).write_all_at(&[6; 512], 0).unwrap();
        assert_eq!(same_with_and_without(&base, &target, "inline"), 0);
    }
}

#[test]
#[ignore = "mounts file systems: needs root"]
fn a_snapshot_of_a_subvolume_is_a_clone() {
    let file_system = Mounted::new("btrfs").unwrap();
    let [live, snapshot] = ["live", "snapshot"].map(|name| file_system.path().join(name));
    run(Command::new("btrfs")
        .args(["-q", "subvolume", "create"])
        .arg(&live));
    let disk = crate::disk::disk(1, BLOCKS * BLOCK);
    fs::write(live.join("image"), &disk).unwrap();
    run(Command::new("btrfs")
        .args(["-q", "subvolume", "snapshot", "-r"])
        .args([&live, &snapshot]));
    let [base, target] = [snapshot, live].map(|folder| folder.join("image"));
    writable(&target).write_all_at(&[1; 512], 9 << 20).unwrap();
    let known = same_with_and_without(&base, &target, "snapshot");
    assert!(known > 8 << 20, "only {known} bytes were known");
}

/// Equal bytes at equal offsets of two file systems aren't clones.
#[test]
#[ignore = "mounts file systems: needs root"]
fn two_file_systems_share_nothing() {
    let pair = [(); 2].map(|()| Mounted::new("xfs").unwrap());
    let images = [0, 1].map(|n: u8| {
        let path = pair[usize::from(n)].path().join("image");
        fs::write(&path, vec![n + 1; 1 << 20]).unwrap();
        let other = pair[usize::from(n)].path().join("clone");
        clone(&path, &other);
        path
    });
    assert_eq!(same_with_and_without(&images[0], &images[1], "two"), 0);
}

#[test]
#[ignore = "mounts file systems: needs root"]
fn cloned_vhds() {
    for kind in ["xfs", "btrfs"] {
        let file_system = Mounted::new(kind).unwrap();
        let raw = file_system.path().join("disk.raw");
        fragments(&mut Random::new(7), &raw);
        for format in ["fixed", "dynamic"] {
            let path = |name: &str| file_system.path().join(format!("{format}-{name}.vhd"));
            let [base, target] = ["base", "target"].map(path);
            run(program("vhd")
                .args(["-q", "convert", "-O", format])
                .args([&raw, &base]));
            clone(&base, &target);
            let what = format!("{kind} {format}");
            let all = same_with_and_without(&base, &target, &what);
            assert!(all > 6 << 20, "{what}: only {all} bytes were known");
            let mut image = open_image(
                &target,
                &OpenOptions {
                    writable: true,
                    ..OpenOptions::default()
                },
            )
            .unwrap();
            let random = &mut Random::new(9);
            for _ in 0..20 {
                let page = random.below(BLOCKS * BLOCK / 512 - 8) as u64;
                let range = PageRange::from_len(page * 512, 8 * 512).unwrap();
                match random.below(3) {
                    0 => image.clear(range).unwrap(),
                    _ => image.update(range, &random.bytes(8 * 512)).unwrap(),
                }
            }
            image.flush().unwrap();
            drop(image);
            let known = same_with_and_without(&base, &target, &what);
            assert!(known > 5 << 20 && known < all, "{what}: {known} of {all}");
        }
        // Different formats have different offsets in their files: the result must still be right.
        same_with_and_without(&raw, &file_system.path().join("fixed-base.vhd"), kind);
        let dynamic = file_system.path().join("dynamic-target.vhd");
        same_with_and_without(&file_system.path().join("fixed-base.vhd"), &dynamic, kind);
    }
}

#[test]
#[ignore = "mounts file systems: needs root"]
fn the_command_tells_and_can_be_told_not_to() {
    let file_system = Mounted::new("xfs").unwrap();
    let [base, target]: [PathBuf; 2] = ["base", "target"].map(|name| file_system.path().join(name));
    fs::write(&base, crate::disk::disk(3, BLOCKS * BLOCK)).unwrap();
    clone(&base, &target);
    for (how, text) in [
        ("--no-holes", "12582912 bytes (12 MiB) not compared"),
        ("--no-clones", " 0 bytes not compared"),
    ] {
        let output = run(&mut command!("vhd-diff", &base, &target, "-v", how));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(text), "{how}: {stderr}");
    }
    writable(&target).write_all_at(&[1], 5 << 20).unwrap();
    run_to(&mut command!("vhd-diff", &base, &target), 1);
}
