//! All resources, in memory and as files.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::entry::{Entry, Key, Kind, Stage};
use crate::error::Result;
use crate::progress::Progress;
use crate::serve::azure::points::Points;
use crate::serve::azure::refusal::{Answered, refuse};
use crate::serve::azure::text::percent_encoded;
use crate::serve::azure::volume::{Record, Volume, load_json, save_json};
use crate::storage::{Audience, create_folder_for, remove_if_there};

/// A resource group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) location: String,
    pub(super) tags: Map<String, Value>,
}

/// The state, except for the content of disks.
#[derive(Debug, Default)]
pub(super) struct Resources {
    pub(super) entries: BTreeMap<Key, Entry>,
    pub(super) groups: BTreeMap<String, Group>,
    /// Machines, as they were made.
    pub(super) machines: BTreeMap<(String, String), Value>,
    /// Deployments of this run.
    pub(super) deployments: BTreeMap<(String, String), Value>,
}

/// The progress of a copy in the background.
#[derive(Debug)]
pub(super) struct Copying {
    total: AtomicU64,
    done: AtomicU64,
    stopped: AtomicBool,
    begun: Instant,
    /// Maximum bytes per second.
    rate: Option<u64>,
}

impl Copying {
    pub(super) fn new(total: u64, rate: Option<u64>) -> Self {
        Self {
            total: AtomicU64::new(total.max(1)),
            done: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            begun: Instant::now(),
            rate,
        }
    }

