//! Disks that begin as a snapshot of another disk of the store: finding that snapshot, and who stands on whom.
//!
//! ```text
//! web   000001-mon.vhddiff ── 000002-tue.vhddiff
//!          └── web2   000001-first.vhddiff ── 000002-tue.vhddiff
//! ```
//!
//! The snapshot is found by its content, in the disk that it was of or, if that doesn't have it any more, in any other.
//! Whoever begins a disk so holds the lock of the other one, as a reader, until the manifest is there; whoever deletes a
//! snapshot has that lock exclusively, and then looks which disks begin as it. Reading needs no lock of the other disk:
//! its files are held open, as far as they are diffs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::disk::{Below, Link, read_manifest};
use super::file_names::{FileNames, file_names};
use super::layout::DELETING;
use super::marked::{LIKE_VERSION, Marker};
use super::marker::disks;
use super::plain::is_absent;
use super::{Access, Disk, Like, Manifest, PointFileName, check_disk_name, check_name};
use crate::error::{Error, ErrorKind, Result};
use crate::image::ContentDigest;
use crate::remedy::{Choice, Remedy, SnapshotJob, Step};
use crate::storage::room_for_files;

/// The most disks of which each begins as a snapshot of the next.
const DEEPEST: usize = 16;

/// How often it is tried to open a disk between two changes.
const TRIES: u32 = 10;

/// The pause after the first try; each is longer than the one before.
const PAUSE: Duration = Duration::from_millis(5);

/// A disk that begins as a snapshot of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dependant {
    /// Its name.
    pub disk: String,
    /// What it begins as.
    pub like: Like,
}

/// A snapshot of another disk of the store, as a person names it: `DISK@SNAPSHOT`, or `DISK` for its newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherPoint {
    /// The disk.
    pub disk: String,
    /// The snapshot; the newest, if `None`.
    pub snapshot: Option<String>,
}

impl FromStr for OtherPoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (disk, snapshot) = match text.split_once('@') {
            Some((disk, snapshot)) => (disk, Some(snapshot)),
            None => (text, None),
        };
        check_disk_name(disk)?;
        snapshot.map_or(Ok(()), check_name)?;
        Ok(Self {
            disk: disk.to_owned(),
            snapshot: snapshot.map(str::to_owned),
        })
    }
}

impl fmt::Display for OtherPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.disk)?;
        self.snapshot
            .as_ref()
            .map_or(Ok(()), |name| write!(f, "@{name}"))
    }
}

impl Link<'_> {
    /// The name of the snapshot, with that of its disk unless it is `disk`.
    pub(super) fn name_in(&self, disk: &Disk) -> String {
        if self.disk.name() == disk.name() {
            self.point.name.clone()
        } else {
            format!("{}@{}", self.disk.name(), self.point.name)
        }
    }
}

impl Disk {
    /// All snapshots on which `point` depends, those of other disks first: a base, then the diffs up to `point` itself.
    pub(super) fn links<'a>(&'a self, point: &'a Manifest) -> Result<Vec<Link<'a>>> {
        let own = self.chain(point)?;
        let mut links = match own.first().and_then(|first| first.like.as_ref()) {
            Some(like) => {
                let below = self.below(like)?;
                below.disk.links(&below.point)?
            }
            None => Vec::new(),
        };
        links.extend(own.into_iter().map(|point| Link { disk: self, point }));
        Ok(links)
    }

    /// How many snapshots `point` depends on, including itself and those of other disks, and the bytes that they take.
    ///
    /// # Errors
    ///
    /// [`Damaged`](ErrorKind::Damaged) if one of them is missing.
    pub fn chain_sizes(&self, point: &Manifest) -> Result<(usize, u64)> {
        let links = self.links(point)?;
        let used = links.iter().map(|link| link.point.used_size);
        Ok((links.len(), used.fold(0, u64::saturating_add)))
    }

