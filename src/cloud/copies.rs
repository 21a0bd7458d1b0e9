//! Copies of snapshots that the service makes, in another region or group.
//!
//! A copy is tagged with what it is a copy of. Copies that others started without these tags are recognized by their source.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;

use super::family::Family;
use super::group::Group;
use super::manager::{Cloud, same_region, set_sku};
use super::name::{ResourceKind, ResourceName};
use super::resource::Resource;
use crate::error::{Error, ErrorKind, Result};

/// The tag with the unique id of the snapshot that was copied.
const OF_SNAPSHOT: &str = "vhdkit-snapshot";
/// The tag with the time of that snapshot.
const TIME: &str = "vhdkit-time";
/// The tag with the resource id of its disk.
const OF_DISK: &str = "vhdkit-disk";
/// The tag with the unique id of its disk.
const OF_INSTANCE: &str = "vhdkit-disk-unique-id";
/// Tags of the source that a copy doesn't get: they are about the source alone.
const OWN_TAG: &str = "vhdkit";

/// A copy to be started.
#[derive(Debug, Clone, Copy)]
pub struct NewCopy<'a> {
    /// The disk with its snapshots.
    pub family: &'a Family,
    /// The one of them to copy.
    pub source: &'a Resource,
    /// Where the copy is created.
    pub group: &'a Group,
    /// Its name there.
    pub name: &'a str,
    /// Its region.
    pub region: &'a str,
    /// The kind of storage.
    pub sku: Option<&'a str>,
}

impl Resource {
    /// Returns whether the service made this snapshot as a copy of `source`, or is making it.
    pub fn is_copy_of(&self, source: &Self) -> bool {
        let starts = self
            .create_option
            .as_deref()
            .is_some_and(|option| option.eq_ignore_ascii_case("CopyStart"));
        let named = self.source_id.as_deref().is_some_and(|id| source.is(id));
        if !starts || !named {
            return false;
        }
        match (self.tags.get(OF_SNAPSHOT), &source.unique_id) {
            (Some(of), Some(id)) => of.eq_ignore_ascii_case(id),
            // An earlier snapshot of the same name was copied before this one was made.
            _ => {
                matches!((self.created, source.created), (Some(copied), Some(made)) if copied.as_second() >= made.as_second())
            }
        }
    }

    /// Returns whether this is in `region`, however that is written.
    pub fn is_in(&self, region: &str) -> bool {
        same_region(&self.location, region)
    }

    /// Returns whether this is a copy that the service is still making.
    pub fn is_being_copied(&self) -> bool {
        !self.is_complete() && self.copy_error.is_none()
    }

    /// A copy with the time and the disk of its source; and the id of that disk. `None` without the tags.
    pub(super) fn as_of_disk(&self) -> Option<(&str, Self)> {
        let disk = self.tags.get(OF_DISK)?;
        let time: Timestamp = self.tags.get(TIME)?.parse().ok()?;
        let mut same = self.clone();
        same.created = Some(time);
        same.source_unique_id = self.tags.get(OF_INSTANCE).cloned();
        Some((disk, same))
    }
}

impl Family {
    /// The copy of `source` that isn't complete yet, if there is one: until then the source is needed.
    pub fn copy_under_way(&self, source: &Resource) -> Option<&Resource> {
        self.copies
            .iter()
            .find(|copy| copy.is_copy_of(source) && copy.is_being_copied())
    }
}

