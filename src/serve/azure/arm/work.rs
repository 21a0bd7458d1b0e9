//! Operations on disks and snapshots.

use std::sync::{Arc, PoisonError};

use serde_json::{Map, Value, json};

use super::entry::{Entry, Grant, Key, Kind, Stage, parse_id};
use super::state::{Copying, State, check_name};
use crate::page::PAGE_SIZE;
use crate::page::PageRange;
use crate::progress::Silent;
use crate::serve::azure::refusal::{Answered, refuse};
use crate::serve::azure::text::{now, uuid};
use crate::serve::azure::volume::{Frozen, Volume};
use crate::snapshot::Family;
use crate::vhd::{DiskType, Footer};

/// Maximum number of snapshots of one disk to which access is granted at a time.
const MOST_GRANTS: usize = 5;

/// The largest disk, in bytes: a page blob of it still has room for its footer.
const LARGEST: u64 = (8 << 40) - (1 << 20);

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

fn not_found<T>(id: &str) -> Answered<T> {
    refuse(
        404,
        "ResourceNotFound",
        format!("The Resource '{id}' was not found."),
    )
}

fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    path.iter()
        .try_fold(value, |value, name| value.get(*name))?
        .as_str()
}

fn number(value: &Value, path: &[&str]) -> Option<u64> {
    path.iter()
        .try_fold(value, |value, name| value.get(*name))?
        .as_u64()
}

fn tags(body: &Value) -> Option<Map<String, Value>> {
    body.get("tags").and_then(Value::as_object).cloned()
}

/// A request to create a resource, as known before any work is done.
#[derive(Debug)]
pub(super) struct Plan {
    entry: Entry,
    from: From,
}

#[derive(Debug)]
enum From {
    Nothing,
    Resource(Key),
    CopyStart(Key),
}

