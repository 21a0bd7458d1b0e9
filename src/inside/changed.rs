//! A file that changed, and what is noted while that is found out.

use super::model::NodeKind;
use super::read::is_damage;
use crate::error::{Error, Result};

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileChangeKind {
    /// It is new.
    Created,
    /// It is gone.
    Removed,
    /// Its content was written.
    Modified,
    /// It has another name or folder.
    Renamed,
    /// Its owner, permissions or times changed, and nothing else.
    Attributes,
}

impl FileChangeKind {
    /// A letter for a list.
    pub const fn letter(self) -> char {
        match self {
            Self::Created => '+',
            Self::Removed => '-',
            Self::Modified => 'M',
            Self::Renamed => 'R',
            Self::Attributes => 'A',
        }
    }

    /// `created`, `removed` and so on.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Removed => "removed",
            Self::Modified => "modified",
            Self::Renamed => "renamed",
            Self::Attributes => "attributes",
        }
    }
}

/// A file or folder that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// The path in the target, or in the base if it was removed: bytes, beginning with a slash.
    pub path: Vec<u8>,
    /// What became of it.
    pub change: FileChangeKind,
    /// What it is.
    pub kind: NodeKind,
    /// The path in the base, if it was renamed.
    pub was: Option<Vec<u8>>,
    /// Size in the base.
    pub size_before: Option<u64>,
    /// Size in the target.
    pub size_after: Option<u64>,
    /// Changed bytes of its content on the disk. Of a file with several names the first has them all.
    pub changed_bytes: u64,
}

/// What a node owns of what changed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Owned {
    pub(super) bytes: u64,
    /// Whether an entry has told of the bytes.
    pub(super) told: bool,
}

/// What was found to be damaged, and left out.
#[derive(Debug, Default)]
pub(super) struct Wrong {
    pub(super) first: Option<String>,
    pub(super) count: u64,
}

impl Wrong {
    pub(super) fn add(&mut self, error: &Error) {
        self.first.get_or_insert_with(|| error.to_string());
        self.count += 1;
    }

    /// `None` for what is damaged, which is noted; other errors end the work.
    pub(super) fn pass<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(error) if is_damage(&error) => {
                self.add(&error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
