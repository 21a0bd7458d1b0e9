//! What the marker of a store says.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::plain::{is_absent, read_limited};
use crate::age::Recipient;
use crate::error::{Error, Result};
use crate::remedy::{Remedy, Step, StoreJob};
use crate::storage::{AtomicFile, Audience, File, Overwrite, WriteAt as _, split_stored_name};
use crate::vhd::UniqueId;

/// The name of the file.
pub const MARKER: &str = "vhdkit-store.json";

/// The file with the secret key of an encrypted store.
pub const KEY_FILE: &str = "vhdkit-store.key.age";

/// The newest version of stores that aren't encrypted.
pub const STORE_VERSION: u32 = 2;

/// The version of encrypted stores.
pub const ENCRYPTED_VERSION: u32 = 3;

/// The newest version of stores, and what a store gets with its first disk that begins as a snapshot of another one,
/// encrypted or not: programs that don't know such disks would delete what they depend on.
pub const LIKE_VERSION: u32 = 4;

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
    /// How its files are encrypted, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

/// What everybody may know of how a store is encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// The public key of the store, as age writes it.
    pub recipient: String,
    /// Where the secret key is.
    pub key: KeyPlace,
}

/// Where the secret key of an encrypted store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyPlace {
    /// In the store, encrypted with a passphrase.
    Passphrase,
    /// In a file that isn't in the store.
    File,
}

impl Encryption {
    /// The public key.
    pub(super) fn recipient(&self, store: &Path) -> Result<Recipient> {
        self.recipient
            .parse()
            .map_err(|e: Error| damaged_marker(store).with_field("recipient").with_source(e))
    }
}

fn damaged_marker(store: &Path) -> Error {
    let encrypted = looks_encrypted(store).unwrap_or(false);
    let job = if encrypted {
        StoreJob::InitEncrypted
    } else {
        StoreJob::Init
    };
    Error::damaged("the marker of this store can't be read")
        .with_path(store.join(MARKER))
        .with_expected("the marker of a store")
        .with_remedy(
            Remedy::new(
                "if this is the right folder, make the marker again; no disk is touched by that",
            )
            .named(": ")
            .step(of_store(job, store), ""),
        )
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
        let damaged = || damaged_marker(store);
        let Some(bytes) = read_limited(&path, LONGEST, damaged)? else {
            return Ok(None);
        };
        let marker: Self = serde_json::from_slice(&bytes).map_err(|e| damaged().with_source(e))?;
        if marker.version == 0 {
            return Err(damaged().with_field("vhdkit_store").with_found(0));
        }
        if marker.version > LIKE_VERSION {
            return Err(Error::unsupported("this store is of a newer version")
                .with_path(path)
                .with_field("vhdkit_store")
                .with_found(marker.version)
                .with_expected(format_args!("at most {LIKE_VERSION}"))
                .with_hint("use the vhdkit that made it, or a newer one"));
        }
        let is_encrypted = marker.encryption.is_some();
        if marker.version < LIKE_VERSION && (marker.version == ENCRYPTED_VERSION) != is_encrypted {
            return Err(damaged()
                .with_field("encryption")
                .with_found(format_args!("version {}", marker.version)));
        }
        Ok(Some(marker))
    }

    pub(super) fn new(version: u32) -> Self {
        Self {
            version,
            id: UniqueId::random().to_string(),
            encryption: None,
        }
    }

    /// Replaces the marker of the store at `store` by this one.
    pub(super) fn replace(&self, store: &Path) -> Result<()> {
        self.write(store, Overwrite::Yes, &Audience::default())
    }

    pub(super) fn write(
        &self,
        store: &Path,
        overwrite: Overwrite,
        audience: &Audience,
    ) -> Result<()> {
        let path = store.join(MARKER);
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::usage("the marker can't be written").with_source(e))?;
        let mut file = AtomicFile::for_audience(path.clone(), audience.clone())?;
        if overwrite == Overwrite::Yes && !is_absent(&path) {
            file = file.for_audience_of_replaced(&File::open(&path)?)?;
        }
        file.file().write_all_at((text + "\n").as_bytes(), 0)?;
        file.publish(overwrite)
    }
}

/// Returns whether the store at `store` is encrypted.
pub fn is_encrypted(store: &Path) -> Result<bool> {
    match Marker::read(store) {
        // Whoever opens the store says what is there instead.
        Err(error) if error.io_kind() == Some(io::ErrorKind::NotADirectory) => Ok(false),
        marker => Ok(marker?.is_some_and(|marker| marker.encryption.is_some())),
    }
}

/// Returns whether there is a key of an encrypted store in the folder, or a folder with encrypted files of snapshots.
pub(super) fn looks_encrypted(store: &Path) -> Result<bool> {
    if !is_absent(&store.join(KEY_FILE)) {
        return Ok(true);
    }
    let failed = |e| Error::io("cannot read the folder", e).with_path(store);
    let entries = match fs::read_dir(store) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        if has_encrypted(&entry.map_err(failed)?.path()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns whether there is an encrypted file of a snapshot in the folder at `disk`, which may be something else.
pub(super) fn has_encrypted(disk: &Path) -> bool {
    let files = fs::read_dir(disk).into_iter().flatten().flatten();
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    names
        .filter_map(|name| name.strip_suffix(".age").map(str::to_owned))
        .any(|name| split_stored_name(&name).is_some())
}

pub(super) fn of_store(job: StoreJob, store: &Path) -> Step {
    Step::Store {
        job,
        store: store.to_path_buf(),
    }
}
