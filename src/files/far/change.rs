//! Changing an image in a blob, so that it is always one command away from the old or the new point in time.
//!
//! ```text
//!   lease ─► check everything ─► checkpoint ─► mark ─► puts, clears ─► size, footer ─► unmark ─► checkpoint deleted
//!                                 (a snapshot)    └── every command refuses the blob ──┘
//! ```
//!
//! The result is computed from the checkpoint, which can't change, and only data of the result is ever written, so the change
//! can be repeated from any state in between. Undoing it restores the content of the checkpoint.

use std::path::Path;

use super::bring::{Bring, view};
use super::image::{BlobImage, Unchanged};
use super::marks::{self, Applying, Mark, how_to_go_on, refuse_marked, roll_back};
use crate::blob::{BlobFile, BlobName, Connector, Properties, Since};
use crate::diff::Chain;
use crate::error::{Error, ErrorKind, Result};
use crate::files::apply::options::ApplyOptions;
use crate::files::apply::write::{Changes, count_changes, identity, read_back, write_changes};
use crate::files::{Format, FormatChoice, Opened as _};
use crate::image::{
    ContentDigest, Image as _, ImageMut as _, NoneShared, RawImage, SharedExtents, content_digest,
};
use crate::page::PAGE_SIZE;
use crate::remedy::Remedy;
use crate::storage::{ReadAt as _, WriteAt as _};
use crate::vhd::{DiskType, Footer};

/// A blob that is being changed: leased, and marked.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) blob: BlobFile,
    pub(super) mark: Applying,
    /// The image in the checkpoint, with the earlier content of the blob.
    pub(super) base: BlobImage,
}

/// Opens the blob called `name` for changing, and prevents others from writing. Also returns its mark, if it has one.
pub(super) fn open(connector: &Connector, name: &BlobName) -> Result<(BlobFile, Option<Mark>)> {
    if connector.is_managed_disk(name)? {
        return Err(Error::usage(
            "a managed disk can't be changed in place: it has no snapshot to go back to",
        )
        .with_path(name.shown())
        .with_hint("make a new image instead, and a new disk of that"));
    }
    let blob = connector.open_writable(name)?;
    let mark = Mark::of(&blob.properties().metadata);
    Ok((blob, mark))
}

/// Returns the error for a blob with a mark that the caller can't continue from.
pub(super) fn refuse(blob: &BlobFile) -> Result<()> {
    // The lease is this program's own.
    let properties = Properties {
        leased: false,
        ..blob.properties().clone()
    };
    refuse_marked(blob.name(), &properties)
}

/// The checkpoint of a blob that is marked.
pub(super) fn checkpoint(blob: &BlobFile, mark: &Applying) -> Result<BlobFile> {
    blob.at(&mark.checkpoint).map_err(|error| {
        error.override_hint(
            "the snapshot of what the blob held before is needed to finish and to go back: if it was deleted, write the whole \
             disk to a new blob",
        )
    })
}

impl Change {
    /// Marks the blob, which holds an image of this format.
    pub(super) fn begin(blob: BlobFile, mark: Applying, format: Format) -> Result<Self> {
        Self::begin_with(blob, mark, Some(format))
    }

    fn begin_with(blob: BlobFile, mark: Applying, format: Option<Format>) -> Result<Self> {
        let change = Self {
            base: Self::base(&blob, &mark, format)?,
            blob,
            mark,
        };
        let before = &change.blob.properties().metadata;
        let marked = change
            .blob
            .set_metadata(&marks::applying(before, &change.mark));
        marked.map_err(|error| unfinished(change.blob.name(), error))?;
        Ok(change)
    }

    /// Marks the blob, again if necessary, for a change based on the snapshot that `mark` names.
    pub(super) fn marked(blob: BlobFile, mark: Applying) -> Result<Self> {
        Self::begin_with(blob, mark, None)
    }

    /// Continues an interrupted change.
    pub(super) fn resume(blob: BlobFile, mark: Applying) -> Result<Self> {
        Ok(Self {
            base: Self::base(&blob, &mark, None)?,
            blob,
            mark,
        })
    }

    fn base(blob: &BlobFile, mark: &Applying, format: Option<Format>) -> Result<BlobImage> {
        BlobImage::open(
            checkpoint(blob, mark)?,
            format.map(FormatChoice::Only),
            None,
        )
    }

    /// Applies `chain` to the checkpoint and writes the result. Returns the bytes updated and cleared.
    pub(super) fn write(&self, chain: &Chain, options: ApplyOptions<'_>) -> Result<(u64, u64)> {
        self.write_pages(chain, options)
            .map_err(|error| unfinished(self.blob.name(), error))
    }

