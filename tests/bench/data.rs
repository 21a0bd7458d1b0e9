//! The images: made from a seed, the same on every machine, and compared without any of our library.

use std::fs::{self, File};
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rayon::prelude::*;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use super::Result;
use super::listed::CHANGE;
use super::run::Step;

const PAGE: usize = 512;
/// Unit of holes.
const RUN: u64 = 1 << 20;
/// Unit of change.
const REGION: u64 = 64 << 10;
/// Bytes read at once.
const CHUNK: u64 = 256 << 10;

/// What a number is drawn for: the same place gives independent numbers for each.
#[derive(Debug, Clone, Copy)]
enum Draw {
    Content = 1,
    NewContent,
    Hole,
    Changed,
    Cleared,
    Page,
}

/// Makes `base` and `target`, and `same` with the content of `base`: random data with 30 % holes in runs of 1 MiB.
/// In the target 1 % of the regions of 64 KiB are changed, every tenth of these to zeros, and 200 single pages.
pub(crate) fn make_pair(base: &Path, same: &Path, target: &Path, size: u64) -> Result<()> {
    let files = [base, same, target].map(|path| new_file(path, size));
    let [base, same, target] = files;
    let (base, same, target) = (base?, same?, target?);
    (0..size.div_ceil(RUN)).into_par_iter().try_for_each_init(
        || vec![0; to_usize(RUN)],
        |buffer, run| {
            let start = run * RUN;
            let bytes = &mut buffer[..to_usize(RUN.min(size - start))];
            if draw(Draw::Hole, run) % 10 >= 3 {
                fill(Draw::Content, run, bytes);
                base.write_all_at(bytes, start)?;
                same.write_all_at(bytes, start)?;
                target.write_all_at(bytes, start)?;
            }
            for region in (start..start + bytes.len() as u64).step_by(to_usize(REGION)) {
                let len = to_usize(REGION.min(size - region));
                if draw(Draw::Changed, region).is_multiple_of(100) {
                    if draw(Draw::Cleared, region).is_multiple_of(10) {
                        bytes[..len].fill(0);
                    } else {
                        fill(Draw::NewContent, region, &mut bytes[..len]);
                    }
                    target.write_all_at(&bytes[..len], region)?;
                }
            }
            io::Result::Ok(())
        },
    )?;
    let mut page = [0; PAGE];
    for n in 0..200 {
        fill(Draw::Page, n, &mut page);
        let at = draw(Draw::Page, n) % (size / PAGE as u64);
        target.write_all_at(&page, at * PAGE as u64)?;
    }
    [base, same, target].iter().try_for_each(File::sync_all)?;
    Ok(())
}

/// Makes a disk that [`change_disk`] goes on with: random data with 30 % holes in runs of 1 MiB.
pub(crate) fn make_disk(path: &Path, size: u64) -> Result<()> {
    let file = new_file(path, size)?;
    let mut bytes = vec![0; to_usize(RUN)];
    for start in (0..size).step_by(to_usize(RUN)) {
        let run = start / RUN;
        if draw(Draw::Hole, run) % 10 >= 3 {
            let len = to_usize(RUN.min(size - start));
            fill(Draw::Content, run, &mut bytes[..len]);
            file.write_all_at(&bytes[..len], start)?;
        }
    }
    file.sync_all()?;
    Ok(())
}

/// Changes about 1 % of a disk: ten clusters of a thousandth each, of which one becomes a hole, and 64 blocks of 4 KiB.
/// Which ones and to what depends on `day` alone.
pub(crate) fn change_disk(path: &Path, size: u64, day: u64) -> Result<()> {
    const BLOCK: u64 = 4096;
    let file = File::options().write(true).open(path)?;
    let place = |n: u64| mix(day).wrapping_add(n);
    let somewhere = |n, len: u64| {
        let at = draw(Draw::Changed, place(n)) % ((size - len) / BLOCK + 1);
        at * BLOCK
    };
    let cluster = (size / 1000 / BLOCK).max(1) * BLOCK;
    let mut bytes = vec![0; to_usize(cluster)];
    for n in 0..10 {
        let at = somewhere(n, cluster);
        if n == 9 {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&file, hole, at, cluster)?;
        } else {
            fill(Draw::NewContent, place(n), &mut bytes);
            file.write_all_at(&bytes, at)?;
        }
    }
    for n in 10..74 {
        let block = &mut bytes[..to_usize(BLOCK)];
        fill(Draw::NewContent, place(n), block);
        file.write_all_at(block, somewhere(n, BLOCK))?;
    }
    file.sync_all()?;
    Ok(())
}

