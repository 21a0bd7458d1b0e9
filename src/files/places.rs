//! The places where the parent of a differencing VHD may be.
//!
//! The references in a child are only as trustworthy as its origin. Of its locators and its name, only those that lead
//! to its own folder or below are followed; for all others, the last component is used as the name of a file next to
//! it. References to other places are inspected only to advise the user where the parent may be.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::options::ParentOptions;
use crate::vhd::{ParentPath, ParentRequest};

/// The most entries of a folder that are searched for a name in different case.
const MOST_ENTRIES: usize = 1 << 17;

/// The most files that are considered whose names differ only in case.
const MOST_ALIKE: usize = 64;

/// The places where the parent of one child may be.
pub(super) struct Places {
    /// Files, in the order in which they are tried.
    pub(super) candidates: Vec<PathBuf>,
    /// Folders, and the path components to look for below each.
    below: Vec<(PathBuf, Vec<String>)>,
    /// Where the parent is according to the child, if that isn't followed.
    pub(super) elsewhere: Vec<PathBuf>,
}

impl Places {
    pub(super) fn of(request: &ParentRequest<'_>, options: &ParentOptions) -> Self {
        let folder = folder_of(request.child);
        let mut names: Vec<String> = Vec::new();
        let mut add = |name: Option<String>| names.extend(name);
        // Some versions of Windows wrote a whole path to this field.
        add(file_name(request.parent_name));
        request.paths.iter().for_each(|path| add(name_in(path)));
        let (mut steps, mut elsewhere) = (Vec::new(), Vec::new());
        for path in request.paths {
            let relative = matches!(&path.platform_code.0, b"W2ru" | b"Wi2r");
            match parts_below(&path.text).filter(|_| relative) {
                Some(parts) => steps.push(parts),
                None => elsewhere.extend(outside(path, &folder)),
            }
        }
        let in_folder = |folder: &Path| {
            let folder = folder.to_path_buf();
            names
                .iter()
                .map(move |name| (folder.clone(), vec![name.clone()]))
        };
        let allowed = options.folders.iter().flat_map(|folder| in_folder(folder));
        let steps = steps.into_iter().map(|parts| (folder.clone(), parts));
        let mut below: Vec<(PathBuf, Vec<String>)> = Vec::new();
        for step in allowed.chain(steps).chain(in_folder(&folder)) {
            if !below.contains(&step) {
                below.push(step);
            }
        }
        let mut candidates: Vec<PathBuf> = options.files.clone();
        for (folder, parts) in &below {
            let path = parts
                .iter()
                .fold(folder.clone(), |path, part| path.join(part));
            if !candidates.contains(&path) {
                candidates.push(path);
            }
        }
        Self {
            candidates,
            below,
            elsewhere,
        }
    }

    /// The files that would be among the candidates if case were ignored, as on Windows.
    pub(super) fn ignoring_case(&self) -> Vec<PathBuf> {
        let mut found = BTreeSet::new();
        for (folder, parts) in &self.below {
            let mut reached = vec![folder.clone()];
            for part in parts {
                let wanted = folded(part);
                reached = reached
                    .iter()
                    .flat_map(|folder| entries_called(folder, &wanted))
                    .take(MOST_ALIKE)
                    .collect();
            }
            found.extend(reached);
        }
        found
            .into_iter()
            .filter(|path| !self.candidates.contains(path))
            .take(MOST_ALIKE)
            .collect()
    }
}

/// The entries of a folder whose names are `wanted` except for case. An unreadable folder has none.
fn entries_called(folder: &Path, wanted: &str) -> Vec<PathBuf> {
    let here = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let Ok(entries) = fs::read_dir(here) else {
        return Vec::new();
    };
    let names = entries.take(MOST_ENTRIES).filter_map(Result::ok);
    let alike = |name: &OsString| name.to_str().is_some_and(|name| folded(name) == wanted);
    let names = names.map(|entry| entry.file_name()).filter(alike);
    names.map(|name| folder.join(name)).collect()
}

/// Folds the case of a name, character by character, so that no two characters become one.
fn folded(name: &str) -> String {
    fn single(mut chars: impl Iterator<Item = char>, otherwise: char) -> char {
        match (chars.next(), chars.next()) {
            (Some(c), None) => c,
            _ => otherwise,
        }
    }
    let fold = |c: char| {
        let upper = single(c.to_uppercase(), c);
        single(upper.to_lowercase(), upper)
    };
    name.chars().map(fold).collect()
}

/// The actual folder of the image, spelled as given where possible.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    let is_link = fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink());
    let path = match fs::canonicalize(path) {
        Ok(target) if is_link => target,
        _ => path.to_path_buf(),
    };
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Splits a Windows or Unix path into the components leading from its starting folder to a file there or below. Returns
/// `None` for any other path: absolute ones, drives, servers, devices, and those that go up.
fn parts_below(text: &str) -> Option<Vec<String>> {
    let text = text.trim_end_matches('\0');
    if text.starts_with(['/', '\\']) || text.contains([':', '\0']) {
        return None;
    }
    let mut parts = Vec::new();
    for part in text.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." => return None,
            part => parts.push(part.to_owned()),
        }
    }
    (!parts.is_empty()).then_some(parts)
}

/// The last component of a Windows or Unix path.
fn file_name(text: &str) -> Option<String> {
    let name = text.rsplit(['/', '\\', ':']).next()?;
    let is_name = !matches!(name, "" | "." | "..") && !name.contains('\0');
    is_name.then(|| name.to_owned())
}

