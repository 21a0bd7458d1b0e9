//! Finding what is damaged, in which file and where, and which points in time it affects.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::disk::file_names;
use super::layout::{NEW, PART, WINDOWS};
use super::point::open_diff;
use super::{Disk, Manifest, Stem, Work};
use crate::diff::DiffFile;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{OpenOptions, ParentOptions, check_file, open_image};
use crate::image::{DIGEST_WINDOW, Image, ListedWindow, WINDOW_SIZE, WindowList, content_digest};
use crate::storage::{File, ReadAt as _};
use crate::vhd::{CheckOptions, Severity, UniqueId};

/// How much of the data is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadData {
    /// Nothing: manifests, lengths, the ends of the diffs, and how all hang together.
    Nothing,
    /// About so many percent of it, others each time.
    Percent(u8),
    /// Every byte.
    All,
}

/// Something that is wrong.
#[derive(Debug)]
pub struct Finding {
    /// What, in which file, where.
    pub error: Error,
    /// The names of the snapshots that can't be relied on, the oldest first.
    pub affected: Vec<String>,
}

/// Looks at everything that belongs to the disk, and reads as much of its data as `read` says. Fails only when it can't
/// look.
pub fn verify(disk: &mut Disk, read: ReadData, work: Work<'_>) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for error in disk.take_damaged() {
        let affected = after_damage(disk, &error);
        found.push(Finding { error, affected });
    }
    let disk = &*disk;
    for point in disk.points() {
        // Leads to the base, or names the one that is missing.
        if let Err(error) = structure(disk, point).and_then(|()| disk.chain(point).map(drop)) {
            found.push(finding(disk, point, error)?);
        }
    }
    strays(disk, &mut found)?;
    let list = list(disk, &mut found)?;
    if read != ReadData::Nothing {
        let bad: BTreeSet<String> = found.iter().flat_map(|f| f.affected.clone()).collect();
        data(disk, read, &bad, list.as_ref(), work, &mut found)?;
    }
    Ok(found)
}

/// What is made of a snapshot whose manifest can't be read: it and all up to the next base.
fn after_damage(disk: &Disk, error: &Error) -> Vec<String> {
    let name = error.file().and_then(|path| path.file_name()?.to_str());
    let Some((stem, _)) = name.and_then(Stem::parse) else {
        return Vec::new();
    };
    let later = disk.points().iter().filter(|p| p.sequence > stem.sequence);
    let later = later.take_while(|point| !point.is_base());
    let later = later.map(|point| point.name.clone());
    [stem.name.clone()].into_iter().chain(later).collect()
}

pub(super) fn finding(disk: &Disk, point: &Manifest, error: Error) -> Result<Finding> {
    if error.kind() == ErrorKind::Interrupted {
        return Err(error);
    }
    let made = disk.made_of(point);
    let mut affected: Vec<String> = made.iter().map(|point| point.name.clone()).collect();
    if affected.is_empty() {
        affected.push(point.name.clone());
    }
    Ok(Finding { error, affected })
}

/// Whether the file of a snapshot is there and continues the one before it, if that is there, without reading its data.
pub(super) fn structure(disk: &Disk, point: &Manifest) -> Result<()> {
    let path = disk.path(&point.data.file);
    let file = File::open(&path)?;
    let len = file.byte_len()?;
    let cut = || {
        Error::damaged("the file has another length than its manifest says")
            .path(&path)
            .found(format_args!("{len} bytes"))
            .expected(format_args!("{} bytes", point.data.length))
            .hint(REPAIR)
    };
    if point.is_base() {
        let image = open_image(&path, &OpenOptions::default())?;
        if image.virtual_size() != point.virtual_size || len != point.data.length {
            return Err(cut());
        }
        return check_base(&path);
    }
    if len != point.data.length {
        return Err(cut());
    }
    let diff = open_diff(disk, &path, point)?;
    let before = disk
        .points()
        .iter()
        .find(|p| point.parent.as_ref() == Some(&p.id));
    let Some(before) = before else {
        return Ok(());
    };
    let expected = Some(before.content_digest);
    if diff.trailer().base_digest == expected {
        return Ok(());
    }
    let show = |digest: Option<_>| {
        digest.map_or_else(
            || "none".to_owned(),
            |d: crate::image::ContentDigest| d.to_string(),
        )
    };
    Err(
        Error::damaged("this diff doesn't start from the snapshot before it")
            .path(&path)
            .field("base digest")
            .found(show(diff.trailer().base_digest))
            .expected(show(expected)),
    )
}

