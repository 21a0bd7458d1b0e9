//! The marker of a store: what tells the folder of a store from any other, such as one where a disk isn't mounted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::check_disk_name;
use super::file_names::file_names;
use super::plain::{is_absent, read_limited};
use crate::error::{Error, Result};
use crate::remedy::{Remedy, Step, StoreJob};
use crate::storage::{AtomicFile, Audience, Overwrite, WriteAt as _, create_folder_for, rename};
use crate::vhd::UniqueId;

/// The name of the file.
pub const MARKER: &str = "vhdkit-store.json";

/// The newest version of stores.
pub const STORE_VERSION: u32 = 2;

/// A longer file is not a marker.
const LONGEST: u64 = 64 << 10;

/// What the marker of a store says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The version of the store. In one of version 1, bases are images, which older programs read.
    #[serde(rename = "vhdkit_store")]
    pub version: u32,
    /// What tells the store from all others: a random UUID.
    pub id: String,
}

impl Marker {
    /// The marker of the store at `store`; `None` if it has none.
    ///
    /// # Errors
    ///
    /// [`Damaged`](crate::ErrorKind::Damaged) if there is one that can't be read, and
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if it is of a newer version.
    pub fn read(store: &Path) -> Result<Option<Self>> {
        let path = store.join(MARKER);
        let damaged = || {
            Error::damaged("the marker of this store can't be read")
                .with_path(&path)
                .with_expected("the marker of a store")
                .with_remedy(
                    Remedy::new(
                        "if this is the right folder, make the marker again; no disk is touched by that",
                    )
                    .named(": ")
                    .step(of_store(StoreJob::Init, store), ""),
                )
        };
        let Some(bytes) = read_limited(&path, LONGEST, damaged)? else {
            return Ok(None);
        };
        let marker: Self = serde_json::from_slice(&bytes).map_err(|e| damaged().with_source(e))?;
        if marker.version == 0 {
            return Err(damaged().with_field("vhdkit_store").with_found(0));
        }
        if marker.version > STORE_VERSION {
            return Err(Error::unsupported("this store is of a newer version")
                .with_path(path)
                .with_field("vhdkit_store")
                .with_found(marker.version)
                .with_expected(format_args!("at most {STORE_VERSION}"))
                .with_hint("use the vhdkit that made it, or a newer one"));
        }
        Ok(Some(marker))
    }

    fn new(version: u32) -> Self {
        Self {
            version,
            id: UniqueId::random().to_string(),
        }
    }

    fn write(&self, store: &Path, overwrite: Overwrite, audience: &Audience) -> Result<()> {
        let path = store.join(MARKER);
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::usage("the marker can't be written").with_source(e))?;
        let file = AtomicFile::for_audience(path, audience.clone())?;
        file.file().write_all_at((text + "\n").as_bytes(), 0)?;
        file.publish(overwrite)
    }
}

/// Makes the folder `store`, which may be there, a store of this version. Whatever else is in it stays as it is; a
/// marker that can't be read is kept aside.
///
/// # Errors
///
/// [`Usage`](crate::ErrorKind::Usage) if it is a store already.
pub fn init(store: &Path, version: u32) -> Result<Marker> {
    init_for(store, version, &Audience::default())
}

/// As [`init`]; what is made is for this audience.
fn init_for(store: &Path, version: u32, audience: &Audience) -> Result<Marker> {
    let path = store.join(MARKER);
    let already = |what: &str, remedy: Remedy| {
        Err(Error::usage("this is a store already")
            .with_path(store)
            .with_found(what.to_owned())
            .with_remedy(remedy))
    };
    match fs::metadata(store) {
        Ok(found) if found.is_dir() => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => create_folder_for(store, audience)?,
        Ok(_) => {
            return Err(Error::usage("this is not a folder")
                .with_path(store)
                .with_hint("name a folder, or one that isn't there yet"));
        }
        Err(e) => return Err(Error::io("cannot look at", e).with_path(store)),
    }
    match Marker::read(store) {
        Ok(Some(marker)) => {
            return already(
                &format!("a marker of version {}", marker.version),
                Remedy::new("add a disk")
                    .named(": ")
                    .step(of_store(StoreJob::AddDisk, store), ""),
            );
        }
        Err(error) if error.kind() != crate::ErrorKind::Damaged => return Err(error),
        // What the disks say of it is true in any case.
        Err(_) => rename(&path, &aside(&path))?,
        Ok(None) if version > 1 && !folders(store)?.is_empty() => {
            return already(
                "disks of version 1, and no marker",
                Remedy::new(format!("bring it to version {STORE_VERSION}"))
                    .named(": ")
                    .step(of_store(StoreJob::Upgrade, store), ""),
            );
        }
        Ok(None) => {}
    }
    let marker = Marker::new(version);
    marker.write(store, Overwrite::No, audience)?;
    Ok(marker)
}

