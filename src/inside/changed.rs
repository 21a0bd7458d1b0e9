//! Changed files, and notes that are made while finding them.

use super::model::NodeKind;
use super::read::is_damage;
use crate::error::{Error, Result};

/// How a file changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileChangeKind {
    /// It was created.
    Created,
    /// It was removed.
    Removed,
    /// Its content was written.
    Modified,
    /// It was renamed or moved.
    Renamed,
    /// Only its owner, permissions or times changed.
    Attributes,
}

impl FileChangeKind {
    /// The letter for it in a list.
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
    /// The path in the target, or in the base if it was removed: bytes, starting with a slash.
    pub path: Vec<u8>,
    /// How it changed.
    pub change: FileChangeKind,
    /// Its kind.
    pub kind: NodeKind,
    /// The path in the base, if it was renamed.
    pub was: Option<Vec<u8>>,
    /// Size in the base.
    pub size_before: Option<u64>,
    /// Size in the target.
    pub size_after: Option<u64>,
    /// Changed bytes of its content on the disk. For a file with several names, they are all counted with the first.
    pub changed_bytes: u64,
}

/// The changed bytes that a node owns.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Owned {
    pub(super) bytes: u64,
    /// Whether the bytes have been attributed to an entry.
    pub(super) told: bool,
}

/// Damage that was found and skipped.
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

    /// Returns `None` for damage, which is noted; other errors end the work.
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
