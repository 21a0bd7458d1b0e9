//! A snapshot that is being copied into a store: it grows next to the others, and becomes one of them only when it is
//! complete and was read back.
//!
//! ```text
//! 000003-wed.json.part       what it shall be
//! 000003-wed.vhddiff.part    its data so far; where it ends, the copy goes on
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::base::{start_of, unpacked};
use super::create::{images_are_not_encrypted, lengths};
use super::disk::is_passing;
use super::history::check_next;
use super::layout::COPY_LOCK;
use super::lock::{Said, open_lock, with_holder};
use super::marked::{Marker, STORE_VERSION};
use super::marker::admit_likes;
use super::partial::{self, mark, part};
use super::plain::{check_plain, is_absent};
use super::sparse_chunks::same_until;
use super::verify::check_base;
use super::windows::{self, MadeList};
use super::{Access, Disk, Like, Manifest, State, Work};
use crate::diff::{DiffFile, Overlay};
use crate::error::{Error, ErrorKind, Result};
use crate::files::{Format, FormatChoice, OpenOptions, open_image};
use crate::image::{ContentDigest, Image, window_hashes};
use crate::remedy::{Remedy, SnapshotJob, Step, StoreJob};
use crate::storage::{
    Audience, File, Overwrite, ReadAt as _, StoreFolder, WriteAt as _, is_sealed, remove_if_there,
    rename,
};

/// A disk into which snapshots are copied. Readers may use it meanwhile, since snapshots are only added; commands that
/// change it in other ways, and other copies, are locked out.
#[derive(Debug)]
pub(super) struct Target {
    /// Dropped before the lock.
    _said: Said,
    disk: Disk,
    copy_lock: File,
    _hold: StoreFolder,
    /// The disk with the snapshot as which this one begins, locked until that is recorded.
    ground: Option<Disk>,
}

impl Target {
    /// Opens the disk `name` of the store at `store`, or creates it.
    pub(super) fn open(store: &Path, name: &str, audience: &Audience) -> Result<Self> {
        // A writer first finishes what was interrupted, which a reader only looks past.
        let mut disk = Self::open_disk(store, name, audience)?;
        let copy_lock = open_lock(&disk.path(COPY_LOCK), true)?;
        copy_lock
            .lock_exclusive()
            .map_err(|error| with_holder(error, copy_lock.path(), true))?;
        let said = Said::write(copy_lock.path().to_path_buf());
        let hold = StoreFolder::hold(disk.folder())?;
        // Another copy may have ended meanwhile.
        disk.load()?;
        // Only copies that were killed, and commands that lock the disk exclusively, leave these.
        for name in disk.names.list() {
            if name.starts_with(".vhdkit-") {
                remove_if_there(&disk.path(&name))?;
                disk.names.remove(&name);
            }
        }
        disk.ensure_folder()?;
        if let Some(error) = disk.take_damaged().pop() {
            return Err(error);
        }
        let target = Self {
            _said: said,
            disk,
            copy_lock,
            _hold: hold,
            ground: None,
        };
        target.check_lock()?;
        Ok(target)
    }

