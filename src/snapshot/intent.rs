//! The record of a deletion, written first so that the deletion can be finished, or revoked as long as nothing was
//! done.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::layout::DELETING;
use super::manifest::FIRST_SCHEMA;
use super::plain::read_limited;
use super::{Disk, Manifest};
use crate::error::{Error, Result};
use crate::remedy::{Remedy, SnapshotJob, Step};
use crate::storage::{Overwrite, WriteAt as _};

/// A longer file is not an intent.
const LONGEST: u64 = 32 << 20;

/// The most bytes of manifests in one intent; a longer run is split.
pub(super) const MOST_AT_ONCE: usize = 8 << 20;

/// A planned deletion.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Intent {
    schema_version: u32,
    /// The snapshots to delete: one, or several consecutive ones that depend on each other, oldest first.
    pub(super) deleted: Vec<Manifest>,
    /// The next one before and after the deletion.
    pub(super) next: Option<[Manifest; 2]>,
    /// Whether the base of the deleted one becomes the next one's, by applying its diff.
    pub(super) forward: bool,
}

impl Intent {
    pub(super) fn new(deleted: Vec<Manifest>, next: Option<[Manifest; 2]>, forward: bool) -> Self {
        Self {
            schema_version: FIRST_SCHEMA,
            deleted,
            next,
            forward,
        }
    }

    pub(super) fn write(&self, disk: &Disk) -> Result<()> {
        let path = disk.path(DELETING);
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::usage("the intent can't be written").with_source(e))?;
        if bytes.len() as u64 > LONGEST {
            return Err(Error::usage("too many snapshots to delete them at once")
                .with_path(path)
                .with_found(format_args!("{} snapshots", self.deleted.len()))
                .with_hint("delete fewer at a time"));
        }
        let file = disk.new_file(path, DELETING)?;
        file.file().write_all_at(&bytes, 0)?;
        file.publish(Overwrite::No)
    }

    /// Reads what an interrupted deletion left, if anything.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(DELETING);
        let damaged = || {
            Error::damaged("what an interrupted deletion left can't be read")
                .with_path(&path)
                .with_remedy(
                    Remedy::default()
                        .step(
                            Step::Snapshot {
                                job: SnapshotJob::Repair,
                                of: None,
                            },
                            "a repair of the disk",
                        )
                        .text(" sets it aside and repairs what the deletion left"),
                )
        };
        let Some(bytes) = read_limited(&path, LONGEST, damaged)? else {
            return Ok(None);
        };
        let intent: Self = serde_json::from_slice(&bytes).map_err(|e| damaged().with_source(e))?;
        let next = intent.next.iter().flatten();
        for manifest in next.chain(&intent.deleted) {
            manifest
                .check(&folder.join(manifest.stem().manifest()))
                .map_err(|e| damaged().with_source(e))?;
        }
        Ok(Some(intent))
    }
}