    /// The snapshot of another disk as which this one begins, as it is called now; as it was called if it can't be
    /// opened. `None` if this disk stands by itself.
    pub fn begins_as(&self) -> Option<OtherPoint> {
        let like = self.points().first()?.like.as_ref()?;
        let (disk, snapshot) = match self.below(like) {
            Ok(below) => (below.disk.name(), &below.point.name),
            Err(_) => (like.disk.as_str(), &like.snapshot),
        };
        Some(OtherPoint {
            disk: disk.to_owned(),
            snapshot: Some(snapshot.clone()),
        })
    }

    /// The snapshot as which this disk begins, opened.
    pub(super) fn below(&self, like: &Like) -> Result<&Below> {
        let below = if let Some(below) = self.below.get() {
            below
        } else {
            let found = Box::new(self.find_below(like)?);
            self.below.get_or_init(|| found)
        };
        if like.is(&below.point) {
            return Ok(below);
        }
        Err(self.gone(like))
    }

    /// The disks below this one that were opened, the nearest first.
    pub(super) fn disks_below(&self) -> Vec<&Self> {
        let mut disks = Vec::new();
        let mut last = self;
        while let Some(below) = last.below.get() {
            last = &below.disk;
            disks.push(last);
        }
        disks
    }

    fn find_below(&self, like: &Like) -> Result<Below> {
        let mut wrong = None;
        if self.above.len() >= DEEPEST {
            return Err(self.wrong_like(
                "too many disks begin one as a snapshot of the next",
                like,
                format!("at most {DEEPEST} disks"),
            ));
        }
        for name in candidates(self.store(), like)? {
            if self.is_above(&name) {
                if name == like.disk {
                    wrong = Some(self.wrong_like(
                        "this disk begins as one that depends on it",
                        like,
                        "a snapshot of a disk that doesn't depend on this one".to_owned(),
                    ));
                }
                continue;
            }
            match self.open_below(&name, like) {
                Ok(Some(below)) => return Ok(below),
                Ok(None) => {}
                Err(error) => drop(wrong.get_or_insert(error)),
            }
        }
        Err(wrong.unwrap_or_else(|| self.gone(like)))
    }

    /// Whether the disk called `name` is this one, or depends on it as far as that is known.
    fn is_above(&self, name: &str) -> bool {
        self.name() == name || self.above.iter().any(|above| above == name)
    }

    /// Opens the snapshot in the disk called `name`; `None` if that doesn't have it.
    fn open_below(&self, name: &str, like: &Like) -> Result<Option<Below>> {
        for n in 1..=TRIES {
            let mut disk = Self::look(self.store(), name)?;
            self.put_above(&mut disk);
            let Some(point) = disk.holding(like).cloned() else {
                return Ok(None);
            };
            let held = hold(&disk, &point);
            // What was opened may be of two states, if there was a change.
            let unchanged = disk.is_as_seen()?;
            match held {
                Ok(false) => break,
                Ok(true) if unchanged => return Ok(Some(Below { disk, point })),
                Err(error) if unchanged => return Err(of_missing_file(&disk, error)),
                _ => thread::sleep(PAUSE * n),
            }
        }
        let mut disk = Self::open(self.store(), name, Access::Read)?;
        self.put_above(&mut disk);
        let Some(point) = disk.holding(like).cloned() else {
            return Ok(None);
        };
        disk.links(&point)?;
        Ok(Some(Below { disk, point }))
    }

    fn put_above(&self, below: &mut Self) {
        below.above.clone_from(&self.above);
        below.above.push(self.name().to_owned());
    }

    /// The newest snapshot with this content.
    fn holding(&self, like: &Like) -> Option<&Manifest> {
        self.points().iter().rev().find(|point| like.is(point))
    }

    /// Locks the disk called `name` as a reader, so that nothing of it is deleted until this disk begins as a snapshot
    /// of it.
    pub(super) fn lock_ground(&self, name: &str) -> Result<Self> {
        if self.is_above(name) {
            return Err(Error::usage("a disk can't begin as a snapshot of itself")
                .with_path(self.folder())
                .with_found(name)
                .with_hint("name a snapshot of another disk"));
        }
        let mut ground = Self::open(self.store(), name, Access::Read)?;
        self.put_above(&mut ground);
        Ok(ground)
    }

