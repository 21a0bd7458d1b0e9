//! New files that appear complete or not at all.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::ErrorKind as IoKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::directory::{refuse_special, sync_folder_of};
use super::kept::open_kept;
use super::paths::{folder_of, prefix_of};
use super::policy::Overwrite;
use super::sealed::on_disk;
use super::stored::refuse_part_of_store;
use super::system::without_umask;
use super::temporary::Temporary;
use super::{Audience, File, Stamp, WriteAt, system};
use crate::error::{Error, ErrorKind, Result};
use crate::remedy::overwrite;

/// A file that is written under a temporary name next to its final one, and renamed only when it is complete and on
/// stable storage. Dropping it earlier removes it, unless it is [kept](Self::kept).
#[derive(Debug)]
pub struct AtomicFile {
    // Fields are dropped in this order: the file is closed, then removed.
    file: File,
    temporary: Temporary,
    target: PathBuf,
    /// The permissions it gets together with its name. With `None` it keeps those it was created with.
    open_to: Option<(u32, Audience)>,
}

/// Ordinary permissions of a new file, before the umask; a secret is created with [`PRIVATE`] ones.
const ORDINARY: u32 = 0o666;

/// Permissions of a file that nobody else may open before it is published.
const PRIVATE: u32 = 0o600;

/// Prefix of the names of temporary files that don't belong to an image.
const PREFIX: &str = ".vhdkit-";

impl AtomicFile {
    /// Creates the temporary file for `target`. Error messages name `target`.
    pub fn new(target: impl Into<PathBuf>) -> Result<Self> {
        Self::create(target.into(), OsStr::new(PREFIX), ORDINARY)
    }

    /// As [`new`](Self::new), but nobody else can open the file before it has its final name, and afterwards only those
    /// in `audience`.
    pub fn for_audience(target: impl Into<PathBuf>, audience: Audience) -> Result<Self> {
        let file = Self::create(target.into(), OsStr::new(PREFIX), PRIVATE)?;
        Ok(Self {
            open_to: Some((without_umask(ORDINARY), audience)),
            ..file
        })
    }

    /// As [`for_audience`](Self::for_audience), but the temporary file is the one at `under`, in the same folder, with
    /// what it holds already, and it is kept if this is dropped. It may belong to `owner`: see [`open_kept`].
    pub fn kept(
        target: impl Into<PathBuf>,
        under: &Path,
        audience: Audience,
        owner: Option<u32>,
    ) -> Result<Self> {
        let target = target.into();
        refuse_part_of_store(&target)?;
        let mut file = open_kept(under, &target, owner)?;
        let temporary = Temporary::kept_at(under)
            .map_err(|e| Error::io("cannot open the folder of", e).with_path(under))?;
        file.write_behind();
        Ok(Self {
            file,
            temporary,
            target,
            open_to: Some((without_umask(ORDINARY), audience)),
        })
    }

    /// Creates a temporary file that takes part in an in-place apply to `image`: private until it is given other
    /// permissions, locked, and named so that [`remove_leftovers`](super::remove_leftovers) recognizes it. The caller
    /// holds the image's lock.
    pub fn beside(target: impl Into<PathBuf>, image: &Path) -> Result<Self> {
        let file = Self::create(target.into(), &prefix_of(image), PRIVATE)?;
        file.file.lock_exclusive()?;
        Ok(file)
    }

    fn create(target: PathBuf, prefix: &OsStr, mode: u32) -> Result<Self> {
        refuse_part_of_store(&target)?;
        let folder = folder_of(&target);
        let (file, temporary) = Temporary::create_in(&on_disk(folder), prefix, mode)
            .map_err(|e| Error::io("cannot create a file in this folder", e).with_path(folder))?;
        let mut file = File::from_std(file, &target)?.sealed_anew();
        file.write_behind();
        Ok(Self {
            file,
            temporary,
            target,
            open_to: None,
        })
    }

