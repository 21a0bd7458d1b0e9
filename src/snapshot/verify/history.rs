//! Checks all snapshots of a disk together: each is unique, they are in chronological order, and none is lost to which
//! something else still refers.

use std::collections::HashMap;

use super::findings::Look;
use crate::error::{Error, Result};
use crate::image::ContentDigest;
use crate::remedy::{Choice, Remedy, SnapshotJob, Step};
use crate::snapshot::layout::WINDOWS;
use crate::snapshot::{Disk, Manifest};

/// Compares the manifests with each other.
pub(super) fn all(look: &mut Look<'_>) {
    let disk = look.disk;
    let (mut ids, mut names) = (HashMap::new(), HashMap::new());
    let mut children: HashMap<&str, &Manifest> = HashMap::new();
    let mut before: Option<&Manifest> = None;
    for point in disk.points() {
        let affected = || vec![point.name.clone()];
        if let Some(other) = ids.insert(point.id.as_str(), point) {
            look.tell(twice(disk, "id", &point.id, [other, point]), affected());
        }
        if let Some(other) = names.insert(point.name.as_str(), point) {
            look.tell(twice(disk, "name", &point.name, [other, point]), affected());
        }
        if let Some(other) = before.filter(|other| other.sequence == point.sequence) {
            let number = point.sequence.to_string();
            look.tell(twice(disk, "sequence", &number, [other, point]), affected());
        }
        if let Some(parent) = &point.parent
            && let Some(other) = children.insert(parent, point)
        {
            look.tell(twice(disk, "parent", parent, [other, point]), affected());
        }
        if let Some(other) = before.filter(|other| point.time < other.time) {
            let error = Error::damaged("this snapshot is older than the one before it")
                .with_path(disk.path(&point.stem().manifest()))
                .with_field("time")
                .with_found(point.time)
                .with_expected(format_args!("{} ({}) or later", other.time, other.name))
                .with_remedy(
                    Remedy::new("rules of prune and ")
                        .step(Step::Choose(Choice::AtTime), "looking snapshots up by time")
                        .text(" can't be relied on for this disk"),
                );
            look.tell(error, affected());
        }
        if let Err(error) = check_footer(point) {
            let path = disk.path(&point.stem().manifest());
            look.tell(error.with_path(path), affected());
        }
        before = Some(point);
    }
}

fn twice(disk: &Disk, field: &str, value: &str, [first, second]: [&Manifest; 2]) -> Error {
    Error::damaged("two snapshots of this disk have the same")
        .with_path(disk.path(&second.stem().manifest()))
        .with_field(field)
        .with_found(format_args!("{value}, as in {}", first.stem().manifest()))
        .with_expected("another one")
        .with_hint("only one of the two was made by this program: the files of the other were put here by something else")
}

/// Fails if a manifest's copy of a VHD footer isn't valid.
pub(in crate::snapshot) fn check_footer(point: &Manifest) -> Result<()> {
    let Some(footer) = point.source.footer() else {
        return Ok(());
    };
    footer.verify_intact(0).map_err(|error| {
        Error::damaged("the VHD footer in this manifest is invalid")
            .with_field("source.footer")
            .with_source(error.to_string())
            .with_hint(
                "the content is not affected: restore the snapshot to a raw image or a dynamic VHD",
            )
    })
}

/// Checks that the window hashes belong to an existing snapshot. They are written last when a snapshot is created, and
/// removed when theirs is deleted: they can belong to another one only if that was lost, with both its files.
pub(super) fn check_list(look: &mut Look<'_>, digest: ContentDigest) {
    let disk = look.disk;
    let known = disk.points().iter().chain(&disk.going);
    // They may belong to the one with the unreadable manifest, which is reported already.
    if look.lacks_manifest
        || known
            .chain(disk.copying())
            .any(|p| p.content_digest == digest)
    {
        return;
    }
    let error = Error::damaged("these window hashes belong to a snapshot that isn't here")
        .with_path(disk.path(WINDOWS))
        .with_field("content digest")
        .with_found(digest)
        .with_expected("that of the newest snapshot, or of one before it")
        .with_remedy(
            Remedy::new(
                "a newer snapshot may be lost with both its files: copy them back from another store. If an older \
                 program deleted it, nothing is lost; rebuild the list with: ",
            )
            .step(disk.step(SnapshotJob::Repair), "a repair"),
        );
    look.tell(error, Vec::new());
}