    /// Locks the disk of `other` as [`lock_ground`](Self::lock_ground) does, and finds the snapshot, which must not depend
    /// on this disk.
    pub(super) fn choose_ground(&self, other: &OtherPoint) -> Result<(Self, Manifest)> {
        let ground = self.lock_ground(&other.disk)?;
        let point = match (&other.snapshot, ground.newest()) {
            (Some(name), _) => ground.find(name)?.clone(),
            (None, Some(newest)) => newest.clone(),
            (None, None) => ground.find("newest")?.clone(),
        };
        ground.links(&point)?;
        Ok((ground, point))
    }

    /// Locks the disk with the snapshot as which `point` begins, which is about to become the first of this disk, as a
    /// reader; `None` if no disk of the store has it.
    pub(super) fn lock_ground_of(&self, like: &Like) -> Result<Option<Self>> {
        let mut wrong = None;
        for name in candidates(self.store(), like)? {
            if self.is_above(&name) {
                continue;
            }
            let found = self.lock_ground(&name).and_then(|ground| {
                let Some(point) = ground.holding(like) else {
                    return Ok(None);
                };
                ground.links(point)?;
                Ok(Some(ground))
            });
            match found {
                Ok(Some(ground)) => return Ok(Some(ground)),
                Ok(None) => {}
                Err(error) => drop(wrong.get_or_insert(error)),
            }
        }
        wrong.map_or(Ok(None), Err)
    }

    /// The snapshot of another disk of the store with this content, for a manifest that was lost.
    pub(super) fn like_with(
        &self,
        content_digest: ContentDigest,
        virtual_size: u64,
    ) -> Option<Like> {
        let names = disks(self.store()).ok()?;
        names
            .iter()
            .filter(|name| *name != self.name())
            .find_map(|name| {
                let disk = Self::look(self.store(), name).ok()?;
                let mut points = disk.points().iter().rev();
                let point = points.find(|point| {
                    point.content_digest == content_digest && point.virtual_size == virtual_size
                })?;
                Some(Like::new(name, point))
            })
    }

    /// The disks of the store that begin as a snapshot of this one.
    ///
    /// # Errors
    ///
    /// Fails if that can't be told of a disk, because its first manifest can't be read.
    pub fn dependants(&self) -> Result<Vec<Dependant>> {
        let mut found = Vec::new();
        let marker = Marker::read(self.store())?;
        let may_have = marker.is_some_and(|marker| marker.version >= LIKE_VERSION);
        let likes = if may_have {
            likes_of(self.store(), self.name())?
        } else {
            unexpected_likes(self.store())?
        };
        for (name, like) in likes.iter().cloned() {
            if name != self.name() && self.holding(&like).is_some() && self.is_ground_of(&like)? {
                found.push(Dependant { disk: name, like });
            }
        }
        Ok(found)
    }

