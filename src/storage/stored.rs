//! Protects the files of a store, which only the store's own commands may change: replacing, changing or removing one
//! in any other way would lose snapshots.
//!
//! A file of a store is recognized by its name and the files next to it. Every function that opens a file for writing,
//! publishes a new file, or removes one checks this. The holder of a [`StoreFolder`] may change the files in it.

use std::fs;
use std::io::ErrorKind as IoKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use super::paths::folder_of;
use super::sealed::on_disk;
use super::stored_names::{DAMAGED, MANIFEST, ONCE, split_stored_name};
use crate::error::{Error, Result};
use crate::remedy::{Remedy, SnapshotJob, Step};

/// The folders that this process may change, as device and inode.
static HELD: RwLock<Vec<(u64, u64)>> = RwLock::new(Vec::new());

/// The right to change the files of a disk in a store, until it is dropped. Held by whoever has the disk's lock.
#[derive(Debug)]
pub struct StoreFolder((u64, u64));

impl StoreFolder {
    /// Acquires the right for the folder at `path`. The caller holds the lock of the disk.
    pub fn hold(path: &Path) -> Result<Self> {
        let found = fs::metadata(on_disk(path))
            .map_err(|e| Error::io("cannot look at", e).with_path(path))?;
        let identity = (found.dev(), found.ino());
        let mut held = HELD.write().unwrap_or_else(PoisonError::into_inner);
        held.push(identity);
        Ok(Self(identity))
    }
}

impl Drop for StoreFolder {
    fn drop(&mut self) {
        let mut held = HELD.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = held.iter().rposition(|folder| *folder == self.0) {
            held.swap_remove(at);
        }
    }
}

/// Fails if the name `path`, or the file it leads to, belongs to a store whose folder isn't [held](StoreFolder).
///
/// # Errors
///
/// [`Usage`](crate::error::ErrorKind::Usage), with advice.
pub fn refuse_part_of_store(path: &Path) -> Result<()> {
    let place = &*on_disk(path);
    // Both matter: a new file would replace the name itself, and writing would change the file it leads to.
    if is_part(&absolute(place)?)? || canonical(place)?.map_or(Ok(false), |real| is_part(&real))? {
        return Err(refusal(path));
    }
    Ok(())
}

/// Returns whether `path`, or what it leads to, is directly in the folder of a disk of a store, whatever its name.
///
/// # Errors
///
/// If the folder can't be read.
pub fn is_beside_stored(path: &Path) -> Result<bool> {
    let beside = |path: &Path| {
        let folder = folder_of(path);
        Ok(folder.is_dir() && !is_held(folder)? && is_disk(folder)?)
    };
    Ok(beside(&absolute(path)?)? || beside(&absolute(&last_of_links(path))?)?)
}

/// Where a symbolic link, which may dangle, leads in the end.
fn last_of_links(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    // As many as the system follows.
    for _ in 0..40 {
        let Ok(next) = fs::read_link(&path) else {
            break;
        };
        path = folder_of(&path).join(next);
    }
    path
}

/// Resolves all links except in the last component.
fn absolute(path: &Path) -> Result<PathBuf> {
    let (folder, name) = (folder_of(path), path.file_name().unwrap_or_default());
    Ok(canonical(folder)?.map_or_else(|| path.to_path_buf(), |folder| folder.join(name)))
}

/// Resolves all links. Returns `None` if the path leads nowhere.
fn canonical(path: &Path) -> Result<Option<PathBuf>> {
    match path.canonicalize() {
        Ok(real) => Ok(Some(real)),
        Err(e) if matches!(e.kind(), IoKind::NotFound | IoKind::NotADirectory) => Ok(None),
        Err(e) => Err(Error::io("cannot look at", e).with_path(path)),
    }
}

fn is_part(path: &Path) -> Result<bool> {
    let folder = folder_of(path);
    let named = path.file_name().and_then(|name| name.to_str());
    if named.is_some_and(is_stored_name) {
        // The holder of a folder gets here for each of its files, of which there may be thousands: don't list the
        // folder.
        return Ok(!is_held(folder)? && is_disk(folder)?);
    }
    // The file may have another hard link in the same folder.
    match fs::metadata(path) {
        Ok(found) if found.is_file() && found.nlink() > 1 => {
            Ok(!is_held(folder)? && is_disk(folder)? && has_stored_link(folder, &found)?)
        }
        _ => Ok(false),
    }
}

fn is_stored_name(name: &str) -> bool {
    let name = name.strip_suffix(".age").unwrap_or(name);
    let name = name.split_once(DAMAGED).map_or(name, |(name, _)| name);
    ONCE.contains(&name) || split_stored_name(name).is_some()
}

