//! File names: taking them apart and building those of the files beside an image.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The folder that contains the last component of `path`.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The longest file name in bytes, unless the file system has a lower limit.
const LONGEST_NAME: usize = 255;

/// Bytes of a name that are kept when it has to be shortened: enough to recognize it.
const KEPT: usize = 100;

/// The path of the file next to `path` whose name is that of `path` plus `suffix`. If the name would become too long, a
/// hash replaces its end.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let mut new = OsString::new();
    if name.len() + suffix.len() <= LONGEST_NAME {
        new.push(name);
    } else {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        let text = name.to_string_lossy();
        let kept = (0..=KEPT).rev().find_map(|end| text.get(..end));
        new.push(kept.unwrap_or_default());
        new.push("-");
        new.push(hash.as_str());
    }
    new.push(suffix);
    path.with_file_name(new)
}

/// Suffix of the names of all temporary files.
pub(super) const SUFFIX: &str = ".tmp";

/// Number of random characters in such a name.
pub(super) const RANDOM: usize = 6;

/// Longer image names wouldn't leave room for the rest and are replaced by a hash.
const LONGEST: usize = 200;

/// Prefix of the names of the temporary files of the image at `path`.
pub(super) fn prefix_of(path: &Path) -> OsString {
    let name = path.file_name().unwrap_or_default();
    let mut prefix = OsString::from(".vhdkit-");
    if name.len() <= LONGEST {
        prefix.push(name);
    } else {
        prefix.push(blake3::hash(name.as_bytes()).to_hex().as_str());
    }
    prefix.push("-");
    prefix
}