    /// As [`for_audience`](Self::for_audience), but fails at once, before any work is done, if `target` can't be used:
    /// if the name is taken and may not be overwritten, belongs to something other than a file, or isn't a valid file
    /// name. A file to be replaced counts as one of the files that the new file is made from.
    pub fn begin(
        target: impl Into<PathBuf>,
        overwrite: Overwrite,
        audience: Audience,
    ) -> Result<Self> {
        let target = target.into();
        refuse_part_of_store(&target)?;
        match fs::symlink_metadata(on_disk(&target)) {
            Ok(_) => {
                refuse_special(&target)?;
                if overwrite == Overwrite::No {
                    return Err(exists(&target));
                }
                let audience = audience.and_replaced(&target)?;
                Self::for_audience(target, audience)
            }
            Err(e) if e.kind() == IoKind::NotFound => Self::for_audience(target, audience),
            Err(e) => Err(Error::io("cannot look at", e).with_path(target)),
        }
    }

    /// What is written is stored as it is: it is a copy of what a file [has stored](File::as_stored).
    #[must_use]
    pub fn as_stored(self) -> Self {
        Self {
            file: self.file.as_stored(),
            ..self
        }
    }

    /// Gives the file the owner and group of `other`, as far as that is allowed.
    pub fn with_owner_of(self, other: &File) -> Result<Self> {
        self.file.take_owner_of(other)?;
        Ok(self)
    }

    /// Gives the file the owner and group of `other`, which it will replace, and on publication the permissions of
    /// `other` within its audience.
    pub fn take_place_of(&mut self, other: &File) -> Result<()> {
        self.file.take_owner_of(other)?;
        let mode = other.metadata()?.mode() & 0o7777;
        let (_, audience) = self.open_to.take().unwrap_or_default();
        self.open_to = Some((mode, audience));
        Ok(())
    }

    /// Gives the file the owner and group of `other`, which it will replace, and on publication the permissions of
    /// `other`, regardless of its audience.
    pub fn for_audience_of_replaced(mut self, other: &File) -> Result<Self> {
        self.open_to = None;
        self.take_place_of(other)?;
        Ok(self)
    }

    /// Fails with [`Changed`](ErrorKind::Changed) unless the target name still belongs to `old`, the file to be
    /// replaced. Links aren't followed, since a link may lead to another file at any moment.
    pub fn check_replaces(&self, old: &File) -> Result<()> {
        self.check_beside(&self.target, old)
    }

    /// As [`check_replaces`](Self::check_replaces), for the last component of `path` in the folder of this file.
    pub fn check_beside(&self, path: &Path, old: &File) -> Result<()> {
        let looked = self.temporary.found_at(&on_disk(path));
        let found = looked.map_err(|e| Error::io("cannot look at", e).with_path(path))?;
        let old = old.stamp()?;
        if found.is_some_and(|found| found.same_file(&old)) {
            return Ok(());
        }
        Err(
            Error::new(ErrorKind::Changed, "the file was replaced by another")
                .with_path(path)
                .with_hint("run the command again"),
        )
    }

    /// The temporary file, to be written to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Syncs the file, renames it to its target, then syncs the folder.
    pub fn publish(self, overwrite: Overwrite) -> Result<()> {
        self.publish_open(overwrite).map(drop)
    }

    /// As [`publish`](Self::publish), but without a sync: after a crash the target may be the old file, or hold only a
    /// part of the new one. For what shows that itself and can be made again.
    pub fn publish_unsynced(self, overwrite: Overwrite) -> Result<()> {
        self.set_mode()?;
        self.file.end_sealed()?;
        self.rename(overwrite).map(drop)
    }

    /// As [`publish`](Self::publish), but keeps the file open, with its lock if it has one.
    pub fn publish_open(self, overwrite: Overwrite) -> Result<File> {
        self.make_ready()?;
        self.publish_synced(overwrite)
    }