    /// Reads the result back: all of it if its digest is known, else what the diffs change.
    pub(super) fn verify(
        &self,
        chain: &Chain,
        digest: Option<ContentDigest>,
        options: ApplyOptions<'_>,
    ) -> Result<()> {
        let size = chain.target_size();
        let written = view(&self.blob, size);
        let remedy = || {
            Remedy::new("undo it, and try again")
                .named(": ")
                .step(roll_back(self.blob.name()), "")
        };
        if let Some(expected) = digest {
            options.work.progress.begin("verifying", size);
            let found = content_digest(&written, options.work.workers, options.work.progress)?;
            return read_back(self.blob.name(), found, expected)
                .map_err(|error| error.override_remedy(remedy()));
        }
        let (updated, cleared, _) = count_changes(&written, chain, false, options)?;
        if (updated, cleared) == (0, 0) {
            return Ok(());
        }
        Err(Error::damaged("what was read back is not what was written")
            .with_path(self.blob.name())
            .with_remedy(remedy()))
    }

    fn write_pages(&self, chain: &Chain, options: ApplyOptions<'_>) -> Result<(u64, u64)> {
        let (blob, base) = (&self.blob, &self.base);
        let (before, size) = (base.virtual_size(), chain.target_size());
        let footer = if base.format() == Format::Raw {
            None
        } else {
            let like = identity(chain, base.footer().cloned())?;
            Some(Footer::for_disk(DiskType::Fixed, size, like.as_ref()))
        };
        // A disk of the same size keeps its footer where it was, even with slack before it.
        let end = if footer.is_some() && before == size {
            base.blob().byte_len()? - PAGE_SIZE
        } else {
            size
        };
        let footer_size = footer.as_ref().map_or(0, |_| PAGE_SIZE);
        let whole = end.saturating_add(footer_size);
        if blob.byte_len()? < whole {
            blob.set_len(whole)?;
        }
        if footer.is_some() && before < size {
            // The disk now covers the place of the old footer and any slack before it.
            blob.write_zeros_at(before..size.min(base.blob().byte_len()?).max(before))?;
        }
        let mut image = view(blob, size);
        let compared = Changes::Compared {
            base: None,
            check: false,
        };
        let (updated, cleared, _) = write_changes(base, &mut image, chain, compared, options)?;
        image.flush()?;
        blob.sync()?;
        if let Some(footer) = footer {
            blob.write_all_at(&footer.encode(), end)?;
            blob.sync()?;
        }
        blob.set_len(whole)?;
        Ok((updated, cleared))
    }

    /// Marks the blob as complete, with the digest of its content if that is known for certain.
    pub(super) fn end(self, digest: Option<ContentDigest>) -> Result<BlobFile> {
        let before = &self.blob.properties().metadata;
        self.blob
            .set_metadata(&marks::whole(before, digest))
            .map_err(|error| unfinished(self.blob.name(), error))?;
        forget(&self.blob, &self.mark);
        Ok(self.blob)
    }

    /// Restores the content of the checkpoint, and marks the blob as complete. Returns the digest of the content if it is known.
    pub(super) fn take_back(
        blob: &BlobFile,
        mark: &Applying,
        options: ApplyOptions<'_>,
    ) -> Result<Option<ContentDigest>> {
        let checkpoint = checkpoint(blob, mark)?;
        let digest = marks::digest_of(checkpoint.blob(), checkpoint.properties());
        let mut metadata = marks::whole(&checkpoint.properties().metadata, digest);
        let tags = blob.properties().metadata.get(marks::CHANGED_TAGS);
        metadata.extend(tags.map(|tags| (marks::CHANGED_TAGS.to_owned(), tags.clone())));
        let size = checkpoint.byte_len()?;
        blob.set_len(size)?;
        let equal: Box<dyn SharedExtents> =
            match blob.changes_since(&Since::Snapshot(mark.checkpoint.clone())) {
                Ok(changes) => Box::new(Unchanged { changes, size }),
                // If the service can't list the changes, everything is compared.
                Err(_) => Box::new(NoneShared),
            };
        let old = RawImage::open(checkpoint)?;
        let bring = Bring {
            workers: options.work.workers,
            progress: options.work.progress,
            equal: &*equal,
            digest: false,
        };
        options.work.progress.begin("taking back", size);
        let again = |error: Error| {
            error.override_hint("the blob is still marked: remove the cause, then roll back again")
        };
        bring.run(blob, &old).map_err(again)?;
        options.work.progress.begin("verifying", size);
        if !bring.is_done(blob, &old)? {
            return Err(again(
                Error::damaged("what was read back is not what should be there")
                    .with_path(blob.name()),
            ));
        }
        blob.set_metadata(&metadata)?;
        forget(blob, mark);
        Ok(digest)
    }
}

/// Deletes the checkpoint if it was taken only for this change.
fn forget(blob: &BlobFile, mark: &Applying) {
    if mark.own {
        // A remaining checkpoint does no harm, and is marked as one.
        let _ = blob.delete_snapshot(&mark.checkpoint);
    }
}

/// Returns the error for a failed change to the blob called `name` that had already begun.
fn unfinished(name: &Path, error: Error) -> Error {
    let begun = match error.kind() {
        // Another program broke the lease, or writes despite it.
        ErrorKind::Locked | ErrorKind::Changed => {
            "another program wrote to the blob meanwhile, and it is marked as between two points in time: "
        }
        _ => "the blob is marked as between two points in time: ",
    };
    error.override_remedy(Remedy::new(begun).then(how_to_go_on(name)))
}
