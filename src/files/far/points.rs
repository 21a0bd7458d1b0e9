//! The points in time of an image in a blob, as the metadata of its snapshots.
//!
//! ```text
//! vhdkit_name         text        the name of the point in time
//! vhdkit_time         RFC 3339    the time of its content
//! vhdkit_digest       digest      the content digest of the virtual disk
//! vhdkit_id           text        the point in the store from which it was copied, which has the same id there
//! vhdkit_disk         text        the id of the disk in that store
//! vhdkit_source       text        the source that it was copied from, for people
//! vhdkit_resource     text        the cloud's id of the disk
//! vhdkit_unique       text        the cloud's id of that disk instance
//! vhdkit_tags         K=V,K=V     tags
//! vhdkit_program      text        the program that took it, with its version
//! ```
//!
//! Characters that headers can't carry are percent-encoded. A snapshot without any of this is a point in time, too: its name
//! is its time in the service.

use std::collections::BTreeMap;

use super::marks::{CHANGED_TAGS, COPY, Mark, NAME, digest_of, is_checkpoint, whole};
use crate::blob::{Listed, Metadata, decoded, encoded};
use crate::image::ContentDigest;

const TIME: &str = "vhdkit_time";
const ID: &str = "vhdkit_id";
const DISK: &str = "vhdkit_disk";
const SOURCE: &str = "vhdkit_source";
const RESOURCE: &str = "vhdkit_resource";
const UNIQUE: &str = "vhdkit_unique";
const TAGS: &str = "vhdkit_tags";
const PROGRAM: &str = "vhdkit_program";

/// Characters that aren't encoded in values, besides letters, digits and `-._~`.
const PLAIN: &str = ":/@ +,()";

/// The most bytes of metadata that the service stores with a blob.
pub(super) const MOST: usize = 8 << 10;

/// The metadata of a point in time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PointNote {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The time of its content, as RFC 3339.
    pub time: Option<String>,
    /// Its id, which it keeps when it is copied.
    pub id: Option<String>,
    /// The id of the disk.
    pub disk_id: Option<String>,
    /// The source that it was copied from, for people.
    pub source: Option<String>,
    /// The content digest of the virtual disk.
    pub digest: Option<ContentDigest>,
    /// The cloud's id of the disk.
    pub resource: Option<String>,
    /// The cloud's id of that disk instance.
    pub unique: Option<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

impl PointNote {
    /// The metadata of a snapshot of a blob whose own metadata was `before`, taken in the change called `copy`.
    pub(super) fn metadata(&self, before: &Metadata, copy: &str) -> Metadata {
        let mut metadata = whole(before, self.digest);
        let program = concat!("vhdkit ", env!("CARGO_PKG_VERSION"));
        // The blob's own, of other snapshots.
        metadata.remove(CHANGED_TAGS);
        let tags = (!self.tags.is_empty()).then(|| tags_text(&self.tags));
        for (name, value) in [
            (NAME, self.name.as_deref()),
            (TIME, self.time.as_deref()),
            (ID, self.id.as_deref()),
            (DISK, self.disk_id.as_deref()),
            (SOURCE, self.source.as_deref()),
            (RESOURCE, self.resource.as_deref()),
            (UNIQUE, self.unique.as_deref()),
            (PROGRAM, Some(program)),
            (COPY, Some(copy)),
        ] {
            if let Some(value) = value {
                metadata.insert(name.to_owned(), encoded(value, PLAIN));
            }
        }
        if let Some(tags) = tags {
            metadata.insert(TAGS.to_owned(), tags);
        }
        metadata
    }

    /// Whether the service has room for it.
    pub fn fits(&self) -> bool {
        let metadata = self.metadata(&Metadata::new(), "");
        let bytes = metadata
            .iter()
            .map(|(name, value)| name.len() + value.len());
        bytes.sum::<usize>() <= MOST / 2
    }

    fn of(metadata: &Metadata, digest: Option<ContentDigest>) -> Self {
        // A value that can't be decoded is from another program, and is used unchanged.
        let text = |name: &str| {
            let value = metadata.get(name)?;
            Some(decoded(value).unwrap_or_else(|| value.clone()))
        };
        let tags = metadata.get(TAGS).map_or("", String::as_str);
        Self {
            name: text(NAME),
            time: text(TIME),
            id: text(ID),
            disk_id: text(DISK),
            source: text(SOURCE),
            digest,
            resource: text(RESOURCE),
            unique: text(UNIQUE),
            tags: parse_tags(tags),
        }
    }
}