/// Validates a PUT of a resource that doesn't exist.
#[allow(clippy::too_many_lines, reason = "one check after the other")]
pub(super) fn plan(
    state: &State,
    (group, kind, name): (&str, Kind, &str),
    body: &Value,
) -> Answered<Plan> {
    check_name(name)?;
    let option = text(body, &["properties", "creationData", "createOption"]).unwrap_or("");
    let source = text(body, &["properties", "creationData", "sourceResourceId"])
        .or_else(|| text(body, &["properties", "creationData", "sourceUri"]));
    let wanted = match number(body, &["properties", "diskSizeGB"]) {
        Some(0) => return refuse(400, "InvalidParameter", "diskSizeGB is at least 1."),
        Some(gib) => Some(gib.saturating_mul(GIB)),
        None => None,
    };
    let (size, from, mut properties, source_unique) = match option.to_ascii_lowercase().as_str() {
        "empty" if kind == Kind::Disk => {
            let Some(size) = wanted else {
                return refuse(
                    400,
                    "InvalidParameter",
                    "Required parameter 'diskSizeGB' is missing (null).",
                );
            };
            (size, From::Nothing, Map::new(), None)
        }
        "upload" | "uploadpreparedsecure" if kind == Kind::Disk => {
            let bytes =
                number(body, &["properties", "creationData", "uploadSizeBytes"]).unwrap_or(0);
            let size = bytes.saturating_sub(PAGE_SIZE);
            if size == 0 || !size.is_multiple_of(MIB) {
                return refuse(
                    400,
                    "InvalidParameter",
                    format!(
                        "uploadSizeBytes is a whole number of MiB and 512 bytes for the footer, found {bytes}."
                    ),
                );
            }
            (size, From::Nothing, Map::new(), None)
        }
        "copy" | "copystart" | "import" => {
            let Some(id) = source else {
                return refuse(
                    400,
                    "InvalidParameter",
                    "Required parameter 'creationData.sourceResourceId' is missing (null).",
                );
            };
            let Some(key) = parse_id(id, &state.subscription) else {
                return refuse(
                    400,
                    "InvalidParameter",
                    format!(
                        "The source '{id}' is not the id of a disk or snapshot of this subscription."
                    ),
                );
            };
            let Some(found) = state.entry(&key) else {
                return not_found(id);
            };
            let starts = option.eq_ignore_ascii_case("copystart");
            if starts
                && (kind != Kind::Snapshot || key.kind != Kind::Snapshot || !found.is_incremental())
            {
                return refuse(
                    400,
                    "InvalidParameter",
                    "createOption CopyStart copies an incremental snapshot to a snapshot.",
                );
            }
            if starts {
                one_at_a_time(state, body, &found)?;
            }
            usable(&found)?;
            let size = wanted.unwrap_or(found.size).max(found.size);
            if kind == Kind::Snapshot && size != found.size {
                return refuse(
                    400,
                    "InvalidParameter",
                    "A snapshot has the size of its disk.",
                );
            }
            let mut properties = Map::new();
            for name in ["osType", "hyperVGeneration"] {
                if let Some(value) = found.properties.get(name) {
                    properties.insert(name.to_owned(), value.clone());
                }
            }
            let of_disk = (key.kind == Kind::Disk).then(|| found.unique_id.clone());
            let unique = of_disk.unwrap_or_else(|| found.family().to_owned());
            let from = if starts {
                From::CopyStart(key)
            } else {
                From::Resource(key)
            };
            (size, from, properties, Some(unique))
        }
        other => {
            return refuse(
                400,
                "InvalidParameter",
                format!(
                    "The value '{other}' of parameter 'creationData.createOption' is invalid for {}.",
                    kind.plural()
                ),
            );
        }
    };
    if size > LARGEST {
        return refuse(
            400,
            "InvalidParameter",
            "The disk is larger than this server goes: 8 TiB less 1 MiB.",
        );
    }
    if let Some(given) = body.get("properties").and_then(Value::as_object) {
        for (name, value) in given {
            if !matches!(
                name.as_str(),
                "diskSizeGB" | "provisioningState" | "uniqueId"
            ) && !value.is_null()
            {
                properties.insert(name.clone(), value.clone());
            }
        }
    }
    if kind == Kind::Snapshot {
        properties.entry("incremental").or_insert(json!(false));
    }
    if let (Some(unique), Some(creation)) = (
        &source_unique,
        properties
            .get_mut("creationData")
            .and_then(Value::as_object_mut),
    ) {
        creation.insert("sourceUniqueId".to_owned(), json!(unique));
    }
    for (name, value) in [
        (
            "encryption",
            json!({ "type": "EncryptionAtRestWithPlatformKey" }),
        ),
        ("networkAccessPolicy", json!("AllowAll")),
        ("publicNetworkAccess", json!("Enabled")),
    ] {
        properties.entry(name).or_insert(value);
    }
    let location = text(body, &["location"]).unwrap_or(&state.location);
    let location = location.replace(' ', "").to_ascii_lowercase();
    if location.is_empty()
        || location.len() > 60
        || !location.bytes().all(|b| b.is_ascii_alphanumeric())
    {
        return refuse(
            400,
            "LocationNotAvailableForResourceType",
            "The provided location is not available.",
        );
    }
    let unique_id = uuid();
    let entry = Entry {
        schema_version: 1,
        subscription: state.subscription.clone(),
        group: group.to_owned(),
        kind,
        name: name.to_owned(),
        location,
        tags: tags(body).unwrap_or_default(),
        sku: text(body, &["sku", "name"])
            .unwrap_or("Standard_LRS")
            .to_owned(),
        properties,
        volume: format!("{name}-{}", &unique_id[..8]),
        unique_id,
        source_unique_id: source_unique,
        size,
        created: now(),
        time: None,
        stage: Stage::Making,
        uploading: option.eq_ignore_ascii_case("upload"),
        grants: Vec::new(),
    };
    Ok(Plan { entry, from })
}

/// Refuses a copy of a snapshot while another one of the same disk is being copied to that region.
fn one_at_a_time(state: &State, body: &Value, source: &Entry) -> Answered<()> {
    let region = text(body, &["location"]).unwrap_or(&state.location);
    let region = region.replace(' ', "");
    let resources = state.lock();
    let busy = resources.entries.values().find(|other| {
        other.stage == Stage::Copying
            && other.family() == source.family()
            && other.time != source.time
            && other.location.eq_ignore_ascii_case(&region)
    });
    match busy {
        Some(busy) => refuse(
            409,
            "OperationNotAllowed",
            format!(
                "Another snapshot of this disk is being copied, to '{}': only one can be copied at a time.",
                busy.name
            ),
        ),
        None => Ok(()),
    }
}

