//! Adding a point in time to a blob: bringing it from its newest snapshot to the next one, and taking that.
//!
//! ```text
//!   lease ─► mark ─► puts, clears ─► read back ─► size, footer ─► snapshot ─► unmark
//!             └───────────────── every command refuses the blob ─────────────┘
//! ```
//!
//! An interrupted change falls back on the newest snapshot. The service lists what was written since then, so a resumed change
//! reads and compares exactly that, and writes the remaining changes. Everything written since the newest snapshot is read
//! back before the new one is taken.

use uuid::Uuid;

use super::bring::Bring;
use super::change::{self, Change};
use super::fill::{compare_within, fill};
use super::marks::{self, Applying, Mark};
use super::new::{NewBlobImage, NewBlobImageOptions};
use super::points::{BlobPoint, PointNote};
use super::ranges::{Outside, minus, union};
use super::since::{refuse_foreign_writes, written_since};
use crate::blob::{BlobFile, BlobName, Connector, MAX_BLOB};
use crate::error::{Error, ErrorKind, Result};
use crate::files::apply::write::read_back;
use crate::files::{Format, Opened};
use crate::image::{ContentDigest, CopyOptions, Image as _, content_digest};
use crate::page::{PAGE_SIZE, PageRange};
use crate::parallel::Work;
use crate::remedy::Remedy;
use crate::storage::{ReadAt as _, WriteAt as _};
use crate::vhd::{DiskType, Footer};

/// A point in time to add to a blob.
#[derive(Clone, Copy)]
pub struct NewBlobPoint<'a> {
    /// Its content.
    pub image: &'a dyn Opened,
    /// The metadata to record for it.
    pub note: &'a PointNote,
    /// The threads, and the progress callback.
    pub work: Work<'a>,
}

impl std::fmt::Debug for NewBlobPoint<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewBlobPoint")
            .field("note", &self.note)
            .finish_non_exhaustive()
    }
}

/// A point in time that was added to a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrownBlob {
    /// The time of its snapshot.
    pub snapshot: String,
    /// Bytes written with data.
    pub updated: u64,
    /// Bytes cleared.
    pub cleared: u64,
    /// Whether an interrupted change was resumed.
    pub resumed: bool,
}

/// Creates the blob called `name` with its first point in time, or resumes doing so.
///
/// # Errors
///
/// [`Usage`](ErrorKind::Usage) if there is a blob of that name; as [`NewBlobImage::create`] otherwise.
pub fn begin_blob(
    connector: &Connector,
    name: &BlobName,
    new: NewBlobPoint<'_>,
) -> Result<GrownBlob> {
    let NewBlobPoint { image, note, .. } = new;
    let size = image.virtual_size();
    check_room(name, size, note)?;
    let copy = Uuid::new_v4().to_string();
    let options = NewBlobImageOptions {
        virtual_size: size,
        footer: Some(Footer::for_disk(DiskType::Fixed, size, image.footer())),
        replace: false,
    };
    let mut blob = NewBlobImage::create(connector, name, &options)?;
    let resumed = blob.is_resumed();
    new.work.progress.begin("uploading", size);
    let copying = CopyOptions {
        work: new.work,
        digest: true,
    };
    let found = blob.fill(image, copying)?;
    image.check_unchanged()?;
    blob.image_mut().flush()?;
    if let Some(found) = found {
        check_digest(image, found, note)?;
        new.work.progress.begin("verifying", size);
        let written = content_digest(&blob.written(size), new.work.workers, new.work.progress)?;
        read_back(blob.name(), written, found)?;
    }
    let note = PointNote {
        digest: note.digest.or(found),
        ..note.clone()
    };
    let updated = blob.stored_bytes()?;
    let snapshot = blob.publish_as(&note, &copy)?;
    Ok(GrownBlob {
        snapshot,
        updated,
        cleared: 0,
        resumed,
    })
}

