//! Names for files that aren't there yet.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// `path`, or if there is such a file the same with a number before its ending, so that there is none: for names that are
/// proposed, not yet taken.
pub fn free_name(path: &Path) -> PathBuf {
    let is_free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
    let numbered = |n: u32| {
        let mut name = path.file_stem().map(OsString::from).unwrap_or_default();
        name.push(format!("-{n}"));
        if let Some(ending) = path.extension() {
            name.push(".");
            name.push(ending);
        }
        path.with_file_name(name)
    };
    std::iter::once(path.to_path_buf())
        .chain((1..1000).map(numbered))
        .find(is_free)
        .unwrap_or_else(|| path.to_path_buf())
}
