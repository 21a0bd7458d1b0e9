//! A file with the window hashes of an image: with it, a diff from that image is created by reading the target and only
//! the differing windows of the image. `docs/windows-format.md` describes the file.
//!
//! The list records the state of the image, and is refused for any other state.

use std::io::Write as _;
use std::path::Path;

use super::state::now;
use super::{Format, OpenImage, refuse_same_file};
use crate::error::{Error, ErrorKind, Result, quoted};
use crate::image::{ContentDigest, Hash, Image as _, WindowList, WindowListWriter, window_hashes};
use crate::parallel::Workers;
use crate::progress::Progress;
use crate::remedy::{Remedy, Step, Tool};
use crate::storage::{AtomicFile, Audience, File, Overwrite, ReadAt, Stamp};
use crate::text::shown;

pub(super) const LABEL: &[u8; 16] = b"vhdkit state  1\0";
const HASHED: usize = LABEL.len() + Stamp::LEN;
/// Bytes before the list itself: the state of the image.
pub(super) const HEAD: usize = HASHED + size_of::<Hash>();

/// A list of window hashes, and the state of its image.
pub type ImageWindows = WindowList<Behind>;

/// Hashes `image` and writes the list to a new file at `path`. Returns the content digest.
pub fn write_windows(
    image: &OpenImage,
    path: &Path,
    overwrite: Overwrite,
    workers: &Workers,
    progress: &dyn Progress,
) -> Result<ContentDigest> {
    refuse_unstamped(image)?;
    refuse_same_file(path, &[image.path()])?;
    if !image.stamp().is_older_than(now()) {
        return Err(Error::usage(
            "the times of this file are in the future, and don't show when it is changed",
        )
        .with_path(image.path())
        .with_hint(format!(
            "give it the time of now: touch {}",
            quoted(image.path())
        )));
    }
    let file = AtomicFile::begin(path, overwrite, Audience::of_file(image.file())?)?;
    let mut out = file.file().appender();
    out.write_all(&head(image.stamp()))
        .map_err(|e| Error::io("cannot write", e).with_path(path))?;
    let mut writer = WindowListWriter::new(out, path, image.virtual_size())?;
    window_hashes(image, workers, progress, |start, hashes| {
        writer.push(start, hashes)
    })?;
    image.check_unchanged()?;
    let digest = writer.finish()?;
    file.publish(overwrite)?;
    Ok(digest)
}

/// Opens the list at `path`, which must be for the current state of `image`.
pub fn open_windows(path: &Path, image: &OpenImage) -> Result<ImageWindows> {
    refuse_unstamped(image)?;
    let file = File::open(path)?;
    let not_one = || {
        Error::damaged("this is not a list of window hashes of a supported version")
            .with_path(path)
            .with_remedy(
                Remedy::new("create one")
                    .named(" with ")
                    .step(Step::Use(Tool::ListWindows), ""),
            )
    };
    if file.byte_len()? < HEAD as u64 {
        return Err(not_one());
    }
    let mut found = [0; HEAD];
    file.read_exact_at(&mut found, 0)?;
    let (hashed, hash) = found.split_at(HASHED);
    if !hashed.starts_with(LABEL) {
        return Err(not_one());
    }
    if blake3::hash(hashed).as_bytes() != hash {
        return Err(
            Error::damaged("the state of the image in this list was changed")
                .with_path(path)
                .with_offset(0)
                .with_remedy(
                    Remedy::new("create the list again")
                        .named(" with ")
                        .step(Step::Use(Tool::ListWindows), ""),
                ),
        );
    }
    if found != head(image.stamp()) {
        return Err(stale(path, image));
    }
    // Checked before the list is read, because computing its digest takes time proportional to the size that it claims.
    let list = Behind { file };
    let mut size = [0; 8];
    list.read_exact_at(&mut size, 16)?;
    if size != image.virtual_size().to_be_bytes() {
        return Err(
            Error::damaged("the list of window hashes is for a disk of another size")
                .with_path(path)
                .with_field("virtual size")
                .with_found(u64::from_be_bytes(size))
                .with_expected(image.virtual_size()),
        );
    }
    WindowList::open(list)
}

fn stale(path: &Path, image: &OpenImage) -> Error {
    Error::new(
        ErrorKind::Changed,
        "the list of window hashes is for another image, or for another state of it",
    )
    .with_path(path)
    .with_expected(format_args!("the state of {}", shown(image.path())))
    .with_remedy(Remedy::new("make it again").named(": ").step(
        Step::ListWindows {
            list: path.to_path_buf(),
            image: image.path().to_path_buf(),
        },
        "",
    ))
}

/// The beginning of a list for an image in this state.
pub(super) fn head(stamp: &Stamp) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    let (hashed, hash) = head.split_at_mut(HASHED);
    hashed[..LABEL.len()].copy_from_slice(LABEL);
    hashed[LABEL.len()..].copy_from_slice(&stamp.to_bytes());
    hash.copy_from_slice(blake3::hash(hashed).as_bytes());
    head
}

/// Fails unless the file's times reveal changes, which depends on the file system, and unless the contents depend on
/// that file alone.
fn refuse_unstamped(image: &OpenImage) -> Result<()> {
    let depends = (image.format() == Format::Differencing)
        .then_some("the contents of a differencing VHD depend on its parent as well");
    let Some(what) = image.file().time_doubt().or(depends) else {
        return Ok(());
    };
    Err(Error::usage(what)
        .with_path(image.path())
        .with_hint("omit the list of window hashes"))
}

/// The part of a file after its head.
#[derive(Debug)]
pub struct Behind {
    file: File,
}

impl ReadAt for Behind {
    fn name(&self) -> &Path {
        self.file.name()
    }

    fn byte_len(&self) -> Result<u64> {
        Ok(self.file.byte_len()?.saturating_sub(HEAD as u64))
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file
            .read_exact_at(buf, offset.saturating_add(HEAD as u64))
    }
}
