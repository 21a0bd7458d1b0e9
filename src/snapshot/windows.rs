//! The window hashes of the newest snapshot: with them, the next one is made by reading the new image alone.

use std::io::BufWriter;

use super::layout::WINDOWS;
use super::{Disk, Manifest, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Image as _, WindowList, WindowListWriter, window_hashes};
use crate::storage::{AtomicFile, File, Overwrite};

/// The list of `newest`, made again from its data if it is missing, damaged or of another snapshot.
pub(super) fn of_newest(
    disk: &Disk,
    newest: &Manifest,
    work: Work<'_>,
) -> Result<WindowList<File>> {
    let path = disk.path(WINDOWS);
    let stored = File::open(&path).and_then(WindowList::open);
    match stored {
        Ok(list) if list.digest() == newest.content_digest => return Ok(list),
        Err(error) if error.kind() == ErrorKind::Io && !error_is_absence(&error) => {
            return Err(error);
        }
        // Missing, stale or damaged.
        _ => {}
    }
    let image = disk.image(newest)?;
    let file = AtomicFile::new(&path)?;
    let out = BufWriter::with_capacity(1 << 16, file.file().appender());
    let mut writer = WindowListWriter::new(out, &path, image.virtual_size())?;
    work.progress
        .begin("hashing the newest snapshot", image.virtual_size());
    window_hashes(&image, work.workers, work.progress, |start, hashes| {
        writer.push(start, hashes)
    })?;
    let found = writer.finish()?;
    if found != newest.content_digest {
        return Err(
            Error::damaged("the newest snapshot is not what its manifest says")
                .path(disk.label(newest))
                .field("content digest")
                .found(found)
                .expected(newest.content_digest)
                .hint("vhd snapshot verify --read-data says which file is damaged"),
        );
    }
    file.publish(Overwrite::Yes)?;
    WindowList::open(File::open(&path)?)
}

fn error_is_absence(error: &Error) -> bool {
    error.io_kind() == Some(std::io::ErrorKind::NotFound)
}
