//! The names of the files of a disk in a store.

/// Suffix of a data file until its manifest exists.
pub const NEW: &str = ".new";

/// Suffix of a snapshot's files while it is being copied into the store.
pub const PART: &str = ".part";

/// Suffix of a file that a repair has set aside, possibly followed by a number.
pub const DAMAGED: &str = ".damaged";

/// Suffix of a manifest.
pub(super) const MANIFEST: &str = ".json";

/// The names of the lock files of a disk.
pub(super) const LOCKS: [&str; 2] = ["lock", "copy.lock"];

/// The names of the files that a disk has once: its locks, its list of window hashes, and the record of a deletion in
/// progress.
pub const ONCE: [&str; 4] = ["lock", "copy.lock", "newest.windows", "deleting.json"];

/// Splits the name of a snapshot's file into number, name and suffix.
pub fn split_stored_name(file: &str) -> Option<(u32, &str, &str)> {
    let (digits, rest) = file.split_once('-')?;
    let sequence: u32 = digits.parse().ok()?;
    if format!("{sequence:06}") != digits {
        return None;
    }
    // Names may contain dots; the suffixes are known.
    let whole = rest.strip_suffix(NEW).or_else(|| rest.strip_suffix(PART));
    let whole = whole.unwrap_or(rest);
    let endings = [MANIFEST, ".vhddiff", ".vhd", ".raw"];
    let name = endings
        .into_iter()
        .find_map(|ending| whole.strip_suffix(ending))?;
    (!name.is_empty()).then(|| (sequence, name, &rest[name.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart() {
        for (file, parts) in [
            ("000001-a.vhd", Some((1, "a", ".vhd"))),
            ("000012-a-b.vhd.json", Some((12, "a-b.vhd", ".json"))),
            ("000002-x.vhddiff.new", Some((2, "x", ".vhddiff.new"))),
            ("000002-x.json.part", Some((2, "x", ".json.part"))),
            ("4294967295-x.raw", Some((u32::MAX, "x", ".raw"))),
            ("12-a.json", None),
            ("0000012-a.json", None),
            ("+00012-a.json", None),
            ("000012-.json", None),
            ("000012-a", None),
            ("lock", None),
        ] {
            assert_eq!(split_stored_name(file), parts, "{file}");
        }
    }
}