/// Returns whether the folder is that of a disk: it has a manifest, or a lock next to a snapshot's file.
fn is_disk(folder: &Path) -> Result<bool> {
    let (mut lock, mut data) = (false, false);
    for name in names_in(folder)? {
        match split_stored_name(name.strip_suffix(".age").unwrap_or(&name)) {
            Some((_, _, MANIFEST)) => return Ok(true),
            Some(_) => data = true,
            None => lock |= name == ONCE[0],
        }
    }
    Ok(lock && data)
}

fn has_stored_link(folder: &Path, found: &fs::Metadata) -> Result<bool> {
    let same = |name: &String| {
        let there = fs::symlink_metadata(folder.join(name));
        is_stored_name(name)
            && there.is_ok_and(|there| (there.dev(), there.ino()) == (found.dev(), found.ino()))
    };
    Ok(names_in(folder)?.iter().any(same))
}

fn names_in(folder: &Path) -> Result<Vec<String>> {
    let failed = |e| Error::io("cannot read the folder", e).with_path(folder);
    let mut names = Vec::new();
    let entries = match fs::read_dir(folder) {
        // There is nothing to lose; creating a file there will report the error.
        Err(e) if matches!(e.kind(), IoKind::NotFound | IoKind::NotADirectory) => return Ok(names),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}

fn is_held(folder: &Path) -> Result<bool> {
    let found = match fs::metadata(folder) {
        // Creating a file there will report the error.
        Err(e) if matches!(e.kind(), IoKind::NotFound | IoKind::NotADirectory) => return Ok(false),
        found => found.map_err(|e| Error::io("cannot look at", e).with_path(folder))?,
    };
    let held = HELD.read().unwrap_or_else(PoisonError::into_inner);
    Ok(held.contains(&(found.dev(), found.ino())))
}

fn refusal(path: &Path) -> Error {
    let real = canonical(path).ok().flatten();
    let real = real.as_deref().unwrap_or(path);
    let disk = folder_of(real);
    let name = disk.file_name().unwrap_or_default();
    let of = |job| Step::Snapshot {
        job,
        of: Some((
            folder_of(disk).to_path_buf(),
            name.to_string_lossy().into_owned(),
        )),
    };
    Error::usage("this file is part of a store, which alone may change it")
        .with_path(path)
        .with_remedy(
            Remedy::new("name another file; to get an image that you can change: ")
                .step(of(SnapshotJob::Restore), "restore a snapshot to a new file")
                .text("; to repair the store: ")
                .step(of(SnapshotJob::Repair), "have it repaired"),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Access, AtomicFile, Audience, File, Overwrite, remove, rename};
    use std::os::unix::fs::symlink;

    #[test]
    fn only_who_holds_a_disk_changes_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("w");
        fs::create_dir(&disk).unwrap();
        let at = |name: &str| disk.join(name);
        let stored = [
            "000001-a.vhd",
            "000001-a.json",
            "lock",
            "000002-b.vhddiff.damaged.2",
        ];
        for name in stored {
            fs::write(at(name), name).unwrap();
        }
        let link = folder.path().join("link");
        symlink(at(stored[0]), &link).unwrap();
        fs::hard_link(at(stored[0]), at("hard")).unwrap();
        symlink(&disk, folder.path().join("way")).unwrap();
        fs::write(at("other.vhd"), "other").unwrap();

        let through = folder.path().join("way").join(stored[0]);
        let new = ["000002-b.vhddiff", "newest.windows", "deleting.json"].map(at);
        for path in stored
            .map(at)
            .into_iter()
            .chain([link, at("hard"), through])
            .chain(new)
        {
            assert!(refuse_part_of_store(&path).is_err(), "{path:?}");
            assert!(
                AtomicFile::begin(&path, Overwrite::Yes, Audience::default()).is_err(),
                "{path:?}"
            );
            if path.exists() {
                assert!(File::open_locked(&path, Access::Write).is_err(), "{path:?}");
                assert!(
                    File::open_locked(&path, Access::Replace).is_err(),
                    "{path:?}"
                );
                assert!(File::open_locked(&path, Access::Read).is_ok(), "{path:?}");
                assert!(rename(&path, &folder.path().join("x")).is_err(), "{path:?}");
                assert!(remove(&path).is_err(), "{path:?}");
            }
        }
        for path in [
            at("other.vhd"),
            at("000001-a.vhd.undo-journal"),
            folder.path().join("lock"),
        ] {
            refuse_part_of_store(&path).unwrap();
        }
        let held = StoreFolder::hold(&disk).unwrap();
        refuse_part_of_store(&at(stored[0])).unwrap();
        drop(held);
        assert!(refuse_part_of_store(&at(stored[0])).is_err());
    }
}