/// The file name by which a locator refers to the parent.
fn name_in(path: &ParentPath) -> Option<String> {
    let name = file_name(&path.text)?;
    if path.platform_code.0 != *b"MacX" {
        return Some(name);
    }
    // A name that contains a separator after decoding isn't valid.
    percent_decoded(&name).filter(|name| file_name(name).as_ref() == Some(name))
}

/// Decodes the percent escapes of a URL, if the result is UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let escaped = more
            .first_chunk::<2>()
            .filter(|_| *first == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = match escaped {
            Some(_) => more.get(2..).unwrap_or_default(),
            None => more,
        };
    }
    String::from_utf8(bytes).ok()
}

/// The local path of a reference that isn't followed automatically. Returns `None` if there is none, as for a Windows
/// drive.
fn outside(path: &ParentPath, folder: &Path) -> Option<PathBuf> {
    let text = path.text.trim_end_matches('\0');
    let text = if path.platform_code.0 == *b"MacX" {
        let url = text.strip_prefix("file://")?;
        percent_decoded(url.strip_prefix("localhost").unwrap_or(url))?
    } else {
        text.replace('\\', "/")
    };
    if text.is_empty() || text.starts_with("//") || text.contains([':', '\0']) {
        return None;
    }
    Some(folder.join(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vhd::PlatformCode;

    #[test]
    fn only_paths_that_lead_down_are_followed() {
        for (text, path) in [
            ("base.vhd", "base.vhd"),
            (".\\base.vhd", "base.vhd"),
            ("./a/b.vhd", "a/b.vhd"),
            ("a\\.\\b//c.vhd", "a/b/c.vhd"),
            ("base.vhd\0", "base.vhd"),
        ] {
            let parts = parts_below(text).map(|parts| parts.join("/"));
            assert_eq!(parts.as_deref(), Some(path), "{text}");
        }
        for text in [
            "",
            ".",
            "\\",
            "/etc/passwd",
            "\\\\server\\share\\b.vhd",
            "\\\\.\\PhysicalDrive0",
            "\\\\?\\C:\\b.vhd",
            "C:\\b.vhd",
            "C:b.vhd",
            "..\\b.vhd",
            "a/../../b.vhd",
            "a\0b",
        ] {
            assert_eq!(parts_below(text), None, "{text}");
        }
    }

    #[test]
    fn the_file_name_of_a_path_of_any_system() {
        for (text, name) in [
            ("C:\\disks\\base.vhd", Some("base.vhd")),
            ("C:base.vhd", Some("base.vhd")),
            ("/srv/a b.vhd", Some("a b.vhd")),
            ("base.vhd", Some("base.vhd")),
            ("a\\..", None),
            ("a/", None),
            ("a\\b\0c", None),
        ] {
            assert_eq!(file_name(text).as_deref(), name, "{text}");
        }
    }

    fn locator(code: [u8; 4], text: &str) -> ParentPath {
        ParentPath {
            locator: 0,
            platform_code: PlatformCode(code),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_url_is_decoded_once_and_never_into_another_path() {
        for (text, name) in [
            (
                "file://localhost/vms/base%20disk.vhd",
                Some("base disk.vhd"),
            ),
            ("file:///b%C3%A4se.vhd", Some("bäse.vhd")),
            ("file:///100%.vhd", Some("100%.vhd")),
            ("file:///a%zz.vhd", Some("a%zz.vhd")),
            ("file:///a%2Fb.vhd", None),
            ("file:///..%2F..%2Fetc%2Fpasswd", None),
            ("file:///a%5Cb", None),
            ("file:///%2E%2E", None),
            ("file:///a%00b", None),
            ("file:///a%FF", None),
            ("file:///%252e%252e", Some("%2e%2e")),
        ] {
            assert_eq!(name_in(&locator(*b"MacX", text)).as_deref(), name, "{text}");
        }
        assert_eq!(
            name_in(&locator(*b"W2ku", "C:\\a%20b")).as_deref(),
            Some("a%20b")
        );
    }

    #[test]
    fn where_a_path_that_is_not_followed_leads() {
        let folder = Path::new("/vms/snapshots");
        for (code, text, path) in [
            (*b"W2ru", "..\\base.vhd", Some("/vms/snapshots/../base.vhd")),
            (*b"W2ku", "\\srv\\base.vhd", Some("/srv/base.vhd")),
            (*b"W2ku", "/srv/base.vhd", Some("/srv/base.vhd")),
            (*b"MacX", "file://localhost/srv/a%20b", Some("/srv/a b")),
            (*b"W2ku", "C:\\vms\\base.vhd", None),
            (*b"W2ku", "\\\\server\\share\\base.vhd", None),
            (*b"MacX", "http://x/y", None),
            (*b"W2ku", "", None),
        ] {
            let found = outside(&locator(code, text), folder);
            assert_eq!(found, path.map(PathBuf::from), "{text}");
        }
    }

    #[test]
    fn letters_of_another_case_are_the_same_and_no_others() {
        for (a, b) in [
            ("PARENT.VHD", "parent.vhd"),
            ("BÄSE", "bäse"),
            ("ΣΑΣ", "σας"),
            ("ДИСК", "диск"),
            ("\u{212A}", "k"),
        ] {
            assert_eq!(folded(a), folded(b), "{a} {b}");
        }
        for (a, b) in [("straße", "STRASSE"), ("a", "ä"), ("ﬁ", "fi"), ("İ", "i")] {
            assert_ne!(folded(a), folded(b), "{a} {b}");
        }
    }
}
