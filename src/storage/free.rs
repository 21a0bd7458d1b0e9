//! Names for new files.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Returns `path` or, if it exists, a variant with a number before the extension that doesn't. For proposing names: the
/// name isn't reserved.
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