/// Makes the folder `store` a store of this version, unless it is one already; another command may do so at the same
/// time. What is made is for this audience. Returns whether it was made now.
pub fn init_if_none(store: &Path, version: u32, audience: &Audience) -> Result<bool> {
    if store_version(store)?.is_some() {
        return Ok(false);
    }
    match init_for(store, version, audience) {
        Ok(_) => Ok(true),
        Err(_) if Marker::read(store)?.is_some() => Ok(false),
        Err(error) => Err(error),
    }
}

fn of_store(job: StoreJob, store: &Path) -> Step {
    Step::Store {
        job,
        store: store.to_path_buf(),
    }
}

/// Makes the marker of the store at `store`, which may have none, that of the newest version.
pub fn upgrade_marker(store: &Path) -> Result<Marker> {
    let marker = match Marker::read(store)? {
        Some(marker) if marker.version == STORE_VERSION => return Ok(marker),
        Some(marker) => Marker {
            version: STORE_VERSION,
            ..marker
        },
        None => Marker::new(STORE_VERSION),
    };
    marker.write(store, Overwrite::Yes, &Audience::default())?;
    Ok(marker)
}

/// A name for a damaged marker that nothing has.
fn aside(path: &Path) -> PathBuf {
    let name = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(if n == 1 {
            ".damaged".to_owned()
        } else {
            format!(".damaged.{n}")
        });
        PathBuf::from(name)
    };
    let mut names = (1..u32::MAX).map(name);
    names
        .find(|name| is_absent(name))
        .unwrap_or_else(|| name(1))
}

/// The version of the store at `store`: 1 if it has disks and no marker, as the first program made them. `None` if it
/// is not a store.
pub fn store_version(store: &Path) -> Result<Option<u32>> {
    if let Some(marker) = Marker::read(store)? {
        return Ok(Some(marker.version));
    }
    if is_absent(store) {
        return Ok(None);
    }
    Ok((!folders(store)?.is_empty()).then_some(1))
}

/// The version of the store at `store`, of which `disk` is about to be opened, if that is known.
///
/// # Errors
///
/// [`Usage`](crate::ErrorKind::Usage) if there is no store: most often the disk with the store isn't mounted.
pub(super) fn expect_store(store: &Path, disk: Option<&str>) -> Result<u32> {
    match Marker::read(store) {
        Ok(None) => {}
        Ok(Some(marker)) => return Ok(marker.version),
        Err(error) if error.io_kind() == Some(io::ErrorKind::NotADirectory) => {
            return Err(Error::usage("this is not a store")
                .with_path(store)
                .with_found("a file")
                .with_expected("the folder of a store"));
        }
        Err(error) => return Err(error),
    }
    let there = match disk {
        // The others needn't be looked at.
        Some(disk) => is_disk(&store.join(disk))?,
        None => false,
    };
    if there {
        return Ok(1);
    }
    match folders(store) {
        Ok(names) if names.is_empty() => Err(not_a_store(
            store,
            "a folder without a marker and without disks",
        )),
        Ok(_) => Ok(1),
        Err(error) if error.io_kind() == Some(io::ErrorKind::NotFound) => {
            Err(not_a_store(store, "nothing"))
        }
        Err(error) => Err(error),
    }
}

fn not_a_store(store: &Path, found: &str) -> Error {
    Error::usage("there is no store here")
        .with_path(store)
        .with_found(found)
        .with_expected(format_args!("a folder with the marker {MARKER}"))
        .with_remedy(
            Remedy::new(
                "is the name right, and the disk with the store mounted? To make a new store here",
            )
            .named(": ")
            .step(of_store(StoreJob::Init, store), ", mark the folder as one"),
        )
}

/// The names of the disks in the store at `store`, in order.
///
/// # Errors
///
/// [`Usage`](crate::ErrorKind::Usage) if there is no store.
pub fn disks(store: &Path) -> Result<Vec<String>> {
    expect_store(store, None)?;
    folders(store)
}

/// The names of the folders at `store` that are disks, whether or not that is a store.
fn folders(store: &Path) -> Result<Vec<String>> {
    let failed = |e| Error::io("cannot read the folder", e).with_path(store);
    let mut names = Vec::new();
    for entry in fs::read_dir(store).map_err(failed)? {
        // No other name is valid for a disk.
        let Ok(name) = entry.map_err(failed)?.file_name().into_string() else {
            continue;
        };
        if check_disk_name(&name).is_ok() && is_disk(&store.join(&name))? {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether this is a folder with files of snapshots.
fn is_disk(path: &Path) -> Result<bool> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(!file_names(path)?.is_empty()),
        Ok(_) => Ok(false),
        // A dangling link.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("cannot look at", e).with_path(path)),
    }
}
