//! A disk or snapshot, as the service describes it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::name::{ResourceKind, ResourceName};
use crate::error::{Error, Result};

/// A disk or snapshot, as the service described it when it was asked.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Resource {
    /// The resource id.
    pub id: String,
    /// Disk or snapshot.
    pub kind: ResourceKind,
    /// The name within its group.
    pub name: String,
    /// The resource group.
    pub group: String,
    /// The region.
    pub location: String,
    /// The kind of storage: `Standard_LRS`.
    pub sku: Option<String>,
    /// Tags of its owner.
    pub tags: BTreeMap<String, String>,
    /// Size of the disk in bytes.
    pub size: Option<u64>,
    /// The id of this instance: a resource that was deleted and created again has another.
    pub unique_id: Option<String>,
    /// The resource that it was made from.
    pub source_id: Option<String>,
    /// The instance that it was made from.
    pub source_unique_id: Option<String>,
    /// How it was made: `Copy`, `CopyStart`.
    pub create_option: Option<String>,
    /// Whether a snapshot holds only what changed since the one before.
    pub incremental: bool,
    /// The completion of a snapshot in percent.
    pub percent: Option<f64>,
    /// Why the service gave up copying a snapshot.
    pub copy_error: Option<String>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// The network policy for its bytes: `AllowAll`, `AllowPrivate`, `DenyAll`.
    pub network: Option<String>,
    /// Whether they are accessible through the public network: `Enabled`, `Disabled`.
    pub public_network: Option<String>,
    /// `Unattached`, `Attached`, `ActiveSAS` and so on.
    pub state: Option<String>,
}

impl Resource {
    /// Parses the description of a resource.
    pub(super) fn parse(value: &Value) -> Result<Self> {
        let wrong = |what: &str| {
            Error::unsupported("the resource manager describes a disk in a way that isn't known")
                .with_found(format_args!("no {what}"))
        };
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
        let id = text("/id").ok_or_else(|| wrong("id"))?;
        let name = ResourceName::parse(id)?;
        let gigabytes = value
            .pointer("/properties/diskSizeGB")
            .and_then(Value::as_u64);
        let bytes = value
            .pointer("/properties/diskSizeBytes")
            .and_then(Value::as_u64);
        let own = |pointer: &str| text(pointer).map(str::to_owned);
        let tags = value.get("tags").and_then(Value::as_object);
        let tags = tags.into_iter().flatten();
        Ok(Self {
            id: id.to_owned(),
            kind: name.kind().ok_or_else(|| wrong("kind"))?,
            name: name.name().to_owned(),
            group: name.group().to_owned(),
            location: own("/location").ok_or_else(|| wrong("location"))?,
            sku: own("/sku/name"),
            tags: tags
                .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect(),
            size: bytes.or(gigabytes.and_then(|size| size.checked_mul(1 << 30))),
            unique_id: own("/properties/uniqueId"),
            source_id: own("/properties/creationData/sourceResourceId"),
            source_unique_id: own("/properties/creationData/sourceUniqueId"),
            create_option: own("/properties/creationData/createOption"),
            incremental: value.pointer("/properties/incremental") == Some(&Value::Bool(true)),
            percent: value
                .pointer("/properties/completionPercent")
                .and_then(Value::as_f64),
            copy_error: copy_error(value),
            created: text("/properties/timeCreated").and_then(|time| time.parse().ok()),
            network: own("/properties/networkAccessPolicy"),
            public_network: own("/properties/publicNetworkAccess"),
            state: own("/properties/diskState"),
        })
    }

    /// An incremental snapshot.
    #[cfg(test)]
    pub(crate) fn snapshot(
        id: &str,
        unique_id: &str,
        created: i64,
        percent: f64,
        size: u64,
    ) -> Self {
        let value = serde_json::json!({
            "id": id, "location": "eastus",
            "properties": { "incremental": true, "uniqueId": unique_id, "completionPercent": percent, "diskSizeBytes": size },
        });
        let mut made = Self::parse(&value).unwrap();
        made.created = Timestamp::from_second(created).ok();
        made
    }

    /// Returns whether it is complete.
    pub fn is_complete(&self) -> bool {
        self.percent.is_none_or(|percent| percent >= 100.0)
    }

    /// Returns whether access to its bytes is granted to somebody.
    pub fn is_granted(&self) -> bool {
        let state = self.state.as_deref().unwrap_or("");
        ["ActiveSAS", "ActiveSASFrozen", "ActiveUpload"]
            .iter()
            .any(|word| state.eq_ignore_ascii_case(word))
    }

    /// Returns whether two ids refer to the same resource, ignoring case.
    pub fn is(&self, id: &str) -> bool {
        self.id.eq_ignore_ascii_case(id.trim_end_matches('/'))
    }
}

/// The reason for which a copy failed, in the words of the service.
fn copy_error(value: &Value) -> Option<String> {
    let error = value.pointer("/properties/copyCompletionError")?;
    let text = |name: &str| error.get(name).and_then(Value::as_str);
    let said = text("errorMessage").or_else(|| text("errorCode"))?;
    let line = said.lines().next().unwrap_or("").trim();
    Some(
        crate::text::without_secrets(line)
            .chars()
            .take(300)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_description_is_understood() {
        let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/snapshots/a";
        let value = json!({
            "id": id, "location": "eastus", "tags": { "a": "b" }, "sku": { "name": "Standard_LRS" },
            "properties": {
                "creationData": { "createOption": "Copy", "sourceResourceId": "x", "sourceUniqueId": "u" },
                "incremental": true, "completionPercent": 42.5, "diskSizeGB": 4,
                "timeCreated": "2026-11-28T04:04:38.562867+00:00", "diskState": "ActiveSAS",
            },
        });
        let found = Resource::parse(&value).unwrap();
        assert_eq!(found.size, Some(4 << 30));
        assert!(found.incremental && !found.is_complete() && found.is_granted());
        assert!(found.created.is_some() && found.is(&id.to_uppercase()));
        for wrong in [json!({}), json!({ "id": "x" }), json!({ "id": id })] {
            assert!(Resource::parse(&wrong).is_err(), "{wrong}");
        }
    }
}
