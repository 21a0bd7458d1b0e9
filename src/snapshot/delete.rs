//! Deletes a snapshot while every other point in time keeps its content.
//!
//! ```text
//! newest, or before another base    its files go
//! between others                    its diff is folded into the next one
//! a base                            its diff is folded into the next one, which becomes the base, or begins as the same
//!                                   snapshot of another disk
//! a base that is an image           the next diff is applied to it in place: it becomes the next one's base; while
//!                                   somebody reads it, the next one's base is a new file
//! ```
//!
//! Consecutive ones that depend on each other are deleted together: with one fold or one apply, whatever their number.
//!
//! The intent is recorded first; a command that is interrupted after that is finished by the next one.

use std::path::Path;
use std::sync::Arc;

use super::create::{LARGEST_DYNAMIC, lengths};
use super::intent::{Intent, MOST_AT_ONCE};
use super::layout::{DELETING, NEW, WINDOWS};
use super::marks::refuse_held;
use super::packed::BASE_COMPRESSION;
use super::plain::is_absent;
use super::point::with_repair;
use super::take_back::{forget, is_want_of_room, take_back};
use super::windows::digest_of;
use super::{Disk, Manifest, Work, partial};
use crate::diff::{BaseCheck, Chain, Compression, SquashOptions, squash};
use crate::error::{Error, ErrorKind, Result};
use crate::files::{
    ApplyOptions, Format, InPlace, Orphans, Output, ParentOptions, apply_in_place, journal_path,
    open_diff,
};
use crate::image::ContentDigest;
use crate::remedy::{Choice, Remedy, SnapshotJob, Step};
use crate::storage::{Access, File, Overwrite, remove_if_there, rename};

/// What happened to the snapshot after the deleted one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deleted {
    /// No other snapshot depended on it.
    Alone,
    /// The diff of the next one now contains the changes since the one before the deleted one.
    Folded {
        /// The name of the next one.
        next: String,
    },
    /// The next one is the base now.
    Rolled {
        /// The name of the next one.
        next: String,
    },
}

/// Deletes the snapshot called `name`. The last one of a disk is deleted only if `last` is set.
///
/// # Errors
///
/// [`Usage`](ErrorKind::Usage) if it is held.
pub fn delete(disk: &mut Disk, name: &str, last: bool, work: Work<'_>) -> Result<Deleted> {
    disk.check_writable()?;
    if let Some(point) = disk.points.named(name) {
        refuse_held(disk, point)?;
    }
    delete_held(disk, name, last, work)
}

/// As [`delete`], also if it is held.
pub fn delete_held(disk: &mut Disk, name: &str, last: bool, work: Work<'_>) -> Result<Deleted> {
    disk.check_writable()?;
    if disk.copying().is_some_and(|part| part.name == name) {
        partial::give_up(disk)?;
        return Ok(Deleted::Alone);
    }
    let deleted = disk.find(name)?.clone();
    if disk.points().len() == 1 && !last {
        return Err(Error::usage("this is the last snapshot of the disk")
            .with_path(disk.folder())
            .with_found(name)
            .with_remedy(
                Remedy::default()
                    .named("use ")
                    .step(
                        Step::Choose(Choice::DeleteLast),
                        "allow the last snapshot to go",
                    )
                    .text(" to delete it too; nothing will be left of the disk"),
            ));
    }
    delete_run(disk, vec![deleted], work)
}

/// Deletes consecutive snapshots, oldest first, each of which depends on the previous one.
pub(super) fn delete_run(
    disk: &mut Disk,
    deleted: Vec<Manifest>,
    work: Work<'_>,
) -> Result<Deleted> {
    disk.check_writable()?;
    disk.refuse_stood_on(&deleted.iter().collect::<Vec<_>>())?;
    let mut became = Deleted::Alone;
    // The record must stay readable. The newest part goes first, so that everything depends only on what still exists.
    for part in parts(deleted)?.into_iter().rev() {
        became = delete_part(disk, part, work)?;
    }
    Ok(became)
}