fn check_digest(image: &dyn Opened, found: ContentDigest, note: &PointNote) -> Result<()> {
    match note.digest {
        Some(expected) if expected != found => {
            Err(Error::damaged("the source doesn't hold what it says")
                .with_path(image.path())
                .with_field("content digest")
                .with_found(found)
                .with_expected(expected)
                .with_hint("verify the source, with all of its data"))
        }
        _ => Ok(()),
    }
}

/// Fails if the image or its metadata doesn't fit into a blob.
fn check_room(name: &BlobName, size: u64, note: &PointNote) -> Result<()> {
    if size > MAX_BLOB - PAGE_SIZE {
        return Err(Error::usage("the disk is larger than a page blob can be")
            .with_path(name.shown())
            .with_found(format_args!("{size} bytes"))
            .with_expected(format_args!(
                "at most {MAX_BLOB} bytes (8 TiB) with a footer"
            )));
    }
    if note.fits() {
        return Ok(());
    }
    Err(
        Error::usage("the service has no room for everything that is recorded of this snapshot")
            .with_path(name.shown())
            .with_field("tags")
            .with_hint("give it fewer or shorter tags"),
    )
}

/// Brings the blob called `name` from its newest point in time, taken at `since`, to the next one, and takes a snapshot of
/// that. Outside of `changed`, the two are equal; `None` if that isn't known.
///
/// # Errors
///
/// [`Mismatch`](ErrorKind::Mismatch) if the blob was written since by somebody else; [`Changed`](ErrorKind::Changed) if there
/// is a newer snapshot; [`Locked`](ErrorKind::Locked) if another program writes to it; [`Pending`](ErrorKind::Pending) if an
/// apply to it was interrupted.
pub fn grow_blob(
    connector: &Connector,
    name: &BlobName,
    since: &str,
    changed: Option<&[PageRange]>,
    new: NewBlobPoint<'_>,
) -> Result<GrownBlob> {
    check_room(name, new.image.virtual_size(), new.note)?;
    let (blob, mark) = change::open(connector, name)?;
    check_newest(&blob, since)?;
    let written = written_since(&blob, since);
    let resumed = match &mark {
        None => false,
        Some(Mark::Applying(mark)) if mark.copy.is_some() && mark.checkpoint == since => true,
        Some(_) => {
            change::refuse(&blob)?;
            false
        }
    };
    if !resumed {
        refuse_foreign_writes(&blob, since, written.as_deref(), new.work)?;
    }
    let copy = Uuid::new_v4().to_string();
    let mark = Applying {
        checkpoint: since.to_owned(),
        own: false,
        diffs: marks::identity(&[*blake3::hash(copy.as_bytes()).as_bytes()]),
        target: new.note.digest,
        copy: Some(copy.clone()),
    };
    let change = Change::marked(blob, mark)?;
    let grown = bring(&change, (changed, written), new)
        .and_then(|wrote| Ok((wrote, finish(&change, new, &copy)?)))
        .map_err(|error| interrupted(&change.blob, error));
    let ((updated, cleared), snapshot) = grown?;
    // The snapshot exists: a failure from here on leaves a mark that the next change removes.
    change.end(new.note.digest)?;
    Ok(GrownBlob {
        snapshot,
        updated,
        cleared,
        resumed,
    })
}

fn check_newest(blob: &BlobFile, since: &str) -> Result<()> {
    let all = blob.snapshots()?;
    let newest = all.iter().filter_map(BlobPoint::of).next_back();
    match newest {
        Some(newest) if newest.snapshot == since => Ok(()),
        newest => Err(Error::new(
            ErrorKind::Changed,
            "another program has just changed the snapshots of this blob",
        )
        .with_path(blob.name())
        .with_found(newest.map_or_else(|| "no snapshot".to_owned(), |newest| newest.snapshot))
        .with_expected(since)
        .with_hint("run the command again")),
    }
}

