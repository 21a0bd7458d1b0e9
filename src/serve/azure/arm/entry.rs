//! A resource (a disk or a snapshot) as it is stored and as it is returned to clients.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::serve::azure::identity::random;
use crate::serve::azure::text::{iso_time, now, percent_encoded, uuid};

/// The kind of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Disk,
    Snapshot,
}

impl Kind {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "disks" => Some(Self::Disk),
            "snapshots" => Some(Self::Snapshot),
            _ => None,
        }
    }

    pub(super) const fn plural(self) -> &'static str {
        match self {
            Self::Disk => "disks",
            Self::Snapshot => "snapshots",
        }
    }
}

/// Identifies a resource, independent of its spelling.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) group: String,
    pub(super) kind: Kind,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(group: &str, kind: Kind, name: &str) -> Self {
        Self {
            group: group.to_lowercase(),
            kind,
            name: name.to_ascii_lowercase(),
        }
    }
}

/// An address by which a disk or a snapshot may be read, or written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) id: String,
    pub(super) signature: String,
    pub(super) write: bool,
    pub(super) until: i64,
}

impl Grant {
    pub(super) fn new(write: bool, seconds: i64) -> Self {
        Self {
            id: uuid(),
            signature: random(),
            write,
            until: now().saturating_add(seconds),
        }
    }

    pub(super) fn is_active(&self) -> bool {
        now() < self.until
    }
}

/// The state of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    /// Being created by a request: it is removed if the server ends before it is complete.
    Making,
    /// A copy in the background fills it.
    Copying,
    Ready,
}

/// A disk or a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) schema_version: u32,
    pub(super) subscription: String,
    pub(super) group: String,
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) location: String,
    pub(super) tags: Map<String, Value>,
    pub(super) sku: String,
    /// Its description, without the members that are derived.
    pub(super) properties: Map<String, Value>,
    pub(super) unique_id: String,
    /// The disk that it is a snapshot of, or was created from: `sourceUniqueId`.
    pub(super) source_unique_id: Option<String>,
    /// Bytes of the disk, without the footer.
    pub(super) size: u64,
    pub(super) created: i64,
    /// The folder of its content.
    pub(super) volume: String,
    /// The time that identifies a snapshot there.
    pub(super) time: Option<String>,
    pub(super) stage: Stage,
    /// Whether a disk still waits for its first content, or for more of it.
    pub(super) uploading: bool,
    pub(super) grants: Vec<Grant>,
}

impl Entry {
    pub(super) fn key(&self) -> Key {
        Key::new(&self.group, self.kind, &self.name)
    }

    pub(super) fn id(&self) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Compute/{}/{}",
            self.subscription,
            self.group,
            self.kind.plural(),
            self.name
        )
    }

    pub(super) fn is_incremental(&self) -> bool {
        self.properties.get("incremental") == Some(&Value::Bool(true))
    }

    /// The disk that defines the family of a snapshot.
    pub(super) fn family(&self) -> &str {
        self.source_unique_id.as_deref().unwrap_or(&self.unique_id)
    }

    /// The valid grants.
    pub(super) fn active(&self) -> impl Iterator<Item = &Grant> {
        self.grants.iter().filter(|grant| grant.is_active())
    }

    fn state(&self) -> &'static str {
        match self.active().next() {
            Some(grant) if grant.write => "ActiveUpload",
            Some(_) => "ActiveSAS",
            None if self.uploading => "ReadyToUpload",
            None => "Unattached",
        }
    }

    /// The path of the granted address.
    pub(super) fn granted_path(&self) -> String {
        let hash = blake3::hash(self.unique_id.as_bytes()).to_hex();
        format!("/md-{}/{}/abcd", &hash[..12], &hash[12..24])
    }

    /// The granted address.
    pub(super) fn address(&self, root: &str, grant: &Grant) -> String {
        format!(
            "{root}{}?sv=2018-03-28&sr=b&si={}&sig={}",
            self.granted_path(),
            grant.id,
            percent_encoded(&grant.signature)
        )
    }

    /// The description returned to clients; `percent` is the progress of its copy.
    pub(super) fn shown(&self, percent: f64) -> Value {
        let mut properties = self.properties.clone();
        let mut set = |name: &str, value: Value| properties.insert(name.to_owned(), value);
        set("uniqueId", json!(self.unique_id));
        set("diskSizeBytes", json!(self.size));
        set("diskSizeGB", json!(self.size.div_ceil(1 << 30)));
        // A snapshot of a disk was made at the very moment that its content is of, which orders those of one second.
        let of_disk = self
            .properties
            .get("creationData")
            .and_then(|creation| creation.get("sourceResourceId")?.as_str())
            .is_some_and(|id| id.to_ascii_lowercase().contains("/disks/"));
        let exact = self.time.clone().filter(|_| of_disk);
        set(
            "timeCreated",
            json!(exact.unwrap_or_else(|| iso_time(self.created))),
        );
        let making = self.stage == Stage::Making;
        set(
            "provisioningState",
            json!(if making { "Creating" } else { "Succeeded" }),
        );
        set("diskState", json!(self.state()));
        if self.kind == Kind::Snapshot {
            set(
                "completionPercent",
                json!(if self.stage == Stage::Ready {
                    100.0
                } else {
                    percent
                }),
            );
            if self.is_incremental() {
                let family = blake3::hash(self.family().as_bytes());
                let bytes: [u8; 16] = std::array::from_fn(|at| family.as_bytes()[at]);
                set(
                    "incrementalSnapshotFamilyId",
                    json!(uuid::Uuid::from_bytes(bytes).to_string()),
                );
            }
        }
        let tier = self.sku.split('_').next().unwrap_or("Standard");
        json!({
            "id": self.id(),
            "name": self.name,
            "type": format!("Microsoft.Compute/{}", self.kind.plural()),
            "location": self.location,
            "tags": self.tags,
            "sku": { "name": self.sku, "tier": tier },
            "properties": properties,
        })
    }
}

/// The group, the kind and the name that a resource id has.
pub(super) fn parse_id(id: &str, subscription: &str) -> Option<Key> {
    let parts: Vec<&str> = id.trim_matches('/').split('/').collect();
    let &[a, b, c, group, d, provider, kind, name] = &parts[..] else {
        return None;
    };
    let words = [a, c, d, provider].map(str::to_ascii_lowercase);
    let good = words
        == [
            "subscriptions",
            "resourcegroups",
            "providers",
            "microsoft.compute",
        ]
        && b.eq_ignore_ascii_case(subscription);
    Kind::parse(kind)
        .filter(|_| good)
        .map(|kind| Key::new(group, kind, name))
}