/// Splits a run into parts, each of which can be recorded.
fn parts(run: Vec<Manifest>) -> Result<Vec<Vec<Manifest>>> {
    let (mut parts, mut room) = (Vec::<Vec<Manifest>>::new(), 0);
    for point in run {
        let len = point.encode()?.len();
        if let Some(part) = parts.last_mut().filter(|_| len <= room) {
            part.push(point);
        } else {
            parts.push(vec![point]);
            room = MOST_AT_ONCE;
        }
        room = room.saturating_sub(len);
    }
    Ok(parts)
}

fn delete_part(disk: &mut Disk, deleted: Vec<Manifest>, work: Work<'_>) -> Result<Deleted> {
    let (Some(first), Some(last)) = (deleted.first(), deleted.last()) else {
        return Ok(Deleted::Alone);
    };
    let [next, other] = {
        let mut made = disk.points.children(last);
        [made.next().cloned(), made.next().cloned()]
    };
    let Some(next) = next else {
        return delete_alone(disk, deleted, work);
    };
    if let Some(other) = other {
        return Err(Error::damaged("two snapshots are made of this one")
            .with_path(disk.label(last))
            .with_found(format_args!("{} and {}", next.name, other.name))
            .with_expected("one")
            .with_remedy(
                Remedy::default()
                    .step(
                        disk.step(SnapshotJob::Verify { read_data: false }),
                        "a verification",
                    )
                    .text(" says more"),
            ));
    }
    let name = next.name.clone();
    if !first.is_base() || first.is_packed() {
        let rolled = first.is_base() && first.like.is_none();
        let folded = fold(disk, &deleted, &next, work)?;
        let intent = Intent::new(deleted, Some([next, folded]), false);
        carry_out(disk, &intent, work)?;
        return Ok(if rolled {
            Deleted::Rolled { next: name }
        } else {
            Deleted::Folded { next: name }
        });
    }
    let dynamic = Path::new(&first.data.file)
        .extension()
        .is_some_and(|ending| ending == "vhd");
    let grows = next.virtual_size > LARGEST_DYNAMIC && dynamic;
    let ending = if dynamic && !grows { "vhd" } else { "raw" };
    let base = as_base(&next, format!("{}.{ending}", next.stem()));
    let is_read = is_read(&disk.path(&first.data.file))?;
    let base = if grows || is_read {
        rebuild(disk, &next, base, work).map_err(|error| {
            if is_read && is_want_of_room(&error) {
                return error.override_hint(
                    "the base is being read, so a new one is written: free some space, or stop the programs that read it so that it can be changed in place",
                );
            }
            error
        })?
    } else {
        base
    };
    let intent = Intent::new(deleted, Some([next, base]), !(grows || is_read));
    carry_out(disk, &intent, work)?;
    Ok(Deleted::Rolled { next: name })
}

/// Deletes snapshots on which no other depends.
fn delete_alone(disk: &mut Disk, deleted: Vec<Manifest>, work: Work<'_>) -> Result<Deleted> {
    let intent = Intent::new(deleted, None, false);
    match carry_out(disk, &intent, work) {
        // On a full disk there may not be enough space even for the record, and nothing else frees any.
        Err(error) if is_want_of_room(&error) && is_absent(&disk.path(DELETING)) => {
            delete_without_room(disk, &intent.deleted).map_err(|_| error)?;
        }
        carried_out => carried_out?,
    }
    Ok(Deleted::Alone)
}

/// Deletes snapshots on which no other depends, newest first, only by renaming and removing: data with a provisional
/// name and without a manifest is removed by the next command.
fn delete_without_room(disk: &mut Disk, deleted: &[Manifest]) -> Result<()> {
    for point in deleted.iter().rev() {
        let (file, new) = (
            disk.path(&point.data.file),
            disk.path(&format!("{}{NEW}", point.data.file)),
        );
        forget_list(disk, std::slice::from_ref(point))?;
        rename(&file, &new)?;
        remove_if_there(&disk.path(&point.stem().manifest()))?;
        remove_if_there(&new)?;
        disk.take_out(point);
        disk.names.remove(&point.data.file);
    }
    Ok(())
}

