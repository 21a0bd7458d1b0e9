//! The window hashes of the newest snapshot: with them, the next one is created by reading only the new image.

use super::disk::is_passing;
use super::layout::WINDOWS;
use super::plain::{check_plain, is_absent};
use super::remedies::find_damage;
use super::{Disk, Manifest, Work};
use crate::diff::update_window_hashes;
use crate::error::{Error, Result};
use crate::image::{
    ContentDigest, Image as _, WindowHashes, WindowList, WindowListWriter, window_hashes,
    windows_in,
};
use crate::storage::{AtomicFile, File, Overwrite, ReadAt as _, WriteAt as _};

/// The list of `newest`, computed from its data if it is missing, damaged or for another snapshot.
pub(super) fn of_newest(
    disk: &Disk,
    newest: &Manifest,
    work: Work<'_>,
) -> Result<WindowList<File>> {
    let path = disk.path(WINDOWS);
    // A list that is missing, stale or damaged is computed again.
    if let Some(list) = stored(disk)?
        && list.digest() == newest.content_digest
    {
        return Ok(list);
    }
    let image = disk.image(newest)?;
    work.progress
        .begin("hashing the newest snapshot", image.virtual_size());
    let (new, _) = make(disk, image.virtual_size(), |each| {
        window_hashes(&image, work.workers, work.progress, each)
    })?;
    new.check(disk, newest)?;
    new.publish()?;
    WindowList::open(File::open(&path)?)
}

/// The window hashes of `point` of the disk `other`, for making something of `disk`: those that `other` has, else computed.
pub(super) fn of_other(
    disk: &Disk,
    (other, point): (&Disk, &Manifest),
    work: Work<'_>,
) -> Result<WindowList<File>> {
    if let Some(list) = stored(other)?
        && list.digest() == point.content_digest
    {
        return Ok(list);
    }
    let image = other.image(point)?;
    work.progress
        .begin("hashing the other disk", image.virtual_size());
    let (new, _) = make(disk, image.virtual_size(), |each| {
        window_hashes(&image, work.workers, work.progress, each)
    })?;
    new.check(other, point)?;
    // So that all of it can be read.
    new.file.file().sync()?;
    WindowList::open(new.file.file().another_handle())
}

/// Updates the list to the newest snapshot, if that is possible without reading all of it, after snapshots were copied
/// from `source` to `disk`.
pub(super) fn keep_up(disk: &Disk, source: &Disk, work: Work<'_>) -> Result<()> {
    let Some(newest) = disk.newest() else {
        return Ok(());
    };
    let own = stored(disk)?;
    let is_current = |list: &WindowList<File>| list.digest() == newest.content_digest;
    if own.as_ref().is_some_and(is_current) {
        return Ok(());
    }
    if stored(source)?.as_ref().is_some_and(is_current) {
        return take(disk, source);
    }
    match own {
        Some(list) => carry(disk, newest, &list, work),
        None => Ok(()),
    }
}

/// The existing list, for whichever snapshot; `None` if it is missing or damaged.
pub(super) fn stored(disk: &Disk) -> Result<Option<WindowList<File>>> {
    match open(disk) {
        Err(error) if is_passing(&error) => Err(error),
        found => Ok(found.ok().flatten()),
    }
}

/// The existing list, for whichever snapshot; `None` if there is none.
pub(super) fn open(disk: &Disk) -> Result<Option<WindowList<File>>> {
    let path = disk.path(WINDOWS);
    check_plain(&path)?;
    if is_absent(&path) {
        return Ok(None);
    }
    WindowList::open(File::open(path)?).map(Some)
}

/// The number of nonzero windows of the newest snapshot, if its list exists.
pub(super) fn count(disk: &Disk) -> Option<u64> {
    let newest = disk.newest()?.content_digest;
    let is_current = digest_of(disk).ok()? == Some(newest);
    let len = File::open(disk.path(WINDOWS)).ok()?.byte_len().ok()?;
    is_current.then(|| windows_in(len))
}