/// An error if the structures of a base are damaged.
pub(super) fn check_base(path: &Path) -> Result<()> {
    let report = check_file(path, &CheckOptions::default(), &ParentOptions::default())?;
    let mut findings = report.findings.iter();
    match findings.find(|f| f.severity() != Severity::Warning) {
        None => Ok(()),
        Some(finding) => Err(Error::damaged("the base is damaged")
            .path(path)
            .field(&finding.field)
            .offset(finding.offset)
            .found(&finding.found)
            .expected(&finding.expected)
            .hint("vhd check says more")),
    }
}

/// Files that belong to no snapshot.
fn strays(disk: &Disk, found: &mut Vec<Finding>) -> Result<()> {
    let names = file_names(disk.folder())?;
    for name in &names {
        let Some((stem, ending)) = Stem::parse(name) else {
            continue;
        };
        let manifest = stem.manifest();
        let known = ending == ".json"
            || ending.ends_with(NEW)
            || ending.ends_with(PART)
            || names.contains(&format!("{manifest}{PART}"))
            || names.contains(&manifest);
        if !known {
            found.push(Finding {
                error: Error::damaged("this file has no manifest")
                    .path(disk.path(name))
                    .hint("take the manifest from a copy of the store; or remove the file if it isn't wanted"),
                affected: vec![stem.name],
            });
        }
    }
    Ok(())
}

/// The window hashes of the newest snapshot, if they are there and right; what is wrong with them costs nothing but the
/// time to make them again.
fn list(disk: &Disk, found: &mut Vec<Finding>) -> Result<Option<WindowList<File>>> {
    let path = disk.path(WINDOWS);
    if fs::symlink_metadata(&path).is_err() {
        return Ok(None);
    }
    match WindowList::open(File::open(&path)?) {
        Ok(list) => {
            let newest = disk.newest().map(|newest| newest.content_digest);
            Ok(Some(list).filter(|list| newest == Some(list.digest())))
        }
        Err(error) => {
            found.push(Finding {
                error: error.hint("it is made again when the next snapshot is; or remove it"),
                affected: Vec::new(),
            });
            Ok(None)
        }
    }
}

/// Reads the data of all snapshots that aren't known to be `bad`.
fn data(
    disk: &Disk,
    read: ReadData,
    bad: &BTreeSet<String>,
    list: Option<&WindowList<File>>,
    work: Work<'_>,
    found: &mut Vec<Finding>,
) -> Result<()> {
    let mut dice = Dice(u64::from_be_bytes(
        UniqueId::random()
            .0
            .first_chunk()
            .copied()
            .unwrap_or_default(),
    ));
    let chosen = |dice: &mut Dice| match read {
        ReadData::Nothing => false,
        ReadData::Percent(percent) => dice.roll(percent),
        ReadData::All => true,
    };
    for point in disk.points() {
        let whole = read == ReadData::All || !point.is_base();
        if bad.contains(&point.name) || !whole || !chosen(&mut dice) {
            continue;
        }
        if let Err(error) = file_data(disk, point, work) {
            found.push(finding(disk, point, error)?);
        }
    }
    match (disk.newest(), list) {
        (Some(newest), Some(list)) if !bad.contains(&newest.name) => {
            let windows = list.windows().filter(|_| chosen(&mut dice));
            newest_windows(disk, newest, windows, work, found)
        }
        _ => Ok(()),
    }
}