/// Records the intent and carries it out. If it can't be carried out, for lack of space or otherwise, it is revoked as
/// long as nothing was done.
pub(super) fn carry_out(disk: &mut Disk, intent: &Intent, work: Work<'_>) -> Result<()> {
    if let Err(error) = intent.write(disk) {
        // It may have its name already, but nothing was done yet.
        let _ = forget(disk, intent);
        return Err(error);
    }
    let Err(error) = finish(disk, intent, work) else {
        return Ok(());
    };
    if !take_back(disk, intent, &error, work).unwrap_or(false) {
        return Err(error);
    }
    disk.load()?;
    Err(error.override_hint(
        "nothing was deleted, and all snapshots are unchanged: remove the cause, then run the command again",
    ))
}

/// Carries out a recorded intent, which may have been begun already.
pub(super) fn finish(disk: &mut Disk, intent: &Intent, work: Work<'_>) -> Result<()> {
    let mut next = None;
    if let Some([old, new]) = &intent.next {
        let mut new = new.clone();
        let file = disk.path(&new.data.file);
        if intent.forward {
            roll_forward(disk, &intent.deleted, old, &new, work)?;
            (new.data.length, new.used_size) = lengths(&file)?;
        } else {
            let fresh = disk.path(&format!("{}{NEW}", new.data.file));
            if !is_absent(&fresh) {
                rename(&fresh, &file)?;
            } else if is_absent(&file) {
                // It only gets another name.
                rename(&disk.path(&old.data.file), &file)?;
            }
        }
        if old.data.file != new.data.file {
            remove_if_there(&disk.path(&old.data.file))?;
            disk.names.remove(&old.data.file);
        }
        next = Some(new);
    }
    // What frees space comes first. Until the end, everything is recorded.
    for deleted in &intent.deleted {
        remove_if_there(&disk.path(&deleted.stem().manifest()))?;
        remove_if_there(&disk.path(&deleted.data.file))?;
        disk.names.remove(&deleted.stem().manifest());
        disk.names.remove(&deleted.data.file);
        disk.take_out(deleted);
    }
    if let Some(new) = next {
        disk.write_manifest(&new, Overwrite::Yes)?;
        if let Some([old, _]) = &intent.next
            && old.name != new.name
        {
            remove_if_there(&disk.path(&old.stem().manifest()))?;
            disk.names.remove(&old.stem().manifest());
            disk.take_out(old);
        }
        disk.names.insert(new.stem().manifest());
        disk.names.insert(new.data.file.clone());
        disk.put(new);
    }
    forget_list(disk, &intent.deleted)?;
    remove_if_there(&disk.path(DELETING)).map(drop)
}

/// Removes the window hashes if they belong to a snapshot that is deleted: they couldn't be distinguished from those of
/// a newest snapshot that was lost.
fn forget_list(disk: &Disk, deleted: &[Manifest]) -> Result<()> {
    let digest = match digest_of(disk) {
        Ok(Some(digest)) => digest,
        Ok(None) => return Ok(()),
        // Whatever they belong to, computing them again only takes time.
        Err(_) => return remove_if_there(&disk.path(WINDOWS)).map(drop),
    };
    let goes = deleted.iter().any(|point| point.content_digest == digest);
    let stays = || {
        let mut stays = disk.points().iter();
        stays.any(|p| p.content_digest == digest && !deleted.iter().any(|gone| gone.id == p.id))
    };
    if goes && !stays() {
        remove_if_there(&disk.path(WINDOWS))?;
    }
    Ok(())
}

