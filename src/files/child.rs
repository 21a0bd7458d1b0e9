//! A new differencing VHD's description of its parent.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::OpenImage;
use crate::error::{Error, Result};
use crate::vhd::{NewParent, Parent, Timestamp};

/// The Windows path of a child's folder, with a drive or a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowsFolder(Vec<String>);

impl FromStr for WindowsFolder {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let path = text.replace('/', "\\");
        let (root, rest) = match path.strip_prefix("\\\\") {
            Some(share) => {
                let mut parts = share.splitn(3, '\\');
                match (parts.next(), parts.next()) {
                    (Some(server), Some(share)) if !server.is_empty() && !share.is_empty() => {
                        let root = format!("\\\\{server}\\{share}");
                        (root, parts.next().unwrap_or("").to_owned())
                    }
                    _ => return Err(not_of_windows(text)),
                }
            }
            None => match path.split_at_checked(3) {
                Some((drive, rest)) if is_drive(drive) => {
                    (drive.trim_end_matches('\\').to_owned(), rest.to_owned())
                }
                _ => return Err(not_of_windows(text)),
            },
        };
        let mut parts = vec![root];
        for part in rest.split('\\').filter(|part| !part.is_empty()) {
            let unfit = |c: char| c.is_control() || "<>:\"|?*".contains(c);
            if part == "." || part == ".." || part.contains(unfit) {
                return Err(not_of_windows(text));
            }
            parts.push(part.to_owned());
        }
        let unfit = |c: char| c.is_control() || "<>\"|?*".contains(c);
        match parts.first() {
            Some(root) if root.contains(unfit) => Err(not_of_windows(text)),
            _ => Ok(Self(parts)),
        }
    }
}

fn is_drive(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes, [letter, b':', b'\\'] if letter.is_ascii_alphabetic())
}

fn not_of_windows(text: &str) -> Error {
    Error::usage("this is not the path of a folder on Windows")
        .with_found(format_args!("{text:?}"))
        .with_expected(r"a drive or a server and what follows, as in D:\vms or \\server\share\vms")
}

impl WindowsFolder {
    /// The path that results from following `relative` from this folder.
    fn join(&self, relative: &str) -> Result<String> {
        let mut parts = self.0.clone();
        for part in relative.split('\\') {
            match part {
                "" | "." => {}
                ".." if parts.len() > 1 => {
                    parts.pop();
                }
                ".." => {
                    return Err(Error::usage("the parent is above the root of that folder on Windows")
                        .with_found(format_args!("{}, and {relative} from there", self.0.join("\\")))
                        .with_hint("name the folder on Windows that the child's folder is, with as many folders above it"));
                }
                part => parts.push(part.to_owned()),
            }
        }
        Ok(parts.join("\\"))
    }
}

/// Describes the parent of a new child at `child`, with the names by which it can be found. Includes its absolute
/// Windows path if the folder's Windows path is given.
pub(super) fn new_parent(
    child: &Path,
    parent: &Arc<OpenImage>,
    windows: Option<&WindowsFolder>,
) -> Result<NewParent> {
    let path = parent.path();
    let name = path.file_name().ok_or_else(|| no_name(path))?;
    let (from, to) = (real_folder(child)?, real_folder(path)?);
    let relative = relative(&from, &to, path)? + &text(Path::new(name), path)?;
    Ok(NewParent {
        timestamp: Timestamp::from_unix(parent.file().metadata()?.mtime()),
        file_name: text(Path::new(name), path)?,
        absolute: windows.map(|folder| folder.join(&relative)).transpose()?,
        relative,
        parent: Parent {
            name: path.to_path_buf(),
            unique_id: parent.vhd().map(|vhd| vhd.footer().unique_id),
            image: Arc::<OpenImage>::clone(parent),
        },
    })
}

/// Returns whether a child at `child` will find its parent without help: in its own folder or below.
pub fn finds_parent(child: &Path, parent: &Path) -> Result<bool> {
    Ok(real_folder(parent)?.starts_with(real_folder(child)?))
}

/// The folder of a file, with links resolved.
fn real_folder(path: &Path) -> Result<PathBuf> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::canonicalize(folder)
        .map_err(|e| Error::io("cannot look at the folder", e).with_path(folder))
}

/// The relative path from one folder to another in Windows style, with a trailing backslash.
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

/// Returns a name as text. Backslashes in it would be taken for separators.
fn text(name: &Path, path: &Path) -> Result<String> {
    let text = name.to_str().filter(|text| !text.contains('\\'));
    text.map(str::to_owned).ok_or_else(|| no_name(path))
}

fn no_name(path: &Path) -> Error {
    Error::usage("a differencing VHD can't name this file as its parent")
        .with_path(path)
        .with_expected("a path of UTF-8 text without backslashes")
        .with_hint("rename it, or call it by another path")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_folder_is_called_on_windows() {
        for (folder, relative, path) in [
            (r"D:\vms", r".\base.vhd", r"D:\vms\base.vhd"),
            (r"d:/vms/", r".\a\base.vhd", r"d:\vms\a\base.vhd"),
            (r"D:\", r".\base.vhd", r"D:\base.vhd"),
            (r"D:\vms\new", r"..\base.vhd", r"D:\vms\base.vhd"),
            (r"\\srv\share", r".\base.vhd", r"\\srv\share\base.vhd"),
            (r"\\srv\share\a b\", r"..\base.vhd", r"\\srv\share\base.vhd"),
        ] {
            let found: WindowsFolder = folder.parse().unwrap();
            assert_eq!(found.join(relative).unwrap(), path, "{folder}");
        }
        for folder in [
            "",
            "vms",
            "/srv/vms",
            r"\vms",
            "D:",
            "D:vms",
            r"\\srv",
            r"\\",
            r"D:\a\..\b",
            r"D:\a?b",
            r"1:\a",
            r"D:\a:b",
            "D:\\a\nb",
            "é:\\x",
        ] {
            assert!(folder.parse::<WindowsFolder>().is_err(), "{folder}");
        }
        let root: WindowsFolder = r"D:\".parse().unwrap();
        assert!(root.join(r"..\base.vhd").is_err());
    }

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