/// The digest at the end of the existing list, without checking the rest. `None` if it isn't available.
pub(super) fn digest_of(disk: &Disk) -> Result<Option<ContentDigest>> {
    let path = disk.path(WINDOWS);
    if check_plain(&path).is_err() || is_absent(&path) {
        return Ok(None);
    }
    let file = File::open(&path)?;
    let mut digest = [0; 32];
    let Some(at) = file.byte_len()?.checked_sub(digest.len() as u64) else {
        return Ok(None);
    };
    file.read_exact_at(&mut digest, at)?;
    Ok(Some(ContentDigest(digest)))
}

/// Takes over the list of another store.
fn take(disk: &Disk, source: &Disk) -> Result<()> {
    let from = File::open(source.path(WINDOWS))?;
    let file = disk.new_file(disk.path(WINDOWS), WINDOWS)?;
    let mut out = file.file().appender();
    out.take_all(&mut from.reader())
        .map_err(|e| Error::io("cannot copy the window hashes", e).with_path(disk.path(WINDOWS)))?;
    file.publish(Overwrite::Yes)
}

/// Computes the list of the newest snapshot from the `list` of one that it depends on, by reading what the diffs
/// between the two touch.
fn carry(disk: &Disk, newest: &Manifest, list: &WindowList<File>, work: Work<'_>) -> Result<()> {
    let chain = disk.chain(newest)?;
    let Some(known) = chain
        .iter()
        .rposition(|point| point.content_digest == list.digest())
    else {
        return Ok(());
    };
    let image = disk.image(newest)?;
    // Those of another disk, as a snapshot of which this one begins, come first.
    let count = chain.len().saturating_sub(known.saturating_add(1));
    let diffs = image.diffs();
    let later = diffs
        .get(diffs.len().saturating_sub(count)..)
        .unwrap_or_default();
    work.progress
        .begin("hashing what changed", image.virtual_size());
    let (new, ()) = make(disk, image.virtual_size(), |each| {
        update_window_hashes(list, later, &image, work.workers, work.progress, each)
    })?;
    new.check(disk, newest)?;
    new.publish()
}

/// A complete list that isn't the disk's yet.
pub(super) struct MadeList {
    file: AtomicFile,
    /// The content digest that follows from it.
    pub(super) digest: ContentDigest,
}

/// Receives window hashes, with the first byte of their window, in order.
pub(super) type Each<'a> = dyn FnMut(u64, &WindowHashes) -> Result<()> + 'a;

/// Builds the list of a disk of `size` bytes from what `work` passes to its argument. Also returns the result of
/// `work`.
pub(super) fn make<T>(
    disk: &Disk,
    size: u64,
    work: impl FnOnce(&mut Each<'_>) -> Result<T>,
) -> Result<(MadeList, T)> {
    let path = disk.path(WINDOWS);
    let file = disk.new_file(path.clone(), WINDOWS)?;
    let out = file.file().appender();
    let mut writer = WindowListWriter::new(out, path, size)?;
    let made = work(&mut |start, hashes| writer.push(start, hashes))?;
    let digest = writer.finish()?;
    Ok((MadeList { file, digest }, made))
}

impl MadeList {
    /// Fails unless it is the list of `point`, from whose data it was computed.
    fn check(&self, disk: &Disk, point: &Manifest) -> Result<()> {
        if self.digest == point.content_digest {
            return Ok(());
        }
        Err(
            Error::damaged("the newest snapshot doesn't match its manifest")
                .with_path(disk.label(point))
                .with_field("content digest")
                .with_found(self.digest)
                .with_expected(point.content_digest)
                .with_remedy(find_damage()),
        )
    }

    /// The number of nonzero windows in it.
    pub(super) fn windows(&self) -> Result<u64> {
        self.file.file().byte_len().map(windows_in)
    }

    /// Makes it the list of the disk.
    pub(super) fn publish(self) -> Result<()> {
        self.file.publish(Overwrite::Yes)
    }
}