/// Bytes of a piece of data in a sparse image.
pub(crate) const PIECE: u64 = CHUNK;

/// Makes a pair of nearly empty images: `pieces` of 256 KiB spread over `size`, every twentieth changed, every
/// fortieth changed to zeros.
pub(crate) fn make_sparse_pair(base: &Path, target: &Path, size: u64, pieces: u64) -> Result<()> {
    let apart = size / pieces;
    let place = |n: u64| n * apart + draw(Draw::Content, n) % (apart / PIECE) * PIECE;
    make_pieces(base, target, size, pieces, place)
}

/// Makes a disk of `size` with `pieces` of 256 KiB spread over it, calls `snapshot`, then writes `count` changes of
/// [`CHANGE`] bytes, half of them over data. `alone` gets what they hold, one after the other. Returns where they are,
/// in order.
pub(crate) fn make_listed(
    disk: &Path,
    alone: &Path,
    (size, pieces, count): (u64, u64, u64),
    snapshot: impl FnOnce() -> Result<()>,
) -> Result<Vec<u64>> {
    let file = new_file(disk, size)?;
    let apart = size / pieces;
    let mut bytes = vec![0; to_usize(PIECE)];
    for n in 0..pieces {
        fill(Draw::Content, n, &mut bytes);
        file.write_all_at(&bytes, n * apart)?;
    }
    file.sync_all()?;
    snapshot()?;
    let alone = new_file(alone, count * CHANGE)?;
    let change = &mut bytes[..to_usize(CHANGE)];
    let mut changed = Vec::new();
    for n in 0..count {
        let piece = n * (pieces / count);
        let at = piece * apart + if n.is_multiple_of(2) { 0 } else { PIECE };
        fill(Draw::NewContent, n, change);
        file.write_all_at(change, at)?;
        alone.write_all_at(change, n * CHANGE)?;
        changed.push(at);
    }
    file.sync_all()?;
    alone.sync_all()?;
    Ok(changed)
}

/// The same pieces, one behind the other.
pub(crate) fn make_dense_pair(base: &Path, target: &Path, pieces: u64) -> Result<()> {
    make_pieces(base, target, pieces * PIECE, pieces, |n| n * PIECE)
}

fn make_pieces(
    base: &Path,
    target: &Path,
    size: u64,
    pieces: u64,
    place: impl Fn(u64) -> u64,
) -> Result<()> {
    let (base, target) = (new_file(base, size)?, new_file(target, size)?);
    let mut bytes = vec![0; to_usize(PIECE)];
    for n in 0..pieces {
        let at = place(n);
        fill(Draw::Content, n, &mut bytes);
        base.write_all_at(&bytes, at)?;
        match n % 40 {
            0 => bytes.fill(0),
            20 => fill(Draw::NewContent, n, &mut bytes),
            _ => {}
        }
        target.write_all_at(&bytes, at)?;
    }
    [base, target].iter().try_for_each(File::sync_all)?;
    Ok(())
}

/// Writes other data to half a percent of the regions of 64 KiB; which ones and what depends on `round`.
pub(crate) fn rewrite_regions(path: &Path, round: u64, size: u64) -> Result<()> {
    let file = File::options().write(true).open(path)?;
    let mut bytes = vec![0; to_usize(REGION)];
    for n in 0..size / REGION / 200 {
        let place = mix(round) ^ n;
        fill(Draw::NewContent, place, &mut bytes);
        file.write_all_at(
            &bytes,
            draw(Draw::Changed, place) % (size / REGION) * REGION,
        )?;
    }
    Ok(())
}

/// Writes other data to `count` pieces of `len` bytes; which ones and what depends on `round`.
pub(crate) fn rewrite_blocks(
    path: &Path,
    round: u64,
    size: u64,
    (count, len): (u64, u64),
) -> Result<()> {
    let file = File::options().write(true).open(path)?;
    let mut bytes = vec![0; to_usize(len)];
    for n in 0..count {
        let place = mix(round) ^ n;
        fill(Draw::NewContent, place, &mut bytes);
        file.write_all_at(&bytes, draw(Draw::Changed, place) % (size / len) * len)?;
    }
    Ok(())
}

/// Changed pages of 4 KiB in the scattered pair.
pub(crate) const SCATTERED: u64 = 200_000;

/// Pages in the scattered pair for each one that changed: 64 GiB for all of them.
const SCATTERED_APART: u64 = (64 << 30) / 4096 / SCATTERED;

/// What the scattered pages hold.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Version {
    Before,
    After,
}

