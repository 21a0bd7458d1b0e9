//! The names of a disk's files in a store.

use std::fmt;
use std::path::Path;

use super::check_name;
use crate::files::{Format, FormatChoice, OpenOptions};
use crate::storage::split_stored_name;

pub(super) use crate::storage::{DAMAGED, NEW, PART};

/// The lock file of the disk.
pub(super) const LOCK: &str = "lock";

/// How the names of diffs end, those from nothing among them: packed bases.
pub(super) const PACKED: &str = ".vhddiff";

/// How the names of the files of bases end, without the dot.
pub(super) const BASE_ENDINGS: [&str; 3] = ["vhd", "raw", "vhddiff"];

/// The window hashes of the newest snapshot.
pub(super) const WINDOWS: &str = "newest.windows";

/// The lock file of commands that copy snapshots to the disk.
pub(super) const COPY_LOCK: &str = "copy.lock";

/// The intent of a deletion in progress.
pub(super) const DELETING: &str = "deleting.json";

/// The stem of a snapshot's file names: `000002-tue`. Alphabetical order is chronological.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PointFileName {
    /// Numbers the snapshots of a disk in order of creation, from 1: one more than that of the newest one.
    pub sequence: u32,
    /// The name of the snapshot.
    pub name: String,
}

impl PointFileName {
    /// Splits a file name into the stem and the rest; `None` if it isn't that of a snapshot's file.
    pub fn parse(file: &str) -> Option<(Self, &str)> {
        let (sequence, name, ending) = split_stored_name(file)?;
        check_name(name).ok()?;
        let stem = Self {
            sequence,
            name: name.to_owned(),
        };
        Some((stem, ending))
    }

    /// The name of the manifest.
    pub fn manifest(&self) -> String {
        format!("{self}.json")
    }
}

impl fmt::Display for PointFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}-{}", self.sequence, self.name)
    }
}

/// The options for opening the base at `path`: one with the name of a raw image is raw, whatever a guest wrote to it.
pub(super) fn base_options(path: &Path) -> OpenOptions {
    let raw = path.extension().is_some_and(|ending| ending == "raw");
    OpenOptions {
        format: raw.then_some(FormatChoice::Only(Format::Raw)),
        ..OpenOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_knows_the_names_that_only_a_store_changes() {
        assert_eq!(crate::storage::ONCE, [LOCK, COPY_LOCK, WINDOWS, DELETING]);
    }

    #[test]
    fn names_come_apart_as_they_were_put_together() {
        let stem = PointFileName {
            sequence: 12,
            name: "a-b.vhd".to_owned(),
        };
        assert_eq!(stem.manifest(), "000012-a-b.vhd.json");
        for ending in [".json", ".vhddiff", ".vhd", ".raw.new", ".json.part"] {
            let file = format!("{stem}{ending}");
            assert_eq!(PointFileName::parse(&file), Some((stem.clone(), ending)));
        }
        for other in [
            "lock",
            "12-a.json",
            "000012-a",
            "000012-.json",
            "0000012-a.json",
            "000001-../x.json",
        ] {
            assert_eq!(PointFileName::parse(other), None, "{other}");
        }
    }
}