    /// Opens the disk as a reader, created and recovered. Another copy may create it, or remove it again after a
    /// failure, at any moment: then this tries again.
    fn open_disk(store: &Path, name: &str, audience: &Audience) -> Result<Disk> {
        const TRIES: usize = 5;
        let folder = store.join(name);
        let unfinished = |disk: &Disk| !disk.going.is_empty() || !disk.unnamed.is_empty();
        for _ in 0..TRIES {
            // Checked before it is opened: if it is created in between, it is opened, or locked.
            let absent = is_absent(&folder);
            match Disk::open(store, name, Access::Read) {
                Ok(disk) if !unfinished(&disk) => return Ok(disk),
                Err(error) if !absent && !is_absent(&folder) => return Err(error),
                opened => drop(opened),
            }
            drop(Disk::open_for(store, name, Access::Create, audience)?);
        }
        Err(Error::new(
            ErrorKind::Locked,
            "the disk is being created and removed by another command",
        )
        .with_path(folder)
        .with_hint("run the command again when the other one has finished"))
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Removes what an interrupted copy left, if anything.
    pub(super) fn tidy(&mut self) -> Result<()> {
        self.check_lock()?;
        partial::give_up(&mut self.disk)
    }

    /// Records that `point` is being copied.
    fn write_mark(&mut self, point: &Manifest) -> Result<()> {
        let path = mark(&self.disk, point);
        let mark = self.disk.new_file(path.clone(), &point.stem().manifest())?;
        let coming = Manifest {
            state: State::Copying,
            completion_percent: 0,
            ..point.clone()
        };
        mark.file().write_all_at(&coming.encode()?, 0)?;
        mark.publish(Overwrite::Yes)?;
        self.disk.copying = Some(coming);
        self.disk.names.extend(name_of(&path));
        Ok(())
    }

    /// Takes out the newest snapshot, which was received: it becomes an incomplete one, and is then given up.
    pub(super) fn take_out(&mut self, point: &Manifest) -> Result<()> {
        self.check_lock()?;
        self.write_mark(point)?;
        let manifest = point.stem().manifest();
        remove_if_there(&self.disk.path(&manifest))?;
        self.disk.names.remove(&manifest);
        self.disk.take_out(point);
        partial::give_up(&mut self.disk)?;
        self.disk.names.remove(&point.data.file);
        Ok(())
    }

    /// Removes the disk if nothing was added to it.
    pub(super) fn discard_if_empty(self) {
        self.disk.discard_if_empty();
    }

    /// Fails if somebody has removed the lock file, so that another copy may have begun.
    fn check_lock(&self) -> Result<()> {
        if self.copy_lock.is_at_its_path()? {
            return Ok(());
        }
        Err(
            Error::new(ErrorKind::Locked, "this lock was removed while it was held")
                .with_path(self.copy_lock.path())
                .with_hint("find out what removes it, then run the command again"),
        )
    }

    /// Locks what `point` begins as, which must be here.
    fn stand_on(&mut self, point: &Manifest) -> Result<()> {
        self.ground = None;
        let Some(like) = &point.like else {
            return Ok(());
        };
        self.ground = self.disk.lock_ground_of(like)?;
        if self.ground.is_none() {
            return Err(lacks_ground(&self.disk, point, like));
        }
        admit_likes(self.disk.store())
    }

    /// Begins to receive `point`, as recorded in its own store, or continues where an interrupted copy of the very same
    /// data stopped, as far as that matches `original`.
    pub(super) fn begin(
        &mut self,
        point: &Manifest,
        original: Option<&File>,
    ) -> Result<PartialPoint<'_>> {
        check_next(&self.disk, point)?;
        check_version(&self.disk, point)?;
        self.stand_on(point)?;
        self.check_lock()?;
        self.disk.made_from(match original {
            Some(original) => Audience::of_file(original)?,
            // It is unknown who may access it at its origin; later snapshots follow the first one.
            None if self.disk.points().is_empty() => Audience::nobody_else(),
            None => Audience::default(),
        });
        let partial = self.disk.copying();
        let same = partial.is_some_and(|partial| {
            partial.id == point.id
                && partial.data == point.data
                && partial.content_digest == point.content_digest
        });
        if !(same && original.is_some()) {
            partial::give_up(&mut self.disk)?;
            self.write_mark(point)?;
        }
        let path = part(&self.disk, point);
        let named = self.disk.path(&point.data.file);
        check_plain(&path)?;
        match (!is_absent(&named), same) {
            (false, _) => {}
            // Only its manifest was missing.
            (true, true) => rename(&named, &path)?,
            (true, false) => {
                return Err(Error::damaged("this file has no manifest")
                    .with_path(named)
                    .with_hint("take the manifest from a copy of the store; or remove the file if it isn't needed"));
            }
        }
        if is_absent(&path) {
            let empty = self.disk.new_file(path.clone(), &point.data.file)?;
            empty.publish(Overwrite::No)?;
        }
        let file = File::open_writable(&path)?;
        self.disk.names.extend(name_of(&path));
        let len = file.byte_len()?.min(point.data.length);
        let from = match original {
            Some(original) => file.goes_on_from(same_until(original, &file, len)?),
            None => 0,
        };
        // Anything may follow, and zeros won't be written over it.
        file.set_len(from)?;
        Ok(PartialPoint {
            from,
            target: self,
            point: point.clone(),
            file,
            path,
        })
    }
}

