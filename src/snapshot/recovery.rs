//! Opens a disk whatever happened to it: a writer first finishes or revokes what an interrupted command left; a reader
//! looks past it.
//!
//! ```text
//! deleting.json                    finished, or taken back if nothing was done and there is no room
//! X.new, and a manifest for X      gets its name
//! X.new, and no manifest for X     goes
//! .vhdkit-*.tmp                    goes
//! ```

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use super::Work;
use super::check_disk_name;
use super::create::lengths;
use super::delete::finish;
use super::disk::{Access, Disk};
use super::file_names::is_part;
use super::intent::Intent;
use super::layout::NEW;
use super::marker::{admit_likes, expect_store};
use super::plain::is_absent;
use super::take_back::{holds_its_snapshot, take_back};
use crate::error::{Error, ErrorKind, Result};
use crate::files::journal_path;
use crate::parallel::Workers;
use crate::progress::Silent;
use crate::remedy::{Remedy, SnapshotJob};
use crate::storage::{Audience, create_folder_for, on_disk, remove_if_there, rename};

impl Disk {
    /// Opens the disk `name` of the store at `store`. For changing it, what an interrupted command left is finished or
    /// revoked first; for reading it, that isn't necessary, and works on a read-only medium.
    ///
    /// # Errors
    ///
    /// [`Locked`](crate::ErrorKind::Locked) immediately if another command is using it.
    pub fn open(store: &Path, name: &str, access: Access) -> Result<Self> {
        Self::open_for(store, name, access, &Audience::default())
    }

    /// As [`open`](Self::open), but created folders are accessible only to the `audience`.
    pub fn open_for(store: &Path, name: &str, access: Access, audience: &Audience) -> Result<Self> {
        check_disk_name(name)?;
        let folder = store.join(name);
        expect_store(store, Some(name))?;
        if access == Access::Create && is_missing_folder(&folder) {
            create_folder_for(&folder, audience)?;
        }
        let mut disk = Self::locked(store, name, access != Access::Read)?;
        if access == Access::Read {
            disk.read_past()?;
        } else {
            disk.recover()?;
        }
        if access == Access::Create {
            disk.ensure_folder()?;
        }
        let first = disk.points().first();
        if access != Access::Read && first.is_some_and(|first| first.like.is_some()) {
            // The marker may have been lost and made again.
            admit_likes(store)?;
        }
        Ok(disk)
    }

    /// Finishes or revokes what an interrupted command left. Data under its final name is never touched.
    fn recover(&mut self) -> Result<()> {
        if let Some(intent) = Intent::read(&self.folder)? {
            let (workers, progress) = (Workers::new(None)?, Silent);
            let work = Work {
                workers: &workers,
                progress: &progress,
            };
            if let Err(error) = finish(self, &intent, work)
                && !take_back(self, &intent, &error, work).unwrap_or(false)
            {
                return Err(error);
            }
            self.load()?;
        }
        let known: HashSet<String> = {
            let files = self.points().iter().map(|point| &point.data.file);
            files.cloned().collect()
        };
        for name in self.names.list() {
            let path = self.path(&name);
            if name.starts_with(".vhdkit-") {
                remove_if_there(&path)?;
                continue;
            }
            if is_part(&name) && self.copying.is_none() {
                // The copy was complete except for this, or its purpose is unknown.
                remove_if_there(&path)?;
                self.names.remove(&name);
                continue;
            }
            let Some(file) = name.strip_suffix(NEW) else {
                continue;
            };
            if known.contains(file) && !self.names.contains(file) {
                rename(&path, &self.path(file))?;
                self.names.insert(file.to_owned());
            } else if self.damaged().is_empty() {
                // Without its manifest it was never a snapshot; if the file that it should have replaced still exists,
                // the deletion that created it was never decided.
                remove_if_there(&path)?;
            } else {
                continue;
            }
            self.names.remove(&name);
        }
        Ok(())
    }

    /// Presents the disk as it will be once what an interrupted command left is finished, without changing anything.
    pub(super) fn read_past(&mut self) -> Result<()> {
        if let Some(intent) = Intent::read(&self.folder)? {
            self.see_deleted(intent)?;
        }
        let files = self.points().iter().map(|point| &point.data.file);
        let unnamed: Vec<(String, String)> = files
            .filter(|file| !self.names.contains(*file))
            .map(|file| (file.clone(), format!("{file}{NEW}")))
            .filter(|(_, new)| self.names.contains(new))
            .collect();
        self.unnamed.extend(unnamed);
        Ok(())
    }

    /// Presents the disk as a deletion will leave it, wherever that was interrupted. While a base is being rolled
    /// forward, its pages are the old ones, or those of the diffs that are applied to it: with these diffs on top, it
    /// always reads as the next snapshot.
    fn see_deleted(&mut self, intent: Intent) -> Result<()> {
        for deleted in &intent.deleted {
            self.take_out(deleted);
        }
        if let Some([old, new]) = intent.next {
            let file = new.data.file.clone();
            if !intent.forward {
                let fresh = format!("{file}{NEW}");
                if self.names.contains(&fresh) {
                    self.unnamed.insert(file, fresh);
                } else if !self.names.contains(&file) {
                    self.unnamed.insert(file, old.data.file);
                }
                self.put(new);
            } else if self.names.contains(&file) {
                let mut base = new;
                (base.data.length, base.used_size) = lengths(&self.path(&file))?;
                self.put(base);
            } else {
                self.next_base = Some(new);
                self.put(old);
            }
        }
        self.going = intent.deleted;
        Ok(())
    }

    /// Presents the disk such that each of its snapshots depends only on existing ones, for copying their files. While
    /// a base is being rolled forward, that is the disk before or after it, depending on the state of the base, which
    /// is read to find out.
    ///
    /// # Errors
    ///
    /// [`Pending`](ErrorKind::Pending) if it is in between.
    pub(super) fn settle(&mut self, work: Work<'_>) -> Result<()> {
        let Some(base) = self
            .going
            .first()
            .filter(|_| self.next_base.is_some())
            .cloned()
        else {
            return Ok(());
        };
        let path = self.data_path(&base)?;
        let before = is_absent(&journal_path(&path)) && holds_its_snapshot(self, &base, work)?;
        if before {
            self.next_base = None;
            for point in std::mem::take(&mut self.going) {
                self.put(point);
            }
            return Ok(());
        }
        let Some(mut next) = self.next_base.take() else {
            return Ok(());
        };
        (next.data.length, next.used_size) = lengths(&path)?;
        self.unnamed
            .insert(next.data.file.clone(), base.data.file.clone());
        if is_absent(&journal_path(&path)) && holds_its_snapshot(self, &next, work)? {
            self.put(next);
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Pending,
            "a deletion was interrupted while it changed the base, which can't be copied so",
        )
        .with_path(path)
        .with_remedy(
            Remedy::new("it is finished by any command that changes the disk, as: ")
                .step(self.step(SnapshotJob::Repair), "a repair"),
        ))
    }
}

fn is_missing_folder(folder: &Path) -> bool {
    fs::metadata(on_disk(folder)).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
}