/// Tags as text, which holds neither a blank nor a semicolon.
pub(super) fn tags_text(tags: &BTreeMap<String, String>) -> String {
    let all: Vec<String> = tags.iter().map(|(key, value)| tag(key, value)).collect();
    all.join(",")
}

pub(super) fn parse_tags(text: &str) -> BTreeMap<String, String> {
    text.split(',').filter_map(parse_tag).collect()
}

fn tag(key: &str, value: &str) -> String {
    format!("{}={}", encoded(key, ""), encoded(value, ""))
}

fn parse_tag(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    Some((decoded(key)?, decoded(value)?))
}

/// A snapshot of a blob as a point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobPoint {
    /// Its metadata.
    pub note: PointNote,
    /// Its time in the service.
    pub snapshot: String,
    /// Bytes of the blob.
    pub blob_size: u64,
    /// Whether it was taken while the image was between two points in time.
    pub is_torn: bool,
}

impl BlobPoint {
    /// Parses a snapshot in a list; `None` for the blob itself, and for a checkpoint, which is temporary.
    pub fn of(listed: &Listed) -> Option<Self> {
        let snapshot = listed.id.snapshot.clone()?;
        let metadata = &listed.properties.metadata;
        if is_checkpoint(metadata) {
            return None;
        }
        Some(Self {
            note: PointNote::of(metadata, digest_of(&listed.id, &listed.properties)),
            blob_size: listed.properties.size,
            is_torn: Mark::of(metadata).is_some(),
            snapshot,
        })
    }
}

/// The operation in progress on the blob in a list, if it is incomplete.
pub fn unfinished(listed: &Listed) -> Option<&'static str> {
    match Mark::of(&listed.properties.metadata)? {
        Mark::Writing => Some("being written, or a program that wrote it was interrupted"),
        Mark::Applying(_) => {
            Some("between two points in time: what changes it hasn't finished, or was interrupted")
        }
        Mark::Unknown(_) => Some("marked as incomplete in a way that isn't known here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::{BlobId, BlobKind, Properties};

    fn listed(metadata: Metadata) -> Listed {
        Listed {
            id: BlobId::live("web.vhd").at("2026-11-28T10:00:00.0000000Z"),
            properties: Properties {
                size: 512,
                etag: String::new(),
                last_modified: None,
                kind: BlobKind::Page,
                sequence: 0,
                leased: false,
                metadata,
            },
        }
    }

    #[test]
    fn what_is_recorded_reads_as_it_was_written() {
        let note = PointNote {
            name: Some("tue".into()),
            time: Some("2026-11-24T06:00:00Z".into()),
            id: Some("1".into()),
            disk_id: Some("2".into()),
            source: Some("web@tue \u{fc} %41".into()),
            digest: Some(ContentDigest([7; 32])),
            resource: Some("/subscriptions/1/disks/web".into()),
            unique: Some("3".into()),
            tags: BTreeMap::from([
                ("keep".into(), "a&b=\u{e9}".into()),
                ("x".into(), String::new()),
            ]),
        };
        let theirs = Metadata::from([("owner".into(), "me".into())]);
        let metadata = note.metadata(&theirs, "c");
        assert!(
            metadata
                .values()
                .all(|value| value.chars().all(|c| c.is_ascii() && !c.is_control()))
        );
        assert_eq!(metadata.get("owner").map(String::as_str), Some("me"));
        assert_eq!(BlobPoint::of(&listed(metadata)).unwrap().note, note);
        assert!(note.fits());
        let long = PointNote {
            source: Some("x".repeat(9000)),
            ..note
        };
        assert!(!long.fits());
    }

    #[test]
    fn a_snapshot_of_others_is_a_point_in_time() {
        let point = BlobPoint::of(&listed(Metadata::new())).unwrap();
        assert_eq!(point.note, PointNote::default());
        assert!(!point.is_torn);
        let role = Metadata::from([("vhdkit_role".into(), "checkpoint".into())]);
        assert_eq!(BlobPoint::of(&listed(role)), None);
        let torn = Metadata::from([("vhdkit_state".into(), "applying".into())]);
        assert!(BlobPoint::of(&listed(torn)).unwrap().is_torn);
    }
}
