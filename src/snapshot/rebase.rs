//! Changes what the first snapshot of a disk is stored as: what differs from a snapshot of another disk, or all of the
//! disk. It is carried out as a deletion of nothing: the new data is complete before the change is decided, and whatever
//! interrupts it, the next command that changes the disk finishes it.

use super::delete::carry_out;
use super::intent::Intent;
use super::layout::{NEW, PACKED};
use super::marker::admit_likes;
use super::packed::{BASE_COMPRESSION, write_packed};
use super::point::side;
use super::restore::check_content;
use super::{Disk, Like, Manifest, OtherPoint, Work, partial, windows};
use crate::diff::{DiffOptions, write_diff_listed};
use crate::error::{Error, Result};
use crate::files::Opened as _;
use crate::image::{ContentDigest, Image as _, NoneShared};
use crate::storage::{File, Overwrite};

/// What became of the first snapshot of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rebased {
    /// The first snapshot as it is now.
    pub point: Manifest,
    /// Bytes that it took before.
    pub used_before: u64,
    /// Whether it was what was wanted already, so that nothing was written.
    pub unchanged: bool,
}

/// Stores the first snapshot of `disk` as what differs from `like`, a snapshot of another disk of the store, or as all of
/// the disk if that is `None`. No snapshot changes its content.
///
/// # Errors
///
/// [`Usage`](crate::ErrorKind::Usage) if the disk has no snapshot. [`Damaged`](crate::ErrorKind::Damaged) if the first one
/// doesn't hold what its manifest says; it stays as it is then.
pub fn rebase_disk(disk: &mut Disk, like: Option<&OtherPoint>, work: Work<'_>) -> Result<Rebased> {
    disk.check_writable()?;
    if let Some(part) = disk.copying() {
        return Err(partial::incomplete(disk, part));
    }
    let first = match disk.points().first() {
        Some(first) => first.clone(),
        None => disk.find("first")?.clone(),
    };
    if !first.is_base() {
        return Err(disk.orphan(&first));
    }
    // Its disk stays locked until the manifest is there.
    let ground = like.map(|other| disk.choose_ground(other)).transpose()?;
    let like = ground
        .as_ref()
        .map(|(ground, point)| Like::new(ground.name(), point));
    let is_so = match (&like, &first.like) {
        (Some(like), Some(now)) => like.content_digest == now.content_digest,
        (None, None) => true,
        _ => false,
    };
    if is_so {
        return Ok(Rebased {
            used_before: first.used_size,
            point: first,
            unchanged: true,
        });
    }
    if like.is_some() {
        admit_likes(disk.store())?;
    }
    let point = write(disk, &first, (ground.as_ref(), like), work)?;
    let intent = Intent::new(Vec::new(), Some([first.clone(), point]), false);
    carry_out(disk, &intent, work)?;
    let point = disk.find(&first.name)?.clone();
    Ok(Rebased {
        point,
        used_before: first.used_size,
        unchanged: false,
    })
}

/// Writes the new data of the first snapshot, complete under its provisional name. Returns its manifest.
fn write(
    disk: &Disk,
    first: &Manifest,
    (ground, like): (Option<&(Disk, Manifest)>, Option<Like>),
    work: Work<'_>,
) -> Result<Manifest> {
    let image = disk.image(first)?;
    let file = format!("{}{PACKED}", first.stem());
    let stored = disk.new_file(disk.path(&format!("{file}{NEW}")), &first.data.file)?;
    let out = (stored.file().appender(), disk.path(&file));
    let written = if let Some((ground, point)) = ground {
        let known = windows::of_other(disk, (ground, point), work)?;
        let before = ground.image(point)?;
        work.progress.begin("comparing", image.virtual_size());
        let options = DiffOptions {
            work,
            compression: BASE_COMPRESSION,
            digests: true,
            equal: &NoneShared,
            confirm: &|| image.check_unchanged(),
        };
        let target = (&image as _, side(first));
        let made = write_diff_listed::<_, File>(
            &known,
            (&before, side(point)),
            target,
            out,
            options,
            |_, _| Ok(()),
        )?;
        (made.trailer.target_digest, made.len, made.digest)
    } else {
        work.progress
            .begin("packing the base", image.virtual_size());
        let target = (&image as _, side(first));
        let made = write_packed(target, out, None, work, &mut |_, _| Ok(()))?;
        (made.trailer.target_digest, made.len, made.digest)
    };
    let (target, len, digest) = written;
    let found = target.ok_or_else(|| Error::damaged("a diff without digests was written"))?;
    check_content(&image, found)?;
    drop(image);
    stored.publish(Overwrite::Yes)?;
    let made = first.stored_as(None, file, (len, len), Some(ContentDigest(digest)));
    Ok(match like {
        Some(like) => made.standing_on(Some(like)),
        None => made,
    })
}
