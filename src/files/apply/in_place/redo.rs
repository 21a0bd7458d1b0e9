//! Brings an image from any intermediate state to a chain's result, and reads it back.

use super::job::{Job, open};
use crate::diff::{Chain, ChangeMap, Touched};
use crate::error::{Error, Result};
use crate::files::apply::options::ApplyOptions;
use crate::files::apply::write::{Changes, count_changes, read_back, write_changes};
use crate::files::{Format, FormatChoice, OpenImage};
use crate::image::{ContentDigest, Image as _, ImageMut as _, RawImage, content_digest};
use crate::page::PAGE_SIZE;
use crate::remedy::Remedy;
use crate::storage::{File, ReadAt as _, WriteAt as _};
use crate::vhd::{DiskType, FOOTER_SIZE, Footer};

/// The changes that are found by comparing the file being written with the diffs.
const ITSELF: Changes<'_> = Changes::Compared {
    base: None,
    check: false,
};

/// Makes the image in `file` hold the chain's result, however much of it is there already; the caller syncs. Returns
/// the bytes updated and cleared. `base_size` is the virtual size that it has or had before.
pub(super) fn redo(
    file: &File,
    format: Format,
    base_size: u64,
    chain: &Chain,
    footer: Option<Footer>,
    options: ApplyOptions<'_>,
) -> Result<(u64, u64)> {
    let to = To {
        file,
        format,
        base_size,
        footer,
    };
    let (updated, cleared, _) = to.write(chain, ITSELF, options)?;
    Ok((updated, cleared))
}

/// As [`redo`], for a file that holds `base` unchanged. `changes` are those that lead to the result, if they are known.
pub(super) fn first(
    file: &File,
    base: &OpenImage,
    chain: &Chain,
    footer: Option<Footer>,
    changes: Option<ChangeMap>,
    options: ApplyOptions<'_>,
) -> Result<(u64, u64)> {
    let from = changes.map_or(ITSELF, Changes::Known);
    let (updated, cleared, _) = redo_elsewhere(file, base, chain, footer, from, options)?;
    Ok((updated, cleared))
}

/// As [`redo`], for a different file that has the same contents as `base`.
pub(super) fn redo_elsewhere(
    file: &File,
    base: &OpenImage,
    chain: &Chain,
    footer: Option<Footer>,
    from: Changes<'_>,
    options: ApplyOptions<'_>,
) -> Result<(u64, u64, Touched)> {
    let to = To {
        file,
        format: base.format(),
        base_size: base.virtual_size(),
        footer,
    };
    to.write(chain, from, options)
}

/// The file being written.
struct To<'a> {
    file: &'a File,
    format: Format,
    base_size: u64,
    footer: Option<Footer>,
}

