//! What a new differencing VHD says of its parent.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::OpenImage;
use crate::error::{Error, Result};
use crate::vhd::{NewParent, Parent, Timestamp};

/// The parent of a new child at `child`, with the names by which it will be found again.
pub(super) fn new_parent(child: &Path, parent: &Arc<OpenImage>) -> Result<NewParent> {
    let path = parent.path();
    let name = path.file_name().ok_or_else(|| no_name(path))?;
    let (from, to) = (real_folder(child)?, real_folder(path)?);
    Ok(NewParent {
        timestamp: Timestamp::from_unix(parent.file().metadata()?.mtime()),
        file_name: text(Path::new(name), path)?,
        relative: relative(&from, &to, path)? + &text(Path::new(name), path)?,
        absolute: text(&to.join(name), path)?.replace('/', "\\"),
        parent: Parent {
            name: path.to_path_buf(),
            unique_id: parent.vhd().map(|vhd| vhd.footer().unique_id),
            image: Arc::<OpenImage>::clone(parent),
        },
    })
}

/// Whether a child at `child` will find its parent by itself: in its folder or below.
pub fn finds_parent(child: &Path, parent: &Path) -> Result<bool> {
    Ok(real_folder(parent)?.starts_with(real_folder(child)?))
}

/// The folder of a file, without links.
fn real_folder(path: &Path) -> Result<PathBuf> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::canonicalize(folder).map_err(|e| Error::io("cannot look at the folder", e).path(folder))
}

/// The path from one folder to another, in Windows' manner, with a backslash at its end.
fn relative(from: &Path, to: &Path, path: &Path) -> Result<String> {
    let mut common = to;
    while !from.starts_with(common) {
        common = common.parent().ok_or_else(|| no_name(path))?;
    }
    let up = from
        .strip_prefix(common)
        .map_or(0, |rest| rest.components().count());
    let mut out = if up == 0 {
        ".\\".to_owned()
    } else {
        "..\\".repeat(up)
    };
    for part in to
        .strip_prefix(common)
        .iter()
        .flat_map(|rest| rest.components())
    {
        if let Component::Normal(part) = part {
            out += &text(Path::new(part), path)?;
            out.push('\\');
        }
    }
    Ok(out)
}

/// A name as text; backslashes in it would be read as separators.
fn text(name: &Path, path: &Path) -> Result<String> {
    let text = name.to_str().filter(|text| !text.contains('\\'));
    text.map(str::to_owned).ok_or_else(|| no_name(path))
}

fn no_name(path: &Path) -> Error {
    Error::usage("a differencing VHD can't name this file as its parent")
        .path(path)
        .expected("a path of UTF-8 text without backslashes")
        .hint("rename it, or call it by another path")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_are_those_of_windows() {
        for (from, to, path) in [
            ("/a", "/a", ".\\"),
            ("/a", "/a/b/c", ".\\b\\c\\"),
            ("/a/b", "/a", "..\\"),
            ("/a/b/c", "/a/d", "..\\..\\d\\"),
            ("/", "/", ".\\"),
            ("/a", "/", "..\\"),
        ] {
            let found = relative(Path::new(from), Path::new(to), Path::new("x"));
            assert_eq!(found.unwrap(), path, "{from} {to}");
        }
        assert!(relative(Path::new("/"), Path::new("/a\\b"), Path::new("x")).is_err());
    }
}
