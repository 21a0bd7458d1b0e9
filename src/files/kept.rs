//! The list of window hashes that is kept beside an image, `IMAGE.windows`: with it the digest of what an apply makes of
//! the image is computed from the windows that change, and nothing else is read.
//!
//! `vhd hash --stamp` makes it, and every apply in place that computes the digest of its result keeps it up to date. It is
//! as any other [list](super::windows) of one state of one file. A list that is missing, stale or damaged only costs
//! reading the image.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::pending::{exists, place_of, stranger};
use super::state::is_stamped;
use super::windows::{HEAD, LABEL, head, open_windows};
use super::{Format, ImageWindows, OpenImage, set_stamp};
use crate::error::Result;
use crate::image::{ContentDigest, Image as _, WindowHashes, WindowListWriter, window_hashes};
use crate::parallel::Workers;
use crate::progress::Progress;
use crate::storage::{AtomicFile, File, Overwrite, ReadAt as _, WriteAt as _, beside};

/// Ends the name of the list that is kept beside an image.
const SUFFIX: &str = ".windows";

/// The path of the list that is kept beside the image at `path`.
fn list_path(path: &Path) -> PathBuf {
    beside(&place_of(path), SUFFIX)
}

/// Whether a list can say what this image holds: a child's content depends on its parents, and times must prove that the
/// image wasn't changed.
fn can_have_one(image: &OpenImage) -> bool {
    image.format() != Format::Differencing && image.file().time_doubt().is_none()
}

/// Whether what has the name of the list of `image` may be replaced by a new list: a list, of somebody who may write
/// the image. `Ok(None)` if nothing has that name.
fn is_ours(image: &OpenImage, list: &Path) -> Result<Option<bool>> {
    if !exists(list)? {
        return Ok(None);
    }
    if stranger(list, image.path())?.is_some() {
        return Ok(Some(false));
    }
    let file = File::open(list)?;
    let mut label = [0; LABEL.len()];
    let long = file.byte_len()? >= HEAD as u64;
    if long {
        file.read_exact_at(&mut label, 0)?;
    }
    Ok(Some(long && label == *LABEL))
}

/// The list that is kept beside an image.
#[derive(Debug)]
pub(super) struct Kept {
    /// What it says, if it is of the image as that is now.
    pub(super) current: Option<ImageWindows>,
}

/// Looks for the list of `image`; `None` if none is kept.
pub(super) fn find(image: &OpenImage) -> Option<Kept> {
    let list = list_path(image.path());
    if !can_have_one(image) || !matches!(is_ours(image, &list), Ok(Some(true))) {
        return None;
    }
    // Whatever is wrong with it, the image itself can be read instead. The stamp also says as what it was read.
    let current = open_windows(&list, image).ok().filter(|list| {
        is_stamped(image, image.stamp(), list.digest()).is_ok_and(|stamped| stamped)
    });
    Some(Kept { current })
}

/// A list in the making. It is never needed, so that a failure ends it and nothing else.
#[derive(Debug)]
pub(super) struct NewList {
    file: AtomicFile,
    writer: WindowListWriter<BufWriter<Body>>,
    failed: bool,
}

impl NewList {
    /// Begins the list of what `image` is going to hold, a disk of `size` bytes. The caller has the image locked alone.
    pub(super) fn begin(image: &OpenImage, size: u64) -> Option<Self> {
        let list = list_path(image.path());
        let begin = || -> Result<Self> {
            let file =
                AtomicFile::beside(&list, &place_of(image.path()))?.with_owner_of(image.file())?;
            file.file().take_permissions_of(image.file())?;
            let body = BufWriter::with_capacity(1 << 16, Body::of(file.file()));
            Ok(Self {
                writer: WindowListWriter::new(body, &list, size)?,
                file,
                failed: false,
            })
        };
        begin().ok()
    }

    /// Adds the windows from `start` on, which come in order; those that are left out are zero.
    pub(super) fn push(&mut self, start: u64, hashes: &WindowHashes) {
        self.failed = self.failed || self.writer.push(start, hashes).is_err();
    }

    /// Gives the list its name, if the file of `image`, of which the caller alone has the lock, has a state stamp with the
    /// digest that the list makes. Returns whether the list is kept.
    pub(super) fn publish(self, image: &OpenImage) -> bool {
        let Self {
            file,
            writer,
            failed,
        } = self;
        let publish = || -> Result<bool> {
            let digest = writer.finish()?;
            // The stamp, an attribute, has moved the time of change.
            let now = image.file().settle()?;
            if failed || !can_have_one(image) || !is_stamped(image, &now, digest)? {
                return Ok(false);
            }
            file.file().write_all_at(&head(&now), 0)?;
            file.publish(Overwrite::Yes)?;
            Ok(true)
        };
        publish().unwrap_or(false)
    }
}

/// What comes after the head of a list.
#[derive(Debug)]
struct Body {
    file: File,
    at: u64,
}

impl Body {
    fn of(file: &File) -> Self {
        Self {
            file: file.another_handle(),
            at: HEAD as u64,
        }
    }
}

impl Write for Body {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_all_at(bytes, self.at);
        written.map_err(io::Error::other)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An image that was read to be given a state stamp.
#[derive(Debug)]
pub struct Stamping<'a> {
    image: &'a OpenImage,
    digest: ContentDigest,
    list: Option<NewList>,
}

impl<'a> Stamping<'a> {
    /// Reads `image`, which is locked.
    pub fn read(image: &'a OpenImage, workers: &Workers, progress: &dyn Progress) -> Result<Self> {
        let free = is_ours(image, &list_path(image.path())).is_ok_and(|ours| ours != Some(false));
        let mut list = (free && can_have_one(image))
            .then(|| NewList::begin(image, image.virtual_size()))
            .flatten();
        let digest = window_hashes(image, workers, progress, |start, hashes| {
            if let Some(list) = &mut list {
                list.push(start, hashes);
            }
            Ok(())
        })?;
        image.check_unchanged()?;
        Ok(Self {
            image,
            digest,
            list,
        })
    }

    /// Content digest of the virtual disk.
    pub fn digest(&self) -> ContentDigest {
        self.digest
    }

    /// Gives the file its stamp, and keeps the window hashes beside it, in `IMAGE.windows`, so that the next apply reads
    /// only the windows that it changes. Something else that has that name stays, and there is no list then; nor is there
    /// one of a differencing VHD. `Ok(false)` if there is no stamp, as for [`set_stamp`].
    ///
    /// # Errors
    ///
    /// [`Changed`](crate::ErrorKind::Changed) if another program changed the image meanwhile;
    /// [`Locked`](crate::ErrorKind::Locked) if another command is using it.
    pub fn stamp(self) -> Result<bool> {
        let image = self.image;
        // Other readers would take the new attribute for a change of the file.
        image.file().lock_exclusive()?;
        image.check_unchanged()?;
        let stamped = set_stamp(image, self.digest)?;
        if let Some(list) = self.list.filter(|_| stamped) {
            list.publish(image);
        }
        Ok(stamped)
    }
}
