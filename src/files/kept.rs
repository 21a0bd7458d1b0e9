//! The list of window hashes that is kept next to an image, `IMAGE.windows`. With it, the digest of the result of an
//! apply is computed by reading only the windows that change.
//!
//! `vhd hash --stamp` creates it, and every in-place apply that computes the digest of its result keeps it up to date.
//! Like any other [list](super::windows), it is for one state of one file. If it is missing, stale or damaged, the
//! image is read instead.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::pending::{exists, place_of_open, stranger};
use super::state::is_stamped;
use super::windows::{HEAD, LABEL, head, open_windows};
use super::{Format, ImageWindows, OpenImage, set_stamp};
use crate::error::Result;
use crate::image::{ContentDigest, Image as _, WindowHashes, WindowListWriter, window_hashes};
use crate::parallel::Workers;
use crate::progress::Progress;
use crate::storage::{AtomicFile, File, Overwrite, ReadAt as _, WriteAt as _, beside};

/// Suffix of the list that is kept next to an image.
const SUFFIX: &str = ".windows";

/// The path of the list next to an image.
fn list_path(image: &OpenImage) -> Result<PathBuf> {
    Ok(beside(&place_of_open(image.file())?, SUFFIX))
}

/// Returns whether a list can describe this image: the contents of a child depend on its parents, and file times must
/// prove that the image is unchanged.
fn can_have_one(image: &OpenImage) -> bool {
    image.format() != Format::Differencing && image.file().time_doubt().is_none()
}

/// Returns whether the file with the name of `image`'s list may be replaced by a new list: it must be a list, or empty,
/// and belong to somebody who may write the image. Returns `Ok(None)` if there is no such file.
fn is_ours(image: &OpenImage, list: &Path) -> Result<Option<bool>> {
    if !exists(list)? {
        return Ok(None);
    }
    if stranger(list, Some(&image.file().metadata()?))?.is_some() {
        return Ok(Some(false));
    }
    let file = File::open(list)?;
    let mut label = [0; LABEL.len()];
    let len = file.byte_len()?;
    if len == 0 {
        // A crash before the system had written it.
        return Ok(Some(true));
    }
    let long = len >= HEAD as u64;
    if long {
        file.read_exact_at(&mut label, 0)?;
    }
    Ok(Some(long && label == *LABEL))
}

/// The list next to an image.
#[derive(Debug)]
pub(super) struct Kept {
    /// The list, if it is for the current state of the image.
    pub(super) current: Option<ImageWindows>,
}

/// Looks for the list of `image`. Returns `None` if there is none.
pub(super) fn find(image: &OpenImage) -> Option<Kept> {
    let list = list_path(image).ok()?;
    if !can_have_one(image) || !matches!(is_ours(image, &list), Ok(Some(true))) {
        return None;
    }
    // Whatever is wrong with it, the image itself can be read instead. The stamp must also agree on the format.
    let current = open_windows(&list, image).ok().filter(|list| {
        is_stamped(image, image.stamp(), list.digest()).is_ok_and(|stamped| stamped)
    });
    Some(Kept { current })
}

/// A list that is being written. It is never essential, so a failure only ends it.
#[derive(Debug)]
pub(super) struct NewList {
    file: AtomicFile,
    writer: WindowListWriter<BufWriter<Body>>,
    failed: bool,
}

impl NewList {
    /// Begins the list of the future contents of `image`, a disk of `size` bytes. The caller holds the image's
    /// exclusive lock.
    pub(super) fn begin(image: &OpenImage, size: u64) -> Option<Self> {
        let begin = || -> Result<Self> {
            let list = list_path(image)?;
            let place = place_of_open(image.file())?;
            let file = AtomicFile::beside(&list, &place)?.with_owner_of(image.file())?;
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

    /// Adds the windows from `start` on, in order. Omitted windows are zero.
    pub(super) fn push(&mut self, start: u64, hashes: &WindowHashes) {
        self.failed = self.failed || self.writer.push(start, hashes).is_err();
    }

    /// Publishes the list, if the file of `image`, whose exclusive lock the caller holds, has a state stamp with the
    /// digest of the list. Returns whether the list is kept.
    pub(super) fn publish(self, image: &OpenImage) -> bool {
        let Self {
            file,
            writer,
            failed,
        } = self;
        let publish = || -> Result<bool> {
            let digest = writer.finish()?;
            // Setting the stamp, an attribute, has moved the ctime. Nothing has to be synced for that: the file was
            // settled before, so a change since then has moved its mtime, which the stamp holds.
            let now = image.file().rest()?;
            if failed || !can_have_one(image) || !is_stamped(image, &now, digest)? {
                return Ok(false);
            }
            file.file().write_all_at(&head(&now), 0)?;
            // Its head and its digest show whether it is whole.
            file.publish_unsynced(Overwrite::Yes)?;
            Ok(true)
        };
        publish().unwrap_or(false)
    }
}

/// The part of a list after its head.
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

/// An image that was read in order to be stamped.
#[derive(Debug)]
pub struct Stamping<'a> {
    image: &'a OpenImage,
    digest: ContentDigest,
    list: Option<NewList>,
}

impl<'a> Stamping<'a> {
    /// Reads `image`, which is locked.
    pub fn read(image: &'a OpenImage, workers: &Workers, progress: &dyn Progress) -> Result<Self> {
        let free = list_path(image)
            .and_then(|list| is_ours(image, &list))
            .is_ok_and(|ours| ours != Some(false));
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

    /// Stamps the file, and keeps the window hashes next to it, in `IMAGE.windows`, so that the next apply reads only
    /// the windows that it changes. There is no list if something else has that name, which is kept, or for a
    /// differencing VHD. Returns `Ok(false)` if there is no stamp, as for [`set_stamp`].
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
