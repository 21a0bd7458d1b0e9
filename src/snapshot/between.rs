//! What changed between any two points in time of a disk, in either direction, without reading what didn't.

use std::io::Write;
use std::path::PathBuf;

use super::{Disk, Manifest, PointImage, Work};
use crate::diff::{
    ChangedPages, CompareOptions, Comparison, Compression, DiffOptions, WindowChange, Written,
    compare, write_diff_known,
};
use crate::error::Result;
use crate::files::Opened as _;
use crate::image::{Image, Masked, NoneShared};

/// Two points in time of one disk.
#[derive(Debug)]
pub struct Between {
    from: PointImage,
    to: PointImage,
    /// `None` when they don't lie over one base: then both are read whole.
    pages: Option<ChangedPages>,
}

impl Between {
    /// From one point to another, which may be the older one.
    pub fn open(disk: &Disk, from: &Manifest, to: &Manifest) -> Result<Self> {
        let (from, to) = (disk.image(from)?, disk.image(to)?);
        let one_base = from.base().path() == to.base().path();
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

    /// Where it starts.
    pub fn from(&self) -> &PointImage {
        &self.from
    }

    /// Where it leads.
    pub fn to(&self) -> &PointImage {
        &self.to
    }

    /// What must be compared of both.
    fn views<T>(&self, work: impl FnOnce(&dyn Image, &dyn Image) -> Result<T>) -> Result<T> {
        match &self.pages {
            None => work(&self.from, &self.to),
            Some(pages) => work(
                &Masked::new(&self.from, pages),
                &Masked::new(&self.to, pages),
            ),
        }
    }

    /// Hands what changed to `sink`, window by window, in order.
    pub fn changes(
        &self,
        work: Work<'_>,
        sink: impl FnMut(WindowChange) -> Result<()>,
    ) -> Result<Comparison> {
        let options = CompareOptions {
            workers: work.workers,
            progress: work.progress,
            digests: false,
            payload: false,
            equal: &NoneShared,
        };
        self.views(|from, to| compare(from, to, options, Ok, sink))
    }

    /// Writes the diff, with the digests that the manifests know.
    pub fn write<W: Write>(
        &self,
        out: W,
        name: impl Into<PathBuf>,
        compression: Compression,
        work: Work<'_>,
    ) -> Result<Written<W>> {
        let options = DiffOptions {
            workers: work.workers,
            progress: work.progress,
            compression,
            digests: true,
            equal: &NoneShared,
            confirm: &|| match &self.pages {
                // The longer of the two is made of all that the other one is.
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