/// The diff from what was before the deleted ones to the next one, complete under its provisional name: a base, if
/// nothing was before them. Nothing but their own diffs is read.
fn fold(disk: &Disk, deleted: &[Manifest], next: &Manifest, work: Work<'_>) -> Result<Manifest> {
    let open = deleted
        .iter()
        .chain([next])
        .map(|point| disk.open_diffs().get(disk, point))
        .collect::<Result<Vec<_>>>()?;
    let chain = Chain::new(open.iter().map(|open| Arc::clone(&open.diff)).collect())?;
    let first = deleted.first();
    let parent = first.and_then(|first| first.parent.clone());
    let path = disk.path(&next.data.file);
    let stored = disk.new_file(
        disk.path(&format!("{}{NEW}", next.data.file)),
        &next.data.file,
    )?;
    work.progress.begin("folding", chain.target_size());
    let options = SquashOptions {
        work,
        compression: if parent.is_none() {
            BASE_COMPRESSION
        } else {
            Compression::default()
        },
    };
    let written = squash(&chain, stored.file().appender(), path, options)
        .map_err(|error| with_repair(disk, error))?;
    open.iter()
        .try_for_each(|open| open.file.check_unchanged())?;
    let (len, digest) = (written.len, ContentDigest(written.digest));
    drop(written);
    stored.publish(Overwrite::Yes)?;
    let file = next.data.file.clone();
    let folded = next.stored_as(parent, file, (len, len), Some(digest));
    // What the deleted ones began as, the next one begins as now.
    Ok(match first.and_then(|first| first.like.clone()) {
        Some(like) => folded.standing_on(Some(like)),
        None => folded,
    })
}

fn as_base(next: &Manifest, file: String) -> Manifest {
    next.stored_as(None, file, (0, 0), None)
}

/// Returns whether somebody reads the file: a point in time that holds it open keeps a lock on it, and none on the
/// disk. As the disk is locked exclusively, nobody can start reading.
fn is_read(file: &Path) -> Result<bool> {
    match File::open_locked(file, Access::Replace) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::Locked => Ok(true),
        // Whoever uses it will report the error.
        Err(error) if error.io_kind() == Some(std::io::ErrorKind::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes the base of `next` to a new file, complete under its provisional name: the format of the old one is too small
/// for it, or it is being read.
fn rebuild(disk: &Disk, next: &Manifest, mut base: Manifest, work: Work<'_>) -> Result<Manifest> {
    let path = disk.path(&format!("{}{NEW}", base.data.file));
    let dynamic = Path::new(&base.data.file)
        .extension()
        .is_some_and(|ending| ending == "vhd");
    let output = Output {
        path: &path,
        format: if dynamic {
            Format::Dynamic
        } else {
            Format::Raw
        },
        overwrite: Overwrite::EvenAParent,
        made_from: disk.audience(),
        dense: false,
    };
    super::restore(&disk.image(next)?, output, work)?;
    (base.data.length, base.used_size) = lengths(&path)?;
    Ok(base)
}

/// Brings the base of the deleted snapshots to the next one, in place, and renames it.
fn roll_forward(
    disk: &Disk,
    deleted: &[Manifest],
    old: &Manifest,
    new: &Manifest,
    work: Work<'_>,
) -> Result<()> {
    let Some((base, later)) = deleted.split_first() else {
        return Ok(());
    };
    let (from, to) = (disk.path(&base.data.file), disk.path(&new.data.file));
    if is_absent(&from) && is_absent(&journal_path(&from)) {
        return Ok(());
    }
    let parents = ParentOptions::default();
    let options = ApplyOptions {
        work,
        check: BaseCheck::Full,
        verify: true,
        parents: &parents,
    };
    let diffs = later
        .iter()
        .chain([old])
        .map(|point| open_diff(&disk.path(&point.data.file), work.progress))
        .collect::<Result<_>>()?;
    // Files in a store can't be the parents of images: all commands refuse that.
    let how = InPlace {
        orphans: Orphans::Allow,
        ..InPlace::default()
    };
    apply_in_place(&from, Chain::new(diffs)?, how, options)?;
    rename(&from, &to)
}
