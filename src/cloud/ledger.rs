//! Records, on stable storage, of access that was granted and not yet revoked, so that access left by a killed program is found.
//!
//! ```text
//! FOLDER/ID/     one folder for each running program, which holds its lock
//!   1.json       one file for each disk or snapshot to which it was granted access; no addresses, no signatures
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::{
    AtomicFile, Audience, FolderLock, Overwrite, WriteAt as _, create_folder_for, remove_folder,
    remove_if_there,
};

/// Version of the file format.
const SCHEMA: u32 = 1;

/// The longest file that is read.
const LONGEST: u64 = 64 << 10;

/// The most programs that are looked at.
const MOST: usize = 10_000;

/// The record of one grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    schema_version: u32,
    /// The resource manager.
    pub(super) endpoint: String,
    /// The resource id.
    pub(super) id: String,
    /// When the access expires, in seconds since 1970.
    pub(super) until: i64,
    /// Whether it is being revoked.
    ending: bool,
}

impl Record {
    pub(super) fn new(endpoint: &str, id: &str, until: i64) -> Self {
        Self {
            schema_version: SCHEMA,
            endpoint: endpoint.to_owned(),
            id: id.to_owned(),
            until,
            ending: false,
        }
    }

    fn read(path: &Path) -> Option<Self> {
        if fs::metadata(path).ok()?.len() > LONGEST {
            return None;
        }
        let record: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (record.schema_version == SCHEMA).then_some(record)
    }

    fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec(self)
            .map_err(|e| Error::internal("a record can be encoded").with_source(e))?;
        let file = AtomicFile::for_audience(path, Audience::nobody_else())?;
        file.file().write_all_at(&text, 0)?;
        file.publish(Overwrite::Yes)
    }
}

/// A grant of this program.
#[derive(Debug)]
pub(super) struct Entry {
    path: PathBuf,
    record: Record,
}

impl Entry {
    /// Records a later expiry.
    pub(super) fn extend(&mut self, until: i64) -> Result<()> {
        self.record.until = until;
        self.record.write(&self.path)
    }

    /// Records that it is being revoked.
    pub(super) fn end(&mut self) -> Result<()> {
        self.record.ending = true;
        self.record.write(&self.path)
    }

    /// Removes the record, after the access was revoked.
    pub(super) fn forget(self) -> Result<()> {
        remove_if_there(&self.path).map(drop)
    }
}

/// The folder of one program.
#[derive(Debug)]
struct Own {
    folder: PathBuf,
    _lock: FolderLock,
    last: u64,
}

/// All grants to programs of this user.
#[derive(Debug)]
pub(super) struct Ledger {
    folder: PathBuf,
    own: Mutex<Option<Own>>,
}