/// Checks that a resource can be read.
fn usable(entry: &Entry) -> Answered<()> {
    if entry.stage != Stage::Ready {
        return refuse(
            409,
            "OperationNotAllowed",
            format!(
                "The {} '{}' is not complete yet: its copy has to reach 100 percent.",
                entry.kind.plural().trim_end_matches('s'),
                entry.name
            ),
        );
    }
    if entry.uploading && entry.active().next().is_some() {
        return refuse(
            409,
            "OperationNotAllowed",
            format!(
                "The disk '{}' is being uploaded to: revoke the access first.",
                entry.name
            ),
        );
    }
    Ok(())
}

impl Plan {
    /// The description while it is being created.
    pub(super) fn shown(&self, state: &State) -> Value {
        state.shown(&self.entry)
    }

    pub(super) fn location(&self) -> &str {
        &self.entry.location
    }

    /// Creates the resource.
    pub(super) fn carry_out(self, state: &Arc<State>) -> Answered<Value> {
        let Self { mut entry, from } = self;
        let key = entry.key();
        state.keep(&entry)?;
        let made = match &from {
            From::Nothing => empty(state, &entry).map(|()| Stage::Ready),
            From::Resource(source) => make_from(state, &mut entry, source).map(|()| Stage::Ready),
            From::CopyStart(source) => {
                begin_copy(state, &mut entry, source).map(|()| Stage::Copying)
            }
        };
        match made {
            Ok(stage) => {
                entry.stage = stage;
                state.keep(&entry)?;
            }
            Err(refusal) => {
                undo(state, &entry)?;
                return Err(refusal);
            }
        }
        if let From::CopyStart(_) = from {
            start_copy(state, &key, entry.size)?;
        }
        Ok(state.shown(&entry))
    }
}

/// Undoes the partial creation of a resource.
fn undo(state: &State, entry: &Entry) -> Answered<()> {
    match (&entry.time, entry.kind) {
        (Some(time), _) if state.has_volume(&entry.volume) => {
            let volume = state.volume(&entry.volume)?;
            volume.delete_snapshot(&mut volume.write(), time)?;
            state.drop_volume(&entry.volume, false)?;
        }
        (None, Kind::Disk) => state.drop_volume(&entry.volume, true)?,
        _ => {}
    }
    Ok(state.forget(&entry.key())?)
}

fn footer(size: u64) -> [u8; 512] {
    Footer::for_disk(DiskType::Fixed, size, None).encode()
}

/// A disk of zeros, which is a fixed VHD from the beginning.
fn empty(state: &State, entry: &Entry) -> Answered<()> {
    let volume = make_disk(state, entry)?;
    put_footer(&volume, entry.size)
}

fn make_disk(state: &State, entry: &Entry) -> Answered<Arc<Volume>> {
    let file = format!("{}.vhd", entry.name);
    Ok(state.make_volume(&entry.volume, Some(&file), entry.size + PAGE_SIZE)?)
}

fn put_footer(volume: &Volume, size: u64) -> Answered<()> {
    let range = PageRange::covering(size, size + PAGE_SIZE);
    Ok(volume.write().update(range, &footer(size))?)
}

fn family_of(entry: &Entry, id: &str) -> Family {
    Family {
        source_resource_id: Some(id.to_owned()),
        source_unique_id: Some(entry.unique_id.clone()),
    }
}

