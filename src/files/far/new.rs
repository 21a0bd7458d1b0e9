//! Writing an image to a new page blob.

use std::path::Path;

use super::bring::{Bring, view};
use super::marks::{self, Mark, refuse_marked};
use super::points::PointNote;
use crate::blob::{BlobFile, BlobName, Connector, NewBlobFile};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{ContentDigest, CopyOptions, Image, ImageMut, NoneShared, RawImage, copy};
use crate::page::PAGE_SIZE;
use crate::remedy::{Choice, Remedy, Step};
use crate::storage::{ReadAt as _, WriteAt as _};
use crate::vhd::Footer;

/// Options for creating a [`NewBlobImage`].
#[derive(Debug, Clone)]
pub struct NewBlobImageOptions {
    /// Bytes of the virtual disk.
    pub virtual_size: u64,
    /// The footer of a fixed VHD; without one, the blob is a raw disk.
    pub footer: Option<Footer>,
    /// Whether to replace a blob of that name.
    pub replace: bool,
}

impl NewBlobImageOptions {
    fn blob_size(&self, name: &BlobName) -> Result<u64> {
        let footer = self.footer.as_ref().map_or(0, |_| PAGE_SIZE);
        self.virtual_size.checked_add(footer).ok_or_else(|| {
            Error::usage("a virtual disk can't have this size").with_path(name.shown())
        })
    }
}

/// An image that is being written to a page blob. Until it is [published](Self::publish), the blob is marked as incomplete and
/// doesn't have a footer.
#[derive(Debug)]
pub struct NewBlobImage {
    image: RawImage<BlobFile>,
    footer: Option<Footer>,
    resumed: bool,
}

impl NewBlobImage {
    /// Creates the blob called `name`, or opens the managed disk of that name. If an incomplete blob of this size exists,
    /// that one is used with its content: [`fill`](Self::fill) writes what is missing.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage) if there is a blob of that name that isn't to be replaced, or if it can't have
    /// this size; [`Locked`](ErrorKind::Locked) if another program writes to it; [`Pending`](ErrorKind::Pending) if
    /// it is between two points in time.
    pub fn create(
        connector: &Connector,
        name: &BlobName,
        options: &NewBlobImageOptions,
    ) -> Result<Self> {
        let size = options.blob_size(name)?;
        let with = |blob, resumed| Self {
            image: RawImage::with_size(blob, options.virtual_size),
            footer: options.footer.clone(),
            resumed,
        };
        if let Some(blob) = begun(connector, name, (size, options.replace))? {
            return Ok(with(blob, true));
        }
        let new = NewBlobFile {
            size,
            metadata: marks::writing(),
            replace: options.replace,
        };
        let blob = connector.create(name, &new)?;
        // A managed disk may hold another image, and with its footer it would pass for a whole one.
        blob.write_zeros_at(0..size)?;
        Ok(with(blob, false))
    }

    /// Whether it resumes an earlier upload.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// The name of the blob in messages.
    pub fn name(&self) -> &Path {
        self.image.storage().name()
    }

    /// The virtual disk, for reading.
    pub fn image(&self) -> &dyn Image {
        &self.image
    }

    /// The virtual disk, for writing.
    pub fn image_mut(&mut self) -> &mut dyn ImageMut {
        &mut self.image
    }

    /// Zeroes it if it resumes an earlier upload.
    pub fn begin_anew(&mut self) -> Result<()> {
        if self.resumed {
            let blob = self.image.storage();
            blob.write_zeros_at(0..self.image.virtual_size())?;
            self.resumed = false;
        }
        Ok(())
    }

