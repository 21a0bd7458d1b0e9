//! The names of a disk's files when they were last listed. There may be tens of thousands.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Deref;
use std::path::Path;

use super::PointFileName;
use super::layout::{PART, WINDOWS};
use crate::error::{Error, Result};
use crate::storage::{name_in, on_disk};

/// File names in order. Those of an incomplete copy are found without searching the others.
#[derive(Debug, Default)]
pub(super) struct FileNames {
    all: BTreeSet<String>,
    parts: BTreeSet<String>,
}

impl FileNames {
    /// Adds a name.
    pub(super) fn insert(&mut self, name: String) {
        if is_part(&name) {
            self.parts.insert(name.clone());
        }
        self.all.insert(name);
    }

    /// Removes a name.
    pub(super) fn remove(&mut self, name: &str) {
        self.parts.remove(name);
        self.all.remove(name);
    }

    /// A list of all names, for callers that remove some while iterating.
    pub(super) fn list(&self) -> Vec<String> {
        self.all.iter().cloned().collect()
    }

    /// The names of files of a snapshot that is still being copied.
    pub(super) fn parts(&self) -> &BTreeSet<String> {
        &self.parts
    }

    /// The names that begin with the stem of a snapshot's files.
    pub(super) fn of<'a>(&'a self, stem: &PointFileName) -> impl Iterator<Item = &'a String> {
        let start = stem.to_string();
        let names = self.all.range(start.clone()..);
        names.take_while(move |name| name.starts_with(&start))
    }
}

impl Extend<String> for FileNames {
    fn extend<T: IntoIterator<Item = String>>(&mut self, names: T) {
        for name in names {
            self.insert(name);
        }
    }
}

impl FromIterator<String> for FileNames {
    fn from_iter<T: IntoIterator<Item = String>>(names: T) -> Self {
        let mut all = Self::default();
        all.extend(names);
        all
    }
}

impl Deref for FileNames {
    type Target = BTreeSet<String>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

/// Returns whether this is the name of a file of a snapshot that is still being copied.
pub(super) fn is_part(name: &str) -> bool {
    name.ends_with(PART)
}

/// The names of the files of a folder that may belong to snapshots.
pub(super) fn file_names(folder: &Path) -> Result<FileNames> {
    let failed = |e| Error::io("cannot read the folder", e).with_path(folder);
    let mut names = FileNames::default();
    for entry in fs::read_dir(on_disk(folder)).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.into_string().ok();
        let name = name.and_then(|name| name_in(folder, &name));
        names.extend(name.filter(|name| {
            PointFileName::parse(name).is_some() || name.starts_with(".vhdkit-") || name == WINDOWS
        }));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_files_of_one_snapshot_are_found() {
        let all = [
            "000002-b.json",
            "000001-a.json",
            "000002-b.vhddiff",
            "000002-bc.json",
            "000003-c.json.part",
        ];
        let mut names: FileNames = all.into_iter().map(str::to_owned).collect();
        let stem = PointFileName {
            sequence: 2,
            name: "b".to_owned(),
        };
        let of: Vec<_> = names.of(&stem).collect();
        assert_eq!(of, ["000002-b.json", "000002-b.vhddiff", "000002-bc.json"]);
        assert_eq!(names.parts().iter().collect::<Vec<_>>(), [all[4]]);
        names.remove(all[4]);
        assert!(names.parts().is_empty());
        assert_eq!(names.len(), 4);
    }
}
