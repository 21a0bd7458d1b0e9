//! Brings another store up to date.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::ground::find_ground;
use super::history::{missing, refuse_taken_name};
use super::incoming::{Target, to_verify};
use super::layout::PACKED;
use super::marker::expect_store;
use super::packed::pack_point;
use super::plain::is_absent;
use super::point::side;
use super::restore::check_content;
use super::sparse_chunks::pieces;
use super::{
    Access, Disk, LIKE_VERSION, Manifest, OtherPoint, STORE_VERSION, Work, like_of, store_version,
    windows,
};
use crate::diff::{Compression, DiffOptions, write_diff_listed};
use crate::error::{Error, ErrorKind, Result};
use crate::files::Opened as _;
use crate::image::{ContentDigest, NoneShared};
use crate::progress::Progress;
use crate::remedy::{Remedy, SnapshotJob, Step};
use crate::storage::{AtomicFile, Audience, File};
use crate::text::shown;

/// The outcome of copying one disk.
#[derive(Debug)]
#[non_exhaustive]
pub struct Copied {
    /// The disk.
    pub disk: String,
    /// The snapshots that were copied, oldest first.
    pub points: Vec<CopiedPoint>,
    /// The target's newest snapshot afterwards.
    pub newest: Option<Manifest>,
    /// Whether the disk was created for them.
    pub is_new: bool,
    /// The reason why the rest couldn't be copied.
    pub error: Option<Error>,
}

impl Copied {
    /// Adds what became of the copy when it was tried again.
    pub fn go_on(&mut self, mut again: Self) {
        self.points.append(&mut again.points);
        self.newest = again.newest.or(self.newest.take());
        self.is_new |= again.is_new;
        self.error = again.error;
    }
}

/// A snapshot that was copied.
#[derive(Debug)]
pub struct CopiedPoint {
    /// Its manifest.
    pub manifest: Manifest,
    /// Bytes read and written now, not counting zeros and what an interrupted copy had transferred.
    pub bytes: u64,
}

/// Copies the snapshots that the disks called `names` have in the store `from` and lack in the store `to`, at most
/// `jobs` disks at a time, and of each disk one snapshot after the other. Disks are independent: an error ends only the
/// copy of its own disk.
pub fn copy_disks(
    (from, to): (&Path, &Path),
    names: &[String],
    jobs: usize,
    work: Work<'_>,
) -> Vec<Copied> {
    let total = names
        .iter()
        .map(|name| to_copy((from, to), name).unwrap_or(0))
        .fold(0, u64::saturating_add);
    work.progress.begin("copying and verifying", total);
    let progress = OneOfMany(work.progress);
    let work = Work {
        progress: &progress,
        ..work
    };
    let mut all = Vec::with_capacity(names.len());
    for wave in waves(from, names) {
        all.extend(copy_wave((from, to), wave, jobs, work));
    }
    all.sort_by_key(|(n, _)| *n);
    all.into_iter().map(|(_, copied)| copied).collect()
}