impl Ledger {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            own: Mutex::default(),
        }
    }

    /// Records a grant before it is requested.
    pub(super) fn note(&self, record: Record) -> Result<Entry> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let own = match &mut *own {
            Some(own) => own,
            none => none.insert(self.begin()?),
        };
        own.last += 1;
        let path = own.folder.join(format!("{}.json", own.last));
        record.write(&path)?;
        Ok(Entry { path, record })
    }

    fn begin(&self) -> Result<Own> {
        const TRIES: usize = 5;
        for _ in 0..TRIES {
            let folder = self.folder.join(uuid::Uuid::new_v4().to_string());
            create_folder_for(&folder, &Audience::nobody_else())?;
            // Another program may have cleaned it up before it was locked.
            match FolderLock::take(&folder, false) {
                Ok(Some(lock)) if lock.is_at(&folder)? => {
                    return Ok(Own {
                        folder,
                        _lock: lock,
                        last: 0,
                    });
                }
                Ok(None) => {
                    return Err(
                        Error::unsupported("the file system has no locks on folders")
                            .with_path(&self.folder),
                    );
                }
                Ok(Some(_)) => {}
                Err(error) if error.kind() == ErrorKind::Locked => {}
                Err(error) if error.io_kind() == Some(std::io::ErrorKind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(
            ErrorKind::Locked,
            "other programs keep removing what was just made",
        )
        .with_path(&self.folder))
    }

    /// Returns whether another program that is running, or another grant of this one, uses this resource.
    pub(super) fn is_used(&self, id: &str, but: Option<&Entry>) -> bool {
        self.is_used_besides(id, but, None)
    }

    /// Like [`is_used`](Self::is_used), but ignores the folder of one program that isn't running.
    fn is_used_besides(&self, id: &str, but: Option<&Entry>, dead: Option<&Path>) -> bool {
        let own = self.own_folder();
        let programs = self.programs().into_iter();
        let mut others = programs.filter(|folder| Some(folder.as_path()) != dead);
        others.any(|folder| {
            let folder = &folder;
            let running = own.as_ref() == Some(folder) || Self::dead(folder).is_none();
            running
                && Self::files(folder).iter().any(|path| {
                    but.is_none_or(|entry| entry.path != *path)
                        && Record::read(path).is_some_and(|record| {
                            record.id.eq_ignore_ascii_case(id) && !record.ending
                        })
                })
        })
    }

    /// Calls `take_back` for each grant that was left by a program that isn't running any more and that no other uses. Removes
    /// the records of those that it could revoke.
    pub(super) fn clean_up(&self, mut take_back: impl FnMut(&Record) -> bool) -> Result<()> {
        let own = self.own_folder();
        for folder in self.programs() {
            if own.as_ref() == Some(&folder) {
                continue;
            }
            let Some(_lock) = Self::dead(&folder) else {
                continue;
            };
            let mut empty = true;
            for path in Self::files(&folder) {
                match Record::read(&path) {
                    Some(record)
                        if !self.is_used_besides(&record.id, None, Some(&folder))
                            && !take_back(&record) =>
                    {
                        empty = false;
                    }
                    _ => drop(remove_if_there(&path)?),
                }
            }
            if empty {
                // It may contain other files, which aren't ours.
                let _ = remove_folder(&folder);
            }
        }
        Ok(())
    }

    fn own_folder(&self) -> Option<PathBuf> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.as_ref().map(|own| own.folder.clone())
    }

    /// Locks a program's folder if that program isn't running any more.
    fn dead(folder: &Path) -> Option<FolderLock> {
        FolderLock::take(folder, false).ok().flatten()
    }

    fn programs(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let folders = entries.flatten().take(MOST).map(|entry| entry.path());
        folders.filter(|path| path.is_dir()).collect()
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(folder) else {
            return Vec::new();
        };
        let files = entries.flatten().take(MOST).map(|entry| entry.path());
        files
            .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
            .collect()
    }
}

impl Ledger {
    /// Removes the folder of this program, unless there is still a grant in it.
    pub(super) fn end(&self) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = own.take() {
            // It is kept if it contains a grant, which the next program revokes.
            let _ = remove_folder(&own.folder);
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_left_is_found_once_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("grants");
        let (first, second) = (Ledger::new(place.clone()), Ledger::new(place.clone()));
        let mut entry = first.note(Record::new("https://h", "/a/B", 7)).unwrap();
        let seen = |ledger: &Ledger| {
            let mut seen = Vec::new();
            ledger
                .clean_up(|record| {
                    seen.push(record.id.clone());
                    false
                })
                .unwrap();
            seen
        };
        assert!(seen(&second).is_empty());
        assert!(second.is_used("/A/b", None) && !second.is_used("/c", None));
        assert!(first.is_used("/A/b", None) && !first.is_used("/A/b", Some(&entry)));
        entry.end().unwrap();
        assert!(!second.is_used("/A/b", None));
        drop(first);
        assert_eq!(seen(&second), ["/a/B"]);
        assert_eq!(seen(&second), ["/a/B"]);
        second.clean_up(|_| true).unwrap();
        assert!(seen(&second).is_empty() && fs::read_dir(&place).unwrap().next().is_none());
        let entry = second.note(Record::new("https://h", "/c", 7)).unwrap();
        entry.forget().unwrap();
        drop(second);
        assert!(fs::read_dir(&place).unwrap().next().is_none());
    }
}