/// Reads the windows of the newest snapshot, each by itself, so that damage has a place.
fn newest_windows(
    disk: &Disk,
    newest: &Manifest,
    windows: impl Iterator<Item = Result<ListedWindow>>,
    work: Work<'_>,
    found: &mut Vec<Finding>,
) -> Result<()> {
    let damaged = |finding: &Finding| finding.affected.contains(&newest.name);
    let image = match disk.image(newest) {
        Ok(image) => image,
        Err(error) => {
            if !found.iter().any(damaged) {
                found.push(finding(disk, newest, error)?);
            }
            return Ok(());
        }
    };
    work.progress
        .begin("verifying the newest", newest.virtual_size);
    let mut wrong = Vec::new();
    work.workers.ordered(
        windows,
        |window| {
            work.progress.check()?;
            Ok(first_wrong(&image, &window))
        },
        |result: Result<Option<u64>>| {
            wrong.extend(result.transpose());
            Ok(())
        },
    )?;
    let places = wrong.len();
    let place = match wrong.into_iter().next() {
        None => return Ok(()),
        Some(Ok(place)) => place,
        Some(Err(error)) => {
            let finding = finding(disk, newest, error)?;
            // A damaged file was found before.
            if !found.iter().any(damaged) {
                found.push(finding);
            }
            return Ok(());
        }
    };
    let at_place = |error: Error| {
        error
            .field("virtual disk")
            .offset(place)
            .found(format_args!("another hash of this window ({places} such)"))
    };
    // A damaged base has no place by itself: its only digest is that of the whole disk. It is what is wrong here.
    let base = disk
        .chain(newest)?
        .first()
        .map(|base| disk.path(&base.data.file));
    let base = base.as_deref();
    let without_place = |finding: &&mut Finding| {
        finding.error.file() == base && finding.error.field_name() == Some(CONTENT_DIGEST)
    };
    if let (Some(base), Some(known)) = (base, found.iter_mut().find(without_place)) {
        known.error = at_place(wrong_base(base));
        return Ok(());
    }
    let error = Error::damaged("the disk doesn't hold what it did when the snapshot was made")
        .path(disk.label(newest))
        .hint("the file that holds it is damaged: vhd snapshot verify --read-data names it");
    found.push(finding(disk, newest, at_place(error))?);
    Ok(())
}

/// Reads all of a snapshot's own file.
pub(super) fn file_data(disk: &Disk, point: &Manifest, work: Work<'_>) -> Result<()> {
    if point.is_base() {
        base_data(disk, point, work)
    } else {
        diff_data(disk, point, work)
    }
}

fn base_data(disk: &Disk, point: &Manifest, work: Work<'_>) -> Result<()> {
    let path = disk.path(&point.data.file);
    let image = open_image(&path, &OpenOptions::default())?;
    work.progress
        .begin("verifying a base", image.virtual_size());
    let digest = content_digest(&image, work.workers, work.progress)?;
    if digest == point.content_digest {
        return Ok(());
    }
    Err(wrong_base(&path)
        .field(CONTENT_DIGEST)
        .found(digest)
        .expected(point.content_digest))
}

/// The field of the error for a base that is wrong somewhere.
const CONTENT_DIGEST: &str = "content digest";

/// What to do about damaged data.
const REPAIR: &str = "vhd snapshot repair makes it again: --from another store that has the snapshot, or from an image \
                      of it (--image)";

fn wrong_base(path: &Path) -> Error {
    Error::damaged("the base doesn't hold what it did when the snapshot was made")
        .path(path)
        .hint(REPAIR)
}

fn diff_data(disk: &Disk, point: &Manifest, work: Work<'_>) -> Result<()> {
    let file = File::open(disk.path(&point.data.file))?;
    work.progress.begin("verifying a diff", file.byte_len()?);
    let read = DiffFile::open(file, work.progress).map(drop);
    read.map_err(|error| match error.kind() {
        ErrorKind::Damaged => error.hint(REPAIR),
        _ => error,
    })
}

/// The first byte of the first digest window that isn't what the list says.
fn first_wrong(image: &dyn Image, window: &ListedWindow) -> Result<Option<u64>> {
    let size = image.virtual_size();
    let mut buffer = Vec::new();
    let starts = (window.start..window.start.saturating_add(WINDOW_SIZE)).step_by(1 << 20);
    for (start, hash) in starts.zip(window.hashes) {
        let len = size.saturating_sub(start).min(DIGEST_WINDOW);
        buffer.resize(usize::try_from(len).unwrap_or(0), 0);
        image.read_exact_at(&mut buffer, start.min(size))?;
        let right = match hash {
            Some(hash) => *blake3::hash(&buffer).as_bytes() == hash,
            None => buffer.iter().all(|byte| *byte == 0),
        };
        if !right {
            return Ok(Some(start));
        }
    }
    Ok(None)
}

/// Numbers that nobody foresees, for choosing what is read.
struct Dice(u64);

impl Dice {
    /// Yes, about `percent` of a hundred times.
    fn roll(&mut self, percent: u8) -> bool {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % 100 < u64::from(percent)
    }
}