/// Copies disks none of which begins as a snapshot of another one of them.
fn copy_wave(
    (from, to): (&Path, &Path),
    names: Vec<(usize, &String)>,
    jobs: usize,
    work: Work<'_>,
) -> Vec<(usize, Copied)> {
    let jobs = jobs.min(names.len());
    let (waiting, done) = (Mutex::new(names.into_iter()), Mutex::new(Vec::new()));
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.next()
    };
    let job = || {
        while let Some((n, name)) = next() {
            let copied = copy_disk((from, to), name, work);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push((n, copied));
        }
    };
    thread::scope(|scope| {
        for _ in 1..jobs {
            // Where there are too many threads already, fewer disks are copied at a time.
            if thread::Builder::new().spawn_scoped(scope, job).is_err() {
                break;
            }
        }
        job();
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The disks in the order in which they can be copied: one that begins as a snapshot of another one comes after that.
/// Where that can't be told, the copy itself says what is wrong.
fn waves<'a>(from: &Path, names: &'a [String]) -> Vec<Vec<(usize, &'a String)>> {
    let below = |name: &String| {
        let like = like_of(from, name).ok()??;
        find_ground(from, name, &like).ok()?
    };
    let grounds: BTreeMap<&String, OtherPoint> = names
        .iter()
        .filter_map(|name| Some((name, below(name)?)))
        .collect();
    let depth = |name: &String| {
        let mut depth = 0;
        let mut last = grounds.get(name);
        // What goes round in a circle ends, too.
        while let Some(ground) = last.filter(|_| depth < names.len()) {
            depth += 1;
            last = grounds.get(&ground.disk);
        }
        depth
    };
    let mut waves: BTreeMap<usize, Vec<(usize, &String)>> = BTreeMap::new();
    for (n, name) in names.iter().enumerate() {
        waves.entry(depth(name)).or_default().push((n, name));
    }
    waves.into_values().collect()
}

/// The number of bytes for copying the disk `name`: of the files, and of what is read back to verify them.
pub fn to_copy((from, to): (&Path, &Path), name: &str) -> Result<u64> {
    let source = Disk::open(from, name, Access::Read)?;
    let target = match Disk::open(to, name, Access::Read) {
        // It doesn't exist, or was just removed by a copy that failed.
        Err(_) if is_absent(&to.join(name)) => None,
        opened => Some(opened?),
    };
    let points = match &target {
        Some(target) => missing(&source, target)?.points,
        None => source.points(),
    };
    Ok(points.iter().fold(0, |sum, point| {
        sum.saturating_add(point.data.length)
            .saturating_add(to_verify(point))
    }))
}

/// The snapshots that a copy of the disk `name` from the store `from` to the store `to` would bring, oldest first;
/// nothing is changed. `to` needn't be a store yet. The disks called `others` are copied before it.
///
/// # Errors
///
/// As the copy: [`Mismatch`](ErrorKind::Mismatch) if the two histories have diverged.
pub fn would_copy(
    (from, to): (&Path, &Path),
    name: &str,
    others: &[String],
) -> Result<Vec<Manifest>> {
    let mut source = Disk::open(from, name, Access::Read)?;
    if let Some(error) = source.take_damaged().pop() {
        return Err(error);
    }
    if is_absent(&to.join(name)) {
        check_ground(&source, to, source.points(), others)?;
        return Ok(source.points().to_vec());
    }
    let target = Disk::open(to, name, Access::Read)?;
    let points = missing(&source, &target)?.points;
    check_ground(&source, to, points, others)?;
    points
        .iter()
        .try_for_each(|point| refuse_taken_name(&target, point))?;
    Ok(points.to_vec())
}

/// Fails if the first of `points` begins as a snapshot of another disk that the store `to` doesn't have, and that isn't
/// copied before it, as one of the disks called `others`.
fn check_ground(source: &Disk, to: &Path, points: &[Manifest], others: &[String]) -> Result<()> {
    let Some((point, like)) = points
        .first()
        .and_then(|point| Some((point, point.like.as_ref()?)))
    else {
        return Ok(());
    };
    if !is_absent(to) && find_ground(to, source.name(), like)?.is_some() {
        return Ok(());
    }
    let here = find_ground(source.store(), source.name(), like)?;
    // A copy brings only what comes after the newest one of the target.
    let comes = here.as_ref().filter(|here| {
        let coming = would_copy((source.store(), to), &here.disk, others);
        coming.is_ok_and(|points| points.iter().any(|point| like.is(point)))
    });
    if comes.is_some_and(|here| others.contains(&here.disk)) {
        return Ok(());
    }
    let error = Error::mismatch(
        "this disk begins as a snapshot of another one, which the target doesn't have",
    )
    .with_path(source.label(point))
    .with_field("like")
    .with_found(format_args!(
        "nothing with the content of {like} in {}",
        shown(to)
    ))
    .with_expected(format_args!(
        "a snapshot with the content digest {}",
        like.content_digest
    ));
    let rebase = source.step(SnapshotJob::Rebase { like: None });
    Err(error.with_remedy(match comes {
        Some(here) => Remedy::new(format!("copy {} first", here.disk))
            .named(": ")
            .step(
                Step::Snapshot {
                    job: SnapshotJob::Copy {
                        to: to.to_path_buf(),
                    },
                    of: Some((source.store().to_path_buf(), here.disk.clone())),
                },
                "",
            )
            .text(format!("; or make {} a disk by itself", source.name()))
            .named(": ")
            .step(rebase, ""),
        None => Remedy::new(format!(
            "a copy doesn't bring that one back: make {} a disk by itself first",
            source.name()
        ))
        .named(": ")
        .step(rebase, ""),
    }))
}

/// Copies the snapshots of the disk `name` that the store `from` has and the store `to` lacks. Both are locked
/// meanwhile: the source as by a reader, the target against everyone except readers.
pub fn copy_disk((from, to): (&Path, &Path), name: &str, work: Work<'_>) -> Copied {
    // Where the folder of a disk is depends on the key. What is wrong with the store is reported below.
    let _ = expect_store(to, Some(name));
    let mut copied = Copied {
        disk: name.to_owned(),
        points: Vec::new(),
        newest: None,
        is_new: is_absent(&to.join(name)),
        error: None,
    };
    copied.error = copy_points((from, to), name, &mut copied, work).err();
    copied
}

fn copy_points(
    (from, to): (&Path, &Path),
    name: &str,
    copied: &mut Copied,
    work: Work<'_>,
) -> Result<()> {
    let mut source = Disk::open(from, name, Access::Read)?;
    if let Some(error) = source.take_damaged().pop() {
        return Err(error);
    }
    source.settle(work)?;
    if source.points().is_empty() {
        return Ok(());
    }
    let mut target = Target::open(to, name, &Audience::of([source.folder()])?)?;
    let result = copy_missing(&source, &mut target, copied, work);
    if result.is_err() {
        target.discard_if_empty();
    }
    result
}

fn copy_missing(
    source: &Disk,
    target: &mut Target,
    copied: &mut Copied,
    work: Work<'_>,
) -> Result<()> {
    copied.newest = target.disk().newest().cloned();
    let missing = missing(source, target.disk())?;
    if missing.points.is_empty() {
        target.tidy()?;
    }
    // Before any is copied: a name that is taken ends it.
    let mut points = missing.points.iter();
    points.try_for_each(|point| refuse_taken_name(target.disk(), point))?;
    check_ground(source, target.disk().store(), missing.points, &[])?;
    // What the first program made is brought to the version of the target on the way.
    let version = store_version(target.disk().store())?;
    let packs = matches!(version, Some(STORE_VERSION | LIKE_VERSION));
    let mut bridge = missing.bridge;
    for point in missing.points {
        let (manifest, bytes) = if let Some(newest) = bridge.take() {
            bridge_to(source, target, (&newest, point), work)?
        } else if packs && point.is_base() && !point.is_packed() {
            pack_to(source, target, point, work)?
        } else {
            let file = File::open(source.data_path(point)?)?;
            copy_point(target, (point, &file), work)?
        };
        copied.newest = Some(manifest.clone());
        copied.points.push(CopiedPoint { manifest, bytes });
    }
    // Copying and verifying are done; the rest takes little time, and isn't part of the total.
    let progress = Uncounted(work.progress);
    let work = Work {
        progress: &progress,
        ..work
    };
    windows::keep_up(target.disk(), source, work)
}

/// Copies `point` as a diff from the newest snapshot of the target, which the source doesn't have any more: the diff is
/// made here, and only what changed is stored and read at the target.
fn bridge_to(
    source: &Disk,
    target: &mut Target,
    (newest, point): (&Manifest, &Manifest),
    work: Work<'_>,
) -> Result<(Manifest, u64)> {
    let disk = target.disk();
    let known = windows::of_newest(disk, newest, work)?;
    let (before, after) = (disk.image(newest)?, source.image(point)?);
    let file = format!("{}{PACKED}", point.stem());
    let audience = Audience::of(after.files())?.and(disk.audience().clone());
    let stored = AtomicFile::for_audience(disk.path(&file), audience)?;
    let options = DiffOptions {
        work,
        compression: Compression::default(),
        digests: true,
        equal: &NoneShared,
        confirm: &|| after.check_unchanged(),
    };
    let written = write_diff_listed(
        &known,
        (&before, side(newest)),
        (&after, side(point)),
        (stored.file().appender(), disk.path(&file)),
        options,
        |_, _| Ok(()),
    )?;
    if let Some(found) = written.trailer.target_digest {
        check_content(&after, found)?;
    }
    let (len, digest) = (written.len, ContentDigest(written.digest));
    drop((written, before, known));
    let coming = point.stored_as(Some(newest.id.clone()), file, (len, len), Some(digest));
    let made = stored.file().another_handle();
    let copied = copy_point(target, (&coming, &made), work)?;
    drop(stored);
    Ok(copied)
}

/// Copies `point`, a base that is an image, as a packed base. Its content stays what it is, and so does its id.
fn pack_to(
    source: &Disk,
    target: &mut Target,
    point: &Manifest,
    work: Work<'_>,
) -> Result<(Manifest, u64)> {
    let disk = target.disk();
    let image = source.image(point)?;
    let file = format!("{}{PACKED}", point.stem());
    let audience = Audience::of(image.files())?.and(disk.audience().clone());
    let stored = AtomicFile::for_audience(disk.path(&file), audience)?;
    let (len, digest) = pack_point(&image, (stored.file(), disk.path(&file)), work)?;
    let coming = point.stored_as(None, file, (len, len), Some(digest));
    let made = stored.file().another_handle();
    let copied = copy_point(target, (&coming, &made), work)?;
    drop(stored);
    Ok(copied)
}

fn copy_point(
    target: &mut Target,
    (point, file): (&Manifest, &File),
    work: Work<'_>,
) -> Result<(Manifest, u64)> {
    let incoming = target.begin(point, Some(file))?;
    let (from, len) = (incoming.from(), point.data.length);
    work.progress.advance(from);
    let mut bytes = 0_u64;
    pieces(file, from, len, work.progress, |offset, piece| {
        bytes = bytes.saturating_add(piece.len() as u64);
        incoming.write(offset, piece)
    })?;
    let manifest = incoming.finish(work).map_err(|error| {
        if error.kind() != ErrorKind::Damaged {
            return error;
        }
        let verify = Step::Snapshot {
            job: SnapshotJob::Verify { read_data: true },
            of: None,
        };
        let kept = format!(
            "nothing of {} was kept: to see what is wrong in the source: ",
            point.name
        );
        error.override_remedy(Remedy::new(kept).step(verify, "have it verified, and all data read"))
    })?;
    Ok((manifest, bytes))
}

/// Suppresses the progress of some work.
struct Uncounted<'a>(&'a dyn Progress);

impl Progress for Uncounted<'_> {
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// Progress of one of several pieces of work with a common total.
struct OneOfMany<'a>(&'a dyn Progress);

impl Progress for OneOfMany<'_> {
    fn advance(&self, bytes: u64) {
        self.0.advance(bytes);
    }

    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}