/// Makes two images that hold `count` lonely pages of 4 KiB, all different.
pub(crate) fn make_scattered(base: &Path, target: &Path, count: u64) -> Result<()> {
    for (path, version) in [(base, Version::Before), (target, Version::After)] {
        new_file(path, count * SCATTERED_APART * 4096)?;
        write_scattered(path, version, count)?;
    }
    Ok(())
}

/// Writes those pages in ascending order, and syncs: what any program that applies such a change has to do.
pub(crate) fn write_scattered(path: &Path, version: Version, count: u64) -> Result<()> {
    let file = File::options().write(true).open(path)?;
    let what = match version {
        Version::Before => Draw::Content,
        Version::After => Draw::NewContent,
    };
    let apart = SCATTERED_APART;
    let mut bytes = vec![0; 4096];
    for n in 0..count {
        fill(what, n, &mut bytes);
        let at = (n * apart + draw(Draw::Changed, n) % apart) * 4096;
        file.write_all_at(&bytes, at)?;
    }
    file.sync_data()?;
    Ok(())
}

/// Makes `base` of random data, and `target` as a clone of it with `writes` of 4 KiB, scattered.
pub(crate) fn make_clones(base: &Path, target: &Path, size: u64, writes: u64) -> Result<()> {
    let file = new_file(base, size)?;
    let mut bytes = vec![0; to_usize(RUN)];
    for run in 0..size / RUN {
        fill(Draw::Content, run, &mut bytes);
        file.write_all_at(&bytes, run * RUN)?;
    }
    file.sync_all()?;
    let clone = Step::new("cp").arg("--reflink=always");
    clone.arg(base).arg(target).run()?;
    let file = File::options().write(true).open(target)?;
    for n in 0..writes {
        fill(Draw::NewContent, n, &mut bytes[..4096]);
        file.write_all_at(
            &bytes[..4096],
            draw(Draw::Changed, n) % (size / 4096) * 4096,
        )?;
    }
    file.sync_all()?;
    Ok(())
}

/// Makes a file of what turns `base` into `target`: for each run of changed pages its offset and length, 8 bytes
/// each, and its bytes.
pub(crate) fn make_patch(base: &Path, target: &Path, patch: &Path) -> Result<()> {
    let (base, target) = (File::open(base)?, File::open(target)?);
    let size = target.metadata()?.len();
    let mut out = io::BufWriter::new(File::create(patch)?);
    let (mut old, mut new) = (vec![0; to_usize(CHUNK)], vec![0; to_usize(CHUNK)]);
    for start in (0..size).step_by(to_usize(CHUNK)) {
        let len = to_usize(CHUNK.min(size - start));
        base.read_exact_at(&mut old[..len], start)?;
        target.read_exact_at(&mut new[..len], start)?;
        let changed: Vec<bool> = (old[..len].chunks(PAGE).zip(new[..len].chunks(PAGE)))
            .map(|(old, new)| old != new)
            .collect();
        let mut at = 0;
        for run in changed.chunk_by(|a, b| a == b) {
            let bytes = &new[at * PAGE..(at + run.len()) * PAGE];
            if run[0] {
                out.write_all(&(start + (at * PAGE) as u64).to_be_bytes())?;
                out.write_all(&(bytes.len() as u64).to_be_bytes())?;
                out.write_all(bytes)?;
            }
            at += run.len();
        }
    }
    out.flush()?;
    Ok(())
}

/// Writes a patch to `image` and brings it to stable storage.
pub(crate) fn write_patch(patch: &Path, image: &Path) -> Result<()> {
    let mut patch = io::BufReader::with_capacity(1 << 20, File::open(patch)?);
    let image = File::options().write(true).open(image)?;
    let mut bytes = Vec::new();
    while !patch.fill_buf()?.is_empty() {
        let (mut offset, mut len) = ([0; 8], [0; 8]);
        patch.read_exact(&mut offset)?;
        patch.read_exact(&mut len)?;
        bytes.resize(to_usize(u64::from_be_bytes(len)), 0);
        patch.read_exact(&mut bytes)?;
        image.write_all_at(&bytes, u64::from_be_bytes(offset))?;
    }
    image.sync_all()?;
    Ok(())
}

