//! The changes between any two points in time of a disk, in either direction, without reading what didn't change.

use std::io::Write;
use std::path::PathBuf;

use super::{Disk, Manifest, PointImage, Work};
use crate::diff::{
    ChangedPages, CompareOptions, Comparison, Compression, DiffOptions, WindowChange, Written,
    compare, write_diff_known,
};
use crate::error::Result;
use crate::files::Opened as _;
use crate::image::{Image, Masked, NoneShared, PageSet as _};
use crate::page::{PageRange, coalesce};

/// Two points in time of one disk.
#[derive(Debug)]
pub struct Between {
    from: PointImage,
    to: PointImage,
    /// `None` if they don't share a base: then both are read completely.
    pages: Option<ChangedPages>,
}

impl Between {
    /// Opens the two points; the first may be the newer one.
    pub fn open(disk: &Disk, from: &Manifest, to: &Manifest) -> Result<Self> {
        let (from, to) = (disk.image(from)?, disk.image(to)?);
        let one_base = from.base_file() == to.base_file();
        let pages = one_base.then(|| {
            let (few, many) = if from.diffs().len() < to.diffs().len() {
                (from.diffs().len(), to.diffs())
            } else {
                (to.diffs().len(), from.diffs())
            };
            ChangedPages::new(many.iter().skip(few).cloned().collect())
        });
        Ok(Self { from, to, pages })
    }

    /// Keeps all files of both open, and releases the lock of the disk: see [`PointImage::hold_files`].
    pub fn hold_files(&mut self) -> Result<bool> {
        Ok(self.from.hold_files()? && self.to.hold_files()?)
    }

    /// The starting point.
    pub fn from(&self) -> &PointImage {
        &self.from
    }

    /// The end point.
    pub fn to(&self) -> &PointImage {
        &self.to
    }

    /// The pages outside which both are the same, in order, without reading any; `None` if that isn't known.
    pub fn changed_ranges(&self) -> Result<Option<Vec<PageRange>>> {
        let Some(pages) = &self.pages else {
            return Ok(None);
        };
        let [from, to] = [&self.from, &self.to].map(Image::virtual_size);
        let within = PageRange::covering(0, from.max(to));
        let beyond = PageRange::covering(from.min(to), from.max(to));
        let mut all = pages.pages(within).collect::<Result<Vec<_>>>()?;
        all.push(beyond);
        all.sort_unstable();
        all.retain(|range| !range.is_empty());
        Ok(Some(coalesce(all, 0).collect()))
    }

    /// Calls `work` with the parts of both that must be compared.
    fn views<T>(&self, work: impl FnOnce(&dyn Image, &dyn Image) -> Result<T>) -> Result<T> {
        match &self.pages {
            None => work(&self.from, &self.to),
            Some(pages) => work(
                &Masked::new(&self.from, pages),
                &Masked::new(&self.to, pages),
            ),
        }
    }

    /// Passes the changes to `sink`, window by window, in order.
    pub fn changes(
        &self,
        work: Work<'_>,
        sink: impl FnMut(WindowChange) -> Result<()>,
    ) -> Result<Comparison> {
        let options = CompareOptions {
            work,
            digests: false,
            payload: false,
            equal: &NoneShared,
        };
        self.views(|from, to| compare(from, to, options, Ok, sink))
    }

    /// Writes the diff, with the digests in the manifests.
    pub fn write<W: Write>(
        &self,
        out: W,
        name: impl Into<PathBuf>,
        compression: Compression,
        work: Work<'_>,
    ) -> Result<Written<W>> {
        let options = DiffOptions {
            work,
            compression,
            digests: true,
            equal: &NoneShared,
            confirm: &|| match &self.pages {
                // The longer chain contains the other one.
                Some(_) if self.from.diffs().len() < self.to.diffs().len() => {
                    self.to.check_unchanged()
                }
                Some(_) => self.from.check_unchanged(),
                None => {
                    self.from.check_unchanged()?;
                    self.to.check_unchanged()
                }
            },
        };
        let digests = [&self.from, &self.to].map(|point| Some(point.manifest().content_digest));
        self.views(|from, to| {
            write_diff_known(
                (from, self.from.side()),
                (to, self.to.side()),
                digests,
                out,
                name,
                options,
            )
        })
    }
}
