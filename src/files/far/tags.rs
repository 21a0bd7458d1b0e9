//! Tags of points in time that were changed after their snapshots were taken. A snapshot's metadata can't be changed, so they
//! are in the blob's own metadata.
//!
//! ```text
//! vhdkit_changed_tags     TIME K=V,K=V;TIME K=V     all tags of the snapshots taken at these times
//! ```

use std::collections::BTreeMap;

use super::change;
use super::marks::CHANGED_TAGS;
use super::points::{MOST, parse_tags, tags_text};
use crate::blob::{BlobName, Connector, Listed, Metadata};
use crate::error::{Error, Result};
use crate::storage::ReadAt as _;

/// The tags of a point in time.
pub(super) type Tags = BTreeMap<String, String>;

/// The changed tags by the time of their snapshots, from the blob's entry in a list.
pub fn changed_tags(live: &Listed) -> BTreeMap<String, BTreeMap<String, String>> {
    parse(&live.properties.metadata)
}

fn parse(metadata: &Metadata) -> BTreeMap<String, BTreeMap<String, String>> {
    let text = metadata.get(CHANGED_TAGS).map_or("", String::as_str);
    let entries = text.split(';').filter_map(|entry| entry.split_once(' '));
    entries
        .map(|(time, tags)| (time.to_owned(), parse_tags(tags)))
        .collect()
}

fn write(all: &BTreeMap<String, Tags>) -> Option<String> {
    let entries = all.iter();
    let entries: Vec<String> = entries
        .map(|(time, tags)| format!("{time} {}", tags_text(tags)))
        .collect();
    (!entries.is_empty()).then(|| entries.join(";"))
}

/// Replaces the tags of the snapshot taken at `time` of the blob called `name`.
///
/// # Errors
///
/// [`Usage`](crate::ErrorKind::Usage) if the service has no room for them; [`Pending`](crate::ErrorKind::Pending) if the blob
/// is incomplete.
pub fn set_blob_tags(
    connector: &Connector,
    name: &BlobName,
    time: &str,
    tags: &BTreeMap<String, String>,
) -> Result<()> {
    let (blob, mark) = change::open(connector, name)?;
    if mark.is_some() {
        change::refuse(&blob)?;
    }
    let mut metadata = blob.properties().metadata.clone();
    let mut all = parse(&metadata);
    // Tags of deleted snapshots are removed.
    let there = blob.snapshots()?;
    let is_there = |time: &str| {
        let mut times = there
            .iter()
            .filter_map(|listed| listed.id.snapshot.as_deref());
        times.any(|there| there == time)
    };
    all.retain(|time, _| is_there(time));
    all.insert(time.to_owned(), tags.clone());
    metadata.remove(CHANGED_TAGS);
    if let Some(text) = write(&all) {
        metadata.insert(CHANGED_TAGS.to_owned(), text);
    }
    let bytes = metadata
        .iter()
        .map(|(name, value)| name.len() + value.len());
    if bytes.sum::<usize>() > MOST / 2 {
        return Err(
            Error::usage("the service has no room for more changed tags of this disk")
                .with_path(blob.name())
                .with_expected(format_args!("at most {} bytes of metadata", MOST / 2))
                .with_hint("take tags from other snapshots, or delete some"),
        );
    }
    blob.set_metadata(&metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_tags_read_as_they_were_written() {
        let tags = Tags::from([("a;b".into(), "c d".into()), ("e".into(), String::new())]);
        let all = BTreeMap::from([
            ("2026-11-28T10:00:00.0000000Z".to_owned(), tags),
            ("2026-11-29T10:00:00.0000000Z".to_owned(), Tags::new()),
        ]);
        let text = write(&all).unwrap();
        let metadata = Metadata::from([(CHANGED_TAGS.to_owned(), text)]);
        assert_eq!(parse(&metadata), all);
        assert_eq!(parse(&Metadata::new()), BTreeMap::new());
        assert_eq!(write(&BTreeMap::new()), None);
    }
}
