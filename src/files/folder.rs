//! The VHDs of a folder: only a few sectors are read of each file with a footer at one of its ends; a file that isn't a
//! VHD costs two reads.

use std::fs;
use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::storage::{File, Stamp};
use crate::vhd::{Glance, ParentRequest, UniqueId, VhdImage};

/// The most entries of a folder that are inspected.
pub(super) const MOST_ENTRIES: usize = 1 << 17;

/// A VHD of a folder.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) path: PathBuf,
    pub(super) stamp: Stamp,
    pub(super) glance: Glance,
}

impl Seen {
    /// Inspects one file. Returns `None` if it isn't a VHD.
    pub(super) fn look(path: &Path) -> Result<Option<Self>> {
        let file = File::open(path)?;
        let stamp = file.stamp()?;
        let glance = VhdImage::glance(&file).map_err(|error| error.with_path(path))?;
        Ok(glance.map(|glance| Self {
            path: path.to_path_buf(),
            stamp,
            glance,
        }))
    }

    pub(super) fn id(&self) -> UniqueId {
        self.glance.footer.unique_id
    }

    /// Returns whether it is a VHD with this id. An id of all zeros identifies nothing.
    pub(super) fn is_image_with(&self, id: UniqueId) -> bool {
        !id.is_nil() && self.glance.intact && self.id() == id
    }

    /// Returns whether it may be a child whose parent can't be determined.
    pub(super) fn is_beyond_judgement(&self) -> bool {
        self.glance.header.is_none() && !self.glance.intact
    }

    /// Passes its reference to its parent to `take`. Returns `None` if it has none.
    pub(super) fn ask<T>(&self, take: impl FnOnce(&ParentRequest<'_>) -> T) -> Option<T> {
        let parent_id = self.glance.parent_id()?;
        let header = self.glance.header.as_ref()?;
        Some(take(&ParentRequest {
            child: &self.path,
            child_id: self.id(),
            parent_id,
            parent_timestamp: header.parent_timestamp,
            parent_name: &header.parent_name(),
            paths: &self.glance.paths,
        }))
    }
}

/// Returns whether there is a VHD with this id at `path`. Only ordinary files are opened.
///
/// # Errors
///
/// Fails if there is, or may be, a file that couldn't be inspected.
pub(super) fn is_image_with(path: &Path, id: UniqueId) -> Result<bool> {
    let is_file = stamp_at(path)?.is_some_and(|found| found.is_file());
    Ok(is_file && Seen::look(path)?.is_some_and(|seen| seen.is_image_with(id)))
}

/// The metadata of `path`; `None` if it doesn't exist.
pub(super) fn stamp_at(path: &Path) -> Result<Option<fs::Metadata>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(e) if matches!(e.kind(), IoKind::NotFound | IoKind::NotADirectory) => Ok(None),
        Err(e) => Err(Error::io("cannot look at", e).with_path(path)),
    }
}

/// The contents of a folder.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) images: Vec<Seen>,
    /// Errors for what couldn't be inspected.
    pub(super) unread: Vec<Error>,
}

impl Folder {
    /// Inspects all ordinary files of a folder, including those behind links, in the order of their names.
    pub(super) fn look(folder: &Path) -> Self {
        let here = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        let mut seen = Self {
            images: Vec::new(),
            unread: Vec::new(),
        };
        let entries = match fs::read_dir(here) {
            Ok(entries) => entries,
            Err(e) => {
                seen.unread
                    .push(Error::io("cannot look into the folder", e).with_path(here));
                return seen;
            }
        };
        let mut names = Vec::new();
        for entry in entries {
            match entry {
                _ if names.len() >= MOST_ENTRIES => {
                    let error = Error::usage("the folder has too many entries to look at all")
                        .with_path(here);
                    seen.unread
                        .push(error.with_expected(format_args!("at most {MOST_ENTRIES}")));
                    break;
                }
                Ok(entry) => names.push(entry.file_name()),
                Err(e) => seen
                    .unread
                    .push(Error::io("cannot read the folder", e).with_path(here)),
            }
        }
        names.sort_unstable();
        for name in names.iter().filter(|name| !is_unfinished(name)) {
            let path = folder.join(name);
            match fs::metadata(&path) {
                Ok(found) if !found.is_file() => continue,
                Ok(_) => {}
                // A dangling link, or a file that has disappeared.
                Err(e) if e.kind() == IoKind::NotFound => continue,
                Err(e) => {
                    seen.unread
                        .push(Error::io("cannot look at", e).with_path(&path));
                    continue;
                }
            }
            match Seen::look(&path) {
                Ok(image) => seen.images.extend(image),
                // It has disappeared meanwhile.
                Err(error) if error.io_kind() == Some(IoKind::NotFound) => {}
                Err(error) => seen.unread.push(error),
            }
        }
        seen
    }
}

/// Returns whether a file is one that a command is writing, or that a killed one left.
pub(super) fn is_unfinished(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".vhdkit-")
}
