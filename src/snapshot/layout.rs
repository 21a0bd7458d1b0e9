//! The names of the files of a disk in a store.

use std::fmt;

use super::check_name;

/// Holds the lock of the disk.
pub(super) const LOCK: &str = "lock";

/// The window hashes of the newest snapshot.
pub(super) const WINDOWS: &str = "newest.windows";

/// Held by the command that copies snapshots to the disk.
pub(super) const COPY_LOCK: &str = "copy.lock";

/// What a deletion that is under way shall do.
pub(super) const DELETING: &str = "deleting.json";

/// Ends the name of a data file until its manifest stands.
pub(super) const NEW: &str = ".new";

/// Ends the name of a file that a repair has put aside; no command looks at it.
pub(super) const DAMAGED: &str = ".damaged";

/// Ends the names of a snapshot's files while it is being copied into the store.
pub(super) const PART: &str = ".part";

/// What the names of a snapshot's files begin with: `000002-tue`. In the order of `ls` they are in the order of time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stem {
    /// Numbers the snapshots of a disk in order of creation, from 1: one more than the newest one has.
    pub sequence: u32,
    /// The name of the snapshot.
    pub name: String,
}

impl Stem {
    /// The stem and the rest of a file name; `None` if it isn't one of a snapshot's.
    pub fn parse(file: &str) -> Option<(Self, &str)> {
        let (digits, rest) = file.split_once('-')?;
        let sequence = digits.parse().ok()?;
        // Names may have dots; the endings are known.
        let endings = [".json", ".vhddiff", ".vhd", ".raw"];
        let plain = rest.strip_suffix(NEW).or_else(|| rest.strip_suffix(PART));
        let plain = plain.unwrap_or(rest);
        let ending = endings.into_iter().find(|ending| plain.ends_with(ending))?;
        let name = plain.strip_suffix(ending)?;
        let stem = Self {
            sequence,
            name: name.to_owned(),
        };
        check_name(name).ok()?;
        let ending = file.strip_prefix(&stem.to_string())?;
        Some((stem, ending))
    }

    /// The name of the manifest.
    pub fn manifest(&self) -> String {
        format!("{self}.json")
    }
}

impl fmt::Display for Stem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}-{}", self.sequence, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart_as_they_were_put_together() {
        let stem = Stem {
            sequence: 12,
            name: "a-b.vhd".to_owned(),
        };
        assert_eq!(stem.manifest(), "000012-a-b.vhd.json");
        for ending in [".json", ".vhddiff", ".vhd", ".raw.new", ".json.part"] {
            let file = format!("{stem}{ending}");
            assert_eq!(Stem::parse(&file), Some((stem.clone(), ending)));
        }
        for other in [
            "lock",
            "12-a.json",
            "000012-a",
            "000012-.json",
            "0000012-a.json",
            "000001-../x.json",
        ] {
            assert_eq!(Stem::parse(other), None, "{other}");
        }
    }
}
