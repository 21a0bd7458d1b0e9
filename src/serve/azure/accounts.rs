//! Containers and the blobs in them, as folders.
//!
//! ```text
//! accounts/ACCOUNT/CONTAINER/  container.json
//!                              blobs/NAME-HASH/   a blob: see `volume.rs`
//!                              snapshots/         a store with their snapshots
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::points::Points;
use super::refusal::{Answered, Refusal, refuse};
use super::text::{now, ticks};
use super::volume::{Record, Volume, load_json, save_json};
use crate::error::{Error, Result};
use crate::storage::{Audience, create_folder_for, remove_folder, remove_if_there};

/// A container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) modified: i64,
    pub(super) generation: u64,
}

impl Container {
    pub(super) fn etag(&self) -> String {
        format!("\"0x{:016X}\"", self.generation)
    }
}

/// A blob, or the reason for which it can't be used.
type Slot = std::result::Result<Arc<Volume>, Refusal>;

#[derive(Debug)]
struct Opened {
    container: Container,
    blobs: BTreeMap<String, Slot>,
}

/// The containers of the account.
#[derive(Debug)]
pub(super) struct Accounts {
    folder: PathBuf,
    audience: Audience,
    containers: Mutex<BTreeMap<String, Opened>>,
}

impl Accounts {
    /// Opens what is in `folder`.
    pub(super) fn open(folder: PathBuf, audience: &Audience) -> Result<Self> {
        create_folder_for(&folder, audience)?;
        let mut containers = BTreeMap::new();
        for path in folders(&folder)? {
            let record = path.join("container.json");
            // A folder without it was being created or deleted.
            if record.exists() {
                let container: Container = load_json(&record)?;
                let blobs = blobs(&path, audience)?;
                containers.insert(container.name.clone(), Opened { container, blobs });
            }
        }
        Ok(Self {
            folder,
            audience: audience.clone(),
            containers: Mutex::new(containers),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Opened>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The containers, in order.
    pub(super) fn containers(&self) -> Vec<Container> {
        self.lock()
            .values()
            .map(|opened| opened.container.clone())
            .collect()
    }

    pub(super) fn container(&self, name: &str) -> Answered<Container> {
        match self.lock().get(name) {
            Some(opened) => Ok(opened.container.clone()),
            None => no_container(),
        }
    }

    /// Makes a container.
    pub(super) fn create_container(
        &self,
        name: &str,
        metadata: BTreeMap<String, String>,
    ) -> Answered<Container> {
        check_container(name)?;
        let mut containers = self.lock();
        if containers.contains_key(name) {
            return refuse(
                409,
                "ContainerAlreadyExists",
                "The specified container already exists.",
            );
        }
        let folder = self.folder.join(name);
        create_folder_for(&folder.join("blobs"), &self.audience)?;
        let container = Container {
            name: name.to_owned(),
            metadata,
            modified: now(),
            generation: ticks(),
        };
        save_json(&folder.join("container.json"), &container, &self.audience)?;
        let opened = Opened {
            container: container.clone(),
            blobs: BTreeMap::new(),
        };
        containers.insert(name.to_owned(), opened);
        Ok(container)
    }

    /// Replaces the metadata of a container.
    pub(super) fn set_metadata(
        &self,
        name: &str,
        metadata: BTreeMap<String, String>,
    ) -> Answered<Container> {
        let mut containers = self.lock();
        let Some(opened) = containers.get_mut(name) else {
            return no_container();
        };
        let changed = Container {
            metadata,
            modified: now(),
            generation: ticks(),
            ..opened.container.clone()
        };
        save_json(
            &self.folder.join(name).join("container.json"),
            &changed,
            &self.audience,
        )?;
        opened.container = changed.clone();
        Ok(changed)
    }

    /// Deletes a container with all of its content.
    pub(super) fn delete_container(&self, name: &str) -> Answered<()> {
        let mut containers = self.lock();
        let Some(opened) = containers.get(name) else {
            return no_container();
        };
        let mut volumes = Vec::new();
        for slot in opened.blobs.values() {
            volumes.push(slot.clone()?);
        }
        let folder = self.folder.join(name);
        remove_if_there(&folder.join("container.json"))?;
        containers.remove(name);
        for volume in volumes {
            volume.delete_all(&mut volume.write())?;
        }
        drop(containers);
        // The remaining folder is empty, unless somebody added files.
        for path in folders(&folder.join("snapshots")).unwrap_or_default() {
            for file in fs::read_dir(&path).into_iter().flatten().flatten() {
                remove_if_there(&file.path())?;
            }
            remove_folder(&path)?;
        }
        for path in [folder.join("snapshots"), folder.join("blobs"), folder] {
            if path.is_dir() {
                let _ = remove_folder(&path);
            }
        }
        Ok(())
    }

    /// A blob.
    pub(super) fn blob(&self, container: &str, name: &str) -> Answered<Arc<Volume>> {
        match self.blob_if_there(container, name)? {
            Some(volume) => Ok(volume),
            None => refuse(404, "BlobNotFound", "The specified blob does not exist."),
        }
    }

    /// A blob; `None` if it doesn't exist.
    pub(super) fn blob_if_there(
        &self,
        container: &str,
        name: &str,
    ) -> Answered<Option<Arc<Volume>>> {
        match self.lock().get(container) {
            Some(opened) => opened.blobs.get(name).cloned().transpose(),
            None => no_container(),
        }
    }

    /// The blobs whose names begin with `prefix`, in order.
    pub(super) fn blobs(
        &self,
        container: &str,
        prefix: &str,
    ) -> Answered<Vec<(String, Arc<Volume>)>> {
        let containers = self.lock();
        let Some(opened) = containers.get(container) else {
            return no_container();
        };
        let with_prefix = opened.blobs.range(prefix.to_owned()..);
        let mut found = Vec::new();
        for (name, slot) in with_prefix.take_while(|(name, _)| name.starts_with(prefix)) {
            found.push((name.clone(), slot.clone()?));
        }
        Ok(found)
    }

    /// Creates a blob that doesn't exist; if it exists by now, it is returned with `false`.
    pub(super) fn create_blob(
        &self,
        container: &str,
        name: &str,
        size: u64,
        record: Record,
    ) -> Answered<(Arc<Volume>, bool)> {
        if name.is_empty() || name.chars().count() > 1024 || name.chars().any(char::is_control) {
            return refuse(
                400,
                "InvalidResourceName",
                "The specified resource name contains invalid characters.",
            );
        }
        let mut containers = self.lock();
        let Some(opened) = containers.get_mut(container) else {
            return no_container();
        };
        if let Some(slot) = opened.blobs.get(name) {
            return Ok((slot.clone()?, false));
        }
        let home = self.folder.join(container);
        let key = key_of(name);
        let folder = home.join("blobs").join(&key);
        create_folder_for(&folder, &self.audience)?;
        let points = Points::new(home.join("snapshots"), key);
        let volume = Arc::new(Volume::create(
            folder,
            record,
            size,
            points,
            &self.audience,
        )?);
        opened
            .blobs
            .insert(name.to_owned(), Ok(Arc::clone(&volume)));
        Ok((volume, true))
    }

    /// Deletes a blob with its snapshots. The caller must not hold its lock.
    pub(super) fn delete_blob(&self, container: &str, name: &str) -> Answered<()> {
        let mut containers = self.lock();
        let Some(opened) = containers.get_mut(container) else {
            return no_container();
        };
        let Some(slot) = opened.blobs.remove(name) else {
            return refuse(404, "BlobNotFound", "The specified blob does not exist.");
        };
        let volume = slot?;
        let deleted = volume.delete_all(&mut volume.write());
        Ok(deleted?)
    }

    /// Records the state of everything at the end.
    pub(super) fn close(&self) -> Result<()> {
        let containers = self.lock();
        let all = containers.values().flat_map(|opened| opened.blobs.values());
        all.flatten().try_for_each(|volume| volume.close())
    }
}

fn no_container<T>() -> Answered<T> {
    refuse(
        404,
        "ContainerNotFound",
        "The specified container does not exist.",
    )
}

/// The blobs of a container's folder.
fn blobs(container: &Path, audience: &Audience) -> Result<BTreeMap<String, Slot>> {
    let mut found = BTreeMap::new();
    for folder in folders(&container.join("blobs"))? {
        let record = folder.join("blob.json");
        if !record.exists() {
            continue;
        }
        let key = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let points = Points::new(container.join("snapshots"), key.clone());
        let known: Record = load_json(&record)?;
        let slot = Volume::open(folder, points, audience);
        found.insert(known.name, slot.map(Arc::new).map_err(Refusal::from));
    }
    Ok(found)
}

/// The folders in a folder, in order.
pub(super) fn folders(path: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io("cannot read the folder", e).with_path(path);
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The name of a blob's folder: part of the blob's name for recognition, and a hash of all of it.
pub(super) fn key_of(name: &str) -> String {
    let good = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
            c
        } else {
            '_'
        }
    };
    let mut shown: String = name.chars().map(good).take(40).collect();
    if !shown.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        shown.insert(0, 'b');
    }
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!("{shown}-{}", &hash[..16])
}

/// Refuses an invalid name of a container.
fn check_container(name: &str) -> Answered<()> {
    let length = (3..=63).contains(&name.len());
    let signs = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !length {
        return refuse(
            400,
            "OutOfRangeInput",
            "The specified resource name length is not within the permissible limits.",
        );
    }
    if !signs || name.starts_with('-') || name.ends_with('-') || name.contains("--") {
        return refuse(
            400,
            "InvalidResourceName",
            "The specified resource name contains invalid characters.",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_folder() {
        for name in [
            "../../x",
            "/etc/passwd",
            ".",
            "..",
            "a/../b",
            "ä\u{202e}",
            &"x".repeat(1024),
        ] {
            let key = key_of(name);
            crate::snapshot::check_disk_name(&key).unwrap();
        }
        assert_ne!(key_of("a/b"), key_of("a_b"));
        for name in [
            "..",
            "a",
            "A-b",
            "-ab",
            "ab-",
            "a--b",
            "a/b",
            "a.b",
            &"x".repeat(64),
        ] {
            check_container(name).unwrap_err();
        }
        check_container("my-disks-1").unwrap();
    }
}