/// A disk or a snapshot that starts as a copy of another.
fn make_from(state: &State, entry: &mut Entry, source: &Key) -> Answered<()> {
    let Some(from) = state.entry(source) else {
        return not_found(&source.name);
    };
    usable(&from)?;
    let origin = state.volume(&from.volume)?;
    match (entry.kind, from.kind) {
        (Kind::Snapshot, Kind::Disk) => {
            let mut live = origin.write();
            let family = family_of(&from, &from.id());
            let taken = origin.snapshot(&mut live, None, family, !entry.is_incremental())?;
            entry.volume.clone_from(&from.volume);
            entry.time = Some(taken.time);
        }
        (Kind::Snapshot, Kind::Snapshot) => {
            let frozen = frozen(&origin, &from)?;
            let volume = state.make_volume(&entry.volume, None, 0)?;
            entry.time = Some(frozen.taken.time.clone());
            volume.copy_snapshot(&frozen, Family::default(), true, &Silent)?;
        }
        (Kind::Disk, kind) => {
            let volume = make_disk(state, entry)?;
            if kind == Kind::Snapshot {
                volume.fill(&frozen(&origin, &from)?, &Silent)?;
            } else {
                let live = origin.read();
                let all = PageRange::covering(0, from.size);
                let data: Vec<_> = live
                    .map()
                    .list(all, None)
                    .map(|change| change.range)
                    .collect();
                volume.fill_with(data.into_iter(), &Silent, |buf, offset| {
                    live.read(buf, offset)
                })?;
            }
            if entry.size > from.size {
                let old = PageRange::covering(from.size, from.size + PAGE_SIZE);
                volume.write().clear(old)?;
            }
            put_footer(&volume, entry.size)?;
        }
    }
    Ok(())
}

fn frozen(volume: &Volume, entry: &Entry) -> Answered<Frozen> {
    let live = volume.read();
    let time = entry.time.as_deref().unwrap_or("");
    match volume.frozen(&live, time)? {
        Some(frozen) => Ok(frozen),
        None => refuse(
            500,
            "InternalError",
            format!("The content of '{}' is not there.", entry.name),
        ),
    }
}

/// Finds the storage for a copy: copies of one disk's snapshots in one region share it, so that the differences between
/// them are known there, too.
fn begin_copy(state: &State, entry: &mut Entry, source: &Key) -> Answered<()> {
    let Some(from) = state.entry(source) else {
        return not_found(&source.name);
    };
    let unique = from.family();
    let shared = format!("copy-{}.{}", &unique[..8], entry.location);
    let taken = state.has_volume(&shared) && {
        let volume = state.volume(&shared)?;
        let live = volume.read();
        live.record
            .snapshots
            .iter()
            .any(|taken| Some(&taken.time) == from.time.as_ref())
    };
    let waits = state.lock().entries.values().any(|other| {
        other.volume == shared && other.time == from.time && other.stage == Stage::Copying
    });
    if !taken && !waits {
        entry.volume = shared;
    }
    entry.time.clone_from(&from.time);
    Ok(())
}

/// Starts or restarts the copy of a snapshot in the background.
pub(super) fn start_copy(state: &Arc<State>, key: &Key, size: u64) -> Answered<()> {
    let copying = Arc::new(Copying::new(size, state.copy_rate));
    let mut copies = state.copies.lock().unwrap_or_else(PoisonError::into_inner);
    copies.insert(key.clone(), Arc::clone(&copying));
    drop(copies);
    let this = state;
    let (state, key) = (Arc::clone(state), key.clone());
    let started = std::thread::Builder::new()
        .name("azure copy".into())
        .spawn(move || {
            // A failed copy stays below 100 percent, and is retried at the next start.
            let _ = copy(&state, &key, &copying);
        });
    match started {
        Ok(thread) => {
            this.remember_thread(thread);
            Ok(())
        }
        Err(_) => refuse(503, "ServerBusy", "There are too many copies at a time."),
    }
}

fn copy(state: &State, key: &Key, progress: &Copying) -> Answered<()> {
    let Some(entry) = state.entry(key) else {
        return Ok(());
    };
    let id = entry
        .properties
        .get("creationData")
        .and_then(|creation| text(creation, &["sourceResourceId"]));
    let source = id
        .and_then(|id| parse_id(id, &state.subscription))
        .and_then(|source| state.entry(&source));
    let Some(source) = source else {
        return not_found(id.unwrap_or(""));
    };
    let frozen = frozen(&*state.volume(&source.volume)?, &source)?;
    let volume = if state.has_volume(&entry.volume) {
        state.volume(&entry.volume)?
    } else {
        state.make_volume(&entry.volume, None, 0)?
    };
    let known = volume
        .read()
        .record
        .snapshots
        .iter()
        .any(|taken| taken.time == frozen.taken.time);
    if !known {
        volume.copy_snapshot(&frozen, Family::default(), false, progress)?;
    }
    state.change(key, |entry| entry.stage = Stage::Ready)?;
    state
        .copies
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(key);
    Ok(())
}

