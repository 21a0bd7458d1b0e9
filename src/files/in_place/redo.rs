//! Writing a base so that it holds what a chain makes of it, from whatever state in between.

use std::path::Path;

use super::open;
use crate::diff::{Chain, Layers, WindowChange};
use crate::error::{Error, Result};
use crate::files::apply::{ApplyOptions, read_back, write_changes};
use crate::files::{Format, FormatChoice};
use crate::image::{ContentDigest, Image, ImageMut as _, RawImage, content_digest};
use crate::page::ChangeKind;
use crate::storage::{File, ReadAt as _, WriteAt as _};
use crate::vhd::{DiskType, FOOTER_SIZE, Footer};

/// Makes the image hold the chain's result, whatever part of it it holds already, and durably so. Returns the
/// bytes updated and cleared. `base_size` is the virtual size that it had, or has, before.
pub(super) fn redo(
    path: &Path,
    format: Format,
    base_size: u64,
    chain: &Chain,
    footer: Option<Footer>,
    options: ApplyOptions<'_>,
) -> Result<(u64, u64)> {
    match format {
        Format::Raw => redo_flat(path, base_size, chain, None, options),
        Format::Fixed => {
            let footer = Footer::for_disk(DiskType::Fixed, chain.target_size(), footer.as_ref());
            redo_flat(path, base_size, chain, Some(footer), options)
        }
        Format::Dynamic | Format::Differencing => {
            let mut image = open(path, Some(FormatChoice::Only(format)), true, options)?;
            if let Some(vhd) = image.vhd_mut() {
                vhd.resize(chain.target_size())?;
            }
            let reader = open(path, Some(FormatChoice::Only(format)), false, options)?;
            let disk_type = match format {
                Format::Differencing => DiskType::Differencing,
                _ => DiskType::Dynamic,
            };
            let counts = write_changes(&reader, &mut image, chain, options)?;
            if let (Some(footer), Some(vhd)) = (footer, image.vhd_mut()) {
                vhd.set_footer(&Footer::for_disk(
                    disk_type,
                    chain.target_size(),
                    Some(&footer),
                ));
            }
            image.flush()?;
            Ok(counts)
        }
    }
}

/// Raw images and fixed VHDs: the file is opened as plain bytes, because a crash may have left it without a
/// footer where it is looked for.
fn redo_flat(
    path: &Path,
    base_size: u64,
    chain: &Chain,
    footer: Option<Footer>,
    options: ApplyOptions<'_>,
) -> Result<(u64, u64)> {
    let file = File::open_writable(path)?;
    let (len, size) = (file.byte_len()?, chain.target_size());
    if len < size {
        file.set_len(size)?;
    }
    if footer.is_some() && base_size < size {
        // Where the old footer stood, and whatever there was before it, there is disk now.
        file.write_zeros_at(base_size..size.min(len).max(base_size))?;
    }
    let reader = RawImage::with_size(file.try_clone()?, size);
    let mut image = RawImage::with_size(&file, size);
    let counts = write_changes(&reader, &mut image, chain, options)?;
    match footer {
        None => file.set_len(size)?,
        Some(footer) => {
            // A disk of the same size keeps its footer where it was, even with slack before it.
            let at = if base_size == size {
                last_page(len).max(size)
            } else {
                size
            };
            file.write_all_at(&footer.encode(), at)?;
            file.set_len(at + FOOTER_SIZE as u64)?;
        }
    }
    file.sync()?;
    Ok(counts)
}

/// Where the last page begins in a file of `len` bytes; footers of 511 bytes occur.
fn last_page(len: u64) -> u64 {
    let last = len.saturating_sub(1);
    last - last % FOOTER_SIZE as u64
}

/// The bytes that `chain` would update and clear in `base`.
pub(super) fn count(
    base: &dyn Image,
    chain: &Chain,
    options: ApplyOptions<'_>,
) -> Result<(u64, u64)> {
    let (mut updated, mut cleared) = (0, 0);
    options
        .progress
        .begin("counting", base.virtual_size().max(chain.target_size()));
    Layers::new(base, chain, options.workers, options.progress).changes(
        Ok,
        |change: WindowChange| {
            updated += change.changes.bytes(ChangeKind::Update);
            cleared += change.changes.bytes(ChangeKind::Clear);
            Ok(())
        },
    )?;
    Ok((updated, cleared))
}

/// Reads the result back: all of it if its `digest` is known. `Ok(true)` if it is right, `Ok(false)` never: what is wrong is an error.
pub(super) fn verify(
    path: &Path,
    format: Format,
    chain: &Chain,
    digest: Option<ContentDigest>,
    options: ApplyOptions<'_>,
) -> Result<bool> {
    let hint = format!(
        "the journal still stands: take the apply back with: vhd-apply --rollback {}",
        path.display()
    );
    let image = open(path, Some(FormatChoice::Only(format)), false, options)?;
    if let Some(expected) = digest {
        options.progress.begin("verifying", image.virtual_size());
        let found = content_digest(&image, options.workers, options.progress)?;
        return read_back(path, found, expected)
            .map(|()| true)
            .map_err(|error| error.hint(hint));
    }
    // Without a digest, what the diffs change is compared page by page.
    if count(&image, chain, options)? == (0, 0) {
        return Ok(true);
    }
    Err(Error::damaged("what was read back is not what was written")
        .path(path)
        .hint(hint))
}