/// Writes the differences, and reads them back. Returns the bytes updated and cleared.
fn bring(
    change: &Change,
    (changed, written): (Option<&[PageRange]>, Option<Vec<PageRange>>),
    new: NewBlobPoint<'_>,
) -> Result<(u64, u64)> {
    let (blob, image) = (&change.blob, new.image);
    let (before, size) = (change.base.virtual_size(), image.virtual_size());
    let layout = Layout::of(change, image)?;
    if blob.byte_len()? < layout.whole {
        blob.set_len(layout.whole)?;
    }
    let disk = PageRange::covering(0, size);
    // The disk now covers the place of the old footer.
    let grown = PageRange::covering(before.min(size), size);
    let wrote = if let (Some(changed), Some(written)) = (changed, written) {
        let doubtful = union(written.iter().copied().chain([grown]), disk);
        let first = compare_within(blob, (&image, new.work), &doubtful)?;
        let rest = minus(&union(changed.iter().copied(), disk), &doubtful);
        new.work.progress.begin("copying", size);
        let then = fill(blob, &rest, (&image, new.work))?;
        (first.0 + then.0, first.1 + then.1)
    } else {
        new.work.progress.begin("comparing", size);
        compare_within(blob, (&image, new.work), &[disk])?
    };
    blob.sync()?;
    image.check_unchanged()?;
    verify(change, changed, (new, disk, grown))?;
    layout.write(blob)?;
    Ok(wrote)
}

/// The new position of the blob's footer, and the new length of the blob.
struct Layout {
    footer: Option<Footer>,
    /// Where the footer begins.
    end: u64,
    whole: u64,
}

impl Layout {
    fn of(change: &Change, image: &dyn Opened) -> Result<Self> {
        let (base, size) = (&change.base, image.virtual_size());
        let footer = (base.format() != Format::Raw).then(|| {
            let like = image.footer().or(base.footer());
            Footer::for_disk(DiskType::Fixed, size, like)
        });
        // A disk of the same size keeps its footer where it was, even with slack before it.
        let end = if footer.is_some() && base.virtual_size() == size {
            base.blob().byte_len()? - PAGE_SIZE
        } else {
            size
        };
        let length = footer.as_ref().map_or(0, |_| PAGE_SIZE);
        Ok(Self {
            whole: end.saturating_add(length),
            footer,
            end,
        })
    }

    fn write(&self, blob: &BlobFile) -> Result<()> {
        if let Some(footer) = &self.footer {
            let mut there = [0; 512];
            blob.read_exact_at(&mut there, self.end)?;
            if there != footer.encode() {
                blob.write_all_at(&footer.encode(), self.end)?;
                blob.sync()?;
            }
        }
        if blob.byte_len()? != self.whole {
            blob.set_len(self.whole)?;
        }
        Ok(())
    }
}

/// Reads back the changed ranges, and those that were written according to the service.
fn verify(
    change: &Change,
    changed: Option<&[PageRange]>,
    (new, disk, grown): (NewBlobPoint<'_>, PageRange, PageRange),
) -> Result<()> {
    let blob = &change.blob;
    let written = written_since(blob, &change.mark.checkpoint);
    let ranges = match written {
        Some(written) => {
            let changed = changed.unwrap_or_default().iter().copied();
            union(written.into_iter().chain(changed).chain([grown]), disk)
        }
        None => vec![disk],
    };
    if ranges.is_empty() {
        return Ok(());
    }
    let size = new.image.virtual_size();
    new.work.progress.begin("verifying", size);
    let equal = Outside {
        ranges: &ranges,
        size,
    };
    let bring = Bring {
        workers: new.work.workers,
        progress: new.work.progress,
        equal: &equal,
        digest: false,
    };
    if bring.is_done(blob, &new.image)? {
        return Ok(());
    }
    Err(Error::damaged("what was read back is not what was written").with_path(blob.name()))
}

/// Takes the snapshot.
fn finish(change: &Change, new: NewBlobPoint<'_>, copy: &str) -> Result<String> {
    let before = &change.blob.properties().metadata;
    change.blob.take_snapshot(&new.note.metadata(before, copy))
}

/// Returns the error for a failed change that had already begun.
fn interrupted(blob: &BlobFile, error: Error) -> Error {
    if error.kind() == ErrorKind::Interrupted {
        return error;
    }
    let begun = "the blob is marked as between two points in time: ";
    error.override_remedy(Remedy::new(begun).then(marks::how_to_go_on_copying(blob.name())))
}
