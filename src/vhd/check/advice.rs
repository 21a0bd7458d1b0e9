//! Advice about findings: texts with placeholders for file names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::quoted;
use crate::storage::free_name;

/// Advice about a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Advice {
    /// A text with placeholders.
    Template(&'static str),
    /// A complete text.
    Text(String),
}

impl Advice {
    /// The text for the image at `file`.
    pub(super) fn text(&self, file: &Path) -> String {
        match self {
            Self::Template(text) => filled(text, file),
            Self::Text(text) => text.clone(),
        }
    }
}

/// Replaces the placeholders in `text` by shell-quoted file names: `{file}` is the image, `{new}` a new VHD and `{raw}`
/// a new raw image next to it, and `{saved}` the file in which a repair saves the old data.
pub(crate) fn filled(text: &str, file: &Path) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, place, after)) = next_place(rest) {
        filled.push_str(before);
        filled.push_str(&match place {
            "file" => quoted(file),
            "new" => quoted(beside(file, "-new.vhd")),
            "raw" => quoted(beside(file, "-new.raw")),
            _ => quoted(suffixed(file, ".before-repair")),
        });
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// The text before the next placeholder, its name, and the text after it.
fn next_place(text: &str) -> Option<(&str, &str, &str)> {
    const PLACES: [&str; 4] = ["{file}", "{new}", "{raw}", "{saved}"];
    let places = PLACES
        .iter()
        .filter_map(|place| Some((text.find(place)?, *place)));
    let (at, place) = places.min()?;
    let (before, rest) = text.split_at_checked(at)?;
    let after = rest.strip_prefix(place)?;
    Some((before, place.trim_matches(['{', '}']), after))
}

/// A name for a new file made from `file`: in its folder, or in the current one if it is a device.
fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file
        .file_stem()
        .map_or_else(|| OsString::from("disk"), ToOwned::to_owned);
    name.push(ending);
    free_name(&if file.starts_with("/dev") {
        PathBuf::from(name)
    } else {
        file.with_file_name(name)
    })
}

fn suffixed(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_as_one_word_each() {
        let text =
            "run vhd check --repair {file}, or vhd convert {file} {new}; {raw} {saved} {other}";
        assert_eq!(
            filled(text, Path::new("a/my disk.vhd")),
            "run vhd check --repair 'a/my disk.vhd', or vhd convert 'a/my disk.vhd' 'a/my disk-new.vhd'; \
             'a/my disk-new.raw' 'a/my disk.vhd.before-repair' {other}"
        );
        // A file name that looks like a placeholder isn't replaced.
        assert_eq!(
            filled("{file} {new}", Path::new("{new}")),
            "'{new}' '{new}-new.vhd'"
        );
        assert_eq!(filled("{new}", Path::new("/dev/sdx1")), "sdx1-new.vhd");
        assert_eq!(filled("{new}", Path::new("disk")), "disk-new.vhd");
    }
}
