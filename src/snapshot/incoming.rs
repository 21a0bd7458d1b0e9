//! A snapshot on its way into a store: it grows beside the others, and is one of them only when it is complete and was
//! read back.
//!
//! ```text
//! 000003-wed.json.part       what it shall be
//! 000003-wed.vhddiff.part    its data so far; where it ends, the copy goes on
//! ```

use std::path::{Path, PathBuf};

use super::create::lengths;
use super::disk::{check_plain, is_absent, is_passing};
use super::history::check_next;
use super::layout::COPY_LOCK;
use super::lock::open_lock;
use super::partial::{self, mark, part};
use super::sparse_chunks::same_until;
use super::verify::check_base;
use super::windows::{self, MadeList};
use super::{Access, Disk, Manifest, State, Work};
use crate::diff::DiffFile;
use crate::error::{Error, ErrorKind, Result};
use crate::files::{Format, FormatChoice, OpenOptions, open_image};
use crate::image::{ContentDigest, Image as _, window_hashes};
use crate::storage::{
    Audience, File, Overwrite, ReadAt as _, StoreFolder, WriteAt as _, remove_if_there, rename,
};

/// A disk that snapshots are copied into. Readers may be at it meanwhile, as snapshots only join; whatever else changes
/// it is kept away, and so are other copies.
#[derive(Debug)]
pub(super) struct Target {
    disk: Disk,
    copy_lock: File,
    _hold: StoreFolder,
}

impl Target {
    /// Opens the disk `name` of the store at `store`, or makes it.
    pub(super) fn open(store: &Path, name: &str, audience: &Audience) -> Result<Self> {
        // Who may change the disk finishes what was interrupted, which a reader only looks past.
        let mut disk = Self::open_disk(store, name, audience)?;
        let copy_lock = open_lock(&disk.path(COPY_LOCK), true)?;
        copy_lock.lock_exclusive()?;
        let hold = StoreFolder::hold(disk.folder())?;
        // Another copy may have ended since.
        disk.load()?;
        // Only copies that were killed and commands that need the disk alone leave these.
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
            disk,
            copy_lock,
            _hold: hold,
        };
        target.check_lock()?;
        Ok(target)
    }

    /// Opens the disk as a reader does, made and finished. Another copy may make it, or remove it again since nothing
    /// came of it, at any moment: then it is looked for again.
    fn open_disk(store: &Path, name: &str, audience: &Audience) -> Result<Disk> {
        const TRIES: usize = 5;
        let folder = store.join(name);
        let unfinished = |disk: &Disk| !disk.going.is_empty() || !disk.unnamed.is_empty();
        for _ in 0..TRIES {
            // Looked at before it is opened: what is made in between is opened, or locked.
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
            "the disk is made and removed again by another command",
        )
        .with_path(folder)
        .with_hint("run the command again when the other one has ended"))
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Removes what an interrupted copy left, if anything.
    pub(super) fn tidy(&mut self) -> Result<()> {
        self.check_lock()?;
        partial::give_up(&mut self.disk)
    }

    /// Removes the disk again if nothing came of it.
    pub(super) fn discard_if_empty(self) {
        self.disk.discard_if_empty();
    }

    /// An error if somebody has removed the lock file, and perhaps another copy has begun since.
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

    /// Begins to take in `point`, as its store has it; or goes on where an interrupted copy of the very same data
    /// stopped, as far as that is what `original` holds.
    pub(super) fn begin(
        &mut self,
        point: &Manifest,
        original: Option<&File>,
    ) -> Result<PartialPoint<'_>> {
        check_next(&self.disk, point)?;
        self.check_lock()?;
        self.disk.made_from(match original {
            Some(original) => Audience::of_file(original)?,
            // Nobody says who could see it where it comes from; from the first one on, the disk does.
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
        }
        let path = part(&self.disk, point);
        let named = self.disk.path(&point.data.file);
        check_plain(&path)?;
        match (!is_absent(&named), same) {
            (false, _) => {}
            // All that it lacked was its manifest.
            (true, true) => rename(&named, &path)?,
            (true, false) => {
                return Err(Error::damaged("this file has no manifest")
                    .with_path(named)
                    .with_hint("take the manifest from a copy of the store; or remove the file if it isn't wanted"));
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
            Some(original) => same_until(original, &file, len)?,
            None => 0,
        };
        // What comes behind may be anything, and zeros won't be written over it.
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

/// A snapshot that is being taken in. Dropped before it is finished, it stays for the next copy to go on with.
#[derive(Debug)]
pub(super) struct PartialPoint<'a> {
    target: &'a mut Target,
    point: Manifest,
    file: File,
    path: PathBuf,
    from: u64,
}

impl PartialPoint<'_> {
    /// Where it goes on: everything before this offset is there.
    pub(super) fn from(&self) -> u64 {
        self.from
    }

    /// Stores a piece of the file. What lies between pieces is zero.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Reads back what was stored and, if it is what the manifest says, makes it a snapshot of the disk. Else nothing
    /// of it is kept.
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
        let list = match check(&target.disk, &point, &path, work) {
            Ok(list) => list,
            // That says nothing about what was stored.
            Err(error) if is_passing(&error) => return Err(error),
            Err(error) => {
                target.tidy()?;
                return Err(match error.kind() {
                    ErrorKind::Damaged => error,
                    _ => Error::damaged("what arrived can't be used")
                        .with_path(path)
                        .with_source(error),
                });
            }
        };
        if point.is_base() {
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

    /// Keeps nothing of it.
    pub(super) fn give_up(self) -> Result<()> {
        self.target.tidy()
    }
}

fn name_of(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// Bytes that are read back to see whether `point` arrived.
pub(super) fn to_verify(point: &Manifest) -> u64 {
    if point.is_base() {
        point.virtual_size
    } else {
        point.data.length
    }
}

/// Reads back all that was stored, and compares it with what the manifest says. Of a base the window hashes come out.
fn check(disk: &Disk, point: &Manifest, path: &Path, work: Work<'_>) -> Result<Option<MadeList>> {
    let wrong = |field: &str, found: String, expected: String| {
        Err(Error::damaged("what arrived doesn't match its manifest")
            .with_path(path)
            .with_field(field)
            .with_found(found)
            .with_expected(expected))
    };
    if point.is_base() {
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
    let before = disk.newest().map(|newest| newest.content_digest);
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
    Ok(None)
}