/// Changes an existing resource; with `whole`, as for a PUT, members that aren't given are removed.
pub(super) fn update(state: &State, key: &Key, body: &Value, whole: bool) -> Answered<Value> {
    let Some(entry) = state.entry(key) else {
        return not_found(&key.name);
    };
    let option = |value: &Value| text(value, &["creationData", "createOption"]).map(str::to_owned);
    let known = option(&Value::Object(entry.properties.clone()));
    let given = body.get("properties").and_then(option);
    let differs = match (&given, &known) {
        (Some(given), Some(known)) => !given.eq_ignore_ascii_case(known),
        _ => false,
    };
    if differs {
        return refuse(
            409,
            "PropertyChangeNotAllowed",
            "Changing property 'creationData.createOption' is not allowed.",
        );
    }
    if let Some(place) = text(body, &["location"])
        && !place.replace(' ', "").eq_ignore_ascii_case(&entry.location)
    {
        return refuse(
            409,
            "InvalidResourceLocation",
            format!(
                "The resource '{}' already exists in location '{}'.",
                entry.name, entry.location
            ),
        );
    }
    if let Some(gib) = number(body, &["properties", "diskSizeGB"]) {
        // Sizes that round up to the same whole number of GiB are equal.
        if gib != entry.size.div_ceil(GIB) {
            resize(state, &entry, gib.saturating_mul(GIB))?;
        }
    }
    let changed = state.change(key, |entry| {
        match tags(body) {
            Some(tags) => entry.tags = tags,
            None if whole => entry.tags.clear(),
            None => {}
        }
        if let Some(sku) = text(body, &["sku", "name"]) {
            sku.clone_into(&mut entry.sku);
        }
        for name in [
            "networkAccessPolicy",
            "publicNetworkAccess",
            "osType",
            "hyperVGeneration",
        ] {
            if let Some(value) = body
                .get("properties")
                .and_then(|properties| properties.get(name))
            {
                entry.properties.insert(name.to_owned(), value.clone());
            }
        }
    })?;
    match changed {
        Some(entry) => Ok(state.shown(&entry)),
        None => not_found(&key.name),
    }
}

fn resize(state: &State, entry: &Entry, size: u64) -> Answered<()> {
    if entry.kind == Kind::Snapshot || size < entry.size || size > LARGEST {
        return refuse(
            409,
            "OperationNotAllowed",
            "A disk can only grow, up to 8 TiB less 1 MiB; a snapshot keeps its size.",
        );
    }
    usable(entry)?;
    if entry.active().next().is_some() {
        return refuse(
            409,
            "OperationNotAllowed",
            "Access to the disk is granted: revoke it first.",
        );
    }
    let volume = state.volume(&entry.volume)?;
    let mut live = volume.write();
    let mut old = [0; 512];
    live.read(&mut old, entry.size)?;
    let identity = Footer::decode(&old);
    let identity = identity.verify(entry.size).is_ok().then_some(identity);
    live.resize(size + PAGE_SIZE)?;
    let new = Footer::for_disk(DiskType::Fixed, size, identity.as_ref()).encode();
    live.update(PageRange::covering(size, size + PAGE_SIZE), &new)?;
    live.clear(PageRange::covering(entry.size, entry.size + PAGE_SIZE))?;
    drop(live);
    state.change(&entry.key(), |entry| entry.size = size)?;
    Ok(())
}