    /// Below 100: at 100 the copy has ended.
    #[allow(clippy::cast_precision_loss, reason = "a percentage for people")]
    pub(super) fn percent(&self) -> f64 {
        let (done, total) = (
            self.done.load(Ordering::Relaxed),
            self.total.load(Ordering::Relaxed),
        );
        let tenths = done.saturating_mul(1000) / total.max(1);
        tenths.min(999) as f64 / 10.0
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl Progress for Copying {
    fn begin(&self, _: &str, total: u64) {
        if total > 0 {
            self.total.store(total, Ordering::Relaxed);
        }
        self.done.store(0, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        let done = self
            .done
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes);
        let Some(rate) = self.rate.filter(|rate| *rate > 0) else {
            return;
        };
        let due = Duration::from_millis(done.saturating_mul(1000) / rate);
        while self.begun.elapsed() < due && !self.is_cancelled() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_cancelled(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// The state of the resource manager.
#[derive(Debug)]
pub(super) struct State {
    folder: PathBuf,
    audience: Audience,
    resources: Mutex<Resources>,
    volumes: Mutex<HashMap<String, Arc<Volume>>>,
    pub(super) copies: Mutex<HashMap<Key, Arc<Copying>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    pub(super) copy_rate: Option<u64>,
    pub(super) subscription: String,
    pub(super) location: String,
}

impl State {
    pub(super) fn open(
        folder: &Path,
        (subscription, location): (&str, &str),
        copy_rate: Option<u64>,
        audience: &Audience,
    ) -> Result<Self> {
        let mut resources = Resources::default();
        let kept = folder.join("resources");
        for part in ["resources", "disks"] {
            create_folder_for(&folder.join(part), audience)?;
        }
        for entry in std::fs::read_dir(&kept).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("disk-") || name.starts_with("snapshot-") {
                let entry: Entry = load_json(&path)?;
                resources.entries.insert(entry.key(), entry);
            } else if name == "groups.json" {
                resources.groups = load_json(&path)?;
            } else if name == "machines.json" {
                let machines: Vec<(String, String, Value)> = load_json(&path)?;
                resources.machines = machines.into_iter().map(|(a, b, c)| ((a, b), c)).collect();
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            audience: audience.clone(),
            resources: Mutex::new(resources),
            volumes: Mutex::default(),
            copies: Mutex::default(),
            threads: Mutex::default(),
            copy_rate,
            subscription: subscription.to_owned(),
            location: location.to_owned(),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Resources> {
        self.resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A resource.
    pub(super) fn entry(&self, key: &Key) -> Option<Entry> {
        self.lock().entries.get(key).cloned()
    }

    fn path(&self, key: &Key) -> PathBuf {
        let kind = if key.kind == Kind::Disk {
            "disk"
        } else {
            "snapshot"
        };
        let place = format!("{}/{}", key.group, key.name);
        let hash = blake3::hash(place.as_bytes()).to_hex();
        let shown: String = key.name.chars().take(80).collect();
        self.folder.join("resources").join(format!(
            "{kind}-{}-{}.json",
            percent_encoded(&shown),
            &hash[..8]
        ))
    }

    /// Stores a resource, new or changed.
    pub(super) fn keep(&self, entry: &Entry) -> Result<()> {
        let key = entry.key();
        let mut resources = self.lock();
        // Signatures are in it.
        save_json(&self.path(&key), entry, &Audience::nobody_else())?;
        resources.entries.insert(key, entry.clone());
        Ok(())
    }

    /// Changes an existing resource.
    pub(super) fn change(
        &self,
        key: &Key,
        change: impl FnOnce(&mut Entry),
    ) -> Result<Option<Entry>> {
        let mut resources = self.lock();
        let Some(known) = resources.entries.get(key) else {
            return Ok(None);
        };
        let mut changed = known.clone();
        change(&mut changed);
        save_json(&self.path(key), &changed, &Audience::nobody_else())?;
        resources.entries.insert(key.clone(), changed.clone());
        Ok(Some(changed))
    }

    /// Forgets a resource.
    pub(super) fn forget(&self, key: &Key) -> Result<()> {
        let mut resources = self.lock();
        remove_if_there(&self.path(key))?;
        resources.entries.remove(key);
        Ok(())
    }

    /// Stores the groups.
    pub(super) fn keep_groups(&self, resources: &Resources) -> Result<()> {
        save_json(
            &self.folder.join("resources/groups.json"),
            &resources.groups,
            &self.audience,
        )
    }

    /// Stores the machines.
    pub(super) fn keep_machines(&self, resources: &Resources) -> Result<()> {
        let list: Vec<_> = resources
            .machines
            .iter()
            .map(|((a, b), c)| (a, b, c))
            .collect();
        save_json(
            &self.folder.join("resources/machines.json"),
            &list,
            &self.audience,
        )
    }

    /// Creates a group with that name, unless it exists.
    pub(super) fn need_group(&self, name: &str, location: &str) -> Answered<()> {
        check_group(name)?;
        let mut resources = self.lock();
        if resources.groups.contains_key(&name.to_lowercase()) {
            return Ok(());
        }
        let group = Group {
            name: name.to_owned(),
            location: location.to_owned(),
            tags: Map::new(),
        };
        resources.groups.insert(name.to_lowercase(), group);
        Ok(self.keep_groups(&resources)?)
    }

    fn points(&self, key: &str) -> Points {
        Points::new(self.folder.join("snapshots"), key.to_owned())
    }

    fn volume_folder(&self, key: &str) -> PathBuf {
        self.folder.join("disks").join(key)
    }

    /// The content of a resource.
    pub(super) fn volume(&self, key: &str) -> Result<Arc<Volume>> {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(volume) = volumes.get(key) {
            return Ok(Arc::clone(volume));
        }
        let opened = Volume::open(self.volume_folder(key), self.points(key), &self.audience)?;
        let volume = Arc::new(opened);
        volumes.insert(key.to_owned(), Arc::clone(&volume));
        Ok(volume)
    }

    /// Whether there is content of that key.
    pub(super) fn has_volume(&self, key: &str) -> bool {
        self.volume_folder(key).join("blob.json").exists()
    }

    /// Makes content: of so many bytes in a file of that name, or for snapshots alone.
    pub(super) fn make_volume(
        &self,
        key: &str,
        file: Option<&str>,
        size: u64,
    ) -> Result<Arc<Volume>> {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.volume_folder(key);
        create_folder_for(&folder, &self.audience)?;
        let record = Record::new(key, true, file);
        let volume = Arc::new(Volume::create(
            folder,
            record,
            size,
            self.points(key),
            &self.audience,
        )?);
        volumes.insert(key.to_owned(), Arc::clone(&volume));
        Ok(volume)
    }

    /// Removes content of which nothing is left; with `all`, whatever is left.
    pub(super) fn drop_volume(&self, key: &str, all: bool) -> Result<()> {
        if !self.has_volume(key) {
            return Ok(());
        }
        let volume = self.volume(key)?;
        if !all && !volume.is_empty() {
            return Ok(());
        }
        volume.delete_all(&mut volume.write())?;
        self.volumes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
        Ok(())
    }

    /// The progress of the copy of a snapshot.
    pub(super) fn percent(&self, key: &Key) -> f64 {
        let copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        copies.get(key).map_or(0.0, |copy| copy.percent())
    }

    /// The description of a resource returned to clients.
    pub(super) fn shown(&self, entry: &Entry) -> Value {
        entry.shown(self.percent(&entry.key()))
    }

    /// Resources that a killed server was making.
    pub(super) fn unfinished(&self, stage: Stage) -> Vec<Entry> {
        self.lock()
            .entries
            .values()
            .filter(|entry| entry.stage == stage)
            .cloned()
            .collect()
    }

    /// Records a thread that copies, which has to end before the content is closed.
    pub(super) fn remember_thread(&self, thread: JoinHandle<()>) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
    }

    /// Records the state of all content that was used. Copies must have been told to stop.
    pub(super) fn close(&self) -> Result<()> {
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // One that panicked has nothing more to do.
            let _ = thread.join();
        }
        let volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        volumes.values().try_for_each(|volume| volume.close())
    }
}

/// Refuses an invalid name of a group.
pub(super) fn check_group(name: &str) -> Answered<()> {
    let good = |c: char| c.is_alphanumeric() || "_-.()".contains(c);
    let length = (1..=90).contains(&name.chars().count());
    if length && name.chars().all(good) && !name.ends_with('.') {
        return Ok(());
    }
    refuse(
        400,
        "InvalidResourceGroup",
        format!(
            "The provided resource group name '{name}' has these invalid characters or length."
        ),
    )
}

/// Refuses an invalid name of a disk or a snapshot.
pub(super) fn check_name(name: &str) -> Answered<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if first && name.len() <= 80 && name.chars().all(good) && !name.ends_with(['.', '-']) {
        return Ok(());
    }
    refuse(
        400,
        "InvalidParameter",
        format!(
            "The name '{name}' is not valid: it has 1 to 80 letters, digits, underscores, hyphens and dots, and begins with a letter or digit."
        ),
    )
}
