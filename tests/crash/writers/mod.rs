//! Every command that writes. Adding one takes a few lines: the folder before it, the command, and the judge in
//! `ground` that checks its promise.

mod fetched;
mod in_place;
mod merge;
mod new_files;
mod rebase;
mod repair;
mod resize;
mod store;

use std::path::Path;
use std::sync::LazyLock;

use vhdkit::Result;
use vhdkit::files::{Format, Strategy};
use vhdkit::storage::Overwrite;

use crate::explore::{Scratch, Writer};
use crate::ground::{Disk, diff, make};
use crate::recorder::{Files, read_folder};

pub(crate) use in_place::{apply_writer, interrupted_pair, wrong_base};

const KIB: usize = 1 << 10;
/// Ten blocks and three pages.
pub(crate) const SIZE: usize = 41 * KIB + 512;
const LARGER: usize = 55 * KIB;
const SMALLER: usize = 18 * KIB;
/// More than the 4 MiB that are compared at once.
const FAR: usize = (4 << 20) + 64 * KIB;

/// Returns bytes that differ in each page and are never zero.
fn data(seed: usize, len: usize) -> Vec<u8> {
    let byte = |n: usize| u8::try_from((seed * 31 + n / 512 * 7 + n % 5) % 255 + 1).unwrap();
    (0..len).map(byte).collect()
}

fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    let end = disk.len().min(at + bytes.len());
    if at < end {
        disk[at..end].copy_from_slice(&bytes[..end - at]);
    }
}

/// Some blocks hold data, some only in part, others nothing.
pub(crate) fn monday() -> Disk {
    let mut disk = vec![0; SIZE];
    for (at, len) in [(0, 4), (4, 6), (13, 2), (24, 4), (32, 9)] {
        put(&mut disk, at * KIB, &data(at, len * KIB));
    }
    disk
}

/// The same disk later, with another size: pages changed and cleared in blocks with data, and data in empty blocks.
pub(crate) fn tuesday(size: usize) -> Disk {
    let mut disk = monday();
    disk.resize(size, 0);
    put(&mut disk, 512, &data(90, 512));
    put(&mut disk, 6 * KIB, &data(91, 1024));
    put(&mut disk, 8 * KIB, &[0; 2048]);
    put(&mut disk, 17 * KIB, &data(92, 512));
    put(&mut disk, 24 * KIB, &[0; 4096]);
    put(&mut disk, 28 * KIB + 512, &data(93, 512));
    put(&mut disk, size - 512, &data(94, 512));
    disk
}

/// Returns the files that `build` makes in a folder.
fn files(build: impl FnOnce(&Path) -> Result<()>) -> Files {
    let scratch = Scratch::new();
    let folder = scratch.folder(&Files::new());
    build(folder.path()).unwrap();
    read_folder(folder.path())
}

/// Creates a base and a diff to a target from the given disks.
fn pair(format: Format, old: &[u8], new: &[u8]) -> Files {
    let mut files = files(|at| {
        make(&at.join("base"), format, old, None)?;
        make(&at.join("target"), format, new, None)?;
        diff(
            &at.join("base"),
            &at.join("target"),
            &at.join("diff"),
            Overwrite::No,
        )
    });
    files.remove("target");
    files
}

/// Creates a base that has a parent, and a diff to a target.
fn pair_over_parent(old: &[u8], new: &[u8]) -> Files {
    let mut files = files(|at| {
        let mut parent = old.to_vec();
        put(&mut parent, 12 * KIB, &data(7, 6 * KIB));
        put(&mut parent, 24 * KIB, &data(8, 6 * KIB));
        make(&at.join("parent"), Format::Dynamic, &parent, None)?;
        make(
            &at.join("base"),
            Format::Differencing,
            old,
            Some(&at.join("parent")),
        )?;
        make(&at.join("target"), Format::Raw, new, None)?;
        diff(
            &at.join("base"),
            &at.join("target"),
            &at.join("diff"),
            Overwrite::No,
        )
    });
    files.remove("target");
    files
}

static ALL: LazyLock<Vec<Writer>> = LazyLock::new(|| {
    let mut writers = in_place::applies();
    writers.push(in_place::two_diffs(Format::Raw));
    writers.push(in_place::two_diffs(Format::Dynamic));
    writers.extend(in_place::recoveries());
    for format in [Format::Raw, Format::Dynamic] {
        for strategy in [Strategy::Journal, Strategy::Copy, Strategy::Clone] {
            writers.push(in_place::keeps_undo(strategy, format));
        }
    }
    writers.extend(merge::all());
    writers.extend(rebase::all());
    writers.extend(resize::all());
    writers.extend(repair::all());
    writers.extend(new_files::all());
    writers.extend(fetched::all());
    writers.extend(store::all());
    writers
});

/// Returns all writers.
pub(crate) fn all() -> &'static [Writer] {
    &ALL
}

/// Returns the writer of that name.
pub(crate) fn find(name: &str) -> &'static Writer {
    let found = all().iter().find(|writer| writer.name == name);
    found.unwrap_or_else(|| panic!("no writer {name}"))
}