    /// As [`publish_open`](Self::publish_open), and also returns the stamp that the file had when it was renamed: any
    /// later change shows in its times.
    pub fn publish_settled(self, overwrite: Overwrite) -> Result<(File, Stamp)> {
        self.make_ready()?;
        let written = self.file.rest()?;
        Ok((self.publish_synced(overwrite)?, written))
    }

    fn make_ready(&self) -> Result<()> {
        self.set_mode()?;
        self.file.sync()
    }

    fn set_mode(&self) -> Result<()> {
        if let Some((mode, audience)) = &self.open_to {
            let found = self.file.metadata()?;
            let mode = audience.limit(*mode, found.gid());
            if found.mode() & 0o7777 != mode {
                let permissions = Permissions::from_mode(mode);
                system::set_permissions(self.file.as_std(), &self.target, permissions).map_err(
                    |e| Error::io("cannot set the permissions of", e).with_path(&self.target),
                )?;
            }
        }
        Ok(())
    }

    fn publish_synced(self, overwrite: Overwrite) -> Result<File> {
        let target = self.target.clone();
        let file = self.rename(overwrite)?;
        sync_folder_of(&target)?;
        Ok(file)
    }

    fn rename(self, overwrite: Overwrite) -> Result<File> {
        let Self {
            file,
            temporary,
            target,
            ..
        } = self;
        temporary
            .rename_to(&on_disk(&target), overwrite)
            .map_err(|e| {
                if e.kind() == IoKind::AlreadyExists {
                    return exists(&target);
                }
                Error::io("cannot give the finished file its name", e).with_path(&target)
            })?;
        Ok(file)
    }
}

/// The error for a name that is already taken.
fn exists(target: &Path) -> Error {
    Error::new(ErrorKind::Usage, "the file already exists")
        .with_path(target)
        .with_remedy(overwrite())
}

/// Creates an unnamed file in the folder of `beside`, for bytes that must be read twice. It disappears when it is
/// closed. Error messages call it `name`.
pub fn spool_beside(beside: &Path, name: &Path) -> Result<File> {
    let folder = folder_of(beside);
    let file = system::create_nameless(&on_disk(folder)).map_err(|e| {
        Error::io("cannot create a temporary file in this folder", e).with_path(folder)
    })?;
    Ok(File::from_std(file, name)?.sealed_like(beside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::ReadAt;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_file_appears_only_when_published() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("new");
        let file = AtomicFile::new(&target).unwrap();
        file.file().write_all_at(b"whole", 0).unwrap();
        assert!(!target.exists());
        file.publish(Overwrite::No).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        assert_eq!(names(folder.path()), ["new"]);
    }

    #[test]
    fn dropped_it_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        drop(AtomicFile::new(folder.path().join("new")).unwrap());
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn an_existing_file_survives_unless_told_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("old");
        fs::write(&target, b"old").unwrap();
        let file = AtomicFile::new(&target).unwrap();
        file.file().write_all_at(b"new", 0).unwrap();
        assert_eq!(
            file.publish(Overwrite::No).unwrap_err().kind(),
            ErrorKind::Usage
        );
        assert_eq!(fs::read(&target).unwrap(), b"old");
        let file = AtomicFile::new(&target).unwrap();
        file.file().write_all_at(b"new", 0).unwrap();
        file.publish(Overwrite::Yes).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["old"]);
    }

    #[test]
    fn holes_are_seen_and_read_as_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let file = AtomicFile::new(folder.path().join("sparse")).unwrap();
        let file = file.file();
        file.set_len(8 << 20).unwrap();
        file.write_all_at(&vec![7; 65536], 4 << 20).unwrap();
        let data = file.data_range(0..8 << 20).unwrap().unwrap();
        assert!(data.start <= 4 << 20 && data.end >= (4 << 20) + 65536);
        file.write_zeros_at(4 << 20..(4 << 20) + 65536).unwrap();
        let mut buf = [1; 4096];
        file.read_exact_at(&mut buf, 4 << 20).unwrap();
        assert!(buf.iter().all(|b| *b == 0));
        assert!(file.read_exact_at(&mut buf, 8 << 20).is_err());
    }
}