impl Cloud {
    /// Starts a copy, which the service then makes in the background. Returns the one that is there already if another command
    /// started it meanwhile.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage) if the name is taken, [`Locked`](ErrorKind::Locked) if the service is copying another snapshot
    /// of the disk.
    pub fn start_copy(&self, new: &NewCopy<'_>) -> Result<Resource> {
        let name = new.group.snapshot(new.name)?;
        if let Some(known) = self.get(&name, ResourceKind::Snapshot)? {
            if known.is_copy_of(new.source) {
                return Ok(known);
            }
            return Err(
                Error::usage("another snapshot has the name that the copy would get")
                    .with_path(name.shown())
                    .with_hint("delete that one, or copy to another resource group"),
            );
        }
        let mut tags: BTreeMap<&str, &str> = new
            .source
            .tags
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| !name.eq_ignore_ascii_case(OWN_TAG))
            .collect();
        let time = new.source.created.map(|time| time.to_string());
        for (name, value) in [
            (OF_SNAPSHOT, new.source.unique_id.as_deref()),
            (TIME, time.as_deref()),
            (OF_DISK, Some(new.family.disk_id.as_str())),
            (OF_INSTANCE, new.family.unique_id.as_deref()),
        ] {
            if let Some(value) = value {
                tags.insert(name, value);
            }
        }
        let mut body = json!({
            "location": new.region,
            "tags": tags,
            "properties": {
                "creationData": { "createOption": "CopyStart", "sourceResourceId": new.source.id },
                "incremental": true,
            },
        });
        set_sku(&mut body, new.sku);
        self.put(&name, &body, "cannot start the copy")
            .map_err(|error| match error.kind() {
                ErrorKind::Locked => error.with_hint(
                    "the service copies one snapshot of a disk at a time: run the command again when that is done",
                ),
                _ => error,
            })
    }
}

impl Family {
    /// The copies in the group of `name` of snapshots of a disk with that name, as its snapshots; `None` if there are none.
    pub(super) fn of_copies(
        name: &ResourceName,
        all: &[Resource],
    ) -> Option<(String, Vec<Resource>)> {
        let ending = format!("/disks/{}", name.name()).to_ascii_lowercase();
        let mut copies = Vec::new();
        let mut disk_id = None;
        for one in all
            .iter()
            .filter(|one| one.group.eq_ignore_ascii_case(name.group()))
        {
            match one.as_of_disk() {
                Some((disk, copy)) if disk.to_ascii_lowercase().ends_with(&ending) => {
                    disk_id.get_or_insert_with(|| disk.to_owned());
                    copies.push(copy);
                }
                _ => {}
            }
        }
        disk_id.map(|id| (id, copies))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(tags: &[(&str, &str)], created: i64) -> Resource {
        let id = "/subscriptions/s/resourceGroups/dr/providers/Microsoft.Compute/snapshots/mon";
        let mut copy = Resource::snapshot(id, "copy", created, 40.0, 1);
        copy.create_option = Some("CopyStart".into());
        copy.source_id = Some(
            "/subscriptions/s/resourceGroups/G/providers/Microsoft.Compute/snapshots/MON".into(),
        );
        copy.tags = tags
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        copy
    }

    #[test]
    fn a_copy_is_known_by_its_tags_or_its_source() {
        let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/snapshots/mon";
        let source = Resource::snapshot(id, "U", 100, 100.0, 1);
        for (copy, expected) in [
            (made(&[(OF_SNAPSHOT, "u")], 0), true),
            (made(&[(OF_SNAPSHOT, "other")], 200), false),
            (made(&[], 100), true),
            // That was of a snapshot that had this name before.
            (made(&[], 99), false),
        ] {
            assert_eq!(copy.is_copy_of(&source), expected, "{copy:?}");
        }
        let mut other = made(&[], 200);
        other.create_option = Some("Copy".into());
        assert!(!other.is_copy_of(&source));
        assert!(made(&[], 0).is_in("East US"));
    }

    #[test]
    fn copies_stand_for_the_snapshots_of_their_disk() {
        let tags = [
            (
                OF_DISK,
                "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks/Web",
            ),
            (TIME, "1970-01-01T00:01:40Z"),
            (OF_INSTANCE, "disk"),
        ];
        let all = [made(&tags, 500), made(&[], 500)];
        let find = |name: &str| Family::of_copies(&ResourceName::parse(name).unwrap(), &all);
        let (_, copies) = find("azure:DR/web").unwrap();
        assert_eq!(copies.len(), 1);
        assert_eq!(copies[0].created.unwrap().as_second(), 100);
        assert_eq!(copies[0].source_unique_id.as_deref(), Some("disk"));
        assert!(find("azure:g/web").is_none() && find("azure:dr/eb").is_none());
    }
}
