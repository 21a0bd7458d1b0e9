//! Files that a repair sets aside: damaged files are never discarded, and giving something up can be undone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::progress::Silent;
use crate::snapshot::layout::DAMAGED;
use crate::snapshot::plain::is_absent;
use crate::snapshot::{Disk, PointFileName};
use crate::storage::{AtomicFile, File, Overwrite, name_in, on_disk, rename};

/// Renames a file to a name that says it is damaged, so that the original name is free.
pub(super) fn move_aside(path: &Path) -> Result<()> {
    if is_absent(path) {
        return Ok(());
    }
    rename(path, &aside(path)?)
}

/// Keeps a copy of a file that is about to be replaced.
pub(super) fn copy_aside(path: &Path) -> Result<()> {
    if is_absent(path) {
        return Ok(());
    }
    if crate::snapshot::plain::check_plain(path).is_err() {
        // Anything but a file can't be copied, and moving it loses nothing.
        return move_aside(path);
    }
    // What is damaged may not open any more.
    let file = File::open(path)?.as_stored();
    // An interrupted repair has kept it already.
    for kept in asides(path).take_while(|kept| !is_absent(kept)) {
        if File::open(kept)?.as_stored().holds_the_same_as(&file)? {
            return Ok(());
        }
    }
    let copy = AtomicFile::new(aside(path)?)?.as_stored();
    copy.file().take_permissions_of(&file)?;
    copy.file().copy_from_file(&file, &Silent)?;
    copy.publish(Overwrite::No)
}

/// The names for damaged files at `path`: `.damaged`, then `.damaged.2` and so on.
fn asides(path: &Path) -> impl Iterator<Item = PathBuf> {
    let first = std::iter::once(String::new());
    let ends = first.chain((2..=9999).map(|n| format!(".{n}")));
    ends.map(|end| {
        let mut name = path.as_os_str().to_owned();
        name.push(DAMAGED);
        name.push(end);
        PathBuf::from(name)
    })
}

/// The first of them that is free.
fn aside(path: &Path) -> Result<PathBuf> {
    asides(path).find(|name| is_absent(name)).ok_or_else(|| {
        Error::usage("too many damaged files of this name were set aside")
            .with_path(path)
            .with_hint("remove those that end in .damaged and a number")
    })
}

/// The outcome of restoring the files that were set aside.
#[derive(Debug, Default)]
pub struct TakenBack {
    /// Files that have their names again.
    pub files: Vec<String>,
    /// Files that are still set aside, and why.
    pub left: Vec<(String, String)>,
}

/// Gives the files that repairs set aside their names again, where these are free and the snapshot can have its place
/// again. Of several with one name, the last one set aside is restored. Nothing is overwritten; with `dry_run`, nothing
/// is done.
pub fn take_back(disk: &mut Disk, dry_run: bool) -> Result<TakenBack> {
    if !dry_run {
        disk.check_open_for_writing()?;
    }
    let mut done = TakenBack::default();
    for (stem, files) in set_aside(disk)? {
        let refused = refusal(disk, &stem);
        let mut files: Vec<_> = files.into_iter().collect();
        // The data first: it is a snapshot only with its manifest.
        files.sort_by_key(|(name, _)| *name == stem.manifest());
        for (name, asides) in files {
            let Some((aside, older)) = asides.split_last() else {
                continue;
            };
            let taken = (!is_absent(&disk.path(&name))).then(|| format!("{name} exists again"));
            if let Some(why) = refused.clone().or(taken) {
                done.left.push((aside.clone(), why));
            } else {
                if !dry_run {
                    rename(&disk.path(aside), &disk.path(&name))?;
                }
                done.files.push(name.clone());
            }
            let later = || format!("{aside} was set aside later");
            done.left
                .extend(older.iter().map(|name| (name.clone(), later())));
        }
    }
    if !dry_run {
        disk.load()?;
    }
    Ok(done)
}

/// The files that were set aside, by snapshot and original name, the older ones of a name first.
type Asides = BTreeMap<PointFileName, BTreeMap<String, Vec<String>>>;

fn set_aside(disk: &Disk) -> Result<Asides> {
    let failed = |e| Error::io("cannot read the folder", e).with_path(disk.folder());
    let mut found: BTreeMap<PointFileName, BTreeMap<String, Vec<(u32, String)>>> = BTreeMap::new();
    for entry in fs::read_dir(on_disk(disk.folder())).map_err(failed)? {
        // Other names aren't ours.
        let aside = entry.map_err(failed)?.file_name().into_string().ok();
        let Some(aside) = aside.and_then(|name| name_in(disk.folder(), &name)) else {
            continue;
        };
        let Some((name, end)) = aside.split_once(DAMAGED) else {
            continue;
        };
        let number = match end.strip_prefix('.') {
            None if end.is_empty() => Some(1),
            None => None,
            Some(digits) => digits.parse().ok(),
        };
        if let (Some((stem, _)), Some(number)) = (PointFileName::parse(name), number) {
            let names = found.entry(stem).or_default();
            let asides = names.entry(name.to_owned()).or_default();
            asides.push((number, aside.clone()));
        }
    }
    let sorted = |mut asides: Vec<(u32, String)>| {
        asides.sort_unstable();
        asides.into_iter().map(|(_, name)| name).collect()
    };
    Ok(found
        .into_iter()
        .map(|(stem, names)| {
            let names = names.into_iter();
            (stem, names.map(|(name, all)| (name, sorted(all))).collect())
        })
        .collect())
}

/// Returns why a snapshot can't have its place again, if so.
fn refusal(disk: &Disk, stem: &PointFileName) -> Option<String> {
    if let Some(other) = disk
        .points
        .numbered(stem.sequence)
        .find(|p| p.stem() != *stem)
    {
        return Some(format!("its number is that of {} now", other.name));
    }
    if let Some(other) = disk.points.named(&stem.name).filter(|p| p.stem() != *stem) {
        return Some(format!(
            "its name is that of another snapshot now, number {}",
            other.sequence
        ));
    }
    let is_there = disk.points.numbered(stem.sequence).next().is_some();
    let later = disk.points.from(stem.sequence.saturating_add(1)).first();
    let later = later.filter(|later| {
        let parent = disk.parent_of(later);
        parent.is_some_and(|parent| parent.sequence < stem.sequence)
    });
    match later {
        Some(later) if !is_there => Some(format!(
            "{} was created without it, or is now based on an earlier one",
            later.name
        )),
        _ => None,
    }
}