/// A snapshot that is being received. If it is dropped before it is finished, the next copy can continue it.
#[derive(Debug)]
pub(super) struct PartialPoint<'a> {
    target: &'a mut Target,
    point: Manifest,
    file: File,
    path: PathBuf,
    from: u64,
}

impl PartialPoint<'_> {
    /// The offset to continue from: everything before it is there.
    pub(super) fn from(&self) -> u64 {
        self.from
    }

    /// Stores a piece of the file. Gaps between pieces are zero.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Reads back what was stored and, if it matches the manifest, makes it a snapshot of the disk. Otherwise all of it
    /// is discarded.
    pub(super) fn finish(self, work: Work<'_>) -> Result<Manifest> {
        let Self {
            target,
            mut point,
            file,
            path,
            ..
        } = self;
        file.set_len(point.data.length)?;
        file.sync()?;
        let list = match check(&target.disk, (&point, &path), target.ground.as_ref(), work) {
            Ok(list) => list,
            // That says nothing about what was stored.
            Err(error) if is_passing(&error) => return Err(error),
            Err(error) => {
                target.tidy()?;
                return Err(match error.kind() {
                    ErrorKind::Damaged => error,
                    _ => Error::damaged("the received snapshot can't be used")
                        .with_path(path)
                        .with_source(error),
                });
            }
        };
        if point.is_base() && !point.is_packed() {
            point.used_size = lengths(&path)?.1;
        }
        (point.state, point.completion_percent) = (State::Complete, 100);
        target.check_lock()?;
        let disk = &mut target.disk;
        rename(&path, &disk.path(&point.data.file))?;
        disk.write_manifest(&point, Overwrite::No)?;
        let mark = mark(disk, &point);
        remove_if_there(&mark)?;
        for gone in [mark, path].iter().filter_map(|path| name_of(path)) {
            disk.names.remove(&gone);
        }
        disk.names
            .extend([point.stem().manifest(), point.data.file.clone()]);
        disk.copying = None;
        disk.put(point.clone());
        list.map_or(Ok(()), MadeList::publish)?;
        Ok(point)
    }

    /// Discards the partial copy.
    pub(super) fn give_up(self) -> Result<()> {
        self.target.tidy()
    }
}

/// The error for a snapshot that begins as one of another disk that isn't here.
pub(super) fn lacks_ground(disk: &Disk, point: &Manifest, like: &Like) -> Error {
    let send = Step::Snapshot {
        job: SnapshotJob::Send { after: None },
        of: None,
    };
    Error::mismatch("this snapshot begins as one of another disk, which isn't here")
        .with_path(disk.label(point))
        .with_field("like")
        .with_found(format_args!("nothing with the content of {like}"))
        .with_expected(format_args!(
            "a snapshot with the content digest {}",
            like.content_digest
        ))
        .with_remedy(
            Remedy::new(format!("bring {} first", like.disk))
                .named(", with ")
                .step(send, "")
                .text(format!(
                    "; or make {} a disk by itself where it comes from",
                    disk.name()
                ))
                .named(", with ")
                .step(
                    Step::Snapshot {
                        job: SnapshotJob::Rebase { like: None },
                        of: None,
                    },
                    "",
                ),
        )
}

/// An error for a packed base where the marker promises that older programs can read the store.
fn check_version(disk: &Disk, point: &Manifest) -> Result<()> {
    if point.is_base() && !point.is_packed() && is_sealed(disk.store()) {
        return Err(images_are_not_encrypted(disk)
            .with_hint("bring the source to the newest version first, which packs its bases"));
    }
    if !point.is_packed() {
        return Ok(());
    }
    match Marker::read(disk.store())? {
        Some(marker) if marker.version < STORE_VERSION => Err(Error::mismatch(
            "the target is a store of an older version, which has no packed bases",
        )
        .with_path(disk.store())
        .with_found(format_args!("version {}", marker.version))
        .with_expected(format_args!("version {STORE_VERSION}"))
        .with_remedy(
            Remedy::new("bring it to the newest version")
                .named(": ")
                .step(
                    Step::Store {
                        job: StoreJob::Upgrade,
                        store: disk.store().to_path_buf(),
                    },
                    "",
                ),
        )),
        _ => Ok(()),
    }
}

