//! Finding out what changed between two images.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::Path;

use super::Running;
use crate::diff::{
    CompareOptions, Compression, DiffOptions, PROGRAM, Written, compare, write_diff,
    write_reversible_diff,
};
use crate::error::Result;
use crate::files::Opened;
use crate::image::{ContentDigest, NoneShared};
use crate::page::Change;
use crate::parallel::Work;
use crate::progress::Progress;
use crate::storage::{AtomicFile, Audience, Overwrite};

/// Compares two images, and lists the changes or writes them as a diff.
///
/// ```no_run
/// # fn main() -> vhdkit::Result<()> {
/// let (monday, tuesday) = (vhdkit::open("monday.vhd")?, vhdkit::open("tuesday.vhd")?);
/// vhdkit::diff(&*monday, &*tuesday).each(|change| {
///     println!("{} to {}", change.range.start(), change.range.end());
///     Ok(())
/// })?;
/// let written = vhdkit::diff(&*monday, &*tuesday).reversible(true).write("tuesday.vhddiff")?;
/// println!("{} bytes changed", written.changes.update_bytes);
/// # Ok(())
/// # }
/// ```
#[must_use = "a comparison does nothing until it is run"]
pub struct Diff<'a> {
    base: &'a dyn Opened,
    target: &'a dyn Opened,
    compression: Compression,
    digests: bool,
    reversible: bool,
    overwrite: Overwrite,
    running: Running<'a>,
}

/// Totals of the differences between two images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// Number of changed ranges.
    pub ranges: u64,
    /// Bytes that hold different data.
    pub update_bytes: u64,
    /// Bytes that became zero.
    pub clear_bytes: u64,
    /// Whether the images are the same, including their sizes.
    pub same: bool,
}

/// A diff that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WrittenDiff {
    /// Totals of the changes.
    pub changes: Changes,
    /// The content digest of the base, if digests were computed.
    pub base_digest: Option<ContentDigest>,
    /// The content digest of the target, if digests were computed.
    pub target_digest: Option<ContentDigest>,
    /// Length of the diff in bytes.
    pub length: u64,
}

impl<'a> Diff<'a> {
    /// Compares `base` with `target`.
    pub fn new(base: &'a dyn Opened, target: &'a dyn Opened) -> Self {
        Self {
            base,
            target,
            compression: Compression::default(),
            digests: true,
            reversible: false,
            overwrite: Overwrite::No,
            running: Running::default(),
        }
    }

    /// Sets how the diff stores data; zstd by default.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Sets whether the diff contains the content digests of both images, by which an apply recognizes the right base.
    /// Enabled by default. Without them, less is read where much is known to be the same, but an apply can check only
    /// the data under the changed pages.
    pub fn digests(mut self, digests: bool) -> Self {
        self.digests = digests;
        self
    }

    /// Sets whether the diff also contains the old data, so that it can be undone.
    pub fn reversible(mut self, reversible: bool) -> Self {
        self.reversible = reversible;
        self
    }

    /// Sets whether [`write`](Self::write) may replace an existing file.
    pub fn overwrite(mut self, overwrite: Overwrite) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Sets the number of threads; by default one per processor. The result doesn't depend on it.
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.running.threads = Some(threads);
        self
    }

    /// Reports progress, and stops if it asks for that.
    pub fn progress(mut self, progress: &'a dyn Progress) -> Self {
        self.running.progress = progress;
        self
    }

    /// Calls `each` with every change, in ascending order, exact to the page.
    pub fn each(self, mut each: impl FnMut(Change) -> Result<()>) -> Result<Changes> {
        let workers = self.running.workers()?;
        let known = self.target.shared_with(self.base);
        self.begin();
        let options = CompareOptions {
            work: Work::new(&workers, self.running.progress),
            digests: false,
            payload: false,
            equal: known.as_deref().unwrap_or(&NoneShared),
        };
        let sink =
            |window: crate::diff::WindowChange| window.changes.iter().try_for_each(|c| each(*c));
        let found = compare(self.base, self.target, options, Ok, sink)?;
        self.check_unchanged()?;
        Ok(Changes {
            ranges: found.ranges,
            update_bytes: found.update_bytes,
            clear_bytes: found.clear_bytes,
            same: found.is_same(),
        })
    }

    /// Writes the diff to a new file, which appears only when it is complete and on stable storage.
    pub fn write(self, path: impl AsRef<Path>) -> Result<WrittenDiff> {
        let path = path.as_ref();
        let inputs = [self.base.files(), self.target.files()].concat();
        let overwrite = self.overwrite;
        crate::files::refuse_same_file(path, &inputs)?;
        let file = AtomicFile::begin(path, overwrite, Audience::of(inputs)?)?;
        let (written, out) = self.run(file.file().appender(), path)?;
        drop(out);
        file.publish(overwrite)?;
        Ok(written)
    }

    /// Writes the diff to `out` sequentially; messages call it `name`. The diff is complete only if this succeeds.
    pub fn write_to<W: Write>(self, out: W, name: impl AsRef<Path>) -> Result<(WrittenDiff, W)> {
        self.run(out, name.as_ref())
    }

    fn run<W: Write>(self, out: W, name: &Path) -> Result<(WrittenDiff, W)> {
        let workers = self.running.workers()?;
        let known = self.target.shared_with(self.base);
        self.begin();
        let options = DiffOptions {
            work: Work::new(&workers, self.running.progress),
            compression: self.compression,
            digests: self.digests,
            equal: known.as_deref().unwrap_or(&NoneShared),
            confirm: &|| self.check_unchanged(),
        };
        let base: (&dyn crate::image::Image, _) = (self.base, self.base.side());
        let target: (&dyn crate::image::Image, _) = (self.target, self.target.side());
        let Written {
            out,
            trailer,
            comparison,
            len,
            ..
        } = if self.reversible {
            write_reversible_diff(base, target, out, name, options)?
        } else {
            write_diff(base, target, out, name, options)?
        };
        let changes = Changes {
            ranges: comparison.ranges,
            update_bytes: trailer.update_bytes,
            clear_bytes: trailer.clear_bytes,
            same: comparison.is_same(),
        };
        let written = WrittenDiff {
            changes,
            base_digest: comparison.base_digest,
            target_digest: comparison.target_digest,
            length: len,
        };
        Ok((written, out))
    }

    fn begin(&self) {
        let larger = self.base.virtual_size().max(self.target.virtual_size());
        self.running.progress.begin("comparing", larger);
    }

    fn check_unchanged(&self) -> Result<()> {
        self.base.check_unchanged()?;
        self.target.check_unchanged()
    }
}

impl std::fmt::Debug for Diff<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Diff")
            .field("program", &PROGRAM)
            .field("base", &self.base.path())
            .field("target", &self.target.path())
            .finish_non_exhaustive()
    }
}