    /// Copies `source` into it, and returns its digest if requested. Data from an earlier upload is not trusted, but read and
    /// compared.
    pub fn fill(
        &mut self,
        source: &dyn Image,
        options: CopyOptions<'_>,
    ) -> Result<Option<ContentDigest>> {
        if !self.resumed {
            return copy(source, &mut self.image, options);
        }
        let (blob, size) = (self.image.storage(), source.virtual_size());
        blob.write_zeros_at(size.min(self.image.virtual_size())..self.image.virtual_size())?;
        let bring = Bring {
            workers: options.work.workers,
            progress: options.work.progress,
            equal: &NoneShared,
            digest: options.digest,
        };
        Ok(bring.run(blob, source)?.target_digest)
    }

    /// Number of bytes that the blob stores.
    pub fn stored_bytes(&self) -> Result<u64> {
        self.image.storage().stored_bytes()
    }

    /// Like [`publish`](Self::publish), but also takes a snapshot as its first point in time, in the change called `copy`.
    /// Returns the time of the snapshot.
    pub(super) fn publish_as(mut self, note: &PointNote, copy: &str) -> Result<String> {
        self.write_footer()?;
        let blob = self.image.storage();
        let before = &blob.properties().metadata;
        // So that the next change knows the snapshot if this is interrupted before the mark is gone.
        blob.set_metadata(&marks::writing_first(copy))?;
        let snapshot = blob.take_snapshot(&note.metadata(before, copy))?;
        blob.set_metadata(&marks::whole(before, note.digest))?;
        Ok(snapshot)
    }

    fn write_footer(&mut self) -> Result<()> {
        self.image.flush()?;
        let (blob, size) = (self.image.storage(), self.image.virtual_size());
        if let Some(footer) = &self.footer {
            blob.write_all_at(&footer.encode(), size)?;
            blob.sync()?;
        }
        Ok(())
    }

    /// Writes everything to the blob, the footer last, and marks it as complete, with the digest of its content if that is
    /// known for certain.
    pub fn publish(mut self, digest: Option<ContentDigest>) -> Result<()> {
        self.write_footer()?;
        let blob = self.image.storage();
        if !blob.store().is_managed_disk() {
            let before = &blob.properties().metadata;
            blob.set_metadata(&marks::whole(before, digest))?;
        }
        Ok(())
    }

    /// The virtual disk in the blob: only its first `size` bytes.
    pub fn written(&self, size: u64) -> impl Image {
        view(self.image.storage(), size.min(self.image.virtual_size()))
    }
}

/// The blob called `name` with an interrupted upload of this size that can be resumed.
fn begun(
    connector: &Connector,
    name: &BlobName,
    (size, replace): (u64, bool),
) -> Result<Option<BlobFile>> {
    if connector.is_managed_disk(name)? {
        return Ok(None);
    }
    let Some(found) = connector.properties(name)? else {
        return Ok(None);
    };
    match Mark::of(&found.metadata) {
        None => return Ok(None),
        Some(Mark::Writing) => {}
        // Replacing it would take away the way back.
        Some(_) => {
            return refuse_marked(name.shown(), &found).map(|()| None);
        }
    }
    if replace {
        return Ok(None);
    }
    let other_size = |found: u64| {
        Error::new(
            ErrorKind::Pending,
            "an upload of another size to this blob was interrupted",
        )
        .with_path(name.shown())
        .with_found(format_args!("{found} bytes"))
        .with_expected(format_args!("{size} bytes"))
        .with_remedy(
            Remedy::new("finish that one, or ")
                .named("use ")
                .step(Step::Choose(Choice::Overwrite), "allow it")
                .text(" to replace the blob"),
        )
    };
    if found.size != size {
        return Err(other_size(found.size));
    }
    let blob = connector.open_writable(name)?;
    // Only from here on can nobody else change it.
    let now = blob.properties();
    match Mark::of(&now.metadata) {
        Some(Mark::Writing) if now.size == size => Ok(Some(blob)),
        Some(Mark::Writing) => Err(other_size(now.size)),
        _ => Err(Error::new(
            ErrorKind::Changed,
            "another program has just written this blob",
        )
        .with_path(name.shown())
        .with_hint("look at it, and run the command again if it is not what you want")),
    }
}