    /// Whether what begins as `like`, which this disk has, needs it from here: not if its own disk has it.
    fn is_ground_of(&self, like: &Like) -> Result<bool> {
        if like.disk == self.name() || is_absent(&self.store().join(&like.disk)) {
            return Ok(true);
        }
        match Self::look(self.store(), &like.disk) {
            Ok(other) => Ok(other.holding(like).is_none()),
            Err(error) if error.kind() == ErrorKind::Usage => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Fails if a disk begins as one of the snapshots `gone` and there would be none with its content any more.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage), with the name of that disk.
    pub fn refuse_stood_on(&self, gone: &[&Manifest]) -> Result<()> {
        let goes = |point: &Manifest| gone.iter().any(|gone| gone.id == point.id);
        for Dependant { disk, like } in self.dependants()? {
            let stays = self.points().iter().any(|p| like.is(p) && !goes(p));
            let Some(point) = gone.iter().find(|point| like.is(point) && !stays) else {
                continue;
            };
            let rebase = Step::Snapshot {
                job: SnapshotJob::Rebase { like: None },
                of: Some((self.store().to_path_buf(), disk.clone())),
            };
            return Err(
                Error::usage("another disk begins as this snapshot, so it isn't deleted")
                    .with_path(self.label(point))
                    .with_found(format_args!("{disk}, which stores what differs from it"))
                    .with_remedy(
                        Remedy::new(format!("first make {disk} a disk by itself"))
                            .named(": ")
                            .step(rebase, ""),
                    ),
            );
        }
        Ok(())
    }

    /// The error for a disk whose beginning isn't in the store.
    fn gone(&self, like: &Like) -> Error {
        self.wrong_like(
            "the snapshot of another disk as which this disk begins isn't in the store",
            like,
            format!(
                "a snapshot with the content digest {} of {} bytes",
                like.content_digest, like.virtual_size
            ),
        )
    }

    fn wrong_like(&self, what: &'static str, like: &Like, expected: String) -> Error {
        let first = self
            .points()
            .first()
            .map(|p| self.path(&p.stem().manifest()));
        Error::damaged(what)
            .with_path(first.unwrap_or_else(|| self.folder().to_path_buf()))
            .with_field("like")
            .with_found(like)
            .with_expected(expected)
            .with_remedy(
                Remedy::new(format!("copy {} back from another store; or have this disk rebuilt without it, from another store", like.disk))
                    .named(" (")
                    .step(Step::Choose(Choice::FromStore), "")
                    .named(")")
                    .text(" or an image")
                    .named(" (")
                    .step(Step::Choose(Choice::FromImage), "")
                    .named(")")
                    .text(": ")
                    .step(self.step(SnapshotJob::Repair), "a repair does that"),
            )
    }
}

/// Opens all that `point` depends on, and keeps it open. Returns whether that was possible: not if there are too many
/// files, or the base is an image, which may be changed in place.
fn hold(disk: &Disk, point: &Manifest) -> Result<bool> {
    let links = disk.links(point)?;
    let is_image = links.first().is_none_or(|base| !base.point.is_packed());
    if is_image || links.len() > room_for_files() {
        return Ok(false);
    }
    for link in links {
        let open = link.disk.open_diffs().get(link.disk, link.point);
        open.and_then(|open| open.file.hold())?;
    }
    Ok(true)
}

/// A file that is missing in a disk that nobody changes is damage.
fn of_missing_file(disk: &Disk, error: Error) -> Error {
    let is_gone = error.io_kind() == Some(std::io::ErrorKind::NotFound);
    match error.path().map(Path::to_path_buf) {
        Some(path) if is_gone && path.parent() == Some(disk.folder()) && is_absent(&path) => {
            Error::damaged("a file of the snapshot as which another disk begins is missing")
                .with_path(path)
                .with_remedy(disk.repair_remedy())
        }
        _ => error,
    }
}

/// The disks that may have the snapshot: the one that it was of, then all others.
fn candidates(store: &Path, like: &Like) -> Result<impl Iterator<Item = String>> {
    let others = disks(store)?;
    let named = (!is_absent(&store.join(&like.disk))).then(|| like.disk.clone());
    let other = like.disk.clone();
    Ok(named
        .into_iter()
        .chain(others.into_iter().filter(move |name| *name != other)))
}

/// The snapshot in the store at `store`, of another disk than `except`, that holds what `like` does.
pub(super) fn find_ground(store: &Path, except: &str, like: &Like) -> Result<Option<OtherPoint>> {
    for name in candidates(store, like)?.filter(|name| name != except) {
        let disk = Disk::look(store, &name)?;
        if let Some(point) = disk.holding(like) {
            return Ok(Some(OtherPoint {
                snapshot: Some(point.name.clone()),
                disk: name,
            }));
        }
    }
    Ok(None)
}

/// Disks, each with what it begins as.
type Likes = Arc<[(String, Like)]>;

/// What each disk in the store at `store` begins as, except for `but`.
fn likes_of(store: &Path, but: &str) -> Result<Likes> {
    let mut likes = Vec::new();
    for name in disks(store)?.into_iter().filter(|name| name != but) {
        likes.extend(like_of(store, &name)?.map(|like| (name, like)));
    }
    Ok(likes.into())
}

/// As [`likes_of`] for a store whose marker says that it has no such disks; it may be that of another store. Whether all
/// can be read doesn't matter then, and their locks are left alone: a command that wants one at this moment would fail.
/// A store is looked at once in a process, not for each of its disks.
fn unexpected_likes(store: &Path) -> Result<Likes> {
    static SEEN: Mutex<BTreeMap<PathBuf, Likes>> = Mutex::new(BTreeMap::new());
    let seen = || SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = seen().get(store) {
        return Ok(Arc::clone(known));
    }
    let names = disks(store)?.into_iter();
    let likes = names.filter_map(|name| Some((name.clone(), like_at_once(store, &name)?)));
    let likes: Likes = likes.collect();
    seen().insert(store.to_path_buf(), Arc::clone(&likes));
    Ok(likes)
}

/// As [`like_of`], as far as the first manifest of the disk says so, whatever goes on there.
fn like_at_once(store: &Path, name: &str) -> Option<Like> {
    let folder = store.join(name);
    first_base(&folder, &file_names(&folder).ok()?)?.like
}

/// The first manifest of the disk in `folder`, if it is that of a base and no deletion was interrupted there.
fn first_base(folder: &Path, names: &FileNames) -> Option<Manifest> {
    let first = stems(names).into_iter().min()?;
    if !names.contains(&first.manifest()) || !is_absent(&folder.join(DELETING)) {
        return None;
    }
    let path = folder.join(first.manifest());
    let first = read_manifest(&path, &path).ok()?;
    first.is_base().then_some(first)
}

/// The snapshots of which there are files. The data of a lost manifest counts, too.
fn stems(names: &FileNames) -> Vec<PointFileName> {
    let stems = names.iter().filter_map(|file| PointFileName::parse(file));
    stems
        .filter(|(_, ending)| [".json", ".vhd", ".raw", ".vhddiff"].contains(ending))
        .map(|(stem, _)| stem)
        .collect()
}

/// What the disk called `name` begins as, if that is a snapshot of another one. Only its first manifest is read, unless a
/// deletion was interrupted there.
///
/// # Errors
///
/// Fails if that can't be read.
pub fn like_of(store: &Path, name: &str) -> Result<Option<Like>> {
    let folder = store.join(name);
    let names = match file_names(&folder) {
        Err(_) if is_absent(&folder) => return Ok(None),
        names => names?,
    };
    if let Some(first) = first_base(&folder, &names) {
        return Ok(first.like);
    }
    let mut disk = match Disk::look(store, name) {
        Ok(disk) => disk,
        Err(_) if is_absent(&folder) => return Ok(None),
        Err(error) => return Err(error),
    };
    let stems = stems(&disk.names).into_iter();
    let Some(lowest) = stems.filter(|stem| !disk.is_going(stem)).min() else {
        return Ok(None);
    };
    match disk.points().first() {
        Some(first) if first.like.is_some() => return Ok(first.like.clone()),
        Some(first) if first.is_base() && first.stem() <= lowest => return Ok(None),
        _ => {}
    }
    let path = folder.join(lowest.manifest());
    let mut damaged = disk.take_damaged().into_iter();
    let cause = damaged.find(|error| error.path() == Some(&path));
    let error =
        Error::damaged("whether this disk begins as a snapshot of another one can't be read")
            .with_path(path)
            .with_remedy(
                Remedy::new("nothing that it may depend on is deleted: repair it first: ")
                    .step(disk.step(SnapshotJob::Repair), "a repair"),
            );
    Err(match cause {
        Some(cause) => error.with_source(cause.to_string()),
        None => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_of_another_disk_is_named_with_it() {
        let point: OtherPoint = "web@mon".parse().unwrap();
        assert_eq!(
            (point.disk.as_str(), point.snapshot.as_deref()),
            ("web", Some("mon"))
        );
        assert_eq!(point.to_string(), "web@mon");
        let newest: OtherPoint = "web".parse().unwrap();
        assert_eq!(
            (newest.snapshot.as_deref(), newest.to_string().as_str()),
            (None, "web")
        );
        for wrong in [
            "",
            "@mon",
            "web@",
            "../web@mon",
            "web@../mon",
            "s::web@mon",
            "web@mon@tue",
        ] {
            assert!(wrong.parse::<OtherPoint>().is_err(), "{wrong}");
        }
    }
}