fn name_of(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// Number of bytes that are read back to verify `point`.
pub(super) fn to_verify(point: &Manifest) -> u64 {
    match (point.is_base(), point.is_packed()) {
        (true, false) => point.virtual_size,
        (true, true) => point.data.length.saturating_add(point.virtual_size),
        _ => point.data.length,
    }
}

/// Reads back everything that was stored, and compares it with the manifest. For a base, returns its window hashes.
/// `ground` is the disk as one of whose snapshots it begins.
fn check(
    disk: &Disk,
    (point, path): (&Manifest, &Path),
    ground: Option<&Disk>,
    work: Work<'_>,
) -> Result<Option<MadeList>> {
    let wrong = |field: &str, found: String, expected: String| {
        Err(
            Error::damaged("the received data doesn't match its manifest")
                .with_path(path)
                .with_field(field)
                .with_found(found)
                .with_expected(expected),
        )
    };
    if point.is_base() && !point.is_packed() {
        let format = if point.data.file.strip_suffix(".raw").is_some() {
            Format::Raw
        } else {
            Format::Dynamic
        };
        let options = OpenOptions {
            format: Some(FormatChoice::Only(format)),
            ..OpenOptions::default()
        };
        let image = open_image(path, &options)?;
        let size = image.virtual_size();
        if size != point.virtual_size {
            return wrong(
                "virtual size",
                size.to_string(),
                point.virtual_size.to_string(),
            );
        }
        let (list, _) = windows::make(disk, size, |each| {
            window_hashes(&image, work.workers, work.progress, each)
        })?;
        if list.digest != point.content_digest {
            return wrong(
                "content digest",
                list.digest.to_string(),
                point.content_digest.to_string(),
            );
        }
        return check_base(path).map(|()| Some(list));
    }
    let diff = DiffFile::open_unpacking(File::open(path)?, work.workers, work.progress)?;
    let show = |digest: Option<ContentDigest>| {
        digest.map_or_else(|| "none".to_owned(), |digest| digest.to_string())
    };
    let before = if point.is_packed() {
        Some(start_of(point, &diff))
    } else {
        disk.newest().map(|newest| newest.content_digest)
    };
    let (header, trailer) = (diff.header(), diff.trailer());
    let digests = [
        (
            "digest",
            Some(ContentDigest(*diff.digest())),
            point.data.identity,
        ),
        (
            "target digest",
            trailer.target_digest,
            Some(point.content_digest),
        ),
        ("base digest", trailer.base_digest, before),
    ];
    for (field, found, expected) in digests {
        if found != expected {
            return wrong(field, show(found), show(expected));
        }
    }
    if header.target_size != point.virtual_size {
        return wrong(
            "target size",
            header.target_size.to_string(),
            point.virtual_size.to_string(),
        );
    }
    if !point.is_packed() {
        return Ok(None);
    }
    let image = made_by(disk, point, diff, ground)?;
    let (list, _) = windows::make(disk, image.virtual_size(), |each| {
        window_hashes(&image, work.workers, work.progress, each)
    })?;
    if list.digest != point.content_digest {
        return wrong(
            "content digest",
            list.digest.to_string(),
            point.content_digest.to_string(),
        );
    }
    Ok(Some(list))
}

/// What the diff of `point`, which has no parent, makes of what it starts from.
fn made_by(
    disk: &Disk,
    point: &Manifest,
    diff: DiffFile,
    ground: Option<&Disk>,
) -> Result<Box<dyn Image>> {
    let Some(like) = &point.like else {
        return Ok(Box::new(unpacked(diff)?));
    };
    let lacks = || lacks_ground(disk, point, like);
    let ground = ground.ok_or_else(lacks)?;
    let mut points = ground.points().iter().rev();
    let below = points.find(|below| like.is(below)).ok_or_else(lacks)?;
    let below = ground.image(below)?;
    let made = Overlay::new(below, Some(like.content_digest), vec![Arc::new(diff)])?;
    Ok(Box::new(made))
}