/// Writes a patch to a clone of `image` and puts that in its place, with the guarantees of `vhd-apply` and nothing besides: each
/// touched window is read and hashed as it was and as it becomes; the clone, the name and the patch's own bytes are checked or
/// synced once. No program that keeps these guarantees can do less.
pub(crate) fn patch_clone(patch: &Path, image: &Path) -> Result<()> {
    const WINDOW: u64 = 1 << 20;
    let clone = image.with_extension("clone");
    let digest = blake3::hash(&fs::read(patch)?);
    let (base, new) = (
        File::open(image)?,
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&clone)?,
    );
    rustix::fs::ioctl_ficlone(&new, &base)?;
    let mut patch = io::BufReader::with_capacity(1 << 20, File::open(patch)?);
    let (mut bytes, mut window) = (Vec::new(), vec![0; to_usize(WINDOW)]);
    let mut touched = std::collections::BTreeSet::new();
    while !patch.fill_buf()?.is_empty() {
        let (mut offset, mut len) = ([0; 8], [0; 8]);
        patch.read_exact(&mut offset)?;
        patch.read_exact(&mut len)?;
        let (offset, len) = (u64::from_be_bytes(offset), u64::from_be_bytes(len));
        bytes.resize(to_usize(len), 0);
        patch.read_exact(&mut bytes)?;
        touched.extend(offset / WINDOW..(offset + len).div_ceil(WINDOW));
        new.write_all_at(&bytes, offset)?;
    }
    let size = base.metadata()?.len();
    let mut digests = Vec::new();
    for file in [&base, &new] {
        for n in &touched {
            let part = &mut window[..to_usize(WINDOW.min(size - n * WINDOW))];
            file.read_exact_at(part, n * WINDOW)?;
            digests.push(blake3::hash(part));
        }
    }
    std::hint::black_box((digest, digests));
    new.sync_all()?;
    fs::rename(&clone, image)?;
    let folder = image.parent().ok_or("a file is in a folder")?;
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Reads both files in parallel, where either may hold data, and gives the number of bytes in pages that differ.
/// What a plain program can do, and nothing less: the floor of every comparison.
pub(crate) fn bytes_in_changed_pages(a: &Path, b: &Path) -> Result<u64> {
    let size = fs::metadata(a)?.len();
    if fs::metadata(b)?.len() != size {
        return Err(format!("{} and {} differ in size", a.display(), b.display()).into());
    }
    let (a, b) = (File::open(a)?, File::open(b)?);
    let mut chunks = data_chunks(&a)?;
    chunks.extend(data_chunks(&b)?);
    chunks.sort_unstable();
    chunks.dedup();
    let changed = chunks.into_par_iter().map_init(
        || [vec![0; to_usize(CHUNK)], vec![0; to_usize(CHUNK)]],
        |[left, right], at| {
            let len = to_usize(CHUNK.min(size - at));
            let (left, right) = (&mut left[..len], &mut right[..len]);
            a.read_exact_at(left, at)?;
            b.read_exact_at(right, at)?;
            if left == right {
                return Ok(0);
            }
            let pages = left.chunks(PAGE).zip(right.chunks(PAGE));
            let changed = pages.filter(|(left, right)| left != right);
            Ok(changed.map(|(page, _)| page.len() as u64).sum())
        },
    );
    Ok(changed.sum::<io::Result<u64>>()?)
}

/// Starts of the chunks that may hold data.
fn data_chunks(file: &File) -> Result<Vec<u64>> {
    let size = file.metadata()?.len();
    let mut chunks = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            found => found?,
        };
        let hole = seek(file, SeekFrom::Hole(data))?;
        chunks.extend((data / CHUNK * CHUNK..hole).step_by(to_usize(CHUNK)));
        at = hole;
    }
    Ok(chunks)
}

/// Fails unless two files hold the same bytes.
pub(crate) fn must_be_same(found: &Path, expected: &Path) -> Result<()> {
    match bytes_in_changed_pages(found, expected)? {
        0 => Ok(()),
        n => Err(format!("{}: {n} bytes in wrong pages", found.display()).into()),
    }
}

/// Reads `512`, `64K`, `512M`, `4G`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return Err("a number with K, M or G".into()),
    };
    let size = digits.parse::<u64>().map_err(|e| e.to_string())?;
    match size.checked_mul(unit) {
        Some(size) if size >= RUN && size.is_multiple_of(PAGE as u64) => Ok(size),
        _ => Err("at least 1M and a multiple of 512".into()),
    }
}

fn new_file(path: &Path, size: u64) -> io::Result<File> {
    let file = File::create(path)?;
    file.set_len(size)?;
    Ok(file)
}

/// The number drawn for `what` at `place` (`SplitMix64` of both).
fn draw(what: Draw, place: u64) -> u64 {
    mix(mix(what as u64).wrapping_add(place))
}

fn fill(what: Draw, place: u64, bytes: &mut [u8]) {
    let seed = draw(what, place);
    for (n, piece) in (1u64..).zip(bytes.chunks_mut(8)) {
        piece.copy_from_slice(&mix(seed.wrapping_add(n)).to_be_bytes()[..piece.len()]);
    }
}

pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
