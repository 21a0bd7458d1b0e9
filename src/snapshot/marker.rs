//! The marker of a store: what tells the folder of a store from any other, such as one where a disk isn't mounted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::file_names::file_names;
use super::marked::{
    ENCRYPTED_VERSION, Encryption, KEY_FILE, KeyPlace, LIKE_VERSION, MARKER, Marker, STORE_VERSION,
    looks_encrypted, of_store,
};
use super::plain::{is_absent, read_limited};
use super::vault;
use super::{PointFileName, check_disk_name};
use crate::age::{Identity, Passphrase};
use crate::error::{Error, Result};
use crate::remedy::{Remedy, StoreJob};
use crate::storage::{Audience, Overwrite, create_folder_for, name_in, on_disk, rename};

/// What a new store is encrypted with.
#[derive(Debug, Clone)]
pub enum Protection {
    /// A new key, which is kept in the store, encrypted with this passphrase; it takes 2 to this power to try one.
    Passphrase(Passphrase, u8),
    /// This key, which isn't in the store.
    Identity(Identity),
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

/// Makes the folder `store`, which may be there, an encrypted store. Returns the marker, and the key that opens the
/// store if all else is lost.
///
/// Where the marker of an encrypted store is lost, it is made again, if the key that is given opens what is there.
///
/// # Errors
///
/// [`Usage`](crate::ErrorKind::Usage) if it is a store already.
pub fn init_encrypted(
    store: &Path,
    protection: &Protection,
    audience: &Audience,
) -> Result<(Marker, Identity)> {
    let (identity, key) = match protection {
        Protection::Identity(identity) => (identity.clone(), KeyPlace::File),
        Protection::Passphrase(passphrase, _) => {
            let identity = if looks_encrypted(store)? {
                vault::kept_key(store, passphrase)?
            } else {
                Identity::random()?
            };
            (identity, KeyPlace::Passphrase)
        }
    };
    prepare(store, ENCRYPTED_VERSION, audience)?;
    if looks_encrypted(store)? {
        vault::check_opens(store, &identity)?;
    } else if let Protection::Passphrase(passphrase, work_factor) = protection {
        // The key is there before anything says that it is needed.
        let how = (Overwrite::No, Audience::nobody_else());
        vault::write_key(store, &identity, (passphrase, *work_factor), how)?;
    }
    let key = if is_absent(&store.join(KEY_FILE)) {
        key
    } else {
        KeyPlace::Passphrase
    };
    let marker = Marker {
        encryption: Some(Encryption {
            recipient: identity.recipient().to_string(),
            key,
        }),
        ..Marker::new(ENCRYPTED_VERSION)
    };
    marker.write(store, Overwrite::No, audience)?;
    vault::use_key(identity.clone());
    Ok((marker, identity))
}

/// As [`init`]; what is made is for this audience.
fn init_for(store: &Path, version: u32, audience: &Audience) -> Result<Marker> {
    prepare(store, version, audience)?;
    let marker = Marker::new(least_version(store, version)?);
    marker.write(store, Overwrite::No, audience)?;
    Ok(marker)
}

/// Makes the folder, and room for its marker. Fails if it is a store already, encrypted or not.
fn prepare(store: &Path, version: u32, audience: &Audience) -> Result<()> {
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
        Ok(None) | Err(_) if version < ENCRYPTED_VERSION && looks_encrypted(store)? => {
            return already(
                "encrypted files, and no marker that can be read",
                Remedy::new("make its marker again")
                    .named(": ")
                    .step(of_store(StoreJob::InitEncrypted, store), ""),
            );
        }
        Err(_) if version == ENCRYPTED_VERSION && !folders(store)?.is_empty() => {
            return already(
                "disks that aren't encrypted, and a damaged marker",
                Remedy::new("make its marker again")
                    .named(": ")
                    .step(of_store(StoreJob::Init, store), ""),
            );
        }
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
    Ok(())
}

/// `version`, or what a store needs that has disks that begin as snapshots of others: its marker was lost.
fn least_version(store: &Path, version: u32) -> Result<u32> {
    for disk in folders(store)? {
        let folder = store.join(disk);
        let names = file_names(&folder)?;
        let manifests = names.iter().filter_map(|file| {
            let (stem, ending) = PointFileName::parse(file)?;
            (ending == ".json").then_some((stem.sequence, file))
        });
        let Some((_, first)) = manifests.min() else {
            continue;
        };
        let too_long = || Error::damaged("this is not a manifest");
        // One that can't be read says nothing.
        let bytes = read_limited(&folder.join(first), super::manifest::LONGEST, too_long);
        let text = bytes.ok().flatten().map(String::from_utf8);
        if text.is_some_and(|text| text.is_ok_and(|text| text.contains("\n  \"like\": {"))) {
            return Ok(LIKE_VERSION.max(version));
        }
    }
    Ok(version)
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

/// Makes the marker of the store at `store`, which may have none, that of the newest version.
pub fn upgrade_marker(store: &Path) -> Result<Marker> {
    let marker = match Marker::read(store)? {
        Some(marker) if marker.version >= STORE_VERSION => return Ok(marker),
        Some(marker) => Marker {
            version: STORE_VERSION,
            ..marker
        },
        None => Marker::new(least_version(store, STORE_VERSION)?),
    };
    marker.write(store, Overwrite::Yes, &Audience::default())?;
    Ok(marker)
}

/// Makes the marker of the store at `store` say that it has disks that begin as snapshots of others.
///
/// # Errors
///
/// [`Mismatch`](crate::ErrorKind::Mismatch) if it is a store of the first version, which older programs can read.
pub(super) fn admit_likes(store: &Path) -> Result<()> {
    match Marker::read(store)? {
        Some(marker) if marker.version >= LIKE_VERSION => Ok(()),
        Some(marker) if marker.version >= STORE_VERSION => {
            let marker = Marker {
                version: LIKE_VERSION,
                ..marker
            };
            marker.write(store, Overwrite::Yes, &Audience::default())
        }
        _ => Err(Error::mismatch(
            "this is a store of an older version, in which no disk begins as a snapshot of another one",
        )
        .with_path(store)
        .with_found("version 1")
        .with_expected(format_args!("version {STORE_VERSION} or later"))
        .with_remedy(
            Remedy::new("bring it to the newest version")
                .named(": ")
                .step(of_store(StoreJob::Upgrade, store), ""),
        )),
    }
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
        Ok(Some(marker)) => {
            vault::unlock(store, &marker)?;
            return Ok(marker.version);
        }
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
        let name = entry.map_err(failed)?.file_name().into_string().ok();
        let Some(name) = name.and_then(|name| name_in(store, &name)) else {
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
    match fs::metadata(on_disk(path)) {
        Ok(found) if found.is_dir() => Ok(!file_names(path)?.is_empty()),
        Ok(_) => Ok(false),
        // A dangling link.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("cannot look at", e).with_path(path)),
    }
}