impl To<'_> {
    fn write(
        self,
        chain: &Chain,
        from: Changes<'_>,
        options: ApplyOptions<'_>,
    ) -> Result<(u64, u64, Touched)> {
        match self.format {
            Format::Raw => self.write_flat(chain, from, None, options),
            Format::Fixed => {
                let (size, like) = (chain.target_size(), self.footer.as_ref());
                let footer = Footer::for_disk(DiskType::Fixed, size, like);
                self.write_flat(chain, from, Some(footer), options)
            }
            Format::Dynamic => self.write_blocks(chain, from, DiskType::Dynamic, options),
            Format::Differencing => self.write_blocks(chain, from, DiskType::Differencing, options),
        }
    }

    fn write_blocks(
        self,
        chain: &Chain,
        from: Changes<'_>,
        disk_type: DiskType,
        options: ApplyOptions<'_>,
    ) -> Result<(u64, u64, Touched)> {
        let choice = Some(FormatChoice::Only(self.format));
        let mut image = open(self.file, choice, true, options)?;
        if let Some(vhd) = image.vhd_mut() {
            vhd.resize(chain.target_size())?;
        }
        let reader = open(self.file, choice, false, options)?;
        let counts = write_changes(&reader, &mut image, chain, from, options)?;
        if let (Some(footer), Some(vhd)) = (self.footer, image.vhd_mut()) {
            vhd.set_footer(&Footer::for_disk(
                disk_type,
                chain.target_size(),
                Some(&footer),
            ));
        }
        image.flush()?;
        Ok(counts)
    }

    /// Writes raw images and fixed VHDs. The file is treated as plain bytes, since a crash may have left it without a
    /// footer in its place.
    fn write_flat(
        self,
        chain: &Chain,
        from: Changes<'_>,
        footer: Option<Footer>,
        options: ApplyOptions<'_>,
    ) -> Result<(u64, u64, Touched)> {
        let (file, base_size) = (self.file, self.base_size);
        let (len, size) = (file.byte_len()?, chain.target_size());
        if len < size {
            file.set_len(size)?;
        }
        if footer.is_some() && base_size < size {
            // The place of the old footer, and anything before it, is part of the disk now.
            file.write_zeros_at(base_size..size.min(len).max(base_size))?;
        }
        let reader = RawImage::with_size(file, size);
        let mut image = RawImage::with_size(file, size);
        let counts = write_changes(&reader, &mut image, chain, from, options)?;
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
        Ok(counts)
    }
}

/// The offset of the last page in a file of `len` bytes; footers may have 511 bytes.
fn last_page(len: u64) -> u64 {
    let last = len.saturating_sub(1);
    last - last % FOOTER_SIZE as u64
}

/// The bytes that the job would update and clear, and the result of checking the data under them.
pub(super) fn count(job: &Job<'_>) -> Result<(u64, u64, Touched)> {
    count_changes(&job.base, &job.chain, job.check(), job.options)
}

/// The bytes that [`redo`] would update and clear in `file`, which holds some intermediate state.
pub(super) fn count_again(
    file: &File,
    format: Format,
    chain: &Chain,
    options: ApplyOptions<'_>,
) -> Result<(u64, u64)> {
    let counts = match format {
        Format::Raw | Format::Fixed => {
            let len = file.byte_len()?.min(chain.target_size());
            let whole = len - len % PAGE_SIZE;
            count_changes(&RawImage::with_size(file, whole), chain, false, options)?
        }
        Format::Dynamic | Format::Differencing => {
            let image = open(file, Some(FormatChoice::Only(format)), false, options)?;
            count_changes(&image, chain, false, options)?
        }
    };
    Ok((counts.0, counts.1))
}

/// Reads the result back.
pub(super) struct Verify<'a> {
    pub(super) file: &'a File,
    pub(super) format: Format,
    pub(super) chain: &'a Chain,
    /// The expected digest, if known.
    pub(super) digest: Option<ContentDigest>,
    /// How to proceed if it is wrong.
    pub(super) remedy: Remedy,
}

impl Verify<'_> {
    /// Reads all of the result if its digest is known, and returns `Ok(true)` if it is right; a wrong result is an
    /// error.
    pub(super) fn run(&self, options: ApplyOptions<'_>) -> Result<bool> {
        let path = self.file.path();
        let image = open(
            self.file,
            Some(FormatChoice::Only(self.format)),
            false,
            options,
        )?;
        if let Some(expected) = self.digest {
            options
                .work
                .progress
                .begin("verifying", image.virtual_size());
            let found = content_digest(&image, options.work.workers, options.work.progress)?;
            return read_back(path, found, expected)
                .map(|()| true)
                .map_err(|error| error.override_remedy(self.remedy.clone()));
        }
        // Without a digest, the changes are compared page by page.
        let (updated, cleared, _) = count_changes(&image, self.chain, false, options)?;
        if (updated, cleared) == (0, 0) {
            return Ok(true);
        }
        Err(
            Error::damaged("the data read back differs from the data written")
                .with_path(path)
                .with_remedy(self.remedy.clone()),
        )
    }
}