/// Deletes a resource; `false` if it doesn't exist.
pub(super) fn delete(state: &State, key: &Key) -> Answered<bool> {
    let Some(entry) = state.entry(key) else {
        return Ok(false);
    };
    if entry.active().next().is_some() {
        return refuse(
            409,
            "OperationNotAllowed",
            format!(
                "Access to '{}' is granted: revoke it before it is deleted.",
                entry.name
            ),
        );
    }
    if entry.stage == Stage::Making {
        return refuse(
            409,
            "OperationNotAllowed",
            format!("'{}' is being made.", entry.name),
        );
    }
    let id = entry.id();
    let is_source = state.lock().entries.values().any(|other| {
        let of = other
            .properties
            .get("creationData")
            .and_then(|creation| text(creation, &["sourceResourceId"]));
        other.stage != Stage::Ready && of.is_some_and(|of| of.eq_ignore_ascii_case(&id))
    });
    if is_source {
        return refuse(
            409,
            "OperationNotAllowed",
            format!(
                "'{}' is the source of a copy that is not complete.",
                entry.name
            ),
        );
    }
    if let Some(copy) = state
        .copies
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(key)
    {
        copy.stop();
    }
    // It is unlisted first, then removed; the next start removes any remains after a kill.
    state.forget(key)?;
    if state.has_volume(&entry.volume) {
        let volume = state.volume(&entry.volume)?;
        {
            let mut live = volume.write();
            match &entry.time {
                Some(time) => volume.delete_snapshot(&mut live, time).map(drop)?,
                None => volume.delete_live(&mut live)?,
            }
        }
        drop(volume);
        state.drop_volume(&entry.volume, false)?;
    }
    Ok(true)
}

/// Grants access, and returns the address.
pub(super) fn grant(state: &State, key: &Key, body: &Value, root: &str) -> Answered<Value> {
    let Some(entry) = state.entry(key) else {
        return not_found(&key.name);
    };
    let write = match text(body, &["access"])
        .unwrap_or("")
        .to_ascii_lowercase()
        .as_str()
    {
        "read" => false,
        "write" if key.kind == Kind::Disk => true,
        other => {
            return refuse(
                400,
                "InvalidParameter",
                format!("The value '{other}' of parameter 'access' is invalid."),
            );
        }
    };
    let seconds = body
        .get("durationInSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    if !(1..=i64::from(u32::MAX)).contains(&seconds) {
        return refuse(
            400,
            "InvalidParameter",
            "The value of parameter 'durationInSeconds' is invalid.",
        );
    }
    if text(body, &["fileFormat"]).is_some_and(|format| !format.eq_ignore_ascii_case("VHD")) {
        return refuse(
            400,
            "InvalidParameter",
            "This server grants access to VHDs only.",
        );
    }
    if entry.stage != Stage::Ready {
        usable(&entry)?;
    }
    if !write && entry.uploading {
        return refuse(
            409,
            "OperationNotAllowed",
            format!(
                "The disk '{}' waits for its upload: only write access can be granted.",
                entry.name
            ),
        );
    }
    let active = entry.active().next().cloned();
    if let Some(active) = &active
        && active.write != write
    {
        return refuse(
            409,
            "OperationNotAllowed",
            format!(
                "Other access to '{}' is granted: revoke it first.",
                entry.name
            ),
        );
    }
    if key.kind == Kind::Snapshot && active.is_none() {
        let resources = state.lock();
        let granted = resources.entries.values().filter(|other| {
            other.kind == Kind::Snapshot
                && other.is_incremental()
                && other.family() == entry.family()
                && other.active().next().is_some()
        });
        if granted.count() >= MOST_GRANTS {
            return refuse(
                409,
                "OperationNotAllowed",
                "Access to five snapshots of this disk is granted already, which is the most: revoke one.",
            );
        }
    }
    // A repeated request returns the same address, with a later expiry.
    let until = now().saturating_add(seconds);
    let grant = match active {
        Some(grant) => Grant {
            until: grant.until.max(until),
            ..grant
        },
        None => Grant::new(write, seconds),
    };
    let address = entry.address(root, &grant);
    state.change(key, |entry| {
        entry.grants = vec![grant];
    })?;
    Ok(json!({ "accessSAS": address }))
}

/// Revokes all access.
pub(super) fn revoke(state: &State, key: &Key) -> Answered<()> {
    let changed = state.change(key, |entry| {
        if entry.grants.iter().any(|grant| grant.write) {
            entry.uploading = false;
        }
        entry.grants.clear();
    })?;
    match changed {
        Some(_) => Ok(()),
        None => not_found(&key.name),
    }
}

/// Recovers the state left by a killed server: unfinished resources are removed, copies resume.
pub(super) fn resume(state: &Arc<State>) -> Answered<()> {
    for entry in state.unfinished(Stage::Making) {
        undo(state, &entry)?;
    }
    for entry in state.unfinished(Stage::Copying) {
        start_copy(state, &entry.key(), entry.size)?;
    }
    Ok(())
}
