//! A snapshot whose copy isn't complete: finding it, and giving it up.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::disk::{is_passing, read_manifest};
use super::layout::PART;
use super::plain::is_absent;
use super::{Disk, Manifest, PointFileName, State};
use crate::error::{Error, ErrorKind, Result};
use crate::remedy::{Remedy, SnapshotJob};
use crate::storage::{on_disk, remove_if_there};

/// The file that records what is being copied.
pub(super) fn mark(disk: &Disk, point: &Manifest) -> PathBuf {
    disk.path(&format!("{}{PART}", point.stem().manifest()))
}

/// Its data so far.
pub(super) fn part(disk: &Disk, point: &Manifest) -> PathBuf {
    disk.path(&format!("{}{PART}", point.data.file))
}

/// Finds the snapshot that is being copied to `disk`, and how complete it is.
pub(super) fn find(disk: &Disk) -> Result<Option<Manifest>> {
    for name in disk.names.parts() {
        let Some((stem, ".json.part")) = PointFileName::parse(name) else {
            continue;
        };
        let complete = stem.manifest();
        if disk.names.contains(&complete) {
            continue;
        }
        let mut point = match read_manifest(&disk.path(name), &disk.path(&complete)) {
            Ok(point) => point,
            // A running copy has just ended.
            Err(error) if error.io_kind() == Some(std::io::ErrorKind::NotFound) => continue,
            Err(error) if is_passing(&error) => return Err(error),
            // A damaged one is ignored: the copy starts again.
            Err(_) => continue,
        };
        let files = [part(disk, &point), disk.path(&point.data.file)];
        let found = files
            .iter()
            .find_map(|file| fs::metadata(on_disk(file)).ok());
        let (len, used) = found.map_or((0, 0), |found| (found.len(), found.blocks()));
        let percent = u128::from(len) * 100 / u128::from(point.data.length.max(1));
        point.completion_percent = u8::try_from(percent.min(99)).unwrap_or(99);
        point.used_size = used.saturating_mul(512);
        point.state = State::Copying;
        return Ok(Some(point));
    }
    Ok(None)
}

/// The error for using an incomplete snapshot.
pub(super) fn incomplete(disk: &Disk, part: &Manifest) -> Error {
    let delete = SnapshotJob::Delete {
        name: Some(part.name.clone()),
        last: false,
    };
    Error::new(ErrorKind::Pending, "a snapshot is still being copied here")
        .with_path(disk.label(part))
        .with_field("completion_percent")
        .with_found(part.completion_percent)
        .with_expected(100)
        .with_remedy(
            Remedy::new("run the copy again to finish it, or give it up")
                .named(" with ")
                .step(disk.step(delete), ""),
        )
}

/// Removes everything received of an incomplete snapshot, as far as the disk knows about it.
pub(super) fn give_up(disk: &mut Disk) -> Result<()> {
    // The data first: as long as there is any, the mark identifies it.
    if let Some(point) = disk.copying.take() {
        remove_if_there(&part(disk, &point))?;
        if is_absent(&disk.path(&point.stem().manifest())) {
            remove_if_there(&disk.path(&point.data.file))?;
        }
    }
    for name in disk.names.parts().clone() {
        remove_if_there(&disk.path(&name))?;
        disk.names.remove(&name);
    }
    Ok(())
}
